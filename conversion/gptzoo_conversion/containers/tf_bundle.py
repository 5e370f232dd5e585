"""TensorFlow's checkpoints, "tensor bundles": a table of what there is (`.index`), and shards with the numbers.

TensorFlow's own reader ends the process on many a falsified index; here every field is checked before it is believed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from gptzoo import limits
from gptzoo._files import naming, stand_in, write_synced
from gptzoo._tensors import Read, TensorFile, TensorInfo, shown
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers import _protobuf as protobuf
from gptzoo_conversion.containers._parts import PartedFile, pieces, read_whole, shape_fault, stamp_at
from gptzoo_conversion.containers._protobuf import BYTES, FIXED32, VARINT, MalformedError, Message, parse
from gptzoo_conversion.containers._sstable import crc32c, masked, read_table, write_table

# TensorFlow's number of a dtype -> NumPy's name.
DTYPES = {1: "float32", 2: "float64", 3: "int32", 9: "int64", 10: "bool", 14: "bfloat16", 19: "float16"}
_CODES = {name: code for code, name in DTYPES.items()}
_NOT_NUMBERS = {7: "string", 20: "resource", 21: "variant"}

_HEADER = {1: ("num_shards", VARINT), 2: ("endianness", VARINT), 3: ("version", BYTES)}
_VERSION = {1: ("producer", VARINT), 2: ("min_consumer", VARINT)}
_ENTRY = {
    1: ("dtype", VARINT),
    2: ("shape", BYTES),
    3: ("shard_id", VARINT),
    4: ("offset", VARINT),
    5: ("size", VARINT),
    6: ("crc32c", FIXED32),
    7: ("slices", BYTES),
}
_SHAPE = {2: ("dim", BYTES), 3: ("unknown_rank", VARINT)}
_DIM = {1: ("size", VARINT), 2: ("name", BYTES)}
_FORMAT_VERSION = 1

_STATE_LINE = re.compile(r"""(\w+)\s*:\s*("[^"]*"|'[^']*'|[-+\w.]+)""")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class _Entry:
    """What the index says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True)
class TensorBundle(PartedFile):
    """A bundle; a tensor that is read to its end is one whose checksum was found right.

    Attributes:
        checksums: of each tensor, as they are stored.
    """

    checksums: dict[str, int]

    def chunks(self, name: str) -> Iterator[bytearray]:
        """Yields a tensor's bytes piece by piece; behind the last one, an error tells if they were damaged."""
        crc = 0
        for piece in super().chunks(name):
            crc = crc32c(bytes(piece), crc)
            yield piece
        if masked(crc) != self.checksums[name]:
            shard = self.path.with_name(self.tensors[name].file)
            expected = f"{self.checksums[name]:#010x} by {self.path.name}"
            raise CheckpointError(
                f"{shard}: {shown(name)}: checksum {masked(crc):#010x}, expected {expected} (damaged)"
            )


def read_tf_bundle(prefix: Path) -> TensorBundle:
    """Reads the index of a bundle, and checks all that it claims against the sizes of the shards.

    Args:
        prefix: what TensorFlow calls the checkpoint's path: `model.ckpt` of `model.ckpt.index`.

    Returns:
        The tensors in the order of their names, and `metadata["skipped"]`: name -> why it is no tensor of numbers.

    Raises:
        CheckpointError: lists everything that is wrong.
        MissingExtraError: the package that computes checksums is not installed.
    """
    path = Path(f"{prefix}.index")
    data, stamp = read_whole(path, limits.MAX_TF_INDEX_BYTES)
    try:
        rows = read_table(data, limits.MAX_TENSORS + 1, limits.MAX_NAME_BYTES)
        count = _shard_count(rows.pop(b"", None))
    except MalformedError as problem:
        raise CheckpointError(f"{path}: {problem}") from None
    entries, skipped = _entries(path, rows, count)
    shards = [_shard(path, number, count) for number in range(count)]
    if problems := _range_faults(entries, shards) or _overlaps(entries, shards):
        raise CheckpointError.listing(str(path), problems)
    for name, entry in entries.items():
        shard = shards[entry.shard]
        shard.tensors[name] = TensorInfo(shard.path.name, entry.dtype, entry.shape, entry.offset)
    tensors = {name: shards[entry.shard].tensors[name] for name, entry in entries.items()}
    checksums = {name: entry.checksum for name, entry in entries.items()}
    return TensorBundle(path, tensors, {"skipped": skipped}, stamp, tuple(shards), checksums)


