"""gptzoo: OpenAI GPT and GPT-2 as native PyTorch, Keras and Flax models that compute the same thing.

Importing this package imports no framework and no NumPy: names are looked up when they are first used.
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
    from gptzoo.torch import GPT2LMHeadModel as GPT2LMHeadModel
    from gptzoo.torch import GPT2Model as GPT2Model
    from gptzoo.torch import OpenAIGPTLMHeadModel as OpenAIGPTLMHeadModel
    from gptzoo.torch import OpenAIGPTModel as OpenAIGPTModel

__version__ = "0.1.0"

# Module -> the public names that it lends to the top level. Models named here are PyTorch's.
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
    "gptzoo.torch": ("GPT2LMHeadModel", "GPT2Model", "OpenAIGPTLMHeadModel", "OpenAIGPTModel"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_HOMES]  # noqa: PLE0604  (strings, which the linter cannot see through)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gptzoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
