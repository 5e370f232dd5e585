"""GPT and GPT-2 in Flax NNX."""

from gptzoo._extras import require

require("flax")

from gptzoo.flax._auto import (  # noqa: E402
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from gptzoo.flax._gpt import OpenAIGPTModel  # noqa: E402
from gptzoo.flax._gpt2 import GPT2Model  # noqa: E402
from gptzoo.flax._heads import (  # noqa: E402
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
