"""Flax's msgpack files (`flax.serialization.to_bytes`), read strictly and written one tensor at a time.

A file is nested maps whose leaves are extensions that hold (shape, dtype, bytes); what is too long for one extension is
a map of chunks. The msgpack library would hold each tensor several times: here tensors are ranges of the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gptzoo import limits
from gptzoo._files import naming, open_regular, stand_in, write_synced
from gptzoo._tensors import Read, TensorFile, TensorInfo, contiguous_bytes, shown, stamp_of
from gptzoo.errors import CheckpointError

# What Flax writes of NumPy's dtypes, less complex numbers and texts.
_INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("bool", *_INTS, "float16", "bfloat16", "float32", "float64")

_CHUNK_BYTES = 2**30
_COPY = 2**20

# Flax's types of extensions.
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3

# How Flax writes what is longer than a chunk: {_MARKER: True, "shape": {"0": ...}, "chunks": {"0": array, ...}}
_MARKER = "__msgpack_chunked_array__"


class _Head(NamedTuple):
    """What begins an object: its kind, and its length, count or value."""

    kind: str
    value: int = 0


# First byte -> kind of object, and the width of the number that follows.
_WIDTHS = {
    first + place: (kind, width)
    for first, kind, widths in [
        (0xC4, "bin", (1, 2, 4)),
        (0xC7, "ext", (1, 2, 4)),
        (0xCA, "float", (4, 8)),
        (0xCC, "int", (1, 2, 4, 8)),
        (0xD0, "int", (1, 2, 4, 8)),
        (0xD9, "str", (1, 2, 4)),
        (0xDC, "array", (2, 4)),
        (0xDE, "map", (2, 4)),
    ]
    for place, width in enumerate(widths)
}
_SIGNED = range(0xD0, 0xD4)
_FIXEXT = range(0xD4, 0xD9)

# First byte -> the whole of it.
_HEADS = {byte: _Head("int", byte) for byte in range(0x80)}
_HEADS |= {0x80 + count: _Head("map", count) for count in range(16)}
_HEADS |= {0x90 + count: _Head("array", count) for count in range(16)}
_HEADS |= {0xA0 + count: _Head("str", count) for count in range(32)}
_HEADS |= {0xC0: _Head("nil"), 0xC2: _Head("false"), 0xC3: _Head("true")}
_HEADS |= {byte: _Head("ext", 1 << place) for place, byte in enumerate(_FIXEXT)}
_HEADS |= {byte: _Head("int", byte - 256) for byte in range(0xE0, 0x100)}


@dataclass(frozen=True)
class FlaxFile(TensorFile):
    """A Flax file: the bytes of a chunked tensor are several ranges.

    Attributes:
        ranges: name -> where the tensor's bytes lie in the file, in order.
    """

    ranges: dict[str, list[range]]

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor: a fresh, writable array."""
        info = self.tensors[name]
        with naming(self.path):
            array = np.empty(info.shape, np.dtype(info.dtype))
        view = array.reshape(-1).view(np.uint8).data
        for place in self.ranges[name]:
            with self.opened(place.start) as file:
                self.fill(file, view[: len(place)])
            view = view[len(place) :]
        return array

    def chunks(self, name: str) -> Iterator[bytearray]:
        """Yields a tensor's bytes piece by piece."""
        for place in self.ranges[name]:
            with self.opened(place.start) as file:
                for begin in range(0, len(place), _COPY):
                    piece = bytearray(min(_COPY, len(place) - begin))
                    self.fill(file, memoryview(piece))
                    yield piece


def read_flax_msgpack(path: Path) -> FlaxFile:
    """Reads the structure of a file; names are the keys of its maps, joined by "/". There is no metadata.

    Raises:
        CheckpointError: names the tensor at which the file is wrong.
    """
    with naming(path), open_regular(path) as file:
        stamp = stamp_of(file)
        scanner = _Scanner(path, BufferedReader(file), stamp[2])
        scanner.scan()
    return FlaxFile(path, scanner.tensors, {}, stamp, scanner.ranges)


