"""Greedy completion in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gptzoo.generation import check_prompt
from gptzoo.torch._layers import ARRAYS


class GenerationMixin:
    """Completion for models with a language model head."""

    @torch.no_grad()
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
        new, ends, pad = check_prompt(
            self, ARRAYS, input_ids, attention_mask, max_new_tokens, eos_token_id, pad_token_id
        )
        rows, total = input_ids.shape[0], input_ids.shape[1] + new
        input_ids = input_ids.long()  # a narrower dtype might not hold the new tokens
        cache, tokens = self.init_cache(rows, total), input_ids
        ended = torch.zeros(rows, dtype=torch.bool, device=input_ids.device)
        for _ in range(new):
            output = self(
                tokens,
                past_key_values=cache,
                attention_mask=attention_mask,
                use_cache=True,
                logits_to_keep=1,
                return_dict=True,
            )
            cache = output.past_key_values
            token = output.logits[:, -1].argmax(-1).masked_fill(ended, pad)  # (B,)
            ended = ended | torch.isin(token, torch.tensor(ends, device=token.device))
            tokens = token[:, None]
            input_ids = torch.cat((input_ids, tokens), dim=1)
            if ended.all():
                break
        return input_ids
