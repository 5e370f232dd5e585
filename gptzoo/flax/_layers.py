"""Layers of both families in Flax NNX.

Shapes: B batch, T tokens, E n_embd.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from gptzoo.config import TRAINED_ACTIVATIONS, GPTConfig
from gptzoo.inputs import ArrayKind
from gptzoo.weights import XIELU

# Canonical name (a value of gptzoo.config.ACTIVATIONS) -> function.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_10": lambda x: jax.nn.gelu(x, approximate=False).clip(-10, 10),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "laplace": lambda x: 0.5 * (1 + jax.lax.erf((x - 0.707107) / (0.282095 * 2**0.5))),
    "leaky_relu": partial(jax.nn.leaky_relu, negative_slope=0.01),
    "linear": lambda x: x,
    "mish": jax.nn.mish,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu2": lambda x: jax.nn.relu(x) ** 2,
    "relu6": jax.nn.relu6,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


class Embedding(nnx.Module):
    """A table of vectors, looked up by id."""

    def __init__(self, n_rows: int, n_embd: int):
        self.weight = nnx.Param(empty(n_rows, n_embd))

    def __call__(self, ids: Array) -> Array:  # (B, T) -> (B, T, E)
        # Compiled code cannot raise: an id outside the table gives NaN.
        return self.weight.at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


class Linear(nnx.Module):
    """x @ weight.T (+ bias), the weight stored (n_out, n_in): the layout of heads."""

    def __init__(self, n_in: int, n_out: int, bias: bool = True):
        self.weight = nnx.Param(empty(n_out, n_in))
        self.bias = nnx.Param(empty(n_out)) if bias else None

    def __call__(self, x: Array) -> Array:  # (..., n_in) -> (..., n_out)
        # The weights may have another dtype than the computation, here and below.
        y = x @ self.weight.astype(x.dtype).T
        return y if self.bias is None else y + self.bias.astype(x.dtype)


class Conv1D(nnx.Module):
    """x @ weight + bias, the weight stored (n_in, n_out): OpenAI's convolution of width 1."""

    def __init__(self, n_in: int, n_out: int):
        self.weight = nnx.Param(empty(n_in, n_out))
        self.bias = nnx.Param(empty(n_out))

    def __call__(self, x: Array) -> Array:  # (..., n_in) -> (..., n_out)
        return x @ self.weight.astype(x.dtype) + self.bias.astype(x.dtype)


class LayerNorm(nnx.Module):
    """Zero mean and unit variance over the last axis, then scale and shift; float32 inside (Ba et al. 2016)."""

    def __init__(self, n_embd: int, epsilon: float):
        self.epsilon = epsilon
        self.weight = nnx.Param(empty(n_embd))
        self.bias = nnx.Param(empty(n_embd))

    def __call__(self, x: Array) -> Array:  # (B, T, E) -> (B, T, E)
        y = at_least_float32(x)
        y = y - y.mean(-1, keepdims=True)
        y = y / jnp.sqrt((y * y).mean(-1, keepdims=True) + self.epsilon)
        return (y * self.weight.astype(y.dtype) + self.bias.astype(y.dtype)).astype(x.dtype)


class Dropout(nnx.Module):
    """In training, sets a share `p` of the numbers to 0 and scales the others so that the mean stays."""

    def __init__(self, p: float):
        self.p = p

    def __call__(self, x: Array, rngs: nnx.RngStream | None) -> Array:  # any shape; rngs None: not in training
        if rngs is None or self.p == 0:
            return x
        if self.p == 1:  # the general form would divide by 0
            return jnp.zeros_like(x)
        kept = jax.random.bernoulli(rngs(), 1 - self.p, x.shape)
        return jnp.where(kept, x / (1 - self.p), 0)


class Activation(nnx.Module):
    """The function between the maps of an MLP, with weights of its own where it has some."""

    weight: nnx.Param[Array]
    alpha_p: nnx.Param[Array]
    alpha_n: nnx.Param[Array]

    def __init__(self, function: str):
        self.function = function  # its name: NNX copies, compares and pickles what a module holds
        for name in TRAINED_ACTIVATIONS.get(function, ()):
            setattr(self, name, nnx.Param(empty(1)))

    def __call__(self, x: Array) -> Array:
        if self.function == "prelu":  # He et al. 2015
            return jnp.where(x > 0, x, jnp.asarray(self.weight[...], x.dtype) * x)
        if self.function == "xielu":
            p, n = (jax.nn.softplus(jnp.asarray(alpha[...], x.dtype)) for alpha in (self.alpha_p, self.alpha_n))
            return xielu(x, p, n)
        return ACTIVATIONS[self.function](x)


def xielu(x: Array, p: Array, n: Array) -> Array:
    """Quadratic above 0, an exponential below, with trainable slopes (Huang and Schlag 2024)."""
    below = (jnp.expm1(x.clip(max=XIELU["eps"])) - x) * (XIELU["beta"] + n)
    return jnp.where(x > 0, p * x * x, below) + XIELU["beta"] * x


class MLP(nnx.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, config: GPTConfig):
        self.c_fc = Conv1D(config.n_embd, config.n_mlp)
        self.c_proj = Conv1D(config.n_mlp, config.n_embd)
        self.act = Activation(config.activation)
        self.dropout = Dropout(config.resid_pdrop)

    def __call__(self, x: Array, rngs: nnx.RngStream | None) -> Array:  # (B, T, E) -> (B, T, E)
        return self.dropout(self.c_proj(self.act(self.c_fc(x))), rngs)


def host_values(x: Array | np.ndarray) -> np.ndarray | None:
    """Returns the values of an array that is in host memory; None where it is traced, or where looking would wait."""
    if isinstance(x, np.ndarray):
        return x
    if isinstance(x, jax.core.Tracer) or not x.is_fully_addressable:
        return None
    return np.asarray(x) if all(device.platform == "cpu" for device in x.devices()) else None


ARRAYS = ArrayKind(lambda x: isinstance(x, Array | np.ndarray), "a jax.Array", host_values)


def at_least_float32(x: Array) -> Array:
    """Where half precision would lose too much: scores and losses."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def empty(*shape: int) -> jax.ShapeDtypeStruct:
    """A weight's shape only; JAX cannot leave memory unfilled."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)
