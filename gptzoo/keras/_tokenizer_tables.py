"""What tokenizing inside a graph looks things up in: NumPy arrays, made from the tokenizer's own definition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

SURROGATES = range(0xD800, 0xE000)
LETTER, NUMBER, SPACE, OTHER, NOTHING = range(5)  # what the pre-tokenizer tells apart; nothing: the end of a text
PATTERNS = {LETTER: r"\p{L}+", NUMBER: r"\p{N}+", SPACE: r"\s+"}
NEVER = np.iinfo(np.int32).max  # the rank of a pair that is not merged


class Ranges(NamedTuple):
    """Code points from `starts[i]` below `starts[i + 1]` are of the class `classes[i]`."""

    starts: np.ndarray
    classes: np.ndarray


class Merges(NamedTuple):
    """The merges, ordered by `keys`: left id * `base` + right id; a last key, above all others, ends the search.

    Attributes:
        ranks: the merge with the lowest comes first.
        products: what a pair becomes.
        alone: whether a merge can make a pair of a lower rank than its own, so that other places have to wait.
    """

    base: np.ndarray
    keys: np.ndarray
    ranks: np.ndarray
    products: np.ndarray
    alone: np.ndarray


def all_text() -> tuple[str, np.ndarray]:
    """Returns a text of every code point that a text can have, and these code points."""
    codes = np.array([code for code in range(0x110000) if code not in SURROGATES], np.int32)
    return "".join(map(chr, codes.tolist())), codes


@cache
def character_classes() -> Ranges:
    """Returns the classes of all characters, as the regular expressions of the installed `tokenizers` have them.

    TensorFlow's expressions know other versions of Unicode, and have no lookahead.
    """
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    text, codes = all_text()
    classes = np.full(0x110000, OTHER, np.int32)
    for number, pattern in PATTERNS.items():
        for _, (start, end) in Split(Regex(pattern), "removed", invert=True).pre_tokenize_str(text):
            classes[codes[start:end]] = number
    starts = np.flatnonzero(np.diff(classes, prepend=-1))
    return Ranges(starts.astype(np.int32), classes[starts])


def byte_symbols() -> list[str]:
    """Returns the character that stands for each byte."""
    from gptzoo.tokenization._gpt2 import byte_characters

    symbols = byte_characters()
    return [symbols[byte] for byte in range(256)]


def merge_table(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Merges:
    """Returns the merges of a vocabulary; of a pair that is there twice, the later rank counts."""
    base = max(vocab.values(), default=0) + 1
    rows = {(vocab[a], vocab[b]): (rank, vocab[a + b]) for rank, (a, b) in enumerate(merges)}
    used: dict[int, int] = {}  # the lowest rank of a merge that a token is part of
    for pair, (rank, _) in rows.items():
        for token in pair:
            used[token] = min(used.get(token, rank), rank)
    found = sorted((a * base + b, rank, product) for (a, b), (rank, product) in rows.items())
    keys, ranks, products = np.array([*found, (np.iinfo(np.int64).max, NEVER, 0)], np.int64).T
    alone = np.array([used.get(product, NEVER) < rank for _, rank, product in found] + [False])
    return Merges(np.array(base, np.int64), keys, ranks.astype(np.int32), products.astype(np.int32), alone)


def unreachable(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], suffix: str) -> list[dict[str, Any]]:
    """Returns the tokens that no text can become: no single characters and not merged, such as `<|endoftext|>`."""
    merged = {a + b for a, b in merges}
    reached = (token for token in vocab if token in merged or len(token.removesuffix(suffix)) == 1)
    return [{"id": vocab[token], "content": token} for token in vocab.keys() - set(reached)]
