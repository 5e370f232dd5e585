"""The tokenizer of a checkpoint, whichever family it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptzoo._tensors import shown
from gptzoo._vocabulary import CONFIG, END_OF_WORD
from gptzoo.config import CONFIGS
from gptzoo.errors import CheckpointError, InputError
from gptzoo.tokenization._base import PreTrainedTokenizer, read_pretrained
from gptzoo.tokenization._files import Stored
from gptzoo.tokenization._gpt import OpenAIGPTTokenizer, OpenAIGPTTokenizerFast
from gptzoo.tokenization._gpt2 import GPT2Tokenizer

# model_type -> the tokenizer whose tokens can be traced back to the text, and the one as it was first written.
FAMILIES: dict[str, tuple[type[PreTrainedTokenizer], type[PreTrainedTokenizer]]] = {
    "gpt2": (GPT2Tokenizer, GPT2Tokenizer),
    "openai-gpt": (OpenAIGPTTokenizerFast, OpenAIGPTTokenizer),
}

# Classes of Transformers 4 and 5 that any tokenizer.json can have.
ANY_CLASS = ("PreTrainedTokenizerFast", "TokenizersBackend")


class AutoTokenizer:
    """Makes the tokenizer of a checkpoint. It has no instances."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise InputError("AutoTokenizer has no instances: use AutoTokenizer.from_pretrained(path)")

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | Path, *, use_fast: bool = True, **settings: Any
    ) -> PreTrainedTokenizer:
        """Loads a tokenizer of either family.

        The family is that of the class that tokenizer_config.json names, else of the config's `model_type`, else of the
        vocabulary.

        Args:
            pretrained_model_name_or_path, settings: as of the tokenizers' own `from_pretrained`.
            use_fast: whether GPT's texts are prepared as BERT does, so that tokens can be traced back to the text;
                otherwise as `OpenAIGPTTokenizer` chooses. A `preparation` that is given or stored has its way.

        Raises:
            CheckpointError: a file is missing, wrong, or of a tokenizer of no family.
        """
        stored, given = read_pretrained(pretrained_model_name_or_path, settings)
        fast, first = FAMILIES[_family(stored)]
        chosen = (stored.settings | given).get("preparation") not in (None, "bert")
        return (fast if use_fast and not chosen else first).from_stored(
            stored, given, str(pretrained_model_name_or_path)
        )


def _family(stored: Stored) -> str:
    """Returns the `model_type` that a tokenizer belongs to."""
    name = stored.settings.get("tokenizer_class")
    for family, classes in FAMILIES.items():
        if isinstance(name, str) and name.removesuffix("Fast") == classes[1].__name__:
            return family
    if name not in (None, *ANY_CLASS):  # such as RoBERTa's, which has GPT-2's files, and puts other tokens around texts
        known = " or ".join(classes[1].__name__ for classes in FAMILIES.values())
        raise CheckpointError(f"{stored.place}: {CONFIG}: tokenizer_class: {shown(name)}, expected {known}")
    kind = stored.config.get("model_type")
    if kind in CONFIGS:
        return kind
    ends_words = any(token.endswith(END_OF_WORD) for token in stored.vocab)
    return "openai-gpt" if ends_words else "gpt2"
