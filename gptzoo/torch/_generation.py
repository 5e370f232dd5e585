"""Completion in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptzoo.cache import OwnedCache, StaticCache
from gptzoo.generation import GenerateOutput, GenerationConfig, _engine, generate
from gptzoo.generation._search import State
from gptzoo.torch._layers import ARRAYS, evaluating
from gptzoo.torch._namespace import Namespace

MOST_PROGRAMS = 1000  # of a compiled model; PyTorch's limit, 8, is for what is compiled again and again


class GenerationMixin:
    """Completion for models with a language model head."""

    @torch.no_grad()
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
        `gptzoo.generation.draw`. Nothing drops out, also in training. After `model.compile()` each step is a compiled
        program.

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
        with torch.inference_mode(), evaluating(self, assistant_model), compiling(self):
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
        return outside(output)


@contextmanager
def compiling(model: Any) -> Iterator[None]:
    """Lets PyTorch compile a program for each bucket, of fewer kernels: sums of residuals are kept, not repeated."""
    if model._compiled_call_impl is None:  # its compilers load slowly
        yield
        return
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    with dynamo.patch(recompile_limit=MOST_PROGRAMS), inductor.patch(realize_reads_threshold=1):
        yield


def outside(output: Any) -> Any:
    """Copies tensors that were made in inference mode: only copies can take part in training."""
    if isinstance(output, GenerateOutput):
        return GenerateOutput({name: outside(value) for name, value in output.items()})
    return tuple(map(outside, output)) if isinstance(output, tuple) else output.clone()


class Engine(_engine.Engine):
    """Steps that are compiled where the model is."""

    def __init__(self, model: Any):
        super().__init__(model, Namespace(model.device))
        self.buckets = model._compiled_call_impl is not None

    def prefill(self, state: State, tokens: int, capacity: int) -> tuple[Tensor, StaticCache]:
        """Not compiled: a program would take as long to compile as one for steps, and be hardly faster for many tokens.

        PyTorch's own switch for that would be one for all threads.
        """
        cache = self.empty_cache(state.ids.shape[0], capacity)
        return _engine.prefill(self.xp, self.model, state, cache, tokens, self.model._call_impl)

    def empty_cache(self, rows: int, capacity: int) -> StaticCache:
        return OwnedCache(*super().empty_cache(rows, capacity))

    def numpy(self, x: Tensor) -> np.ndarray:
        array: np.ndarray = x.cpu().numpy()
        return array
