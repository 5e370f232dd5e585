"""One way to call a model in any framework: NumPy arrays in, NumPy arrays out, in full float32."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gptzoo._extras import FRAMEWORKS
from gptzoo._settings import class_of
from gptzoo.config import GPTConfig
from gptzoo.errors import GPTZooError, InputError
from gptzoo.heads import HEADS, class_name

SHORTEST = 16  # row of a model that compiles for each shape


def power_of_two(size: int, least: int = SHORTEST) -> int:
    """Returns the next power of two, so that few shapes are compiled for."""
    return max(least, 1 << (size - 1).bit_length())


@dataclass
class Runner:
    """A model of one framework.

    Attributes:
        model: the framework's own model.
        precision: the setting of matrix products during a call, in words.
        scope: what holds during a call: that setting, the device.
        compiles: whether a call with arrays of a new shape takes seconds, as it is compiled.
        compiled: calls the model with arrays by name, compiled; None: there is no need.
        evaluating: in it the model computes without dropout, whatever mode it is in.
    """

    framework: str
    model: Any
    precision: str
    to_native: Callable[[np.ndarray], Any]
    to_numpy: Callable[[Any], np.ndarray]
    scope: Callable[[], Any]
    compiles: bool = False
    compiled: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    evaluating: Callable[[], Any] = nullcontext

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        """Calls the model; `past_key_values` is passed through as an earlier call returned it."""
        with self.scope():
            return dict(self.model(**self._native(inputs), return_dict=True))

    def predict(self, **arrays: np.ndarray) -> dict[str, Any]:
        """Calls the model with arrays whose values are known to be right, without a cache and without dropout."""
        if self.compiled is None:
            with self.evaluating():
                return self(**arrays, **_no_cache(self.model))
        with self.scope():
            return self.compiled(self._native(arrays))

    def generate(self, ids: np.ndarray, **options: Any) -> np.ndarray:
        """Completes rows of ids (B, T) as the model's own `generate` does, whose options are taken; without dropout."""
        with self.scope(), self.evaluating():
            return np.asarray(self.to_numpy(self.model.generate(self.to_native(ids), **self._native(options))))

    def _native(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: self.to_native(x) if isinstance(x, np.ndarray) else x for name, x in inputs.items()}

    def numpy(self, value: Any) -> Any:
        """Brings an output, or a tuple of outputs, to NumPy."""
        return tuple(map(self.numpy, value)) if isinstance(value, tuple) else np.asarray(self.to_numpy(value))


def load_runner(framework: str, path: str | Path, config: GPTConfig, head: str, dtype: str) -> Runner:
    """Loads a checkpoint in one framework.

    Raises:
        MissingExtraError: the framework is not installed.
        CheckpointError: the checkpoint does not fit the model.
        GPTZooError: KERAS_BACKEND names no backend of Keras.
    """
    models = import_framework(framework)
    model = getattr(models, class_name(config, head)).from_pretrained(path, config=config, dtype=dtype)
    return runner_of(framework, model)


def import_framework(framework: str) -> ModuleType:
    """Returns `gptzoo.torch`, `gptzoo.keras` or `gptzoo.flax`.

    Raises:
        MissingExtraError: it is not installed.
        GPTZooError: KERAS_BACKEND names no backend of Keras.
    """
    try:
        return importlib.import_module(f"gptzoo.{framework}")
    except GPTZooError:
        raise
    except ValueError as problem:  # how Keras refuses a backend
        raise GPTZooError(f"gptzoo.{framework}: {problem}") from None


def framework_of(model: Any, expected: str = "a model of gptzoo") -> str:
    """Returns the framework of a model of ours.

    Raises:
        InputError: it is none, but something else than `expected`.
    """
    for base in type(model).__mro__:
        package, _, rest = base.__module__.partition(".")
        if package == "gptzoo" and (name := rest.split(".")[0]) in FRAMEWORKS and hasattr(model, "head"):
            return name
    raise InputError(f"model: a {class_of(model)}, expected {expected}")


def runner_of(framework: str, model: Any, device: Any = None) -> Runner:
    """Wraps a model that is already there.

    Args:
        device: where it is, as the framework calls it; None: where the framework puts arrays by itself.
    """
    return _BUILDERS[framework](model, device)


@contextmanager
def placing(framework: str, device: Any) -> Iterator[None]:
    """New arrays of Keras and JAX go to a device; PyTorch's go where each call says."""
    scope: Any = nullcontext()
    if framework == "keras" and device is not None:
        import keras

        scope = keras.device(device)
    elif framework == "flax" and device is not None:
        import jax

        scope = jax.default_device(device)
    with scope:
        yield


def _no_cache(model: Any) -> dict[str, bool]:
    return {"use_cache": False} if "past_key_values" in HEADS[model.head].arguments else {}


def _torch(model: Any, device: Any) -> Runner:
    import torch

    from gptzoo.torch._layers import evaluating

    @contextmanager
    def scope() -> Iterator[None]:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.no_grad():
                yield
        finally:
            torch.set_float32_matmul_precision(before)

    def to_native(x: np.ndarray) -> Any:
        return torch.from_numpy(x).to(model.device)

    def to_numpy(x: Any) -> np.ndarray:
        array: np.ndarray = x.detach().cpu().to(torch.float64 if x.is_floating_point() else x.dtype).numpy()
        return array

    precision = "float32 matmul precision 'highest', no TF32"
    return Runner("torch", model, precision, to_native, to_numpy, scope, evaluating=partial(evaluating, model))


def _keras(model: Any, device: Any) -> Runner:
    import keras

    from gptzoo.keras._calls import to_array

    @contextmanager
    def scope() -> Iterator[None]:
        with placing("keras", device), _keras_scope():
            yield

    def to_numpy(x: Any) -> np.ndarray:
        return to_array(keras.ops.cast(x, "float32") if _is_half(x.dtype) else x)

    backend = keras.backend.backend()
    return Runner(
        "keras", model, f"{backend}: {_KERAS_PRECISION[backend]}", keras.ops.convert_to_tensor, to_numpy, scope
    )


def _is_half(dtype: Any) -> bool:
    return "float16" in str(dtype)


@contextmanager
def _keras_scope() -> Iterator[None]:
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    elif backend == "tensorflow":
        import tensorflow as tf

        before = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)
    else:
        import torch

        with torch.no_grad():
            yield


_KERAS_PRECISION = {
    "tensorflow": "TF32 off",
    "jax": "matmul precision 'highest'",
    "torch": "PyTorch's setting",
}


def _flax(model: Any, device: Any) -> Runner:
    import jax
    from flax import nnx

    @contextmanager
    def scope() -> Iterator[None]:
        with placing("flax", device), jax.default_matmul_precision("highest"):
            yield

    def compiled(arrays: dict[str, Any]) -> dict[str, Any]:
        graphdef, state = nnx.split(model)
        result: dict[str, Any] = step(graphdef, state, arrays)
        return result

    @partial(jax.jit, static_argnames="graphdef")
    def step(graphdef: Any, state: Any, arrays: dict[str, Any]) -> dict[str, Any]:
        return dict(nnx.merge(graphdef, state)(**arrays, **_no_cache(model), return_dict=True))

    precision, to_native, to_numpy = "matmul precision 'highest'", jax.numpy.asarray, np.asarray
    return Runner("flax", model, precision, to_native, to_numpy, scope, compiles=True, compiled=compiled)


_BUILDERS: dict[str, Callable[[Any, Any], Runner]] = {"torch": _torch, "keras": _keras, "flax": _flax}
