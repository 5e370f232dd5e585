"""Layers of both families in Keras.

Shapes: B batch, T tokens, E n_embd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import pi
from typing import Any

import keras
import numpy as np
from keras import ops

from gptzoo.config import TRAINED_ACTIVATIONS, GPTConfig
from gptzoo.inputs import ArrayKind
from gptzoo.weights import XIELU

Tensor = Any  # of Keras' backend

# Canonical name (a value of gptzoo.config.ACTIVATIONS) -> function. Spelt out where Keras' own has a constant or a
# step in float32 even in a float64 model, on one backend or another. In float64 on JAX, ops.tanh is left with one.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": lambda x: gelu(x),
    "gelu_10": lambda x: ops.clip(gelu(x), -10, 10),
    "gelu_tanh": lambda x: x * ops.sigmoid((8 / pi) ** 0.5 * (x + 0.044715 * x * x * x)),  # (1 + tanh(y)) / 2
    "laplace": lambda x: 0.5 * (1 + ops.erf((x - 0.707107) / (0.282095 * 2**0.5))),
    "leaky_relu": lambda x: ops.where(x > 0, x, 0.01 * x),
    "linear": lambda x: x,
    "mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
    "relu": ops.relu,
    "relu2": lambda x: ops.relu(x) ** 2,
    "relu6": ops.relu6,
    "sigmoid": ops.sigmoid,
    "silu": ops.silu,
    "tanh": ops.tanh,
}


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + ops.erf(x / 2**0.5))


@contextmanager
def inside(parent: keras.Layer) -> Iterator[None]:
    """Layers made inside get their parent's dtype policy and their weights its path: Keras hands down neither."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(parent.dtype_policy)
    try:
        with keras.name_scope(parent.name):
            yield
    finally:
        keras.config.set_dtype_policy(policy)
    parent.built = True  # all weights are made on construction


