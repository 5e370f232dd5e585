"""Speculative decoding: guesses of the next tokens, which the model checks several at a time (Leviathan et al. 2023).

Unlike there, a guess holds where it is what the model itself takes, or draws with the noise of that step. So the ids
are those of a run without guesses, but where two are so likely that the rounding decides: several tokens at once are
rounded otherwise than one after the other. Only single rows have guesses.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gptzoo._runners import framework_of
from gptzoo.errors import InputError
from gptzoo.generation._config import GenerationConfig
from gptzoo.generation._engine import Engine, Values
from gptzoo.generation._search import Search, State, Step
from gptzoo.weights import LM

Array = Any  # of the framework

NOTHING = np.zeros(0, np.int64)


class Drafter(Protocol):
    """What guesses tokens.

    Attributes:
        most: how many at a time, at most.
    """

    most: int

    def propose(self, state: State, n: int) -> np.ndarray:
        """Returns up to n ids, n from 1 to `most`, that may follow the columns filled so far: at least two."""
        ...


def speculate(
    engine: Engine,
    drafter: Drafter,
    values: Values,
    state: State,
    cache: Any,
    take: Callable[[State, Array], Step],
) -> State:
    """Goes on until nothing is `going` any more, each time by the guesses that hold and one token.

    Args:
        cache: of all columns but the last one filled.
        take: chooses the next token by its logits (1, V), and tells those who want to know.
    """
    width = min(drafter.most + 1, state.ids.shape[1], engine.model.config.n_positions)
    while engine.going(values, state):
        most = min(width - 1, int(values["until"]) - int(state.length) - 1)
        guesses = drafter.propose(state, most) if most > 0 else NOTHING
        rows, cache = read(engine, state, cache, guesses, width)
        for logits, guess in zip(rows, [*guesses, None], strict=True):
            step = take(state, logits)
            state = step.state
            if engine.numpy(step.tokens)[0] != guess or not engine.going(values, state):
                break
    return state


def read(engine: Engine, state: State, cache: Any, guesses: np.ndarray, width: int) -> tuple[Iterator[Array], Any]:
    """Reads the last token and the guesses behind it.

    As each other width would be compiled anew, it is always `width` columns: beside fewer guesses also some that have
    been read before, or, at the beginning of a row, some behind the guesses, which the next reading overwrites.

    Returns:
        The logits (1, V) behind each, and the cache.
    """
    if not len(guesses):
        logits, cache = engine.advance(state, cache)
        return iter([logits]), cache
    xp, length, filled = engine.xp, int(state.length), int(state.length) + len(guesses)
    ids = engine.numpy(state.ids).copy()
    ids[0, length:filled] = guesses
    end = max(filled, width)
    state = state._replace(ids=xp.array(ids), length=xp.array(end))
    logits, cache = engine.verify(state, cache, width)
    return (logits[:, column - end] for column in range(length - 1, filled)), cache


class ModelDrafter:
    """Guesses what a smaller model takes, or draws with the same noise; processors of the call's own do not see it.

    Its positions end where they end: behind them it guesses nothing.
    """

    def __init__(self, engine: Engine, search: Search, values: Values, most: int):
        self.engine, self.search, self.values, self.most = engine, search, values, most
        self.cache: Any = None

    def propose(self, state: State, n: int) -> np.ndarray:
        engine, capacity = self.engine, min(state.ids.shape[1], self.engine.model.config.n_positions)
        n = min(n, capacity + 1 - int(state.length))  # the last guess is not read
        if n < 1:
            return NOTHING
        logits = self._catch_up(state, capacity)
        guesses: list[int] = []
        while True:
            step = engine.choose(self.search, self.values, state, logits)
            state = step.state
            guesses.append(int(engine.numpy(step.tokens)[0]))
            if len(guesses) == n or engine.numpy(state.ended)[0]:
                return np.array(guesses)
            logits, self.cache = engine.advance(state, self.cache)

    def _catch_up(self, state: State, capacity: int) -> Array:  # (1, V)
        """Reads what was added since the last guesses: of these the last, if it held, and one token of the model's."""
        engine, length = self.engine, int(state.length)
        if self.cache is None:
            logits, self.cache = engine.prefill(state, length, capacity)
            return logits
        logits, self.cache = engine.verify(state, self.cache, 2)
        return logits[:, -1]


class PromptLookup:
    """Guesses what followed the last tokens when they stood in the row before.

    It looks for as many of the last tokens as there are, `longest` at most, and takes their last place. Where less than
    n tokens followed, they are repeated: a text that runs in a circle goes on doing so.
    """

    def __init__(self, engine: Engine, most: int, longest: int):
        self.engine, self.most, self.longest = engine, most, longest

    def propose(self, state: State, n: int) -> np.ndarray:
        length = int(state.length)
        ids, real = (self.engine.numpy(x)[0, :length] for x in (state.ids, state.real))
        ids = ids[real]  # padding is no token
        for size in range(min(self.longest, len(ids) - 1), 0, -1):
            places = np.flatnonzero((sliding_window_view(ids[:-1], size) == ids[-size:]).all(axis=-1))
            if len(places):
                return np.resize(ids[places[-1] + size :], n)
        return NOTHING


def drafter_of(
    engine: Engine, assistant: Engine | None, options: GenerationConfig, search: Search, values: Values
) -> Drafter | None:
    """Returns what guesses tokens in a call, if anything does."""
    if assistant is not None:
        return ModelDrafter(assistant, search, values, options.num_assistant_tokens or 0)
    if options.prompt_lookup_num_tokens:
        return PromptLookup(engine, options.prompt_lookup_num_tokens, options.max_matching_ngram_size or 0)
    return None


def assistant_problems(model: Any, assistant: Any) -> Iterator[str]:
    """Yields what is wrong with an assistant of a model."""
    wanted = framework_of(model)
    try:
        found = framework_of(assistant)
    except InputError:
        yield f"assistant_model: a {type(assistant).__name__}, expected a model of gptzoo.{wanted}"
        return
    if found != wanted:
        yield f"assistant_model: a model of gptzoo.{found}, expected one of gptzoo.{wanted}"
    ours, its = (getattr(one, "device", None) for one in (model, assistant))  # only in PyTorch a model has one
    if found == wanted and its != ours:
        yield f"assistant_model: on {its}, expected {ours}, the model's device"
    if assistant.head not in LM:
        yield f"assistant_model: a {type(assistant).__name__}, expected a language model head"
    if assistant.config.vocab_size != model.config.vocab_size:
        yield f"assistant_model: vocab_size {assistant.config.vocab_size}, expected {model.config.vocab_size}"
