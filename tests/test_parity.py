"""gptzoo parity, inspect and demo: their verdicts, their exit codes, and what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo.cli import main
from gptzoo.errors import GPTZooError, ParityError
from gptzoo.hub import DEFAULT_MODEL
from gptzoo.parity import cases, check, compare
from tests import matrix
from tests.matrix import TESTED

ONE = TESTED[:1]


def _save(path: Path, family: str = "gpt2", head: str = "LMHeadModel", **overrides: Any) -> Path:
    config = matrix.tiny(family, **overrides)
    runner = matrix.build(ONE[0], config, head, matrix.random_weights(config, head))
    runner.model.save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("found", "passed"),
    [
        ([1.0, 2.0], True),
        ([1.0, 2.0 + 1e-6], True),
        ([1.0, 2.0 + 1e-5], False),
        ([1.0, float("nan")], False),
        ([1.0, float("inf")], False),
        ([1.0], False),
    ],
)
def test_verdict_on_arrays(found: list[float], passed: bool) -> None:
    assert compare("torch", "case", "x", np.array(found), np.array([1.0, 2.0]), 1e-6).passed is passed


def test_nan_on_one_side_only_fails_either_way() -> None:
    nan, one = np.array([float("nan"), 1.0]), np.array([1.0, 1.0])
    assert not compare("torch", "case", "x", nan, one, 1.0).passed
    assert not compare("torch", "case", "x", one, nan, 1.0).passed
    assert compare("torch", "case", "x", nan, nan, 1.0).passed
    inf = np.array([np.inf, 1.0])
    assert compare("torch", "case", "x", inf, inf, 1.0).passed
    assert not compare("torch", "case", "x", -inf, inf, 1.0).passed


def test_top1_and_kl_are_of_the_logits() -> None:
    wanted = np.array([[0.0, 1.0, 3.0], [0.0, 2.0, 2.0]])
    same = compare("torch", "case", "logits", wanted, wanted, 1e-6)
    assert (same.top1, same.mean_kl) == (1.0, 0.0)
    flipped = compare("torch", "case", "logits", wanted[:, ::-1], wanted, 10.0)
    assert flipped.top1 == 1.0  # no row is decided by more than a tolerance of 10
    assert compare("torch", "case", "logits", wanted[:, ::-1], wanted, 0.1).top1 == 0.0
    p = np.exp(wanted) / np.exp(wanted).sum(-1, keepdims=True)
    q = p[:, ::-1]
    assert flipped.mean_kl == pytest.approx((p * np.log(p / q)).sum(-1).mean())


@pytest.mark.parametrize(("family", "head"), matrix.CLASSES, ids=matrix.CLASS_IDS)
def test_every_framework_passes(family: str, head: str, tmp_path: Path) -> None:
    extra = {"add_cross_attention": True} if family == "gpt2" else {}
    report = check(_save(tmp_path / "m", family, head, **extra), TESTED)
    report.raise_if_failed()
    assert report.passed
    assert {one.framework for one in report.comparisons} == set(TESTED)
    wanted = {case.name for case in cases(matrix.tiny(family, **extra), head)}
    assert {one.case for one in report.comparisons} == wanted
    assert {one.output for one in report.comparisons} >= {"past_key_values", "hidden_states", "attentions"}
    again = check(tmp_path / "m", TESTED)
    assert [one.max_abs for one in again.comparisons] == [one.max_abs for one in report.comparisons]


def test_a_wrong_model_fails_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptzoo.parity import _run

    path = _save(tmp_path / "m")

    def wrong(*args: Any) -> Any:
        runner = matrix.build(ONE[0], matrix.tiny("gpt2", layer_norm_epsilon=1e-6), "LMHeadModel")
        right = load(*args)
        for name in matrix.random_weights(matrix.tiny("gpt2"), "LMHeadModel"):
            runner.model.set_weight(name, matrix.stored(right, name).astype(np.float32))
        return runner

    load = _run.load_runner
    monkeypatch.setattr(_run, "load_runner", wrong)
    report = check(path, ONE)
    assert not report.passed
    with pytest.raises(ParityError, match=f"{ONE[0]}.*logits"):
        report.raise_if_failed()
    assert main(["parity", str(path), "--frameworks", ONE[0]]) == 1


def test_command_writes_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _save(tmp_path / "m")
    code = main(["parity", str(path), "--frameworks", ",".join(TESTED), "--json", str(tmp_path / "report.json")])
    out = capsys.readouterr().out
    assert code == 0
    for word in ("max abs", "max rel", "top-1", "mean KL", "tolerance", "logits", "loss", *TESTED, "pass"):
        assert word in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["passed"] is True
    assert {row["framework"] for row in report["comparisons"]} == set(TESTED)
    assert set(report["precision"]) == set(TESTED)
    fields = {"max_abs", "max_rel", "top1", "mean_kl", "tolerance", "passed", "output", "framework", "case"}
    assert all(fields <= set(row) for row in report["comparisons"])


def test_tolerance_and_dtype_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(_save(tmp_path / "m"))
    assert main(["parity", path, "--frameworks", ONE[0], "--tolerance", "1e-12"]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert main(["parity", path, "--frameworks", ONE[0], "--dtype", "bfloat16"]) == 0


def test_absent_framework_is_named_as_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gptzoo.parity import _run

    monkeypatch.setattr(_run, "missing", lambda name: [] if name == ONE[0] else [name])
    report = check(_save(tmp_path / "m"))
    assert set(report.skipped) == {"torch", "keras", "flax"} - set(ONE)
    assert "not installed" in str(report)


BAD = {
    "absent": ["parity", "no/such/place"],
    "framework": ["parity", DEFAULT_MODEL, "--frameworks", "caffe"],
    "inspect": ["inspect", "no/such/place"],
    "a file": ["inspect", __file__],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(BAD[name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gptzoo: error: ")
    assert len(error.splitlines()) == 1


def test_unknown_framework_is_named() -> None:
    with pytest.raises(GPTZooError, match="caffe"):
        check(DEFAULT_MODEL, ["caffe"])


def test_inspect_describes_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", DEFAULT_MODEL]) == 0
    out = capsys.readouterr().out
    for word in ("GPT2LMHeadModel", "float16", "1,751,520"):
        assert word in out
    assert main(["inspect", DEFAULT_MODEL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_bundled_model_passes_and_writes_the_same() -> None:
    """What `make demo` does, in a process of its own, as a user starts it."""
    if len(TESTED) < 3:
        pytest.skip("the demo is about all three frameworks")
    command = [sys.executable, "-W", "error", "-m", "gptzoo.cli", "demo"]
    result = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"KERAS_BACKEND": "tensorflow"}, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("yes, token for token") == 3
    assert "All of them agree." in result.stdout
    assert "Traceback" not in result.stderr
