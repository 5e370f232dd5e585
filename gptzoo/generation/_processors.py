"""The processors of a step's scores: one table of them, in the order in which they are applied.

The formulas are those of Transformers 5, in float64. Shapes: R rows, C columns, V vocabulary, N sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gptzoo.errors import InputError
from gptzoo.generation._namespace import Namespace
from gptzoo.generation._others import described

Array = Any  # of the namespace's framework
Static = tuple[tuple[str, tuple[Any, ...]], ...]
Values = dict[str, tuple[np.ndarray, ...]]
INFINITY = float("inf")


class Tokens(NamedTuple):
    """The tokens that the next one is chosen for.

    Padding is no token: it is neither counted nor found, so that a padded row is processed as it would be alone.

    Attributes:
        ids: (R, C); columns from `length` on may hold anything.
        real: (R, C), false on padding.
        length: how many columns are filled.
        prompt: how many of these are the prompt's.
    """

    ids: Array
    real: Array
    length: Array
    prompt: Array

    def seen(self, xp: Namespace, length: Array = None) -> Array:
        """Returns which columns hold a token, (R, C); of the first `length` columns only, if that is given."""
        return self.real & (xp.arange(self.ids.shape[1]) < (self.length if length is None else length))

    def recent(self, xp: Namespace, n: int) -> tuple[Array, Array]:
        """Returns the last n columns' ids, and which of them hold a token; (R, n) both."""
        start = self.length - n
        real = xp.window(self.real, start, n) & (xp.arange(n) + start >= 0)
        return xp.window(self.ids, start, n), real


# Processors: functions of the scores (R, V). Behind them, what a program is compiled for, then arrays.


def add_bias(xp: Namespace, tokens: Tokens, scores: Array, single: Array, *sequences: Array) -> Array:
    """Adds to each token a bias, (V,), and that of each sequence which the token would complete.

    Args:
        sequences: none, or of N sequences the tokens before the last one, (N, n), filled up on the left; which of
            these are there, (N, n); the last ones, (N,); and the biases, (N,).
    """
    if not sequences:
        return scores + single
    before, there, last, bias = sequences
    ids, real = tokens.recent(xp, before.shape[1])
    found = xp.all((real[:, None, :] & (ids[:, None, :] == before)) | ~there)  # (R, N)
    return scores + (single + xp.add_at(xp.where(found, bias, 0.0), last, scores.shape[-1]))


def repetition_penalty(xp: Namespace, tokens: Tokens, scores: Array, penalty: Array) -> Array:
    """Divides positive scores of tokens that are there already, and multiplies negative ones (Keskar et al. 2019)."""
    size = scores.shape[-1]
    there = xp.mark(xp.where(tokens.seen(xp), tokens.ids, size), size)
    return xp.where(there, xp.where(scores < 0, scores * penalty, scores / penalty), scores)


def no_repeat_ngram(xp: Namespace, tokens: Tokens, scores: Array, n: int) -> Array:
    """Forbids tokens that would make the last n the same as any n before."""
    starts, size = tokens.ids.shape[1] - n + 1, scores.shape[-1]
    if starts < 1:
        return scores
    ids, real = tokens.recent(xp, n - 1)
    seen = tokens.seen(xp)
    found = seen[:, n - 1 :]  # (R, starts): whether n columns are the last ones again, but for their own last
    for i in range(n - 1):
        same = tokens.ids[:, i : i + starts] == ids[:, i : i + 1]
        found = found & same & seen[:, i : i + starts] & real[:, i : i + 1]
    return forbid(xp, scores, xp.mark(xp.where(found, tokens.ids[:, n - 1 :], size), size))


def min_length(xp: Namespace, tokens: Tokens, scores: Array, ends: Array, least: Array) -> Array:
    """Forbids the end of rows of less than so many tokens, the prompt's included."""
    return forbid(xp, scores, ends & (xp.sum(tokens.seen(xp), keepdims=True) < least))


def min_new_tokens(xp: Namespace, tokens: Tokens, scores: Array, ends: Array, least: Array) -> Array:
    return forbid(xp, scores, ends & (tokens.length - tokens.prompt < least))


def forced_bos(xp: Namespace, tokens: Tokens, scores: Array, forced: Array) -> Array:
    """Leaves one token to choose from behind the first one."""
    behind_first = xp.sum(tokens.seen(xp), keepdims=True) == 1
    return xp.where(behind_first, allow(xp, forced), scores)


