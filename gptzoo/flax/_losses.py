"""Losses in Flax NNX: each a mean over what counts, in float32 at least.

Shapes: B batch, T tokens, V vocabulary, L labels; "..." stands for B rows, or B and C choices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from gptzoo.flax._layers import at_least_float32
from gptzoo.inputs import IGNORED


def next_token_loss(logits: Array, labels: Array) -> Array:  # (..., T, V), (..., T) -> ()
    """Mean cross-entropy of token t + 1 given the logits of token t, over labels other than -100."""
    return mean_cross_entropy(logits[..., :-1, :], labels[..., 1:])


def span_loss(logits: Array, positions: Array) -> Array:  # (B, T), (B,) or (B, 1) -> ()
    """Mean cross-entropy of positions among the tokens; those outside are not counted."""
    inside = (positions >= 0) & (positions < logits.shape[-1])
    return mean_cross_entropy(logits, jnp.where(inside, positions, IGNORED))


def problem_loss(kind: str, logits: Array, labels: Array) -> Array:  # (B, L), (B,) or (B, L) -> ()
    """Loss of a sequence classifier, by its problem type."""
    if kind == "single_label_classification":
        return mean_cross_entropy(logits, labels)
    logits = at_least_float32(logits)
    labels = labels.reshape(logits.shape).astype(logits.dtype)
    if kind == "regression":
        return ((logits - labels) ** 2).mean()
    return (jax.nn.softplus(logits) - logits * labels).mean()  # binary cross-entropy


def mean_cross_entropy(logits: Array, labels: Array) -> Array:  # (..., V), (...) -> ()
    """Mean over labels other than -100, in float32 at least; 0 with a zero gradient if there are none."""
    log_p = jax.nn.log_softmax(at_least_float32(logits)).reshape(-1, logits.shape[-1])
    labels = jnp.asarray(labels).astype(jnp.int32).reshape(-1)
    counted = labels != IGNORED
    # Compiled code cannot raise: a label outside the vocabulary gives NaN. So must -1, which counts from the end.
    index = jnp.where(counted, jnp.where(labels < 0, logits.shape[-1], labels), 0)
    log_p = jnp.take_along_axis(log_p, index[:, None], axis=-1, mode="fill", fill_value=jnp.nan).squeeze(-1)
    return jnp.where(counted, -log_p, 0).sum() / counted.sum().clip(min=1)
