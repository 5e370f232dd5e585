"""Attention in Keras: what a call passes down, self- and cross-attention, and how their scores are computed.

Shapes: B batch, T new tokens, S cached and new tokens, X encoder tokens, N heads, D head size, E n_embd.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops
from ml_dtypes import finfo

from gptzoo.cache import Layers, StaticCache
from gptzoo.config import GPTConfig
from gptzoo.errors import MissingExtraError
from gptzoo.keras._layers import Conv1D, Tensor, at_least_float32, inside

# Dtypes for Keras' fused attention. In float64 it computes in float32, and on JAX it fails in float16 on a CPU.
FUSED = ("float32", "bfloat16") if keras.backend.backend() == "jax" else ("float32", "bfloat16", "float16")


@dataclass(repr=False)  # which Keras would print in its errors
class Context:
    """What one call of a model tells every block, and what the blocks report back.

    Attributes:
        implementation: a name of `gptzoo.config.ATTENTIONS`.
        visible: which keys each query sees, (B or 1, 1, T, S); None: the plain causal mask.
        past: Layers, a StaticCache or None.
        queries: index of each new token in the sequence, cached tokens counted, (T,).
        encoder_visible: which encoder tokens are seen, (B, 1, 1, X); None: all.
        head_mask: factor on each head of each block, pruned ones included, (n_layer, n_head).
        training: whether to drop out.
        present, attentions, cross_attentions: what each block has reported so far, if wanted.
    """

    implementation: str
    queries: Tensor
    visible: Tensor | None = None
    past: Any = None
    head_mask: Tensor | None = None
    encoder: Tensor | None = None
    encoder_visible: Tensor | None = None
    use_cache: bool = False
    output_attentions: bool = False
    training: bool = False
    present: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    attentions: list[Tensor] = field(default_factory=list)
    cross_attentions: list[Tensor] = field(default_factory=list)

    def remember(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # (B, N, T, D) -> (B, N, S, D)
        """Puts the new keys and values behind the cached ones of a block."""
        if isinstance(self.past, StaticCache):
            past_k, past_v = self.past.layers[layer]
            start = ops.pad(self.queries[:1], ((2, 1),))  # (0, 0, first query, 0)
            k = ops.slice_update(ops.cast(past_k, k.dtype), start, k)
            v = ops.slice_update(ops.cast(past_v, v.dtype), start, v)
        elif self.past is not None:
            past_k, past_v = self.past[layer]
            k = ops.concatenate((ops.cast(past_k, k.dtype), k), axis=2)
            v = ops.concatenate((ops.cast(past_v, v.dtype), v), axis=2)
        if self.use_cache:
            self.present.append((k, v))
        return k, v

    def cache(self, new_tokens: int) -> Layers | StaticCache | None:
        """Returns `past_key_values` for the next call."""
        if not self.use_cache:
            return None
        layers = tuple(self.present)
        return StaticCache(layers, self.past.length + new_tokens) if isinstance(self.past, StaticCache) else layers


class Attention(keras.Layer):
    """Causal multi-head self-attention (Vaswani et al. 2017, sec. 3.2), by the heads that are not pruned."""

    def __init__(self, config: GPTConfig, layer: int, **kwargs: Any):
        super().__init__(**kwargs)
        with inside(self):
            self.heads = config.kept_heads(layer)
            self.layer = layer
            self.scale = config.attention_scale(layer)
            self.upcast = config.reorder_and_upcast_attn
            self.c_attn = Conv1D(config.n_embd, config.n_qkv(layer), name="c_attn")
            self.c_proj = Conv1D(config.n_attn(layer), config.n_embd, name="c_proj")
            self.attn_dropout = keras.layers.Dropout(config.attn_pdrop, name="attn_dropout")
            self.resid_dropout = keras.layers.Dropout(config.resid_pdrop, name="resid_dropout")

    def call(self, x: Tensor, ctx: Context) -> Tensor:  # (B, T, E) -> (B, T, E)
        q, k, v = (
            split_heads(part, len(self.heads)) for part in ops.split(self.c_attn(x), 3, axis=-1)
        )  # 3 x (B, N, T, D)
        k, v = ctx.remember(self.layer, k, v)  # 2 x (B, N, S, D)
        x = attend(self, q, k, v, ctx.visible, ctx, causal=True)  # (B, N, T, D)
        return self.resid_dropout(self.c_proj(merge_heads(x)))


class CrossAttention(keras.Layer):
    """Multi-head attention from the tokens to the states of an encoder."""

    def __init__(self, config: GPTConfig, layer: int, **kwargs: Any):
        super().__init__(**kwargs)
        with inside(self):
            self.heads = tuple(range(config.n_head))
            self.layer = layer
            self.scale = config.attention_scale(layer)
            self.upcast = config.reorder_and_upcast_attn
            self.q_attn = Conv1D(config.n_embd, config.n_embd, name="q_attn")
            self.c_attn = Conv1D(config.n_embd, config.n_kv, name="c_attn")
            self.c_proj = Conv1D(config.n_embd, config.n_embd, name="c_proj")
            self.attn_dropout = keras.layers.Dropout(config.attn_pdrop, name="attn_dropout")
            self.resid_dropout = keras.layers.Dropout(config.resid_pdrop, name="resid_dropout")

    def call(self, x: Tensor, ctx: Context) -> Tensor:  # (B, T, E) -> (B, T, E)
        q = split_heads(self.q_attn(x), len(self.heads))  # (B, N, T, D)
        k, v = (
            split_heads(part, len(self.heads)) for part in ops.split(self.c_attn(ctx.encoder), 2, axis=-1)
        )  # 2 x (B, N, X, D)
        x = attend(self, q, k, v, ctx.encoder_visible, ctx, causal=False)  # (B, N, T, D)
        return self.resid_dropout(self.c_proj(merge_heads(x)))


def attend(
    layer: Attention | CrossAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    visible: Tensor | None,
    ctx: Context,
    causal: bool,
) -> Tensor:  # (B, N, T, D), 2 x (B, N, S, D), (B, 1, T, S) -> (B, N, T, D)
    """Softmax of the scaled scores over the visible keys, times the values, times the head mask.

    Weights exist in the eager way only, so it serves every call that wants them or wants float32 scores. Flash takes
    no mask, so a call with one is served by sdpa.
    """
    rate = layer.attn_dropout.rate if ctx.training else 0.0  # no kernel that Keras offers drops out
    flash = ctx.implementation == "flash_attention_2" and visible is None and causal and rate == 0
    fused = rate == 0 and keras.backend.standardize_dtype(q.dtype) in FUSED
    if ctx.output_attentions or layer.upcast or ctx.implementation == "eager" or not (flash or fused):
        x, weights = eager(layer, q, k, v, causal_mask(q, k) if visible is None and causal else visible)
        if ctx.output_attentions:
            (ctx.attentions if causal else ctx.cross_attentions).append(mask_heads(weights, layer, ctx))
    elif flash:
        x = sdpa(q, k, v, None, layer.scale, causal, flash=None)
    else:
        is_causal = causal and visible is None
        x = sdpa(q, k, v, visible, layer.scale, is_causal, flash=False)
    # A factor on the weights of a head is the same factor on its output.
    return mask_heads(x, layer, ctx)


def eager(
    layer: Attention | CrossAttention, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention spelt out; the softmax is in float32 even where the model is in half precision."""
    if layer.upcast:
        q, k = at_least_float32(q), at_least_float32(k)
    scores = (q * layer.scale) @ ops.swapaxes(k, -1, -2)  # (B, N, T, S)
    if visible is not None:
        lowest = float(finfo(keras.backend.standardize_dtype(scores.dtype)).min)
        scores = ops.where(visible, scores, lowest)
    weights = ops.exp(ops.log_softmax(at_least_float32(scores), axis=-1))  # ops.softmax warns if there is but one key
    weights = layer.attn_dropout(ops.cast(weights, v.dtype))
    return weights @ v, weights


