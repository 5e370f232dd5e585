"""A checkpoint directory: config.json and safetensors, single or sharded, read strictly and written atomically.

Names, shapes and files are those of Hugging Face Transformers. No framework is imported here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gptzoo import limits, weights
from gptzoo._files import naming, save_files, write_file, write_synced
from gptzoo._json import read_json_object
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
from gptzoo._tensors import TensorFile, TensorInfo, contiguous_bytes, shown
from gptzoo.config import CONFIG_FILE, DTYPES, AutoConfig, GPTConfig
from gptzoo.errors import CheckpointError, ConfigError
from gptzoo.heads import class_name
from gptzoo.hub import resolve

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
_OURS = re.compile(r"config\.json|model\.safetensors|model\.safetensors\.index\.json|model-\d{5}-of-\d{5}\.safetensors")
_PLAIN_NAME = re.compile(r"(?!\.+$)[A-Za-z0-9._-]+")
_FOREIGN_FILES = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "tf_model.h5",
    "tf_model.h5.index.json",
    "flax_model.msgpack",
    "flax_model.msgpack.index.json",
    "model.ckpt.index",
)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([KMGT]?)B")
_FOREIGN_FORMATS = {"tf": "TensorFlow", "flax": "Flax"}

Tensors = Mapping[str, "np.ndarray | Callable[[], np.ndarray]"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose config and headers were read, and of whose tensors none was.

    Attributes:
        path: the directory.
        config: as stored; its class says the family.
        tensors: name as stored -> file, dtype and shape.
        files: name -> what the header of that file says.
    """

    path: Path
    config: GPTConfig
    tensors: dict[str, TensorInfo]
    files: dict[str, TensorFile] = field(repr=False)

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor, fresh and writable; bfloat16 as `ml_dtypes.bfloat16`.

        Raises:
            CheckpointError: there is no such tensor, or the file changed or became unreadable.
        """
        if name not in self.tensors:
            raise CheckpointError(f"{self.path}: no tensor {shown(name)}")
        return self.files[self.tensors[name].file].read(name)

    def is_equal(self, one: str, other: str) -> bool:
        """Whether two tensors are the same bits; little of them is in memory at a time."""
        a, b = self.tensors[one], self.tensors[other]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        pieces = zip_longest(self.files[a.file].chunks(one), self.files[b.file].chunks(other))
        return all(x == y for x, y in pieces)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Reads the config and the headers of a checkpoint, and no tensor.

    Args:
        path: a directory, or the name of a bundled model.

    Raises:
        CheckpointError: a file is absent, broken, or of a kind that gptzoo does not read.
        ConfigError: config.json is absent or wrong.
    """
    directory = resolve(path)
    with naming(directory):
        if not directory.is_dir():
            found = "a file, expected the directory that holds it" if directory.exists() else "no such directory"
            raise CheckpointError(f"{directory}: {found}")
        shards = _find_weights(directory)
        config = AutoConfig.from_pretrained(directory)
    files = _read_headers(directory, shards)
    for file in files.values():
        if software := _FOREIGN_FORMATS.get(file.metadata.get("format", "")):
            raise CheckpointError(f"{file.path}: written by {software}, in names that gptzoo cannot read yet")
    tensors = {name: info for file in files.values() for name, info in file.tensors.items()}
    return Checkpoint(directory, config, tensors, files)


def _find_weights(directory: Path) -> dict[str, set[str]]:
    """Returns the tensors that each weight file should hold by the index; none if there is a single file."""
    found = [name for name in (WEIGHTS_FILE, INDEX_FILE) if (directory / name).exists()]
    if len(found) == 2:
        raise CheckpointError(f"{directory}: holds both {' and '.join(found)}; remove the one that is not meant")
    if found == [INDEX_FILE]:
        return _read_index(directory / INDEX_FILE)
    if not found:
        foreign = [name for name in _FOREIGN_FILES if (directory / name).exists()]
        also = f" (there is {', '.join(foreign)}, which gptzoo cannot read yet)" if foreign else ""
        raise CheckpointError(f"{directory}: no {WEIGHTS_FILE} and no {INDEX_FILE}{also}")
    return {}


