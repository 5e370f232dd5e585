"""Zip archives, read strictly and written so that equal members give equal bytes.

Two readers can be shown different members of one lax archive. Here every byte has one owner: members lie one behind the
other from byte 0 to the directory, the directory ends the file, and both say the same of each member.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from gptzoo import limits
from gptzoo._tensors import shown
from gptzoo.errors import CheckpointError

_LOCAL = struct.Struct("<4s5H3L2H")  # magic, version, flags, method, time, date, crc, stored, size, name, extra
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # as above with two versions; comment, disk, attributes, where the local one is
_END = struct.Struct("<4s4H2LH")  # magic, disk, first disk, entries here, entries, directory's size and start, comment
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64_MAGIC, _LOCATOR_MAGIC, _DESCRIPTOR_MAGIC = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"

_ENCRYPTED, _DESCRIPTOR, _UTF8, _DEFLATE_LEVEL = 0x1, 0x8, 0x800, 0x6
_STORED, _DEFLATED = 0, 8
_FULL16, _FULL32 = 2**16 - 1, 2**32 - 1  # "the true number stands in the zip64 field"
_WIDE_FROM = _FULL32  # sizes and offsets from here on stand in a zip64 field
_DATE = 0x21  # the first of January 1980, the earliest there is
_PADDING = 0x4246  # the extra field that PyTorch pads with
_CHUNK = 2**20


@dataclass(frozen=True)
class Member:
    """A range of a file's bytes that is stored as it is or deflated.

    Attributes:
        start: where its bytes begin in the file.
        stored: how many there are.
        size: how many they are when inflated.
        crc: CRC-32 of the inflated bytes; None where a container has no checksums.
    """

    name: str
    start: int
    stored: int
    size: int
    crc: int | None = None
    deflated: bool = False


@dataclass(frozen=True)
class _Entry:
    """What the directory says of a member."""

    name: bytes
    flags: int
    method: int
    crc: int
    stored: int
    size: int
    header: int


def read_members(path: Path, file: FileIO) -> dict[str, Member]:
    """Reads an archive's directory and every member's own header.

    Returns:
        Members by name, in the order of the directory; directories are left out.

    Raises:
        CheckpointError: something in it is wrong, can be understood in two ways, or is beyond `gptzoo.limits`.
    """
    start, text, count = _directory(path, file)
    entries = list(_entries(path, text, count, start))
    members: dict[str, Member] = {}
    for entry in entries:
        name = _name(path, entry)
        if name in members:
            raise CheckpointError(f"{path}: member {shown(name)} is there twice, expected once")
        members[name] = _member(path, file, name, entry)
    _require_gapless(path, file, entries, list(members.values()), start)
    return {name: member for name, member in members.items() if not name.endswith("/")}


def pieces(path: Path, file: FileIO, member: Member) -> Iterator[bytes]:
    """Yields a member's inflated bytes piece by piece.

    Raises:
        CheckpointError: they end early, are more or less than the directory says, or have another checksum.
    """
    size, crc = 0, 0
    for piece in _inflated(path, file, member) if member.deflated else _stored(path, file, member):
        size, crc = size + len(piece), zlib.crc32(piece, crc)
        yield piece
    if size != member.size:
        raise CheckpointError(f"{path}: {shown(member.name)}: inflates to {size} bytes, expected {member.size}")
    if member.crc not in (None, crc):
        hint = "" if member.crc else " (saved without checksums?)"
        raise CheckpointError(f"{path}: {shown(member.name)}: CRC-32 {crc:08x}, expected {member.crc:08x}{hint}")


def read_member(path: Path, file: FileIO, member: Member, limit: int) -> bytes:
    """Returns all bytes of a member that has at most `limit`."""
    if member.size > limit:
        raise CheckpointError(f"{path}: {shown(member.name)}: {member.size} bytes, expected at most {limit}")
    return b"".join(pieces(path, file, member))


def _stored(path: Path, file: FileIO, member: Member) -> Iterator[bytes]:
    end = member.start + member.stored
    for begin in range(member.start, end, _CHUNK):
        yield bytes_at(path, file, begin, min(_CHUNK, end - begin))


def _inflated(path: Path, file: FileIO, member: Member) -> Iterator[bytes]:
    """Yields at most one byte more than the member's size, whatever the stream holds."""
    stream, left = zlib.decompressobj(-zlib.MAX_WBITS), member.size + 1
    try:
        for packed in _stored(path, file, member):
            while packed and left and not stream.eof:
                piece = stream.decompress(packed, min(_CHUNK, left))
                left, packed = left - len(piece), stream.unconsumed_tail
                yield piece
    except zlib.error as problem:
        raise CheckpointError(f"{path}: {shown(member.name)}: {problem}") from None
    if left and (not stream.eof or stream.unused_data):
        raise CheckpointError(f"{path}: {shown(member.name)}: deflated bytes do not end where the member does")


