"""The functions of generation in JAX; what they mean stands in `gptzoo.generation.Namespace`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gptzoo.generation import _namespace
from gptzoo.generation._namespace import kinds


class Namespace(_namespace.Namespace):
    """Functions on arrays, inside `jax.enable_x64(True)`: elsewhere JAX has no float64."""

    def array(self, x: Any) -> Array:
        return jax.device_put(kinds(x, np.int32))  # jnp.asarray compiles a program for each shape

    def full(self, shape: Sequence[int], value: float) -> Array:
        dtype = {bool: jnp.bool_, float: jnp.float64}.get(type(value), jnp.int32)
        return jnp.full(tuple(shape), value, dtype)

    def arange(self, n: int) -> Array:
        return jnp.arange(n, dtype=jnp.int32)

    def float64(self, x: Any) -> Array:
        return jnp.asarray(x, jnp.float64)

    def integer(self, x: Any) -> Array:
        return jnp.asarray(x, jnp.int32)

    def where(self, condition: Array, x: Any, y: Any) -> Array:
        return jnp.where(condition, x, y)

    def exp(self, x: Array) -> Array:
        return jnp.exp(x)

    def log(self, x: Array) -> Array:
        return jnp.log(x)

    def isfinite(self, x: Array) -> Array:
        return jnp.isfinite(x)

    def maximum(self, x: Array, y: Any) -> Array:
        return jnp.maximum(x, y)

    def minimum(self, x: Array, y: Any) -> Array:
        return jnp.minimum(x, y)

    def any(self, x: Array, keepdims: bool = False) -> Array:
        return x.any(axis=-1, keepdims=keepdims)

    def all(self, x: Array, keepdims: bool = False) -> Array:
        return x.all(axis=-1, keepdims=keepdims)

    def sum(self, x: Array, keepdims: bool = False) -> Array:
        dtype = x.dtype if x.dtype == jnp.float64 else jnp.int32
        return x.sum(axis=-1, keepdims=keepdims, dtype=dtype)

    def max(self, x: Array, keepdims: bool = False) -> Array:
        return x.max(axis=-1, keepdims=keepdims)

    def min(self, x: Array, keepdims: bool = False) -> Array:
        return x.min(axis=-1, keepdims=keepdims)

    def cumsum(self, x: Array) -> Array:
        dtype = x.dtype if x.dtype == jnp.float64 else jnp.int32
        return x.cumsum(axis=-1, dtype=dtype)

    def sort(self, x: Array) -> Array:
        return jnp.sort(x, axis=-1)

    def argsort(self, x: Array) -> Array:
        return self.integer(jnp.argsort(x, axis=-1, stable=True))

    def take_along(self, x: Array, index: Array) -> Array:
        return jnp.take_along_axis(x, index, axis=-1)

    def rows(self, x: Array, index: Array) -> Array:
        return jnp.take(x, index, axis=0)

    def columns(self, x: Array, index: Array) -> Array:
        return jnp.take(x, index, axis=1)

    def leading(self, x: Array, n: Any) -> Array:
        return self.array(np.asarray(x)[:, : int(n)])

    def reshape(self, x: Array, shape: Sequence[int]) -> Array:
        return x.reshape(tuple(shape))

    def concatenate(self, parts: Sequence[Array], axis: int = -1) -> Array:
        return jnp.concatenate(parts, axis=axis)

    def mark(self, ids: Array, size: int) -> Array:
        return self.full((ids.shape[0], size + 1), False).at[jnp.arange(len(ids))[:, None], ids].set(True)[:, :size]

    def add_at(self, values: Array, index: Array, size: int) -> Array:
        return self.full((values.shape[0], size), 0.0).at[:, index].add(values)
