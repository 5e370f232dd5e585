"""Checks of a call's arguments, by their shapes alone, so that the three twins refuse alike and no device waits."""

from __future__ import annotations

import math
from typing import Any

from gptzoo.cache import StaticCache
from gptzoo.config import GPTConfig
from gptzoo.errors import InputError

Shape = tuple[Any, ...]  # ints; None: not known yet, as in a tf.function with a free dimension


def check_inputs(config: GPTConfig, past: Any = None, **arrays: Any) -> Shape:
    """Checks that the arrays of a call fit each other and the config.

    Args:
        past: normalised `past_key_values`.
        arrays: the call's arrays by argument name; those not given are None.

    Returns:
        The shape of the tokens, (B, T) or (B, C, T), whose last axis is the new tokens.

    Raises:
        InputError: lists every argument that does not fit.
    """
    shapes: dict[str, Shape] = {name: tuple(array.shape) for name, array in arrays.items() if array is not None}
    tokens = _token_shape(config, shapes)
    problems: list[str] = []
    cached = past[0][0].shape[2] if past and not isinstance(past, StaticCache) else 0
    room = past.capacity if isinstance(past, StaticCache) else config.n_positions
    if tokens[-1] is not None and cached is not None and not 1 <= cached + tokens[-1] <= room:
        held = f"{cached} cached and {tokens[-1]} new" if cached else f"{tokens[-1]}"
        problems.append(f"{held} tokens, expected 1 to {room} ({'n_positions' if past is None else 'in all'})")
    for name, shape in shapes.items():
        if (check := _CHECKS.get(name)) and (problem := check(config, shape, tokens, cached, past, shapes)):
            problems.append(f"{name}: shape {_show(shape)}, expected {problem}")
    if "encoder_hidden_states" in shapes and not config.add_cross_attention:
        problems.append("encoder_hidden_states: given, but the config has no add_cross_attention")
    if problems:
        raise InputError.listing(f"call of a {config.class_prefix} model", problems)
    return tokens


def _token_shape(config: GPTConfig, shapes: dict[str, Shape]) -> Shape:
    ids, embeds = shapes.get("input_ids"), shapes.get("inputs_embeds")
    if (ids is None) == (embeds is None):
        found = "neither" if ids is None else "both"
        raise InputError(f"give one of input_ids and inputs_embeds; {found} given")
    if ids is not None:
        if len(ids) < 2:
            raise InputError(f"input_ids: shape {_show(ids)}, expected (batch, tokens)")
        return ids
    assert embeds is not None
    if len(embeds) < 3 or embeds[-1] != config.n_embd:
        raise InputError(f"inputs_embeds: shape {_show(embeds)}, expected (batch, tokens, {config.n_embd})")
    return embeds[:-1]


def fits(shape: Shape, expected: Shape) -> bool:
    """Whether two shapes can be equal, as far as they are known."""
    return len(shape) == len(expected) and all(
        None in pair or pair[0] == pair[1] for pair in zip(shape, expected, strict=True)
    )


def _like_tokens(config: Any, shape: Shape, tokens: Shape, *_: Any) -> str | None:
    return None if fits(shape, tokens) else _show(tokens)


def _mask(config: Any, shape: Shape, tokens: Shape, cached: Any, past: Any, shapes: Any) -> str | None:
    """One column for each cached and new token; with a static cache, from the new tokens up to its capacity."""
    if isinstance(past, StaticCache):
        known = isinstance(shape[-1], int) and isinstance(tokens[-1], int)
        good = not known or tokens[-1] <= shape[-1] <= past.capacity
        return None if good and fits(shape[:-1], tokens[:-1]) else f"{_show((*tokens[:-1], past.capacity))}"
    total = None if tokens[-1] is None or cached is None else tokens[-1] + cached
    if fits(shape, (*tokens[:-1], total)):
        return None
    return f"{_show((*tokens[:-1], total))}" + (f" ({cached} cached and {tokens[-1]} new tokens)" if cached else "")


def _positions(config: Any, shape: Shape, tokens: Shape, *_: Any) -> str | None:
    good = (tokens, (1, tokens[-1]), tokens[-1:])
    return None if any(fits(shape, want) for want in good) else _show(tokens)


def _heads(config: GPTConfig, shape: Shape, *_: Any) -> str | None:
    good = ((config.n_head,), (config.n_layer, config.n_head))
    return None if shape in good else f"{_show(good[0])} or {_show(good[1])}"


def _encoder(config: GPTConfig, shape: Shape, tokens: Shape, *_: Any) -> str | None:
    rows = None if None in tokens[:-1] else math.prod(tokens[:-1])
    want = (rows, None, config.n_embd)
    return None if fits(shape, want) else _show(want)


def _encoder_mask(config: Any, shape: Shape, tokens: Shape, cached: Any, past: Any, shapes: Any) -> str | None:
    if "encoder_hidden_states" not in shapes:
        return "to come with encoder_hidden_states"
    want = shapes["encoder_hidden_states"][:2]
    return None if fits(shape, want) or fits(shape, (want[0], 1, want[1])) else _show(want)


def _show(shape: Shape) -> str:
    return "(" + ", ".join("?" if dim is None else str(dim) for dim in shape) + ("," if len(shape) == 1 else "") + ")"


_CHECKS = {
    "attention_mask": _mask,
    "token_type_ids": _like_tokens,
    "position_ids": _positions,
    "head_mask": _heads,
    "encoder_hidden_states": _encoder,
    "encoder_attention_mask": _encoder_mask,
}


def check_labels(labels: Any, input_ids: Any, inputs_embeds: Any) -> None:
    """Checks that there is a label for each token.

    Raises:
        InputError: their shapes differ.
    """
    if labels is None or (input_ids is None and inputs_embeds is None):  # the backbone refuses the latter
        return
    tokens = tuple(input_ids.shape) if input_ids is not None else tuple(inputs_embeds.shape[:-1])
    if not fits(tuple(labels.shape), tokens):
        raise InputError(f"labels: shape {_show(tuple(labels.shape))}, expected {_show(tokens)}")
