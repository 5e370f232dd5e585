"""Which tokens a head looks at in Flax NNX: those kept, the real ones, and the one that stands for a sequence.

Shapes: T new tokens, S cached and new tokens, K kept tokens, E n_embd; "..." stands for B rows, or B and C choices.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from gptzoo.cache import Layers, StaticCache
from gptzoo.config import GPTConfig
from gptzoo.flax._backbone import full_mask
from gptzoo.flax._layers import at_least_float32


def keep(x: Array, wanted: int | Array | None) -> Array:  # (..., T, E) -> (..., K, E)
    """Selects the last `wanted` tokens (0 or None: all), or those that an array of indices names."""
    if wanted is None or isinstance(wanted, int | np.integer):
        return x[..., -int(wanted) :, :] if wanted else x
    return x.take(jnp.asarray(wanted), axis=-2)  # NaN for an index outside, where x[..., wanted, :] gives a neighbour


def real_tokens(
    config: GPTConfig, ids: Array | None, mask: Array | None, past: Layers | StaticCache | None, n_tokens: int
) -> Array | None:  # (..., T), (..., S) -> (..., T)
    """Says which new tokens are not padding: by the config's pad id, else by the mask. None: all are real."""
    if ids is not None and config.pad_token_id is not None:
        return ids != config.pad_token_id
    if mask is None:
        return None
    if isinstance(past, StaticCache):  # the mask may be longer or shorter than what is filled
        columns = past.length + jnp.arange(n_tokens, dtype=jnp.int32)
        return full_mask(mask, past).take(columns, axis=-1).reshape(*mask.shape[:-1], n_tokens)
    return mask[..., -n_tokens:] != 0


def pool(
    x: Array, kind: str, real: Array | None, chosen: Array | None = None
) -> Array:  # (..., T, E), (..., T), (...) -> (..., E)
    """Makes one vector of a sequence.

    Args:
        kind: "mean" of the real tokens; the "first" or the "last" of them; "cls_index": the chosen one.
        real: None: all are.
        chosen: index of a token; None: of the last real one.
    """
    if real is None:
        real = jnp.ones(x.shape[:-1], bool)
    if kind == "mean":
        total = (at_least_float32(x) * real[..., None]).sum(-2)
        return (total / real.sum(-1, keepdims=True).clip(min=1)).astype(x.dtype)
    if kind == "first":
        index = real.argmax(-1)
    elif kind == "cls_index" and chosen is not None:
        index = jnp.where(chosen < 0, x.shape[-2], chosen)  # outside, where -1 would count from the end
    else:
        index = (real * jnp.arange(x.shape[-2], dtype=jnp.int32)).max(-1)  # 0 where none is real
    return jnp.take_along_axis(x, index[..., None, None], axis=-2, mode="fill", fill_value=jnp.nan).squeeze(-2)
