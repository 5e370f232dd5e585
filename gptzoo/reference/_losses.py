"""What the heads are trained with, in NumPy float64.

Shapes: B rows, C choices (where given, before T), T tokens, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.reference._backbone import expect, expect_indices, expect_integers
from gptzoo.reference._layers import Array, log_softmax, softplus

IGNORED = -100  # a label that is not scored


def cross_entropy(name: str, logits: Array, labels: Array) -> Any:
    """Mean of -log p(label) over the labels that are scored; 0 if none is.

    Args:
        name: of the argument that the labels are, for errors.
        logits: (..., K).
        labels: (...), each 0 to K - 1, or IGNORED.
    """
    expect_integers(name, labels)
    logits, labels = logits[labels != IGNORED], labels[labels != IGNORED]  # (M, K), (M,)
    expect_indices(name, labels, logits.shape[-1], f", or {IGNORED} for none")
    if not labels.size:
        return np.float64(0.0)
    return -log_softmax(logits)[np.arange(len(labels)), labels].mean()


def problem_loss(config: GPTConfig, logits: Array, labels: Array) -> Any:
    """The loss of a sequence classifier: which one, the config says, or else the labels of this call do.

    Args:
        logits: (B, K).
        labels: (B,) or (B, 1) for one class a row, or for the one number of a regression; else (B, K).
    """
    rows, n_labels = logits.shape[:-1], logits.shape[-1]
    problem = config.problem_type or inferred_problem(n_labels, labels)
    if problem == "single_label_classification":
        expect("labels", labels, rows, (*rows, 1))
        return cross_entropy("labels", logits, labels.reshape(rows))
    if problem == "regression" and n_labels == 1:
        expect("labels", labels, rows, (*rows, 1))
    else:
        expect("labels", labels, (*rows, n_labels))
    targets = labels.reshape(logits.shape).astype(np.float64)
    if problem == "regression":
        return ((logits - targets) ** 2).mean()
    return binary_cross_entropy(logits, targets)


def inferred_problem(n_labels: int, labels: Array) -> str:
    """Transformers' rule, but for every dtype: it knows the integers int64 and int32 only."""
    if n_labels == 1:
        return "regression"
    if np.issubdtype(labels.dtype, np.integer):
        return "single_label_classification"
    return "multi_label_classification"


def binary_cross_entropy(logits: Array, targets: Array) -> Any:
    """Mean of -(y log p + (1 - y) log(1 - p)), p the sigmoid of the logit: -log p = softplus(-logit)."""
    return (targets * softplus(-logits) + (1.0 - targets) * softplus(logits)).mean()


def position_loss(name: str, logits: Array, positions: Array) -> Any:
    """Cross entropy over the tokens; a position that is no token's is not scored.

    Args:
        name: of the argument that the positions are, for errors.
        logits: (B, T).
        positions: (B,) or (B, 1).
    """
    rows, n_tokens = logits.shape[:-1], logits.shape[-1]
    expect(name, positions, rows, (*rows, 1))
    expect_integers(name, positions)
    inside = (positions >= 0) & (positions < n_tokens)
    labels = np.where(inside, positions.astype(np.int64), IGNORED)  # unsigned dtypes have no room for IGNORED
    return cross_entropy(name, logits, labels.reshape(rows))


def choice_loss(scores: Array, labels: Array) -> Any:
    """Cross entropy over the choices of each question.

    Args:
        scores: (B, C); (B,) where the rows are the choices of one question.
        labels: (B,); () or (1,) for one question.
    """
    questions = scores.shape[:-1]
    expect("mc_labels", labels, questions, questions or (1,))
    return cross_entropy("mc_labels", scores.reshape(-1, scores.shape[-1]), labels.reshape(-1))
