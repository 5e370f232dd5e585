"""What the options of generate accept, of values in Python's own types."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import field
from numbers import Real
from typing import Any

from gptzoo._settings import Rule, is_int, whole
from gptzoo.generation._sampling import ROW_LIMIT, SEED_LIMIT

_WRITTEN_KEY = re.compile(r"\(\s*\d+\s*(,\s*\d+\s*)*,?\s*\)", re.ASCII)  # how Transformers writes a tuple
_DEPTH = 4  # of the deepest option, a list of pairs of lists, and its elements


def _at_least(low: int) -> Rule:
    return Rule(f"an integer of at least {low}", lambda value: is_int(value) and value >= low)


def _number(expected: str, fits: Callable[[Any], bool]) -> Rule:
    """A number that is a finite float, and fits."""
    largest = sys.float_info.max
    return Rule(
        f"a number {expected}".rstrip(),
        lambda value: (is_int(value) or isinstance(value, float)) and -largest <= value <= largest and fits(value),
    )


def _list_of(expected: str, fits: Callable[[Any], bool]) -> Rule:
    return Rule(f"a list of {expected}", lambda value: isinstance(value, list) and all(map(fits, value)))


def _is_word(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_int, value))


def _is_bias(value: Any) -> bool:
    if isinstance(value, dict):
        value = [[list(ids) if isinstance(ids, tuple) else ids, bias] for ids, bias in value.items()]
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and _is_word(pair[0]) and ANY_NUMBER.accepts(pair[1])
        for pair in value
    )


def _is_decay(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and NOT_NEGATIVE.accepts(value[0]) and ABOVE_0.accepts(value[1])


def _is_seed(value: Any) -> bool:
    return is_int(value) and 0 <= value < SEED_LIMIT


def _is_key(value: Any) -> bool:
    pair = value if isinstance(value, list) else [value, 0]
    return len(pair) == 2 and _is_seed(pair[0]) and is_int(pair[1]) and 0 <= pair[1] < ROW_LIMIT


FLAG = Rule("True or False", lambda value: isinstance(value, bool))
POSITIVE, NOT_NEGATIVE = _at_least(1), _at_least(0)
ANY_NUMBER = _number("", lambda _: True)
POWER = _number("from -50 to 50", lambda value: -50 <= value <= 50)  # of lengths: the result is a number
ABOVE_0 = _number("above 0", lambda value: value > 0)
SHARE = _number("above 0, to 1", lambda value: 0 < value <= 1)
RATE = _number("from 0 to 1", lambda value: 0 <= value <= 1)
CUTOFF = _number("from 0 to below 1", lambda value: 0 <= value < 1)
TOP = Rule("an integer of at least 1, or None for all", NOT_NEGATIVE.accepts)
TOKEN = Rule("a token id", is_int)
TOKENS = _list_of("token ids", is_int)
TOKEN_OR_TOKENS = Rule("a token id, or a list of them", lambda value: is_int(value) or TOKENS.accepts(value))
WORDS = _list_of("lists of token ids", _is_word)
BIAS = Rule("numbers by tuples of token ids, or a list of pairs [[id, ...], number]", _is_bias)
DECAY = Rule("(new tokens, a number above 0)", _is_decay)
EARLY = Rule('True, False or "never"', lambda value: isinstance(value, bool) or value == "never")
TEXTS = Rule(
    "a text, or a list of them, none empty",
    lambda value: all(isinstance(text, str) and text for text in (value if isinstance(value, list) else [value])),
)
SEED = Rule(
    "an integer from 0 to 2**64 - 1, or a list of them, or of pairs of one and a row's number below 2**32",
    lambda value: all(map(_is_key, value)) if isinstance(value, list) else _is_seed(value),
)


def option(default: Any, rule: Rule, needs: str | None = None, none: Any = None) -> Any:
    """A field that is None where nothing was said.

    Args:
        default: what holds where nobody says anything.
        needs: the option without which a call may not ask for this one.
        none: what None means in a call, if that is not the default.
    """
    metadata = {"default": default, "rule": rule, "needs": needs, "none": default if none is None else none}
    return field(default=None, metadata=metadata)


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """Returns a value in Python's own types: tuples as lists, numbers of NumPy and of frameworks as int and float."""
    if value is None or isinstance(value, bool | str):
        return value
    if callable(getattr(value, "tolist", None)):  # arrays of NumPy, PyTorch and JAX, and NumPy's numbers
        return plain(value.tolist(), depth)
    if (number := whole(value)) is not None:
        return number
    if isinstance(value, Real):
        with suppress(OverflowError):
            return float(value)
    if isinstance(value, list | tuple | range) and depth:
        return [plain(entry, depth - 1) for entry in value]
    if isinstance(value, dict) and depth:
        return {_ids(key): plain(entry, depth - 1) for key, entry in value.items()}
    return value


def _ids(key: Any) -> Any:
    """Returns the ids that are a key of `sequence_bias`; any other key as it is."""
    if isinstance(key, str) and len(key) < 1000 and _WRITTEN_KEY.fullmatch(key):
        return tuple(map(int, re.findall(r"\d+", key)))
    return tuple(plain(list(key))) if isinstance(key, tuple) else key
