"""What a tokenizer in a graph is made from: a vocabulary, found right, or a tokenizer that is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptzoo._settings import is_int, short
from gptzoo._tensors import shown
from gptzoo.errors import InputError
from gptzoo.keras._tokenizer_tables import byte_symbols, merge_table, unreachable

FLAGS = ("lstrip", "rstrip", "single_word")  # of an added token, which the graph has not
# Of a tokenizer.json: places -> the values with which it is what the graph computes.
BPE: dict[str, tuple[Any, ...]] = {
    "model.type": ("BPE",),
    "model.dropout": (None, 0.0),
    "model.continuing_subword_prefix": (None, ""),
    "model.byte_fallback": (None, False),
    "model.ignore_merges": (None, False),
    "model.fuse_unk": (None, False),
}
MAX_ID = 2**31  # ids are int32 inside


class Vocabulary:
    """Tokens, merges, and the tokens that are kept whole, found right; Keras tracks dicts and lists, but not this.

    Args:
        vocab: token -> id.
        merges: pairs of tokens, or texts of two with a space between.
        added_tokens: tokens that are kept whole; None: those that no text can become.
        suffix: of tokens that end a word.

    Raises:
        InputError: lists every wrong entry.
    """

    def __init__(self, vocab: Any, merges: Any, added_tokens: Any, suffix: str):
        if not isinstance(vocab, Mapping):
            raise InputError(f"vocab: {shown(vocab)}, expected a map from tokens to ids")
        if not isinstance(merges, list | tuple):
            raise InputError(f"merges: {shown(merges)}, expected a list of pairs")
        self.ids = dict(vocab)
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
        if problems := [*id_faults(self.ids), *merge_faults(self.ids, pairs)]:
            raise InputError.listing("vocabulary", problems)
        self.merges = [(left, right) for left, right in pairs]
        added = unreachable(self.ids, self.merges, suffix) if added_tokens is None else added_tokens
        if problems := [problem for token in added for problem in added_faults(token)]:
            raise InputError.listing("added_tokens", problems)
        # Tokenizers look for those first that a normalizer does not touch, whether they have one or not.
        self.added = sorted(map(dict, added), key=is_late)
        self.first = [token["content"] for token in self.added if not is_late(token)]
        self.late = [token["content"] for token in self.added if is_late(token)]
        self.kept = [token["id"] for token in self.added]
        self.table = merge_table(self.ids, self.merges)

    def has(self, number: int) -> bool:
        """Whether a token has this id."""
        return number in self.ids.values() or number in self.kept

    def byte_ids(self, unknown: int | None) -> np.ndarray:
        """Returns the id of each byte; -1 where there is none."""
        missing = -1 if unknown is None else unknown
        return np.array([self.ids.get(symbol, missing) for symbol in byte_symbols()], np.int32)


def is_late(token: Mapping[str, Any]) -> bool:
    return bool(token.get("normalized", False))


def id_faults(ids: Mapping[Any, Any]) -> list[str]:
    """Lists tokens that are no texts, and ids that are no integers or are given twice."""
    problems, seen = [], dict[int, str]()
    for token, number in ids.items():
        if not isinstance(token, str):
            problems.append(f"vocab: {shown(token)}, expected a text")
        elif not is_int(number) or not 0 <= number < MAX_ID:
            problems.append(f"vocab: {shown(token)}: id {short(number)}, expected an integer from 0 below {MAX_ID}")
        elif number in seen:
            problems.append(f"vocab: {shown(token)}: id {number}, which {shown(seen[number])} has too")
        else:
            seen[number] = token
    return problems


def merge_faults(ids: Mapping[str, int], merges: Sequence[Any]) -> list[str]:
    """Lists merges that are no pairs, or of tokens that the vocabulary lacks."""
    problems = []
    for number, pair in enumerate(merges):
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(x, str) and x for x in pair):
            problems.append(f"merges: {number}: {shown(pair)}, expected two tokens")
        elif absent := [token for token in (*pair, pair[0] + pair[1]) if token not in ids]:
            problems.append(f"merges: {number}: {shown(absent[0])} is not in the vocabulary")
    return problems


def added_faults(token: Any) -> list[str]:
    """Lists what is wrong with a token that is kept whole."""
    if not isinstance(token, Mapping) or not isinstance(token.get("content"), str) or not token["content"]:
        return [f"{shown(token)}, expected a map with content, a text, and id"]
    label = shown(token["content"])
    problems = [f"{label}: {flag} is true, which a graph does not do" for flag in FLAGS if token.get(flag)]
    if not is_int(token.get("id")) or not 0 <= token["id"] < MAX_ID:
        problems.append(f"{label}: id {short(token.get('id'))}, expected an integer from 0 below {MAX_ID}")
    return problems


def read_tokenizer(
    tokenizer: Any, expected: Mapping[str, tuple[Any, ...]], copied: Mapping[str, str]
) -> dict[str, Any]:
    """Returns a tokenizer as arguments of a layer, read from what it runs on.

    Args:
        expected: places in tokenizer.json -> the values that they may have, besides those of `BPE`.
        copied: arguments that only this layer has -> their places in tokenizer.json.

    Raises:
        InputError: lists what the tokenizer does and the layer cannot.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, Tokenizer):
        raise InputError(f"tokenizer: {type(tokenizer).__name__}, expected one on a `tokenizers.Tokenizer`")
    backend = Tokenizer.from_str(backend.to_str())  # a copy, so that no earlier call's length is in its way
    backend.no_truncation()
    backend.no_padding()
    definition = json.loads(backend.to_str())
    found = {place: value_at(definition, place) for place in {**BPE, **expected}}
    if problems := [
        f"{place}: {short(found[place])}, expected {' or '.join(map(repr, values))}"
        for place, values in {**BPE, **expected}.items()
        if found[place] not in values
    ]:
        raise InputError.listing(f"tokenizer {type(tokenizer).__name__}", problems)
    model = definition["model"]
    return {
        "vocab": model["vocab"],
        "merges": model["merges"],
        "added_tokens": definition["added_tokens"],
        "unk_token_id": model["vocab"].get(model["unk_token"]),
        "bos_token_id": bos_token_id(backend),
        "pad_token_id": getattr(tokenizer, "pad_token_id", None),
        "padding_side": getattr(tokenizer, "padding_side", "right"),
        "truncation_side": getattr(tokenizer, "truncation_side", "right"),
        **{name: value_at(definition, place) for name, place in copied.items()},
    }


def value_at(definition: Any, place: str) -> Any:
    """Returns the entry of nested maps; None where there is none."""
    for name in place.split("."):
        definition = definition.get(name) if isinstance(definition, dict) else None
    return definition


def bos_token_id(backend: Any) -> int | None:
    """Returns the id that a tokenizer puts before every text."""
    start = backend.encode("").ids
    if len(start) > 1 or backend.encode("a").ids != start + backend.encode("a", add_special_tokens=False).ids:
        raise InputError(f"tokenizer: puts {start} around a text, expected no more than one token before it")
    return start[0] if start else None
