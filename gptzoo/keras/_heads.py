"""Heads in Keras: a head is a class over a backbone, and each family names its own.

Shapes: B batch, C choices (where given, before T), T new tokens, E n_embd, L labels.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from gptzoo.config import GPT2Config, GPTConfig, OpenAIGPTConfig
from gptzoo.keras._backbone import Backbone, read_past
from gptzoo.keras._gpt import OpenAIGPTModel
from gptzoo.keras._gpt2 import GPT2Model
from gptzoo.keras._layers import ACTIVATIONS, Linear, Tensor, inside
from gptzoo.keras._losses import mean_cross_entropy, next_token_loss, problem_loss, span_loss
from gptzoo.keras._pooling import keep, pool, real_tokens
from gptzoo.keras._pretrained import PreTrainedModel
from gptzoo.keras._scoring import ScoringMixin
from gptzoo.labels import problem_type
from gptzoo.outputs import (
    CausalLMOutput,
    DoubleHeadsModelOutput,
    QuestionAnsweringOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)


class Head(PreTrainedModel):
    """A backbone, on which each head puts its own layers."""

    backbone_class: type[Backbone]

    def __init__(self, config: GPTConfig, seed: int | None = 0, **kwargs: Any):
        super().__init__(config, seed, **kwargs)
        with inside(self):
            self.transformer = self.backbone_class(config, seed=None, dtype=self.dtype_policy, name="transformer")
        self.transformer.in_head = True


class LMHead(Head, ScoringMixin):
    """A backbone with a language model head: logits of the next token."""

    head = "LMHeadModel"

    def __init__(self, config: GPTConfig, seed: int | None = 0, **kwargs: Any):
        super().__init__(config, seed, **kwargs)
        with inside(self):
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
        logits_to_keep: int | Tensor | None = 0,
        training: bool | None = None,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Computes the logits of each next token, and the loss where labels are given.

        Args:
            labels: (B, T), the tokens themselves: they are shifted here. -100 is not counted.
            logits_to_keep: return the logits of the last so many tokens only, 0 or None: of all; or of the tokens
                that a 1-D array of indices names. The loss is over all tokens in any case.
            Others: as the backbone's.

        Raises:
            InputError: lists every argument of a wrong shape or value.
        """
        inputs = {
            "input_ids": input_ids,
            "past_key_values": read_past(self.config, past_key_values),
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "inputs_embeds": inputs_embeds,
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
        }
        self.check_call(inputs, labels=labels, logits_to_keep=logits_to_keep)
        output = self.transformer(
            **inputs,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
        )
        x = output.pop("last_hidden_state")
        loss, logits = score_tokens(self.lm_head, x, labels, logits_to_keep)
        return self.result(CausalLMOutput(output, loss=loss, logits=logits), return_dict)


class DoubleHeads(Head, ScoringMixin):
    """A backbone with a language model head and a score of each choice (Radford et al. 2018, sec. 3.3)."""

    head = "DoubleHeadsModel"

    def __init__(self, config: GPTConfig, seed: int | None = 0, **kwargs: Any):
        super().__init__(config, seed, **kwargs)
        with inside(self):
            tied = config.tie_word_embeddings
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, tied=tied, name="lm_head")
            self.multiple_choice_head = Summary(config, name="multiple_choice_head")
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
        mc_token_ids: Tensor | None = None,
        labels: Tensor | None = None,
        mc_labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor | None = 0,
        training: bool | None = None,
    ) -> DoubleHeadsModelOutput | tuple[Any, ...]:
        """Computes the logits of each next token and a score of each choice, and a loss of each where labels are given.

        Args:
            input_ids: (B, C, T); or (B, T), whose rows are the choices of one question.
            mc_token_ids: (B, C), the token that stands for each choice; by default its last real one.
            labels: (B, C, T), as the language model head's.
            mc_labels: (B,), the right choice of each question; -100 is not counted.
            Others: as the language model head's.

        Raises:
            InputError: lists every argument of a wrong shape or value.
        """
        past = read_past(self.config, past_key_values)
        inputs = {
            "input_ids": input_ids,
            "past_key_values": past,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "inputs_embeds": inputs_embeds,
        }
        self.check_call(
            inputs, mc_token_ids=mc_token_ids, labels=labels, mc_labels=mc_labels, logits_to_keep=logits_to_keep
        )
        output = self.transformer(
            **inputs,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
        )
        x = output.pop("last_hidden_state")
        loss, logits = score_tokens(self.lm_head, x, labels, logits_to_keep)
        real = real_tokens(self.config, input_ids, attention_mask, past, ops.shape(x)[-2])
        mc_logits = self.multiple_choice_head(x, real, mc_token_ids, training=training)
        mc_loss = None if mc_labels is None else mean_cross_entropy(mc_logits, mc_labels)
        output = DoubleHeadsModelOutput(output, loss=loss, mc_loss=mc_loss, logits=logits, mc_logits=mc_logits)
        return self.result(output, return_dict)


