"""A wrong conversion does not pass: faults are put into writers and layouts, and each must be caught."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo import weights
from gptzoo.checkpoint import open_checkpoint, save_checkpoint
from gptzoo.cli import main
from gptzoo.config import GPTConfig
from gptzoo.errors import CheckpointError, GPTZooError, ParityError
from gptzoo.parity import require_same_outputs
from gptzoo_conversion import FORMATS, convert
from gptzoo_conversion.cells import Cell, Column
from gptzoo_conversion.containers.flat import write_flat as flat
from gptzoo_conversion.format import Format, Target
from gptzoo_conversion.layouts import llmc
from tests import matrix
from tests import test_convert_golden as golden
from tests.conversion import INDEX, truth

BLOCK = "h.1."
Arrays = Mapping[str, np.ndarray]


def _swapped_qk(array: np.ndarray) -> np.ndarray:
    q, k, v = np.split(array, 3, axis=-1)
    return np.concatenate([k, q, v], axis=-1)


def _one_bit(array: np.ndarray) -> np.ndarray:
    result = np.array(array)
    result.reshape(-1).view(np.uint32)[-1] ^= 1
    return result


def _rounded(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)


# Fault -> the weight it is in, and what is written in its place, made from all weights.
FAULTS: dict[str, tuple[str, Callable[[Arrays], np.ndarray]]] = {
    "square kernel transposed": ("attn.c_proj.weight", lambda all: all["attn.c_proj.weight"].T),
    "query and key swapped": ("attn.c_attn.weight", lambda all: _swapped_qk(all["attn.c_attn.weight"])),
    "query and key swapped in the bias": ("attn.c_attn.bias", lambda all: _swapped_qk(all["attn.c_attn.bias"])),
    "norm of another place": ("ln_1.weight", lambda all: all["ln_2.weight"]),
    "one bit": ("mlp.c_fc.weight", lambda all: _one_bit(all["mlp.c_fc.weight"])),
    "one bit in a vector": ("mlp.c_proj.bias", lambda all: _one_bit(all["mlp.c_proj.bias"])),
    "rounded to float16": ("mlp.c_proj.weight", lambda all: _rounded(all["mlp.c_proj.weight"])),
    "zeros": ("ln_2.bias", lambda all: np.zeros_like(all["ln_2.bias"])),
}


def _model(format: Format) -> GPTConfig:
    """A model that a format holds: with square kernels, and norms that differ."""
    fixed = {name: value for name, value in format.fixed.items() if name != "model_type"}
    return matrix.tiny(format.families[0], n_embd=12, n_head=3, **fixed)


@pytest.fixture
def source(tmp_path: Path) -> Callable[[Format], Path]:
    def make(format: Format) -> Path:
        config = _model(format)
        save_checkpoint(tmp_path / "source", config, "LMHeadModel", matrix.random_weights(config, "LMHeadModel"))
        return tmp_path / "source"

    return make


def _foreign(format: Format, target: Target, name: str) -> list[str]:
    """What a weight of the block is called in the file."""
    names = format.column[f"h.{{i}}.{name}"].named(int(BLOCK.split(".")[1]))
    return [format.full_name(part, True, target.config, target.head) for part in names]


def _value(format: Format, target: Target, name: str) -> np.ndarray:
    cell = format.column[f"h.{{i}}.{name}"]
    return np.array(cell.join([target.read(part) for part in _foreign(format, target, name)]))


def _faulty(format: Format, target: Target, name: str, change: Callable[[Arrays], np.ndarray]) -> Target:
    """A target from which a writer gets another array in the place of a weight."""

    class Lazy(dict[str, np.ndarray]):
        def __missing__(self, key: str) -> np.ndarray:
            return _value(format, target, key)

    parts = _foreign(format, target, name)

    def read(foreign: str) -> np.ndarray:
        if foreign not in parts:
            return target.read(foreign)
        _value(format, target, name)  # was read, though not written
        cell = format.column[f"h.{{i}}.{name}"]
        return cell.split(change(Lazy()), target.config.n_head)[parts.index(foreign)]

    return dataclasses.replace(target, read=read)


def _patch(monkeypatch: pytest.MonkeyPatch, format: Format, change: Callable[[Target], Target]) -> None:
    write = type(format).write
    monkeypatch.setattr(type(format), "write", lambda self, target: write(self, change(target)))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_fault_of_the_writer_is_found_when_it_is_read_back(
    name: str, fault: str, source: Callable[[Format], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    format, (weight, change) = FORMATS[name], FAULTS[fault]
    path = source(format)
    _patch(monkeypatch, format, lambda target: _faulty(format, target, weight, change))
    with pytest.raises(CheckpointError) as caught:
        convert(path, tmp_path / "there", name)
    assert f"{BLOCK}{weight}: read back other than written" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_weight_that_is_not_written_is_found(
    name: str, source: Callable[[Format], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    format = FORMATS[name]
    path, weight = source(format), "attn.c_proj.weight"

    def without(target: Target) -> Target:
        (absent,) = _foreign(format, target, weight)
        return dataclasses.replace(target, infos={k: v for k, v in target.infos.items() if k != absent})

    if name == "llmc":  # its file has no names, and is only shorter
        monkeypatch.setattr(llmc, "write_flat", lambda path, infos, *rest: flat(path, _without_last(infos), *rest))
    else:
        _patch(monkeypatch, format, without)
    with pytest.raises(CheckpointError) as caught:
        convert(path, tmp_path / "there", name)
    foreign = format.column[f"h.{{i}}.{weight}"].named(1)[0]
    assert any(part in str(caught.value) for part in (weight, foreign, "bytes")), str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


def _without_last(infos: Mapping[str, Any]) -> dict[str, Any]:
    return dict(list(infos.items())[:-1])


# Layouts that are wrong in reading and writing alike: what is read back is what was written, and wrong.


def _unchanged(format: Format) -> Iterator[tuple[str, Column]]:
    """The column with the changes of one cell left out."""
    column = format.column
    for row, cell in column.items():
        if cell.changes:
            yield f"{row} as it lies", {**column, row: Cell(cell.names)}


def _exchanged(format: Format) -> Iterator[tuple[str, Column]]:
    """The column with the names of two weights of one shape exchanged, or of the parts of one."""
    column, ties = (
        format.column,
        format.fixed.get("tie_word_embeddings"),
    )  # a head that is always tied is no other weight
    shapes = {row.name: row.shape for row in weights.TABLE if row.name in column and not (row.tied and ties)}
    for one, other in combinations(shapes, 2):
        if shapes[one] == shapes[other] and column[one].changes == column[other].changes:
            yield f"{one} for {other}", {**column, one: column[other], other: column[one]}
    for row, cell in column.items():
        if len(cell.names) > 1:
            second, first, *rest = cell.names
            yield f"{row} by parts", {**column, row: dataclasses.replace(cell, names=(first, second, *rest))}


def _held(format: str) -> set[str]:
    """The rows of the table that golden checkpoints of a format hold."""
    names = [name for name in INDEX if INDEX[name]["format"] == format]
    return {re.sub(r"^h\.\d+\.", "h.{i}.", key) for name in names for key in truth(name)}


WITH_GOLDEN = [name for name in FORMATS if any(entry["format"] == name for entry in INDEX.values())]
WRONG = [
    (name, what, column)
    for name in WITH_GOLDEN
    for make in (_unchanged, _exchanged)
    for what, column in make(FORMATS[name])
    if what.split()[0] in _held(name)
]


def golden_faults(format: str) -> list[str]:
    """What the checks of the golden checkpoints find wrong, up to the first fault."""
    for name in (name for name in INDEX if INDEX[name]["format"] == format):
        try:
            golden.test_numbers_are_those_that_were_put_in(name)
            golden.test_reference_computes_what_the_other_software_did(name)
        except (AssertionError, GPTZooError) as problem:
            return [f"{name}: {problem}"]
    return []


@pytest.mark.parametrize("format", WITH_GOLDEN)
def test_golden_checks_find_nothing_wrong_with_right_layouts(format: str) -> None:
    assert golden_faults(format) == []


@pytest.mark.parametrize(
    ("format", "column"), [(name, column) for name, _, column in WRONG], ids=[f"{n}-{what}" for n, what, _ in WRONG]
)
def test_golden_checks_find_a_wrong_layout(format: str, column: Column, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(FORMATS[format]), "column", column)
    assert golden_faults(format)


# Another number of heads: the same names, shapes and bits, and another model.


def _other_heads(config: GPTConfig) -> GPTConfig:
    return type(config).derive(config, n_head=2)


@pytest.mark.parametrize("name", FORMATS)
def test_another_number_of_heads_is_found_when_it_is_read_back(
    name: str, source: Callable[[Format], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(FORMATS[name])
    _patch(monkeypatch, FORMATS[name], lambda target: dataclasses.replace(target, config=_other_heads(target.config)))
    with pytest.raises(CheckpointError, match=r"n_head: 2 when read back, expected 3|expected that of 2 heads"):
        convert(path, tmp_path / "there", name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("name", FORMATS)
def test_another_number_of_heads_is_found_by_parity(
    name: str,
    source: Callable[[Format], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where the fields were not compared, what both models compute would tell."""
    path, call = str(source(FORMATS[name])), ["--to", name, "--quiet", "--parity"]
    assert main(["convert", path, str(tmp_path / "right"), *call]) == 0
    _patch(monkeypatch, FORMATS[name], lambda target: dataclasses.replace(target, config=_other_heads(target.config)))
    monkeypatch.setattr(sys.modules[convert.__module__], "_SAID", ())
    assert main(["convert", path, str(tmp_path / "there"), *call]) != 0
    assert re.search(r"head_mask: shape \(2, 3\)|expected that of 2 heads", capsys.readouterr().err)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["right", "source"]


@pytest.mark.parametrize("head", ["Model", "LMHeadModel"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_head": 2}, "head_mask: shape"),
        ({"layer_norm_epsilon": 1e-3}, "plain .* off"),
        ({"scale_attn_weights": False}, "plain .* off"),
        ({"activation_function": "gelu"}, "plain .* off"),
    ],
    ids=["n_head", "epsilon", "scale", "activation"],
)
def test_parity_refuses_another_config_of_the_same_shapes(
    head: str, changes: dict[str, Any], reason: str, source: Callable[[Format], Path]
) -> None:
    one = open_checkpoint(source(FORMATS["safetensors"]))
    require_same_outputs(one, one, head)
    other = dataclasses.replace(one, config=type(one.config).derive(one.config, **changes))
    with pytest.raises(ParityError, match=reason):
        require_same_outputs(one, other, head)
