"""Compiled functions of a model: what TensorFlow (XLA), JAX and PyTorch, which has none here, do otherwise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

import keras

from gptzoo.keras._layers import Tensor

BACKEND = keras.backend.backend()

Function = Callable[..., Any]


class Programs:
    """The compiled functions of a model as it is: see `programs_of`.

    Attributes:
        model: a reference that does not keep the model.
        variables: of the model; their values may change.
        config: what it says.
        compiled: by what they were compiled for.
    """

    def __init__(self, model: Any):
        self.model, self.variables, self.config = ref(model), model.variables, repr(vars(model.config))
        self.compiled: dict[Any, Function] = {}

    def fits(self, model: Any) -> bool:
        """Whether the model has the variables and the config that functions were compiled for."""
        same = [*map(id, self.variables)] == [*map(id, model.variables)]
        return same and self.config == repr(vars(model.config))

    def run(self, function: Function, static: tuple[Any, ...], cache: Any, *arrays: Any) -> Any:
        """Returns function(model, *static, cache, *arrays), by a program that is compiled at the first such call.

        There is one for each `static`, which is hashable, and for the shapes of the arrays.

        Args:
            cache: whose memory may serve for results: it cannot be used again.
        """
        key = function, static, shapes((cache, *arrays))
        if key not in self.compiled:
            self.compiled[key] = compiled(partial(call, self.model, function, static), self.variables)
        return self.compiled[key](cache, *arrays)


def call(model: ref[Any], function: Function, static: tuple[Any, ...], *arrays: Any) -> Any:
    return function(model(), *static, *arrays)


def shapes(arrays: Any) -> tuple[Any, ...]:
    return tuple((tuple(x.shape), str(x.dtype)) for x in keras.tree.flatten(arrays) if x is not None)


# Not attributes of the models, which Keras would go through when it saves or copies them.
_programs: WeakKeyDictionary[Any, Programs] = WeakKeyDictionary()


def programs_of(model: Any) -> Programs:
    """Returns the programs of a model; new ones after surgery, or a change of its config."""
    found = _programs.get(model)
    if found is None or not found.fits(model):
        found = _programs[model] = Programs(model)
    return found


def compiled(function: Function, variables: list[keras.Variable]) -> Function:
    """Returns a function of a cache and other arrays that is compiled when it is called, for XLA."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        program: Function = tf.function(function, jit_compile=True, autograph=False)
        return program
    import jax

    def run(values: list[Tensor], cache: Any, *arrays: Any) -> Any:
        with keras.StatelessScope(list(zip(variables, values, strict=True))):  # otherwise they would be constants
            return function(cache, *arrays)

    jitted = jax.jit(run, donate_argnames="cache")
    return lambda *arrays: jitted([variable.value for variable in variables], *arrays)


def scope() -> Any:
    """Returns a context in which there is float64, and nothing is kept for gradients."""
    if BACKEND == "jax":
        import jax

        return jax.enable_x64(True)
    if BACKEND == "torch":
        import torch

        return torch.no_grad()
    return nullcontext()


def outside(dtype: Any) -> str:
    """Returns the dtype that there is outside of the scope in place of one inside: JAX may have no 64 bits there."""
    name: str = keras.backend.standardize_dtype(dtype)
    if BACKEND != "jax":
        return name
    import jax

    return str(jax.dtypes.canonicalize_dtype(name))
