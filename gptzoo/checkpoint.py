"""A checkpoint directory: config.json and safetensors, single or sharded, read strictly and written atomically.

Names, shapes and files are those of Hugging Face Transformers. No framework is imported here.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from operator import methodcaller
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gptzoo import weights
from gptzoo._files import naming, save_files, write_file, write_synced
from gptzoo._load import (
    LoadPlan,
    LoadReport,
    common_dtype,
    config_overrides,
    given_config,
    plan_load,
    refuse_foreign,
)
from gptzoo._safetensors import is_text_map, read_header, write_tensors
from gptzoo._shards import byte_count, index_text, read_shards, split
from gptzoo._tensors import TensorFile, TensorInfo, contiguous_bytes, shown
from gptzoo.config import CONFIG_FILE, DTYPES, AutoConfig, GPTConfig
from gptzoo.errors import CheckpointError, ConfigError
from gptzoo.heads import class_name
from gptzoo.hub import HubOptions, Kind, resolve

__all__ = [
    "Checkpoint",
    "LoadPlan",
    "LoadReport",
    "TensorInfo",
    "config_overrides",
    "given_config",
    "open_checkpoint",
    "plan_load",
    "refuse_foreign",
    "save_checkpoint",
    "write_file",
]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# What a save writes, and what of an earlier save it removes.
_OURS = re.compile(
    r"(generation_)?config\.json|model\.safetensors|model\.safetensors\.index\.json|model-\d{5}-of-\d{5}\.safetensors"
)
_FOREIGN_FORMATS = ("tf", "flax")  # names in safetensors metadata: of TensorFlow's and Flax's own layouts

Tensors = Mapping[str, "np.ndarray | Callable[[], np.ndarray]"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose config and headers were read, and of whose tensors none was.

    Attributes:
        path: the directory.
        config: as stored; its class says the family.
        tensors: name as stored -> file, dtype and shape.
        files: name -> what the header of that file says.
        format: of the files, as `gptzoo convert` names it.
    """

    path: Path
    config: GPTConfig
    tensors: dict[str, TensorInfo]
    files: dict[str, TensorFile] = field(repr=False)
    format: str = "safetensors"

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor, fresh and writable; bfloat16 as `ml_dtypes.bfloat16`.

        Raises:
            CheckpointError: there is no such tensor, or the file changed or became unreadable.
        """
        if name not in self.tensors:
            raise CheckpointError(f"{self.path}: no tensor {shown(name)}")
        return self.files[self.tensors[name].file].read(name)

    def where(self, name: str) -> str:
        """Returns the file and the name of a tensor in it, for messages."""
        return f"{self.tensors[name].file}: {shown(name)}"

    def is_equal(self, one: str, other: str) -> bool:
        """Whether two tensors are the same bits; little of them is in memory at a time."""
        a, b = self.tensors[one], self.tensors[other]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        pieces = zip_longest(self.files[a.file].chunks(one), self.files[b.file].chunks(other))
        return all(x == y for x, y in pieces)


def open_checkpoint(path: str | Path, config: GPTConfig | None = None, options: HubOptions | None = None) -> Checkpoint:
    """Reads the config and the headers of a checkpoint, and no tensor.

    Args:
        path: a directory, a file of a format that `gptzoo_conversion` reads, or the name of a model: bundled, or on
            the Hugging Face hub.
        config: in place of what a file says that has no config.json beside it.
        options: which files a name on the hub stands for, and where they are kept.

    Raises:
        CheckpointError: a file is absent, broken, or of a kind that gptzoo does not read.
        ConfigError: config.json is absent or wrong.
    """
    local = locate_path(path, options=options)
    with naming(local):
        found = _find_weights(local) if local.is_dir() else None
        if found is None:
            return _open_foreign(local, config)
        stored = AutoConfig.from_pretrained(local)
    files = read_shards(found, read_header) if found.name == INDEX_FILE else {WEIGHTS_FILE: read_header(found)}
    if any(file.metadata.get("format") in _FOREIGN_FORMATS for file in files.values()):
        return _open_foreign(local, config)
    tensors = {name: info for file in files.values() for name, info in file.tensors.items()}
    return Checkpoint(local, stored, tensors, files)


def locate_path(path: str | Path, kind: Kind = "model", options: HubOptions | None = None) -> Path:
    """Returns a path that is there; or the prefix of a TensorFlow checkpoint, which is not there by itself."""
    is_prefix = isinstance(path, str | Path) and path and not os.path.exists(path) and os.path.isfile(f"{path}.index")
    return Path(path) if is_prefix else resolve(path, kind, options)


def _find_weights(directory: Path) -> Path | None:
    """Returns the safetensors file, or the index of several."""
    found = [path for name in (WEIGHTS_FILE, INDEX_FILE) if (path := directory / name).exists()]
    if len(found) == 2:
        both = f"holds both {WEIGHTS_FILE} and {INDEX_FILE}"
        raise CheckpointError(f"{directory}: {both}; remove the one that is not meant")
    return found[0] if found else None


def _open_foreign(path: Path, config: GPTConfig | None) -> Checkpoint:
    """Opens a checkpoint in a format of other software; what is assumed about it is a warning."""
    from gptzoo_conversion import open_foreign  # the one way back: conversion builds on this module

    beside = (path if path.is_dir() else path.parent) / CONFIG_FILE
    checkpoint = open_foreign(path, config=None if beside.exists() else config)
    for note in checkpoint.assumed:
        warnings.warn(f"{path}: {note}", stacklevel=4)
    return checkpoint


def save_checkpoint(
    directory: str | Path,
    config: GPTConfig,
    head: str,
    tensors: Tensors,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    extra: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a checkpoint that Transformers, and the models of all three frameworks here, load as it is.

    The same input gives the same bytes. An earlier checkpoint in the directory is replaced, other files stay.

    Args:
        directory: made if absent.
        config: is written with `architectures` and `dtype` as they are in truth; itself it is not changed.
        head: key of `gptzoo.heads.HEADS`.
        tensors: canonical name -> array, or a function that returns it, which is called twice. Those that the config
            ties may be absent; they are not written.
        max_shard_size: in bytes, or as "200KB" or "5GB", in powers of 1000; a larger tensor is a shard by itself.
        metadata: of the safetensors files, beside "format".
        extra: further files, by name.

    Raises:
        CheckpointError: lists every tensor that does not fit the model; or names the fault of the disk, after which
            the directory is as it was.
    """
    directory = Path(directory)
    config = deepcopy(config)
    config.validate()
    limit = byte_count(max_shard_size)
    infos = _measure(directory, config, head, tensors)
    config.architectures = [class_name(config, head)]
    config.dtype = common_dtype(info.dtype for info in infos.values())
    constants = weights.constants(config, head, config.dtype)
    infos |= {name: _info(array) for name, array in constants.items()}
    tensors = {**tensors, **constants}
    shards = split(infos, limit, WEIGHTS_FILE)
    text = _config_text(config)
    labels = dict(metadata or {}) | {"format": "pt"}
    if not is_text_map(labels):
        raise CheckpointError(f"metadata: {shown(metadata)}, expected a map of texts")

    def write(stage: Path) -> None:
        for file, part in shards.items():
            write_synced(stage / file, partial(_write_shard, part=part, tensors=tensors, metadata=labels))
        if WEIGHTS_FILE not in shards:
            write_synced(stage / INDEX_FILE, lambda out: out.write(index_text(shards)))
        for file, content in {**(extra or {}), CONFIG_FILE: text}.items():
            write_synced(stage / file, methodcaller("write", content))

    save_files(directory, write, _OURS, last=CONFIG_FILE)


