"""GPT and GPT-2 in Flax NNX."""

from gptzoo._extras import require

require("flax")

from gptzoo.flax._gpt import OpenAIGPTModel  # noqa: E402
from gptzoo.flax._gpt2 import GPT2Model  # noqa: E402
from gptzoo.flax._heads import GPT2LMHeadModel, OpenAIGPTLMHeadModel  # noqa: E402

__all__ = ["GPT2LMHeadModel", "GPT2Model", "OpenAIGPTLMHeadModel", "OpenAIGPTModel"]
