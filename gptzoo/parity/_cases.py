"""The inputs of a parity run: seeded, so that every framework and every run sees the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.heads import HEADS

Inputs = dict[str, Any]

CHOICES = 3


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
    shape = (batch, CHOICES, tokens) if head == "DoubleHeadsModel" else (batch, tokens)
    ids = rng.integers(0, config.vocab_size, shape)
    left, right, full = np.ones_like(ids), np.ones_like(ids), np.ones_like(ids)
    left[0, ..., :padding], right[0, ..., tokens - padding :] = 0, 0
    labels = labels_of(config, head, ids, right, rng)
    everything = {"output_hidden_states": True, "output_attentions": True}
    caches = any(output.name == "past_key_values" for output in HEADS[head].outputs)
    plain: Inputs = {"input_ids": ids} | ({"use_cache": True} if caches else {})
    if head == "ForSequenceClassification":  # it does not guess where each row of a batch ends
        plain["attention_mask"] = full
    types = rng.integers(0, min(2, config.vocab_size), ids.shape)
    positions = rng.permutation(config.n_positions)[:tokens][None]
    factors = rng.random((config.n_layer, config.n_head)).astype(np.float32)
    result = [
        Case("plain", plain | {"output_hidden_states": True} | labels),
        Case("attention weights", plain | everything),
        Case("left padding", plain | {"attention_mask": left}),
        Case("right padding", plain | {"attention_mask": right} | labels),
        Case("token types", plain | {"token_type_ids": types}),
        Case("positions", plain | {"position_ids": positions}),
        Case("head mask", plain | {"head_mask": factors}),
    ]
    if tokens > half and caches:
        for name, masked in (("cache", plain), ("cache, left padding", plain | {"attention_mask": left})):
            first = {
                key: value[..., :half] if isinstance(value, np.ndarray) else value for key, value in masked.items()
            }
            result.append(Case(name, masked | {"input_ids": ids[..., half:]}, first))
    if config.add_cross_attention and "encoder_hidden_states" in HEADS[head].arguments:
        states = rng.standard_normal((batch, 5, config.n_embd)).astype(np.float32)
        encoder = {"encoder_hidden_states": states, "encoder_attention_mask": np.tile([1, 1, 1, 1, 0], (batch, 1))}
        result.append(Case("encoder", plain | encoder | everything))
    return result


def labels_of(config: GPTConfig, head: str, ids: np.ndarray, real: np.ndarray, rng: np.random.Generator) -> Inputs:
    """Returns labels for every loss of a head; tokens that are not real have none.

    Args:
        ids: (B, T) or (B, C, T).
        real: as ids.
    """
    rows, n = len(ids), config.num_labels
    result: Inputs = {}
    for labels, kind in HEADS[head].losses.values():
        if kind == "next_token":
            result[labels] = np.where(real == 1, ids, -100)
        elif kind in ("token", "problem_type") and not n:  # a config may name no class
            continue
        elif kind == "token":
            result[labels] = np.where(real == 1, rng.integers(0, n, ids.shape), -100)
        elif kind == "choice" and config.has_choice_scores:
            result[labels] = rng.integers(0, CHOICES, rows)
        elif kind == "span":
            result |= {name: rng.integers(0, ids.shape[-1], rows) for name in labels.split()}
        elif kind == "problem_type" and (n == 1 or config.problem_type == "regression"):
            result[labels] = rng.standard_normal((rows, n)).astype(np.float32)
        elif kind == "problem_type" and config.problem_type == "multi_label_classification":
            result[labels] = rng.integers(0, 2, (rows, n)).astype(np.float32)
        elif kind == "problem_type":
            result[labels] = rng.integers(0, n, rows)
    return result
