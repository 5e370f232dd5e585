"""Checks of a call's arguments before any computation, so that the three twins refuse alike.

Shapes and dtypes are always looked at; values only where they lie in host memory, where looking costs nothing: not in
compiled code and not on an accelerator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptzoo.cache import StaticCache
from gptzoo.config import GPTConfig
from gptzoo.errors import InputError

Shape = tuple[Any, ...]  # ints; None: not known yet, as in a tf.function with a free dimension

IGNORED = -100  # a label that is not counted


@dataclass(frozen=True)
class ArrayKind:
    """What a framework's arrays are, and how to look into them.

    Attributes:
        is_array: whether a model takes it for an array.
        name: what to call one in a message: "a torch.Tensor".
        host_values: returns the values of an array if they are known and in host memory, otherwise None.
    """

    is_array: Callable[[Any], bool]
    name: str
    host_values: Callable[[Any], np.ndarray | None]


def check_inputs(config: GPTConfig, kind: ArrayKind, past: Any = None, **arrays: Any) -> Shape:
    """Checks that the arrays of a call fit each other and the config.

    Args:
        kind: of the arrays.
        past: normalised `past_key_values`.
        arrays: the call's arrays by argument name; those not given are None.

    Returns:
        The shape of the tokens, (B, T) or (B, C, T), whose last axis is the new tokens.

    Raises:
        InputError: lists every argument that does not fit.
    """
    if problems := [*input_problems(config, kind, past, **arrays)]:
        raise InputError.listing(f"{config.class_prefix} model call", problems)
    return token_shape(config, arrays)[0]


def input_problems(config: GPTConfig, kind: ArrayKind, past_key_values: Any = None, **arrays: Any) -> Iterable[str]:
    """Yields what is wrong with the arrays of a call: see `check_inputs`."""
    given = {name: array for name, array in arrays.items() if array is not None}
    if problems := [*_wrong_kinds(kind, given)]:
        yield from problems
        return
    tokens, problem = token_shape(config, given)
    if problem:
        yield problem
        return
    past = past_key_values
    call = _Call(config, past, tokens, {name: tuple(x.shape) for name, x in given.items()})
    call.cached, problem = _cached(kind, past)
    yield from [problem] if problem else _length_problems(call)
    yield from _cache_problems(call, kind)
    for name, check in _CHECKS.items():
        if name in given and (expected := check(call, call.shapes[name])):
            yield f"{name}: shape {show(call.shapes[name])}, expected {expected}"
    for name, (low, field) in _RANGES.items():
        if name in given:
            yield from range_problems(kind, name, given[name], low, getattr(config, field) - 1, field)
    for name in _FLOATS:
        if name in given and "complex" in str(given[name].dtype):
            yield f"{name}: dtype {dtype_of(given[name])}, expected real numbers"
    if "encoder_hidden_states" in given and not config.add_cross_attention:
        yield "encoder_hidden_states: given, but the config has no add_cross_attention"


def range_problems(
    kind: ArrayKind, name: str, array: Any, low: int, high: Any, of: str = "", ignored: int | None = None
) -> Iterable[str]:
    """Yields what is wrong with an array of indices: its dtype, or values outside low to high.

    Args:
        high: largest index; None: not known yet.
        of: what sets the largest index, for the message.
        ignored: a value that is allowed besides.
    """
    if not is_whole(array):
        yield f"{name}: dtype {dtype_of(array)}, expected integers"
        return
    values = kind.host_values(array)
    if values is None or high is None:
        return
    if ignored is not None:
        values = values[values != ignored]
    if values.size and not (low <= values.min() and values.max() <= high):
        outside = sorted({int(value) for value in (values.min(), values.max()) if not low <= value <= high})
        also = "" if ignored is None else f", or {ignored} for none"
        expected = f"{low} to {high}" + (f" ({of})" if of else "") + also
        yield f"{name}: {' and '.join(map(str, outside))}, expected {expected}"


def fits(shape: Shape, expected: Shape) -> bool:
    """Whether two shapes can be equal, as far as they are known."""
    return len(shape) == len(expected) and all(
        None in pair or pair[0] == pair[1] for pair in zip(shape, expected, strict=True)
    )


def show(shape: Shape) -> str:
    return "(" + ", ".join("?" if dim is None else str(dim) for dim in shape) + ("," if len(shape) == 1 else "") + ")"


def is_whole(array: Any) -> bool:
    """Whether an array is of integers."""
    return "int" in str(array.dtype)


def dtype_of(array: Any) -> str:
    """Returns an array's dtype as people write it: torch.float32, <dtype: 'float32'> and float32 are float32."""
    return str(getattr(array.dtype, "name", array.dtype)).removeprefix("torch.")


@dataclass
class _Call:
    """A call's shapes, and how many tokens are cached; None: not known yet."""

    config: GPTConfig
    past: Any
    tokens: Shape
    shapes: dict[str, Shape]
    cached: int | None = 0

    @property
    def total(self) -> int | None:
        """Cached and new tokens."""
        new = self.tokens[-1]
        return None if new is None or self.cached is None else self.cached + new


def _wrong_kinds(kind: ArrayKind, given: dict[str, Any]) -> Iterable[str]:
    for name, array in given.items():
        if not kind.is_array(array):
            found = "a NumPy array" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            yield f"{name}: {found}, expected {kind.name}"