def forced_eos(xp: Namespace, tokens: Tokens, scores: Array, forced: Array, new: Array) -> Array:
    """Leaves a few tokens to choose from for the last of at most `new` ones."""
    return xp.where(tokens.length - tokens.prompt == new - 1, allow(xp, forced), scores)


def exponential_decay(xp: Namespace, tokens: Tokens, scores: Array, ends: Array, start: Array, factor: Array) -> Array:
    """Lifts the scores of the ends ever more behind `start` new tokens."""
    beyond = tokens.length - tokens.prompt - start
    size = xp.where(xp.isfinite(scores), xp.where(scores < 0, -scores, scores), 0.0)
    return xp.where(ends & (beyond > 0), scores + size * (factor ** xp.float64(beyond) - 1), scores)


def suppress(xp: Namespace, tokens: Tokens, scores: Array, suppressed: Array) -> Array:
    return forbid(xp, scores, suppressed)


def begin_suppress(xp: Namespace, tokens: Tokens, scores: Array, after_bos: bool, suppressed: Array) -> Array:
    """Forbids tokens as the first new one; behind a forced one, if `after_bos`, as the second."""
    begin = tokens.prompt
    if after_bos:
        one = xp.sum(tokens.seen(xp, tokens.prompt), keepdims=True) == 1
        begin = begin + xp.integer(one)
    return forbid(xp, scores, suppressed & (tokens.length == begin))


def temperature(xp: Namespace, tokens: Tokens, scores: Array, temperature: Array) -> Array:
    best = xp.max(scores, keepdims=True)
    fits = xp.isfinite(best / temperature)  # otherwise only the most likely are left
    return xp.where(fits, scores, scores - best) / temperature


def top_k(xp: Namespace, tokens: Tokens, scores: Array, k: int) -> Array:
    """Keeps the tokens whose score is at least the k-th largest: ties with it stay, so that more may be left."""
    return forbid(xp, scores, scores < xp.top_k(scores, k)[0][:, -1:])


def top_p(xp: Namespace, tokens: Tokens, scores: Array, left: int | None, p: Array) -> Array:
    """Keeps the fewest tokens, the likeliest first, that make up at least p of all (Holtzman et al. 2020).

    Equal ones are taken by rising id. Transformers' sort leaves open which of them it takes, and as it adds up from
    the other end, its rounding differs.

    Args:
        left: how many tokens top_k has left, but for ties with the last of them.
    """
    best = xp.max(scores, keepdims=True)
    weights = xp.exp(scores - best)
    goal = p * xp.sum(weights, keepdims=True)
    ranked = -xp.sort(-scores) if left is None else xp.top_k(scores, left)[0]
    place = xp.first(xp.cumsum(xp.exp(ranked - best)) >= goal)[:, None]
    least = xp.take_along(ranked, place)  # the score at which p is reached, by one or several tokens
    ties = scores == least
    above = xp.sum(xp.where(scores > least, weights, 0.0), keepdims=True)
    before = above + xp.float64(xp.cumsum(ties) - 1) * xp.exp(least - best)
    kept = (scores > least) | (ties & (before < goal))
    return forbid(xp, scores, ~kept)


def min_p(xp: Namespace, tokens: Tokens, scores: Array, p: Array) -> Array:
    """Keeps the tokens with at least p of the likeliest one's probability (Nguyen et al. 2024)."""
    weights = xp.exp(scores - xp.max(scores, keepdims=True))
    return forbid(xp, scores, weights < p)


def typical_p(xp: Namespace, tokens: Tokens, scores: Array, p: Array) -> Array:
    """Keeps the fewest tokens, of the most usual surprise first, that make up at least p (Meister et al. 2022)."""
    logs = xp.log_softmax(scores)
    away = -logs - entropy(xp, logs)
    away = xp.where(away < 0, -away, away)
    order = xp.argsort(away)
    short = xp.cumsum(xp.exp(xp.take_along(logs, order))) < p
    place = xp.minimum(xp.sum(short, keepdims=True), scores.shape[-1] - 1)
    return forbid(xp, scores, away > xp.take_along(away, xp.take_along(order, place)))


