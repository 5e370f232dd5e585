"""gptzoo: OpenAI GPT and GPT-2 as native PyTorch, Keras and Flax models that compute the same thing.

Importing this package imports no framework and no NumPy: names are looked up when they are first used. Plain names of
models are PyTorch's; with TF or Flax before them they are Keras' and Flax', for code that was written with these names.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; `_NAMES` is what runs, and a test holds them together
    from gptzoo.config import AutoConfig as AutoConfig
    from gptzoo.config import GPT2Config as GPT2Config
    from gptzoo.config import OpenAIGPTConfig as OpenAIGPTConfig
    from gptzoo.errors import CheckpointError as CheckpointError
    from gptzoo.errors import ConfigError as ConfigError
    from gptzoo.errors import ConversionError as ConversionError
    from gptzoo.errors import GPTZooError as GPTZooError
    from gptzoo.errors import InputError as InputError
    from gptzoo.errors import MissingExtraError as MissingExtraError
    from gptzoo.errors import ParityError as ParityError
    from gptzoo.flax._old_names import *  # noqa: F403  (as are those of the next ones: listed in their __all__)
    from gptzoo.generation import AsyncTextIteratorStreamer as AsyncTextIteratorStreamer
    from gptzoo.generation import GenerateOutput as GenerateOutput
    from gptzoo.generation import GenerationConfig as GenerationConfig
    from gptzoo.generation import TextIteratorStreamer as TextIteratorStreamer
    from gptzoo.generation import TextStreamer as TextStreamer
    from gptzoo.generation import astream as astream
    from gptzoo.generation import set_seed as set_seed
    from gptzoo.generation import stream as stream
    from gptzoo.keras._old_names import *  # noqa: F403
    from gptzoo.outputs import *  # noqa: F403
    from gptzoo.pipelines import pipeline as pipeline
    from gptzoo.tokenization import *  # noqa: F403
    from gptzoo.torch import *  # noqa: F403
    from gptzoo.torch._old_names import *  # noqa: F403

__version__ = "0.1.0"

_FAMILIES = ("GPT2", "OpenAIGPT")
_MODELS = tuple(
    family + head
    for family in _FAMILIES
    for head in (
        "Model",
        "LMHeadModel",
        "DoubleHeadsModel",
        "ForSequenceClassification",
        "ForTokenClassification",
        "ForQuestionAnswering",
    )
)
_AUTO = (
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
)
_BASES = ("PreTrainedModel", *(f"{family}PreTrainedModel" for family in _FAMILIES))
_OLD = (*_MODELS, *_AUTO, *_BASES)

# Module -> the public names that it lends to the top level.
_NAMES = {
    "gptzoo.config": ("AutoConfig", "GPT2Config", "OpenAIGPTConfig"),
    "gptzoo.errors": (
        "CheckpointError",
        "ConfigError",
        "ConversionError",
        "GPTZooError",
        "InputError",
        "MissingExtraError",
        "ParityError",
    ),
    "gptzoo.generation": (
        "AsyncTextIteratorStreamer",
        "GenerateOutput",
        "GenerationConfig",
        "TextIteratorStreamer",
        "TextStreamer",
        "astream",
        "set_seed",
        "stream",
    ),
    "gptzoo.outputs": (
        "BaseModelOutput",
        "BaseModelOutputWithPastAndCrossAttentions",
        "CausalLMOutput",
        "CausalLMOutputWithCrossAttentions",
        "FlaxBaseModelOutputWithPastAndCrossAttentions",
        "FlaxCausalLMOutputWithCrossAttentions",
        "GPT2DoubleHeadsModelOutput",
        "ModelOutput",
        "OpenAIGPTDoubleHeadsModelOutput",
        "QuestionAnsweringModelOutput",
        "SequenceClassifierOutput",
        "SequenceClassifierOutputWithPast",
        "TFBaseModelOutput",
        "TFBaseModelOutputWithPastAndCrossAttentions",
        "TFCausalLMOutput",
        "TFCausalLMOutputWithCrossAttentions",
        "TFGPT2DoubleHeadsModelOutput",
        "TFOpenAIGPTDoubleHeadsModelOutput",
        "TFQuestionAnsweringModelOutput",
        "TFSequenceClassifierOutput",
        "TFSequenceClassifierOutputWithPast",
        "TFTokenClassifierOutput",
        "TokenClassifierOutput",
    ),
    "gptzoo.pipelines": ("pipeline",),
    "gptzoo.tokenization": (
        "AddedToken",
        "AutoTokenizer",
        "BatchEncoding",
        "CharSpan",
        "GPT2Tokenizer",
        "GPT2TokenizerFast",
        "OpenAIGPTTokenizer",
        "OpenAIGPTTokenizerFast",
        "PreTrainedTokenizer",
        "TokenSpan",
    ),
    "gptzoo.torch": (*_MODELS, *_AUTO),
    "gptzoo.torch._old_names": _BASES,
    "gptzoo.keras._old_names": (
        *(f"TF{name}" for name in _OLD),
        *(f"TF{family}MainLayer" for family in _FAMILIES),
        "TFGPT2Tokenizer",
    ),
    "gptzoo.flax._old_names": tuple(f"Flax{name}" for name in _OLD),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_HOMES]  # noqa: PLE0604  (strings, which the linter cannot see through)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gptzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
