"""Layers of both families in NumPy float64.

Sources: Vaswani et al. 2017, sec. 3.2 (attention); Ba et al. 2016 (layer norm); Hendrycks and Gimpel 2016 (GELU);
openai/finetune-transformer-lm train.py (GPT); openai/gpt-2 src/model.py (GPT-2).

Shapes: B batch, T new tokens, S cached and new tokens, X encoder tokens, N heads, D head size, E n_embd.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Weights = Mapping[str, Array]


@dataclass
class Call:
    """What one call of a model tells every block, and what the blocks record.

    Attributes:
        visible: which keys each query sees, (B, 1, T, S).
        head_mask: factor on the attention of each head of each block, (n_layer, n_head).
        kept: numbers of the heads of each block's self-attention: those that are not pruned.
        past: (key, value) of each block, each (B, N, S - T, D); None: no tokens are cached.
        encoder: states of an encoder, (B, X, E); None: no cross-attention.
        encoder_visible: which of them are seen, (B, 1, 1, X).
        present: (key, value) of each block, cached and new, each (B, N, S, D).
        attentions: weights on the values of each block, (B, N, T, S).
        cross_attentions: the same on the encoder's values, (B, N, T, X).
    """

    visible: Array
    head_mask: Array
    kept: Sequence[Sequence[int]]
    past: Sequence[tuple[Array, Array]] | None = None
    encoder: Array | None = None
    encoder_visible: Array | None = None
    present: list[tuple[Array, Array]] = field(default_factory=list)
    attentions: list[Array] = field(default_factory=list)
    cross_attentions: list[Array] = field(default_factory=list)


def under(weights: Weights, prefix: str) -> Weights:
    """Returns the weights whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def softplus(x: Array) -> Array:  # log(1 + exp(x)), which must not overflow
    return np.logaddexp(0.0, x)


def sigmoid(x: Array) -> Array:  # 1 / (1 + exp(-x)), which must not overflow
    return np.exp(-softplus(-x))


def gelu(x: Array) -> Array:
    """x * Phi(x), Phi the distribution function of the normal distribution."""
    return x * 0.5 * (1.0 + erf(x / math.sqrt(2.0)))


def gelu_tanh(x: Array) -> Array:
    """OpenAI's `gelu`, in both repositories: an approximation, 5e-4 off at most."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


# Canonical name (a value of gptzoo.config.ACTIVATIONS) -> function.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_10": lambda x: np.clip(gelu(x), -10.0, 10.0),
    "gelu_tanh": gelu_tanh,
    "laplace": lambda x: 0.5 * (1.0 + erf((x - 0.707107) / (0.282095 * math.sqrt(2.0)))),
    "leaky_relu": lambda x: np.where(x >= 0.0, x, 0.01 * x),
    "linear": lambda x: x,
    "mish": lambda x: x * np.tanh(softplus(x)),
    "quick_gelu": lambda x: x * sigmoid(1.702 * x),
    "relu": lambda x: np.maximum(x, 0.0),
    "relu2": lambda x: np.maximum(x, 0.0) ** 2,
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "tanh": np.tanh,
}


def conv1d(x: Array, weights: Weights) -> Array:  # (..., n_in) -> (..., n_out)
    return x @ weights["weight"] + weights["bias"]


def layer_norm(x: Array, weights: Weights, epsilon: float) -> Array:  # (..., E) -> (..., E)
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * weights["weight"] + weights["bias"]


def log_softmax(x: Array) -> Array:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def split_heads(x: Array, n_head: int) -> Array:  # (B, T, E) -> (B, N, T, D)
    return x.reshape(*x.shape[:2], n_head, -1).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:  # (B, N, T, D) -> (B, T, E)
    x = x.transpose(0, 2, 1, 3)
    return x.reshape(*x.shape[:2], -1)


def attend(q: Array, k: Array, v: Array, scale: float, visible: Array, head_mask: Array) -> tuple[Array, Array]:
    """Scaled dot-product attention over the visible keys, of which each query has one at least.

    Args:
        q, k, v: (B, N, T, D), (B, N, S, D), (B, N, S, D).
        visible: broadcasts to (B, N, T, S).
        head_mask: factor on each head, (N,).

    Returns:
        (B, N, T, D), and the weights on the values (B, N, T, S).
    """
    scores = scale * (q @ k.transpose(0, 1, 3, 2))  # (B, N, T, S)
    probabilities = np.exp(log_softmax(np.where(visible, scores, -np.inf)))
    probabilities = probabilities * head_mask[:, None, None]
    return probabilities @ v, probabilities


def self_attention(x: Array, weights: Weights, layer: int, scale: float, call: Call) -> Array:  # (B, T, E) -> same
    heads = list(call.kept[layer])
    q, k, v = (split_heads(part, len(heads)) for part in np.split(conv1d(x, under(weights, "c_attn.")), 3, axis=-1))
    if call.past is not None:
        past_k, past_v = call.past[layer]  # 2 x (B, N, S - T, D)
        k, v = np.concatenate((past_k, k), axis=2), np.concatenate((past_v, v), axis=2)  # 2 x (B, N, S, D)
    x, probabilities = attend(q, k, v, scale, call.visible, call.head_mask[layer, heads])
    call.present.append((k, v))
    call.attentions.append(probabilities)
    return conv1d(merge_heads(x), under(weights, "c_proj."))


def cross_attention(x: Array, weights: Weights, layer: int, scale: float, call: Call) -> Array:  # (B, T, E) -> same
    assert call.encoder is not None
    assert call.encoder_visible is not None
    n_head = call.head_mask.shape[1]
    q = split_heads(conv1d(x, under(weights, "q_attn.")), n_head)  # (B, N, T, D)
    pair = np.split(conv1d(call.encoder, under(weights, "c_attn.")), 2, axis=-1)  # 2 x (B, X, E)
    k, v = (split_heads(part, n_head) for part in pair)  # 2 x (B, N, X, D)
    x, probabilities = attend(q, k, v, scale, call.encoder_visible, call.head_mask[layer])
    call.cross_attentions.append(probabilities)
    return conv1d(merge_heads(x), under(weights, "c_proj."))


def mlp(x: Array, weights: Weights, activation: str) -> Array:  # (B, T, E) -> (B, T, E)
    x = activate(activation, conv1d(x, under(weights, "c_fc.")), under(weights, "act."))
    return conv1d(x, under(weights, "c_proj."))


def activate(activation: str, x: Array, weights: Weights) -> Array:
    """Applies a function by its name; prelu and xielu have weights of their own, of one number each."""
    if activation == "prelu":
        return np.where(x >= 0, x, weights["weight"] * x)
    if activation != "xielu":
        return ACTIVATIONS[activation](x)
    p, n = (np.log1p(np.exp(weights[name])) for name in ("alpha_p", "alpha_n"))  # softplus
    positive = p * x**2 + 0.5 * x
    negative = (0.5 + n) * (np.expm1(np.minimum(x, -1e-6)) - x) + 0.5 * x
    return np.where(x > 0, positive, negative)
