"""GPT's text encoder, written from the description of OpenAI's code: a witness that shares nothing with gptzoo."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import Any

import ftfy
import spacy

CLASSES = ["-", "~", "!", '"', ";", "?", "+", ",", ")", "(", "\\", "/", "*", "[", "]", "}", "{", "|", "_"]


@cache
def english() -> Any:
    return spacy.blank("en").tokenizer


def text_standardize(text: str, raw_pattern: bool) -> str:
    """A pattern that is not a raw string holds one backslash and a plus: an escaped plus sign."""
    for old, new in (("—", "-"), ("–", "-"), ("―", "-"), ("…", "..."), ("´", "'")):  # noqa: RUF001
        text = text.replace(old, new)
    runs = [re.escape(character) + "+" for character in CLASSES]
    if not raw_pattern:
        runs[CLASSES.index("\\")] = r"\+"
    text = re.sub("(" + "|".join(runs) + ")", r" \1 ", text)
    text = re.sub(r"\s*\n\s*", " \n ", text)
    text = re.sub(r"[^\S\n]+", " ", text)
    return text.strip()


class TextEncoder:
    """OpenAI's, or that of Transformers 4, whose pattern is a raw string and whose texts come in lower case."""

    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]], transformers: bool = False):
        self.vocab = vocab
        self.ranks = {merge: rank for rank, merge in enumerate(merges)}
        self.transformers = transformers

    def bpe(self, token: str) -> list[str]:
        symbols = [*token[:-1], token[-1] + "</w>"]
        while len(symbols) > 1:
            first, second = min(pairwise(symbols), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if (first, second) not in self.ranks:
                break
            merged: list[str] = []
            for symbol in symbols:
                if merged and (merged[-1], symbol) == (first, second):
                    merged[-1] = first + second
                else:
                    merged.append(symbol)
            symbols = merged
        word = " ".join(symbols)
        if word == "\n  </w>":
            word = "\n</w>"
        return word.split(" ")

    def tokenize(self, text: str) -> list[str]:
        if self.transformers:
            text = "".join(character.lower() for character in text)
        text = text_standardize(ftfy.fix_text(text), raw_pattern=self.transformers)
        return [part for token in english()(text) for part in self.bpe(token.text.lower())]

    def words(self, text: str) -> list[str]:
        return "".join(self.tokenize(text)).split("</w>")[:-1]

    def encode(self, text: str) -> list[int]:
        return [self.vocab.get(token, 0) for token in self.tokenize(text)]
