"""gptzoo parity, inspect and demo: their verdicts, their exit codes, and what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo.checkpoint import save_checkpoint
from gptzoo.cli import main
from gptzoo.errors import GPTZooError, ParityError
from gptzoo.heads import HEADS
from gptzoo.hub import DEFAULT_MODEL
from gptzoo.parity import Comparison, Report, cases, check, compare
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


def _report(*comparisons: Comparison) -> Report:
    return Report("m", "GPT2Model", "float32", 1e-6, 0, comparisons=list(comparisons))


def _strict(report: Report) -> Any:
    return json.loads(json.dumps(report.to_json(), allow_nan=False))


def test_values_that_are_not_finite_on_both_sides_are_counted() -> None:
    nan, one = np.array([np.nan, np.inf, 1.0]), np.ones(3)
    report = _report(
        compare("torch", "plain", "x", nan, nan, 1e-6),
        compare("torch", "cache", "x", nan[1:], nan[1:], 1e-6),
        compare("torch", "plain", "y", one, one, 1e-6),
    )
    assert [one.not_finite for one in report.comparisons] == [2, 1, 0]
    *_, x, y, _, verdict, last = str(report).splitlines()
    assert str(report).count("not finite") == 1
    assert x.split()[-3:] == ["pass", "3", "plain"]
    assert y.split()[-3:] == ["pass", "0", "plain"]
    assert verdict.startswith("pass: 3 arrays compared")
    assert last == "3 values are NaN or infinite on both sides: counted as equal, not measured"
    written = _strict(report)
    assert [row["not_finite"] for row in written["comparisons"]] == [2, 1, 0]
    assert (written["passed"], written["not_finite"]) == (True, 3)


def test_report_of_finite_values_ends_with_its_verdict() -> None:
    report = _report(compare("torch", "plain", "x", np.ones(3), np.ones(3), 1e-6))
    assert str(report).splitlines()[-1].startswith("pass: 1 arrays compared")


def test_numbers_that_json_does_not_have_are_null() -> None:
    report = _report(compare("torch", "plain", "x", np.ones(3), np.zeros(3), 1e-6))
    report.tolerance = float("inf")
    assert (_strict(report)["tolerance"], _strict(report)["comparisons"][0]["max_rel"]) == (None, None)
    assert _strict(report)["passed"] is False


def test_nan_in_a_weight_passes_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = matrix.tiny("gpt2")
    weights = matrix.random_weights(config, "LMHeadModel")
    weights["transformer.h.1.mlp.c_proj.bias"][0] = np.nan
    save_checkpoint(tmp_path / "m", config, "LMHeadModel", weights)
    assert main(["parity", str(tmp_path / "m"), "--frameworks", ONE[0], "--json", str(tmp_path / "report.json")]) == 0
    assert "NaN or infinite on both sides" in capsys.readouterr().out.splitlines()[-1]
    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert report["not_finite"] == sum(row["not_finite"] for row in report["comparisons"]) > 0
    assert any(row["not_finite"] == 0 for row in report["comparisons"])  # what comes before that weight


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
    outputs = {one.name for one in HEADS[head].outputs}
    has_encoder = family == "gpt2" and "encoder_hidden_states" in HEADS[head].arguments
    assert {one.output for one in report.comparisons} == outputs - (set() if has_encoder else {"cross_attentions"})
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


def test_framework_named_twice_runs_once_in_the_order_first_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, names = _save(tmp_path / "m"), [*reversed(TESTED)]
    told: list[str] = []
    report = check(path, names + TESTED, progress=told.append)
    assert told[1:] == list(report.precision) == names
    assert len(report.comparisons) == len(check(path, TESTED).comparisons)
    assert main(["parity", str(path), "--frameworks", f"{ONE[0]}, {ONE[0]}"]) == 0
    assert capsys.readouterr().err.count(f"gptzoo: {ONE[0]} ...") == 1


def test_arguments_of_check_that_are_wrong() -> None:
    for options, message in (
        ({"frameworks": []}, "no framework named"),
        ({"frameworks": "torch"}, "frameworks 'torch': expected a list"),
        ({"frameworks": ["caffe", 5]}, "framework 'caffe', 5: expected torch, keras, flax"),
        ({"dtype": "int8"}, "dtype 'int8': expected one of float64, float32"),
    ):
        with pytest.raises(GPTZooError, match=message):
            check(DEFAULT_MODEL, **options)  # type: ignore[arg-type]


UNWRITABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a directory": (lambda path: path.mkdir(), "a directory, expected a file or nothing"),
    "a link": (lambda path: path.symlink_to("elsewhere"), "a link, pipe or device"),
    "a pipe": (lambda path: os.mkfifo(path), "a link, pipe or device"),
    "in a file": (lambda path: path.parent.rmdir() or path.parent.write_text("x"), "is not a directory"),
    "in nothing": (lambda path: path.parent.rmdir(), "is not a directory"),
    "in a place without permission": (lambda path: path.parent.chmod(0o500), "cannot be written to"),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_report_that_cannot_be_written_is_refused_before_the_run(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "parent" / "report.json"
    path.parent.mkdir()
    prepare, message = UNWRITABLE[case]
    prepare(path)
    if "permission" in case:  # which root has everywhere
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("gptzoo.parity.check", lambda *args, **options: pytest.fail("the run began"))
    assert main(["parity", "--json", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gptzoo: error: {path}: ")
    assert message in line
    assert sorted(tmp_path.rglob("*")) == before


def test_earlier_report_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = _report(compare("torch", "plain", "x", np.ones(3), np.ones(3), 1e-6))
    monkeypatch.setattr("gptzoo.parity.check", lambda *args, **options: report)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["parity", "--json", "report.json"]) == 0
        assert json.loads(Path("report.json").read_text()) == _strict(report)


BAD = {
    "nothing": ["inspect", ""],
    "empty framework": ["parity", "--frameworks", ""],
    "empty framework after a comma": ["parity", "--frameworks", f"{ONE[0]},"],
    "nul": ["parity", "--json", "a\0b"],
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


OPTIONS = {
    "seed": (["--seed", "x"], "argument --seed: 'x', expected a whole number from 0"),
    "negative seed": (["--seed", "-1"], "argument --seed: '-1', expected a whole number from 0"),
    "tolerance": (["--tolerance", "x"], "argument --tolerance: 'x', expected a number above 0"),
    "NaN tolerance": (["--tolerance", "nan"], "argument --tolerance: 'nan', expected a number above 0"),
    "empty file": (["--json", ""], "argument --json: '', expected the name of a file"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_option_that_is_wrong(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    options, message = OPTIONS[name]
    with pytest.raises(SystemExit) as caught:
        main(["parity", *options])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"gptzoo parity: error: {message}"


@pytest.mark.skipif("keras" not in TESTED, reason="about Keras")
def test_unknown_backend_of_keras_is_one_line() -> None:
    command = [sys.executable, "-m", "gptzoo.cli", "parity", "--frameworks", "keras"]
    env = os.environ | {"KERAS_BACKEND": "caffe"}
    result = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("gptzoo: error: gptzoo.keras: ")
    assert "caffe" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes it")
def test_closed_standard_output_is_no_traceback() -> None:
    command = f"'{sys.executable}' -m gptzoo.cli inspect {DEFAULT_MODEL} >&-"
    result = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


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