class _Scanner:
    """Walks through a file front to back; no number in it is believed beyond what is left of the file."""

    def __init__(self, path: Path, file: BufferedReader, size: int):
        self.path, self.file, self.left = path, file, size
        self.keys: list[str] = []  # down to where the scanner stands
        self.objects = 0
        self.tensors: dict[str, TensorInfo] = {}
        self.ranges: dict[str, list[range]] = {}

    def scan(self) -> None:
        start = self.file.peek(64)[:64]
        if not start:
            raise self.fault("empty file")
        if diagnosis := stand_in(start):
            raise self.fault(diagnosis)
        head = self.head()
        if head.kind != "map":
            raise self.fault(f"begins with {start[:16]!r}, expected a map (not Flax's msgpack?)")
        self.map(head.value)
        if self.left:
            raise self.fault(f"{self.left} bytes after the end, expected none")

    def fault(self, what: str) -> CheckpointError:
        where = f"{self.path}: {shown('/'.join(self.keys))}" if self.keys else str(self.path)
        return CheckpointError(f"{where}: {what}")

    @contextmanager
    def below(self, key: str) -> Iterator[None]:
        self.keys.append(key)
        yield
        self.keys.pop()

    def map(self, count: int) -> None:
        seen: set[str] = set()
        for place in range(count):
            key = self.key()
            if key == _MARKER and self.keys and not place:
                return self.chunked(count)
            if key in seen:
                raise self.fault(f"key {shown(key)} stands twice")
            if "/" in key or key == _MARKER:
                raise self.fault(f"key {shown(key)}, expected one without / and other than {_MARKER}")
            seen.add(key)
            with self.below(key):
                self.value()
        return None

    def key(self) -> str:
        head = self.head()
        if head.kind != "str" or head.value > limits.MAX_NAME_BYTES:
            found = f"{head.kind} of {head.value} bytes" if head.kind == "str" else head.kind
            raise self.fault(f"a key that is {found}, expected a str of at most {limits.MAX_NAME_BYTES}")
        return self.text(head.value)

    def text(self, length: int) -> str:
        data = self.take(length)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self.fault(f"text {shown(data)}, expected UTF-8") from None

    def value(self) -> None:
        if len(self.keys) > limits.MAX_MSGPACK_DEPTH:
            raise self.fault(f"nested too deeply (more than {limits.MAX_MSGPACK_DEPTH} levels)")
        head = self.head()
        if head.kind == "map":
            self.map(head.value)
        else:
            dtype, shape, place = self.array(head)
            self.add(dtype, shape, [place])

    def add(self, dtype: str, shape: tuple[int, ...], ranges: list[range]) -> None:
        name = "/".join(self.keys)
        if len(name.encode()) > limits.MAX_NAME_BYTES:
            raise self.fault(f"a name of more than {limits.MAX_NAME_BYTES} bytes")
        if len(self.tensors) == limits.MAX_TENSORS:
            raise self.fault(f"more than {limits.MAX_TENSORS} tensors")
        self.tensors[name] = TensorInfo(self.path.name, dtype, shape, ranges[0].start)
        self.ranges[name] = ranges

    def array(self, head: _Head) -> tuple[str, tuple[int, ...], range]:
        """Reads an extension that is an array or a scalar, but for its bytes; returns dtype, shape and their place."""
        if head.kind != "ext":
            raise self.fault(f"{head.kind}, not an array")
        code = self.take(1)[0]
        if code not in (_ARRAY, _SCALAR):
            kind = "a complex number" if code == _COMPLEX else f"an extension of type {code}"
            raise self.fault(f"{kind}, not an array")
        end = self.left - head.value
        self.require("array", 3)
        shape = self.shape(self.require("array") if code == _ARRAY else self.require("array", 0))
        dtype = self.dtype()
        length = self.require("bin")
        if self.left - length != end:
            raise self.fault(f"{length} bytes of data, expected {self.left - end} by the extension around them")
        self.require_bytes(length, shape, dtype)
        place = self.skip(length)
        return dtype, shape, place

    def shape(self, rank: int) -> tuple[int, ...]:
        if rank > limits.MAX_RANK:
            raise self.fault(f"rank {rank}, expected at most {limits.MAX_RANK}")
        return tuple(self.size() for _ in range(rank))

    def size(self) -> int:
        size = self.require("int")
        if size < 0:
            raise self.fault(f"shape {size}, expected sizes of at least 0")
        return size

    def dtype(self) -> str:
        length = self.require("str")
        name = self.text(length) if length <= 16 else ""
        if name not in DTYPES:
            raise self.fault(f"dtype {shown(name)}, expected one of {', '.join(DTYPES)}")
        return name

    def require_bytes(self, length: int, shape: tuple[int, ...], dtype: str) -> None:
        """Checks that an array has as many bytes as its shape says, and is one that NumPy can have if it has none."""
        itemsize = np.dtype(dtype).itemsize
        expected = math.prod(shape) * itemsize
        if length != expected:
            raise self.fault(f"{length} bytes of data, expected {expected} for {dtype} {list(shape)}")
        if math.prod(size or 1 for size in shape) * itemsize >= 2**63:
            raise self.fault(f"shape {list(shape)}, expected sizes whose product is below 2**63")

    def chunked(self, count: int) -> None:
        """Reads the rest of a map whose first key was the marker of an array in chunks."""
        if count != 3 or self.head().kind != "true":
            raise self.fault(f"a chunked array of {count} keys, expected {_MARKER} (true), shape and chunks")
        shape = tuple(self.size() for _ in self.listed("shape", limits.MAX_RANK))
        parts = [self.array(self.head()) for _ in self.listed("chunks", limits.MAX_TENSORS)]
        if len({dtype for dtype, _, _ in parts}) != 1 or any(len(part) != 1 for _, part, _ in parts):
            raise self.fault(
                "chunks that differ in dtype or are not flat, expected at least one, flat and of one dtype"
            )
        dtype, ranges = parts[0][0], [place for _, _, place in parts]
        self.require_bytes(sum(map(len, ranges)), shape, dtype)
        self.add(dtype, shape, ranges)

    def listed(self, key: str, most: int) -> Iterator[None]:
        """Steps through a map that stands for a list: its keys are "0", "1" ..."""
        self.require_key(key)
        count = self.require("map")
        if count > most:
            raise self.fault(f"{key} of {count} entries, expected at most {most}")
        for place in range(count):
            self.require_key(str(place))
            yield

    def require_key(self, expected: str) -> None:
        if (key := self.key()) != expected:
            raise self.fault(f"key {shown(key)} in a chunked array, expected {expected}")

    def require(self, kind: str, value: int | None = None) -> int:
        head = self.head()
        if head.kind != kind or value not in (None, head.value):
            wanted = kind if value is None else f"{kind} of {value}"
            raise self.fault(f"{head.kind} {head.value} inside an array, expected {wanted}")
        return head.value

    def head(self) -> _Head:
        """Reads what begins an object; of the length or count that it claims, that so many bytes are left."""
        self.objects += 1
        if self.objects > limits.MAX_MSGPACK_OBJECTS:
            raise self.fault(f"more than {limits.MAX_MSGPACK_OBJECTS} objects")
        first = self.take(1)[0]
        if first in _HEADS:
            head = _HEADS[first]
        elif first in _WIDTHS:
            kind, width = _WIDTHS[first]
            head = _Head(kind, int.from_bytes(self.take(width), "big", signed=first in _SIGNED))
        else:
            raise self.fault(f"byte {first:#x}, expected the beginning of an object")
        count = head.value
        least = {"str": count, "bin": count, "ext": 1 + count, "array": count, "map": 2 * count}.get(head.kind, 0)
        if least > self.left:
            raise self.fault(
                f"{head.kind} of {count} takes {least} bytes, expected at most the {self.left} left (cut off?)"
            )
        return head

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise self.fault(f"{count} bytes, expected at most the {self.left} that are left (cut off?)")
        data = self.file.read(count)
        if len(data) != count:
            raise self.fault(f"ended {count - len(data)} bytes early")
        self.left -= count
        return data

    def skip(self, count: int) -> range:
        start = self.file.tell()
        self.file.seek(count, os.SEEK_CUR)
        self.left -= count
        return range(start, start + count)