def bytes_at(path: Path, file: FileIO, start: int, count: int) -> bytes:
    """Returns so many bytes; fewer are an error."""
    file.seek(start)
    data = bytearray()
    while len(data) < count:
        piece = file.read(count - len(data))
        if not piece:
            raise CheckpointError(f"{path}: ended {count - len(data)} bytes early")
        data += piece
    return bytes(data)


def _directory(path: Path, file: FileIO) -> tuple[int, bytes, int]:
    """Returns where the directory begins, its text, and how many entries it has."""
    end = file.seek(0, 2) - _END.size
    values = _END.unpack(bytes_at(path, file, end, _END.size)) if end >= 0 else (b"",)
    if values[0] != _END_MAGIC:
        raise CheckpointError(f"{path}: not a zip archive, or cut off (no directory at the end, or a comment after it)")
    _, disk, first_disk, here, count, size, start, comment = values
    locator = end - _LOCATOR.size
    if locator >= _END64.size and bytes_at(path, file, locator, 4) == _LOCATOR_MAGIC:
        end, wide = locator - _END64.size, _wide_end(path, file, locator)
        for narrow, number, full in zip(
            (here, count, size, start), wide, (_FULL16, _FULL16, _FULL32, _FULL32), strict=True
        ):
            if narrow not in (number, full):
                raise CheckpointError(f"{path}: zip directory's end says {narrow} and {number}, expected one number")
        here, count, size, start = wide
    if disk or first_disk or here != count or comment:
        raise CheckpointError(f"{path}: zip archive of several files or with a comment, expected one whole file")
    if start + size != end:
        raise CheckpointError(f"{path}: zip directory at {start} of {size} bytes, expected one that ends at {end}")
    if count > limits.MAX_ZIP_MEMBERS or size > limits.MAX_HEADER_BYTES:
        found = f"{count} members, directory of {size} bytes"
        raise CheckpointError(f"{path}: {found}, expected at most {limits.MAX_ZIP_MEMBERS}, {limits.MAX_HEADER_BYTES}")
    return start, bytes_at(path, file, start, size), count


def _wide_end(path: Path, file: FileIO, locator: int) -> tuple[int, int, int, int]:
    record = locator - _END64.size
    _, disk, start, disks = _LOCATOR.unpack(bytes_at(path, file, locator, _LOCATOR.size))
    magic, length, _, _, this, first, *numbers = _END64.unpack(bytes_at(path, file, record, _END64.size))
    if (disk, start, disks) != (0, record, 1) or (magic, length) != (_END64_MAGIC, _END64.size - 12) or this or first:
        raise CheckpointError(f"{path}: zip64 end of the directory at {start}, expected one at {record}")
    here, count, size, start = numbers
    return here, count, size, start


def _entries(path: Path, text: bytes, count: int, end: int) -> Iterator[_Entry]:
    """Yields the entries of a directory, whose members end at `end` at the latest."""
    place = 0
    for number in range(count):
        values = _CENTRAL.unpack_from(text, place) if place + _CENTRAL.size <= len(text) else (b"",)
        if values[0] != _CENTRAL_MAGIC:
            raise CheckpointError(f"{path}: zip directory ends at entry {number}, expected {count}")
        _, _, _, flags, method, _, _, crc, *sizes = values
        stored, size, name_length, extra_length, comment_length, disk, _, attributes, header = sizes
        begin = place + _CENTRAL.size
        middle = begin + name_length
        place = middle + extra_length + comment_length
        name, extra = text[begin:middle], text[middle : middle + extra_length]
        subject = f"{path}: member {shown(name.decode(errors='replace'))}"
        if disk or stat.S_ISLNK(attributes >> 16):
            raise CheckpointError(f"{subject}: a link or in another file; refused")
        size, stored, header = _widened(subject, extra, (size, stored, header))
        if header + _LOCAL.size + stored > end:
            raise CheckpointError(f"{subject}: {stored} bytes at {header}, expected an end at {end} at most")
        yield _Entry(name, flags, method, crc, stored, size, header)
    if place != len(text):
        raise CheckpointError(f"{path}: zip directory of {len(text)} bytes, expected {place} by its entries")