class Summary(keras.Layer):
    """One score, or one vector, for each sequence: pooling over its real tokens, projection, activation."""

    def __init__(self, config: GPTConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.kind = config.summary_type
        self.is_score = config.has_choice_scores
        self.act = config.summary_act
        with inside(self):
            self.first_dropout = keras.layers.Dropout(config.summary_first_dropout, name="first_dropout")
            self.summary = Linear(config.n_embd, config.n_summary, name="summary") if config.summary_use_proj else None
            self.last_dropout = keras.layers.Dropout(config.summary_last_dropout or 0.0, name="last_dropout")

    def call(
        self, x: Tensor, real: Tensor | None, chosen: Tensor | None, training: bool | None = None
    ) -> Tensor:  # (..., T, E), (..., T), (...) -> (...) or (..., E)
        x = self.first_dropout(pool(x, self.kind, real, chosen), training=training)
        x = x if self.summary is None else self.summary(x)
        x = self.last_dropout(ACTIVATIONS[self.act](x), training=training)
        return ops.squeeze(x, -1) if self.is_score else x


class SequenceClassification(Head):
    """A backbone with a classifier of the last real token, which stands for the sequence."""

    head = "ForSequenceClassification"

    def __init__(self, config: GPTConfig, seed: int | None = 0, **kwargs: Any):
        super().__init__(config, seed, **kwargs)
        with inside(self):
            self.score = Linear(config.n_embd, config.num_labels, bias=False, name="score")
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
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Computes the logits of each sequence's classes, and the loss where labels are given.

        Args:
            input_ids: (B, T). The last token of a row that is not `config.pad_token_id` stands for it; without a
                pad id, the last that the attention mask shows.
            labels: (B,) integers: the class of each row, -100 is not counted. (B,) of any dtype where there is one
                class: a number to come close to. (B, L) floats: 1 where a class applies, 0 where not.
                `config.problem_type` says which is meant where this cannot.
            Others: as the backbone's.

        Raises:
            InputError: lists every argument of a wrong shape or value; or padding cannot be told from tokens.
        """
        past = read_past(self.config, past_key_values)
        inputs = {
            "input_ids": input_ids,
            "past_key_values": past,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "inputs_embeds": inputs_embeds,
        }
        self.check_call(inputs, labels=labels)
        output = self.transformer(
            **inputs,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
        )
        x = output.pop("last_hidden_state")
        real = real_tokens(self.config, input_ids, attention_mask, past, ops.shape(x)[-2])
        logits = self.score(pool(x, "last", real))
        loss = None if labels is None else problem_loss(problem_type(self.config, labels), logits, labels)
        return self.result(SequenceClassifierOutput(output, loss=loss, logits=logits), return_dict)


class TokenClassification(Head):
    """A backbone with a classifier of each token."""

    head = "ForTokenClassification"

    def __init__(self, config: GPTConfig, seed: int | None = 0, **kwargs: Any):
        super().__init__(config, seed, **kwargs)
        with inside(self):
            self.dropout = keras.layers.Dropout(config.classifier_rate, name="dropout")
            self.classifier = Linear(config.n_embd, config.num_labels, name="classifier")
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
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Computes the logits of each token's classes, and the loss where labels are given.

        Args:
            labels: (B, T), the class of each token; -100 is not counted.
            use_cache: without effect, as this head returns no cache.
            Others: as the backbone's.

        Raises:
            InputError: lists every argument of a wrong shape or value.
        """
        inputs = {
            "input_ids": input_ids,
            "past_key_values": read_past(self.config, past_key_values),
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "inputs_embeds": inputs_embeds,
        }
        self.check_call(inputs, labels=labels)
        output = self.transformer(
            **inputs,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
        )
        x = output.pop("last_hidden_state")
        logits = self.classifier(self.dropout(x, training=training))
        loss = None if labels is None else mean_cross_entropy(logits, labels)
        return self.result(TokenClassifierOutput(output, loss=loss, logits=logits), return_dict)


class QuestionAnswering(Head):
    """A backbone with a score of each token as the start, and one as the end, of an answer."""

    head = "ForQuestionAnswering"

    def __init__(self, config: GPTConfig, seed: int | None = 0, **kwargs: Any):
        super().__init__(config, seed, **kwargs)
        with inside(self):
            self.qa_outputs = Linear(config.n_embd, config.n_span, name="qa_outputs")
        self.init_weights(seed)

    def call(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
    ) -> QuestionAnsweringOutput | tuple[Any, ...]:
        """Computes the logits of an answer's first and last token, and the loss where positions are given.

        Args:
            start_positions, end_positions: (B,), the first and the last token of each answer; a position that is
                not among the tokens is not counted.
            Others: as the backbone's.

        Raises:
            InputError: lists every argument of a wrong shape or value.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "head_mask": head_mask,
            "inputs_embeds": inputs_embeds,
        }
        self.check_call(inputs, start_positions=start_positions, end_positions=end_positions)
        output = self.transformer(
            **inputs,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
        )
        x = self.qa_outputs(output.pop("last_hidden_state"))  # (B, T, 2)
        start, end = x[..., 0], x[..., 1]
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (span_loss(start, start_positions) + span_loss(end, end_positions)) / 2
        output = QuestionAnsweringOutput(output, loss=loss, start_logits=start, end_logits=end)
        return self.result(output, return_dict)


def score_tokens(
    lm_head: keras.Layer, x: Tensor, labels: Tensor | None, wanted: int | Tensor | None
) -> tuple[Tensor | None, Tensor]:  # (..., T, E), (..., T) -> (), (..., K, V)
    """Returns the loss over all tokens, where there are labels, and the logits of the wanted ones, computed once."""
    if labels is None:
        return None, lm_head(keep(x, wanted))
    logits = lm_head(x)
    return next_token_loss(logits, labels), keep(logits, wanted)


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


@keras.saving.register_keras_serializable("gptzoo")
class GPT2DoubleHeadsModel(DoubleHeads):
    """GPT-2 with a language model head and a multiple choice head."""

    config_class = GPT2Config
    backbone_class = GPT2Model


@keras.saving.register_keras_serializable("gptzoo")
class OpenAIGPTDoubleHeadsModel(DoubleHeads):
    """GPT with a language model head and a multiple choice head."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel


@keras.saving.register_keras_serializable("gptzoo")
class GPT2ForSequenceClassification(SequenceClassification):
    """GPT-2 with a classifier of sequences."""

    config_class = GPT2Config
    backbone_class = GPT2Model


@keras.saving.register_keras_serializable("gptzoo")
class OpenAIGPTForSequenceClassification(SequenceClassification):
    """GPT with a classifier of sequences."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel


@keras.saving.register_keras_serializable("gptzoo")
class GPT2ForTokenClassification(TokenClassification):
    """GPT-2 with a classifier of tokens."""

    config_class = GPT2Config
    backbone_class = GPT2Model


@keras.saving.register_keras_serializable("gptzoo")
class OpenAIGPTForTokenClassification(TokenClassification):
    """GPT with a classifier of tokens."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel


@keras.saving.register_keras_serializable("gptzoo")
class GPT2ForQuestionAnswering(QuestionAnswering):
    """GPT-2 with a finder of answers in a text."""

    config_class = GPT2Config
    backbone_class = GPT2Model


@keras.saving.register_keras_serializable("gptzoo")
class OpenAIGPTForQuestionAnswering(QuestionAnswering):
    """GPT with a finder of answers in a text."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel
