"""The safetensors format, read strictly and written one tensor at a time.

A file is the length of a header (8 bytes), the header (JSON) and the tensors' bytes, without gaps. The format's own
library accepts a name given twice and wants all tensors in memory to write them; its bytes and ours are the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gptzoo import limits
from gptzoo._files import naming, open_regular, stand_in
from gptzoo._json import parse_json
from gptzoo._tensors import TensorFile, TensorInfo, contiguous_bytes, shown, stamp_of
from gptzoo.errors import CheckpointError

# The format's name of a dtype -> NumPy's, narrow to wide: files begin with the widest, so that tensors lie aligned.
DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
_CODES = {name: code for code, name in DTYPES.items()}
_WIDTHS = list(_CODES)

# How other files begin that are found under a safetensors name.
IMPOSTORS = {
    b"{": "this is JSON text, not the weights",
    b"PK\x03\x04": "this is a zip archive (a PyTorch checkpoint?), not safetensors",
    b"\x80\x02": "this is a pickle (an old PyTorch checkpoint?), not safetensors",
    b"\x89HDF": "this is an HDF5 file, not safetensors",
    b"GGUF": "this is a GGUF file, not safetensors",
}


def read_header(path: Path) -> TensorFile:
    """Reads the header of a file, and checks all that it claims against the size of the file.

    Raises:
        CheckpointError: lists everything that is wrong.
    """
    with naming(path), open_regular(path) as file:
        stamp = stamp_of(file)
        text = _header_text(path, file, stamp[2])
    entries = _parse(path, text)
    metadata = entries.pop("__metadata__", {})
    if len(entries) > limits.MAX_TENSORS:
        raise CheckpointError(f"{path}: {len(entries)} tensors, expected at most {limits.MAX_TENSORS}")
    problems = [] if is_text_map(metadata) else [f"__metadata__: {shown(metadata)}, expected a map of texts"]
    problems += [f"{shown(name)}: {fault}" for name, entry in entries.items() if (fault := _fault(name, entry))]
    if problems := problems or _layout_faults(entries, stamp[2] - 8 - len(text)):
        raise CheckpointError.listing(str(path), problems)
    return TensorFile(path, _infos(path.name, entries, 8 + len(text)), metadata, stamp)


def _infos(file: str, entries: dict[str, Any], start: int) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(file, DTYPES[entry["dtype"]], tuple(entry["shape"]), start + entry["data_offsets"][0])
        for name, entry in entries.items()
    }


def _header_text(path: Path, file: FileIO, size: int) -> bytes:
    start = file.read(64)
    length = int.from_bytes(start[:8], "little")
    if len(start) >= 8 and length <= min(limits.MAX_HEADER_BYTES, size - 8):
        file.seek(8)
        text = file.read(length)
        if len(text) == length:
            return text
    if diagnosis := stand_in(start):
        raise CheckpointError(f"{path}: {diagnosis}")
    for magic, diagnosis in IMPOSTORS.items():
        if start.lstrip().startswith(magic):
            raise CheckpointError(f"{path}: {diagnosis}")
    if not start:
        raise CheckpointError(f"{path}: empty file")
    limit = min(limits.MAX_HEADER_BYTES, max(size - 8, 0))
    raise CheckpointError(f"{path}: not safetensors, or cut off (header of {length} bytes, expected at most {limit})")


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise CheckpointError(f"{path}: not safetensors (header begins with {text[:8]!r}, expected '{{')")
    try:
        entries = parse_json(text.decode())
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{path}: header is not UTF-8 text ({problem.reason} at {problem.start})") from None
    except ValueError as problem:
        raise CheckpointError(f"{path}: header is {shown(str(problem), 200)}") from None
    assert isinstance(entries, dict)  # it began with a brace
    return entries


def is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)


def _fault(name: str, entry: Any) -> str | None:
    """Says what is wrong with one entry of a header, taken by itself."""
    if len(name.encode(errors="surrogatepass")) > limits.MAX_NAME_BYTES:
        return f"a name of more than {limits.MAX_NAME_BYTES} bytes"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return f"{shown(entry)}, expected dtype, shape and data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return f"dtype {shown(dtype)}, expected one of {', '.join(DTYPES)}"
    if not _are_sizes(shape) or len(shape) > limits.MAX_RANK:
        return f"shape {shown(shape)}, expected a list of at most {limits.MAX_RANK} sizes"
    if not _are_sizes(offsets) or len(offsets) != 2:
        return f"data_offsets {shown(offsets)}, expected begin and end"
    itemsize = np.dtype(DTYPES[dtype]).itemsize
    expected = math.prod(shape) * itemsize
    if offsets[1] - offsets[0] != expected:
        return f"data_offsets {offsets} hold {offsets[1] - offsets[0]} bytes, expected {expected} for {dtype} {shape}"
    if math.prod(size or 1 for size in shape) * itemsize >= 2**63:  # NumPy has no such shape, even if it is empty
        return f"shape {shown(shape)}: larger than any array"
    return None


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _layout_faults(entries: dict[str, Any], size: int) -> list[str]:
    """Says where the tensors leave gaps, overlap, or do not end where the file does."""
    end, faults = 0, []
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, next_end = entry["data_offsets"]
        if begin != end:
            faults.append(f"{shown(name)}: data_offsets begin at {begin}, expected {end} (a gap or an overlap)")
        end = next_end
    if not faults and end != size:
        faults.append(f"{size} bytes of data, expected {end} by the header{' (cut off)' if size < end else ''}")
    return faults


def write_tensors(
    file: BinaryIO, infos: Mapping[str, TensorInfo], read: Callable[[str], np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file; of the tensors, one at a time is in memory.

    Args:
        infos: name -> dtype and shape of the tensor that `read` returns for it.
    """
    names = sorted(infos, key=lambda name: (-_WIDTHS.index(infos[name].dtype), name))
    file.write(_header(names, infos, metadata))
    for name in names:
        file.write(contiguous_bytes(read(name)).data)


def _header(names: list[str], infos: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + infos[name].nbytes
        code, shape = _CODES[infos[name].dtype], list(infos[name].shape)
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
