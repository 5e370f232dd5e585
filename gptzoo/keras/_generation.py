"""Completion in Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from gptzoo.generation import Arguments, plan, take_prompt
from gptzoo.keras._calls import to_array, to_tensor
from gptzoo.keras._layers import ARRAYS, Tensor


class GenerationMixin:
    """Completion for models with a language model head."""

    def generate(
        self: Any,
        input_ids: Tensor | None = None,
        max_new_tokens: int | None = None,
        attention_mask: Tensor | None = None,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        *,
        max_length: int | None = None,
        do_sample: bool | None = False,
        temperature: float | None = 1.0,
        top_k: int | None = 50,
        top_p: float | None = 1.0,
        num_return_sequences: int | None = 1,
        seed: int | Sequence[int] | None = None,
        **others: Any,
    ) -> Tensor:
        """Completes each row by one token after the other: the most likely one, or one drawn by chance.

        The same seed draws the same tokens in PyTorch, Keras and Flax: see `gptzoo.generation.Sampler`.

        Args:
            input_ids: (B, T); pad shorter rows on the left. Transformers' name for it, `inputs`, is taken too.
            max_new_tokens: how many tokens to add at most; without it and `max_length` 20, or as many as there are
                positions for.
            attention_mask: (B, T), 0 on padding.
            eos_token_id: ends a row; None: the config's.
            pad_token_id: fills a row after its end; None: the config's, or else its first end token.
            max_length: how many tokens a row has at most, its prompt and padding included.
            do_sample: whether to draw tokens; if not, `temperature`, `top_k` and `top_p` must stay as they are.
            temperature: divides the logits: below 1 makes likely tokens likelier, above 1 unlikely ones.
            top_k: draws from the so many most likely tokens; 0 or None: from all.
            top_p: draws from the fewest tokens that have this probability together.
            num_return_sequences: R, how many completions of each row to draw.
            seed: of the drawing, from 0 to 2**64 - 1: a row's tokens depend on it and the row's number. A list has one
                for each row of `input_ids`, whose tokens then do not depend on the batch. None: another one each time;
                `gptzoo.set_seed` makes them the same in every run.
            others: arguments of Transformers' `generate` that are not implemented, at values that ask for nothing.

        Returns:
            (B * R, T + N), the prompt and N new tokens; the completions of a row follow each other.

        Raises:
            InputError: lists what is wrong with the arguments; or there are too few positions, or no such head.
        """
        input_ids = take_prompt(input_ids, others)
        input_ids, attention_mask = to_tensor(input_ids, "input_ids"), to_tensor(attention_mask, "attention_mask")
        arguments = Arguments(
            max_new_tokens=max_new_tokens,
            max_length=max_length,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            do_sample=do_sample,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            num_return_sequences=num_return_sequences,
            seed=seed,
            others=others,
        )
        todo = plan(self, ARRAYS, input_ids, attention_mask, arguments)
        # A narrower dtype might not hold the new tokens.
        input_ids = ops.cast(input_ids, "int64" if "64" in str(input_ids.dtype) else "int32")
        input_ids = ops.repeat(input_ids, todo.copies, axis=0)
        if attention_mask is not None:
            attention_mask = ops.repeat(attention_mask, todo.copies, axis=0)
        rows, total = input_ids.shape[0], input_ids.shape[1] + todo.new
        cache, tokens = self.init_cache(rows, total), input_ids
        ended = ops.zeros(rows, dtype="bool")
        for step in range(todo.new):
            output = self(
                tokens,
                past_key_values=cache,
                attention_mask=attention_mask,
                use_cache=True,
                logits_to_keep=1,
                return_dict=True,
            )
            # Without a gradient, or on PyTorch each step would hold on to all those before it.
            cache = keras.tree.map_structure(ops.stop_gradient, output.past_key_values)
            logits = output.logits[:, -1]
            if todo.sampler is None:
                token = ops.argmax(logits, axis=-1)  # (B,)
            else:
                token = ops.convert_to_tensor(todo.sampler.choose(to_array(logits), step))
            token = ops.cast(ops.where(ended, todo.pad, token), input_ids.dtype)
            ended = ended | ops.isin(token, ops.convert_to_tensor(todo.ends, dtype=token.dtype))
            tokens = token[:, None]
            input_ids = ops.concatenate((input_ids, tokens), axis=1)
            if ops.all(ended):
                break
        return input_ids
