"""Losses in Keras: each a mean over what counts, in float32 at least.

Shapes: B batch, T tokens, V vocabulary, L labels; "..." stands for B rows, or B and C choices.
"""

from __future__ import annotations

from keras import ops

from gptzoo.inputs import IGNORED
from gptzoo.keras._layers import Tensor, at_least_float32


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:  # (..., T, V), (..., T) -> ()
    """Mean cross-entropy of token t + 1 given the logits of token t, over labels other than -100."""
    return mean_cross_entropy(logits[..., :-1, :], labels[..., 1:])


def span_loss(logits: Tensor, positions: Tensor) -> Tensor:  # (B, T), (B,) or (B, 1) -> ()
    """Mean cross-entropy of positions among the tokens; those outside are not counted."""
    inside = (positions >= 0) & (positions < ops.cast(ops.shape(logits)[-1], positions.dtype))
    return mean_cross_entropy(logits, ops.where(inside, positions, IGNORED))


def problem_loss(kind: str, logits: Tensor, labels: Tensor) -> Tensor:  # (B, L), (B,) or (B, L) -> ()
    """Loss of a sequence classifier, by its problem type."""
    if kind == "single_label_classification":
        return mean_cross_entropy(logits, labels)
    logits = at_least_float32(logits)
    labels = ops.cast(ops.reshape(labels, ops.shape(logits)), logits.dtype)
    if kind == "regression":
        return ops.mean((logits - labels) ** 2)
    return ops.mean(ops.softplus(logits) - logits * labels)  # binary cross-entropy


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:  # (..., V), (...) -> ()
    """Mean over labels other than -100, in float32 at least; 0 with a zero gradient if there are none."""
    log_p = ops.log_softmax(at_least_float32(logits), axis=-1)
    log_p, labels = ops.reshape(log_p, (-1, ops.shape(logits)[-1])), ops.cast(ops.reshape(labels, (-1,)), "int32")
    counted = labels != IGNORED
    # Compiled code cannot raise: any other label outside the vocabulary gives NaN.
    inside = (labels >= 0) & (labels < ops.shape(log_p)[-1])
    picked = ops.take_along_axis(log_p, ops.where(inside, labels, 0)[:, None], axis=-1)[:, 0]
    picked = ops.where(counted, ops.where(inside, -picked, float("nan")), 0.0)
    return ops.sum(picked) / ops.cast(ops.maximum(ops.sum(ops.cast(counted, "int32")), 1), log_p.dtype)
