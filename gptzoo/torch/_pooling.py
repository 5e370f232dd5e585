"""Which tokens a head looks at in PyTorch: those kept, the real ones, and the one that stands for a sequence.

Shapes: T new tokens, S cached and new tokens, K kept tokens, E n_embd; "..." stands for B rows, or B and C choices.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gptzoo.cache import Layers, StaticCache
from gptzoo.config import GPTConfig
from gptzoo.torch._backbone import full_mask
from gptzoo.torch._layers import at_least_float32


def keep(x: Tensor, wanted: int | Tensor | None) -> Tensor:  # (..., T, E) -> (..., K, E)
    """Selects the last `wanted` tokens (0 or None: all), or those that an array of indices names."""
    if wanted is None or isinstance(wanted, int | np.integer):
        return x[..., -int(wanted) :, :] if wanted else x
    return x[..., wanted, :]


def real_tokens(
    config: GPTConfig, ids: Tensor | None, mask: Tensor | None, past: Layers | StaticCache | None, n_tokens: int
) -> Tensor | None:  # (..., T), (..., S) -> (..., T)
    """Says which new tokens are not padding: by the config's pad id, else by the mask. None: all are real."""
    if ids is not None and config.pad_token_id is not None:
        return ids != config.pad_token_id
    if mask is None:
        return None
    if isinstance(past, StaticCache):  # the mask may be longer or shorter than what is filled
        columns = past.length + torch.arange(n_tokens, device=mask.device)
        return full_mask(mask, past).index_select(-1, columns).reshape(*mask.shape[:-1], n_tokens)
    return mask[..., -n_tokens:] != 0


def pool(
    x: Tensor, kind: str, real: Tensor | None, chosen: Tensor | None = None
) -> Tensor:  # (..., T, E), (..., T), (...) -> (..., E)
    """Makes one vector of a sequence.

    Args:
        kind: "mean" of the real tokens; the "first" or the "last" of them; "cls_index": the chosen one.
        real: None: all are.
        chosen: index of a token; None: of the last real one.
    """
    if real is None:
        real = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
    if kind == "mean":
        total = (at_least_float32(x) * real[..., None]).sum(-2)
        return (total / real.sum(-1, keepdim=True).clamp(min=1)).to(x.dtype)
    if kind == "first":
        index = real.int().argmax(-1)
    elif kind == "cls_index" and chosen is not None:
        index = chosen.long()
    else:
        index = (real * torch.arange(x.shape[-2], device=x.device)).amax(-1)  # 0 where none is real
    return x.gather(-2, index[..., None, None].expand(*index.shape, 1, x.shape[-1])).squeeze(-2)
