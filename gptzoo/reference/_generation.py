"""Greedy decoding in NumPy float64, every token computed anew from all those before it.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.reference._heads import forward
from gptzoo.reference._layers import Array


def greedy(
    config: GPTConfig,
    weights: Mapping[str, Any],
    input_ids: Any,
    max_new_tokens: int,
    attention_mask: Any = None,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
) -> Array:
    """Appends the most probable token, again and again.

    Args:
        weights: of an LMHeadModel, by canonical name.
        input_ids: (B, T); shorter rows are padded on the left.
        attention_mask: (B, T), 0 on padding; None: no padding.
        eos_token_id: a row that has produced it, or one of them, has ended; None: rows do not end.
        pad_token_id: fills rows that have ended; None: the (first) `eos_token_id` does.

    Returns:
        (B, T + new), where new is `max_new_tokens`, or less if all rows ended before.
    """
    weights = {name: np.asarray(weight, np.float64) for name, weight in weights.items()}  # once, not at each token
    ids = np.asarray(input_ids)
    mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
    ends = [] if eos_token_id is None else np.atleast_1d(eos_token_id).tolist()
    fill = pad_token_id if pad_token_id is not None else (*ends, 0)[0]  # 0 where rows do not end: not used
    ended = np.zeros(len(ids), bool)
    for _ in range(max_new_tokens):
        logits = forward("LMHeadModel", config, weights, input_ids=ids, attention_mask=mask).logits  # (B, T, V)
        new = np.where(ended, fill, logits[:, -1].argmax(axis=-1))  # (B,)
        ids = np.concatenate((ids, new[:, None]), axis=1)
        mask = np.concatenate((mask, np.ones_like(mask[:, :1])), axis=1)
        ended = ended | np.isin(new, ends)
        if ended.all():
            break
    return ids
