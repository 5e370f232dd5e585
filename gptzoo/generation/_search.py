"""Greedy search, sampling and beam search: what one step makes of the logits, in any framework's arrays.

Shapes: B prompts, K beams, R rows (B times K, or times the completions drawn of each), C columns, V vocabulary,
M candidates of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gptzoo.errors import InputError
from gptzoo.generation._namespace import Namespace
from gptzoo.generation._others import described
from gptzoo.generation._processors import Tokens, process
from gptzoo.generation._sampling import draw

Array = Any  # of the namespace's framework

LEAST = -1e9  # what makes a running row the last one: as in Transformers, finite, so that differences are numbers
NONE_YET = -float("inf")  # the score of a finished row that is not there


@dataclass(frozen=True)
class Search:
    """What a program is compiled for; all else may change without compiling anew.

    Attributes:
        processors: the static half of what `gptzoo.generation._processors.active` returns.
        sampling: whether tokens are drawn.
        beams: K; 1: no beam search.
        early_stopping: True, False or "never".
    """

    processors: tuple[Any, ...]
    sampling: bool = False
    beams: int = 1
    early_stopping: bool | str = False

    @property
    def plain(self) -> bool:
        """Whether the largest logit is all that counts."""
        return not (self.processors or self.sampling or self.beams > 1)


class Beams(NamedTuple):
    """What beam search knows beside its running rows.

    Attributes:
        scores: (B, K) float64, of the running rows: the sum of the log probabilities of their new tokens.
        ids: (B, K, C), the best finished sequences, best first.
        lengths: (B, K), how many columns these fill.
        finished_scores: (B, K) float64, of these: sum over length to the power of the length penalty.
        finished: (B, K), which of these are there.
        open: (B, 1), whether a running row may still become better than the finished ones.
    """

    scores: Array
    ids: Array
    lengths: Array
    finished_scores: Array
    finished: Array
    open: Array


class State(NamedTuple):
    """Where a run is.

    Attributes:
        ids: (R, C), prompt and new tokens; what is behind `length` is not read.
        real: (R, C), false on the padding of the prompt.
        length: how many columns are filled.
        ended: (R,), which rows have ended.
        broken: the number of the new token, from 1, whose logits were no finite numbers; or the negative number of one
            that the processors left no choice for; 0: neither.
        beams: of beam search.
    """

    ids: Array
    real: Array
    length: Array
    ended: Array
    broken: Array
    beams: Beams | None = None


class Step(NamedTuple):
    """What a step has done.

    Attributes:
        tokens: (R,), the new tokens.
        parents: (R,), which row before each row goes on from, of beam search; None: from itself.
        scores: (R, V), what the tokens were chosen by.
    """

    state: State
    tokens: Array
    parents: Array | None
    scores: Array


@dataclass(frozen=True)
class Hooks:
    """A call's own functions, on the framework's arrays, with columns up to the last one filled.

    Attributes:
        processors: functions of ids (R, t) and scores (R, V) that return other scores.
        criteria: functions of ids (R, t) and scores that say which rows end, (R,), or whether all do.
    """

    processors: tuple[Callable[[Array, Array], Array], ...] = ()
    criteria: tuple[Callable[[Array, Array], Array], ...] = ()

    def stopped(self, xp: Namespace, ids: Array, scores: Array, ended: Array) -> Array:
        """Adds the rows that criteria end to those that have ended."""
        for criterion in self.criteria:
            ended = ended | _verdict(xp, criterion(ids, scores), ids.shape[0])
        return ended


def _verdict(xp: Namespace, said: Any, rows: int) -> Array:
    """Returns what a criterion says, as truth values: one, or one for each row.

    Raises:
        InputError: it says something else.
    """
    own = said if hasattr(said, "shape") and not isinstance(said, np.ndarray | np.generic) else np.asarray(said)
    if tuple(own.shape) not in ((), (rows,)) or not any(kind in str(own.dtype) for kind in ("bool", "int")):
        raise InputError(f"stopping_criteria: {described(said)} returned, expected True or False, or one for each row")
    own = xp.array(own) if isinstance(own, np.ndarray) else own
    return own if "bool" in str(own.dtype) else own != 0


NONE = Hooks()


def choose(
    xp: Namespace,
    search: Search,
    values: Mapping[str, Any],
    state: State,
    logits: Array,
    hooks: Hooks = NONE,
) -> Step:
    """Chooses the next token of each row.

    Args:
        values: arrays by name: `prompt`, the columns of the prompt; `limit`, the columns there may be; `ends` (E,),
            the ids that end a row; `pad`; `noise` (R, steps) for sampling; `length_penalty` for beams; `processors`,
            the other half of what `active` returns.
        logits: (R, V), of the next token.
    """
    number = state.length - values["prompt"] + 1
    state = _note_unsound(xp, state, logits, state.ended, number)
    scores = next_scores(xp, search, values, state, logits, hooks)
    return (_branch if search.beams > 1 else _append)(xp, search, values, state, scores, hooks)


def next_scores(
    xp: Namespace, search: Search, values: Mapping[str, Any], state: State, logits: Array, hooks: Hooks
) -> Array:  # (R, V)
    """Returns what tokens are chosen by; of beams these are log probabilities."""
    if search.plain and not hooks.processors:
        return logits
    scores = xp.float64(logits) + 0.0  # a call's own processor may write into its scores: not into the logits
    if search.beams > 1:
        scores = xp.log_softmax(scores)
    tokens = Tokens(state.ids, state.real, state.length, values["prompt"])
    return process(xp, search.processors, values["processors"], tokens, scores, hooks.processors)


def going(xp: Namespace, values: Mapping[str, Any], state: State) -> Array:
    """Whether there is another step, up to `values["until"]` columns."""
    return ~xp.all(state.ended) & (state.length < values["until"]) & (state.broken == 0)


def _append(
    xp: Namespace, search: Search, values: Mapping[str, Any], state: State, scores: Array, hooks: Hooks
) -> Step:
    """Takes the token of the highest score, or draws one."""
    if search.sampling:
        chosen = draw(xp, scores, xp.window(values["noise"], state.length - values["prompt"], 1)[:, 0])
    else:
        chosen = xp.argmax(scores)
    if not search.plain or hooks.processors:
        state = _note_unsound(xp, state, scores, state.ended, values["prompt"] - state.length - 1)
    tokens = xp.where(state.ended, values["pad"], xp.integer(chosen))  # (R,)
    ids = xp.put_column(state.ids, state.length, tokens)
    length = state.length + 1
    ended = state.ended | _ends(xp, values, tokens)
    step = Step(state._replace(ids=ids, length=length, ended=ended), tokens, None, scores)
    return stop(xp, step, hooks)


def _note_unsound(xp: Namespace, state: State, scores: Array, over: Array, number: Array) -> State:
    """Notes as `broken` that the largest score of a row that is not over is infinite, or that one is not a number."""
    unsound = (state.broken == 0) & xp.any(~(xp.sound(scores) | over))
    return state._replace(broken=xp.where(unsound, number, state.broken))


def stop(xp: Namespace, step: Step, hooks: Hooks) -> Step:
    """Ends the rows that a call's criteria end; not of beam search."""
    if not hooks.criteria:
        return step
    ids = xp.leading(step.state.ids, step.state.length)
    return step._replace(state=step.state._replace(ended=hooks.stopped(xp, ids, step.scores, step.state.ended)))