def write_flax_msgpack(
    path: Path,
    infos: Mapping[str, TensorInfo],
    read: Read,
    metadata: Mapping[str, Any],
    chunk_bytes: int = _CHUNK_BYTES,
) -> None:
    """Writes a new file, to the byte as Flax would write the same nested dicts.

    Args:
        infos: "/" in a name begins a map within a map; a map stands where its first tensor does.
        metadata: empty, as the format has no place for it.
        chunk_bytes: tensors of more bytes are written in chunks of so many; below 2**31.

    Raises:
        CheckpointError: a name or dtype that the format cannot hold; the file cannot be written.
    """
    assert 0 < chunk_bytes < 2**31
    if metadata:
        raise CheckpointError(
            f"{path}: metadata {shown(dict(metadata))}, expected none (the format has no place for it)"
        )
    if problems := [f"{shown(name)}: {fault}" for name, info in infos.items() if (fault := _fault(name, info))]:
        raise CheckpointError.listing(str(path), problems)
    tree = _tree(path, infos)
    with naming(path):
        write_synced(path, lambda file: _Writer(file, infos, read, chunk_bytes).map(tree))


def _fault(name: str, info: TensorInfo) -> str | None:
    """Says why a tensor cannot be written so that it can be read again."""
    keys = name.split("/")
    if info.dtype not in DTYPES:
        return f"dtype {shown(info.dtype)}, expected one of {', '.join(DTYPES)}"
    if len(info.shape) > limits.MAX_RANK:
        return f"rank {len(info.shape)}, expected at most {limits.MAX_RANK}"
    if len(keys) > limits.MAX_MSGPACK_DEPTH or _MARKER in keys:
        return f"expected at most {limits.MAX_MSGPACK_DEPTH} keys, none of them {_MARKER}"
    if len(name.encode(errors="replace")) > limits.MAX_NAME_BYTES or any("\ud800" <= c <= "\udfff" for c in name):
        return f"expected a name of at most {limits.MAX_NAME_BYTES} bytes of UTF-8"
    return None


