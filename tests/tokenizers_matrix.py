"""What the tests of the tokenizers share: our classes and their peers of Transformers 5, vocabularies, texts."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import transformers
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gptzoo import tokenization
from gptzoo.hub import resolve
from tests.openai_bpe import Encoder

GOLDEN = Path(__file__).parent / "golden_tokenizers"
DATA = Path(__file__).parents[2] / "shared" / "data"
CORPORA = ("tinyshakespeare.txt", "wikitext2-valid.txt", "wikitext2-test.txt")
END = "<|endoftext|>"
NO_LIMIT = 10**30

CLASSES = {
    "gpt2": "GPT2Tokenizer",
    "openai-gpt": "OpenAIGPTTokenizerFast",
}  # the one that splits as Transformers 5 does
VOCABULARIES = {  # name -> family, folder
    "gpt2": ("gpt2", DATA / "gpt2"),
    "gpt2 bundled": ("gpt2", resolve("gptzoo/shakespeare")),
    "gpt1": ("openai-gpt", DATA / "openai-gpt"),
    "gpt1 small": ("openai-gpt", GOLDEN / "gpt1-fast-plain"),
}
GPT2_VOCABULARIES = [name for name, (family, _) in VOCABULARIES.items() if family == "gpt2"]
BEST = {  # the real vocabulary where it is, the small one elsewhere
    family: next(name for name, (of, folder) in VOCABULARIES.items() if of == family and folder.is_dir())
    for family in CLASSES
}


class Pair(NamedTuple):
    """The same tokenizer twice."""

    ours: Any
    theirs: Any


@cache
def pair(vocabulary: str) -> Pair:
    """Returns a vocabulary's tokenizers; tests that change one ask for `fresh` ones."""
    return fresh(vocabulary)


def fresh(vocabulary: str, **arguments: Any) -> Pair:
    family, folder = VOCABULARIES[vocabulary]
    require(folder)
    arguments = {"model_max_length": NO_LIMIT} | arguments  # ours also knows the bundled model's
    classes = [getattr(module, CLASSES[family]) for module in (tokenization, transformers)]
    return Pair(*(cls.from_pretrained(folder, **arguments) for cls in classes))


@cache
def witness(vocabulary: str) -> Encoder:
    require(VOCABULARIES[vocabulary][1])
    return Encoder.read(VOCABULARIES[vocabulary][1])


@cache
def corpus(name: str) -> str:
    require(DATA)
    return (DATA / "text" / name).read_bytes().decode("utf-8")  # no newline translated


@cache
def golden() -> dict[str, Any]:
    """What Transformers 4.57.6 made of the texts with each of the folders beside it."""
    found: dict[str, Any] = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))
    return found


def require(folder: Path) -> None:
    if not folder.is_dir():
        pytest.skip(f"{folder} is not beside this checkout")


def examples(count: int) -> settings:
    """The same examples in every run."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# Strings at which pieces begin and end, and those that are not what they look like.
FRAGMENTS = [
    *("'s", "'S", "'t", "'re", "'ve", "'m", "'ll", "'d", "'D", "\u2019s", "'", "''s"),
    *(" ", "  ", "   ", "\n", "\n\n", " \n ", "\r\n", "\t", "\x0b\x0c", "\x85", "\u2028", "\u200b", "\u00a0", "\u3000"),
    *("\x00", "\x01", "\x1f", "\x7f", "\x9f", "\ufeff", "\ufffd", "\u202e", "\ufdd0", "\U0010ffff", "\U000e0041"),
    *(
        "e\u0301",
        "\u0301",
        "q\u0323\u0307",
        "Å",
        "A\u030a",
        "ﬁ",
        "İ",
        "ß",
        "ẞ",
        "Ǆ",
        "ς",
        "\u0345",
        "한국",
        "\u1112\u1161",
    ),
    *("東京", "日本語。", "𠀀", "ไทย", "עִבְרִית", "हिन्दी", "👍🏽", "👩\u200d👩\u200d👧", "🇩🇪", "❤\ufe0f", "\U0001d4b3"),
    *("1", "42", "²", "½", "١٢", "Ⅷ", "3.14", "1,000", "a1b2", "x_y", "--", "...", "—", "#!?", "$€"),
    *("Ġ", "Ċ", "</w>", "a</w>", "Hello", "HELLO", " world", "I'll", "don't", "ntntnt", "aaaa", "http://a.b/c?d=e"),
]

assigned = st.characters(exclude_categories=("Cs", "Cn"))
"""Characters that this Python's tables know: newer ones are classed by each library's own version of Unicode."""


def texts(characters: st.SearchStrategy[str] = assigned) -> st.SearchStrategy[str]:
    """Texts of any characters, of words, of `FRAGMENTS`, and of long runs of one of them."""
    fragment = st.sampled_from(FRAGMENTS)
    runs = st.builds(str.__mul__, st.one_of(characters, fragment), st.integers(2, 40))
    words = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGH", min_size=1, max_size=60)
    parts = st.one_of(st.text(characters, max_size=20), fragment, fragment, words, runs)
    return st.lists(parts, max_size=12).map("".join)


specials = st.sampled_from([END, f" {END}", f"{END} ", "<|endoftext|", "<|ENDOFTEXT|>", "<unk>", " <unk> ", END * 2])


def texts_with_specials() -> st.SearchStrategy[str]:
    return st.lists(st.one_of(texts(), specials), max_size=6).map("".join)
