"""Log probabilities in NumPy float64, each token's computed alone from the tokens that it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.reference._heads import forward
from gptzoo.reference._layers import Array


def score(
    config: GPTConfig,
    weights: Mapping[str, Any],
    token_ids: Any,
    stride: int | None = None,
    max_length: int | None = None,
) -> Array:
    """Returns the log probability of every token but the first, given those before it.

    Window k begins at token k * stride and has max_length tokens. A token belongs to the first window that reaches it,
    and is given the tokens before it in this window.

    Args:
        weights: of an LMHeadModel, by canonical name.
        token_ids: (T,).
        stride: None: half of `max_length`.
        max_length: None: `config.n_positions`.

    Returns:
        (T - 1,).
    """
    weights = {name: np.asarray(weight, np.float64) for name, weight in weights.items()}  # once, not at each token
    ids = np.asarray(token_ids)
    longest = max_length or config.n_positions
    step = stride or longest // 2
    found = []
    for place in range(1, len(ids)):
        begin = next(begin for begin in range(0, len(ids), step) if place < begin + longest)
        logits = forward("LMHeadModel", config, weights, input_ids=ids[None, begin:place]).logits[0, -1]  # (V,)
        shifted = logits - logits.max()
        found.append(shifted[ids[place]] - np.log(np.exp(shifted).sum()))
    return np.array(found)
