"""The safetensors reader and the index of shards under falsified bytes; more of both in test_bad_checkpoints.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from gptzoo._safetensors import read_header
from gptzoo._shards import read_shards
from tests import fuzz


def read(path: Path) -> None:
    file = read_header(path)
    for name in file.tensors:
        file.read(name)


def small() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"h.{i}.weight": rng.standard_normal((3, i + 1)).astype(np.float32) for i in range(4)}


def header_only(data: bytes, rng: np.random.Generator) -> bytes:
    """Falsifies the text of the header and makes its length right again: the tensors' places are what is looked at."""
    length = int.from_bytes(data[:8], "little")
    text = fuzz.mutate(data[8 : 8 + length], rng)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize("mutate", [fuzz.mutate, header_only])
def test_falsified_files(mutate: object, tmp_path: Path) -> None:
    save_file(small(), tmp_path / "good.safetensors")
    data = (tmp_path / "good.safetensors").read_bytes()
    seen = fuzz.attack(read, data, tmp_path / "bad.safetensors", mutate=mutate)  # type: ignore[arg-type]
    assert seen["refused"] > seen["read"]


def test_falsified_indexes(tmp_path: Path) -> None:
    tensors = small()
    for number, (name, array) in enumerate(tensors.items()):
        save_file({name: array}, tmp_path / f"model-{number}.safetensors")
    weight_map = {name: f"model-{number}.safetensors" for number, name in enumerate(tensors)}
    data = json.dumps({"metadata": {"total_size": 120}, "weight_map": weight_map}).encode()
    seen = fuzz.attack(lambda path: read_shards(path, read_header), data, tmp_path / "model.safetensors.index.json")
    assert seen["refused"] > seen["read"]


def test_the_attack_notices_memory(tmp_path: Path) -> None:
    """Also where the process held as much before."""
    np.ones(2**26).sum()  # 512 MiB, gone again
    with pytest.raises(AssertionError, match="memory"):
        fuzz.attack(lambda path: np.ones(2**25).sum(), b"x" * 400, tmp_path / "x", count=2)
