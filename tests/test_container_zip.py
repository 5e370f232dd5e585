"""Zip archives: what other software writes is read, what can be understood in two ways is refused."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gptzoo import limits
from gptzoo._files import open_regular
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers import _zip
from tests import fuzz

MEMBERS = {"a/one": b"first", "a/empty": b"", "a/two": bytes(range(256)) * 20}


def archive(members: dict[str, bytes] = MEMBERS, method: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as writer:
        for name, data in members.items():
            writer.writestr(zipfile.ZipInfo(name), data, method)
    return target.getvalue()


def read(path: Path) -> dict[str, bytes]:
    with open_regular(path) as file:
        members = _zip.read_members(path, file)
        return {name: _zip.read_member(path, file, member, 2**20) for name, member in members.items()}


def written(path: Path, alignment: int = 64) -> bytes:
    with open(path, "wb") as file:
        writer = _zip.ZipWriter(file, alignment)
        for name, data in MEMBERS.items():
            writer.add(name, len(data), [data[:3], data[3:]])
        writer.close()
    return path.read_bytes()


class Unseekable(io.RawIOBase):
    """Makes zipfile write sizes and checksums behind each member."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, piece) -> int:
        self.data += piece
        return len(piece)


def streamed(wide: bool) -> bytes:
    target = Unseekable()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as writer:
        for name, data in MEMBERS.items():
            with writer.open(name, "w", force_zip64=wide) as member:
                member.write(data)
    return bytes(target.data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(archive(), id="stored"),
        pytest.param(archive(method=zipfile.ZIP_DEFLATED), id="deflated"),
        pytest.param(streamed(False), id="descriptors"),
        pytest.param(streamed(True), id="zip64_descriptors"),
        pytest.param(archive(MEMBERS | {"a/folder/": b""}), id="a_directory"),
    ],
)
def test_archives_of_zipfile_are_read(tmp_path, data):
    path = tmp_path / "x.zip"
    path.write_bytes(data)
    assert read(path) == MEMBERS


@pytest.mark.parametrize("large", [2**32 - 1, 1, 100], ids=["plain", "all_zip64", "some_zip64"])
@pytest.mark.parametrize("alignment", [1, 64])
def test_ours_are_read(tmp_path, monkeypatch, large, alignment):
    if large < 2**32 - 1:
        monkeypatch.setattr(_zip, "_WIDE_FROM", large)
    path = tmp_path / "x.zip"
    data = written(path, alignment)
    assert read(path) == MEMBERS
    with zipfile.ZipFile(path) as reader:
        assert reader.testzip() is None
        assert {name: reader.read(name) for name in reader.namelist()} == MEMBERS
        starts = [
            info.header_offset + 30 + sum(struct.unpack_from("<2H", data, info.header_offset + 26))
            for info in reader.infolist()
        ]
    assert all(start % alignment == 0 for start in starts)
    assert written(tmp_path / "y.zip", alignment) == data


def test_directory_of_many_members_is_read(tmp_path):
    path = tmp_path / "x.zip"
    members = {f"a/{number}": b"" for number in range(70_000)}
    with open(path, "wb") as file:
        writer = _zip.ZipWriter(file)
        for name in members:
            writer.add(name, 0, [])
        writer.close()
    assert read(path) == members
    with zipfile.ZipFile(path) as reader:
        assert reader.namelist() == list(members)


def replaced(old: bytes, new: bytes, which: str = "all") -> Callable[[bytes], bytes]:
    """Returns what replaces bytes in the local headers (before the directory), behind that, or both."""

    def falsify(data: bytes) -> bytes:
        middle = data.index(b"PK\x01\x02")
        head, tail = data[:middle], data[middle:]
        head = head.replace(old, new) if which in ("all", "local") else head
        tail = tail.replace(old, new) if which in ("all", "central") else tail
        assert head + tail != data
        return head + tail

    return falsify


def field(place: int, layout: str, change: Callable[[int], int], which: str = "both") -> Callable[[bytes], bytes]:
    """Returns what changes a number of the first member: at `place` of its local header, two on in the directory."""

    def falsify(data: bytes) -> bytes:
        result = bytearray(data)
        bases = {"local": [0], "central": [data.index(b"PK\x01\x02") + 2], "both": [0, data.index(b"PK\x01\x02") + 2]}
        for base in bases[which]:
            (number,) = struct.unpack_from(layout, data, base + place)
            struct.pack_into(layout, result, base + place, change(number))
        return bytes(result)

    return falsify


