"""Completion in NumPy float64, every token computed anew from all those before it.

Shapes: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.reference._heads import forward
from gptzoo.reference._layers import Array
from gptzoo.reference._processors import Scores, process


def greedy(
    config: GPTConfig,
    weights: Mapping[str, Any],
    input_ids: Any,
    max_new_tokens: int,
    attention_mask: Any = None,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    **options: Any,
) -> Array:
    """Appends the most probable token, again and again.

    Args:
        weights: of an LMHeadModel, by canonical name.
        input_ids: (B, T); shorter rows are padded, on the left or on the right.
        attention_mask: (B, T), 0 on padding; None: no padding.
        eos_token_id: a row that has produced it, or one of them, has ended; None: rows do not end.
        pad_token_id: fills rows that have ended; None: the (first) `eos_token_id` does.
        options: what changes the scores, by the names of `gptzoo.generation.GenerationConfig`.

    Returns:
        (B, T + new), where new is `max_new_tokens`, or less if all rows ended before.
    """
    return _complete(
        *(config, weights, input_ids, max_new_tokens, attention_mask, eos_token_id, pad_token_id, options),
        lambda scores, row, step: scores.index(max(scores)),
    )


def sample(
    config: GPTConfig,
    weights: Mapping[str, Any],
    input_ids: Any,
    max_new_tokens: int,
    attention_mask: Any = None,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    *,
    seed: int | Sequence[int | tuple[int, int]],
    top_k: int | None = 50,
    num_return_sequences: int = 1,
    **options: Any,
) -> Array:
    """As `greedy`, but that tokens are drawn; how is told in `gptzoo.generation.draw`.

    Args:
        seed: of all rows, or of each, or of each with its number.
        num_return_sequences: how many completions of each row follow each other in the result.
        options: as well those for drawing.
    """
    rows, copies = len(input_ids), num_return_sequences
    seeds = [(seed, row) for row in range(rows)] if isinstance(seed, int) else seed
    keys = []
    for entry in seeds:
        one, row = (entry, 0) if isinstance(entry, int) else entry
        keys += [(one, row * copies + copy) for copy in range(copies)]
    ids = np.repeat(input_ids, copies, axis=0)
    mask = None if attention_mask is None else np.repeat(attention_mask, copies, axis=0)
    return _complete(
        *(config, weights, ids, max_new_tokens, mask, eos_token_id, pad_token_id, options | {"top_k": top_k}),
        lambda scores, row, step: draw(scores, uniform(keys[row], step)),
    )


def _complete(
    config: GPTConfig,
    weights: Mapping[str, Any],
    input_ids: Any,
    max_new_tokens: int,
    attention_mask: Any,
    eos_token_id: int | Sequence[int] | None,
    pad_token_id: int | None,
    options: Mapping[str, Any],
    choose: Callable[[Scores, int, int], int],
) -> Array:
    """Appends the token that `choose` takes for the scores of a row and step, again and again."""
    weights = {name: np.asarray(weight, np.float64) for name, weight in weights.items()}  # once, not at each token
    ids = np.asarray(input_ids)
    mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
    prompts = mask.astype(bool).sum(axis=1).tolist()
    ends, fill = ends_and_fill(eos_token_id, pad_token_id)
    ended = np.zeros(len(ids), bool)
    for step in range(max_new_tokens):
        logits = forward("LMHeadModel", config, weights, input_ids=ids, attention_mask=mask).logits  # (B, T, V)
        new = np.full(len(ids), fill)
        for row in np.flatnonzero(~ended).tolist():
            tokens = ids[row][mask[row] != 0].tolist()
            last = np.flatnonzero(mask[row])[-1:].max(initial=-1)  # padding may be behind the prompt
            scores = process(logits[row, last].tolist(), tokens, options, prompts[row], max_new_tokens, ends)
            new[row] = choose(scores, row, step)
        ids = np.concatenate((ids, new[:, None]), axis=1)
        mask = np.concatenate((mask, np.ones_like(mask[:, :1])), axis=1)
        ended = ended | np.isin(new, ends)
        if ended.all():
            break
    return ids


def ends_and_fill(eos_token_id: int | Sequence[int] | None, pad_token_id: int | None) -> tuple[list[int], int]:
    """Returns the ids that end a row, and the one that fills it afterwards."""
    ends = [] if eos_token_id is None else np.atleast_1d(eos_token_id).tolist()
    return ends, (*ends, 0)[0] if pad_token_id is None else pad_token_id  # 0 where rows do not end: not used


def draw(scores: Scores, u: float) -> int:
    """Returns a token for scores and a number from 0 to below 1."""
    most = max(scores)
    weights = [math.exp(score - most) for score in scores]
    passed, goal = 0.0, u * sum(weights)
    for token, weight in enumerate(weights):
        passed += weight
        if passed > goal:
            return token
    raise AssertionError("u is below 1")


def uniform(key: tuple[int, int], step: int) -> float:
    """Returns a row's number of a step: a word of Philox-4x64-10 (Salmon et al. 2011, section 3.3) as a fraction."""
    word = philox((step // 4 + 1, 0, 0, 0), key)[step % 4]
    return (word >> 11) / 2**53


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns the four words of 64 bits that ten rounds make of a counter and a key."""
    (a, b, c, d), (k, m), size = counter, key, 2**64
    for _ in range(10):
        (high, low), (higher, lower) = divmod(0xD2E7470EE14C6C93 * a, size), divmod(0xCA5A826395121157 * c, size)
        a, b, c, d = higher ^ b ^ k, lower, high ^ d ^ m, low
        k, m = (k + 0x9E3779B97F4A7C15) % size, (m + 0xBB67AE8584CAA73B) % size
    return a, b, c, d