def _widened(subject: str, extra: bytes, numbers: tuple[int, ...]) -> list[int]:
    """Returns numbers of an entry, those from its zip64 field that stand there."""
    fields = dict(_extra_fields(subject, extra))
    wide, result = fields.get(1, b""), []
    for number in numbers:
        if number == _FULL32 and 1 in fields:
            if len(wide) < 8:
                raise CheckpointError(f"{subject}: zip64 field is too short")
            number, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        result.append(number)
    return result


def _extra_fields(subject: str, extra: bytes) -> Iterator[tuple[int, bytes]]:
    seen: set[int] = set()
    place = 0
    while place + 4 <= len(extra):
        code, length = struct.unpack_from("<2H", extra, place)
        if code in seen or place + 4 + length > len(extra):
            raise CheckpointError(f"{subject}: extra field {code:#x} is there twice or cut off")
        seen.add(code)
        yield code, extra[place + 4 : place + 4 + length]
        place += 4 + length


def _name(path: Path, entry: _Entry) -> str:
    try:
        name = entry.name.decode()
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: member {entry.name[:60]!r}: name is not UTF-8 text") from None
    parts = name.removesuffix("/").split("/")
    if (
        len(entry.name) > limits.MAX_NAME_BYTES
        or any(part in ("", ".", "..") for part in parts)
        or set(name) & set("\\:\0")
    ):
        raise CheckpointError(f"{path}: member {shown(name)}: not a plain relative path")
    return name


def _member(path: Path, file: FileIO, name: str, entry: _Entry) -> Member:
    """Checks an entry by itself and against the member's own header."""
    subject = f"{path}: member {shown(name)}"
    if entry.flags & _ENCRYPTED:
        raise CheckpointError(f"{subject}: encrypted; refused")
    if entry.flags & ~(_DESCRIPTOR | _UTF8 | _DEFLATE_LEVEL) or entry.method not in (_STORED, _DEFLATED):
        raise CheckpointError(f"{subject}: method {entry.method}, flags {entry.flags:#x}, expected stored or deflated")
    deflated = entry.method == _DEFLATED
    if not deflated and entry.stored != entry.size:
        raise CheckpointError(f"{subject}: {entry.stored} bytes stored, expected {entry.size}")
    if entry.size > limits.MAX_ZIP_RATIO * entry.stored:
        ratio = f"{entry.size} bytes deflated to {entry.stored}"
        raise CheckpointError(f"{subject}: {ratio}, expected at most {limits.MAX_ZIP_RATIO} to one")
    if name.endswith("/") and entry.size:
        raise CheckpointError(f"{subject}: a directory of {entry.size} bytes, expected none")
    return Member(name, _data_start(subject, path, file, entry), entry.stored, entry.size, entry.crc, deflated)


def _data_start(subject: str, path: Path, file: FileIO, entry: _Entry) -> int:
    """Returns where a member's bytes begin; its header must say what the directory says."""
    head = bytes_at(path, file, entry.header, _LOCAL.size)
    magic, _, flags, method, _, _, crc, stored, size, name_length, extra_length = _LOCAL.unpack(head)
    if magic != _LOCAL_MAGIC:
        raise CheckpointError(f"{subject}: its own header and the zip directory disagree")
    rest = bytes_at(path, file, entry.header + _LOCAL.size, name_length + extra_length)
    name, extra = rest[:name_length], rest[name_length:]
    size, stored = _widened(subject, extra, (size, stored))
    found: tuple[int, ...] = (crc, stored, size)
    expected = (entry.crc, entry.stored, entry.size)
    if entry.flags & _DESCRIPTOR:  # then they may stand behind the member, with zeros here
        pairs = zip(found, expected, strict=True)
        found = tuple(wanted if number in (0, _FULL32) else number for number, wanted in pairs)
    if (flags, method, name, *found) != (entry.flags, entry.method, entry.name, *expected):
        raise CheckpointError(f"{subject}: its own header and the zip directory disagree")
    return entry.header + _LOCAL.size + name_length + extra_length


