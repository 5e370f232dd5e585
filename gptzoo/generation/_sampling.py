"""How a token is drawn: the same one in every framework, for the same logits and seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gptzoo.generation._namespace import Namespace

SEED_LIMIT = 2**64  # a word of the generator's key
ROW_LIMIT = 2**32  # so that its other word has room for the number of a row's completion


def noise(keys: Sequence[tuple[int, int]], steps: int) -> np.ndarray:
    """Returns the numbers that rows are drawn with.

    Number t of a row is word t of Philox-4x64-10 (Salmon et al. 2011) with the row's key and a counter from 1, its
    upper 53 bits as a fraction. So it depends neither on other rows nor on how many steps there are.

    Args:
        keys: of each row, a seed and a number, both from 0 to 2**64 - 1.

    Returns:
        (rows, steps) float64, from 0 to below 1.
    """
    words = [np.random.Philox(key=np.array(key, np.uint64)).random_raw(steps) for key in keys]
    return (np.stack(words) >> np.uint64(11)) * 2.0**-53


def draw(xp: Namespace, scores: Any, u: Any) -> Any:
    """Draws a token of each row: the first id at which the weights added up exceed u times all of them.

    A token's weight is exp(score - largest score), in float64, and they are added in the order of ids.

    The logits of two frameworks differ by about 1e-6 of the largest. Where u, or the bound of a processor such as
    top_p, lies that close to a sum of weights, or two logits that close to each other around the k-th place of top_k,
    they may draw different tokens. Equal logits are no such case: of them all frameworks take the same.

    Args:
        scores: (R, V), what the processors have left: minus infinity for what cannot be drawn, a finite number
            at least once in each row.
        u: (R,), from 0 to below 1: see `noise`.

    Returns:
        (R,) ids.
    """
    weights = xp.exp(scores - xp.max(scores, keepdims=True))
    sums, possible = xp.cumsum(weights), weights > 0
    whole = xp.max(xp.where(possible, sums, 0.0), keepdims=True)
    return xp.first(possible & (sums > u[:, None] * whole))