def _shard_count(data: bytes | None) -> int:
    """Returns how many shards a bundle has, if its header is one that can be read here."""
    if data is None:
        raise MalformedError("no header (an entry with an empty key), expected one")
    header = parse(data, _HEADER)
    version = parse(header.one("version"), _VERSION)
    if header.number("endianness"):
        raise MalformedError(f"header: endianness {header.signed('endianness')}, expected 0 (little)")
    if not 0 <= version.signed("min_consumer") <= _FORMAT_VERSION:
        raise MalformedError(f"header: min_consumer {version.signed('min_consumer')}, expected at most 1")
    if not 1 <= header.signed("num_shards") <= limits.MAX_TF_SHARDS:
        found = header.signed("num_shards")
        raise MalformedError(f"header: num_shards {found}, expected 1 to {limits.MAX_TF_SHARDS}")
    return header.number("num_shards")


def _entries(path: Path, rows: Mapping[bytes, bytes], count: int) -> tuple[dict[str, _Entry], dict[str, str]]:
    """Returns the entries that are tensors of numbers, and why the others are none."""
    entries, skipped, problems = {}, {}, []
    for key, value in rows.items():
        try:
            name = _name(key)
            message = parse(value, _ENTRY)
            if kind := _NOT_NUMBERS.get(message.number("dtype")):
                skipped[name] = f"dtype {kind}, not numbers"
            else:
                entries[name] = _entry(message, count)
        except MalformedError as problem:
            problems.append(f"{shown(key.decode(errors='backslashreplace'))}: {problem}")
    if problems:
        raise CheckpointError.listing(str(path), problems)
    return entries, skipped


def _name(key: bytes) -> str:
    if key.startswith(b"\0"):
        raise MalformedError("a slice of a partitioned variable, expected whole variables")
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise MalformedError("a name that is not UTF-8 text") from None


def _entry(message: Message, count: int) -> _Entry:
    if message.many("slices"):
        raise MalformedError(f"a partitioned variable of {len(message.many('slices'))} slices, expected a whole one")
    dtype = DTYPES.get(message.number("dtype"), "")
    if not dtype:
        known = ", ".join(f"{code} ({name})" for code, name in DTYPES.items())
        raise MalformedError(f"dtype {message.signed('dtype')}, expected one of {known}")
    shape = _shape(message.one("shape"))
    if fault := shape_fault(shape, dtype):
        raise MalformedError(fault)
    expected = TensorInfo("", dtype, shape).nbytes
    if message.number("size") != expected:
        raise MalformedError(f"size {message.signed('size')}, expected {expected} for {dtype} {list(shape)}")
    if message.number("shard_id") >= count:
        raise MalformedError(f"shard_id {message.signed('shard_id')}, expected less than num_shards {count}")
    if message.signed("offset") < 0:
        raise MalformedError(f"offset {message.signed('offset')}, expected 0 or more")
    numbers = [message.number(field) for field in ("shard_id", "offset", "size", "crc32c")]
    return _Entry(dtype, shape, *numbers)


def _shape(data: bytes) -> tuple[int, ...]:
    shape = parse(data, _SHAPE)
    if shape.number("unknown_rank"):
        raise MalformedError("a shape of unknown rank, expected a known one")
    return tuple(parse(dim, _DIM).signed("size") for dim in shape.many("dim"))


def _shard_path(index: Path, number: int, count: int) -> Path:
    return index.with_name(f"{index.name.removesuffix('.index')}.data-{number:05d}-of-{count:05d}")


def _shard(index: Path, number: int, count: int) -> TensorFile:
    path = _shard_path(index, number, count)
    try:
        return TensorFile(path, {}, {}, stamp_at(path))
    except CheckpointError as problem:
        raise CheckpointError(f"{index}: shard {number + 1} of {count}: {problem}") from None


def _range_faults(entries: Mapping[str, _Entry], shards: list[TensorFile]) -> list[str]:
    """Says which tensors do not lie within their shard."""
    faults = []
    for name, entry in entries.items():
        shard = shards[entry.shard]
        if entry.end > shard.nbytes:
            _require_downloaded(shard)
            found = f"bytes {entry.offset} to {entry.end} of {shard.path.name}"
            faults.append(f"{shown(name)}: {found}, expected at most {shard.nbytes}, its size (cut off?)")
    return faults


def _require_downloaded(shard: TensorFile) -> None:
    with shard.opened() as file:
        if diagnosis := stand_in(file.read(64)):
            raise CheckpointError(f"{shard.path}: {diagnosis}")