def sdpa(
    q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None, scale: float, causal: bool, flash: bool | None
) -> Tensor:
    """Attention by the backend, by a flash kernel too where it has one for these inputs (None) or without (False)."""
    q, k, v = (ops.swapaxes(part, 1, 2) for part in (q, k, v))  # 3 x (B, T, N, D)
    x = ops.dot_product_attention(q, k, v, mask=visible, scale=scale, is_causal=causal, flash_attention=flash)
    return ops.swapaxes(x, 1, 2)


def require_flash(config: GPTConfig, dtype: str) -> None:
    """Tries flash attention, and raises an error that says what to do if the backend refuses."""
    q = ops.zeros((1, 8, config.n_head, config.head_dim), dtype)  # (B, T, N, D)
    try:
        with warnings.catch_warnings(action="ignore"):  # PyTorch says in warnings what it lacks
            ops.dot_product_attention(q, q, q, is_causal=True, flash_attention=True)
    except Exception as problem:  # each backend has a kind of its own
        reason = str(problem).strip().partition("\n")[0].rstrip(".")
        raise MissingExtraError(
            f"attn_implementation 'flash_attention_2' needs Keras on JAX or PyTorch, a GPU and half precision: "
            f"{keras.backend.backend()} in {dtype} says {reason!r}; or choose 'sdpa'"
        ) from None


def mask_heads(x: Tensor, layer: Attention | CrossAttention, ctx: Context) -> Tensor:  # (B, N, ...) -> (B, N, ...)
    if ctx.head_mask is None:
        return x
    return x * ops.cast(ops.take(ctx.head_mask[layer.layer], layer.heads, axis=0), x.dtype)[:, None, None]


def causal_mask(q: Tensor, k: Tensor) -> Tensor:  # (1, 1, T, S)
    n_queries, n_keys = ops.shape(q)[2], ops.shape(k)[2]
    return (ops.arange(n_keys, dtype="int32") <= ops.arange(n_queries, dtype="int32")[:, None])[None, None]


def split_heads(x: Tensor, n_head: int) -> Tensor:  # (B, T, E) -> (B, N, T, D)
    return ops.swapaxes(ops.reshape(x, (*ops.shape(x)[:-1], n_head, x.shape[-1] // n_head)), 1, 2)


def merge_heads(x: Tensor) -> Tensor:  # (B, N, T, D) -> (B, T, E)
    batch, n_head, tokens, head_dim = ops.shape(x)
    return ops.reshape(ops.swapaxes(x, 1, 2), (batch, tokens, n_head * head_dim))
