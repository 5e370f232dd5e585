"""The bases of the original's PyTorch models, for `isinstance` and for heads of one's own."""

from __future__ import annotations

from abc import ABCMeta

import gptzoo.torch
from gptzoo.config import GPT2Config, OpenAIGPTConfig
from gptzoo.heads import HEADS, class_name
from gptzoo.torch._pretrained import PreTrainedModel


class OwnHead(PreTrainedModel):
    """What a head of one's own inherits: a constructor, and nothing that needs a row in the weight table."""

    def init_weights(self, seed: int | None = 0) -> None:
        """Does nothing: `GPT2Model(config)` has its initial values, and layers of one's own have theirs."""

    def post_init(self) -> None:
        """Does nothing, as `init_weights`."""


class GPT2PreTrainedModel(OwnHead, metaclass=ABCMeta):
    """Every GPT-2 model is an instance."""

    config_class = GPT2Config


class OpenAIGPTPreTrainedModel(OwnHead, metaclass=ABCMeta):
    """Every GPT model is an instance."""

    config_class = OpenAIGPTConfig


for _base in (GPT2PreTrainedModel, OpenAIGPTPreTrainedModel):
    for _head in HEADS:
        _base.register(getattr(gptzoo.torch, class_name(_base.config_class, _head)))

__all__ = ["GPT2PreTrainedModel", "OpenAIGPTPreTrainedModel", "PreTrainedModel"]
