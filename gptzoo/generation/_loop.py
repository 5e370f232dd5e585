"""A run of generate from its checked arguments to its result: what the loops of the frameworks have in common.

Shapes: B prompts, R rows, C columns, T tokens of the prompt, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gptzoo.errors import GPTZooError, InputError
from gptzoo.generation._arguments import Plan
from gptzoo.generation._engine import Engine
from gptzoo.generation._namespace import Namespace
from gptzoo.generation._output import GenerateOutput
from gptzoo.generation._processors import active
from gptzoo.generation._sampling import noise
from gptzoo.generation._search import LEAST, NONE_YET, Beams, Hooks, Search, State, Step, choose, stop
from gptzoo.generation._speculative import Drafter, drafter_of, speculate

Array = Any  # of the framework
Values = Mapping[str, Any]


@dataclass
class Observers:
    """Whom a run tells of each step.

    Attributes:
        put: takes the tokens of the step, (R,).
        scores, logits: of all steps so far; None: not wanted.
    """

    put: Callable[[np.ndarray], None] | None = None
    scores: list[Array] | None = None
    logits: list[Array] | None = None

    def __bool__(self) -> bool:
        return any(one is not None for one in (self.put, self.scores, self.logits))

    def see(self, engine: Engine, step: Step, logits: Array) -> None:
        if self.scores is not None:
            self.scores.append(step.scores)
        if self.logits is not None:
            self.logits.append(logits)
        if self.put is not None:
            self.put(engine.numpy(step.tokens))


def run(
    engine: Engine,
    todo: Plan,
    ids: np.ndarray,
    mask: np.ndarray,
    hooks: Hooks,
    put: Callable[[np.ndarray], None] | None = None,
    assistant: Engine | None = None,
) -> GenerateOutput:
    """Completes rows of ids.

    Args:
        ids: (B, T), the prompts.
        mask: (B, T), 0 on their padding.
        put: is told each step's tokens (R,).
        assistant: of a model that guesses tokens.

    Raises:
        GPTZooError: logits are infinite or not numbers.
    """
    options = todo.options
    wanted = bool(options.return_dict_in_generate)
    observers = Observers(
        put,
        [] if wanted and options.output_scores else None,
        [] if wanted and options.output_logits else None,
    )
    hooks = replace(hooks, criteria=(*hooks.criteria, *_deadline(options.max_time)))
    search, values, state = prepare(engine, todo, ids, mask)
    drafter = drafter_of(engine, assistant, options, search, values)
    state = _complete(engine, search, values, state, hooks, observers, options.use_cache, drafter)
    _check(int(state.broken))
    return _result(engine, todo, state, observers)


def prepare(engine: Engine, todo: Plan, ids: np.ndarray, mask: np.ndarray) -> tuple[Search, dict[str, Any], State]:
    """Returns what is searched for, and the state before the first step."""
    options, xp, config = todo.options, engine.xp, engine.model.config
    n_beams = options.num_beams or 1
    ids, mask = (np.repeat(x, todo.copies * n_beams, axis=0) for x in (ids, mask))
    rows, prompt = ids.shape
    limit = prompt + todo.new
    columns = engine.rounded(limit, config.n_positions if limit <= config.n_positions else 2 * limit)
    buffer, real = np.full((rows, columns), todo.pad), np.ones((rows, columns), bool)
    buffer[:, :prompt], real[:, :prompt] = ids, mask != 0
    static, numbers = active(options, todo.ends, config.vocab_size, todo.new)
    search = Search(static, todo.keys is not None, n_beams, options.early_stopping or False)
    values: dict[str, Any] = {
        "prompt": xp.array(prompt),
        "limit": xp.array(limit),
        "ends": xp.array(np.array(todo.ends, np.int64)),  # integers, if there are none too
        "pad": xp.array(todo.pad),
        "processors": {name: tuple(map(xp.array, arrays)) for name, arrays in numbers.items()},
    }
    if todo.keys is not None:
        values["noise"] = xp.array(noise(todo.keys, columns))
    state = State(
        ids=xp.array(buffer),
        real=xp.array(real),
        length=values["prompt"],
        ended=xp.array(np.zeros(rows, bool)),
        broken=xp.array(0),
    )
    if n_beams > 1:
        values["length_penalty"] = xp.array(np.float64(options.length_penalty))
        state = state._replace(beams=_beams(xp, rows // n_beams, n_beams, state.ids))
    return search, values, state


def _beams(xp: Namespace, prompts: int, n_beams: int, ids: Array) -> Beams:
    """Returns the beams of each prompt at the start: all are equal, so that only the first one counts."""
    scores = np.full((prompts, n_beams), LEAST)
    first = np.where(np.arange(n_beams) == 0, 0.0, scores)
    return Beams(
        scores=xp.array(first),
        ids=xp.reshape(ids, (prompts, n_beams, -1)),
        lengths=xp.array(np.zeros((prompts, n_beams), np.int64)),
        finished_scores=xp.array(np.full_like(scores, NONE_YET)),
        finished=xp.array(np.zeros((prompts, n_beams), bool)),
        open=xp.array(np.ones((prompts, 1), bool)),
    )


def _complete(
    engine: Engine,
    search: Search,
    values: dict[str, Any],
    state: State,
    hooks: Hooks,
    observers: Observers,
    use_cache: bool | None,
    drafter: Drafter | None,
) -> State:
    """Runs with a cache while there are positions, then, or without one, by the last n_positions columns anew."""
    xp, prompt, limit = engine.xp, int(values["prompt"]), int(values["limit"])
    positions = engine.model.config.n_positions
    by_steps = bool(hooks.processors or hooks.criteria or observers)

    def take(state: State, logits: Array) -> Step:
        step = _choose(engine, search, values, state, logits, hooks)
        observers.see(engine, step, logits)
        return step

    def go(until: int, state: State, cache: Any) -> State:
        now = values | {"until": xp.array(until)}
        if not engine.going(now, state):
            return state  # before a loop is compiled for nothing
        if drafter is not None and cache is not None:
            return speculate(engine, drafter, now, state, cache, take)
        end = None if by_steps else engine.loop(search, now, state, cache)
        return steps(engine, now, state, cache, take) if end is None else end

    if use_cache is not False and prompt <= positions:
        capacity = min(state.ids.shape[1], positions)
        logits, cache = engine.prefill(state, prompt, capacity)
        step = take(state, logits)
        state = go(min(limit, positions), step.state, engine.reorder(cache, step.parents))
    return go(limit, state, None)


def steps(engine: Engine, values: Values, state: State, cache: Any, take: Callable[[State, Array], Step]) -> State:
    """Goes on step by step until nothing is `going` any more.

    Args:
        take: chooses the next tokens by their logits (R, V), and tells those who want to know.
    """
    while engine.going(values, state):
        logits, cache = engine.advance(state, cache)
        step = take(state, logits)
        state, cache = step.state, engine.reorder(cache, step.parents)
    return state


def _choose(engine: Engine, search: Search, values: Values, state: State, logits: Array, hooks: Hooks) -> Step:
    """A call's own functions are not compiled, nor what they are in the midst of."""
    if hooks.processors or (hooks.criteria and search.beams > 1):
        return choose(engine.xp, search, values, state, logits, hooks)
    return stop(engine.xp, engine.choose(search, values, state, logits), hooks)


