"""Heads in Flax NNX: a head is a class over a backbone, and each family names its own.

Shapes: B batch, C choices (where given, before T), T new tokens, E n_embd, L labels.
"""

from __future__ import annotations

from typing import Any

from flax import nnx
from jax import Array

from gptzoo.config import GPT2Config, GPTConfig, OpenAIGPTConfig
from gptzoo.flax._backbone import Backbone, read_past
from gptzoo.flax._gpt import OpenAIGPTModel
from gptzoo.flax._gpt2 import GPT2Model
from gptzoo.flax._layers import ACTIVATIONS, ARRAYS, Dropout, Linear
from gptzoo.flax._losses import mean_cross_entropy, next_token_loss, problem_loss, span_loss
from gptzoo.flax._nnx import Tied, functional
from gptzoo.flax._pooling import keep, pool, real_tokens
from gptzoo.flax._pretrained import PreTrainedModel
from gptzoo.flax._scoring import ScoringMixin
from gptzoo.labels import check_call, problem_type
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
        self.transformer.in_head = True


class LMHead(Head, ScoringMixin):
    """A backbone with a language model head: logits of the next token."""

    head = "LMHeadModel"
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
        logits_to_keep: int | Array | None = 0,
        *,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool = False,
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
        check_call(self.head, self.config, ARRAYS, inputs, labels=labels, logits_to_keep=logits_to_keep)
        rngs = self.dropout_rngs(dropout_rng, train)
        output = self.transformer(
            **inputs,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            dropout_rng=rngs,
            train=train,
        )
        x = output.pop("last_hidden_state")
        loss, logits = score_tokens(self.lm_head, x, labels, logits_to_keep)
        return self.result(CausalLMOutput(output, loss=loss, logits=logits), return_dict)


class DoubleHeads(Head, ScoringMixin):
    """A backbone with a language model head and a score of each choice (Radford et al. 2018, sec. 3.3)."""

    head = "DoubleHeadsModel"
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
        if not config.tie_word_embeddings:  # otherwise the class attribute stands in for it
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.multiple_choice_head = Summary(config)
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
        mc_token_ids: Array | None = None,
        labels: Array | None = None,
        mc_labels: Array | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Array | None = 0,
        *,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool = False,
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
        check_call(
            self.head,
            self.config,
            ARRAYS,
            inputs,
            mc_token_ids=mc_token_ids,
            labels=labels,
            mc_labels=mc_labels,
            logits_to_keep=logits_to_keep,
        )
        rngs = self.dropout_rngs(dropout_rng, train)
        output = self.transformer(
            **inputs,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            dropout_rng=rngs,
            train=train,
        )
        x = output.pop("last_hidden_state")
        loss, logits = score_tokens(self.lm_head, x, labels, logits_to_keep)
        real = real_tokens(self.config, input_ids, attention_mask, past, x.shape[-2])
        mc_logits = self.multiple_choice_head(x, real, mc_token_ids, rngs)
        mc_loss = None if mc_labels is None else mean_cross_entropy(mc_logits, mc_labels)
        output = DoubleHeadsModelOutput(output, loss=loss, mc_loss=mc_loss, logits=logits, mc_logits=mc_logits)
        return self.result(output, return_dict)


class Summary(nnx.Module):
    """One score, or one vector, for each sequence: pooling over its real tokens, projection, activation."""

    def __init__(self, config: GPTConfig):
        self.kind = config.summary_type
        self.is_score = config.has_choice_scores
        self.act = config.summary_act
        self.first_dropout = Dropout(config.summary_first_dropout)
        self.summary = Linear(config.n_embd, config.n_summary) if config.summary_use_proj else None
        self.last_dropout = Dropout(config.summary_last_dropout or 0.0)

    def __call__(
        self, x: Array, real: Array | None, chosen: Array | None, rngs: nnx.RngStream | None
    ) -> Array:  # (..., T, E), (..., T), (...) -> (...) or (..., E)
        x = self.first_dropout(pool(x, self.kind, real, chosen), rngs)
        x = x if self.summary is None else self.summary(x)
        x = self.last_dropout(ACTIVATIONS[self.act](x), rngs)
        return x.squeeze(-1) if self.is_score else x


