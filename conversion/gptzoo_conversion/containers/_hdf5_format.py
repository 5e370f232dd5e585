"""The blocks that an HDF5 file is made of, as h5py writes it by default, and so Keras and TensorFlow.

libhdf5 is not let near the files of others: a few falsified bits make it loop for ever, and by design it opens other
files and loads plug-ins if a file says so. What is not understood here is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from typing import Any

import numpy as np

from gptzoo import limits

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 2**64 - 1  # the address of what is not there

# Kinds of messages, of which the header of an object consists.
SPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE = 1, 2, 3, 6, 7, 8, 11, 12
CONTINUATION, SYMBOL_TABLE, ATTRIBUTE_INFO = 16, 17, 21
_IGNORED = {4, 5, 10, 13, 14, 18, 22}  # fill values, hints about groups, comments, times, reference counts
KNOWN = {SPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE, SYMBOL_TABLE, ATTRIBUTE_INFO}

INTEGERS = ("i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1")
_FLOATS = {"f2": (10, 5), "f4": (23, 8), "f8": (52, 11)}  # bits of the mantissa and of the exponent


class Broken(ValueError):
    """A block is not what it should be; whoever knows the path and the object's name says so."""


@dataclass
class Cursor:
    """Bytes that are taken from the front."""

    data: bytes
    place: int = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.place

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Broken(f"a block ends early ({self.left} bytes, expected {count})")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def numbers(self, *widths: int) -> tuple[int, ...]:
        return tuple(self.number(width) for width in widths)

    def padded(self, count: int, alignment: int = 8) -> bytes:
        """Takes `count` bytes and what follows them up to a multiple of `alignment`."""
        return self.take(count + -count % alignment)[:count]

    def expect(self, magic: bytes, what: str) -> None:
        if (found := self.take(len(magic))) != magic:
            raise Broken(f"{what} begins with {found!r}, expected {magic!r}")


class Blocks:
    """The bytes of a file, each of which has one owner: all that is read together is never more than the file.

    Attributes:
        ranges: begin, end and owner of everything that was read or belongs to a tensor.
    """

    def __init__(self, file: FileIO, start: int, size: int):
        self.file, self.start, self.size = file, start, size
        self.ranges: list[tuple[int, int, str]] = []
        self.owner = ""
        self._used = self._read = 0

    def claim(self, address: int, size: int) -> None:
        """Notes that bytes belong to the present owner."""
        if address == UNDEFINED:
            raise Broken("a part of it is not there")
        if address + size > self.size:
            raise Broken(f"bytes {address} to {address + size} of a file of {self.size}")
        self._used += size
        if self._used > self.size:
            raise Broken("parts of the file overlap")
        self.ranges.append((address, address + size, self.owner))

    def at(self, address: int, size: int) -> Cursor:
        self.claim(address, size)
        self._read += size
        if self._read > limits.MAX_HDF5_BYTES:
            raise Broken(f"more than {limits.MAX_HDF5_BYTES} bytes beside the tensors")
        self.file.seek(self.start + address)
        data = bytearray()
        while len(data) < size:
            piece = self.file.read(size - len(data))
            if not piece:
                raise Broken("the file ended early")
            data += piece
        return Cursor(bytes(data))

    def overlap(self) -> tuple[str, str] | None:
        """Returns two owners of one byte."""
        end, before = 0, ""
        for begin, next_end, owner in sorted(one for one in self.ranges if one[0] < one[1]):
            if begin < end:
                return before, owner
            end, before = next_end, owner
        return None


def root_address(blocks: Blocks) -> int:
    """Reads the first block of a file, and returns where the root group is."""
    head = blocks.at(0, 96)
    head.expect(SIGNATURE, "the file")
    version = head.number(1)
    if version != 0:
        raise Broken(f"superblock version {version}, expected 0 (written with a newer libver than h5py's default?)")
    versions, *widths, _, _, flags = head.numbers(4, 1, 1, 1, 4, 4)
    base, _, end, driver, _, root = head.numbers(8, 8, 8, 8, 8, 8)
    if versions or widths != [8, 8] or flags:
        raise Broken(f"versions {versions:#x}, widths {widths}, flags {flags:#x} of a kind that gptzoo does not know")
    if base or driver != UNDEFINED:
        raise Broken("is a part of a set of files, or after other data")
    if end != blocks.size:
        raise Broken(f"{blocks.size} bytes, expected {end} by its header{' (cut off)' if blocks.size < end else ''}")
    return root