def end(place: int, layout: str, change: Callable[[int], int]) -> Callable[[bytes], bytes]:
    def falsify(data: bytes) -> bytes:
        result = bytearray(data)
        (number,) = struct.unpack_from(layout, data, len(data) - 22 + place)
        struct.pack_into(layout, result, len(data) - 22 + place, change(number))
        return bytes(result)

    return falsify


def central(place: int, layout: str, number: int) -> Callable[[bytes], bytes]:
    def falsify(data: bytes) -> bytes:
        result = bytearray(data)
        struct.pack_into(layout, result, data.index(b"PK\x01\x02") + place, number)
        return bytes(result)

    return falsify


def entries(count: int) -> Callable[[bytes], bytes]:
    return lambda data: end(8, "<H", lambda n: count)(end(10, "<H", lambda n: count)(data))


def size(more: int) -> Callable[[bytes], bytes]:
    return lambda data: field(18, "<L", lambda n: n + more)(field(22, "<L", lambda n: n + more)(data))


def garbage_between(data: bytes) -> bytes:
    """Puts bytes behind the last member, and moves the directory's start."""
    middle = data.index(b"PK\x01\x02")
    return end(16, "<L", lambda start: start + 7)(data[:middle] + b"garbage" + data[middle:])


def garbage_before(data: bytes) -> bytes:
    """Puts bytes before the first member, and moves all that counts from the start."""
    moved = bytearray(data)
    place = data.index(b"PK\x01\x02")
    for _ in MEMBERS:
        struct.pack_into("<L", moved, place + 42, struct.unpack_from("<L", moved, place + 42)[0] + 7)
        place += 46 + struct.unpack_from("<H", moved, place + 28)[0]
    return b"garbage" + end(16, "<L", lambda start: start + 7)(bytes(moved))


def bomb(data: bytes) -> bytes:
    return archive({"a/one": bytes(10**6)}, zipfile.ZIP_DEFLATED)


def lying_bomb(data: bytes) -> bytes:
    """A deflated megabyte that is said to be 1000 bytes."""
    return replaced(struct.pack("<L", 10**6), struct.pack("<L", 1000))(bomb(data))


@pytest.mark.parametrize(
    ("falsify", "words"),
    [
        pytest.param(lambda data: b"", "not a zip archive", id="empty_file"),
        pytest.param(lambda data: data[:-1], "not a zip archive", id="cut_off"),
        pytest.param(lambda data: data + b"x", "not a zip archive", id="byte_after_the_end"),
        pytest.param(lambda data: end(20, "<H", lambda n: 3)(data) + b"abc", "not a zip archive", id="comment"),
        pytest.param(end(20, "<H", lambda n: 3), "with a comment", id="comment_that_is_not_there"),
        pytest.param(end(4, "<H", lambda n: 1), "several files", id="second_disk"),
        pytest.param(end(8, "<H", lambda n: n + 1), "several files", id="entries_here_and_in_all_differ"),
        pytest.param(end(12, "<L", lambda n: n - 1), "expected one that ends at", id="directory_shorter"),
        pytest.param(end(16, "<L", lambda n: 2**32 - 1), "expected one that ends at", id="directory_beyond_the_file"),
        pytest.param(entries(2), "by its entries", id="entry_not_counted"),
        pytest.param(entries(4), "ends at entry 3", id="entry_not_there"),
        pytest.param(garbage_between, "7 bytes behind it", id="bytes_between"),
        pytest.param(garbage_before, "7 bytes before the first", id="bytes_before"),
        pytest.param(replaced(b"a/two", b"a/one"), "a/one is there twice", id="name_twice"),
        pytest.param(replaced(b"a/two", b"../wo"), "not a plain relative path", id="parent_directory"),
        pytest.param(replaced(b"a/two", b"/atwo"), "not a plain relative path", id="absolute"),
        pytest.param(replaced(b"a/two", b"c:two"), "not a plain relative path", id="drive"),
        pytest.param(replaced(b"a/two", b"a\\two"[:5]), "not a plain relative path", id="backslash"),
        pytest.param(replaced(b"a/two", b"a/t\0o"), "not a plain relative path", id="nul"),
        pytest.param(replaced(b"a/two", b"a/t\xffo"), "not UTF-8", id="not_utf8"),
        pytest.param(replaced(b"a/two", b"a/tw/"), "a directory of 5120 bytes", id="directory_with_bytes"),
        pytest.param(replaced(b"a/two", b"a/owt", "local"), "disagree", id="local_name_differs"),
        pytest.param(field(6, "<H", lambda n: n | 1), "encrypted", id="encrypted"),
        pytest.param(field(6, "<H", lambda n: n | 0x40), "flags 0x40", id="strong_encryption"),
        pytest.param(field(8, "<H", lambda n: 12), "method 12", id="bzip2"),
        pytest.param(field(8, "<H", lambda n: 8), "a/one", id="stored_called_deflated"),
        pytest.param(field(8, "<H", lambda n: 8, "local"), "disagree", id="local_method_differs"),
        pytest.param(field(14, "<L", lambda n: n ^ 1), "CRC-32", id="checksum"),
        pytest.param(field(14, "<L", lambda n: 0), "saved without checksums", id="checksum_zero"),
        pytest.param(field(14, "<L", lambda n: n ^ 1, "local"), "disagree", id="local_checksum_differs"),
        pytest.param(field(18, "<L", lambda n: n + 1), "expected 5", id="stored_size_differs"),
        pytest.param(field(22, "<L", lambda n: n + 1, "local"), "disagree", id="local_size_differs"),
        pytest.param(size(+1), "overlaps", id="overlap"),
        pytest.param(size(-1), "1 bytes behind", id="gap"),
        pytest.param(field(28, "<H", lambda n: 65535, "local"), "ended", id="local_extra_beyond"),
        pytest.param(central(38, "<L", 0o120777 << 16), "a link", id="symbolic_link"),
        pytest.param(central(42, "<L", 5), "disagree", id="header_elsewhere"),
        pytest.param(central(42, "<L", 2**32 - 1), "a/one: 5 bytes at 4294967295", id="header_beyond_the_file"),
        pytest.param(central(34, "<H", 1), "in another file", id="on_another_disk"),
        pytest.param(bomb, "expected at most 100 to one", id="deflate_bomb"),
        pytest.param(lying_bomb, "inflates to 1001 bytes", id="deflate_bomb_that_lies"),
    ],
)  # fmt: skip
def test_falsified_archives_are_refused(tmp_path, falsify, words):
    path = tmp_path / "x.zip"
    path.write_bytes(falsify(archive()))
    with pytest.raises(CheckpointError, match=r"x\.zip: ") as caught:
        read(path)
    assert words in str(caught.value)