class SequenceClassification(Head):
    """A backbone with a classifier of the last real token, which stands for the sequence."""

    head = "ForSequenceClassification"

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
        self.score = Linear(config.n_embd, config.num_labels, bias=False)
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
        labels: Array | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool = False,
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
        check_call(self.head, self.config, ARRAYS, inputs, labels=labels)
        rngs = self.dropout_rngs(dropout_rng, train)
        output = self.transformer(
            **inputs,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            dropout_rng=rngs,
            train=train,
        )
        x = output.pop("last_hidden_state")
        real = real_tokens(self.config, input_ids, attention_mask, past, x.shape[-2])
        logits = self.score(pool(x, "last", real))
        loss = None if labels is None else problem_loss(problem_type(self.config, labels), logits, labels)
        return self.result(SequenceClassifierOutput(output, loss=loss, logits=logits), return_dict)


class TokenClassification(Head):
    """A backbone with a classifier of each token."""

    head = "ForTokenClassification"

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
        self.dropout = Dropout(config.classifier_rate)
        self.classifier = Linear(config.n_embd, config.num_labels)
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
        labels: Array | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool = False,
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
        check_call(self.head, self.config, ARRAYS, inputs, labels=labels)
        rngs = self.dropout_rngs(dropout_rng, train)
        output = self.transformer(
            **inputs,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            dropout_rng=rngs,
            train=train,
        )
        x = output.pop("last_hidden_state")
        logits = self.classifier(self.dropout(x, rngs))
        loss = None if labels is None else mean_cross_entropy(logits, labels)
        return self.result(TokenClassifierOutput(output, loss=loss, logits=logits), return_dict)


class QuestionAnswering(Head):
    """A backbone with a score of each token as the start, and one as the end, of an answer."""

    head = "ForQuestionAnswering"

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
        self.qa_outputs = Linear(config.n_embd, config.n_span)
        self.init_weights(seed, rngs, param_dtype)

    @functional
    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        start_positions: Array | None = None,
        end_positions: Array | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool = False,
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
        check_call(self.head, self.config, ARRAYS, inputs, start_positions=start_positions, end_positions=end_positions)
        rngs = self.dropout_rngs(dropout_rng, train)
        output = self.transformer(
            **inputs,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            dropout_rng=rngs,
            train=train,
        )
        x = self.qa_outputs(output.pop("last_hidden_state"))  # (B, T, 2)
        start, end = x[..., 0], x[..., 1]
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (span_loss(start, start_positions) + span_loss(end, end_positions)) / 2
        output = QuestionAnsweringOutput(output, loss=loss, start_logits=start, end_logits=end)
        return self.result(output, return_dict)


def score_tokens(
    lm_head: Any, x: Array, labels: Array | None, wanted: int | Array | None
) -> tuple[Array | None, Array]:  # (..., T, E), (..., T) -> (), (..., K, V)
    """Returns the loss over all tokens, where there are labels, and the logits of the wanted ones, computed once."""
    if labels is None:
        return None, lm_head(keep(x, wanted))
    logits = lm_head(x)
    return next_token_loss(logits, labels), keep(logits, wanted)


class GPT2LMHeadModel(LMHead):
    """GPT-2 with a language model head, tied to the token embedding unless the config says otherwise."""

    config_class = GPT2Config
    backbone_class = GPT2Model


class OpenAIGPTLMHeadModel(LMHead):
    """GPT with a language model head, tied to the token embedding unless the config says otherwise."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel


class GPT2DoubleHeadsModel(DoubleHeads):
    """GPT-2 with a language model head and a multiple choice head."""

    config_class = GPT2Config
    backbone_class = GPT2Model


class OpenAIGPTDoubleHeadsModel(DoubleHeads):
    """GPT with a language model head and a multiple choice head."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel


class GPT2ForSequenceClassification(SequenceClassification):
    """GPT-2 with a classifier of sequences."""

    config_class = GPT2Config
    backbone_class = GPT2Model


class OpenAIGPTForSequenceClassification(SequenceClassification):
    """GPT with a classifier of sequences."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel


class GPT2ForTokenClassification(TokenClassification):
    """GPT-2 with a classifier of tokens."""

    config_class = GPT2Config
    backbone_class = GPT2Model


class OpenAIGPTForTokenClassification(TokenClassification):
    """GPT with a classifier of tokens."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel


class GPT2ForQuestionAnswering(QuestionAnswering):
    """GPT-2 with a finder of answers in a text."""

    config_class = GPT2Config
    backbone_class = GPT2Model


class OpenAIGPTForQuestionAnswering(QuestionAnswering):
    """GPT with a finder of answers in a text."""

    config_class = OpenAIGPTConfig
    backbone_class = OpenAIGPTModel
