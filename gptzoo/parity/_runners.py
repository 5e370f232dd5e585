"""One way to call a model in any framework: NumPy arrays in, NumPy arrays out, in full float32."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.errors import GPTZooError
from gptzoo.heads import class_name


@dataclass
class Runner:
    """A model of one framework.

    Attributes:
        model: the framework's own model.
        precision: the setting of matrix products during a call, in words.
    """

    framework: str
    model: Any
    precision: str
    to_native: Callable[[np.ndarray], Any]
    to_numpy: Callable[[Any], np.ndarray]
    scope: Callable[[], Any]

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        """Calls the model; `past_key_values` is passed through as an earlier call returned it."""
        native = {name: self.to_native(x) if isinstance(x, np.ndarray) else x for name, x in inputs.items()}
        with self.scope():
            return dict(self.model(**(native | {"return_dict": True})))

    def generate(self, ids: np.ndarray, **options: Any) -> np.ndarray:
        with self.scope():
            return np.asarray(self.to_numpy(self.model.generate(self.to_native(ids), **options)))

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
    models = _import(framework)
    model = getattr(models, class_name(config, head)).from_pretrained(path, config=config, dtype=dtype)
    return runner_of(framework, model)


def _import(framework: str) -> ModuleType:
    try:
        return importlib.import_module(f"gptzoo.{framework}")
    except GPTZooError:
        raise
    except ValueError as problem:  # how Keras refuses a backend
        raise GPTZooError(f"gptzoo.{framework}: {problem}") from None


def runner_of(framework: str, model: Any) -> Runner:
    """Wraps a model that is already there."""
    return _BUILDERS[framework](model)


def _torch(model: Any) -> Runner:
    import torch

    @contextmanager
    def scope() -> Iterator[None]:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.no_grad():
                yield
        finally:
            torch.set_float32_matmul_precision(before)

    def to_numpy(x: Any) -> np.ndarray:
        array: np.ndarray = x.detach().cpu().to(torch.float64 if x.is_floating_point() else x.dtype).numpy()
        return array

    return Runner("torch", model, "float32 matmul precision 'highest', no TF32", torch.from_numpy, to_numpy, scope)


def _keras(model: Any) -> Runner:
    import keras

    def to_numpy(x: Any) -> np.ndarray:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of how Keras calls NumPy
            array: np.ndarray = keras.ops.convert_to_numpy(keras.ops.cast(x, "float32") if _is_half(x.dtype) else x)
        return array

    backend = keras.backend.backend()
    return Runner(
        "keras", model, f"{backend}: {_KERAS_PRECISION[backend]}", keras.ops.convert_to_tensor, to_numpy, _keras_scope
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


def _flax(model: Any) -> Runner:
    import jax

    def scope() -> Any:
        return jax.default_matmul_precision("highest")

    return Runner("flax", model, "matmul precision 'highest'", jax.numpy.asarray, lambda x: np.asarray(x), scope)


_BUILDERS: dict[str, Callable[[Any], Runner]] = {"torch": _torch, "keras": _keras, "flax": _flax}
