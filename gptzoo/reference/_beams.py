"""Beam search in NumPy float64, one prompt after the other, as it is defined by Transformers since 4.50."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.reference._generation import ends_and_fill
from gptzoo.reference._heads import forward
from gptzoo.reference._layers import Array
from gptzoo.reference._processors import log_softmax, process

NEVER = -1e9  # in place of minus infinity: that of Transformers


class Beam(NamedTuple):
    """New tokens and their score: of a running beam the sum of their log probabilities."""

    score: float
    tokens: list[int]


def beam_search(
    config: GPTConfig,
    weights: Mapping[str, Any],
    input_ids: Any,
    max_new_tokens: int,
    attention_mask: Any = None,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    *,
    num_beams: int,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    num_return_sequences: int = 1,
    **options: Any,
) -> tuple[Array, Array]:
    """Finds probable completions of each row by following several at once.

    At each step all continuations of the running beams are ranked. Of the best `num_beams` those that end are
    finished; the best ones that do not end run on. A finished one's score is its sum over its number of new tokens to
    the power of `length_penalty`.

    Args:
        num_beams: how many run, and how many finished ones are kept.
        early_stopping: True: it is over with `num_beams` finished ones; else as soon as the best running one would
            not beat the worst of these at its present length, or with "never" at its full length, if that is better.
        num_return_sequences: how many of the finished ones are returned, best first.
        options: as `greedy` has them, for the log probabilities.

    Returns:
        (B * num_return_sequences, T + new), new being what the longest has, and the scores.
    """
    weights = {name: np.asarray(weight, np.float64) for name, weight in weights.items()}
    ids = np.asarray(input_ids)
    mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask)
    ends, fill = ends_and_fill(eos_token_id, pad_token_id)
    found = []
    for row, real in zip(ids, mask != 0, strict=True):
        rules = _Rules(ends, max_new_tokens, num_beams, length_penalty, early_stopping)
        best = _search(config, weights, row[real].tolist(), rules, options)[:num_return_sequences]
        found += [([*row.tolist(), *beam.tokens], beam.score) for beam in best]
    longest = max(len(tokens) for tokens, _ in found)
    sequences = [tokens + [fill] * (longest - len(tokens)) for tokens, _ in found]
    return np.array(sequences), np.array([score for _, score in found])


class _Rules(NamedTuple):
    ends: list[int]
    new: int
    beams: int
    penalty: float
    early: bool | str


def _search(
    config: GPTConfig, weights: Mapping[str, Array], prompt: list[int], rules: _Rules, options: Mapping[str, Any]
) -> list[Beam]:
    """Returns the finished beams of a prompt, best first; empty ones in place of those that there are not."""
    # All run from the same prompt: only one of them counts in the first step.
    running = [Beam(0.0, [])] + [Beam(NEVER, [])] * (rules.beams - 1)
    finished: list[Beam] = []
    for length in range(1, rules.new + 1):
        candidates = _candidates(config, weights, prompt, running, rules, options)
        ends = [beam.tokens[-1] in rules.ends or length == rules.new for beam in candidates]
        if not (rules.early is True and len(finished) == rules.beams):
            new = [beam for beam, end in list(zip(candidates, ends, strict=True))[: rules.beams] if end]
            scored = [Beam(beam.score / length**rules.penalty, beam.tokens) for beam in new]
            finished = _best(finished + [beam for beam in scored if beam.score > NEVER], rules.beams)
        left = [Beam(score + NEVER * end, tokens) for (score, tokens), end in zip(candidates, ends, strict=True)]
        running = _best(left, rules.beams)
        if all(ends) or _is_over(running[0], finished, length, rules):
            break
    return finished + [Beam(NEVER, [])] * (rules.beams - len(finished))


def _candidates(
    config: GPTConfig,
    weights: Mapping[str, Array],
    prompt: list[int],
    running: list[Beam],
    rules: _Rules,
    options: Mapping[str, Any],
) -> list[Beam]:
    """Returns the best continuations, best first: so many that enough of them do not end."""
    ids = np.array([prompt + beam.tokens for beam in running])
    logits = forward("LMHeadModel", config, weights, input_ids=ids).logits[:, -1]
    candidates = []
    for beam, row, last in zip(running, ids.tolist(), logits.tolist(), strict=True):
        scores = process(log_softmax(last), row, options, len(prompt), rules.new, rules.ends)
        candidates += [Beam(beam.score + score, [*beam.tokens, token]) for token, score in enumerate(scores)]
    return _best(candidates, max(2, 1 + len(rules.ends)) * rules.beams)


def _is_over(running: Beam, finished: list[Beam], length: int, rules: _Rules) -> bool:
    """Whether no running beam is awaited to get among the finished ones."""
    if len(finished) < rules.beams:
        return False
    longest = rules.new if rules.early == "never" and rules.penalty > 0 else length
    return rules.early is True or running.score / longest**rules.penalty <= finished[-1].score


def _best(beams: list[Beam], n: int) -> list[Beam]:
    """Returns the n best; of equal ones, the first."""
    return sorted(beams, key=lambda beam: -beam.score)[:n]
