"""Attention in Flax NNX: what a call passes down, self- and cross-attention, and how their scores are computed.

Shapes: B batch, T new tokens, S cached and new tokens, X encoder tokens, N heads, D head size, E n_embd.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from gptzoo.cache import Layers, StaticCache
from gptzoo.config import GPTConfig
from gptzoo.errors import MissingExtraError
from gptzoo.flax._layers import Conv1D, Dropout, at_least_float32


@dataclass
class Context:
    """What one call of a model tells every block, and what the blocks report back.

    Attributes:
        implementation: a name of `gptzoo.config.ATTENTIONS`.
        visible: which keys each query sees, (B or 1, 1, T, S); None: the plain causal mask.
        past: Layers, a StaticCache or None.
        queries: index of each new token in the sequence, cached tokens counted, (T,).
        encoder_visible: which encoder tokens are seen, (B, 1, 1, X); None: all.
        head_mask: factor on each head of each block, pruned ones included, (n_layer, n_head).
        rngs: keys for dropout; None: not in training.
        present, attentions, cross_attentions: what each block has reported so far, if wanted.
    """

    implementation: str
    queries: Array
    visible: Array | None = None
    past: Any = None
    head_mask: Array | None = None
    encoder: Array | None = None
    encoder_visible: Array | None = None
    use_cache: bool = False
    output_attentions: bool = False
    rngs: nnx.RngStream | None = None
    present: list[tuple[Array, Array]] = field(default_factory=list)
    attentions: list[Array] = field(default_factory=list)
    cross_attentions: list[Array] = field(default_factory=list)

    def remember(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:  # (B, N, T, D) -> (B, N, S, D)
        """Puts the new keys and values behind the cached ones of a block."""
        if isinstance(self.past, StaticCache):
            past_k, past_v = self.past.layers[layer]
            k = jax.lax.dynamic_update_slice_in_dim(jnp.asarray(past_k, k.dtype), k, self.past.length, axis=2)
            v = jax.lax.dynamic_update_slice_in_dim(jnp.asarray(past_v, v.dtype), v, self.past.length, axis=2)
        elif self.past is not None:
            past_k, past_v = self.past[layer]
            k = jnp.concatenate((jnp.asarray(past_k, k.dtype), k), axis=2)
            v = jnp.concatenate((jnp.asarray(past_v, v.dtype), v), axis=2)
        if self.use_cache:
            self.present.append((k, v))
        return k, v

    def cache(self, new_tokens: int) -> Layers | StaticCache | None:
        """Returns `past_key_values` for the next call."""
        if not self.use_cache:
            return None
        layers = tuple(self.present)
        return StaticCache(layers, self.past.length + new_tokens) if isinstance(self.past, StaticCache) else layers


class Attention(nnx.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, sec. 3.2), by the heads that are not pruned."""

    def __init__(self, config: GPTConfig, layer: int):
        self.heads = config.kept_heads(layer)
        self.layer = layer
        self.scale = config.attention_scale(layer)
        self.upcast = config.reorder_and_upcast_attn
        self.c_attn = Conv1D(config.n_embd, config.n_qkv(layer))
        self.c_proj = Conv1D(config.n_attn(layer), config.n_embd)
        self.attn_dropout = Dropout(config.attn_pdrop)
        self.resid_dropout = Dropout(config.resid_pdrop)

    def __call__(self, x: Array, ctx: Context) -> Array:  # (B, T, E) -> (B, T, E)
        q, k, v = (
            split_heads(part, len(self.heads)) for part in jnp.split(self.c_attn(x), 3, axis=-1)
        )  # 3 x (B, N, T, D)
        k, v = ctx.remember(self.layer, k, v)  # 2 x (B, N, S, D)
        x = attend(self, q, k, v, ctx.visible, ctx, causal=True)  # (B, N, T, D)
        return self.resid_dropout(self.c_proj(merge_heads(x)), ctx.rngs)


class CrossAttention(nnx.Module):
    """Multi-head attention from the tokens to the states of an encoder."""

    def __init__(self, config: GPTConfig, layer: int):
        self.heads = tuple(range(config.n_head))
        self.layer = layer
        self.scale = config.attention_scale(layer)
        self.upcast = config.reorder_and_upcast_attn
        self.q_attn = Conv1D(config.n_embd, config.n_embd)
        self.c_attn = Conv1D(config.n_embd, config.n_kv)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)
        self.attn_dropout = Dropout(config.attn_pdrop)
        self.resid_dropout = Dropout(config.resid_pdrop)

    def __call__(self, x: Array, ctx: Context) -> Array:  # (B, T, E) -> (B, T, E)
        assert ctx.encoder is not None
        q = split_heads(self.q_attn(x), len(self.heads))  # (B, N, T, D)
        k, v = (
            split_heads(part, len(self.heads)) for part in jnp.split(self.c_attn(ctx.encoder), 2, axis=-1)
        )  # 2 x (B, N, X, D)
        x = attend(self, q, k, v, ctx.encoder_visible, ctx, causal=False)  # (B, N, T, D)
        return self.resid_dropout(self.c_proj(merge_heads(x)), ctx.rngs)


