"""The tests' witness of GPT-2's tokenizer: OpenAI's byte-level BPE (Radford et al. 2019, sec. 2.2) in plain Python.

Written from the published algorithm and its files alone; it imports nothing of gptzoo, `tokenizers` or Transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import chain, pairwise
from pathlib import Path

import regex

PIECES = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves as characters


def byte_table() -> dict[int, str]:
    """Returns the character of each byte: the printable ones' own, then U+0100 and on for the other 68."""
    others = [byte for byte in range(256) if byte not in PRINTABLE]
    return {byte: chr(byte) for byte in PRINTABLE} | {byte: chr(256 + n) for n, byte in enumerate(others)}


class Encoder:
    """Text to ids and back.

    Args:
        ids: token -> id.
        merges: the pairs in the order of their ranks.
    """

    def __init__(self, ids: dict[str, int], merges: list[tuple[str, str]]):
        self.ids = ids
        self.tokens = {number: token for token, number in ids.items()}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.characters = byte_table()
        self.bytes = {character: byte for byte, character in self.characters.items()}
        self.bpe = cache(self._bpe)

    @classmethod
    def read(cls, folder: Path) -> Encoder:
        """Reads vocab.json and merges.txt; of the latter, every line but the header counts."""
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges = [(first, second) for first, second in (line.split() for line in lines[1:] if line)]
        return cls(json.loads((folder / "vocab.json").read_text(encoding="utf-8")), merges)

    def tokenize(self, text: str) -> list[str]:
        return list(chain.from_iterable(map(self.bpe, self.pieces(text))))

    def encode(self, text: str) -> list[int]:
        return [self.ids[token] for token in self.tokenize(text)]

    def decode(self, ids: list[int]) -> str:
        spelled = "".join(self.tokens[number] for number in ids)
        return bytes(self.bytes[character] for character in spelled).decode("utf-8", errors="replace")

    def pieces(self, text: str) -> Iterator[str]:
        """Yields the pieces that no merge crosses, each spelled in the characters of its bytes."""
        for match in PIECES.finditer(text):
            yield "".join(self.characters[byte] for byte in match.group().encode("utf-8"))

    def _bpe(self, piece: str) -> tuple[str, ...]:
        """Merges all occurrences of the pair of lowest rank, over and over, until no pair has a rank."""
        word = tuple(piece)
        while pairs := [pair for pair in pairwise(word) if pair in self.ranks]:
            word = merged(word, min(pairs, key=self.ranks.__getitem__))
        return word


def merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Returns the word with each occurrence of the pair made one, from the left."""
    result: list[str] = []
    at = 0
    while at < len(word):
        if word[at : at + 2] == pair:
            result.append("".join(pair))
            at += 2
        else:
            result.append(word[at])
            at += 1
    return tuple(result)
