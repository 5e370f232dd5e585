"""What is done with a tensor's numbers without a second copy of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from gptzoo._tensors import contiguous_bytes
from gptzoo.errors import ConversionError

_ROWS_BYTES = 2**22

# Dtype -> an integer of its width, and the bits of the exponent, all set in infinities and in what is not a number.
_EXPONENTS = {
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
    "float32": (np.uint32, 0x7F800000),
    "float64": (np.uint64, 0x7FF0000000000000),
}


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields an array by rows, in C order, in pieces that fit a cache."""
    if array.ndim == 0 or array.size == 0:
        yield array
        return
    rows = max(1, _ROWS_BYTES // max(1, array.nbytes // len(array)))
    for begin in range(0, len(array), rows):
        yield array[begin : begin + rows]


def digest(array: np.ndarray) -> str:
    """Returns the SHA-256 of an array's bytes: in C order, little-endian, without dtype or shape."""
    result = hashlib.sha256()
    for piece in pieces(array):
        result.update(contiguous_bytes(piece.astype(piece.dtype.newbyteorder("<"), copy=False)).data)
    return result.hexdigest()


class Digests:
    """Makes digests of arrays while they are written, or the next is read: hashing does without the interpreter's lock.

    No more than one array is held: the next waits until the last is done.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: list[Future[str]] = []

    def begin(self, array: np.ndarray) -> Future[str]:
        """Returns the digest to be; the array must not change until it is there."""
        wait(self._last)
        try:
            self._last = [self._thread.submit(digest, array)]
        except RuntimeError as problem:  # no thread can be had
            raise MemoryError(str(problem)) from None
        return self._last[0]


def is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays are of one dtype and shape, and the same bit for bit."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    both = zip(pieces(one), pieces(other), strict=True)
    return all(np.array_equal(contiguous_bytes(a), contiguous_bytes(b)) for a, b in both)


def first_nonfinite(array: np.ndarray) -> str | None:
    """Returns the index and the value of the first number that is infinite or none at all: "[3, 5]: nan"."""
    bits, exponent = _EXPONENTS[array.dtype.name]
    row = 0
    for piece in pieces(array):
        values = np.atleast_1d(piece)
        wrong = (values.view(bits) & exponent) == exponent
        if wrong.any():
            index = np.argwhere(wrong)[0] + [row, *[0] * (values.ndim - 1)]
            return f"{[int(i) for i in index]}: {float(np.atleast_1d(array)[tuple(index)])}"
        row += len(values)
    return None


def cast(array: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Returns the numbers in another dtype, rounded to nearest.

    Raises:
        ConversionError: a finite number is too large for it.
    """
    if array.dtype.name == dtype:
        return array
    with np.errstate(over="ignore"):
        result = array.astype(np.dtype(dtype))
    before, after = first_nonfinite(array), first_nonfinite(result)
    if after and not before:
        raise ConversionError(f"{name}{after.split(':')[0]}: too large for {dtype}")
    return result
