"""Orbax checkpoints of one tree of arrays, read one leaf at a time, and written as plain files of Zarr 2.

A checkpoint is a directory: `_METADATA` says the tree, and each leaf is a Zarr array, in a database of its own (OCDBT)
or as a directory. Reading goes through TensorStore, which Orbax brings; neither Orbax nor JAX is imported, so it does
not matter on which devices the arrays were. Ours need neither, and hold no clock and no random names.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gptzoo import limits
from gptzoo._files import naming, write_synced
from gptzoo._json import read_json_object
from gptzoo._tensors import Read, TensorFile, TensorInfo, contiguous_bytes, shown
from gptzoo.errors import CheckpointError, MissingExtraError
from gptzoo_conversion.containers._parts import stamp_at

_INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("bool", *_INTS, "float16", "bfloat16", "float32", "float64")

_METADATA = "_METADATA"
_MANIFEST = "manifest.ocdbt"
_TEMPORARY = ".orbax-checkpoint-tmp"

# Orbax's words for what a leaf was: arrays, and what holds none.
_ARRAYS = ("jax.Array", "np.ndarray", "scalar")
_EMPTY = ("None", "Dict", "List", "Tuple", "NamedTuple")
_DICT_KEY = 2

_VALUE = "value"  # the last key of each leaf, where a state of NNX variables was saved

_COPY = 2**20
_SLACK = 64 * 2**20  # small constant arrays may be compressed as well as they can
_MAX_CHUNKS = 100_000  # of one array

Keys = tuple[str, ...]


@dataclass(frozen=True)
class OrbaxDirectory(TensorFile):
    """A checkpoint whose tree was read; `path` is its directory, and `nbytes` the size of all files in it.

    Attributes:
        leaves: name -> the leaf's name in the checkpoint.
        zarr3: whether its arrays are Zarr 3, not 2.
        stamps: name -> stamp of the leaf's own directory, if it has one.
    """

    leaves: dict[str, str]
    zarr3: bool
    stamps: dict[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray:
        """Returns one leaf: a fresh, writable array. No other is read."""
        import tensorstore

        self.require_same(name)
        info, store = self.tensors[name], _attempt(self.path, name, lambda: self.store(name))
        if (store.dtype.name, tuple(store.shape)) != (info.dtype, info.shape):
            raise CheckpointError(f"{self.path}: changed since its header was read")
        if plain := self.plain(name):
            array = plain.read(name)
        else:
            array = np.empty(info.shape, np.dtype(info.dtype))  # ours: TensorStore's would leave more memory behind
            _attempt(self.path, name, lambda: tensorstore.array(array).write(store).result())
        self.require_same(name)
        return array

    def plain(self, name: str) -> TensorFile | None:
        """Returns the file that is a leaf's bytes and no more, if it lies as `write_orbax` writes it.

        (TensorStore would take twice the memory of the leaf.)
        """
        info, directory = self.tensors[name], self.path / self.leaves[name]
        path = directory / _chunk_name(info)
        if name not in self.stamps or self.zarr3 or not path.is_file():
            return None
        header, stamp = read_json_object(directory / ".zarray", CheckpointError), stamp_at(path)
        return TensorFile(path, {name: info}, {}, stamp) if (header, stamp[2]) == (_header(info), info.nbytes) else None

    def chunks(self, name: str) -> Iterator[bytearray]:
        """Yields a leaf's bytes piece by piece, of the leaf read whole."""
        data = contiguous_bytes(self.read(name)).data
        for begin in range(0, len(data), _COPY):
            yield bytearray(data[begin : begin + _COPY])

    def require_same(self, name: str) -> None:
        """Checks that a leaf is as it was; of one in the database, that all is."""
        is_same = self.own_stamp(name) == self.stamps[name] if name in self.stamps else _stamp(self.path) == self.stamp
        if not is_same:
            raise CheckpointError(f"{self.path}: changed since its header was read")

    def own_stamp(self, name: str) -> tuple[int, ...]:
        return _stamp(self.path / self.leaves[name], self.path.resolve())

    def store(self, name: str) -> Any:
        """Opens a leaf by TensorStore."""
        import tensorstore

        base = {"driver": "file", "path": f"{self.path.resolve()}/"}
        leaf = f"{self.leaves[name]}/"
        if (self.path / _MANIFEST).exists():
            kvstore: dict[str, Any] = {"driver": "ocdbt", "base": base, "path": leaf}
        else:
            kvstore = base | {"path": base["path"] + leaf}
        # What is missing is an error: by default, it would be zeros.
        spec = {"driver": "zarr3" if self.zarr3 else "zarr", "kvstore": kvstore, "fill_missing_data_reads": False}
        return tensorstore.open(spec, open=True, read=True).result()


