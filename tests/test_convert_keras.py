"""Weights and archives that Keras writes of our models are read, and Keras loads those that are written without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo.config import GPTConfig
from gptzoo.heads import HEADS, class_name
from gptzoo_conversion import convert, open_foreign

from .checkpoints import tiny
from .conversion import assert_same_bits, numbers
from .matrix import TESTED

if "keras" not in TESTED:
    pytest.skip("Keras is not tested here", allow_module_level=True)

# Keras turns TensorFlow's variables into arrays in a way that NumPy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt": ("openai-gpt", {}),
    "gpt2": ("gpt2", {}),
    "untied, prelu": ("gpt2", {"tie_word_embeddings": False, "activation_function": "prelu"}),
    "cross-attention": ("gpt2", {"add_cross_attention": True}),
    "xielu": ("openai-gpt", {"afn": "xielu"}),
    "pruned": ("gpt2", {"pruned_heads": {0: [1]}}),
}
CASES = [
    (variant, head) for variant in VARIANTS for head in HEADS if variant in ("gpt", "gpt2") or head in list(HEADS)[1:3]
]


def build(config: GPTConfig, head: str, seed: int) -> Any:
    import gptzoo.keras

    return getattr(gptzoo.keras, class_name(config, head))(config, seed=seed)


@pytest.mark.parametrize(("variant", "head"), CASES, ids=[f"{variant} {head}" for variant, head in CASES])
def test_files_of_keras(variant: str, head: str, tmp_path: Path) -> None:
    import keras

    family, changes = VARIANTS[variant]
    config = tiny(family, pad_token_id=0, num_labels=3, **changes)
    model, ids = build(config, head, 1), np.array([[1, 2, 3, 4]])
    model.save_pretrained(tmp_path / "ours")
    model.save_weights(tmp_path / "by-keras.weights.h5")
    model.save(tmp_path / "by-keras.keras")
    wanted, expected = numbers(open_foreign(tmp_path / "ours")), np.asarray(model(ids).to_tuple()[0])

    assert_same_bits(numbers(open_foreign(tmp_path / "by-keras.weights.h5", config=config)), wanted)
    assert_same_bits(numbers(open_foreign(tmp_path / "by-keras.keras")), wanted)
    assert open_foreign(tmp_path / "by-keras.keras").config.architectures == [class_name(config, head)]

    for name in ("ours.keras", "ours.weights.h5", "directory"):
        convert(tmp_path / "ours", tmp_path / name, "keras")
    loaded = keras.saving.load_model(tmp_path / "ours.keras")
    assert np.array_equal(np.asarray(loaded(ids).to_tuple()[0]), expected)
    for path in (tmp_path / "ours.weights.h5", tmp_path / "directory" / "model.weights.h5"):
        other = build(config, head, 2)
        other(ids)
        other.load_weights(path)
        assert np.array_equal(np.asarray(other(ids).to_tuple()[0]), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str, tmp_path: Path) -> None:
    config = tiny(dtype=dtype)
    build(config, "LMHeadModel", 1).save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "x.keras", "keras")
    found = open_foreign(tmp_path / "x.keras")
    assert {info.dtype for info in found.tensors.values()} == {dtype}
    assert_same_bits(numbers(found), numbers(open_foreign(tmp_path / "ours")))


def test_variables_of_training_are_left_behind(tmp_path: Path) -> None:
    config = tiny()
    model = build(config, "LMHeadModel", 1)
    model.compile(optimizer="adam")
    ids = np.array([[1, 2, 3, 4]])
    model.fit({"input_ids": ids, "labels": ids}, epochs=1, verbose=0)
    model.save(tmp_path / "trained.keras")
    model.save_pretrained(tmp_path / "ours")
    assert_same_bits(numbers(open_foreign(tmp_path / "trained.keras")), numbers(open_foreign(tmp_path / "ours")))
