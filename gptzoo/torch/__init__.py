"""GPT and GPT-2 in PyTorch."""

from gptzoo._extras import require

require("torch")

from gptzoo.torch._gpt import OpenAIGPTModel  # noqa: E402
from gptzoo.torch._gpt2 import GPT2Model  # noqa: E402
from gptzoo.torch._heads import GPT2LMHeadModel, OpenAIGPTLMHeadModel  # noqa: E402

__all__ = ["GPT2LMHeadModel", "GPT2Model", "OpenAIGPTLMHeadModel", "OpenAIGPTModel"]
