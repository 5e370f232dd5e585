"""What the tests of the reference's heads share: inputs, masks, and short names for the calls of both sides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from gptzoo.config import GPTConfig
from tests.reference_witness import LEFT, RIGHT, SMALL, TOLERANCE, B, T, Witness, error, rng

C = 4
PAD = 3
INNER = np.array([[1, 0, 0, 1, 0, 1, 0], [1, 1, 0, 1, 1, 1, 1], [0, 1, 0, 0, 1, 0, 0]])
MASKS = {"none": np.ones_like(LEFT), "left": LEFT, "right": RIGHT, "inner": INNER}
PADDED = pytest.mark.parametrize("mask", [pytest.param(mask, id=name) for name, mask in MASKS.items()])
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
NAMED = rng(5).integers(0, T, (B, C))
ANSWERS = np.array([2, 0, 3])

DOUBLE, SEQUENCE = "DoubleHeadsModel", "ForSequenceClassification"
TOKEN, SPAN = "ForTokenClassification", "ForQuestionAnswering"


def tokens(*shape: int) -> np.ndarray:
    """Ids of which none is the padding's."""
    return rng(11).integers(PAD + 1, SMALL["vocab_size"], shape or (B, T))


def padded(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, tokens(*mask.shape), PAD)


def positions(mask: np.ndarray) -> np.ndarray:
    """What the witness must be told: its forward does not derive positions from the mask."""
    return np.where(mask, mask.cumsum(axis=-1) - 1, 0)


def last(mask: np.ndarray) -> np.ndarray:
    return np.array([max(np.flatnonzero(row), default=0) for row in mask])


def forward(head: str, model: tuple[GPTConfig, Any], **inputs: Any) -> Any:
    return reference.forward(head, *model, **inputs)


def states(model: tuple[GPTConfig, Any], **inputs: Any) -> np.ndarray:
    """Of the bare model under a head."""
    config, values = model
    own = {
        name.removeprefix("transformer."): value for name, value in values.items() if name.startswith("transformer.")
    }
    return reference.forward("Model", config, own, **inputs).last_hidden_state


def witness(head: str, model: tuple[GPTConfig, Any]) -> Witness:
    return Witness(model[0], head, model[1])


def same(ours: Any, theirs: Any, *names: str) -> None:
    for name in names:
        assert error(ours[name], theirs[name]) <= TOLERANCE, name


def close(ours: Any, expected: Any) -> None:
    assert error(ours, expected) <= TOLERANCE


def surprise(scores: np.ndarray, label: int) -> float:
    """-log p(label), for scores that are small."""
    return float(np.log(np.exp(scores).sum()) - scores[label])
