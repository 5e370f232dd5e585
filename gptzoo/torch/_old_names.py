"""The bases of the original's PyTorch models, for `isinstance` and for heads of one's own."""

from __future__ import annotations

from abc import ABCMeta

from gptzoo.config import GPT2Config, OpenAIGPTConfig
from gptzoo.torch._auto import MODELS
from gptzoo.torch._pretrained import PreTrainedModel


class GPT2PreTrainedModel(PreTrainedModel, metaclass=ABCMeta):
    """Every GPT-2 model is an instance."""

    config_class = GPT2Config


class OpenAIGPTPreTrainedModel(PreTrainedModel, metaclass=ABCMeta):
    """Every GPT model is an instance."""

    config_class = OpenAIGPTConfig


for _model in MODELS:
    (GPT2PreTrainedModel if _model.config_class is GPT2Config else OpenAIGPTPreTrainedModel).register(_model)

__all__ = ["GPT2PreTrainedModel", "OpenAIGPTPreTrainedModel", "PreTrainedModel"]
