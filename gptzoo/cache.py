"""Caches of keys and values: what a model call returns, takes back, and takes from older libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gptzoo._settings import whole
from gptzoo.config import GPTConfig
from gptzoo.errors import InputError

Layers = tuple[tuple[Any, Any], ...]


class StaticCache(NamedTuple):
    """A cache of fixed capacity: shapes do not change from step to step, so a compiled call compiles once.

    Attributes:
        layers: a (key, value) pair for each block, each (B, n_head, capacity, head_dim), of the heads that are
            not pruned.
        length: how many tokens are filled in; an integer array of rank 0.
    """

    layers: Layers
    length: Any

    @property
    def capacity(self) -> int:
        return int(self.layers[0][0].shape[2])


class OwnedCache(StaticCache):
    """A static cache that nobody reads any more who gives it to a call: that may write into its arrays."""

    __slots__ = ()


def normalise_past(past: Any, n_layer: int, swap: Callable[[Any], Any]) -> Layers | StaticCache | None:
    """Brings any layout of `past_key_values` to a tuple of (key, value) pairs or to a StaticCache.

    Args:
        past: a StaticCache; n_layer pairs, or None or pairs of None where nothing is cached; n_layer arrays (2, B,
            n_head, S, head_dim), as TensorFlow's models had; or the nested dict of Flax's linen models, whose keys are
            (B, capacity, n_head, head_dim).
        n_layer: number of blocks.
        swap: exchanges axes 1 and 2 of an array.

    Raises:
        InputError: anything else.
    """
    if past is None:
        return None
    if isinstance(past, StaticCache):
        if len(past.layers) != n_layer:
            raise InputError(f"past_key_values: {len(past.layers)} layers, expected {n_layer}")
        return past
    if isinstance(past, Mapping):
        return _from_linen(past, n_layer, swap)
    if not isinstance(past, Sequence):
        raise InputError(f"past_key_values: {_kind(past)}, expected {n_layer} pairs (give attention_mask by its name)")
    if len(past) != n_layer:
        raise InputError(f"past_key_values: {len(past)} entries, expected {n_layer} pairs")
    pairs = tuple(_pair(layer, i) for i, layer in enumerate(past))
    if all(key is None and value is None for key, value in pairs):
        return None
    if missing := [i for i, pair in enumerate(pairs) if pair[0] is None or pair[1] is None]:
        raise InputError(f"past_key_values: nothing in entry {missing[0]}, expected keys and values as in the others")
    return pairs


def _pair(layer: Any, i: int) -> tuple[Any, Any]:
    if layer is None:
        return None, None
    shape = getattr(layer, "shape", None)
    stacked = shape is not None and len(shape) == 5 and shape[0] == 2
    # Older models with cross-attention cached the encoder's keys and values too: these are computed anew.
    if stacked or (isinstance(layer, Sequence) and len(layer) in (2, 4) and all(map(_is_array_or_none, layer))):
        return layer[0], layer[1]
    raise InputError(f"past_key_values: entry {i} is {_kind(layer)}, expected a pair (key, value)")


def _is_array_or_none(x: Any) -> bool:
    return x is None or hasattr(x, "shape")


def cache_shapes(config: GPTConfig, batch_size: int, max_length: int) -> list[tuple[int, int, int, int]]:
    """Returns the shape of the keys, and of the values, of each block of a StaticCache.

    Raises:
        InputError: no such cache can be, or the config has fewer positions.
    """
    rows, length = whole(batch_size) or 0, whole(max_length) or 0
    problems = []
    if rows < 1:
        problems.append(f"batch_size: {batch_size!r}, expected an integer of at least 1")
    if not 1 <= length <= config.n_positions:
        problems.append(f"max_length: {max_length!r}, expected 1 to {config.n_positions} (n_positions)")
    if problems:
        raise InputError.listing("init_cache", problems)
    counts = [len(config.kept_heads(block)) for block in range(config.n_layer)]
    return [(rows, n_head, length, config.head_dim) for n_head in counts]


def past_length(past: Any) -> Any:
    """Returns how many tokens a cache holds: an int, or for a StaticCache its `length`."""
    if isinstance(past, StaticCache):
        return past.length
    return past[0][0].shape[2] if past else 0


def _from_linen(past: Mapping[str, Any], n_layer: int, swap: Callable[[Any], Any]) -> StaticCache:
    try:
        blocks = past.get("transformer", past)["h"]
        attention = [blocks[str(i)]["attn"] for i in range(n_layer)]
        layers = tuple((swap(block["cached_key"]), swap(block["cached_value"])) for block in attention)
        return StaticCache(layers, attention[0]["cache_index"])
    except (KeyError, TypeError) as problem:
        raise InputError(f"past_key_values: a dict without Flax's cache layout (at {problem})") from None


def _kind(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"an array of shape {tuple(shape)}" if shape is not None else f"a {type(value).__name__}"
