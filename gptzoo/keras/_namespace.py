"""The functions of generation in Keras; what they mean stands in `gptzoo.generation.Namespace`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from gptzoo.generation import _namespace
from gptzoo.generation._namespace import kinds
from gptzoo.keras._calls import to_array
from gptzoo.keras._layers import Tensor, from_host


class Namespace(_namespace.Namespace):
    """Functions on tensors of Keras' backend; on JAX, inside `jax.enable_x64(True)`: elsewhere it has no float64."""

    def array(self, x: Any) -> Tensor:
        return from_host(kinds(x, np.int32))

    def full(self, shape: Sequence[int], value: float) -> Tensor:
        dtype = {bool: "bool", float: "float64"}.get(type(value), "int32")
        return ops.full(tuple(shape), value, dtype)

    def arange(self, n: int) -> Tensor:
        return ops.arange(n, dtype="int32")

    def float64(self, x: Any) -> Tensor:
        return ops.cast(x if ops.is_tensor(x) else self.array(x), "float64")  # a Python number would be rounded

    def integer(self, x: Any) -> Tensor:
        return ops.cast(x, "int32")

    def where(self, condition: Tensor, x: Any, y: Any) -> Tensor:
        return ops.where(condition, x, y)

    def exp(self, x: Tensor) -> Tensor:
        return ops.exp(x)

    def log(self, x: Tensor) -> Tensor:
        return ops.log(x)

    def isfinite(self, x: Tensor) -> Tensor:
        return ops.isfinite(x)

    def maximum(self, x: Tensor, y: Any) -> Tensor:
        return ops.where(x > y, x, y)  # ops.maximum is in float32 except on TensorFlow

    def minimum(self, x: Tensor, y: Any) -> Tensor:
        return ops.where(x < y, x, y)

    def any(self, x: Tensor, keepdims: bool = False) -> Tensor:
        return ops.any(x, axis=-1, keepdims=keepdims)

    def all(self, x: Tensor, keepdims: bool = False) -> Tensor:
        return ops.all(x, axis=-1, keepdims=keepdims)

    def sum(self, x: Tensor, keepdims: bool = False) -> Tensor:
        x = _number(x)
        return ops.cast(ops.sum(x, axis=-1, keepdims=keepdims), x.dtype)

    def max(self, x: Tensor, keepdims: bool = False) -> Tensor:
        return ops.max(x, axis=-1, keepdims=keepdims)

    def min(self, x: Tensor, keepdims: bool = False) -> Tensor:
        return ops.min(x, axis=-1, keepdims=keepdims)

    def cumsum(self, x: Tensor) -> Tensor:
        x = _number(x)
        if keras.backend.backend() == "torch":  # where ops.cumsum is in float32
            return x.cumsum(-1, dtype=x.dtype)
        return ops.cumsum(x, axis=-1)

    def sort(self, x: Tensor) -> Tensor:
        return ops.sort(x, axis=-1)

    def argsort(self, x: Tensor) -> Tensor:
        return self.integer(ops.argsort(ops.where(x == 0, 0.0, x), axis=-1))  # to XLA, -0 is below 0

    def take_along(self, x: Tensor, index: Tensor) -> Tensor:
        return ops.take_along_axis(x, index, axis=-1)

    def rows(self, x: Tensor, index: Tensor) -> Tensor:
        return ops.take(x, index, axis=0)

    def columns(self, x: Tensor, index: Tensor) -> Tensor:
        return ops.take(x, index, axis=1)

    def leading(self, x: Tensor, n: Any) -> Tensor:
        return self.array(to_array(x)[:, : int(n)])

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return ops.reshape(x, tuple(shape))

    def concatenate(self, parts: Sequence[Tensor], axis: int = -1) -> Tensor:
        return ops.concatenate(list(parts), axis=axis)

    def mark(self, ids: Tensor, size: int) -> Tensor:
        rows, n = ids.shape
        cells = ops.reshape(ids + (size + 1) * self.arange(rows)[:, None], (rows * n, 1))
        marks = ops.scatter_update(self.full((rows * (size + 1),), False), cells, self.full((rows * n,), True))
        return ops.reshape(marks, (rows, size + 1))[:, :size]

    def add_at(self, values: Tensor, index: Tensor, size: int) -> Tensor:
        return ops.transpose(ops.scatter(index[:, None], ops.transpose(values), (size, values.shape[0])))


def _number(x: Tensor) -> Tensor:
    return ops.cast(x, "int32") if keras.backend.standardize_dtype(x.dtype) == "bool" else x
