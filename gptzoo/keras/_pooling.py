"""Which tokens a head looks at in Keras: those kept, the real ones, and the one that stands for a sequence.

Shapes: T new tokens, S cached and new tokens, K kept tokens, E n_embd; "..." stands for B rows, or B and C choices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from gptzoo.cache import Layers, StaticCache
from gptzoo.config import GPTConfig
from gptzoo.keras._backbone import full_mask
from gptzoo.keras._layers import Tensor, at_least_float32


def keep(x: Tensor, wanted: int | Tensor | None) -> Tensor:  # (..., T, E) -> (..., K, E)
    """Selects the last `wanted` tokens (0 or None: all), or those that an array of indices names."""
    if wanted is None or isinstance(wanted, int | np.integer):
        return x[..., -int(wanted) :, :] if wanted else x
    wanted = ops.cast(wanted, "int32")
    return ops.take(x, ops.where(wanted < 0, wanted + ops.shape(x)[-2], wanted), axis=-2)


def real_tokens(
    config: GPTConfig, ids: Tensor | None, mask: Tensor | None, past: Layers | StaticCache | None, n_tokens: Any
) -> Tensor | None:  # (..., T), (..., S) -> (..., T)
    """Says which new tokens are not padding: by the config's pad id, else by the mask. None: all are real."""
    if ids is not None and config.pad_token_id is not None:
        return ids != config.pad_token_id
    if mask is None:
        return None
    if isinstance(past, StaticCache):  # the mask may be longer or shorter than what is filled
        columns = ops.cast(past.length, "int32") + ops.arange(n_tokens, dtype="int32")
        return ops.reshape(ops.take(full_mask(mask, past), columns, axis=-1), (*ops.shape(mask)[:-1], n_tokens))
    return ops.cast(mask[..., -n_tokens:], "bool")


def pool(
    x: Tensor, kind: str, real: Tensor | None, chosen: Tensor | None = None
) -> Tensor:  # (..., T, E), (..., T), (...) -> (..., E)
    """Makes one vector of a sequence.

    Args:
        kind: "mean" of the real tokens; the "first" or the "last" of them; "cls_index": the chosen one.
        real: None: all are.
        chosen: index of a token; None: of the last real one.
    """
    real = ops.ones(ops.shape(x)[:-1], dtype="int32") if real is None else ops.cast(real, "int32")
    if kind == "mean":
        exact = at_least_float32(x)
        total = ops.sum(exact * ops.cast(real, exact.dtype)[..., None], axis=-2)
        count = ops.maximum(ops.sum(real, axis=-1, keepdims=True), 1)
        return ops.cast(total / ops.cast(count, exact.dtype), x.dtype)
    if kind == "first":
        index = ops.argmax(real, axis=-1)
    elif kind == "cls_index" and chosen is not None:
        index = ops.cast(chosen, "int32")
    else:
        index = ops.max(real * ops.arange(ops.shape(x)[-2], dtype="int32"), axis=-1)  # 0 where none is real
    index = ops.cast(index, "int32")[..., None, None]
    # Compiled code cannot raise: a token that is not there gives NaN.
    inside = (index >= 0) & (index < ops.shape(x)[-2])
    picked = ops.take_along_axis(x, ops.where(inside, index, 0), axis=-2)
    return ops.squeeze(ops.where(inside, picked, ops.cast(float("nan"), x.dtype)), -2)