def epsilon_cutoff(xp: Namespace, tokens: Tokens, scores: Array, epsilon: Array) -> Array:
    """Keeps the tokens with at least this probability (Hewitt et al. 2022)."""
    rare = xp.exp(xp.log_softmax(scores)) < epsilon
    return forbid(xp, scores, rare & (scores < xp.max(scores, keepdims=True)))


def eta_cutoff(xp: Namespace, tokens: Tokens, scores: Array, epsilon: Array) -> Array:
    """As `epsilon_cutoff`, with less than epsilon where the entropy is large (Hewitt et al. 2022)."""
    logs = xp.log_softmax(scores)
    eta = xp.minimum(epsilon**0.5 * xp.exp(-entropy(xp, logs)), epsilon)
    return forbid(xp, scores, (xp.exp(logs) < eta) & (scores < xp.max(scores, keepdims=True)))


def renormalize(xp: Namespace, tokens: Tokens, scores: Array) -> Array:
    return xp.log_softmax(scores)


def forbid(xp: Namespace, scores: Array, which: Array) -> Array:
    return xp.where(which, -INFINITY, scores)


def allow(xp: Namespace, which: Array) -> Array:
    """Returns scores, (V,), by which only some tokens can be chosen."""
    return xp.where(which, xp.float64(0.0), -INFINITY)


def entropy(xp: Namespace, logs: Array) -> Array:  # (R, V) log probabilities -> (R, 1)
    return -xp.sum(xp.exp(logs) * xp.where(logs > -INFINITY, logs, 0.0), keepdims=True)


# Their preparation: what an option's value becomes, None where it asks for nothing.


@dataclass(frozen=True)
class Call:
    """What the processors of a call depend on beside their own option.

    Attributes:
        ends: the ids that end a row.
        new: how many tokens are added at most.
        left: what top_k leaves, where it is used.
        forced_bos: whether there is a token behind the first one that is forced.
    """

    ends: Sequence[int]
    vocab_size: int
    new: int
    left: int | None
    forced_bos: bool

    def marks(self, ids: int | Sequence[int]) -> np.ndarray:
        """Returns which tokens of the vocabulary are among some, (V,)."""
        return np.isin(np.arange(self.vocab_size), ids)


Prepared = tuple[tuple[Any, ...], tuple[Any, ...]]  # what a program is compiled for, and arrays


def _bias(value: Any, call: Call) -> Prepared:
    """Takes Transformers' two forms, {(id, ...): bias} and [[[id, ...], bias], ...]."""
    biases = {tuple(ids): bias for ids, bias in (value.items() if isinstance(value, Mapping) else value)}
    single, longer = np.zeros(call.vocab_size), [ids for ids in biases if len(ids) > 1]
    for ids in biases.keys() - longer:
        single[ids[0]] = biases[ids]
    if not longer:
        return (), (single,)
    before = np.full((len(longer), max(map(len, longer)) - 1), -1)
    for row, ids in zip(before, longer, strict=True):
        row[len(row) - len(ids) + 1 :] = ids[:-1]
    return (), (
        single,
        before,
        before >= 0,
        np.array([ids[-1] for ids in longer]),
        np.array([float(biases[ids]) for ids in longer]),
    )


def _bad_words(value: Any, call: Call) -> Prepared | None:
    """Takes lists of ids; the end of a row is forbidden by other options, not by this."""
    biases = {tuple(ids): -INFINITY for ids in value if not (len(ids) == 1 and ids[0] in call.ends)}
    return _bias(biases, call) if biases else None


def _until(value: Any, call: Call) -> Prepared | None:
    return ((), (call.marks(call.ends), value)) if call.ends else None


def _decay(value: Any, call: Call) -> Prepared | None:
    start, factor = value
    return ((), (call.marks(call.ends), start, float(factor))) if call.ends else None


def _number(value: Any, call: Call) -> Prepared:
    return (), (max(float(value), np.finfo(float).tiny),)  # XLA takes smaller ones as zero


@dataclass(frozen=True)
class Processor:
    """A row of the table.

    Attributes:
        option: its name in `GenerationConfig`.
        neutral: values beside None that ask for nothing.
        stage: 0: before the caller's own processors; 1: behind them, when sampling; 2: behind them.
    """

    option: str
    apply: Callable[..., Array]
    prepare: Callable[[Any, Call], Prepared | None]
    neutral: tuple[Any, ...] = ()
    stage: int = 0


