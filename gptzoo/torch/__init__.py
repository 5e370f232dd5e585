"""GPT and GPT-2 in PyTorch."""

from gptzoo._extras import require

require("torch")

from gptzoo.torch._auto import (  # noqa: E402
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from gptzoo.torch._gpt import OpenAIGPTModel  # noqa: E402
from gptzoo.torch._gpt2 import GPT2Model  # noqa: E402
from gptzoo.torch._heads import (  # noqa: E402
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

__all__ = [
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForQuestionAnswering",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "GPT2DoubleHeadsModel",
    "GPT2ForQuestionAnswering",
    "GPT2ForSequenceClassification",
    "GPT2ForTokenClassification",
    "GPT2LMHeadModel",
    "GPT2Model",
    "OpenAIGPTDoubleHeadsModel",
    "OpenAIGPTForQuestionAnswering",
    "OpenAIGPTForSequenceClassification",
    "OpenAIGPTForTokenClassification",
    "OpenAIGPTLMHeadModel",
    "OpenAIGPTModel",
]
