"""What Flax NNX needs and the other twins do not, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from gptzoo import weights
from gptzoo.config import DTYPES, GPTConfig, dtype_name
from gptzoo.errors import ConfigError
from gptzoo.flax._layers import Linear
from gptzoo.generation import GenerateOutput
from gptzoo.outputs import OUTPUTS, ModelOutput


def functional(call: Callable[..., Any]) -> Callable[..., Any]:
    """Serves the argument `params` of a model's method: weights in place of the model's own, which stay as they are."""

    @wraps(call)
    def wrapped(self: Any, *args: Any, params: Any = None, **kwargs: Any) -> Any:
        return call(self.with_params(params), *args, **kwargs)

    return wrapped


class Static:
    """Holds an object that cannot be hashed where NNX needs one that can; equal if it is the same object, unchanged.

    Equal contents would not do: NNX hands the attributes of the model that a function was compiled for to the next
    model that the function serves, and two models would share one config.
    """

    def __init__(self, value: Any):
        self.value = value
        self.contents = repr(getattr(value, "__dict__", None))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self.value is other.value and self.contents == other.contents

    def __hash__(self) -> int:
        return hash(self.contents)


class Program:
    """A model but for its weights, which its programs are compiled for; the config, so that a change of it is seen."""

    def __init__(self, graphdef: Any, config: GPTConfig):
        self.parts = graphdef, Static(config)
        self.hash = hash(self.parts)  # once, not in every step: NNX's takes a while

    def model(self, weights: Any) -> Any:
        return nnx.merge(self.parts[0], weights)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Program) and self.parts == other.parts)

    def __hash__(self) -> int:
        return self.hash


def split(model: Any) -> tuple[Program, Any]:
    """Takes a model apart for a compiled function: into what that is compiled for, and its weights.

    Without what nothing is computed with: another one of it would be compiled anew.
    """
    computing = copy(model)
    computing._load_report = computing._generation_config = Static(None)
    graphdef, weights = nnx.split(computing)
    return Program(graphdef, model.config), weights


class Tied:
    """A head whose weight is the token embedding's, looked up there at each use.

    An attribute would be a second place of the same weight, which JAX's tree functions take for a second weight with
    a gradient of its own. An untied model's attribute, a Linear like this one, hides the class's.
    """

    def __init__(self, name: str):
        self.name = name

    def __get__(self, model: Any, owner: Any = None) -> Any:
        if model is None:
            return self
        row = next(row for row in weights.rows(model.config, model.head) if row.name == self.name)
        n_out, n_in = (getattr(model.config, dim) for dim in row.shape.split())
        linear = Linear(n_in, n_out, bias=False)
        linear.weight = model.get_weight(f"{weights.PREFIX}{row.tied}")
        return linear


def to_dtype(dtype: Any) -> np.dtype:
    """Returns the NumPy dtype of a name, of a dtype, or of another framework's dtype.

    Raises:
        ConfigError: it is not one of `gptzoo.config.DTYPES`, or JAX does not have it switched on.
    """
    name = dtype_name(dtype)
    if name not in DTYPES:
        raise ConfigError(f"dtype: {name}, expected one of {', '.join(DTYPES)}")
    if jax.dtypes.canonicalize_dtype(name) != name:  # JAX would go on in float32
        raise ConfigError(f"dtype: {name}, which JAX has only after jax.config.update('jax_enable_x64', True)")
    return jnp.dtype(name)


def seed_of(key: Array) -> Any:
    """Returns the number that a key was made from, 7 for jax.random.key(7); the key itself where it is traced."""
    if isinstance(key, jax.core.Tracer):
        return key
    with jax.ensure_compile_time_eval():
        return number(jax.random.key_data(key))


def initial_value(spec: weights.Spec, seed: Any) -> Any:
    """As `weights.initial_value`; for a traced key, the compiled function will ask for the numbers."""
    if not isinstance(seed, jax.core.Tracer):
        return weights.initial_value(spec, seed)
    shape = jax.ShapeDtypeStruct(spec.shape, jnp.float32)
    return jax.pure_callback(lambda words: weights.initial_value(spec, number(words)), shape, jax.random.key_data(seed))


def number(words: Any) -> int:
    return int.from_bytes(np.asarray(words).astype(">u4").tobytes(), "big")


def place(weight: nnx.Param[Array]) -> str:
    """Says where the values of a weight are."""
    value = weight.get_value()
    if isinstance(value, jax.ShapeDtypeStruct):
        return "shapes only"
    return "traced" if isinstance(value, jax.core.Tracer) else next(iter(value.devices())).platform


def register(output: type[ModelOutput]) -> None:
    """Teaches JAX's tree functions to take an output apart, so that compiled functions can return it."""

    def flatten(value: ModelOutput) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        leaves, names = value.flatten()
        return [(jax.tree_util.DictKey(name), leaf) for name, leaf in zip(names, leaves, strict=True)], names

    jax.tree_util.register_pytree_with_keys(output, flatten, output.unflatten)


outputs: list[type[ModelOutput]] = [*OUTPUTS.values(), GenerateOutput]
for output in outputs:
    with suppress(ValueError):  # known already: Keras' twin on JAX needs the same
        register(output)
