"""GPT and GPT-2 in Keras 3, on its TensorFlow, JAX or PyTorch backend."""

from gptzoo._extras import require
from gptzoo.errors import MissingExtraError

require("keras")

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as problem:  # its backend, as KERAS_BACKEND says, is not installed
    backend = (problem.name or "keras").partition(".")[0]
    package = "'gptzoo[keras]'" if backend == "tensorflow" else backend
    raise MissingExtraError(f"gptzoo.keras needs {backend}: pip install {package}") from None

from gptzoo.keras._auto import (  # noqa: E402
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from gptzoo.keras._gpt import OpenAIGPTModel  # noqa: E402
from gptzoo.keras._gpt2 import GPT2Model  # noqa: E402
from gptzoo.keras._heads import (  # noqa: E402
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
from gptzoo.keras._tokenizer import GPT2Tokenizer, OpenAIGPTTokenizer  # noqa: E402

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
    "GPT2Tokenizer",
    "OpenAIGPTDoubleHeadsModel",
    "OpenAIGPTForQuestionAnswering",
    "OpenAIGPTForSequenceClassification",
    "OpenAIGPTForTokenClassification",
    "OpenAIGPTLMHeadModel",
    "OpenAIGPTModel",
    "OpenAIGPTTokenizer",
]