def attend(
    layer: Attention | CrossAttention,
    q: Array,
    k: Array,
    v: Array,
    visible: Array | None,
    ctx: Context,
    causal: bool,
) -> Array:  # (B, N, T, D), 2 x (B, N, S, D), (B, 1, T, S) -> (B, N, T, D)
    """Softmax of the scaled scores over the visible keys, times the values, times the head mask.

    Weights exist in the eager way only, so it serves every call that wants them or wants float32 scores. Flash takes
    no mask, so a call with one is served by sdpa.
    """
    rate = layer.attn_dropout.p if ctx.rngs is not None else 0.0
    use_flash = ctx.implementation == "flash_attention_2" and visible is None
    # JAX's attention has no dropout, its softmax is in float32 in a float64 model too, and float16 does not compile
    # on CPU.
    fused = rate == 0 and (use_flash or q.dtype in (jnp.float32, jnp.bfloat16))
    if ctx.output_attentions or layer.upcast or ctx.implementation == "eager" or not fused:
        x, weights = eager(layer, q, k, v, causal_mask(q, k) if visible is None and causal else visible, ctx)
        if ctx.output_attentions:
            (ctx.attentions if causal else ctx.cross_attentions).append(mask_heads(weights, layer, ctx))
    elif use_flash:
        x = sdpa(q, k, v, visible, layer.scale, causal, "cudnn")
    else:
        is_causal = causal and visible is None
        x = sdpa(q, k, v, visible, layer.scale, is_causal, "xla")
    # A factor on the weights of a head is the same factor on its output.
    return mask_heads(x, layer, ctx)


def eager(
    layer: Attention | CrossAttention, q: Array, k: Array, v: Array, visible: Array | None, ctx: Context
) -> tuple[Array, Array]:
    """Attention spelt out; the softmax is in float32 even where the model is in half precision."""
    if layer.upcast:
        q, k = at_least_float32(q), at_least_float32(k)
    scores = (q * layer.scale) @ k.swapaxes(-1, -2)  # (B, N, T, S)
    if visible is not None:
        scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
    weights = layer.attn_dropout(jax.nn.softmax(at_least_float32(scores), -1).astype(v.dtype), ctx.rngs)
    return weights @ v, weights


def sdpa(q: Array, k: Array, v: Array, visible: Array | None, scale: float, causal: bool, implementation: Any) -> Array:
    """Attention by JAX, compiled from its parts ("xla") or by NVIDIA's flash kernel ("cudnn")."""
    q, k, v = (part.swapaxes(1, 2) for part in (q, k, v))  # 3 x (B, T, N, D)
    x = jax.nn.dot_product_attention(
        q, k, v, mask=visible, scale=scale, is_causal=causal, implementation=implementation
    )
    return x.swapaxes(1, 2)


def require_flash() -> None:
    """Raises an error that says what to do, if there is no device for flash attention."""
    if jax.default_backend() != "gpu":
        raise MissingExtraError(
            "attn_implementation 'flash_attention_2' needs an NVIDIA GPU and JAX with cuDNN: "
            "pip install 'jax[cuda12]', or choose 'sdpa'"
        )


def mask_heads(x: Array, layer: Attention | CrossAttention, ctx: Context) -> Array:  # (B, N, ...) -> (B, N, ...)
    if ctx.head_mask is None:
        return x
    return x * ctx.head_mask[layer.layer, jnp.array(layer.heads)].astype(x.dtype)[:, None, None]


def causal_mask(q: Array, k: Array) -> Array:  # (1, 1, T, S)
    return jnp.tri(q.shape[2], k.shape[2], dtype=bool)[None, None]


def split_heads(x: Array, n_head: int) -> Array:  # (B, T, E) -> (B, N, T, D)
    return x.reshape(*x.shape[:-1], n_head, x.shape[-1] // n_head).swapaxes(1, 2)


def merge_heads(x: Array) -> Array:  # (B, N, T, D) -> (B, T, E)
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3])