def token_shape(config: GPTConfig, given: Mapping[str, Any]) -> tuple[Shape, str | None]:
    """Returns the shape of the tokens, or what makes it impossible to say."""
    ids, embeds = given.get("input_ids"), given.get("inputs_embeds")
    if (ids is None) == (embeds is None):
        return (), f"give one of input_ids and inputs_embeds; {'neither' if ids is None else 'both'} given"
    if ids is not None:
        shape = tuple(ids.shape)
        wrong = len(shape) < 2
        return shape, f"input_ids: shape {show(shape)}, expected (batch, tokens)" if wrong else None
    assert embeds is not None
    shape = tuple(embeds.shape)
    wrong = len(shape) < 3 or shape[-1] != config.n_embd
    expected = f"(batch, tokens, {config.n_embd})"
    return shape[:-1], f"inputs_embeds: shape {show(shape)}, expected {expected}" if wrong else None


def _cached(kind: ArrayKind, past: Any) -> tuple[int | None, str | None]:
    """Returns how many tokens are cached, None if that is not known yet; or what is wrong with a cache's length."""
    if not isinstance(past, StaticCache):
        return (past[0][0].shape[2] if past and len(past[0][0].shape) == 4 else 0), None
    length: Any = past.length
    if not isinstance(length, int):
        if not kind.is_array(length) or len(length.shape) or not is_whole(length):
            return None, f"past_key_values: length {length!r:.40}, expected an integer of rank 0"
        values = kind.host_values(length)
        length = None if values is None else int(values)
    if length is not None and length < 0:
        return None, f"past_key_values: length {length}, expected at least 0"
    return length, None


def _cache_problems(call: _Call, kind: ArrayKind) -> Iterable[str]:
    """Every key and value has a row for each row of tokens, and as many tokens as the others."""
    if call.past is None:
        return
    rows = None if None in call.tokens[:-1] else math.prod(call.tokens[:-1])
    layers = call.past.layers if isinstance(call.past, StaticCache) else call.past
    first = tuple(layers[0][0].shape)
    length = first[2] if len(first) == 4 else None
    named = [
        (f"{name} {i}", x, (rows, len(call.config.kept_heads(i)), length, call.config.head_dim))
        for i, pair in enumerate(layers)
        for name, x in zip(("key", "value"), pair, strict=True)
    ]
    wrong = [f"{name} is a {type(x).__name__}, expected {kind.name}" for name, x, _ in named if not kind.is_array(x)]
    for name, x, want in named:
        if kind.is_array(x) and not fits(tuple(x.shape), want):
            wrong.append(f"{name} has shape {show(tuple(x.shape))}, expected {show(want)}")
    if wrong:
        yield f"past_key_values: {wrong[0]}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")


def _length_problems(call: _Call) -> Iterable[str]:
    new, static = call.tokens[-1], isinstance(call.past, StaticCache)
    room = call.past.capacity if static else call.config.n_positions
    if new is None or (new >= 1 and (call.cached or 0) + new <= room):
        return
    held = f"{call.cached} cached and {new} new" if call.cached else f"{new}"
    yield f"{held} tokens, expected 1 to {room} ({'n_positions' if call.past is None else 'in all'})"


def _like_tokens(call: _Call, shape: Shape) -> str | None:
    return None if fits(shape, call.tokens) else show(call.tokens)


def _mask(call: _Call, shape: Shape) -> str | None:
    """One column for each cached and new token; with a static cache, from the new tokens up to its capacity."""
    rows = call.tokens[:-1]
    if isinstance(call.past, StaticCache):
        known, least = bool(shape) and isinstance(shape[-1], int), call.tokens[-1]
        good = not known or least is None or least <= shape[-1] <= call.past.capacity
        return None if good and fits(shape[:-1], rows) else show((*rows, call.past.capacity))
    if fits(shape, (*rows, call.total)):
        return None
    held = f" ({call.cached} cached and {call.tokens[-1]} new tokens)" if call.cached else ""
    return show((*rows, call.total)) + held


def _positions(call: _Call, shape: Shape) -> str | None:
    good = (call.tokens, (1, call.tokens[-1]), call.tokens[-1:])
    return None if any(fits(shape, want) for want in good) else show(call.tokens)


def _heads(call: _Call, shape: Shape) -> str | None:
    good = ((call.config.n_head,), (call.config.n_layer, call.config.n_head))
    return None if shape in good else f"{show(good[0])} or {show(good[1])}"


def _encoder(call: _Call, shape: Shape) -> str | None:
    rows = None if None in call.tokens[:-1] else math.prod(call.tokens[:-1])
    want = (rows, None, call.config.n_embd)
    return None if fits(shape, want) else show(want)


def _encoder_mask(call: _Call, shape: Shape) -> str | None:
    if "encoder_hidden_states" not in call.shapes:
        return "to come with encoder_hidden_states"
    want = call.shapes["encoder_hidden_states"][:2]
    return None if fits(shape, want) or fits(shape, (*want[:1], 1, *want[1:])) else show(want)


_CHECKS: dict[str, Callable[[_Call, Shape], str | None]] = {
    "attention_mask": _mask,
    "token_type_ids": _like_tokens,
    "position_ids": _positions,
    "head_mask": _heads,
    "encoder_hidden_states": _encoder,
    "encoder_attention_mask": _encoder_mask,
}

_FLOATS = ("head_mask", "inputs_embeds", "encoder_hidden_states")

# Arrays of indices -> their smallest, and the config field that their largest is one below.
_RANGES = {
    "input_ids": (0, "vocab_size"),
    "token_type_ids": (0, "vocab_size"),
    "position_ids": (0, "n_positions"),
}