def _read_index(path: Path) -> dict[str, set[str]]:
    weight_map = read_json_object(path, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: weight_map: {shown(weight_map)}, expected a map from tensor to file")
    problems, shards = [], dict[str, set[str]]()
    for name, file in weight_map.items():
        if isinstance(file, str) and _PLAIN_NAME.fullmatch(file):
            shards.setdefault(file, set()).add(name)
        else:
            problems.append(f"weight_map[{shown(name)}]: {shown(file)} is not a plain file name")
    if problems:
        raise CheckpointError.listing(str(path), problems)
    return shards


def _read_headers(directory: Path, shards: dict[str, set[str]]) -> dict[str, TensorFile]:
    if not shards:
        return {WEIGHTS_FILE: read_header(directory / WEIGHTS_FILE)}
    files, problems, count = {}, [], 0
    for name in sorted(shards):
        try:
            files[name] = read_header(directory / name)
        except CheckpointError as problem:
            problems.append(str(problem))
            continue
        if (count := count + len(files[name].tensors)) > limits.MAX_TENSORS:
            raise CheckpointError(f"{directory / INDEX_FILE}: more than {limits.MAX_TENSORS} tensors")
        held = set(files[name].tensors)
        problems += [f"{name}: no {shown(one)}, which the index says is there" for one in sorted(shards[name] - held)]
        problems += [f"{name}: holds {shown(one)}, which the index does not say" for one in sorted(held - shards[name])]
    if problems:
        raise CheckpointError.listing(str(directory / INDEX_FILE), problems)
    return files


def save_checkpoint(
    directory: str | Path,
    config: GPTConfig,
    head: str,
    tensors: Tensors,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
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

    Raises:
        CheckpointError: lists every tensor that does not fit the model; or names the fault of the disk, after which
            the directory is as it was.
    """
    directory = Path(directory)
    config = deepcopy(config)
    config.validate()
    limit = _byte_count(max_shard_size)
    infos = _measure(directory, config, head, tensors)
    config.architectures = [class_name(config, head)]
    config.dtype = common_dtype(info.dtype for info in infos.values())
    constants = weights.constants(config, head, config.dtype)
    infos |= {name: _info(array) for name, array in constants.items()}
    tensors = {**tensors, **constants}
    shards = _shards(infos, limit)
    text = _config_text(config)
    labels = dict(metadata or {}) | {"format": "pt"}
    if not is_text_map(labels):
        raise CheckpointError(f"metadata: {shown(metadata)}, expected a map of texts")

    def write(stage: Path) -> None:
        for file, part in shards.items():
            write_synced(stage / file, partial(_write_shard, part=part, tensors=tensors, metadata=labels))
        if WEIGHTS_FILE not in shards:
            write_synced(stage / INDEX_FILE, lambda out: out.write(_index(shards)))
        write_synced(stage / CONFIG_FILE, lambda out: out.write(text))

    save_files(directory, write, _OURS, last=CONFIG_FILE)


def _config_text(config: GPTConfig) -> bytes:
    try:
        return config.to_json_string().encode()
    except (TypeError, ValueError) as problem:
        raise ConfigError(f"{CONFIG_FILE}: cannot be written ({problem})") from None


def _byte_count(size: int | str) -> int:
    match = _SIZE.fullmatch(size.strip().upper()) if isinstance(size, str) else None
    count = int(float(match[1]) * _UNITS[match[2]]) if match else size
    if type(count) is not int or count < 1:
        raise CheckpointError(f"max_shard_size: {size!r}, expected a number of bytes, or text such as 200KB or 5GB")
    return count


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


def _shards(infos: dict[str, TensorInfo], limit: int) -> dict[str, dict[str, TensorInfo]]:
    """Returns the tensors of each file; files are filled in the order of the table."""
    parts: list[dict[str, TensorInfo]] = [{}]
    size = 0
    for name, info in infos.items():
        if parts[-1] and size + info.nbytes > limit:
            parts.append({})
            size = 0
        parts[-1][name] = info
        size += info.nbytes
    if len(parts) == 1:
        return {WEIGHTS_FILE: parts[0]}
    return {f"model-{i:05d}-of-{len(parts):05d}.safetensors": part for i, part in enumerate(parts, 1)}


def _index(shards: dict[str, dict[str, TensorInfo]]) -> bytes:
    infos = [info for part in shards.values() for info in part.values()]
    metadata = {"total_parameters": sum(i.size for i in infos), "total_size": sum(i.nbytes for i in infos)}
    weight_map = {name: file for file, part in shards.items() for name in part}
    return (json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n").encode()


def _write_shard(file: BinaryIO, part: dict[str, TensorInfo], tensors: Tensors, metadata: dict[str, str]) -> None:
    def read(name: str) -> np.ndarray:
        array = _array(tensors[name])
        if _info(array) != part[name]:
            raise CheckpointError(f"{name}: changed its shape or dtype while it was saved")
        return array

    write_tensors(file, part, read, metadata)