def messages(blocks: Blocks, address: int) -> Iterator[tuple[int, Cursor]]:
    """Yields the kind and the text of each message in the header of an object."""
    head = blocks.at(address, 16)
    version, _, count, _, size, _ = head.numbers(1, 1, 2, 4, 4, 4)
    if version != 1:
        raise Broken(f"header version {version}, expected 1 (written with a newer libver than h5py's default?)")
    todo, found = [(address + 16, size)], 0
    for start, length in todo:
        block = blocks.at(start, length)
        while block.left >= 8:
            kind, size, flags, _ = block.numbers(2, 2, 1, 3)
            text = Cursor(block.take(size))
            found += 1
            if flags & 2 and kind:
                raise Broken(f"message {kind} is shared with other objects")
            if kind == CONTINUATION:
                todo.append((text.number(8), text.number(8)))
            elif kind in KNOWN:
                yield kind, text
            elif kind and kind not in _IGNORED:
                raise Broken(f"message of kind {kind}, which gptzoo does not know")
    if found != count:
        raise Broken(f"{found} messages, expected {count}")


def tree(
    blocks: Blocks, address: int, kind: int, key_size: int, level: int | None = None
) -> Iterator[tuple[Cursor, int]]:
    """Yields key and address of each leaf of a B-tree."""
    head = blocks.at(address, 24)
    head.expect(b"TREE" + bytes([kind]), "an index")
    height, used, _, _ = head.numbers(1, 2, 8, 8)
    if level not in (None, height):
        raise Broken(f"level {height} of an index, expected {level}")
    body = blocks.at(address + 24, used * (key_size + 8) + key_size)
    for _ in range(used):
        key, child = Cursor(body.take(key_size)), body.number(8)
        if height:
            yield from tree(blocks, child, kind, key_size, height - 1)
        else:
            yield key, child


def symbols(blocks: Blocks, table: Cursor) -> Iterator[tuple[bytes, int | str]]:
    """Yields the names of a group, each with the address of an object or the word for a link of another kind."""
    index, heap = table.numbers(8, 8)
    head = blocks.at(heap, 32)
    head.expect(b"HEAP\0\0\0\0", "a heap of names")
    size, _, address = head.numbers(8, 8, 8)
    names = blocks.at(address, size).data
    before = b""
    for _, node in tree(blocks, index, 0, 8):
        head = blocks.at(node, 8)
        head.expect(b"SNOD\1\0", "a list of names")
        count = head.number(2)
        entries = blocks.at(node + 8, 40 * count)
        for _ in range(count):
            offset, address, cached, _, _, _ = entries.numbers(8, 8, 4, 4, 8, 8)
            end = names.find(b"\0", offset)
            if end < 0:
                raise Broken("a name outside of the heap of names")
            name = names[offset:end]
            if cached > 2:
                raise Broken(f"entry {name[:80]!r} of kind {cached}")
            if name <= before:
                raise Broken(f"names {before[:80]!r} and {name[:80]!r}, expected them in order")
            before = name
            yield name, "a soft link" if cached == 2 else address


def link(message: Cursor) -> tuple[bytes, int | str]:
    """Returns what a link message, by which h5py stores external links and ordered groups, says; as `symbols`."""
    version, flags = message.numbers(1, 1)
    if version != 1 or flags & ~0x1F:
        raise Broken(f"link version {version}, flags {flags:#x}")
    kind = message.number(1) if flags & 8 else 0
    message.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = message.take(message.number(1 << (flags & 3)))
    words = {1: "a soft link", 64: "a link into another file"}
    return name, message.number(8) if kind == 0 else words.get(kind, f"a link of kind {kind}")


def require_no_heap(info: Cursor, what: str) -> None:
    """Checks that the links or attributes of an object are in its header."""
    version, flags = info.numbers(1, 1)
    info.take((8 if what == "links" else 2) if flags & 1 else 0)
    if version or info.number(8) != UNDEFINED:
        raise Broken(f"{what} in a fractal heap, which gptzoo does not read")


def shape_of(space: Cursor) -> tuple[int, ...] | None:
    """Returns the shape in a dataspace; None if it says that there is no data."""
    version, rank, flags = space.numbers(1, 1, 1)
    if version not in (1, 2) or flags & ~1 or rank > 32:
        raise Broken(f"dataspace version {version}, rank {rank}, flags {flags}")
    kind = space.number(1)
    if version == 1:
        space.take(4)
    elif kind == 2:
        return None
    return tuple(space.number(8) for _ in range(rank))


