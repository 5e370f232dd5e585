"""Certificates: what was converted, and whatever is changed afterwards, in the certificate or beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gptzoo.cli import main
from gptzoo.errors import CheckpointError
from gptzoo_conversion import convert
from gptzoo_conversion.certificate import verify_certificate, write_certificate

from .conversion import GOLDEN

SOURCE = GOLDEN / "torch-gpt2-lm-bin"
WEIGHTS = "model.safetensors"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A certificate, beside the target `there` of its conversion."""
    done = convert(SOURCE, tmp_path / "there", "safetensors")
    write_certificate(tmp_path / "certificate.json", done)
    return tmp_path / "certificate.json"


def test_both_sides_are_found_as_certified(made: Path) -> None:
    assert len(verify_certificate(made)) == 2
    assert "the target as certified, 28 tensors" in verify_certificate(made, made.parent / "there")[0]


def test_sides_are_told_apart_by_their_format(tmp_path: Path) -> None:
    write_certificate(tmp_path / "c.json", convert(SOURCE, tmp_path / "x.gguf", "gguf"))
    assert "the source as certified" in verify_certificate(tmp_path / "c.json", SOURCE)[0]
    assert "the target as certified" in verify_certificate(tmp_path / "c.json", tmp_path / "x.gguf")[0]


def test_dtypes_of_both_sides(tmp_path: Path) -> None:
    write_certificate(tmp_path / "c.json", convert(SOURCE, tmp_path / "half", "safetensors", dtype="float16"))
    assert len(verify_certificate(tmp_path / "c.json")) == 2
    entry = json.loads((tmp_path / "c.json").read_text())["tensors"]["transformer.ln_f.bias"]
    assert (entry["source_dtype"], entry["dtype"]) == ("float32", "float16")
    assert entry["source"] != entry["target"]


def with_tensor(name: str, change: Callable[[np.ndarray | None], np.ndarray | None]) -> Callable[[Path], None]:
    def falsify(place: Path) -> None:
        tensors = load_file(place / WEIGHTS)
        array = change(tensors.pop(name, None))
        save_file(tensors | ({} if array is None else {name: array}), place / WEIGHTS, {"format": "pt"})

    return falsify


def with_json(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def falsify(place: Path) -> None:
        content = json.loads((place / file).read_text())
        change(content)
        (place / file).write_text(json.dumps(content))

    return falsify


LN = "transformer.ln_f.bias"
TARGETS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a number": (with_tensor(LN, lambda array: array + np.float32(1e-7)), rf"{LN}: SHA-256"),  # type: ignore[operator]
    "a dtype": (with_tensor(LN, lambda array: array.astype(np.float16)), rf"{LN}: float16"),  # type: ignore[union-attr]
    "another head": (with_tensor("score.weight", lambda _: np.ones((2, 12), np.float32)), "score.weight: not in the"),
    "number of heads": (with_json("config.json", lambda config: config.update(n_head=2)), "n_head: 2, expected 3"),
    "epsilon": (with_json("config.json", lambda config: config.update(layer_norm_epsilon=0.5)), "layer_norm_epsilon"),
    "untied": (
        lambda place: (
            with_tensor("lm_head.weight", lambda _: np.zeros((40, 12), np.float32))(place),
            with_json("config.json", lambda config: config.update(tie_word_embeddings=False))(place),
        )[0],
        "lm_head.weight: not in the certificate",
    ),
}


@pytest.mark.parametrize("case", TARGETS)
def test_changed_target_is_noticed(case: str, made: Path) -> None:
    falsify, words = TARGETS[case]
    falsify(made.parent / "there")
    with pytest.raises(CheckpointError, match=words):
        verify_certificate(made, made.parent / "there")


CERTIFICATES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a hash": (lambda c: c["tensors"][LN].update(target="0" * 64), "SHA-256"),
    "a shape": (lambda c: c["tensors"][LN].update(shape=[3]), r"expected float32 \[3\]"),
    "a dtype": (lambda c: c["tensors"][LN].update(dtype="float16"), "expected float16"),
    "a tensor less": (lambda c: c["tensors"].pop(LN), "not in the certificate"),
    "another version": (lambda c: c.update(version=2), "not a gptzoo conversion certificate of version 1"),
    "another kind": (lambda c: c.update(kind="x"), "not a gptzoo conversion certificate"),
    "no side": (lambda c: c.pop("source"), "not a gptzoo conversion certificate"),
    "no entry": (lambda c: c["tensors"].update({LN: 5}), "expected dtypes, shape"),
    "another config": (lambda c: c["config"]["target"].update(n_head=4), "n_head: 3, expected 4"),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_changed_certificate_is_noticed(case: str, made: Path) -> None:
    change, words = CERTIFICATES[case]
    content = json.loads(made.read_text())
    change(content)
    made.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=words):
        verify_certificate(made, made.parent / "there")


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_certificates_replace_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a file that is there, nor the source, nor the target."""
    source, thesis = tmp_path / "source", tmp_path / "thesis.txt"
    convert(SOURCE, source, "safetensors")
    thesis.write_text("years of work")
    for place in (thesis, source / WEIGHTS, source / "new.json", tmp_path / "out.gguf"):
        for more in ((), ("--overwrite",)):
            assert run("convert", source, tmp_path / "out.gguf", "--to", "gguf", "--certificate", place, *more) == 2
            assert not (tmp_path / "out.gguf").exists()
    assert thesis.read_text() == "years of work"
    certificate = tmp_path / "c.json"
    assert run("convert", source, tmp_path / "out.gguf", "--to", "gguf", "--certificate", certificate) == 0
    assert run("convert", source, tmp_path / "b.gguf", "--to", "gguf", "--certificate", certificate) == 2
    assert run("convert", source, tmp_path / "b.gguf", "--to", "gguf", "--certificate", certificate, "--overwrite") == 0
    assert run("verify-certificate", certificate) == 0
    assert capsys.readouterr().out.count("as certified, 28 tensors") == 2
