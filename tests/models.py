"""Tiny models in every framework: stored, their weights read, their outputs held against the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gptzoo import reference, weights
from gptzoo.config import CONFIGS
from tests import matrix

FAMILIES = tuple(CONFIGS)
LM = ("LMHeadModel", "DoubleHeadsModel")
IDS = np.random.default_rng(1).integers(0, 40, (2, 6))


def save(path: Path, framework: str, family: str, head: str, **config: Any) -> Any:
    """Stores a model with random weights, and returns its class."""
    runner = matrix.build(framework, *(made := (matrix.tiny(family, **config), head)), matrix.random_weights(*made))
    runner.model.save_pretrained(path)
    return type(runner.model)


def values(framework: str, model: Any) -> dict[str, np.ndarray]:
    """Every weight of a model by name, tied ones included."""
    runner = matrix.runner_of(framework, model)
    return {name: matrix.stored(runner, name) for name in weights.specs(model.config, model.head)}


def check_against_reference(runner: Any, family: str, head: str, **inputs: Any) -> None:
    """Compares every output and loss with the float64 reference on the same weights, its newest tokens included."""
    model = runner.model
    stored = values(runner.framework, model)
    tied = {name for name, spec in weights.specs(model.config, head).items() if spec.tied}
    tokens = np.random.default_rng(3).integers(0, model.config.vocab_size, (2, 6))
    tokens[:, 0] = model.config.vocab_size - 1
    arguments = {"input_ids": tokens} | inputs
    if head in LM:
        arguments["labels"] = tokens
    plain = {name: value for name, value in stored.items() if name not in tied}
    expected = reference.forward(head, model.config, plain, **arguments)
    found = runner(**arguments)
    for name, value in expected.items():
        for one, other in zip(matrix.leaves(runner.numpy(found[name])), matrix.leaves(value), strict=True):
            # Twice the matrix' tolerance, for the rounding of a few small logits: a wrong row or head is 1e-2 off.
            assert matrix.error(one, other) < 2 * matrix.TOLERANCE, (name, matrix.error(one, other))
