"""A walk through all objects of an HDF5 file: where each tensor's numbers lie, and nothing that is elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from gptzoo import limits
from gptzoo._tensors import TensorInfo, shown
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers import _hdf5_format as hdf5
from gptzoo_conversion.containers._hdf5_format import Blocks, Broken, Cursor

GZIP, SHUFFLE = 1, 2
_CLASSES = {
    0: "integer",
    1: "floating point",
    3: "text",
    5: "opaque",
    6: "compound",
    7: "reference",
    8: "enumeration",
    9: "variable-length",
    10: "array",
}
_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = range(4)


@dataclass(frozen=True)
class Piece:
    """Bytes of one chunk in the file; bit i of `skipped` says that filter i was not applied to it."""

    corner: tuple[int, ...]
    start: int
    size: int
    skipped: int


@dataclass(frozen=True)
class Place:
    """Where a tensor's numbers lie: in one range if there are neither `inline` bytes nor chunks.

    Attributes:
        stored: their dtype, with its byte order; bfloat16 is "<u2".
        inline: the numbers of a compact dataset, which are a part of the header.
    """

    stored: str
    inline: bytes | None = None
    chunk: tuple[int, ...] = ()
    filters: tuple[int, ...] = ()
    pieces: tuple[Piece, ...] = ()


class Scan:
    """What a file holds.

    Raises:
        CheckpointError: names the object that is broken, or whose numbers are elsewhere or nowhere.
    """

    def __init__(self, path: Path, file: FileIO, start: int, size: int):
        self.path = path
        self.tensors: dict[str, TensorInfo] = {}
        self.places: dict[str, Place] = {}
        self.attributes: dict[str, dict[str, Any]] = {}
        self.empty_groups: list[str] = []
        self._blocks = Blocks(file, start, size)
        self._texts = hdf5.Texts(self._blocks)
        self._seen: set[int] = set()
        self._expanded = 0
        try:
            self._object(hdf5.root_address(self._blocks), "", 0)
        except Broken as problem:
            raise self._fault(self._blocks.owner, str(problem)) from None
        if shared := self._blocks.overlap():
            raise self._fault(shared[1], f"shares bytes with {shown(shared[0]) if shared[0] else 'the root'}")

    def _fault(self, name: str, text: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {shown(name) + ': ' if name else ''}{text}")

    def _object(self, address: int, name: str, depth: int) -> None:
        self._blocks.owner = name
        if address in self._seen:
            raise self._fault(name, "a second name of one object (a hard link), expected one")
        self._seen.add(address)
        if len(self._seen) > limits.MAX_HDF5_OBJECTS:
            raise self._fault("", f"more than {limits.MAX_HDF5_OBJECTS} objects")
        if depth > limits.MAX_HDF5_DEPTH:
            raise self._fault(name, f"lies deeper than {limits.MAX_HDF5_DEPTH} groups")
        parts, links = self._parts(address, name)
        kinds = set(parts)
        if kinds <= {hdf5.SYMBOL_TABLE, hdf5.LINK_INFO} and kinds:
            self._group(parts, links, name, depth)
        elif kinds >= {hdf5.SPACE, hdf5.DATATYPE, hdf5.LAYOUT} and not (kinds - _DATASET or links):
            self._dataset(parts, name)
        else:
            found = "a named datatype" if kinds == {hdf5.DATATYPE} else f"an object of messages {sorted(kinds)}"
            raise self._fault(name, f"{found}, expected a group or a dataset")

    def _parts(self, address: int, name: str) -> tuple[dict[int, Cursor], list[tuple[bytes, int | str]]]:
        """Reads an object's header: its attributes, the messages that it has once, and its links."""
        parts: dict[int, Cursor] = {}
        links = []
        for kind, message in hdf5.messages(self._blocks, address):
            if kind == hdf5.ATTRIBUTE:
                self._attribute(message, name)
            elif kind == hdf5.ATTRIBUTE_INFO:
                hdf5.require_no_heap(message, "attributes")
            elif kind == hdf5.LINK:
                links.append(hdf5.link(message))
            elif kind in parts:
                raise Broken(f"message {kind} is there twice")
            else:
                parts[kind] = message
        if hdf5.LINK_INFO in parts:
            hdf5.require_no_heap(parts[hdf5.LINK_INFO], "links")
        return parts, links

    def _attribute(self, message: Cursor, name: str) -> None:
        key, value = hdf5.attribute(message, self._texts)
        values = self.attributes.setdefault(name, {})
        if key in values:
            raise Broken(f"attribute {shown(key)} is there twice")
        if value is not None:
            values[key] = value

    def _group(self, parts: dict[int, Cursor], links: list[tuple[bytes, int | str]], name: str, depth: int) -> None:
        if hdf5.SYMBOL_TABLE in parts:
            links += hdf5.symbols(self._blocks, parts[hdf5.SYMBOL_TABLE])
        names = [self._child_name(link, name) for link, _ in links]
        if len(set(names)) < len(names):
            raise self._fault(name, "holds a name twice")
        for child, (_, target) in zip(names, links, strict=True):
            if isinstance(target, str):
                raise self._fault(child, f"{target}; refused")
            self._object(target, child, depth + 1)
        if not names:
            self.empty_groups.append(name)

    def _child_name(self, link: bytes, parent: str) -> str:
        try:
            text = link.decode()
        except UnicodeDecodeError:
            raise self._fault(parent, f"holds the name {shown(link)}, expected UTF-8 text") from None
        if text in ("", ".", "..") or "/" in text or "\0" in text:
            raise self._fault(parent, f"holds the name {shown(text)}, expected a plain one")
        name = f"{parent}/{text}" if parent else text
        if len(name.encode()) > limits.MAX_NAME_BYTES:
            raise self._fault(name, f"a name of more than {limits.MAX_NAME_BYTES} bytes")
        return name

    def _dataset(self, parts: dict[int, Cursor], name: str) -> None:
        if hdf5.EXTERNAL in parts:
            raise self._fault(name, "data lies in another file (external storage); refused")
        shape = hdf5.shape_of(parts[hdf5.SPACE])
        if shape is None:
            raise self._fault(name, "has no data (a null dataspace), expected a tensor")
        if len(shape) > limits.MAX_RANK:
            raise self._fault(name, f"rank {len(shape)}, expected at most {limits.MAX_RANK}")
        if math.prod(max(size, 1) for size in shape) >= 2**48:  # beside a zero, NumPy minds these too
            raise self._fault(name, f"shape {list(shape)}, expected a smaller one")
        stored, dtype = self._dtypes(parts[hdf5.DATATYPE].data, name)
        info = TensorInfo(self.path.name, dtype, shape)
        layout = parts[hdf5.LAYOUT]
        version, kind = layout.numbers(1, 1)
        if kind == _VIRTUAL:
            raise self._fault(name, "data is made of parts of other files (virtual); refused")
        if version != 3 or kind > _CHUNKED:
            raise self._fault(name, f"layout version {version}, kind {kind}, expected version 3")
        if kind == _CHUNKED:
            place = self._chunked(info, stored, layout, parts.get(hdf5.FILTERS), name)
        elif hdf5.FILTERS in parts:
            raise self._fault(name, "filters without chunks")
        elif kind == _COMPACT:
            place = Place(stored, self._inline(info, layout, name))
        else:
            info, place = self._located(info, layout, name), Place(stored)
        self.tensors[name], self.places[name] = info, place

    def _dtypes(self, kind: bytes, name: str) -> tuple[str, str]:
        """Returns the dtype as stored, with its byte order, and that of the numbers."""
        bfloat16 = self.attributes.get(name, {}).get("dtype") == "bfloat16"  # as Keras marks it
        if bfloat16 and hdf5.is_opaque(kind, 2):
            return "<u2", "bfloat16"
        stored = hdf5.number_code(kind)
        if stored is None or bfloat16:
            found = f"{_CLASSES.get(kind[0] & 15, 'unknown') if kind else 'no'} values ({kind[:8].hex()})"
            raise self._fault(name, f"{found}{' marked as bfloat16' if bfloat16 else ''}, expected plain numbers")
        return stored, np.dtype(stored).name

    def _inline(self, info: TensorInfo, layout: Cursor, name: str) -> bytes:
        size = layout.number(2)
        self._require_size(size, info, name)
        return layout.take(size)

    def _located(self, info: TensorInfo, layout: Cursor, name: str) -> TensorInfo:
        start, size = layout.numbers(8, 8)
        if start == hdf5.UNDEFINED and info.nbytes:
            raise self._fault(name, f"was never written, expected {info.nbytes} bytes")
        self._require_size(size, info, name)
        if not size:
            return info
        self._blocks.claim(start, size)
        return TensorInfo(info.file, info.dtype, info.shape, self._blocks.start + start)

    def _require_size(self, size: int, info: TensorInfo, name: str) -> None:
        if size != info.nbytes:
            expected = f"{info.nbytes} for {info.dtype} {list(info.shape)}"
            raise self._fault(name, f"{size} bytes are stored, expected {expected}")

    def _chunked(self, info: TensorInfo, stored: str, layout: Cursor, pipeline: Cursor | None, name: str) -> Place:
        filters = tuple(_filters(pipeline)) if pipeline else ()
        if set(filters) - {GZIP, SHUFFLE} or len(set(filters)) < len(filters):
            raise self._fault(name, f"filters {list(filters)}, expected gzip (1) and shuffle (2) at most")
        rank, index = layout.numbers(1, 8)
        sizes = tuple(layout.number(4) for _ in range(rank))
        chunk, item = sizes[:-1], np.dtype(stored).itemsize
        if len(chunk) != len(info.shape) or not chunk or 0 in chunk or sizes[-1] != item:
            raise self._fault(name, f"chunks of {list(sizes)}, expected them to fit {list(info.shape)} of {item} bytes")
        count = math.prod(-(-size // step) for size, step in zip(info.shape, chunk, strict=True))
        self._expanded += count * math.prod(chunk) * item
        if self._expanded > limits.MAX_ZIP_RATIO * self._blocks.size:
            raise self._fault(name, f"{self._expanded} bytes in chunks of a file of {self._blocks.size}")
        pieces = tuple(self._pieces(index, len(chunk))) if count else ()
        steps = [range(0, size, step) for size, step in zip(info.shape, chunk, strict=True)]
        right = {
            piece.corner for piece in pieces if all(at in step for at, step in zip(piece.corner, steps, strict=True))
        }
        if len(right) != len(pieces) or len(pieces) != count:
            raise self._fault(name, f"{len(right)} of {len(pieces)} chunks are right, expected {count}")
        return Place(stored, None, chunk, filters, pieces)

    def _pieces(self, index: int, rank: int) -> Iterator[Piece]:
        if index == hdf5.UNDEFINED:
            return
        for key, address in hdf5.tree(self._blocks, index, 1, 8 + 8 * (rank + 1)):
            size, skipped = key.numbers(4, 4)
            self._blocks.claim(address, size)
            yield Piece(key.numbers(*[8] * rank), self._blocks.start + address, size, skipped)


_DATASET = {hdf5.SPACE, hdf5.DATATYPE, hdf5.LAYOUT, hdf5.FILTERS, hdf5.EXTERNAL}


def _filters(pipeline: Cursor) -> Iterator[int]:
    """Yields the numbers of the filters that each chunk went through."""
    version, count = pipeline.numbers(1, 1)
    if version != 1:
        raise Broken(f"filters in version {version}, expected 1")
    pipeline.take(6)
    for _ in range(count):
        number, length, _, values = pipeline.numbers(2, 2, 2, 2)
        pipeline.padded(length)
        pipeline.take(4 * (values + values % 2))
        yield number
