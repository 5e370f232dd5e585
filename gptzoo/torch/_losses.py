"""Losses in PyTorch: each a mean over what counts, in float32 at least.

Shapes: B batch, T tokens, V vocabulary, L labels; "..." stands for B rows, or B and C choices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gptzoo.inputs import IGNORED
from gptzoo.torch._layers import at_least_float32


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:  # (..., T, V), (..., T) -> ()
    """Mean cross-entropy of token t + 1 given the logits of token t, over labels other than -100."""
    return mean_cross_entropy(logits[..., :-1, :], labels[..., 1:])


def span_loss(logits: Tensor, positions: Tensor) -> Tensor:  # (B, T), (B,) or (B, 1) -> ()
    """Mean cross-entropy of positions among the tokens; those outside are not counted."""
    inside = (positions >= 0) & (positions < logits.shape[-1])
    return mean_cross_entropy(logits, torch.where(inside, positions, IGNORED))


def problem_loss(kind: str, logits: Tensor, labels: Tensor) -> Tensor:  # (B, L), (B,) or (B, L) -> ()
    """Loss of a sequence classifier, by its problem type."""
    if kind == "single_label_classification":
        return mean_cross_entropy(logits, labels)
    logits = at_least_float32(logits)
    labels = labels.reshape(logits.shape).to(logits.dtype)
    if kind == "regression":
        return F.mse_loss(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels)


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:  # (..., V), (...) -> ()
    """Mean over labels other than -100, in float32 at least; 0 with a zero gradient if there are none."""
    logits = at_least_float32(logits).reshape(-1, logits.shape[-1])
    labels = labels.long().flatten()
    total = F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED)
    return total / (labels != IGNORED).sum().clamp(min=1)
