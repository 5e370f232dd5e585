"""What the tests of training share: a fresh model with a batch to learn, Keras' `fit`, and whether the loss falls."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from tests import matrix
from tests.matrix import TESTED
from tests.test_gradients import inputs_of

LM, DOUBLE, SEQUENCE = "LMHeadModel", "DoubleHeadsModel", "ForSequenceClassification"
TOKEN, SPAN = "ForTokenClassification", "ForQuestionAnswering"

families = pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])


def only(*frameworks: str) -> pytest.MarkDecorator:
    absent = [name for name in frameworks if name not in TESTED]
    return pytest.mark.skipif(bool(absent), reason=f"{absent} not in GPTZOO_FRAMEWORKS")


def made(framework: str, family: str, head: str, **more: Any) -> tuple[Any, dict[str, Any]]:
    """A fresh model with its own initial weights and usual dropout, and one batch, labels among it."""
    policy = {"dtype": more.pop("policy")} if "policy" in more else {}
    # Keras takes seconds to make a graph of one block.
    small = {"vocab_size": 20, "n_embd": 12, "n_layer": 1 if framework == "keras" else 2}
    config = matrix.tiny(family, **(small | more))
    runner = matrix.build(framework, config, head, **policy)
    return runner.model, {name: runner.to_native(x) for name, x in inputs_of(head, config).items()}


def assert_falls(losses: list[float]) -> None:
    assert np.isfinite(losses).all()
    assert min(losses[-3:]) < 0.7 * losses[0], losses


def fit(model: Any, *data: Any, epochs: int = 25, **options: Any) -> list[float]:
    history: list[float] = model.fit(*data, epochs=epochs, verbose=0, shuffle=False, **options).history["loss"]
    return history


def arrays(batch: dict[str, Any]) -> dict[str, np.ndarray]:
    import keras

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of how Keras calls NumPy
        return {name: keras.ops.convert_to_numpy(x) for name, x in batch.items() if not isinstance(x, tuple)}
