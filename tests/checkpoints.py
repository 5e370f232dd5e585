"""Checkpoints to test with: tiny ones, written whole or byte by byte, and what must hold of them."""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from gptzoo import weights
from gptzoo.checkpoint import open_checkpoint, plan_load
from gptzoo.config import CONFIGS, GPTConfig
from gptzoo.errors import CheckpointError, GPTZooError
from gptzoo.heads import HEADS, class_name

TINY: dict[str, Any] = {"vocab_size": 11, "n_positions": 7, "n_embd": 8, "n_layer": 2, "n_head": 2}
CLASSES = [(family, head) for family in CONFIGS for head in HEADS]
CLASS_IDS = [class_name(CONFIGS[family], head) for family, head in CLASSES]
DTYPES = ("float16", "bfloat16", "float32", "float64")
Arrays = dict[str, np.ndarray]
Header = dict[str, Any]


WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def tiny(family: str = "gpt2", **changes: Any) -> GPTConfig:
    return CONFIGS[family](**(TINY | changes))


def arrays(config: GPTConfig, head: str, dtype: str = "float32") -> Arrays:
    """Every weight that is stored, random, in a dtype."""
    rng = np.random.default_rng(5)
    specs = weights.specs(config, head).values()
    return {spec.name: rng.standard_normal(spec.shape).astype(np.dtype(dtype)) for spec in specs if not spec.tied}


def load(path: Path, head: str = "LMHeadModel", **changes: Any) -> Arrays:
    checkpoint = open_checkpoint(path)
    config = type(checkpoint.config).derive(checkpoint.config, **changes)
    return dict(plan_load(checkpoint, config, head).values())


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def store(path: Path, tensors: Arrays, config: GPTConfig, **metadata: str) -> Path:
    """Writes a checkpoint by the safetensors library, whatever names the tensors have."""
    path.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path / "model.safetensors", {"format": "pt"} | metadata)
    (path / "config.json").write_text(config.to_json_string())
    return path


def outcome(call: Callable[[], Any]) -> Any:
    """Returns what a call returns, or the error of ours that it raises; others go through."""
    try:
        return call()
    except GPTZooError as problem:
        return problem


def refusal(path: Path, *parts: str, error: type[GPTZooError] = CheckpointError, **options: Any) -> str:
    """Returns the message with which a checkpoint is refused; `parts` are patterns that it must have."""
    start = time.process_time()
    with pytest.raises(error) as caught:
        load(path, **options)
    assert time.process_time() - start < 2
    assert type(caught.value) is error
    message = str(caught.value)
    assert all(line.isprintable() for line in message.splitlines())
    for part in parts:
        assert re.search(part, message, re.MULTILINE), f"{part!r} is not in {message!r}"
    return message


def split(data: bytes) -> tuple[Header, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


# The checkpoint that is made bad: initial values of this model.
LM = tiny(architectures=["GPT2LMHeadModel"])


def lm_tensors() -> Arrays:
    specs = weights.specs(LM, "LMHeadModel").values()
    return {spec.name: weights.initial_value(spec) for spec in specs if not spec.tied}
