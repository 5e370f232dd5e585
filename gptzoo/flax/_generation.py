"""Greedy completion in Flax NNX."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from gptzoo.cache import StaticCache
from gptzoo.flax._layers import ARRAYS
from gptzoo.flax._nnx import Static, functional
from gptzoo.generation import check_prompt


class GenerationMixin:
    """Completion for models with a language model head."""

    @functional
    def generate(
        self: Any,
        input_ids: Array,
        max_new_tokens: int = 20,
        attention_mask: Array | None = None,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int | None = None,
        *,
        params: Any = None,
    ) -> Array:
        """Completes each row by the most likely token, one after the other.

        Args:
            input_ids: (B, T); pad shorter rows on the left.
            attention_mask: (B, T), 0 on padding.
            eos_token_id: ends a row; None: the config's.
            pad_token_id: fills a row after its end; None: the config's, or else its first end token.
            params: weights to compute with in place of the model's own, nested like `model.params`.

        Returns:
            (B, T + N), the prompt and N <= max_new_tokens new tokens.

        Raises:
            InputError: lists what is wrong with the arguments; or there are too few positions, or no such head.
        """
        new, ends, pad = check_prompt(
            self, ARRAYS, input_ids, attention_mask, max_new_tokens, eos_token_id, pad_token_id
        )
        rows, total = input_ids.shape[0], input_ids.shape[1] + new
        cache, tokens = self.init_cache(rows, total), jnp.asarray(input_ids, jnp.int32)  # wide enough for new tokens
        ended, stops = jnp.zeros(rows, bool), jnp.asarray(ends, tokens.dtype)
        graphdef, state = nnx.split(self)
        config = Static(self.config)  # so that a change of it is seen
        found = [tokens]
        for _ in range(new):
            tokens, cache, ended = step(graphdef, config, state, tokens, cache, attention_mask, ended, stops, pad)
            found.append(tokens)
            if ended.all():
                break
        return jnp.concatenate(found, axis=1)


@partial(jax.jit, static_argnames=("graphdef", "config"), donate_argnames="cache")
def step(
    graphdef: Any,
    config: Static,
    state: Any,
    tokens: Array,
    cache: StaticCache,
    mask: Array | None,
    ended: Array,
    stops: Array,
    pad: int,
) -> tuple[Array, StaticCache, Array]:
    """Chooses the next token of each row; compiled once for the prompt and once for all single tokens."""
    model = nnx.merge(graphdef, state)
    output = model(
        tokens, past_key_values=cache, attention_mask=mask, use_cache=True, logits_to_keep=1, return_dict=True
    )
    token = jnp.where(ended, pad, output.logits[:, -1].argmax(-1).astype(tokens.dtype))  # (B,)
    return token[:, None], output.past_key_values, ended | jnp.isin(token, stops)