def _attempt(directory: Path, name: str, work: Callable[[], Any]) -> Any:
    """Turns TensorStore's errors, which are of many types and many lines, into ours."""
    try:
        return work()
    except Exception as problem:
        text = str(problem).replace(f"{directory.resolve()}/", "")
        text = text.partition(" [tensorstore_spec=")[0].partition(" [source locations=")[0]
        raise CheckpointError(f"{directory}: {shown(name)}: {shown(text, 400)}") from None


def read_orbax(directory: Path) -> OrbaxDirectory:
    """Reads what a checkpoint says of its tree and of each array in it.

    Returns:
        Names are the keys of the tree joined by "."; a last key "value" that every leaf has, as in a saved
        `nnx.State`, is left out. Metadata is the checkpoint's `custom_metadata`.

    Raises:
        CheckpointError: lists the leaves that are wrong; the directory is uncommitted or leads out of itself.
        MissingExtraError: TensorStore is not installed.
    """
    if find_spec("tensorstore") is None:
        raise MissingExtraError("Orbax checkpoints need orbax-checkpoint: pip install 'gptzoo[orbax]'")
    stamp = _stamp(directory)
    tree = _tree(directory)
    leaves = _leaves(directory, tree)
    custom = tree.get("custom_metadata")
    zarr3 = tree.get("use_zarr3", False) is True
    file = OrbaxDirectory(directory, {}, custom if isinstance(custom, dict) else {}, stamp, leaves, zarr3, {})
    limit = stamp[2] * limits.MAX_ZIP_RATIO + _SLACK
    for name, leaf in leaves.items():
        if (directory / leaf).is_dir():
            file.stamps[name] = file.own_stamp(name)
        info = _info(file, name, limit)
        limit -= info.nbytes
        file.tensors[name] = info
    # TensorStore takes the memory for a whole file, and ends the process where there is none.
    most, largest = 2 * sum(info.nbytes for info in file.tensors.values()) + _SLACK, max(stamp[4::3])
    if largest > most:
        raise CheckpointError(f"{directory}: a file of {largest} bytes, expected at most {most} for its arrays")
    return file