def _overlaps(entries: Mapping[str, _Entry], shards: list[TensorFile]) -> list[str]:
    """Says which tensors begin before another one ends."""
    faults = []
    filled = [(entry.shard, entry.offset, entry.end, name) for name, entry in entries.items() if entry.size]
    for (number, _, end, before), (next_number, offset, _, name) in pairwise(sorted(filled)):
        if number == next_number and offset < end:
            file = shards[number].path.name
            faults.append(f"{shown(name)}: offset {offset} of {file}, expected {end} or more, behind {shown(before)}")
    return faults


def read_state_file(path: Path) -> str:
    """Returns the name of the newest bundle of a directory, from the text file `checkpoint` in it.

    Raises:
        CheckpointError: the file is none of TensorFlow's, or names anything but a file beside it.
    """
    data, _ = read_whole(path, limits.MAX_TF_STATE_BYTES)
    names = [value for key, value in _state_lines(path, data) if key == "model_checkpoint_path"]
    if len(names) != 1:
        raise CheckpointError(f"{path}: model_checkpoint_path: stands {len(names)} times, expected once")
    name = names[0][1:-1] if names[0][0] in "\"'" else ""
    if not _PLAIN_NAME.fullmatch(name) or not name.strip("."):
        raise CheckpointError(f"{path}: model_checkpoint_path: {shown(names[0])}, expected a plain file name")
    return name


def _state_lines(path: Path, data: bytes) -> Iterator[tuple[str, str]]:
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{path}: not UTF-8 text ({problem.reason} at byte {problem.start})") from None
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            match = _STATE_LINE.fullmatch(text)
            if not match:
                raise CheckpointError(f"{path}: line {number}: {shown(text)}, expected a key, a colon and one value")
            yield match[1], match[2]


def write_tf_bundle(prefix: Path, infos: Mapping[str, TensorInfo], read: Read, metadata: Mapping[str, Any]) -> None:
    """Writes a bundle of one shard, the index last; of the tensors, one at a time is in memory.

    Args:
        prefix: path of the new files without `.index` and `.data-00000-of-00001`.
        infos: name -> dtype and shape of the tensor that `read` returns for it.
        metadata: not written, since a bundle holds tensors only.

    Raises:
        CheckpointError: a name or a dtype is none that a bundle can hold, or a file cannot be written.
    """
    index = Path(f"{prefix}.index")
    if problems := [f"{shown(name)}: {fault}" for name, info in infos.items() if (fault := _unwritable(name, info))]:
        raise CheckpointError.listing(str(index), problems)
    shard = _shard_path(index, 0, 1)
    version = protobuf.number_field(1, _FORMAT_VERSION)
    rows = {b"": protobuf.number_field(1, 1) + protobuf.bytes_field(3, version)}
    with naming(shard):
        write_synced(shard, lambda file: rows.update(_write_data(file, infos, read)))
    with naming(index):
        write_synced(index, lambda file: file.write(write_table(rows)))


def _unwritable(name: str, info: TensorInfo) -> str | None:
    if info.dtype not in _CODES:
        return f"dtype {info.dtype}, expected one of {', '.join(_CODES)}"
    try:
        key = name.encode()
    except UnicodeEncodeError:
        return "a name that UTF-8 cannot hold"
    if not 1 <= len(key) <= limits.MAX_NAME_BYTES or key.startswith(b"\0"):
        return f"a name of {len(key)} bytes, expected 1 to {limits.MAX_NAME_BYTES}, the first of them not zero"
    return None


def _write_data(file: BinaryIO, infos: Mapping[str, TensorInfo], read: Read) -> dict[bytes, bytes]:
    """Writes tensors one behind the other, and returns the index's entries of them."""
    rows, offset = {}, 0
    for name, info in infos.items():
        crc = 0
        for piece in pieces(name, info, read):
            crc = crc32c(piece, crc)
            file.write(piece)
        rows[name.encode()] = _row(info, offset, masked(crc))
        offset += info.nbytes
    return rows


def _row(info: TensorInfo, offset: int, checksum: int) -> bytes:
    dims = [protobuf.bytes_field(2, protobuf.number_field(1, size)) for size in info.shape]
    return (
        protobuf.number_field(1, _CODES[info.dtype])
        + protobuf.bytes_field(2, b"".join(dims))
        + protobuf.number_field(4, offset)
        + protobuf.number_field(5, info.nbytes)
        + protobuf.fixed32_field(6, checksum)
    )
