"""What every container of tensors is to its readers: names, dtypes, shapes, and the numbers one tensor at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # teaches NumPy the names bfloat16 and float8
import numpy as np

from gptzoo._files import naming, open_regular
from gptzoo.errors import CheckpointError

Read = Callable[[str], np.ndarray]

_CHUNK = 2**20


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor.

    Attributes:
        file: name of the file that holds it.
        dtype: NumPy's name: "float32".
        start: where its bytes begin in the file.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class TensorFile:
    """A file whose header was read and found right, and whose tensors are ranges of its bytes.

    Containers whose tensors lie otherwise inherit from it and read in their own way.

    Attributes:
        tensors: in the order of the file.
        metadata: what the container says beside its tensors.
        stamp: device, inode, size and time of change, by which a change of the file is noticed.
    """

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, Any]
    stamp: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.stamp[2]

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor: a fresh, writable array, filled by one copy.

        Read, not memory-mapped: a file that is cut short meanwhile then is an error, and not the end of the process.
        """
        info = self.tensors[name]
        with self.opened(info.start) as file:
            array = np.empty(info.shape, np.dtype(info.dtype))
            self.fill(file, array.reshape(-1).view(np.uint8).data)
        return array

    def chunks(self, name: str) -> Iterator[bytearray]:
        """Yields a tensor's bytes piece by piece."""
        info = self.tensors[name]
        with self.opened(info.start) as file:
            for begin in range(0, info.nbytes, _CHUNK):
                piece = bytearray(min(_CHUNK, info.nbytes - begin))
                self.fill(file, memoryview(piece))
                yield piece

    @contextmanager
    def opened(self, start: int = 0) -> Iterator[FileIO]:
        """Opens the file at an offset; that it has not changed is checked now and at the end."""
        with naming(self.path), open_regular(self.path) as file:
            self._require_unchanged(file)
            file.seek(start)
            yield file
            self._require_unchanged(file)

    def _require_unchanged(self, file: FileIO) -> None:
        if stamp_of(file) != self.stamp:
            raise CheckpointError(f"{self.path}: changed since its header was read")

    def fill(self, file: FileIO, view: memoryview) -> None:
        """Reads as many bytes as fit; fewer are an error."""
        while view:
            count = file.readinto(view)
            if not count:
                raise CheckpointError(f"{self.path}: ended {len(view)} bytes early")
            view = view[count:]


def stamp_of(file: FileIO) -> tuple[int, ...]:
    """Returns what changes when a file does."""
    status = os.fstat(file.fileno())
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def contiguous_bytes(array: np.ndarray) -> np.ndarray:
    """Returns an array's bytes in C order and this machine's byte order; copies only if they lie otherwise."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1).view(np.uint8)


def shown(value: Any, length: int = 80) -> str:
    """Returns what a file says in a form that is safe to print: names plain, all else quoted, nothing at length."""
    text = value if isinstance(value, str) and value.isprintable() and value else ascii(value)
    return text if len(text) <= length else text[: length - 3] + "..."