def _stamp(directory: Path, within: Path | None = None) -> tuple[int, ...]:
    """Returns what changes when a directory does: its device, inode, size, and each file's inode, size and time.

    Args:
        within: the checkpoint that it is in; None: it is the checkpoint.

    Raises:
        CheckpointError: not a committed checkpoint, or something in it is neither file nor directory, or lies outside.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: {'not a directory' if directory.exists() else 'no such directory'}")
    with naming(directory):
        root = directory.resolve()
        if any(_TEMPORARY in part for part in (*directory.parts, *root.parts)):
            raise CheckpointError(
                f"{directory}: an uncommitted checkpoint ({_TEMPORARY} in its name): saving was cut short"
            )
        status, total, files = root.stat(), 0, []
        for path in _inside(root):
            found = _regular(directory, within or root, path)
            total += found.st_size
            files += [found.st_ino, found.st_size, found.st_mtime_ns]
    return (status.st_dev, status.st_ino, total, *files)


def _inside(root: Path) -> Iterator[str]:
    """Yields the paths of all files in a directory, and of links, in one order."""
    for place, directories, files in os.walk(root):
        directories.sort()
        links = [name for name in directories if os.path.islink(os.path.join(place, name))]
        yield from (os.path.join(place, name) for name in sorted(files + links))


def _regular(directory: Path, root: Path, path: str) -> os.stat_result:
    name = shown(os.path.relpath(path, root))
    if os.path.islink(path) and not Path(path).resolve().is_relative_to(root):
        raise CheckpointError(f"{directory}: {name}: a link out of the checkpoint; refused")
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise CheckpointError(f"{directory}: {name}: a pipe or device, expected a file")
    return status


def _tree(directory: Path) -> dict[str, Any]:
    if not (directory / _METADATA).exists():
        inner = " (give the directory 'default' in it)" if (directory / "default" / _METADATA).exists() else ""
        raise CheckpointError(f"{directory}: no {_METADATA}, expected a committed Orbax checkpoint of one tree{inner}")
    return read_json_object(directory / _METADATA, CheckpointError)


def _leaves(directory: Path, tree: dict[str, Any]) -> dict[str, str]:
    """Returns the name of each array, and that under which the checkpoint holds it."""
    entries = tree.get("tree_metadata")
    if not isinstance(entries, dict) or len(entries) > limits.MAX_TENSORS:
        raise CheckpointError(f"{directory / _METADATA}: tree_metadata: expected at most {limits.MAX_TENSORS} leaves")
    found: list[Keys] = []
    problems = []
    for place, entry in entries.items():
        keys, fault = _leaf(entry)
        if fault:
            problems.append(f"{shown(place)}: {fault}")
        elif keys:
            found.append(keys)
    if len(set(found)) < len(found):
        problems.append("tree_metadata: a leaf stands twice")
    if problems:
        raise CheckpointError.listing(str(directory / _METADATA), problems)
    strip = bool(found) and all(len(keys) > 1 and keys[-1] == _VALUE for keys in found)
    return {".".join(keys[:-1] if strip else keys): ".".join(keys) for keys in found}


def _leaf(entry: Any) -> tuple[Keys, str | None]:
    """Returns the keys of a leaf, none if it is not an array but empty; and what is wrong with it."""
    try:
        keys = tuple(str(part["key"]) if type(part["key"]) is int else part["key"] for part in entry["key_metadata"])
        kind = entry["value_metadata"]["value_type"]
    except (KeyError, TypeError):
        return (), f"{shown(entry)}, expected key_metadata and value_metadata"
    if kind in _EMPTY:
        return (), None
    if kind not in _ARRAYS:
        return (), f"{shown(kind)}, expected an array ({', '.join(_ARRAYS)})"
    if not keys or not all(isinstance(key, str) and _plain(key) for key in keys):
        return (), f"keys {shown(list(keys))}, expected texts without . / \\ and control characters"
    if len(".".join(keys).encode(errors="replace")) > limits.MAX_NAME_BYTES:
        return (), f"a name of more than {limits.MAX_NAME_BYTES} bytes"
    return keys, None


def _plain(key: str) -> bool:
    return key != "" and key.isprintable() and not set(key) & set("./\\")


def _info(file: OrbaxDirectory, name: str, limit: int) -> TensorInfo:
    """Returns dtype and shape of a leaf, checked against what the checkpoint's bytes can hold."""
    store = _attempt(file.path, name, lambda: file.store(name))
    dtype, shape = store.dtype.name, tuple(store.shape)
    chunk = tuple(size or 1 for size in store.chunk_layout.read_chunk.shape or ())  # none for rank 0
    fault = None
    if dtype not in DTYPES:
        fault = f"dtype {shown(dtype)}, expected one of {', '.join(DTYPES)}"
    elif len(shape) > limits.MAX_RANK:
        fault = f"rank {len(shape)}, expected at most {limits.MAX_RANK}"
    elif max(math.prod(size or 1 for size in sizes) for sizes in (shape, chunk)) * np.dtype(dtype).itemsize > limit:
        fault = (
            f"shape {list(shape)} in chunks of {list(chunk)}, expected at most {limit} bytes by the checkpoint's size"
        )
    elif math.prod(-(-size // part) for size, part in zip(shape, chunk, strict=True)) > _MAX_CHUNKS:
        fault = f"shape {list(shape)} in chunks of {list(chunk)}, expected at most {_MAX_CHUNKS} chunks"
    if fault:
        raise CheckpointError(f"{file.path}: {shown(name)}: {fault}")
    return TensorInfo(file.path.name, dtype, shape)


def write_orbax(directory: Path, infos: Mapping[str, TensorInfo], read: Read, metadata: Mapping[str, Any]) -> None:
    """Writes a new directory that Orbax restores as nested dicts of NumPy arrays, whose keys are texts.

    Each array is one chunk, not compressed: nothing but `_METADATA` and Zarr's files, the same for the same input.
    `_METADATA` comes last; without it, the directory is no checkpoint.

    Args:
        infos: "." in a name begins a dict within a dict.
        metadata: the checkpoint's `custom_metadata`, of values that JSON has.

    Raises:
        CheckpointError: a name or dtype that the format cannot hold; a file cannot be written.
    """
    keys = {name: tuple(name.split(".")) for name in infos}
    if problems := [f"{shown(name)}: {fault}" for name in infos if (fault := _fault(name, infos[name], keys))]:
        raise CheckpointError.listing(str(directory), problems)
    tree = {
        "tree_metadata": {str(leaf): _entry(leaf) for leaf in keys.values()},
        "use_ocdbt": False,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
        "custom_metadata": dict(metadata) or None,
    }
    try:
        text = json.dumps(tree, allow_nan=False).encode()
    except (TypeError, ValueError) as problem:
        raise CheckpointError(f"{directory}: metadata: {problem}, expected what JSON can hold") from None
    with naming(directory):
        directory.mkdir()
        for name, info in infos.items():
            _write_leaf(directory / name, info, read(name))
        write_synced(directory / _METADATA, lambda file: file.write(text))


def _fault(name: str, info: TensorInfo, keys: Mapping[str, Keys]) -> str | None:
    """Says why a tensor cannot be written so that it can be read again."""
    parts = keys[name]
    if info.dtype not in DTYPES:
        return f"dtype {shown(info.dtype)}, expected one of {', '.join(DTYPES)}"
    if len(info.shape) > limits.MAX_RANK:
        return f"rank {len(info.shape)}, expected at most {limits.MAX_RANK}"
    if not all(map(_plain, parts)) or len(name.encode()) > limits.MAX_NAME_BYTES:
        return f"expected a name of at most {limits.MAX_NAME_BYTES} bytes, of words without / \\ and control characters"
    if any(".".join(parts[:count]) in keys for count in range(1, len(parts))):
        return "within another tensor's name, expected either"
    if all(len(leaf) > 1 and leaf[-1] == _VALUE for leaf in keys.values()):
        return f"expected a tensor whose name does not end with .{_VALUE}, which is left out when read"
    return None


def _entry(keys: Keys) -> dict[str, Any]:
    return {
        "key_metadata": [{"key": key, "key_type": _DICT_KEY} for key in keys],
        "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False},
    }


def _write_leaf(directory: Path, info: TensorInfo, array: np.ndarray) -> None:
    directory.mkdir()
    write_synced(directory / ".zarray", lambda file: file.write(json.dumps(_header(info)).encode()))
    if info.size:
        write_synced(directory / _chunk_name(info), lambda file: file.write(contiguous_bytes(array).data))


def _header(info: TensorInfo) -> dict[str, Any]:
    """Returns what Zarr says of an array that is one chunk, not compressed."""
    return {
        "chunks": [size or 1 for size in info.shape],
        "compressor": None,
        "dimension_separator": ".",
        "dtype": "bfloat16" if info.dtype == "bfloat16" else np.dtype(info.dtype).str,
        "fill_value": None,
        "filters": None,
        "order": "C",
        "shape": list(info.shape),
        "zarr_format": 2,
    }


def _chunk_name(info: TensorInfo) -> str:
    return ".".join("0" for _ in info.shape) or "0"