def _encodings() -> Iterator[tuple[bytes, str]]:
    for big, order in enumerate("<>"):
        for code in INTEGERS:
            size = int(code[1])
            bits = bytes([big | (8 if code[0] == "i" else 0), 0, 0])
            yield b"\0" + bits + _joined((4, size), (2, 0), (2, 8 * size)), order + code
        for code, (mantissa, exponent) in _FLOATS.items():
            size = int(code[1])
            bits = bytes([0x20 | big, 8 * size - 1, 0])
            fields = (4, size), (2, 0), (2, 8 * size), (1, mantissa), (1, exponent), (1, 0), (1, mantissa)
            yield b"\1" + bits + _joined(*fields, (4, 2 ** (exponent - 1) - 1)), order + code
    byte = b"\x10\x08\0\0" + _joined((4, 1), (2, 0), (2, 8))
    yield b"\x08\2\0\0" + _joined((4, 1)) + byte + b"FALSE\0\0\0TRUE\0\0\0\0\0\1", "|b1"


def _joined(*fields: tuple[int, int]) -> bytes:
    return b"".join(value.to_bytes(width, "little") for width, value in fields)


_ENCODINGS = sorted(_encodings(), reverse=True)


def number_code(kind: bytes) -> str | None:
    """Returns NumPy's code for a datatype of numbers or truth values; None for any other."""
    plain = bytes([kind[0] & 15]) + kind[1:] if kind and kind[0] >> 4 in (1, 2, 3) else b""
    return next(
        (code for known, code in _ENCODINGS if plain[: len(known)] == known and not any(plain[len(known) :])), None
    )


def is_opaque(kind: bytes, size: int) -> bool:
    return len(kind) >= 8 and kind[0] & 15 == 5 and kind[4:8] == size.to_bytes(4, "little")


class Texts:
    """The heaps that hold the texts of variable length."""

    def __init__(self, blocks: Blocks):
        self._blocks = blocks
        self._heaps: dict[int, dict[int, bytes]] = {}
        self._left = limits.MAX_HDF5_BYTES

    def read(self, reference: Cursor) -> bytes:
        length, address, index = reference.numbers(4, 8, 4)
        if not length:
            return b""
        if address not in self._heaps:
            self._heaps[address] = self._heap(address)
        text = self._heaps[address].get(index)
        if text is None or len(text) != length:
            raise Broken(f"a text of {length} bytes that is not there")
        self._left -= length
        if self._left < 0:  # many can be the same long one
            raise Broken(f"texts of more than {limits.MAX_HDF5_BYTES} bytes")
        return text

    def _heap(self, address: int) -> dict[int, bytes]:
        head = self._blocks.at(address, 16)
        head.expect(b"GCOL\1\0\0\0", "a heap of texts")
        size = head.number(8)
        if size < 16:
            raise Broken(f"a heap of {size} bytes")
        body, result = self._blocks.at(address + 16, size - 16), {}
        while body.left >= 16:
            index, _, _, length = body.numbers(2, 2, 4, 8)
            if not index:  # the free rest
                break
            if index in result:
                raise Broken(f"text {index} of a heap is there twice")
            result[index] = body.padded(length)
        return result


def attribute(message: Cursor, texts: Texts) -> tuple[str, Any]:
    """Returns name and value of an attribute; None for one that is neither text nor numbers, nor a list of these."""
    version, flags, *lengths = message.numbers(1, 1, 2, 2, 2)
    if version not in (1, 2, 3) or (flags and version > 1):
        raise Broken(f"attribute version {version}, flags {flags}")
    message.take(1 if version == 3 else 0)
    name, kind, space = (message.padded(length, 8 if version == 1 else 1) for length in lengths)
    key = name.rstrip(b"\0").decode(errors="backslashreplace")
    shape = shape_of(Cursor(space))
    if shape is None or len(shape) > 1 or len(kind) < 8:
        return key, None
    values = _values(kind, message, shape[0] if shape else 1, texts)
    try:
        plain = [value.rstrip(b"\0").decode() if isinstance(value, bytes) else value for value in values or ()]
    except UnicodeDecodeError:
        raise Broken(f"attribute {key!r:.80} is not UTF-8 text") from None
    return key, None if values is None else plain if shape else plain[0]


def _values(kind: bytes, data: Cursor, count: int, texts: Texts) -> list[Any] | None:
    size = int.from_bytes(kind[4:8], "little")
    if kind[0] & 15 == 3 and size:
        return [data.take(size) for _ in range(count)]
    if kind[0] & 15 == 9 and kind[1] & 15 == 1 and size == 16:
        return [texts.read(Cursor(data.take(16))) for _ in range(count)]
    code = number_code(kind)
    return None if code is None else np.frombuffer(data.take(count * size), code).tolist()