class Embedding(keras.Layer):
    """A table of vectors, looked up by id."""

    def __init__(self, n_rows: int, n_embd: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.weight = self.add_weight(shape=(n_rows, n_embd), initializer="zeros", name="weight")
        self.built = True

    def call(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        # TensorFlow's gradient of a table is a list of rows, and Keras' Adam squares those of one id apart. The
        # gradient of a reshaped table is whole.
        table = ops.reshape(self.weight, self.weight.shape)
        return ops.take(table, ops.cast(ids, "int32"), axis=0)


class Linear(keras.Layer):
    """x @ weight.T (+ bias), the weight stored (n_out, n_in): the layout of heads. A tied weight is made elsewhere."""

    def __init__(self, n_in: int, n_out: int, bias: bool = True, tied: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if not tied:  # to take back a weight that was made costs Keras more than all else
            self.weight = self.add_weight(shape=(n_out, n_in), initializer="zeros", name="weight")
        self.bias = self.add_weight(shape=(n_out,), initializer="zeros", name="bias") if bias else None
        self.built = True

    def call(self, x: Tensor) -> Tensor:  # (..., n_in) -> (..., n_out)
        # The weight is much larger than what goes in and out, so it is not the one that is transposed.
        weight = ops.convert_to_tensor(self.weight)
        x = by_rows(lambda rows: ops.transpose(weight @ ops.transpose(rows)), x)
        return x if self.bias is None else ops.add(x, self.bias)


class Conv1D(keras.Layer):
    """x @ weight + bias, the weight stored (n_in, n_out): OpenAI's convolution of width 1."""

    def __init__(self, n_in: int, n_out: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.weight = self.add_weight(shape=(n_in, n_out), initializer="zeros", name="weight")
        self.bias = self.add_weight(shape=(n_out,), initializer="zeros", name="bias")
        self.built = True

    def call(self, x: Tensor) -> Tensor:  # (..., n_in) -> (..., n_out)
        weight = ops.convert_to_tensor(self.weight)
        return ops.add(by_rows(lambda rows: rows @ weight, x), self.bias)


class LayerNorm(keras.Layer):
    """Zero mean and unit variance over the last axis, then scale and shift; float32 inside (Ba et al. 2016)."""

    def __init__(self, n_embd: int, epsilon: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        # Not cast to half precision where a mixed policy stores them in float32.
        self.weight = self.add_weight(shape=(n_embd,), initializer="zeros", autocast=False, name="weight")
        self.bias = self.add_weight(shape=(n_embd,), initializer="zeros", autocast=False, name="bias")
        self.built = True

    def call(self, x: Tensor) -> Tensor:  # (B, T, E) -> (B, T, E)
        # Of sums: ops.layer_normalization has E[x^2] - E[x]^2 on some backends, and ops.mean is in float32 at most.
        y = at_least_float32(x)
        y = y - ops.sum(y, axis=-1, keepdims=True) / y.shape[-1]
        y = y / ops.sqrt(ops.sum(ops.square(y), axis=-1, keepdims=True) / y.shape[-1] + self.epsilon)
        y = y * at_least_float32(self.weight) + at_least_float32(self.bias)
        return ops.cast(y, x.dtype)


class Activation(keras.Layer):
    """The function between the maps of an MLP, with weights of its own where it has some."""

    weight: keras.Variable
    alpha_p: keras.Variable
    alpha_n: keras.Variable

    def __init__(self, function: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.function = function
        for name in TRAINED_ACTIVATIONS.get(function, ()):
            setattr(self, name, self.add_weight(shape=(1,), initializer="zeros", name=name))
        self.built = True

    def call(self, x: Tensor) -> Tensor:
        if self.function == "prelu":  # He et al. 2015
            return ops.where(x > 0, x, self.weight * x)
        if self.function == "xielu":
            return xielu(x, ops.softplus(self.alpha_p), ops.softplus(self.alpha_n))
        return ACTIVATIONS[self.function](x)


def xielu(x: Tensor, p: Tensor, n: Tensor) -> Tensor:
    """Quadratic above 0, an exponential below, with trainable slopes (Huang and Schlag 2024)."""
    below = (ops.expm1(ops.minimum(x, XIELU["eps"])) - x) * (XIELU["beta"] + n)
    return ops.where(x > 0, p * x * x, below) + XIELU["beta"] * x


class MLP(keras.Layer):
    """Two linear maps with an activation between them."""

    def __init__(self, config: GPTConfig, **kwargs: Any):
        super().__init__(**kwargs)
        with inside(self):
            self.c_fc = Conv1D(config.n_embd, config.n_mlp, name="c_fc")
            self.c_proj = Conv1D(config.n_mlp, config.n_embd, name="c_proj")
            self.act = Activation(config.activation, name="act")
            self.dropout = keras.layers.Dropout(config.resid_pdrop, name="dropout")

    def call(self, x: Tensor) -> Tensor:  # (B, T, E) -> (B, T, E)
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


def by_rows(product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:  # (..., n_in) -> (..., n_out)
    """Multiplies two matrices in place of more axes, as ops.matmul does, which is in float32 at most on PyTorch."""
    y = product(ops.reshape(x, (-1, x.shape[-1])))  # (M, n_out)
    return ops.reshape(y, (*ops.shape(x)[:-1], y.shape[-1]))


def host_values(x: Tensor) -> np.ndarray | None:
    """Returns the values of a tensor that is in host memory; None where it is symbolic, or where looking would wait."""
    if "cpu" not in str(getattr(x, "device", "")).lower():
        return None
    try:
        values: np.ndarray = x.numpy() if hasattr(x, "numpy") else np.asarray(x)
    except (NotImplementedError, TypeError, RuntimeError):  # how each backend says that it is traced
        return None
    return values


def from_host(x: np.ndarray) -> Tensor:
    """Brings an array to the backend, in the nearest dtype that it has."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.device_put(x)  # Keras' own function compiles a program for each shape
    return ops.convert_to_tensor(x)


ARRAYS = ArrayKind(lambda x: ops.is_tensor(x) or isinstance(x, keras.KerasTensor), "an array", host_values)


def at_least_float32(x: Tensor) -> Tensor:
    """Where half precision would lose too much: scores and losses."""
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")
