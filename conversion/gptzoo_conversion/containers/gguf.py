"""GGUF, the container of llama.cpp, read strictly and written one tensor at a time.

A file is a header (typed keys and values; the tensors' names, sizes, types and offsets) and the tensors' bytes, each
tensor at a multiple of the alignment. Sizes are stored innermost first: the reverse of NumPy's shape.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from gptzoo import limits
from gptzoo._files import naming, open_regular, stand_in, write_synced
from gptzoo._tensors import Read, TensorFile, TensorInfo, contiguous_bytes, shown, stamp_of
from gptzoo.errors import CheckpointError

# GGML's number of a type of tensors that is converted exactly -> NumPy's name.
DTYPES = {0: "float32", 1: "float16", 30: "bfloat16"}
_CODES = {dtype: code for code, dtype in DTYPES.items()}

# The other types, for errors; where there is no name, there is no such type.
_OTHERS = {
    2: "Q4_0", 3: "Q4_1", 4: "Q4_2", 5: "Q4_3", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip

# Types of values: those of a number, by struct's code, and the three others.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_BOOL, _TEXT, _ARRAY = 7, 8, 9
_UINT32, _INT32, _FLOAT32, _UINT64, _INT64 = 4, 5, 6, 10, 11

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = "general.alignment"
_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def read_gguf(path: Path) -> TensorFile:
    """Reads the header of a little-endian file of version 2 or 3.

    Returns:
        The tensors, and as metadata the keys with Python's values: int, float, bool, str, or a list of one of these.

    Raises:
        CheckpointError: names the key or tensor at which the file is wrong; quantized tensors are refused.
    """
    with naming(path), open_regular(path) as file:
        stamp = stamp_of(file)
        header = _Header(path, BufferedReader(file), stamp[2])
        tensors, metadata = header.parse()
    return TensorFile(path, tensors, metadata, stamp)


class _Header:
    """Reads a header front to back; no number in it is believed beyond what is left of the file."""

    def __init__(self, path: Path, file: BufferedReader, size: int):
        self.path, self.file, self.size, self.left = path, file, size, size
        self.subject: str | None = None  # the key or tensor that is read
        self.values = self.text_bytes = 0

    def parse(self) -> tuple[dict[str, TensorInfo], dict[str, Any]]:
        self.require_version()
        tensor_count, key_count = self.number("Q"), self.number("Q")
        self.require_count("tensors", tensor_count, 32, limits.MAX_TENSORS)
        self.require_count("keys", key_count, 14, limits.MAX_GGUF_VALUES)
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self.key(metadata)
            metadata[key] = self.value(self.number("I"))
        self.subject = None
        alignment = _alignment(metadata, self.fault)
        infos: dict[str, TensorInfo] = {}
        for _ in range(tensor_count):
            self.tensor(infos)
        return self.placed(infos, alignment), metadata

    def fault(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: {shown(self.subject)}: {what}" if self.subject else f"{self.path}: {what}"
        )

    def require_version(self) -> None:
        start = self.file.peek(64)[:64]
        if not start:
            raise self.fault("empty file")
        if diagnosis := stand_in(start):
            raise self.fault(diagnosis)
        if not start.startswith(_MAGIC):
            raise self.fault(f"begins with {start[:16]!r}, expected {_MAGIC!r} (not GGUF)")
        self.take(4)
        version = self.number("I")
        if version and not version & 0xFFFF:
            raise self.fault(
                "a big-endian file, expected little-endian (llama.cpp's gguf_convert_endian.py converts it)"
            )
        if version not in _VERSIONS:
            raise self.fault(f"version {version} of GGUF, expected 2 or 3")

    def key(self, seen: Mapping[str, Any]) -> str:
        self.subject = None
        self.count_values(1)
        key = self.text(limits.MAX_NAME_BYTES)
        if not _KEY.fullmatch(key):
            raise self.fault(f"key {shown(key)}, expected words of letters, digits, _ and -, joined by dots")
        if key in seen:
            raise self.fault(f"key {shown(key)} stands twice")
        self.subject = key
        return key

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text(limits.MAX_GGUF_TEXT_BYTES)
        if kind == _ARRAY:
            return self.array()
        return self.plain(kind, 1)[0]

    def array(self) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        if kind == _ARRAY:
            raise self.fault("an array of arrays, expected one of numbers, bools or texts")
        self.count_values(count)
        if kind == _TEXT:
            self.require_count("texts", count, 8, limits.MAX_GGUF_VALUES)
            return [self.text(limits.MAX_GGUF_TEXT_BYTES) for _ in range(count)]
        return self.plain(kind, count)

    def plain(self, kind: int, count: int) -> list[Any]:
        """Reads numbers or bools."""
        if kind == _BOOL:
            data = self.take(count)
            if set(data) - {0, 1}:
                raise self.fault(f"a bool of {max(data)}, expected 0 or 1")
            return [byte == 1 for byte in data]
        if kind not in _NUMBERS:
            raise self.fault(f"a value of type {kind}, expected 0 to 12")
        width = struct.calcsize(f"<{_NUMBERS[kind]}")
        return list(struct.unpack(f"<{count}{_NUMBERS[kind]}", self.take(count * width)))

    def tensor(self, infos: dict[str, TensorInfo]) -> None:
        """Reads what the header says of one tensor; its start is counted from where the data begin."""
        self.subject = None
        name = self.text(limits.MAX_NAME_BYTES)
        if name in infos:
            raise self.fault(f"tensor {shown(name)} stands twice")
        self.subject = name
        rank = self.number("I")
        if not 1 <= rank <= limits.MAX_GGUF_RANK:
            raise self.fault(f"{rank} dimensions, expected 1 to {limits.MAX_GGUF_RANK}")
        shape = tuple(self.number("Q") for _ in range(rank))[::-1]
        if 0 in shape:
            raise self.fault(f"shape {list(shape)}, expected sizes of at least 1")
        infos[name] = TensorInfo(self.path.name, self.dtype(self.number("I")), shape, self.number("Q"))

    def dtype(self, code: int) -> str:
        if code in DTYPES:
            return DTYPES[code]
        name = _OTHERS.get(code, f"type {code}")
        reason = " (quantized weights cannot be converted exactly)" if "Q" in name or "FP4" in name else ""
        raise self.fault(f"{name}, expected F32, F16 or BF16{reason}")

    def placed(self, infos: dict[str, TensorInfo], alignment: int) -> dict[str, TensorInfo]:
        """Returns tensors with their places in the file, which must follow each other with nothing but padding between.

        Without a tensor, the padding before the data may be absent; after the last tensor, it always may.
        """
        header_end = self.size - self.left
        base, end, placed = _padded(header_end, alignment), 0, {}
        for name, info in infos.items():
            self.subject = name
            if info.start != _padded(end, alignment):
                raise self.fault(
                    f"offset {info.start}, expected {_padded(end, alignment)} (a gap, overlap or misalignment)"
                )
            end = info.start + info.nbytes
            if base + end > self.size:
                raise self.fault(f"ends at byte {base + end}, expected at most {self.size}, the file's size (cut off?)")
            placed[name] = TensorInfo(info.file, info.dtype, info.shape, base + info.start)
        self.subject = None
        last = base + end if infos else header_end
        if self.size not in (last, _padded(last, alignment)):
            raise self.fault(f"{self.size} bytes, expected {_padded(last, alignment)} by the header")
        return placed

    def text(self, most: int) -> str:
        length = self.number("Q")
        self.text_bytes += length
        if length > most or self.text_bytes > limits.MAX_GGUF_TEXT_BYTES:
            raise self.fault(
                f"a text of {length} bytes, expected at most {most}, and {limits.MAX_GGUF_TEXT_BYTES} in all"
            )
        data = self.take(length)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self.fault(f"text {shown(data)}, expected UTF-8") from None

    def number(self, code: str) -> int:
        (value,) = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))
        return int(value)

    def count_values(self, count: int) -> None:
        self.values += count
        if self.values > limits.MAX_GGUF_VALUES:
            raise self.fault(f"{count} values, expected at most {limits.MAX_GGUF_VALUES} in all")

    def require_count(self, what: str, count: int, least: int, most: int) -> None:
        """Checks that so many things of at least so many bytes fit into the rest of the file."""
        if count > min(most, self.left // least):
            raise self.fault(f"{count} {what}, expected at most {min(most, self.left // least)} (cut off?)")

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise self.fault(f"{count} bytes, expected at most the {self.left} that are left (cut off?)")
        data = self.file.read(count)
        if len(data) != count:
            raise self.fault(f"ended {count - len(data)} bytes early")
        self.left -= count
        return data


def _alignment(metadata: Mapping[str, Any], fault: Callable[[str], CheckpointError]) -> int:
    alignment = metadata.get(_ALIGNMENT, 32)
    if type(alignment) is not int or alignment not in limits.GGUF_ALIGNMENTS:
        bounds = f"{limits.GGUF_ALIGNMENTS[0]} to {limits.GGUF_ALIGNMENTS[-1]}"
        raise fault(f"{_ALIGNMENT}: {shown(alignment)}, expected a power of two, {bounds}")
    return alignment


def _padded(end: int, alignment: int) -> int:
    return -(-end // alignment) * alignment


def write_gguf(path: Path, infos: Mapping[str, TensorInfo], read: Read, metadata: Mapping[str, Any]) -> None:
    """Writes a new file of version 3, aligned to 32 bytes or as `general.alignment` says.

    Args:
        metadata: in this order. An int is written as uint32, or uint64, int32 or int64 if it does not fit; a float as
            float32; bool and str as such; a list as an array of its elements' type, whose ints are int32, or int64.

    Raises:
        CheckpointError: lists the keys and tensors that the format cannot hold; the file cannot be written.
    """
    alignment = _alignment(metadata, lambda what: CheckpointError(f"{path}: {what}"))
    pairs, problems = [], []
    for key, value in metadata.items():
        try:
            pairs.append(_pair(key, value))
        except (ValueError, OverflowError, struct.error) as problem:
            problems.append(f"{shown(key)}: {shown(value)}: {problem}")
    problems += [f"{shown(name)}: {fault}" for name, info in infos.items() if (fault := _fault(name, info))]
    if problems:
        raise CheckpointError.listing(str(path), problems)
    header = _MAGIC + struct.pack("<IQQ", _VERSIONS[-1], len(infos), len(pairs)) + b"".join(pairs)
    header += _directory(infos, alignment)
    with naming(path):
        write_synced(path, lambda file: _write(file, header, infos, read, alignment))


def _write(file: BinaryIO, header: bytes, infos: Mapping[str, TensorInfo], read: Read, alignment: int) -> None:
    file.write(header + _padding(len(header), alignment))
    for name, info in infos.items():
        file.write(contiguous_bytes(read(name)).data)
        file.write(_padding(info.nbytes, alignment))


def _padding(end: int, alignment: int) -> bytes:
    return bytes(-end % alignment)


def _fault(name: str, info: TensorInfo) -> str | None:
    """Says why a tensor cannot be written."""
    if info.dtype not in _CODES:
        return f"dtype {shown(info.dtype)}, expected one of {', '.join(_CODES)}"
    if not 1 <= len(info.shape) <= limits.MAX_GGUF_RANK or 0 in info.shape:
        return f"shape {list(info.shape)}, expected 1 to {limits.MAX_GGUF_RANK} sizes of at least 1"
    if len(name.encode(errors="replace")) > limits.MAX_NAME_BYTES or any("\ud800" <= c <= "\udfff" for c in name):
        return f"expected a name of at most {limits.MAX_NAME_BYTES} bytes of UTF-8"
    return None


def _directory(infos: Mapping[str, TensorInfo], alignment: int) -> bytes:
    parts, offset = [], 0
    for name, info in infos.items():
        rank = len(info.shape)
        sizes = struct.pack(f"<I{rank}Q", rank, *info.shape[::-1])
        parts.append(_text(name) + sizes + struct.pack("<IQ", _CODES[info.dtype], offset))
        offset += _padded(info.nbytes, alignment)
    return b"".join(parts)


def _pair(key: str, value: Any) -> bytes:
    if not _KEY.fullmatch(key) or len(key) > limits.MAX_NAME_BYTES:
        raise ValueError("expected a key of words of letters, digits, _ and -, joined by dots")
    if not isinstance(value, list):
        kind = _kind([value], _UINT32, _UINT64)
        return _text(key) + struct.pack("<I", kind) + _packed(kind, [value])
    kind = _kind(value, _INT32, _INT64)
    return _text(key) + struct.pack("<IIQ", _ARRAY, kind, len(value)) + _packed(kind, value)


def _kind(values: list[Any], narrow: int, wide: int) -> int:
    """Returns the type to write values as, of two for ints; negative ones of their own."""
    kinds = {type(value) for value in values}
    if kinds == {int}:
        least, most = min(values), max(values)
        narrow, wide = (_INT32, _INT64) if least < 0 else (narrow, wide)
        return narrow if least >= -(2**31) and most < 2 ** (32 if narrow == _UINT32 else 31) else wide
    kind = {bool: _BOOL, str: _TEXT, float: _FLOAT32}.get(kinds.pop()) if len(kinds) == 1 else None
    if kind is None:
        raise ValueError("expected int, float, bool, str, or a list of one of these that is not empty")
    return kind


def _packed(kind: int, values: list[Any]) -> bytes:
    if kind == _TEXT:
        return b"".join(map(_text, values))
    if kind == _BOOL:
        return bytes(values)
    return struct.pack(f"<{len(values)}{_NUMBERS[kind]}", *values)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