def _tree(path: Path, names: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dicts whose leaves are the names."""
    tree: dict[str, Any] = {}
    for name in names:
        *above, last = name.split("/")
        node: Any = tree
        for key in above:
            node = node.setdefault(key, {}) if isinstance(node, dict) else node
        if not isinstance(node, dict) or last in node:
            raise CheckpointError(f"{path}: {shown(name)}: a tensor and a map of one name, expected either")
        node[last] = name
    return tree


class _Writer:
    def __init__(self, file: BinaryIO, infos: Mapping[str, TensorInfo], read: Read, chunk_bytes: int):
        self.file, self.infos, self.read, self.chunk_bytes = file, infos, read, chunk_bytes

    def map(self, tree: dict[str, Any]) -> None:
        self.file.write(_map_head(len(tree)))
        for key, value in tree.items():
            self.file.write(_text(key))
            if isinstance(value, dict):
                self.map(value)
            else:
                self.tensor(self.infos[value], contiguous_bytes(self.read(value)).data)

    def tensor(self, info: TensorInfo, data: memoryview) -> None:
        if len(data) <= self.chunk_bytes:
            self.array(info.shape, info.dtype, data)
            return
        itemsize = np.dtype(info.dtype).itemsize
        step = max(1, self.chunk_bytes // itemsize) * itemsize
        begins = range(0, len(data), step)
        self.file.write(_map_head(3) + _text(_MARKER) + b"\xc3" + _text("shape") + _map_head(len(info.shape)))
        self.file.write(b"".join(_text(str(axis)) + _int(size) for axis, size in enumerate(info.shape)))
        self.file.write(_text("chunks") + _map_head(len(begins)))
        for place, begin in enumerate(begins):
            piece = data[begin : begin + step]
            self.file.write(_text(str(place)))
            self.array((len(piece) // itemsize,), info.dtype, piece)

    def array(self, shape: tuple[int, ...], dtype: str, data: memoryview) -> None:
        sizes = bytes([0x90 + len(shape)]) + b"".join(map(_int, shape))
        head = b"\x93" + sizes + _text(dtype) + _sized(len(data), 0xC4, (1, 2, 4))
        self.file.write(_ext_head(len(head) + len(data)) + head)
        self.file.write(data)


def _map_head(count: int) -> bytes:
    return bytes([0x80 + count]) if count < 16 else _sized(count, 0xDE, (2, 4))


def _text(text: str) -> bytes:
    data = text.encode()
    return (bytes([0xA0 + len(data)]) if len(data) < 32 else _sized(len(data), 0xD9, (1, 2, 4))) + data


def _int(value: int) -> bytes:
    return bytes([value]) if value < 128 else _sized(value, 0xCC, (1, 2, 4, 8))


def _ext_head(length: int) -> bytes:
    fixed = length in (1, 2, 4, 8, 16)
    head = bytes([_FIXEXT[length.bit_length() - 1]]) if fixed else _sized(length, 0xC7, (1, 2, 4))
    return head + bytes([_ARRAY])


def _sized(value: int, first: int, widths: tuple[int, ...]) -> bytes:
    """Returns a number in the narrowest of the widths that holds it, behind the byte that stands for this width."""
    place, width = next((place, width) for place, width in enumerate(widths) if value < 256**width)
    return bytes([first + place]) + value.to_bytes(width, "big")
