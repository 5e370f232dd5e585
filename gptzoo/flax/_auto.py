"""Auto classes in Flax NNX: a model of the family that a config names."""

from __future__ import annotations

from gptzoo._auto import Auto
from gptzoo.flax._gpt import OpenAIGPTModel
from gptzoo.flax._gpt2 import GPT2Model
from gptzoo.flax._heads import (
    GPT2DoubleHeadsModel,
    GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    OpenAIGPTDoubleHeadsModel,
    OpenAIGPTForQuestionAnswering,
    OpenAIGPTForSequenceClassification,
    OpenAIGPTForTokenClassification,
    OpenAIGPTLMHeadModel,
)
from gptzoo.flax._pretrained import PreTrainedModel
from gptzoo.heads import AUTO_HEADS

MODELS: tuple[type[PreTrainedModel], ...] = (
    GPT2Model,
    GPT2LMHeadModel,
    GPT2DoubleHeadsModel,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2ForQuestionAnswering,
    OpenAIGPTModel,
    OpenAIGPTLMHeadModel,
    OpenAIGPTDoubleHeadsModel,
    OpenAIGPTForSequenceClassification,
    OpenAIGPTForTokenClassification,
    OpenAIGPTForQuestionAnswering,
)


class AutoModel(Auto):
    """Makes a model without a head."""

    head = AUTO_HEADS["AutoModel"]
    models = MODELS


class AutoModelForCausalLM(Auto):
    """Makes a model with a language model head."""

    head = AUTO_HEADS["AutoModelForCausalLM"]
    models = MODELS


class AutoModelForSequenceClassification(Auto):
    """Makes a model with a classifier of sequences."""

    head = AUTO_HEADS["AutoModelForSequenceClassification"]
    models = MODELS


class AutoModelForTokenClassification(Auto):
    """Makes a model with a classifier of tokens."""

    head = AUTO_HEADS["AutoModelForTokenClassification"]
    models = MODELS


class AutoModelForQuestionAnswering(Auto):
    """Makes a model with a finder of answers in a text."""

    head = AUTO_HEADS["AutoModelForQuestionAnswering"]
    models = MODELS