def _deadline(seconds: float | None) -> Sequence[Callable[[Array, Array], bool]]:
    if seconds is None:
        return []
    end = time.monotonic() + seconds
    return [lambda ids, scores: time.monotonic() >= end]


def _check(broken: int) -> None:
    if broken > 0:
        raise GPTZooError(f"generate: infinite logits or not numbers at new token {broken}, expected finite ones")
    if broken < 0:
        raise InputError(f"generate: no finite score is left for new token {-broken} of a row, expected one at least")


def _result(engine: Engine, todo: Plan, state: State, observers: Observers) -> GenerateOutput:
    """Cuts on the host: to compile what cuts arrays of each new shape would take longer."""
    ids, length, scores = engine.numpy(state.ids), int(state.length), None
    if state.beams is not None:
        wanted = todo.options.num_return_sequences or 1
        beams = state.beams
        length = int(engine.numpy(beams.lengths)[:, :wanted].max())
        ids = engine.numpy(beams.ids)[:, :wanted].reshape(-1, ids.shape[1])
        scores = engine.xp.array(engine.numpy(beams.finished_scores)[:, :wanted].reshape(-1))
    return GenerateOutput(
        sequences=engine.xp.array(ids[:, :length]),
        sequences_scores=scores if observers.scores is not None else None,
        scores=None if observers.scores is None else tuple(observers.scores),
        logits=None if observers.logits is None else tuple(observers.logits),
    )
