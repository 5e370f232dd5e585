"""Completion in Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from gptzoo.cache import StaticCache
from gptzoo.generation import GenerateOutput, GenerationConfig, _engine, _search, generate, take_prompt
from gptzoo.generation._engine import Values
from gptzoo.generation._search import Search, State, Step
from gptzoo.keras._calls import to_array, to_tensor
from gptzoo.keras._layers import ARRAYS, Tensor
from gptzoo.keras._namespace import Namespace
from gptzoo.keras._programs import BACKEND, outside, programs_of, scope

XP = Namespace()


class GenerationMixin:
    """Completion for models with a language model head."""

    def generate(
        self: Any,
        input_ids: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        attention_mask: Tensor | None = None,
        logits_processor: Sequence[Callable[[Tensor, Tensor], Tensor]] | None = None,
        stopping_criteria: Sequence[Callable[[Tensor, Tensor], Any]] | None = None,
        streamer: Any = None,
        assistant_model: Any = None,
        tokenizer: Any = None,
        **options: Any,
    ) -> Tensor | GenerateOutput:
        """Completes each row by one token after the other.

        The same call gives the same tokens in PyTorch, Keras and Flax, also drawn ones for the same seed; see
        `gptzoo.generation.draw`. On TensorFlow and JAX a call is one compiled program for the prompt and one for all
        new tokens; these serve later calls of other lengths too, up to the next power of two. None is compiled where
        `model.run_eagerly` is true.

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
            options: those of `gptzoo.GenerationConfig`, by name: they win over `generation_config`.

        Returns:
            (B * num_return_sequences, T + N), the prompt and N new tokens; the completions of a row follow each other.
            A GenerateOutput with them, where `return_dict_in_generate` is true.

        Raises:
            InputError: lists what is wrong with the arguments; or there are too few positions, or no such head.
        """
        input_ids = to_tensor(take_prompt(input_ids, options), "input_ids")
        attention_mask = to_tensor(attention_mask, "attention_mask")
        with scope():
            output = generate(
                self,
                ARRAYS,
                engine_of,
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
        wide = "64" in outside(input_ids.dtype)  # a narrower dtype than int32 might not hold the new tokens
        dtypes = {"int32": "int64" if wide else "int32"}

        def finished(x: Tensor) -> Tensor:
            dtype = outside(x.dtype)
            return ops.cast(x, dtypes.get(dtype, dtype))

        return keras.tree.map_structure(finished, output)


class EagerEngine(_engine.Engine):
    """Steps as Keras takes them."""

    def __init__(self, model: Any):
        super().__init__(model, XP)

    def numpy(self, x: Tensor) -> np.ndarray:
        return to_array(x)


class Engine(EagerEngine):
    """Compiled steps, and a compiled loop over them; a cache that is given to one cannot be used again."""

    buckets = True

    def __init__(self, model: Any):
        super().__init__(model)
        self.run = programs_of(model).run

    def prefill(self, state: State, tokens: int, capacity: int) -> tuple[Tensor, StaticCache]:
        return self.run(prefill, (self.rounded(tokens, capacity), capacity), None, state)

    def advance(self, state: State, cache: StaticCache | None) -> tuple[Tensor, StaticCache | None]:
        return self.run(advance, (), cache, state)

    def verify(self, state: State, cache: StaticCache, width: int) -> tuple[Tensor, StaticCache]:
        return self.run(verify, (width,), cache, state)

    def choose(self, search: Search, values: Values, state: State, logits: Tensor) -> Step:
        return self.run(choose, (search,), None, values, state, logits)

    def reorder(self, cache: StaticCache | None, parents: Tensor | None) -> StaticCache | None:
        return cache if cache is None or parents is None else self.run(reorder, (), cache, parents)

    def loop(self, search: Search, values: Values, state: State, cache: StaticCache | None) -> State:
        return self.run(loop, (search,), cache, values, state)[0]


def engine_of(model: Any) -> _engine.Engine:
    return EagerEngine(model) if BACKEND == "torch" or model.run_eagerly else Engine(model)


def prefill(model: Any, width: int, capacity: int, _: None, state: State) -> tuple[Tensor, StaticCache]:
    return _engine.prefill(XP, model, state, model.init_cache(state.ids.shape[0], capacity), width)


def advance(model: Any, cache: StaticCache | None, state: State) -> tuple[Tensor, StaticCache | None]:
    return _engine.advance(XP, model, state, cache)


def verify(model: Any, width: int, cache: StaticCache, state: State) -> tuple[Tensor, StaticCache]:
    return _engine.verify(XP, model, state, cache, width)


def choose(model: Any, search: Search, _: None, values: Values, state: State, logits: Tensor) -> Step:
    return _search.choose(XP, search, values, state, logits)


def reorder(model: Any, cache: StaticCache, parents: Tensor) -> StaticCache | None:
    return _engine.reorder(XP, cache, parents)


def loop(
    model: Any, search: Search, cache: StaticCache | None, values: Values, state: State
) -> tuple[State, StaticCache | None]:
    """Goes on until nothing is `going` any more.

    Returns:
        The state; and the cache, because what is donated is used only for what is returned.
    """
    start = state, cache

    def packed(arrays: Sequence[Tensor]) -> Any:
        rest = iter(arrays)
        return keras.tree.map_structure(lambda x: None if x is None else next(rest), start)

    def arrays_of(*run: Any) -> list[Tensor]:  # without None, which TensorFlow's loop does not take
        return [x for x in keras.tree.flatten(run) if x is not None]

    def goes_on(*arrays: Tensor) -> Tensor:
        return _search.going(XP, values, packed(arrays)[0])

    def step(*arrays: Tensor) -> list[Tensor]:
        state, cache = packed(arrays)
        logits, cache = _engine.advance(XP, model, state, cache)
        chosen = _search.choose(XP, search, values, state, logits)
        return arrays_of(chosen.state, _engine.reorder(XP, cache, chosen.parents))

    return packed(ops.while_loop(goes_on, step, arrays_of(*start)))
