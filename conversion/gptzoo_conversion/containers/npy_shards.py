"""OpenAI's files of GPT-1: `params_0.npy`, `params_1.npy` ... are one long vector, `params_shapes.json` cuts it up."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gptzoo import limits
from gptzoo._files import naming, stand_in, write_synced
from gptzoo._json import parse_json
from gptzoo._tensors import Read, TensorFile, TensorInfo, shown
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers._parts import PartedFile, pieces, read_whole, shape_fault, stamp_at

SHAPES_FILE = "params_shapes.json"
# NumPy's name -> what a header calls it.
DTYPES = {"float16": "<f2", "float32": "<f4", "float64": "<f8"}
_NAMES = {descr: name for name, descr in DTYPES.items()}

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}  # of the header's length, by version
_SHARD = re.compile(r"params_([0-9]+)\.npy")
# NumPy writes a dictionary with its keys in this order; anything else is not evaluated but refused.
_HEADER = re.compile(r"\{'descr': (.+?), 'fortran_order': (?:True|False), 'shape': \((.*?)\),? *\} *\n?")
_VECTOR = re.compile(r"(0|[1-9][0-9]{0,18}),")


def read_npy_shards(directory: Path) -> PartedFile:
    """Reads the shapes and the headers of the shards, and checks that they fit.

    Returns:
        The tensors "0", "1" ... in the order of the shapes; each may lie in several shards.

    Raises:
        CheckpointError: a file is absent, or claims what its size or the other files contradict.
    """
    path = directory / SHAPES_FILE
    text, stamp = read_whole(path, limits.MAX_CONFIG_BYTES)
    shapes = _shapes(path, text)
    shards = [_read_shard(directory / f"params_{number}.npy") for number in range(_count(directory))]
    dtype = shards[0].tensors["vector"].dtype
    for shard in shards:
        if (found := shard.tensors["vector"].dtype) != dtype:
            raise CheckpointError(f"{shard.path}: dtype {found}, expected {dtype} as in {shards[0].path.name}")
    for number, shape in enumerate(shapes):
        if fault := shape_fault(shape, dtype):
            raise CheckpointError(f"{path}: {number}: {fault}")
    return _cut_up(path, shapes, shards, stamp)


def _shapes(path: Path, data: bytes) -> list[list[int]]:
    try:
        shapes = parse_json(data.decode())
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{path}: not UTF-8 text ({problem.reason} at byte {problem.start})") from None
    except ValueError as problem:
        raise CheckpointError(f"{path}: {shown(str(problem), 200)}") from None
    if not isinstance(shapes, list) or len(shapes) > limits.MAX_TENSORS:
        raise CheckpointError(f"{path}: {shown(shapes)}, expected a list of at most {limits.MAX_TENSORS} shapes")
    for number, shape in enumerate(shapes):
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise CheckpointError(f"{path}: {number}: {shown(shape)}, expected a list of sizes")
    return shapes


def _count(directory: Path) -> int:
    """Returns how many shards there are, numbered without holes."""
    with naming(directory):
        matches = [match for name in os.listdir(directory) if (match := _SHARD.fullmatch(name))]
    if len(matches) > limits.MAX_NPY_FILES:
        raise CheckpointError(
            f"{directory}: {len(matches)} files params_*.npy, expected at most {limits.MAX_NPY_FILES}"
        )
    names = {match[0] for match in matches}
    expected = [f"params_{number}.npy" for number in range(max(len(names), 1))]
    if absent := [name for name in expected if name not in names]:
        others = ", ".join(sorted(names - set(expected))[:3]) or "no params_*.npy"
        raise CheckpointError(f"{directory / absent[0]}: no such file, though there is {shown(others)}")
    return len(expected)


def _read_shard(path: Path) -> TensorFile:
    """Reads the header of one shard: a vector, under the name "vector", that fills the file."""
    whole = TensorFile(path, {}, {}, stamp_at(path))
    header = bytearray(min(whole.nbytes, limits.MAX_NPY_HEADER_BYTES + 12))
    with whole.opened() as file:
        whole.fill(file, memoryview(header))
    text, start = _header_text(path, bytes(header))
    match = _HEADER.fullmatch(text)
    if not match:
        raise CheckpointError(f"{path}: header {shown(text)}, expected descr, fortran_order and shape")
    info = TensorInfo(path.name, _dtype(path, match[1]), (_length(path, match[2]),), start)
    end = start + info.nbytes
    if end != whole.nbytes:
        hint = " (cut off)" if whole.nbytes < end else ""
        raise CheckpointError(f"{path}: {whole.nbytes} bytes, expected {end} for {info.dtype} {list(info.shape)}{hint}")
    return TensorFile(path, {"vector": info}, {}, whole.stamp)


def _header_text(path: Path, data: bytes) -> tuple[str, int]:
    """Returns the header's text, and where the numbers begin."""
    if diagnosis := stand_in(data[:64]):
        raise CheckpointError(f"{path}: {diagnosis}")
    if not data.startswith(_MAGIC):
        raise CheckpointError(f"{path}: begins with {data[:8]!r}, expected {_MAGIC!r} (not an .npy file)")
    version, width = data[6:8], _LENGTH_BYTES.get(data[6:8])
    if width is None:
        raise CheckpointError(f"{path}: version {list(version)}, expected [1, 0], [2, 0] or [3, 0]")
    begin = 8 + width
    length = int.from_bytes(data[8:begin], "little")
    if length > min(limits.MAX_NPY_HEADER_BYTES, len(data) - begin):
        limit = min(limits.MAX_NPY_HEADER_BYTES, max(len(data) - begin, 0))
        raise CheckpointError(f"{path}: header of {length} bytes, expected at most {limit} (cut off?)")
    return data[begin : begin + length].decode("latin-1"), begin + length


