"""What a config field accepts: in words for the error message, and as a test."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a field accepts, in words and as a test."""

    expected: str
    accepts: Callable[[Any], bool]


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)  # True is an int to Python, not to a reader


def whole(value: Any) -> int | None:
    """Returns an integer of Python, NumPy or a framework as Python's; None for anything else, true and false too."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def class_of(value: Any) -> str:
    """Returns the full name of a value's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def is_number(value: Any) -> bool:
    return is_int(value) or (isinstance(value, float) and math.isfinite(value))


def count(high: int) -> Rule:
    return Rule(f"an integer from 1 to {high}", lambda value: is_int(value) and 1 <= value <= high)


def one_of(*names: str) -> Rule:
    return Rule(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def only(fixed: Any) -> Rule:
    return Rule(f"{json.dumps(fixed)} (not implemented for this family)", lambda value: value is fixed)


def optional(rule: Rule) -> Rule:
    return Rule(f"{rule.expected}, or null", lambda value: value is None or rule.accepts(value))


def labels_of(key: type, value: type) -> Rule:
    def accepts(labels: Any) -> bool:
        return isinstance(labels, dict) and all(type(k) is key and type(v) is value for k, v in labels.items())

    return Rule(f"a map from {key.__name__} to {value.__name__}", accepts)


FLAG = Rule("true or false", lambda value: isinstance(value, bool))
RATE = Rule("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)
POSITIVE = Rule("a number above 0", lambda value: is_number(value) and value > 0)
NOT_NEGATIVE = Rule("a number of at least 0", lambda value: is_number(value) and value >= 0)
TOKEN = Rule("an integer, or null", lambda value: value is None or is_int(value))
TOKENS = Rule(
    "an integer, a list of integers, or null",
    lambda value: TOKEN.accepts(value) or (isinstance(value, list) and all(map(is_int, value))),
)
NAMES = Rule(
    "a list of names, or null",
    lambda value: value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value)),
)


def setting(default: Any, rule: Rule) -> Any:
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata={"rule": rule})
    return field(default=default, metadata={"rule": rule})


def unknown_argument(name: str, *known: Iterable[str]) -> str:
    """Says that there is no such argument, and which one is meant: one of the first names, or else of those after."""
    close = next((found[0] for names in known if (found := get_close_matches(name, names, n=1))), None)
    return f"unknown argument {short(name)}" + (f", did you mean {close}?" if close else "")


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