def _ends(xp: Namespace, values: Mapping[str, Any], tokens: Array) -> Array:
    return xp.any(tokens[..., None] == values["ends"])


def _branch(
    xp: Namespace, search: Search, values: Mapping[str, Any], state: State, scores: Array, hooks: Hooks
) -> Step:
    """Keeps the K best of all continuations of each prompt's rows, and the best of those that finish.

    As Transformers since 4.50: of M = K * max(2, 1 + E) candidates those that end cannot run on, and only the first K
    may finish.
    """
    beams = state.beams
    assert beams is not None
    n_beams, vocab = search.beams, scores.shape[-1]
    n_prompts = scores.shape[0] // n_beams
    n_candidates = n_beams * min(vocab, max(2, 1 + values["ends"].shape[0]))
    number = values["prompt"] - state.length - 1
    state = _note_unsound(xp, state, xp.reshape(scores, (n_prompts, -1)), ~beams.open[:, 0], number)
    sums = xp.reshape(scores, (n_prompts, n_beams, vocab)) + beams.scores[:, :, None]
    sums, index = xp.top_k(xp.reshape(sums, (n_prompts, n_beams * vocab)), n_candidates)  # (B, M), best first
    first_row = xp.arange(n_prompts)[:, None] * n_beams
    parents, tokens = xp.integer(index) // vocab + first_row, xp.integer(index) % vocab  # (B, M)
    flat = xp.reshape(xp.rows(state.ids, xp.reshape(parents, (-1,))), (n_prompts * n_candidates, -1))
    ids = xp.put_column(flat, state.length, xp.reshape(tokens, (-1,)))  # (B * M, C)
    length = state.length + 1
    ends = _ends(xp, values, tokens) | (length >= values["limit"])  # (B, M)
    if hooks.criteria:
        flat_ends = hooks.stopped(xp, xp.leading(ids, length), scores, xp.reshape(ends, (-1,)))
        ends = xp.reshape(flat_ends, (n_prompts, n_candidates))
    ids = xp.reshape(ids, (n_prompts, n_candidates, -1))
    beams = _finish(xp, search, values, beams, sums, ids, ends, length)
    running, order = xp.top_k(xp.where(ends, sums + LEAST, sums), n_beams)  # (B, K)
    beams = beams._replace(scores=running, open=beams.open & _may_improve(xp, search, values, beams, running, length))
    over = ~xp.any(beams.open[:, 0]) | xp.all(xp.all(ends))
    if search.early_stopping is True:
        over = over | xp.all(xp.all(beams.finished))
    tokens = xp.reshape(xp.take_along(tokens, order), (-1,))
    parents = xp.reshape(xp.take_along(parents, order), (-1,))
    state = state._replace(
        ids=xp.reshape(_sequences(xp, ids, order), (n_prompts * n_beams, -1)),
        real=xp.rows(state.real, parents),
        length=length,
        ended=state.ended | over,
        beams=beams,
    )
    return Step(state, tokens, parents, scores)


