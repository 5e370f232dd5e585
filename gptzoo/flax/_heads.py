"""Heads in Flax NNX: a head is a class over a backbone, and each family names its own.

Shapes: B batch, T new tokens, V vocabulary, E n_embd.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from gptzoo.config import GPT2Config, GPTConfig, OpenAIGPTConfig
from gptzoo.flax._backbone import Backbone
from gptzoo.flax._gpt import OpenAIGPTModel
from gptzoo.flax._gpt2 import GPT2Model
from gptzoo.flax._layers import Linear, at_least_float32
from gptzoo.flax._nnx import Tied, functional
from gptzoo.flax._pretrained import PreTrainedModel
from gptzoo.inputs import check_labels
from gptzoo.outputs import CausalLMOutput


class LMHead(PreTrainedModel):
    """A backbone with a language model head: logits of the next token."""

    head = "LMHeadModel"
    backbone_class: type[Backbone]
    lm_head: Any = Tied("lm_head.weight")

    def __init__(
        self,
        config: GPTConfig,
        seed: int | None = 0,
        *,
        rngs: nnx.Rngs | None = None,
        dtype: Any = None,
        param_dtype: Any = None,
    ):
        super().__init__(config, seed, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.transformer = self.backbone_class(config, seed=None, dtype=dtype)
        if not config.tie_word_embeddings:  # otherwise the class attribute stands in for it
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.init_weights(seed, rngs, param_dtype)

    @functional
    def __call__(
        self,
        input_ids: Array | None = None,
        past_key_values: Any = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        labels: Array | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Array = 0,
        *,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool = False,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Computes the logits of each next token, and the loss where labels are given.

        Args:
            labels: (B, T), the tokens themselves: they are shifted here. -100 is not counted.
            logits_to_keep: return the logits of the last so many tokens only, 0: of all; or of the tokens that a
                1-D array of indices names. The loss is over all tokens in any case.
            Others: as the backbone's.

        Raises:
            InputError: lists every argument of a wrong shape.
        """
        check_labels(labels, input_ids, inputs_embeds)
        output = self.transformer(
            input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            dropout_rng=self.dropout_rngs(dropout_rng, train),
            train=train,
        )
        x = output.pop("last_hidden_state")
        loss = None if labels is None else next_token_loss(self.lm_head(x), labels)
        logits = self.lm_head(keep(x, logits_to_keep))
        output = CausalLMOutput(output, loss=loss, logits=logits)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class GPT2LMHeadModel(LMHead):
    """GPT-2 with a language model head, tied to the token embedding unless the config says otherwise."""

    config_class = GPT2Config
    backbone_class = GPT2Model


class OpenAIGPTLMHeadModel(LMHead):
    """GPT with a language model head, tied to the token embedding unless the config says otherwise."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel


def keep(x: Array, wanted: int | Array) -> Array:  # (..., T, E) -> (..., K, E)
    """Selects the last `wanted` tokens (0: all), or those that an array of indices names."""
    if isinstance(wanted, int):
        return x[..., -wanted:, :] if wanted else x
    return x.take(jnp.asarray(wanted), axis=-2)  # NaN for an index outside, where x[..., wanted, :] gives a neighbour


def next_token_loss(logits: Array, labels: Array) -> Array:  # (..., T, V), (..., T) -> ()
    """Mean cross-entropy of token t + 1 given the logits of token t, over labels other than -100."""
    return mean_cross_entropy(logits[..., :-1, :], labels[..., 1:])


def mean_cross_entropy(logits: Array, labels: Array) -> Array:  # (..., V), (...) -> ()
    """Mean over labels other than -100, in float32 at least; 0 with a zero gradient if there are none."""
    log_p = jax.nn.log_softmax(at_least_float32(logits))
    counted = labels != -100
    # Compiled code cannot raise: a label outside the vocabulary gives NaN. So must -1, which counts from the end.
    index = jnp.where(counted, jnp.where(labels < 0, logits.shape[-1], labels), 0)
    log_p = jnp.take_along_axis(log_p, index[..., None], axis=-1, mode="fill", fill_value=jnp.nan).squeeze(-1)
    return -jnp.where(counted, log_p, 0).sum() / counted.sum().clip(min=1)
