"""Checkpoints that other software wrote (tests/golden), and what they must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gptzoo.config import AutoConfig, GPTConfig
from gptzoo.weights import PREFIX, is_buffer
from gptzoo_conversion import ForeignCheckpoint, open_foreign

GOLDEN = Path(__file__).parent / "golden"
INDEX: dict[str, dict[str, Any]] = json.loads((GOLDEN / "index.json").read_text())

# Configs of the numbers in tests/golden/truth.
CONFIGS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "truth" / "configs.json").read_text())


def truth(name: str) -> dict[str, np.ndarray]:
    """The numbers that a golden checkpoint holds, by their names without a prefix."""
    entry = INDEX[name]
    with np.load(GOLDEN / "truth" / f"{entry['truth']}.npz") as arrays:
        wanted = [key for key in arrays if key.startswith(PREFIX) or key in entry["head_tensors"]]
        return {key.removeprefix(PREFIX): arrays[key].astype(np.dtype(entry["dtype"])) for key in wanted}


def golden_config(name: str) -> GPTConfig | None:
    """The config to be given with a checkpoint that says too little."""
    if INDEX[name]["format"] != "gpt1_npy":
        return None
    return AutoConfig.for_model(**CONFIGS[INDEX[name]["truth"]])


def open_golden(name: str) -> ForeignCheckpoint:
    return open_foreign(GOLDEN / name, config=golden_config(name))


def numbers(checkpoint: ForeignCheckpoint) -> dict[str, np.ndarray]:
    """Every tensor that is a weight, by its name without a prefix; a tied head is left out."""
    names = [name for name in checkpoint.tensors if not is_buffer(name)]
    if checkpoint.config.tie_word_embeddings:
        names = [name for name in names if name != "lm_head.weight"]
    return {name.removeprefix(PREFIX): checkpoint.read(name) for name in names}


def assert_same_bits(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name
