"""What containers of several files share: small files read whole, tensors in other files, bytes piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptzoo import limits
from gptzoo._files import naming, open_regular
from gptzoo._tensors import Read, TensorFile, TensorInfo, contiguous_bytes, shown, stamp_of
from gptzoo.errors import CheckpointError

_PIECE = 2**20


@dataclass(frozen=True)
class PartedFile(TensorFile):
    """An index of tensors, `path`, whose bytes lie in other files.

    Attributes:
        parts: the other files; under a tensor's name, each has the piece of the tensor that lies in it.
    """

    parts: tuple[TensorFile, ...]

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(part.nbytes for part in self.parts)

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor: a fresh, writable array."""
        info, end = self.tensors[name], 0
        with naming(self.path):
            array = np.empty(info.shape, np.dtype(info.dtype))
        view = array.reshape(-1).view(np.uint8).data
        for piece in self.chunks(name):
            begin, end = end, end + len(piece)
            view[begin:end] = piece
        return array

    def chunks(self, name: str) -> Iterator[bytearray]:
        """Yields a tensor's bytes piece by piece."""
        for part in self.parts:
            if name in part.tensors:
                yield from part.chunks(name)


def stamp_at(path: Path) -> tuple[int, ...]:
    """Returns the stamp of a regular file; anything else is an error."""
    with naming(path), open_regular(path) as file:
        return stamp_of(file)


def read_whole(path: Path, max_bytes: int) -> tuple[bytes, tuple[int, ...]]:
    """Returns a small file's bytes, and its stamp.

    Raises:
        CheckpointError: the file is absent, no regular file, too large, or changes meanwhile.
    """
    stamp = stamp_at(path)
    size = stamp[2]
    if size > max_bytes:
        raise CheckpointError(f"{path}: {size} bytes, expected at most {max_bytes}")
    whole = TensorFile(path, {"": TensorInfo(path.name, "uint8", (size,))}, {}, stamp)
    return whole.read("").tobytes(), stamp


def shape_fault(shape: Sequence[int], dtype: str) -> str | None:
    """Says why a shape is none that an array can have."""
    if len(shape) > limits.MAX_RANK:
        return f"{len(shape)} dimensions, expected at most {limits.MAX_RANK}"
    sizes = [size or 1 for size in shape]  # NumPy refuses huge sizes even beside a zero
    if min(sizes, default=1) < 0 or math.prod(sizes) * np.dtype(dtype).itemsize >= 2**63:
        return f"shape {shown(list(shape))}, expected sizes of an array that can be"
    return None


def pieces(name: str, info: TensorInfo, read: Read) -> Iterator[bytes]:
    """Yields the bytes of a tensor that is to be written, and lets go of it at the end."""
    data = contiguous_bytes(read(name))
    assert data.size == info.nbytes, f"{name}: {data.size} bytes, expected {info.nbytes}"
    for begin in range(0, data.size, _PIECE):
        yield data[begin : begin + _PIECE].tobytes()
