"""The inputs of a parity run: seeded, so that every framework and every run sees the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gptzoo.config import GPTConfig

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One or two calls of a model.

    Attributes:
        inputs: arguments of the call that is compared, NumPy arrays and flags.
        before: arguments of an earlier call, whose `past_key_values` go into the compared one.
    """

    name: str
    inputs: Inputs
    before: Inputs | None = None


def cases(config: GPTConfig, head: str, seed: int = 0, batch: int = 2, tokens: int = 24) -> list[Case]:
    """Returns the calls that a parity run compares: plain, padded, with positions, with a cache, with an encoder."""
    rng = np.random.default_rng(seed)
    tokens = min(tokens, config.n_positions)
    half, padding = max(1, tokens // 2), min(3, tokens - 1)
    ids = rng.integers(0, config.vocab_size, (batch, tokens))
    left, right = np.ones_like(ids), np.ones_like(ids)
    left[0, :padding], right[0, tokens - padding :] = 0, 0
    labels = {"labels": np.where(right == 1, ids, -100)} if head == "LMHeadModel" else {}
    everything = {"output_hidden_states": True, "output_attentions": True}
    result = [
        Case("plain", {"input_ids": ids, "output_hidden_states": True, **labels}),
        Case("attention weights", {"input_ids": ids, **everything}),
        Case("left padding", {"input_ids": ids, "attention_mask": left}),
        Case("right padding", {"input_ids": ids, "attention_mask": right, **labels}),
        Case(
            "token types", {"input_ids": ids, "token_type_ids": rng.integers(0, min(2, config.vocab_size), ids.shape)}
        ),
        Case("positions", {"input_ids": ids, "position_ids": rng.permutation(config.n_positions)[:tokens][None]}),
        Case(
            "head mask", {"input_ids": ids, "head_mask": rng.random((config.n_layer, config.n_head)).astype(np.float32)}
        ),
    ]
    if tokens > half:
        first, then = {"input_ids": ids[:, :half]}, {"input_ids": ids[:, half:]}
        masked = first | {"attention_mask": left[:, :half]}, then | {"attention_mask": left}
        result += [Case("cache", then, first), Case("cache, left padding", masked[1], masked[0])]
    if config.add_cross_attention:
        states = rng.standard_normal((batch, 5, config.n_embd)).astype(np.float32)
        encoder = {"encoder_hidden_states": states, "encoder_attention_mask": np.tile([1, 1, 1, 1, 0], (batch, 1))}
        result.append(Case("encoder", {"input_ids": ids, **encoder, **everything}))
    return result