def _dtype(path: Path, descr: str) -> str:
    name = _NAMES.get(descr.strip("'")) if descr[0] == descr[-1] == "'" else None
    if name:
        return name
    known = " or ".join(f"'{known}'" for known in _NAMES)
    kind = " (Python objects, never unpickled here)" if "O" in descr else " (big-endian)" if ">" in descr else ""
    raise CheckpointError(f"{path}: descr {shown(descr)}{kind}, expected {known}")


def _length(path: Path, shape: str) -> int:
    match = _VECTOR.fullmatch(shape)
    if not match:
        raise CheckpointError(f"{path}: shape {shown(f'({shape})')}, expected one dimension, such as (5,)")
    return int(match[1])


def _cut_up(path: Path, shapes: list[list[int]], shards: list[TensorFile], stamp: tuple[int, ...]) -> PartedFile:
    """Gives each tensor its piece of the vector that the shards are together."""
    vectors = [shard.tensors["vector"] for shard in shards]
    starts = [0, *accumulate(vector.size for vector in vectors)]  # in the vector, of shards
    parts = [TensorFile(shard.path, {}, {}, shard.stamp) for shard in shards]
    tensors, begin = {}, 0
    for number, shape in enumerate(shapes):
        info = TensorInfo("", vectors[0].dtype, tuple(shape))
        first = min(bisect_right(starts, begin), len(shards)) - 1
        tensors[str(number)] = _piece(vectors[first], info.shape, begin - starts[first])
        end = begin + info.size
        while begin < end <= starts[-1]:
            shard = bisect_right(starts, begin) - 1
            count = min(end, starts[shard + 1]) - begin
            parts[shard].tensors[str(number)] = _piece(vectors[shard], (count,), begin - starts[shard])
            begin += count
        begin = end
    if begin != starts[-1]:
        found = f"{starts[-1]} numbers in {shards[0].path.name} to {shards[-1].path.name}"
        hint = f" (is params_{len(shards)}.npy missing?)" if begin > starts[-1] else ""
        raise CheckpointError(f"{path}: {found}, expected {begin} for {len(shapes)} shapes{hint}")
    return PartedFile(path, tensors, {}, stamp, tuple(parts))


def _piece(vector: TensorInfo, shape: tuple[int, ...], place: int) -> TensorInfo:
    return TensorInfo(vector.file, vector.dtype, shape, vector.start + place * np.dtype(vector.dtype).itemsize)


def write_npy_shards(
    directory: Path, infos: Mapping[str, TensorInfo], read: Read, metadata: Mapping[str, Any], shards: int = 10
) -> None:
    """Writes the shards, near-equal in length, and the shapes last; of the tensors, one at a time is in memory.

    Args:
        directory: is there, and holds no such files.
        infos: "0", "1" ... -> dtype, the same for all, and shape of the tensor that `read` returns for it.
        metadata: not written, since the files hold tensors only.

    Raises:
        CheckpointError: the tensors are not what such files can hold, or a file cannot be written.
    """
    path = directory / SHAPES_FILE
    if not 1 <= shards <= limits.MAX_NPY_FILES:
        raise CheckpointError(f"{directory}: {shards} shards, expected 1 to {limits.MAX_NPY_FILES}")
    dtype = next((info.dtype for info in infos.values()), "float32")
    if problems := _unwritable(infos, dtype):
        raise CheckpointError.listing(str(path), problems)
    stream = _Stream(piece for name, info in infos.items() for piece in pieces(name, info, read))
    whole, rest = divmod(sum(info.size for info in infos.values()), shards)
    for number in range(shards):
        _write_shard(directory / f"params_{number}.npy", DTYPES[dtype], whole + (number < rest), stream)
    text = json.dumps([list(info.shape) for info in infos.values()])
    with naming(path):
        write_synced(path, lambda file: file.write(text.encode()))


def _unwritable(infos: Mapping[str, TensorInfo], dtype: str) -> list[str]:
    faults = []
    for number, (name, info) in enumerate(infos.items()):
        if name != str(number):
            faults.append(f"{shown(name)}: a name, expected {number} (the files hold an order, and no names)")
        if info.dtype not in DTYPES:
            faults.append(f"{shown(name)}: dtype {info.dtype}, expected one of {', '.join(DTYPES)}")
        elif info.dtype != dtype:
            faults.append(f"{shown(name)}: dtype {info.dtype}, expected {dtype} as of the first (one dtype for all)")
    return faults


class _Stream:
    """Bytes that come in pieces and are written in other ones."""

    def __init__(self, pieces: Iterator[bytes]):
        self.pieces, self.rest = pieces, b""

    def write(self, file: BinaryIO, count: int) -> None:
        """Writes the next `count` bytes."""
        while count:
            piece = self.rest or next(self.pieces)
            file.write(piece[:count])
            self.rest = piece[count:]
            count -= min(count, len(piece))


def _write_shard(path: Path, descr: str, length: int, stream: _Stream) -> None:
    def write(file: BinaryIO) -> None:
        header = {"descr": descr, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(file, header)
        stream.write(file, length * np.dtype(descr).itemsize)

    with naming(path):
        write_synced(path, write)