def _finish(
    xp: Namespace,
    search: Search,
    values: Mapping[str, Any],
    beams: Beams,
    sums: Array,
    ids: Array,
    ends: Array,
    length: Array,
) -> Beams:
    """Puts the candidates that end, if they are among the first K, among the finished sequences."""
    taken = ends & (xp.arange(sums.shape[-1]) < search.beams) & beams.open
    if search.early_stopping is True:
        taken = taken & ~xp.all(beams.finished)[:, None]
    new = xp.float64(length - values["prompt"])
    scores = xp.where(taken, sums / new ** values["length_penalty"], NONE_YET)  # (B, M)
    scores, order = xp.top_k(xp.concatenate((beams.finished_scores, scores)), search.beams)  # (B, K)
    lengths = xp.concatenate((beams.lengths, xp.where(taken, length, 0)))
    return beams._replace(
        ids=_sequences(xp, xp.concatenate((beams.ids, ids), axis=1), order),
        lengths=xp.take_along(lengths, order),
        finished_scores=scores,
        finished=xp.take_along(xp.concatenate((beams.finished, taken)), order),
    )


def _may_improve(
    xp: Namespace, search: Search, values: Mapping[str, Any], beams: Beams, running: Array, length: Array
) -> Array:  # (B, 1)
    """Whether the best running row may yet beat the worst finished one: a guess at its length tells its score."""
    penalty, now = values["length_penalty"], xp.float64(length - values["prompt"])
    if search.early_stopping == "never":
        now = xp.where(penalty > 0, xp.float64(values["limit"] - values["prompt"]), now)
    best = running[:, :1] / now**penalty
    worst = xp.where(beams.finished, -xp.max(-beams.finished_scores)[:, None], NONE_YET)  # (B, K)
    return xp.any(best > worst)[:, None]


def _sequences(xp: Namespace, ids: Array, order: Array) -> Array:  # (B, M, C), (B, K) -> (B, K, C)
    columns = ids.shape[-1]
    index = order[:, :, None] * columns + xp.arange(columns)  # (B, K, C)
    flat = xp.take_along(xp.reshape(ids, (ids.shape[0], -1)), xp.reshape(index, (ids.shape[0], -1)))
    return xp.reshape(flat, (ids.shape[0], order.shape[1], columns))
