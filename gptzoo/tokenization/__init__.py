"""The tokenizers of GPT and GPT-2, on the `tokenizers` library and no framework."""

from tokenizers import AddedToken

from gptzoo.tokenization._auto import AutoTokenizer
from gptzoo.tokenization._base import PreTrainedTokenizer
from gptzoo.tokenization._encoding import BatchEncoding, CharSpan, TokenSpan
from gptzoo.tokenization._gpt import OpenAIGPTTokenizer, OpenAIGPTTokenizerFast
from gptzoo.tokenization._gpt2 import GPT2Tokenizer, GPT2TokenizerFast

__all__ = [
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
]