TABLE = {
    row.option: row
    for row in (
        Processor("sequence_bias", add_bias, _bias, ({}, [])),
        Processor("repetition_penalty", repetition_penalty, _number, (1,)),
        Processor("no_repeat_ngram_size", no_repeat_ngram, lambda n, call: ((n,), ()), (0,)),
        Processor("bad_words_ids", add_bias, _bad_words, ([],)),
        Processor("min_length", min_length, _until, (0,)),
        Processor("min_new_tokens", min_new_tokens, _until, (0,)),
        Processor("forced_bos_token_id", forced_bos, lambda token, call: ((), (call.marks(token),))),
        Processor("forced_eos_token_id", forced_eos, lambda ids, call: ((), (call.marks(ids), call.new))),
        Processor("exponential_decay_length_penalty", exponential_decay, _decay),
        Processor("suppress_tokens", suppress, lambda ids, call: ((), (call.marks(ids),)), ([],)),
        Processor(
            "begin_suppress_tokens",
            begin_suppress,
            lambda ids, call: ((call.forced_bos,), (call.marks(ids),)),
            ([],),
        ),
        Processor("temperature", temperature, _number, (1,), stage=1),
        Processor("top_k", top_k, lambda k, call: None if call.left is None else ((call.left,), ()), stage=1),
        Processor("top_p", top_p, lambda p, call: ((call.left,), _number(p, call)[1]), (1,), stage=1),
        Processor("min_p", min_p, _number, (0,), stage=1),
        Processor("typical_p", typical_p, _number, (1,), stage=1),
        Processor("epsilon_cutoff", epsilon_cutoff, _number, (0,), stage=1),
        Processor("eta_cutoff", eta_cutoff, _number, (0,), stage=1),
        Processor("renormalize_logits", renormalize, lambda value, call: ((), ()), (False,), stage=2),
    )
}


def active(options: Any, ends: Sequence[int], vocab_size: int, new: int) -> tuple[Static, Values]:
    """Returns the processors that a call asks for.

    Args:
        options: has an attribute for each option of the table, and `do_sample`; their values have been checked.
        ends: the ids that end a row.
        new: how many tokens are added at most.

    Returns:
        The names and what a program is compiled for, in the order of the table, hashable; and by name arrays, whose
        values may change without compiling anew.
    """
    left = options.top_k if options.do_sample and 0 < (options.top_k or 0) < vocab_size else None
    call = Call(ends, vocab_size, new, left, options.forced_bos_token_id is not None)
    static: dict[str, tuple[Any, ...]] = {}
    values: Values = {}
    for row in TABLE.values():
        value = getattr(options, row.option)
        if value is None or value in row.neutral or (row.stage == 1 and not options.do_sample):
            continue
        if prepared := row.prepare(value, call):
            static[row.option], values[row.option] = prepared[0], tuple(map(np.asarray, prepared[1]))
    return tuple(static.items()), values


def process(
    xp: Namespace,
    static: Static,
    values: Mapping[str, tuple[Array, ...]],
    tokens: Tokens,
    scores: Array,
    custom: Sequence[Callable[[Array, Array], Array]] = (),
) -> Array:
    """Returns the scores by which the next tokens are chosen.

    Args:
        static, values: what `active` returns, the arrays as the framework's.
        scores: (R, V) float64: logits, or log probabilities with beams.
        custom: the caller's own processors, of ids (R, t) and scores; with them, `tokens.length` is an integer.
    """
    for early in (True, False):
        for name, fixed in static:
            if (TABLE[name].stage == 0) == early:
                scores = TABLE[name].apply(xp, tokens, scores, *fixed, *values[name])
        if early:
            for function in custom:
                scores = _own(xp, function(xp.leading(tokens.ids, tokens.length), scores), scores)
    return scores


def _own(xp: Namespace, found: Any, scores: Array) -> Array:
    """Returns what a caller's processor makes of scores, in float64.

    Raises:
        InputError: it is something else than scores of the same shape.
    """
    if tuple(getattr(found, "shape", ())) != tuple(scores.shape) or "float" not in str(found.dtype):
        wanted = f"scores of shape {tuple(scores.shape)}"
        what = f"shape {tuple(found.shape)}, {found.dtype}" if hasattr(found, "shape") else described(found)
        raise InputError(f"logits_processor: {what} returned, expected {wanted}")
    return xp.float64(found)
