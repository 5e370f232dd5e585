"""Completion in Flax NNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from gptzoo.cache import StaticCache
from gptzoo.flax._layers import ARRAYS
from gptzoo.flax._namespace import Namespace
from gptzoo.flax._nnx import Program, functional, split
from gptzoo.generation import GenerateOutput, GenerationConfig, _engine, _search, generate
from gptzoo.generation._engine import Values
from gptzoo.generation._search import Search, State, Step

XP = Namespace()


class GenerationMixin:
    """Completion for models with a language model head."""

    @functional
    def generate(
        self: Any,
        input_ids: Array | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        attention_mask: Array | None = None,
        logits_processor: Sequence[Callable[[Array, Array], Array]] | None = None,
        stopping_criteria: Sequence[Callable[[Array, Array], Any]] | None = None,
        streamer: Any = None,
        assistant_model: Any = None,
        tokenizer: Any = None,
        params: Any = None,
        **options: Any,
    ) -> Array | GenerateOutput:
        """Completes each row by one token after the other.

        The same call gives the same tokens in PyTorch, Keras and Flax, also drawn ones for the same seed; see
        `gptzoo.generation.draw`. A call is one compiled program for the prompt and one for all new tokens; these serve
        later calls of other lengths too, up to the next power of two.

        Args:
            input_ids: (B, T), shorter rows padded on either side. Transformers' name for it, `inputs`, is taken too.
            generation_config: options in place of `model.generation_config`.
            attention_mask: (B, T), 0 on padding.
            logits_processor: functions of the ids so far (R, t) and the scores of the next (R, V), which return other
                scores, in float64; R is B times the beams, or times the completions drawn of each row.
            stopping_criteria: functions of the same, after each token, which return whether all rows end, or which,
                (R,).
            streamer: is told the prompt and each token; see `gptzoo.TextStreamer`.
            assistant_model: a smaller model, whose guesses are checked several at a time: the same tokens, sooner.
            tokenizer: for `stop_strings`.
            params: weights to compute with in place of the model's own, nested like `model.params`.
            options: those of `gptzoo.GenerationConfig`, by name: they win over `generation_config`.

        Returns:
            (B * num_return_sequences, T + N), the prompt and N new tokens; the completions of a row follow each other.
            A GenerateOutput with them, where `return_dict_in_generate` is true.

        Raises:
            InputError: lists what is wrong with the arguments; or there are too few positions, or no such head.
        """
        with jax.enable_x64(True):  # for scores in float64; the model computes in its own dtype
            output = generate(
                self,
                ARRAYS,
                Engine,
                input_ids,
                generation_config,
                attention_mask,
                logits_processor=logits_processor,
                stopping_criteria=stopping_criteria,
                streamer=streamer,
                assistant_model=assistant_model,
                tokenizer=tokenizer,
                options=options,
            )
        return jax.tree.map(lambda x: x.astype(jax.dtypes.canonicalize_dtype(x.dtype)), output)


class Engine(_engine.Engine):
    """Compiled steps, and a compiled loop over them; a cache that is given to one cannot be used again."""

    buckets = True

    def __init__(self, model: Any):
        super().__init__(model, XP)
        self.program, self.weights = split(model)

    def prefill(self, state: State, tokens: int, capacity: int) -> tuple[Array, StaticCache]:
        return prefill(self.program, self.rounded(tokens, capacity), capacity, self.weights, state)

    def advance(self, state: State, cache: StaticCache | None) -> tuple[Array, StaticCache | None]:
        return advance(self.program, self.weights, state, cache)

    def verify(self, state: State, cache: StaticCache, width: int) -> tuple[Array, StaticCache]:
        return verify(self.program, width, self.weights, state, cache)

    def choose(self, search: Search, values: Values, state: State, logits: Array) -> Step:
        return choose(search, values, state, logits)

    def reorder(self, cache: StaticCache | None, parents: Array | None) -> StaticCache | None:
        return cache if cache is None or parents is None else reorder(cache, parents)

    def loop(self, search: Search, values: Values, state: State, cache: StaticCache | None) -> State:
        return loop(self.program, search, self.weights, values, state, cache)[0]

    def numpy(self, x: Array) -> np.ndarray:
        return np.asarray(x)


@partial(jax.jit, static_argnames=("program", "width", "capacity"))
def prefill(program: Program, width: int, capacity: int, weights: Any, state: State) -> tuple[Array, StaticCache]:
    model = program.model(weights)
    return _engine.prefill(XP, model, state, model.init_cache(state.ids.shape[0], capacity), width)


@partial(jax.jit, static_argnames="program", donate_argnames="cache")
def advance(
    program: Program, weights: Any, state: State, cache: StaticCache | None
) -> tuple[Array, StaticCache | None]:
    return _engine.advance(XP, program.model(weights), state, cache)


@partial(jax.jit, static_argnames=("program", "width"), donate_argnames="cache")
def verify(program: Program, width: int, weights: Any, state: State, cache: StaticCache) -> tuple[Array, StaticCache]:
    return _engine.verify(XP, program.model(weights), state, cache, width)


@partial(jax.jit, static_argnames="search")
def choose(search: Search, values: Values, state: State, logits: Array) -> Step:
    return _search.choose(XP, search, values, state, logits)


@partial(jax.jit, donate_argnames="cache")
def reorder(cache: StaticCache, parents: Array) -> StaticCache | None:
    return _engine.reorder(XP, cache, parents)


@partial(jax.jit, static_argnames=("program", "search"), donate_argnames="cache")
def loop(
    program: Program, search: Search, weights: Any, values: Values, state: State, cache: StaticCache | None
) -> tuple[State, StaticCache | None]:
    """Goes on until nothing is `going` any more.

    Returns:
        The state; and the cache, because what is donated is used only for what is returned.
    """
    model = program.model(weights)

    def step(state: State, cache: StaticCache | None) -> tuple[State, StaticCache | None]:
        logits, cache = _engine.advance(XP, model, state, cache)
        done = _search.choose(XP, search, values, state, logits)
        return done.state, _engine.reorder(XP, cache, done.parents)

    start: tuple[State, StaticCache | None] = (state, cache)
    return jax.lax.while_loop(lambda run: _search.going(XP, values, run[0]), lambda run: step(*run), start)
