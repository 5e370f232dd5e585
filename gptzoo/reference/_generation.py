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
    return _complete(
        *(config, weights, input_ids, max_new_tokens, attention_mask, eos_token_id, pad_token_id),
        lambda logits, row, step: int(logits.argmax()),
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
    seed: int | Sequence[int],
    temperature: float = 1.0,
    top_k: int | None = 50,
    top_p: float = 1.0,
    num_return_sequences: int = 1,
) -> Array:
    """As `greedy`, but that tokens are drawn; the meaning of the options is told in `gptzoo.generation.Sampler`.

    Args:
        seed: of all rows, or of each.
        num_return_sequences: how many completions of each row follow each other in the result.
    """
    rows, copies = len(input_ids), num_return_sequences
    if isinstance(seed, int):
        keys = [(seed, row) for row in range(rows * copies)]
    else:
        keys = [(one, copy) for one in seed for copy in range(copies)]
    mask = None if attention_mask is None else np.repeat(attention_mask, copies, axis=0)
    return _complete(
        *(config, weights, np.repeat(input_ids, copies, axis=0), max_new_tokens, mask, eos_token_id, pad_token_id),
        lambda logits, row, step: draw(logits, uniform(keys[row], step), temperature, top_k, top_p),
    )


def _complete(
    config: GPTConfig,
    weights: Mapping[str, Any],
    input_ids: Any,
    max_new_tokens: int,
    attention_mask: Any,
    eos_token_id: int | Sequence[int] | None,
    pad_token_id: int | None,
    choose: Callable[[Array, int, int], int],
) -> Array:
    """Appends the token that `choose` takes for the logits (V,) of a row and step, again and again."""
    weights = {name: np.asarray(weight, np.float64) for name, weight in weights.items()}  # once, not at each token
    ids = np.asarray(input_ids)
    mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
    ends = [] if eos_token_id is None else np.atleast_1d(eos_token_id).tolist()
    fill = pad_token_id if pad_token_id is not None else (*ends, 0)[0]  # 0 where rows do not end: not used
    ended = np.zeros(len(ids), bool)
    for step in range(max_new_tokens):
        logits = forward("LMHeadModel", config, weights, input_ids=ids, attention_mask=mask).logits  # (B, T, V)
        chosen = [choose(last, row, step) for row, last in enumerate(logits[:, -1])]
        new = np.where(ended, fill, chosen)  # (B,)
        ids = np.concatenate((ids, new[:, None]), axis=1)
        mask = np.concatenate((mask, np.ones_like(mask[:, :1])), axis=1)
        ended = ended | np.isin(new, ends)
        if ended.all():
            break
    return ids


def draw(logits: Array, u: float, temperature: float, top_k: int | None, top_p: float) -> int:
    """Returns a token for the logits (V,) and a number from 0 to below 1."""
    weights = [math.exp((logit - max(logits)) / temperature) for logit in logits.tolist()]
    kept = sorted(range(len(logits)), key=lambda token: (-weights[token], token))
    if top_k:
        least = sorted(logits.tolist(), reverse=True)[min(top_k, len(logits)) - 1]
        kept = [token for token in kept if logits[token] >= least]
    if top_p < 1:
        enough = top_p * sum(weights[token] for token in kept)
        lengths = range(1, len(kept) + 1)
        length = next(n for n in lengths if sum(weights[token] for token in kept[:n]) >= enough)
        kept = kept[:length]
    passed, goal = 0.0, u * sum(weights[token] for token in sorted(kept))
    for token in sorted(kept):
        passed += weights[token]
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
