"""Rows of tokens: how they are cut, filled up, and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Encoding

from gptzoo.errors import InputError
from gptzoo.tokenization._arguments import Call

# What pads each array of an encoding, beside `input_ids`.
FILLS = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}


# How each array of a call is read from a row.
READ: dict[str, Any] = {
    "input_ids": lambda row: row.ids,
    "token_type_ids": lambda row: _types(row),
    "attention_mask": lambda row: row.attention_mask,
    "special_tokens_mask": lambda row: row.special_tokens_mask,
    "offset_mapping": lambda row: row.offsets,
    "length": len,
}


def _types(row: Encoding) -> list[int]:
    """The type of each token; overflowing ones of a second text have that of the first in `type_ids`."""
    return [1 if text == 1 else kind for text, kind in zip(row.sequence_ids, row.type_ids, strict=True)]


def shares(first: int, second: int | None, room: int, strategy: str) -> tuple[int, int]:
    """Returns how many tokens of each text stay.

    Raises:
        InputError: the text that is to be cut is too short.
    """
    if room < 0:
        raise InputError(f"max_length: {-room} tokens too few for the special tokens alone")
    excess = first + (second or 0) - room
    if excess <= 0:
        return first, second or 0
    if strategy == "longest_first":
        return _evened(first, second or 0, room)
    lengths = {"only_first": first, "only_second": second}
    cut = lengths[strategy]
    if cut is None:
        raise InputError("truncation: 'only_second', but there is no second text")
    if cut <= excess:
        raise InputError(f"truncation: {strategy!r}, but its text has {cut} tokens, and {excess} have to go")
    return (first - excess, second or 0) if strategy == "only_first" else (first, cut - excess)


def _evened(first: int, second: int, room: int) -> tuple[int, int]:
    """Takes from the longer text until both are as long, then from both."""
    short_one, long_one = sorted((first, second))
    if 2 * short_one <= room:
        long_one = room - short_one
    else:
        short_one, long_one = room // 2, room - room // 2
    return (short_one, long_one) if first <= second else (long_one, short_one)


def padded_length(lengths: Sequence[int], call: Call) -> int:
    """Returns the length that rows are padded to; longer ones stay as they are."""
    if call.padding == "do_not_pad":
        return 0
    length = call.max_length if call.padding == "max_length" else max(lengths, default=0)
    return -(-(length or 0) // call.multiple) * call.multiple


def filled(row: list[int], length: int, fill: Any, side: str) -> list[int]:
    padding = [fill] * (length - len(row))
    return row + padding if side == "right" else padding + row
