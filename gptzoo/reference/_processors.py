"""What the options of generation do to the scores of one row: by the definitions, in plain Python.

A row is the list of its tokens, padding left out; its scores are a list, by id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Scores = list[float]

OPTIONS: dict[str, Any] = {
    "sequence_bias": None,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "renormalize_logits": False,
}
DRAWING: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
NEVER = -math.inf


def process(
    scores: Sequence[float], ids: list[int], options: Mapping[str, Any], prompt: int, new: int, ends: Sequence[int]
) -> Scores:
    """Returns what the next token is chosen by.

    Args:
        ids: the tokens so far, of which `prompt` are the prompt's.
        options: by their names in `gptzoo.generation.GenerationConfig`; those of drawing only where tokens are drawn.
        new: how many tokens are added at most.
        ends: the ids that end a row.
    """
    said = {name: value for name, value in options.items() if value is not None}
    if unknown := said.keys() - OPTIONS.keys() - DRAWING.keys():
        raise TypeError(f"unknown options: {sorted(unknown)}")
    asked = OPTIONS | DRAWING | said
    scores = _add_biases(list(scores), ids, asked["sequence_bias"])
    scores = _penalise(scores, ids, asked["repetition_penalty"])
    scores = _without(scores, _last_of_known_ngrams(ids, asked["no_repeat_ngram_size"]))
    scores = _forbid_words(scores, ids, asked["bad_words_ids"], ends)
    if len(ids) < asked["min_length"] or len(ids) - prompt < asked["min_new_tokens"]:
        scores = _without(scores, ends)
    if len(ids) == 1 and asked["forced_bos_token_id"] is not None:
        scores = _only(scores, [asked["forced_bos_token_id"]])
    if len(ids) - prompt == new - 1 and asked["forced_eos_token_id"] is not None:
        scores = _only(scores, _listed(asked["forced_eos_token_id"]))
    scores = _lift(scores, len(ids) - prompt, asked["exponential_decay_length_penalty"], ends)
    scores = _without(scores, asked["suppress_tokens"] or [])
    begin = 2 if prompt == 1 and asked["forced_bos_token_id"] is not None else prompt
    if len(ids) == begin:
        scores = _without(scores, asked["begin_suppress_tokens"] or [])
    scores = _warp(scores, asked)
    return log_softmax(scores) if asked["renormalize_logits"] else scores


def _warp(scores: Scores, asked: Mapping[str, Any]) -> Scores:
    """Applies what is for drawing only."""
    scores = _divide(scores, asked["temperature"])
    scores = _keep_k(scores, asked["top_k"])
    if asked["top_p"] < 1:
        scores = _keep_p(scores, asked["top_p"])
    if asked["min_p"] > 0:
        weights = _weights(scores)
        scores = [s if w >= asked["min_p"] else NEVER for s, w in zip(scores, weights, strict=True)]
    if asked["typical_p"] < 1:
        scores = _keep_typical(scores, asked["typical_p"])
    if asked["epsilon_cutoff"] > 0:
        scores = _cut(scores, asked["epsilon_cutoff"])
    if eta := asked["eta_cutoff"]:
        scores = _cut(scores, min(eta, math.sqrt(eta) * math.exp(-_entropy(scores))))
    return scores


def _add_biases(scores: Scores, ids: list[int], biases: Any) -> Scores:
    pairs = biases.items() if isinstance(biases, Mapping) else biases or []
    for (*before, last), bias in {tuple(sequence): bias for sequence, bias in pairs}.items():
        if ids[len(ids) - len(before) :] == before and len(before) <= len(ids):
            scores[last] += bias
    return scores


def _forbid_words(scores: Scores, ids: list[int], words: Any, ends: Sequence[int]) -> Scores:
    return _add_biases(scores, ids, [(word, NEVER) for word in words or [] if word not in [[end] for end in ends]])


def _penalise(scores: Scores, ids: list[int], penalty: float) -> Scores:
    for token in set(ids):
        scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
    return scores


def _last_of_known_ngrams(ids: list[int], n: int) -> list[int]:
    """Returns which tokens would repeat n of the row's."""
    ngrams = [ids[start : start + n] for start in range(len(ids) - n + 1)] if n else []
    return [ngram[-1] for ngram in ngrams if ngram[:-1] == ids[len(ids) - n + 1 :]]


def _lift(scores: Scores, new: int, decay: Any, ends: Sequence[int]) -> Scores:
    start, factor = decay or (math.inf, 1.0)
    for end in set(ends):
        if new > start and math.isfinite(scores[end]):
            scores[end] += abs(scores[end]) * (factor ** (new - start) - 1)
    return scores


def _without(scores: Scores, ids: Sequence[int]) -> Scores:
    return [NEVER if token in ids else score for token, score in enumerate(scores)]


def _only(scores: Scores, ids: Sequence[int]) -> Scores:
    return [0.0 if token in ids else NEVER for token in range(len(scores))]


def _divide(scores: Scores, temperature: float) -> Scores:
    """Divides; where that goes over what a float holds, only the largest are left."""
    most = max(scores)
    if math.isfinite(most) and math.isinf(most / temperature):
        return [0.0 if score == most else NEVER for score in scores]
    return [score / temperature for score in scores]


def _keep_k(scores: Scores, k: int) -> Scores:
    least = sorted(scores, reverse=True)[min(k, len(scores)) - 1] if k else NEVER
    return [score if score >= least else NEVER for score in scores]


def _keep_p(scores: Scores, p: float) -> Scores:
    """Keeps the shortest beginning of the list, by falling score and rising id, that makes up at least p of all."""
    weights = _weights(scores)
    goal, total, kept = p * sum(weights), 0.0, []
    for token in sorted(range(len(scores)), key=lambda token: (-scores[token], token)):
        if total >= goal:
            break
        total += weights[token]
        kept.append(token)
    return [score if token in kept else NEVER for token, score in enumerate(scores)]


def _keep_typical(scores: Scores, p: float) -> Scores:
    """Keeps the tokens of the most usual surprise that make up at least p, and ties with the last of them."""
    logs, entropy = log_softmax(scores), _entropy(scores)
    away = [abs(-log - entropy) for log in logs]
    total, last = 0.0, math.inf
    for token in sorted(range(len(scores)), key=lambda token: (away[token], token)):
        total += math.exp(logs[token])
        if total >= p:
            last = away[token]
            break
    return [score if distance <= last else NEVER for score, distance in zip(scores, away, strict=True)]


def _cut(scores: Scores, least: float) -> Scores:
    """Keeps the tokens of at least a probability, and the likeliest."""
    logs, most = log_softmax(scores), max(scores)
    return [s if math.exp(log) >= least or s == most else NEVER for s, log in zip(scores, logs, strict=True)]


def _weights(scores: Scores) -> list[float]:
    most = max(scores)
    return [math.exp(score - most) for score in scores]


def log_softmax(scores: Scores) -> Scores:
    most, total = max(scores), sum(_weights(scores))
    return [score - most - math.log(total) for score in scores]


def _entropy(scores: Scores) -> float:
    return -sum(math.exp(log) * log for log in log_softmax(scores) if log > NEVER)


def _listed(ids: int | Sequence[int]) -> list[int]:
    return [ids] if isinstance(ids, int) else list(ids)
