"""Completion in Flax NNX."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from gptzoo.cache import StaticCache
from gptzoo.flax._layers import ARRAYS
from gptzoo.flax._nnx import Static, functional
from gptzoo.generation import Arguments, plan, take_prompt


class GenerationMixin:
    """Completion for models with a language model head."""

    @functional
    def generate(
        self: Any,
        input_ids: Array | None = None,
        max_new_tokens: int | None = None,
        attention_mask: Array | None = None,
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
        params: Any = None,
        **others: Any,
    ) -> Array:
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
            params: weights to compute with in place of the model's own, nested like `model.params`.
            others: arguments of Transformers' `generate` that are not implemented, at values that ask for nothing.

        Returns:
            (B * R, T + N), the prompt and N new tokens; the completions of a row follow each other.

        Raises:
            InputError: lists what is wrong with the arguments; or there are too few positions, or no such head.
        """
        input_ids = take_prompt(input_ids, others)
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
        tokens = jnp.repeat(jnp.asarray(input_ids, jnp.int32), todo.copies, axis=0)  # wide enough for new tokens
        if attention_mask is not None:
            attention_mask = jnp.repeat(jnp.asarray(attention_mask), todo.copies, axis=0)
        rows, total = tokens.shape[0], tokens.shape[1] + todo.new
        cache, ended = self.init_cache(rows, total), jnp.zeros(rows, bool)
        stops = jnp.asarray(todo.ends, tokens.dtype)
        graphdef, state = nnx.split(self)
        config = Static(self.config)  # so that a change of it is seen
        found = [tokens]
        for step in range(todo.new):
            logits, cache = next_logits(graphdef, config, state, tokens, cache, attention_mask)
            if todo.sampler is None:
                token = logits.argmax(-1)  # (B,)
            else:
                token = jnp.asarray(todo.sampler.choose(np.asarray(logits), step), tokens.dtype)
            tokens, ended = fill(token, ended, stops, todo.pad)
            found.append(tokens)
            if ended.all():
                break
        return jnp.concatenate(found, axis=1)


@partial(jax.jit, static_argnames=("graphdef", "config"), donate_argnames="cache")
def next_logits(
    graphdef: Any, config: Static, state: Any, tokens: Array, cache: StaticCache, mask: Array | None
) -> tuple[Array, StaticCache]:
    """Returns the logits of each row's next token; compiled once for the prompt and once for all single tokens."""
    model = nnx.merge(graphdef, state)
    output = model(
        tokens, past_key_values=cache, attention_mask=mask, use_cache=True, logits_to_keep=1, return_dict=True
    )
    return output.logits[:, -1], output.past_key_values


@jax.jit
def fill(token: Array, ended: Array, stops: Array, pad: int) -> tuple[Array, Array]:
    """Puts the pad token into rows that have ended; returns the tokens, (B, 1), and which rows have ended now."""
    token = jnp.where(ended, pad, token.astype(stops.dtype))
    return token[:, None], ended | jnp.isin(token, stops)
