"""The few functions on arrays in which generation is written: what they mean, and their NumPy form."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np

Array = Any  # of the framework


class Namespace:
    """Functions on arrays; the other frameworks' classes give the same ones in the same order.

    Beside them only operators, slices, `None` in an index and `shape` are used. Numbers are float64, ids and counts
    are integers of the framework's usual width. Reductions go over the last axis.
    """

    def array(self, x: Any) -> Array:
        """Takes NumPy's arrays, and lists: numbers as float64, integers as ids, truth values as they are."""
        return kinds(x, np.int64)

    def full(self, shape: Sequence[int], value: float) -> Array:
        """Returns an array of one value, True and False included; the value's type says which kind it is."""
        return kinds(np.full(tuple(shape), value), np.int64)

    def arange(self, n: int) -> Array:
        """Returns the integers from 0 to n - 1."""
        return np.arange(n)

    def float64(self, x: Array) -> Array:
        return np.asarray(x, np.float64)

    def integer(self, x: Array) -> Array:
        return np.asarray(x, np.int64)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return np.where(condition, x, y)

    def exp(self, x: Array) -> Array:
        return np.exp(x)

    def log(self, x: Array) -> Array:
        """Returns the natural logarithm; of 0, minus infinity."""
        with np.errstate(divide="ignore"):
            return np.log(x)

    def isfinite(self, x: Array) -> Array:
        return np.isfinite(x)

    def maximum(self, x: Array, y: Array) -> Array:
        return np.maximum(x, y)

    def minimum(self, x: Array, y: Array) -> Array:
        return np.minimum(x, y)

    def any(self, x: Array, keepdims: bool = False) -> Array:
        return np.any(x, axis=-1, keepdims=keepdims)

    def all(self, x: Array, keepdims: bool = False) -> Array:
        return np.all(x, axis=-1, keepdims=keepdims)

    def sum(self, x: Array, keepdims: bool = False) -> Array:
        return np.sum(x, axis=-1, keepdims=keepdims)

    def max(self, x: Array, keepdims: bool = False) -> Array:
        return np.max(x, axis=-1, keepdims=keepdims)

    def min(self, x: Array, keepdims: bool = False) -> Array:
        return np.min(x, axis=-1, keepdims=keepdims)

    def cumsum(self, x: Array) -> Array:
        """Returns running sums. XLA adds in another order: they may fall by a rounding, also where zeros are added."""
        return np.cumsum(x, axis=-1)

    def sort(self, x: Array) -> Array:
        """Returns the values in rising order."""
        return np.sort(x, axis=-1)

    def argsort(self, x: Array) -> Array:
        """Returns the indices in the order of rising values, equal ones in their own order."""
        return np.argsort(x, axis=-1, kind="stable")

    def take_along(self, x: Array, index: Array) -> Array:
        """Returns x[..., index], row by row."""
        return np.take_along_axis(x, index, axis=-1)

    def rows(self, x: Array, index: Array) -> Array:
        """Returns x[index], for an index (n,)."""
        return x[index]

    def columns(self, x: Array, index: Array) -> Array:
        """Returns x[:, index], for an index (n,)."""
        return x[:, index]

    def leading(self, x: Array, n: Array) -> Array:
        """Returns x[:, :n], not inside a program: no framework may compile one for each n."""
        return x[:, : int(n)]

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        return np.reshape(x, tuple(shape))

    def concatenate(self, parts: Sequence[Array], axis: int = -1) -> Array:
        return np.concatenate(parts, axis=axis)

    def mark(self, ids: Array, size: int) -> Array:
        """Returns which of the ids below `size` are among a row's, (R, n), as (R, size); the id `size` is ignored."""
        marks = np.zeros((len(ids), size + 1), bool)
        np.put_along_axis(marks, ids, True, axis=-1)
        return marks[:, :size]

    def add_at(self, values: Array, index: Array, size: int) -> Array:
        """Returns (R, size): at each index, (S,), the sum of its values, (R, S), and zeros elsewhere."""
        sums = np.zeros((len(values), size))
        np.add.at(sums.T, index, values.T)
        return sums

    # Composed of the above, once for all.

    def first(self, condition: Array) -> Array:
        """Returns the index of the first True; where there is none, the last index."""
        n = condition.shape[-1]
        return self.min(self.where(condition, self.arange(n), n - 1))

    def argmax(self, x: Array) -> Array:
        """Returns the index of the largest value: of equal ones, the lowest."""
        return self.first(x == self.max(x, keepdims=True))

    def sound(self, x: Array) -> Array:
        """Whether the largest value is finite, and none is NaN."""
        return self.isfinite(self.max(self.where(x == x, x, float("inf"))))  # NaN differs from itself

    def log_softmax(self, x: Array) -> Array:
        x = x - self.max(x, keepdims=True)
        return x - self.log(self.sum(self.exp(x), keepdims=True))

    def top_k(self, x: Array, k: int) -> tuple[Array, Array]:
        """Returns the k largest values of x, (R, n), in falling order, and their indices: of equal ones the lower.

        None of them lies outside the k blocks of neighbours with the largest maxima, so that little has to be sorted,
        which XLA does slowly.
        """
        rows, n = x.shape
        size = isqrt(n // k)
        blocks = -(-n // size)
        x = self.concatenate((x, self.full((rows, blocks * size - n), -float("inf"))))
        largest = self.argsort(-self.max(self.reshape(x, (rows, blocks, size))))[:, :k]
        index = self.sort(largest)[:, :, None] * size + self.arange(size)
        index = self.reshape(index, (rows, k * size))
        index = self.take_along(index, self.argsort(-self.take_along(x, index))[:, :k])
        return self.take_along(x, index), self.minimum(index, n - 1)  # NaN may have let the filling in

    def window(self, x: Array, start: Array, n: int) -> Array:
        """Returns the n columns from `start`; in place of those before the first column, the first."""
        return self.columns(x, self.maximum(self.arange(n) + start, 0))

    def put_column(self, x: Array, column: Array, values: Array) -> Array:
        """Returns x, (R, C), with the values, (R,), in a column."""
        return self.where(self.arange(x.shape[1]) == column, values[:, None], x)


def kinds(x: Any, integer: Any) -> np.ndarray:
    """Returns an array whose numbers are float64, and whose integers are of a dtype."""
    x = np.asarray(x)
    return x.astype({"b": bool, "f": np.float64}.get(x.dtype.kind, integer), copy=False)