def test_too_many_members_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_ZIP_MEMBERS", 2)
    path = tmp_path / "x.zip"
    path.write_bytes(archive())
    with pytest.raises(CheckpointError, match="3 members"):
        read(path)


def test_deflated_garbage_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    data = archive(method=zipfile.ZIP_DEFLATED)
    packed = zlib.compressobj(wbits=-15)
    stream = packed.compress(MEMBERS["a/two"]) + packed.flush()
    assert stream in data
    path.write_bytes(data.replace(stream, bytes(255 - byte for byte in stream)))
    with pytest.raises(CheckpointError, match=r"x\.zip: a/two: "):
        read(path)


def test_huge_numbers_are_refused(tmp_path, monkeypatch):
    """Such as no file can be sought to."""
    monkeypatch.setattr(_zip, "_WIDE_FROM", 1)
    path = tmp_path / "x.zip"
    data = written(path)
    first = data.index(b"PK\x01\x02", 1)
    second = data.index(b"PK\x01\x02", first + 1)
    for place in [first + 46 + 5 + 4 + 8, second + 46 + 7 + 4]:  # the first's stored size, the second's header
        for number in (2**63 - 1, 2**63, 2**64 - 1):
            path.write_bytes(data[:place] + number.to_bytes(8, "little") + data[place + 8 :])
            with pytest.raises(CheckpointError, match=f"a/.* {number}"):
                read(path)


def test_zip64_end_must_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(_zip, "_WIDE_FROM", 1)
    path = tmp_path / "x.zip"
    data = written(path)
    place = data.index(b"PK\x06\x06")
    for offset, words in [(4, "zip64 end"), (24, "expected one number"), (48, "expected one"), (56 + 8, "zip64 end")]:
        falsified = bytearray(data)
        falsified[place + offset] ^= 1
        path.write_bytes(falsified)
        with pytest.raises(CheckpointError, match=words):
            read(path)


@pytest.mark.parametrize("data", [archive(), streamed(True)], ids=["stored", "deflated"])
def test_fuzzed_archives(tmp_path, data):
    seen = fuzz.attack(read, data, tmp_path / "x.zip")
    assert seen["refused"] > seen["read"]


def test_flipped_bits_are_seen(tmp_path):
    """Wherever a bit is falsified, the same is read or it is refused: dates and versions are no one's business."""
    path = tmp_path / "x.zip"
    members = {"a": b"first", "b": b"second"}
    data = archive(members)
    for place in range(len(data)):
        falsified = bytearray(data)
        falsified[place] ^= 0x10
        path.write_bytes(falsified)
        with suppress(CheckpointError):
            assert read(path) == members
