"""The model calls of a run, written once: all three twins take the same arguments.

Shapes: R rows, C columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gptzoo._runners import power_of_two
from gptzoo.cache import StaticCache
from gptzoo.generation._namespace import Namespace
from gptzoo.generation._search import Search, State, Step, choose, going

Array = Any  # of the framework
Values = Mapping[str, Any]

SMALLEST_BUCKET = 32


def prefill(
    xp: Namespace,
    model: Any,
    state: State,
    cache: StaticCache,
    width: int,
    call: Callable[..., Any] | None = None,
) -> tuple[Array, StaticCache]:
    """Reads the prompt, which is in the first `width` columns; what is behind it there is hidden by causality.

    Args:
        cache: empty, of as many columns as it will ever hold.
        call: what is called in place of the model, if that is compiled and this should not be.

    Returns:
        The logits (R, V) of the token behind the prompt, and the filled cache.
    """
    output = (call or model)(
        fed(xp, model, state.ids[:, :width]),
        past_key_values=cache,
        attention_mask=state.real[:, : cache.capacity],
        use_cache=True,
        logits_to_keep=xp.reshape(state.length - 1, (1,)),
        return_dict=True,
    )
    return output.logits[:, 0], output.past_key_values


def advance(xp: Namespace, model: Any, state: State, cache: StaticCache | None) -> tuple[Array, StaticCache | None]:
    """Reads the last token, or without a cache as many of the last columns as the model has positions.

    Returns:
        The logits (R, V) of the next token, and the cache.
    """
    if cache is None:
        return recompute(xp, model, state), None
    logits, cache = verify(xp, model, state, cache, 1)
    return logits[:, 0], cache


def verify(xp: Namespace, model: Any, state: State, cache: StaticCache, width: int) -> tuple[Array, StaticCache]:
    """Reads the last `width` tokens, whatever the cache holds of them; returns the logits (R, width, V) behind each."""
    start = state.length - width
    ids = fed(xp, model, xp.window(state.ids, start, width))
    output = model(
        ids,
        past_key_values=cache._replace(length=start),
        attention_mask=state.real[:, : cache.capacity],
        use_cache=True,
        return_dict=True,
    )
    return output.logits, output.past_key_values


def recompute(xp: Namespace, model: Any, state: State) -> Array:
    """Returns the logits (R, V) behind the last columns, read anew: their first one has position 0."""
    width = min(state.ids.shape[1], model.config.n_positions)
    start = xp.maximum(state.length - width, 0)
    ids, real = xp.window(state.ids, start, width), xp.window(state.real, start, width)
    last = xp.reshape(state.length - 1 - start, (1,))
    output = model(fed(xp, model, ids), attention_mask=real, use_cache=False, logits_to_keep=last, return_dict=True)
    return output.logits[:, 0]


def fed(xp: Namespace, model: Any, ids: Array) -> Array:
    """Returns ids that the model knows: the one that fills rows may be outside the vocabulary, and is not seen."""
    return xp.minimum(ids, model.config.vocab_size - 1)


def reorder(xp: Namespace, cache: StaticCache | None, parents: Array | None) -> StaticCache | None:
    """Returns a cache whose row i is row `parents[i]`; None: the cache as it is."""
    if cache is None or parents is None:
        return cache
    return cache._replace(layers=tuple((xp.rows(k, parents), xp.rows(v, parents)) for k, v in cache.layers))


class Engine:
    """A model of one framework, as a run sees it: nothing is compiled here.

    Attributes:
        xp: the array functions of the framework.
        buckets: whether shapes are rounded up, as each new one is compiled anew.
    """

    buckets = False

    def __init__(self, model: Any, xp: Namespace):
        self.model, self.xp = model, xp

    def rounded(self, size: int, most: int) -> int:
        """Returns the size to compute with: where it is compiled for, a power of two, at least 32, at most `most`."""
        return min(most, power_of_two(size, SMALLEST_BUCKET)) if self.buckets else size

    def prefill(self, state: State, tokens: int, capacity: int) -> tuple[Array, Any]:
        """As `prefill`, of so many tokens, with a cache of `capacity` columns."""
        cache = self.empty_cache(state.ids.shape[0], capacity)
        return prefill(self.xp, self.model, state, cache, tokens)

    def empty_cache(self, rows: int, capacity: int) -> StaticCache:
        cache: StaticCache = self.model.init_cache(rows, capacity)
        return cache

    def advance(self, state: State, cache: Any) -> tuple[Array, Any]:
        return advance(self.xp, self.model, state, cache)

    def verify(self, state: State, cache: Any, width: int) -> tuple[Array, Any]:
        return verify(self.xp, self.model, state, cache, width)

    def choose(self, search: Search, values: Values, state: State, logits: Array) -> Step:
        return choose(self.xp, search, values, state, logits)

    def going(self, values: Values, state: State) -> bool:
        """As `going`, on the host, where nothing is compiled for it."""
        known: dict[str, Any] = {name: self.numpy(getattr(state, name)) for name in ("ended", "length", "broken")}
        return bool(going(Namespace(), {"until": self.numpy(values["until"])}, state._replace(**known)))

    def reorder(self, cache: Any, parents: Array | None) -> Any:
        return reorder(self.xp, cache, parents)

    def loop(self, search: Search, values: Values, state: State, cache: Any) -> State | None:
        """Goes on until nothing is `going` any more, in one program; None: there is none, it goes step by step."""
        return None

    def numpy(self, x: Array) -> np.ndarray:
        """Brings an array to the host."""
        raise NotImplementedError
