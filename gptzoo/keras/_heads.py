"""Heads in Keras: a head is a class over a backbone, and each family names its own.

Shapes: B batch, T new tokens, V vocabulary, E n_embd.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from gptzoo.config import GPT2Config, GPTConfig, OpenAIGPTConfig
from gptzoo.inputs import check_labels
from gptzoo.keras._backbone import Backbone
from gptzoo.keras._gpt import OpenAIGPTModel
from gptzoo.keras._gpt2 import GPT2Model
from gptzoo.keras._layers import Linear, Tensor, at_least_float32, inside
from gptzoo.keras._pretrained import PreTrainedModel
from gptzoo.outputs import CausalLMOutput


class LMHead(PreTrainedModel):
    """A backbone with a language model head: logits of the next token."""

    head = "LMHeadModel"
    backbone_class: type[Backbone]

    def __init__(self, config: GPTConfig, seed: int | None = 0, **kwargs: Any):
        super().__init__(config, seed, **kwargs)
        with inside(self):
            self.transformer = self.backbone_class(config, seed=None, name="transformer")
            tied = config.tie_word_embeddings
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, tied=tied, name="lm_head")
        self.tie_weights()
        self.init_weights(seed)

    def call(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        training: bool | None = None,
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
            training=training,
        )
        x = output.pop("last_hidden_state")
        loss = None if labels is None else next_token_loss(self.lm_head(x), labels)
        logits = self.lm_head(keep(x, logits_to_keep))
        output = CausalLMOutput(output, loss=loss, logits=logits)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


@keras.saving.register_keras_serializable("gptzoo")
class GPT2LMHeadModel(LMHead):
    """GPT-2 with a language model head, tied to the token embedding unless the config says otherwise."""

    config_class = GPT2Config
    backbone_class = GPT2Model


@keras.saving.register_keras_serializable("gptzoo")
class OpenAIGPTLMHeadModel(LMHead):
    """GPT with a language model head, tied to the token embedding unless the config says otherwise."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel


def keep(x: Tensor, wanted: int | Tensor) -> Tensor:  # (..., T, E) -> (..., K, E)
    """Selects the last `wanted` tokens (0: all), or those that an array of indices names."""
    if isinstance(wanted, int):
        return x[..., -wanted:, :] if wanted else x
    return ops.take(x, wanted, axis=-2)


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:  # (..., T, V), (..., T) -> ()
    """Mean cross-entropy of token t + 1 given the logits of token t, over labels other than -100."""
    return mean_cross_entropy(logits[..., :-1, :], labels[..., 1:])


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:  # (..., V), (...) -> ()
    """Mean over labels other than -100, in float32 at least; 0 with a zero gradient if there are none."""
    log_p, labels = ops.log_softmax(at_least_float32(logits), axis=-1), ops.cast(labels, "int32")
    counted = labels != -100
    # Compiled code cannot raise: any other label outside the vocabulary gives NaN.
    inside = (labels >= 0) & (labels < logits.shape[-1])
    picked = ops.take_along_axis(log_p, ops.where(inside, labels, 0)[..., None], axis=-1)[..., 0]
    picked = ops.where(counted, ops.where(inside, picked, float("nan")), 0.0)
    return -ops.sum(picked) / ops.cast(ops.maximum(ops.sum(ops.cast(counted, "int32")), 1), log_p.dtype)