def _config_text(config: GPTConfig) -> bytes:
    try:
        return config.to_json_string().encode()
    except (TypeError, ValueError) as problem:
        raise ConfigError(f"{CONFIG_FILE}: cannot be written ({problem})") from None


def _measure(directory: Path, config: GPTConfig, head: str, tensors: Tensors) -> dict[str, TensorInfo]:
    """Returns dtype and shape of each weight to be written, in the order of the table.

    Raises:
        CheckpointError: lists every weight that is missing, unknown, of another shape or dtype, or tied and different.
    """
    specs = weights.specs(config, head)
    infos: dict[str, TensorInfo] = {}
    problems = [f"unexpected {shown(name)}" for name in tensors if name not in specs]
    for name, spec in specs.items():
        if name not in tensors:
            problems += [] if spec.tied else [f"missing {name}"]
            continue
        info = _info(_array(tensors[name]))
        if info.shape != spec.shape:
            problems.append(f"{name}: shape {info.shape}, expected {spec.shape} ({spec.row.shape})")
        elif info.dtype not in DTYPES:
            problems.append(f"{name}: dtype {info.dtype}, expected one of {', '.join(DTYPES)}")
        elif not spec.tied:
            infos[name] = info
        elif spec.tied in tensors and not _same_bits(_array(tensors[name]), _array(tensors[spec.tied])):
            problems.append(f"{name}: differs from {spec.tied}, expected equal (tie_word_embeddings)")
    if problems:
        raise CheckpointError.listing(f"{directory}: not a {class_name(config, head)}", problems)
    return infos


def _array(tensor: np.ndarray | Callable[[], np.ndarray]) -> np.ndarray:
    return np.asarray(tensor() if callable(tensor) else tensor)


def _info(array: np.ndarray, file: str = "") -> TensorInfo:
    return TensorInfo(file, array.dtype.name, array.shape)


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return _info(one) == _info(other) and np.array_equal(contiguous_bytes(one), contiguous_bytes(other))


def _write_shard(file: BinaryIO, part: dict[str, TensorInfo], tensors: Tensors, metadata: dict[str, str]) -> None:
    def read(name: str) -> np.ndarray:
        array = _array(tensors[name])
        if _info(array) != part[name]:
            raise CheckpointError(f"{name}: changed its shape or dtype while it was saved")
        return array

    write_tensors(file, part, read, metadata)
