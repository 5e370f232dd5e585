"""Greedy completion in Keras."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from gptzoo.generation import check_prompt
from gptzoo.keras._calls import to_tensor
from gptzoo.keras._layers import ARRAYS, Tensor


class GenerationMixin:
    """Completion for models with a language model head."""

    def generate(
        self: Any,
        input_ids: Tensor,
        max_new_tokens: int = 20,
        attention_mask: Tensor | None = None,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
    ) -> Tensor:
        """Completes each row by the most likely token, one after the other.

        Args:
            input_ids: (B, T); pad shorter rows on the left.
            attention_mask: (B, T), 0 on padding.
            eos_token_id: ends a row; None: the config's.
            pad_token_id: fills a row after its end; None: the config's, or else its first end token.

        Returns:
            (B, T + N), the prompt and N <= max_new_tokens new tokens.

        Raises:
            InputError: lists what is wrong with the arguments; or there are too few positions, or no such head.
        """
        input_ids, attention_mask = to_tensor(input_ids, "input_ids"), to_tensor(attention_mask, "attention_mask")
        new, ends, pad = check_prompt(
            self, ARRAYS, input_ids, attention_mask, max_new_tokens, eos_token_id, pad_token_id
        )
        rows, total = input_ids.shape[0], input_ids.shape[1] + new
        # A narrower dtype might not hold the new tokens.
        input_ids = ops.cast(input_ids, "int64" if "64" in str(input_ids.dtype) else "int32")
        cache, tokens = self.init_cache(rows, total), input_ids
        ended = ops.zeros(rows, dtype="bool")
        for _ in range(new):
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
            token = ops.where(ended, pad, ops.argmax(output.logits[:, -1], axis=-1))  # (B,)
            token = ops.cast(token, input_ids.dtype)
            ended = ended | ops.isin(token, ops.convert_to_tensor(ends, dtype=token.dtype))
            tokens = token[:, None]
            input_ids = ops.concatenate((input_ids, tokens), axis=1)
            if ops.all(ended):
                break
        return input_ids
