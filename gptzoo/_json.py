"""JSON files read strictly: one meaning per file, bounded size and depth, errors that name the file."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from gptzoo import limits
from gptzoo._files import stand_in
from gptzoo.errors import GPTZooError


def read_json_object(path: Path, error: type[GPTZooError], max_bytes: int = limits.MAX_JSON_BYTES) -> dict[str, Any]:
    """Reads a JSON file that holds one object.

    Raises:
        error: the file is absent, too large, not UTF-8, not JSON, too deep, not an object, or says a key twice.
    """
    text = _read_text(path, error, max_bytes)
    try:
        value = parse_json(text)
    except ValueError as problem:
        raise error(f"{path}: {problem}") from None
    if not isinstance(value, dict):
        raise error(f"{path}: holds a JSON {type(value).__name__}, expected an object")
    return value


def parse_json(text: str) -> Any:
    """Parses JSON in which no key stands twice, no number is NaN or infinite, and nesting is bounded.

    Raises:
        ValueError: says what is wrong with the text, for the caller to name the file.
    """
    too_deep = f"nested too deeply (more than {limits.MAX_JSON_DEPTH} levels)"
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(too_deep) from None
    except ValueError as problem:  # json.JSONDecodeError is one
        if diagnosis := stand_in(text[:64].encode(), "JSON"):
            raise ValueError(diagnosis) from None
        raise ValueError(f"not valid JSON ({problem})") from None
    if _depth(value) > limits.MAX_JSON_DEPTH:
        raise ValueError(too_deep)
    return value


def _read_text(path: Path, error: type[GPTZooError], max_bytes: int) -> str:
    try:
        if not path.is_file():  # also keeps us from waiting on a pipe for ever
            raise error(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
        size = path.stat().st_size
        if size > max_bytes:
            raise error(f"{path}: {size} bytes, expected at most {max_bytes}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: not UTF-8 text ({problem.reason} at byte {problem.start})") from None
    except OSError as problem:
        raise error(f"{path}: {problem.strerror or problem}") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {key!r} stands twice")
        result[key] = value
    return result


def _no_constant(token: str) -> Hashable:
    raise ValueError(f"{token} is not a JSON number")


def _depth(value: Any) -> int:
    """Depth of nested lists and objects, found without recursion."""
    deepest, stack = 0, [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            stack += [(child, depth + 1) for child in (item.values() if isinstance(item, dict) else item)]
    return deepest