def _require_gapless(path: Path, file: FileIO, entries: list[_Entry], members: list[Member], end: int) -> None:
    for entry, member in sorted(zip(entries, members, strict=True), key=lambda pair: pair[0].header, reverse=True):
        gap = end - member.start - member.stored
        if gap < 0:
            raise CheckpointError(f"{path}: member {shown(member.name)}: overlaps what follows it")
        behind = bytes_at(path, file, member.start + member.stored, min(gap, 24))
        if gap > 24 or behind not in _descriptors(entry):
            raise CheckpointError(f"{path}: member {shown(member.name)}: {gap} bytes behind it that belong to none")
        end = entry.header
    if end:
        raise CheckpointError(f"{path}: {end} bytes before the first member, expected none")


def _descriptors(entry: _Entry) -> list[bytes]:
    """Returns what may stand behind a member's bytes."""
    if not entry.flags & _DESCRIPTOR:
        return [b""]
    forms = [struct.pack("<L2Q", entry.crc, entry.stored, entry.size)]
    if max(entry.stored, entry.size) <= _FULL32:
        forms.append(struct.pack("<3L", entry.crc, entry.stored, entry.size))
    return forms + [_DESCRIPTOR_MAGIC + form for form in forms]


class ZipWriter:
    """Writes an archive of stored members to a file that is empty and can seek; `close` ends it."""

    def __init__(self, file: BinaryIO, alignment: int = 1):
        self._file = file
        self._alignment = alignment
        self._directory: list[bytes] = []

    def add(self, name: str, size: int, data: Iterable[bytes | memoryview]) -> None:
        """Adds a member whose `size` is known before its data: its checksum is filled in behind them."""
        header = self._file.tell()
        fields = (name.encode(), size)
        self._file.write(self._local(*fields, 0, header))
        crc = written = 0
        for piece in data:
            crc, written = zlib.crc32(piece, crc), written + len(piece)
            self._file.write(piece)
        assert written == size, f"{name}: {written} bytes, expected {size}"
        end = self._file.tell()
        self._file.seek(header)
        self._file.write(self._local(*fields, crc, header))
        self._file.seek(end)
        self._directory.append(_central(*fields, crc, header))

    def close(self) -> None:
        """Writes the directory."""
        start, text, count = self._file.tell(), b"".join(self._directory), len(self._directory)
        self._file.write(text)
        end = start + len(text)
        if count >= _FULL16 or end >= _WIDE_FROM:
            numbers = (count, count, len(text), start)
            self._file.write(_END64.pack(_END64_MAGIC, _END64.size - 12, 45, 45, 0, 0, *numbers))
            self._file.write(_LOCATOR.pack(_LOCATOR_MAGIC, 0, end, 1))
        narrow = min(count, _FULL16), min(count, _FULL16), _narrow(len(text)), _narrow(start)
        self._file.write(_END.pack(_END_MAGIC, 0, 0, *narrow, 0))

    def _local(self, name: bytes, size: int, crc: int, header: int) -> bytes:
        wide = struct.pack("<2H2Q", 1, 16, size, size) if size >= _WIDE_FROM else b""
        padding = -(header + _LOCAL.size + len(name) + len(wide)) % self._alignment
        if 0 < padding < 4:
            padding += self._alignment
        extra = wide + (struct.pack("<2H", _PADDING, padding - 4) + bytes(padding - 4) if padding else b"")
        narrow = _narrow(size)
        lengths = len(name), len(extra)
        version = 45 if wide else 20
        return (
            _LOCAL.pack(_LOCAL_MAGIC, version, _UTF8, _STORED, 0, _DATE, crc, narrow, narrow, *lengths) + name + extra
        )


def _central(name: bytes, size: int, crc: int, header: int) -> bytes:
    wide = struct.pack("<2Q", size, size) if size >= _WIDE_FROM else b""
    wide += struct.pack("<Q", header) if header >= _WIDE_FROM else b""
    extra = struct.pack("<2H", 1, len(wide)) + wide if wide else b""
    version, narrow = 45 if wide else 20, _narrow(size)
    fixed = (version, version, _UTF8, _STORED, 0, _DATE, crc, narrow, narrow, len(name), len(extra), 0, 0, 0, 0)
    return _CENTRAL.pack(_CENTRAL_MAGIC, *fixed, _narrow(header)) + name + extra


def _narrow(number: int) -> int:
    return _FULL32 if number >= _WIDE_FROM else number
