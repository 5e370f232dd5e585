"""Attention in PyTorch: what a call passes down, self- and cross-attention, and how their scores are computed.

Shapes: B batch, T new tokens, S cached and new tokens, X encoder tokens, N heads, D head size, E n_embd.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptzoo.cache import Layers, OwnedCache, StaticCache
from gptzoo.config import GPTConfig
from gptzoo.errors import MissingExtraError
from gptzoo.torch._layers import Conv1D, at_least_float32


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
    present: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    attentions: list[Tensor] = field(default_factory=list)
    cross_attentions: list[Tensor] = field(default_factory=list)

    def remember(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # (B, N, T, D) -> (B, N, S, D)
        """Puts the new keys and values behind the cached ones of a block."""
        if isinstance(self.past, OwnedCache):
            past_k, past_v = self.past.layers[layer]
            k = past_k.index_copy_(2, self.queries, k.to(past_k.dtype)).to(k.dtype)
            v = past_v.index_copy_(2, self.queries, v.to(past_v.dtype)).to(v.dtype)
        elif isinstance(self.past, StaticCache):
            past_k, past_v = self.past.layers[layer]
            k = past_k.to(k.dtype).index_copy(2, self.queries, k)
            v = past_v.to(v.dtype).index_copy(2, self.queries, v)
        elif self.past is not None:
            past_k, past_v = self.past[layer]
            k, v = torch.cat((past_k.to(k.dtype), k), dim=2), torch.cat((past_v.to(v.dtype), v), dim=2)
        if self.use_cache:
            self.present.append((k, v))
        return k, v

    def cache(self, new_tokens: int) -> Layers | StaticCache | None:
        """Returns `past_key_values` for the next call."""
        if not self.use_cache:
            return None
        layers = tuple(self.present)
        if isinstance(self.past, StaticCache):
            return self.past._replace(layers=layers, length=self.past.length + new_tokens)
        return layers


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017, sec. 3.2), by the heads that are not pruned."""

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.heads = config.kept_heads(layer)
        self.layer = layer
        self.scale = config.attention_scale(layer)
        self.upcast = config.reorder_and_upcast_attn
        self.c_attn = Conv1D(config.n_embd, config.n_qkv(layer))
        self.c_proj = Conv1D(config.n_attn(layer), config.n_embd)
        self.attn_dropout = nn.Dropout(config.attn_pdrop)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:  # (B, T, E) -> (B, T, E)
        q, k, v = (split_heads(part, len(self.heads)) for part in self.c_attn(x).chunk(3, dim=-1))  # 3 x (B, N, T, D)
        k, v = ctx.remember(self.layer, k, v)  # 2 x (B, N, S, D)
        x = attend(self, q, k, v, ctx.visible, ctx, causal=True)  # (B, N, T, D)
        return self.resid_dropout(self.c_proj(merge_heads(x)))


class CrossAttention(nn.Module):
    """Multi-head attention from the tokens to the states of an encoder."""

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.heads = tuple(range(config.n_head))
        self.layer = layer
        self.scale = config.attention_scale(layer)
        self.upcast = config.reorder_and_upcast_attn
        self.q_attn = Conv1D(config.n_embd, config.n_embd)
        self.c_attn = Conv1D(config.n_embd, config.n_kv)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)
        self.attn_dropout = nn.Dropout(config.attn_pdrop)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:  # (B, T, E) -> (B, T, E)
        q = split_heads(self.q_attn(x), len(self.heads))  # (B, N, T, D)
        k, v = (
            split_heads(part, len(self.heads)) for part in self.c_attn(ctx.encoder).chunk(2, dim=-1)
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
    rate = layer.attn_dropout.p if layer.training else 0.0
    if ctx.output_attentions or layer.upcast or ctx.implementation == "eager":
        x, weights = eager(layer, q, k, v, causal_mask(q, k) if visible is None and causal else visible)
        if ctx.output_attentions:
            (ctx.attentions if causal else ctx.cross_attentions).append(mask_heads(weights, layer, ctx))
    elif ctx.implementation == "flash_attention_2" and visible is None:
        x = flash(q, k, v, rate, layer.scale, causal)
    else:
        is_causal = causal and visible is None
        x = F.scaled_dot_product_attention(q, k, v, visible, rate, is_causal=is_causal, scale=layer.scale)
    # A factor on the weights of a head is the same factor on its output.
    return mask_heads(x, layer, ctx)


def eager(
    layer: Attention | CrossAttention, q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention spelt out; the softmax is in float32 even where the model is in half precision."""
    if layer.upcast:
        q, k = at_least_float32(q), at_least_float32(k)
    scores = (q * layer.scale) @ k.transpose(-1, -2)  # (B, N, T, S)
    if visible is not None:
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    weights = layer.attn_dropout(at_least_float32(scores).softmax(-1).to(v.dtype))
    return weights @ v, weights


def flash(q: Tensor, k: Tensor, v: Tensor, rate: float, scale: float, causal: bool) -> Tensor:
    """Attention by the flash-attn package, which has no mask and only runs on CUDA in half precision."""
    flash_attn_func = require_flash()
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # 3 x (B, T, N, D)
    return flash_attn_func(q, k, v, rate, softmax_scale=scale, causal=causal).transpose(1, 2)


def require_flash() -> Any:
    """Returns the flash-attn package's function, or raises an error that says what to do."""
    try:
        from flash_attn import flash_attn_func
    except ImportError:
        raise MissingExtraError(
            "attn_implementation 'flash_attention_2' needs the flash-attn package and a CUDA device: "
            "pip install flash-attn, or choose 'sdpa'"
        ) from None
    return flash_attn_func


def mask_heads(x: Tensor, layer: Attention | CrossAttention, ctx: Context) -> Tensor:  # (B, N, ...) -> (B, N, ...)
    if ctx.head_mask is None:
        return x
    return x * ctx.head_mask[layer.layer, list(layer.heads)].to(x.dtype)[:, None, None]


def causal_mask(q: Tensor, k: Tensor) -> Tensor:  # (1, 1, T, S)
    return torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()[None, None]


def split_heads(x: Tensor, n_head: int) -> Tensor:  # (B, T, E) -> (B, N, T, D)
    return x.unflatten(-1, (n_head, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:  # (B, N, T, D) -> (B, T, E)
    return x.transpose(1, 2).flatten(2)
