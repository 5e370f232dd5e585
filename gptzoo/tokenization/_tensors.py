"""From nested lists of whole numbers to the arrays of a framework."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from gptzoo._settings import short
from gptzoo.errors import InputError, MissingExtraError


def to_tensor(name: str, rows: Any, kind: Any) -> Any:
    """Makes an array of nested lists: integers, of the width that each framework's models take.

    Args:
        name: of the array, for errors.
        rows: nested lists of integers or booleans; an array stays as it is.
        kind: "pt", "tf", "jax" or "np" (or "flax" for "jax"); or an enumeration's member with such a value.

    Raises:
        InputError: rows of different lengths, or an unknown kind.
        MissingExtraError: the framework is not installed.
    """
    kind = getattr(kind, "value", kind)
    if not isinstance(kind, str) or kind not in _MAKERS:
        raise InputError(f"return_tensors: {short(kind)}, expected one of {', '.join(_MAKERS)}, or None")
    if hasattr(rows, "__array__") and not isinstance(rows, list | tuple):
        return _MAKERS[kind](np.asarray(rows))
    lengths = sorted({len(row) for row in rows if isinstance(row, list | tuple)}) if isinstance(rows, list) else []
    if len(lengths) > 1:
        advice = "padding=True and truncation=True make them equal"
        raise InputError(f"{name}: rows of {lengths[0]} to {lengths[-1]} tokens make no array: {advice}")
    try:
        array = np.array(rows, np.int64)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"{name}: {short(rows)}, expected nested lists of whole numbers") from None
    return _MAKERS[kind](array)


def _torch(array: np.ndarray) -> Any:
    _require("torch", "torch")
    import torch

    return torch.from_numpy(array)


def _tensorflow(array: np.ndarray) -> Any:
    _require("tensorflow", "keras")
    import tensorflow as tf

    return tf.constant(array, tf.int32)


def _jax(array: np.ndarray) -> Any:
    _require("jax", "flax")
    import jax.numpy as jnp

    return jnp.asarray(array, jnp.int32)


def _require(module: str, extra: str) -> None:
    if find_spec(module) is None:
        raise MissingExtraError(f"return_tensors needs {module}: pip install 'gptzoo[{extra}]'")


_MAKERS: dict[str, Callable[[np.ndarray], Any]] = {
    "pt": _torch,
    "tf": _tensorflow,
    "jax": _jax,
    "flax": _jax,
    "np": lambda array: array,
}
