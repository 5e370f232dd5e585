"""Scores of texts in Flax NNX."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gptzoo._runners import runner_of
from gptzoo.flax._layers import at_least_float32
from gptzoo.flax._nnx import Program, functional, split
from gptzoo.scoring import Score, Steps, score


class ScoringMixin:
    """Log probabilities of given texts, for models with a language model head."""

    @functional
    def score(
        self: Any,
        texts: Any,
        tokenizer: Any | str | Path = None,
        *,
        stride: int | None = None,
        max_length: int | None = None,
        batch_size: int = 1,
        add_bos: bool = False,
        params: Any = None,
    ) -> Score | list[Score]:
        """Computes the log probability of each token given those before it, and the text's perplexity.

        A text that is longer than `max_length` is read in windows. Each begins `stride` tokens after the one before,
        and scores the tokens that are new in it. So every token but the first is scored once, given all tokens before
        it, or at least `max_length - stride` of them. A smaller stride gives more of them, and takes longer. This is
        the sliding window of Hugging Face's guide on the perplexity of fixed-length models.

        Numbers agree between PyTorch, Keras and Flax as the logits do. Matrix products are in full float32.

        Args:
            texts: a text, token ids (T,), or a list of these; or rows of ids (B, T), without padding.
            tokenizer: of the model, or its path or name; not needed for ids.
            stride: from 1 to `max_length - 1`; None: half of `max_length`.
            max_length: of a window, from 2; None: the config's `n_positions`.
            batch_size: how many windows go through the model together.
            add_bos: whether the tokenizer's bos token, or else the config's, is put before each text, in place of
                special tokens that the tokenizer adds. Then all tokens of the text are scored.
            params: weights to compute with in place of the model's own, nested like `model.params`.

        Returns:
            The score of the text, or a list of scores.

        Raises:
            InputError: lists what is wrong with the arguments, or with the texts.
            GPTZooError: a log probability is infinite or not a number.
        """
        model = split(self)
        steps = Steps(partial(last_states, *model), partial(log_probs, *model))
        options: dict[str, Any] = {"stride": stride, "max_length": max_length}
        options |= {"batch_size": batch_size, "add_bos": add_bos}
        return score(runner_of("flax", self), steps, texts, tokenizer, **options)


@partial(jax.jit, static_argnames="program")
def last_states(program: Program, weights: Any, ids: Array) -> Array:  # (B, W) -> (B, W, E)
    states: Array = program.model(weights).transformer(ids, use_cache=False, return_dict=True).last_hidden_state
    return states


@partial(jax.jit, static_argnames="program")
def log_probs(
    program: Program, weights: Any, states: Array, places: Array, targets: Array
) -> Array:  # (B, W, E), 2 x (N,) -> (N,)
    states = states.reshape(-1, states.shape[-1])
    logits = at_least_float32(program.model(weights).lm_head(states[places]))  # (N, V)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=-1)[:, 0]
