"""`gptzoo run`: lines in, results out, in processes of their own."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from gptzoo.cli import main
from gptzoo.pipelines import pipeline
from tests.matrix import TESTED
from tests.pipelines import ASKED, TASKS, TEXTS, assert_same, folder, ours

FIRST = TESTED[0]
ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "conversion")]),
    "PYTHONUTF8": "1",
    "OMP_NUM_THREADS": "1",
}
LINES = ["King", "", "O Romeo,\u2028été", "", ""]  # U+2028 ends no line
GENERATE = ("--task", "text-generation", "--dtype", "float32", "--max-new-tokens", "3")


def command(*options: str, framework: str = FIRST) -> list[str]:
    return [sys.executable, "-W", "error::UserWarning", "-m", "gptzoo.cli", "run", "--framework", framework, *options]


def run(*options: str, text: bytes = b"", framework: str = FIRST) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*options, framework=framework), input=text, capture_output=True, env=ENVIRONMENT, check=False
    )


def model_options(task: str) -> list[str]:
    question = ["--question", ASKED["question"]] if task == "question-answering" else []
    return ["--task", task, "--model", str(folder(task)), *question]


def source(task: str, text: str) -> Any:
    return {"question": ASKED["question"], "context": text} if task == "question-answering" else text


def error_of(result: subprocess.CompletedProcess[bytes]) -> str:
    """The one line of a command that failed."""
    assert result.returncode == 2, result
    assert b"Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.decode().splitlines() if line.startswith("gptzoo: error: ")]
    return line


@pytest.mark.parametrize("task", TASKS)
def test_json_has_a_line_for_each_line(task: str) -> None:
    """What the pipeline returns, in its order; null for an empty line; Windows' line ends are none of the text."""
    text = "\r\n".join(LINES).encode() + b"\r\n"
    result = run(*model_options(task), "--json", "--batch-size", "2", text=text)
    assert result.returncode == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.decode().removesuffix("\n").split("\n")]
    pipe = ours(FIRST, task)
    assert_same(found, [pipe([source(task, line)])[0] if line else None for line in LINES])
    assert "été" in result.stdout.decode() or task != "text-generation"


@pytest.mark.parametrize("framework", TESTED)
def test_every_framework_writes_the_same(framework: str) -> None:
    result = run(*GENERATE, text=b"King\n\nO Romeo", framework=framework)
    assert result.returncode == 0, result.stderr
    pipe = pipeline("text-generation", framework=FIRST, dtype="float32", max_new_tokens=3)
    first, last = (pipe(text)[0]["generated_text"] for text in ("King", "O Romeo"))
    assert result.stdout.decode() == f"{first}\n\n{last}\n"


def test_plain_results() -> None:
    """A line of columns for each line; of tokens, a line for each and an empty one behind them."""
    found = {task: run(*model_options(task), text=f"{TEXTS[1]}\n\n".encode()).stdout.decode() for task in TASKS}
    label = ours(FIRST, "text-classification")(TEXTS[1])[0]
    assert found["text-classification"] == f"{label['label']}\t{label['score']:.6f}\n\n"
    answer = ours(FIRST, "question-answering")(source("question-answering", TEXTS[1]))
    columns = f"{answer['answer']}\t{answer['score']:.6f}\t{answer['start']}\t{answer['end']}"
    assert found["question-answering"] == f"{columns}\n\n"
    entities = ours(FIRST, "token-classification")(TEXTS[1])
    names = ("word", "entity", "score", "start", "end")
    rows = ["\t".join(f"{one[n]:.6f}" if n == "score" else str(one[n]) for n in names) for one in entities]
    assert found["token-classification"] == "".join(f"{row}\n" for row in [*rows, "", ""])
    lines = found["feature-extraction"].split("\n")
    (vectors,) = ours(FIRST, "feature-extraction")(TEXTS[1])
    assert len(lines) == len(vectors) + 3
    assert [float(x) for x in lines[0].split("\t")] == pytest.approx(vectors[0], rel=1e-3, abs=1e-4)


def test_options_of_generation() -> None:
    drawn = ["--do-sample", "--temperature", "0.9", "--top-k", "30", "--top-p", "0.95", "--seed", "4"]
    many = [*GENERATE, *drawn, "--num-return-sequences", "2", "--json"]
    one, both = run(*many, text=b"King\nKing\n"), run(*many, "--batch-size", "2", text=b"King\n\nKing\n")
    pipe = pipeline("text-generation", framework=FIRST, dtype="float32", max_new_tokens=3)
    options = {"do_sample": True, "temperature": 0.9, "top_k": 30, "top_p": 0.95, "seed": 4, "num_return_sequences": 2}
    expected = pipe(["King", "King"], **options)
    assert [json.loads(line) for line in one.stdout.splitlines()] == expected
    assert [json.loads(line) for line in both.stdout.splitlines() if line != b"null"] == expected


def send(process: subprocess.Popen[bytes], text: bytes) -> None:
    assert process.stdin
    process.stdin.write(text)
    process.stdin.flush()


def stream(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout
    return process.stdout


def test_a_line_is_answered_before_the_next_one_comes() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*GENERATE), env=ENVIRONMENT, **pipes) as process:
        for text in (b"King", b"Queen"):
            send(process, text + b"\n")
            assert stream(process).readline().startswith(text)
        process.communicate()
        assert process.returncode == 0


def test_ctrl_c_ends_it_with_130() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*GENERATE), env=ENVIRONMENT, **pipes) as process:
        send(process, b"King\n")
        assert stream(process).readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        assert process.returncode == 130
        assert b"Traceback" not in errors


def test_a_reader_who_leaves_ends_it_silently() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*GENERATE), env=ENVIRONMENT, **pipes) as process:
        send(process, b"King\n")
        assert stream(process).readline()
        stream(process).close()
        send(process, b"Queen\n")
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 0
        assert process.stderr
        assert b"gptzoo" not in process.stderr.read()


def test_a_terminal_is_told_that_lines_are_waited_for() -> None:
    terminal, end = pty.openpty()
    with subprocess.Popen(
        command(*GENERATE), env=ENVIRONMENT, stdin=end, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.write(terminal, b"King\n\x04")
        found, errors = process.communicate()
    os.close(terminal)
    os.close(end)
    assert process.returncode == 0
    assert found.startswith(b"King")
    assert errors.decode().count("gptzoo: reading lines from the terminal") == 1


@pytest.mark.parametrize("size", ["1", "5"])
def test_a_wrong_line_is_named_behind_the_results_of_those_before_it(size: str) -> None:
    for wrong, problem in (
        (b"caf\xe9", "byte 0xe9 at 3, expected UTF-8"),
        (b"King " * 300, "900 tokens and 3 new ones"),
    ):
        result = run(*GENERATE, "--json", "--batch-size", size, text=b"King\n\nQueen\n" + wrong + b"\nRomeo\n")
        assert f"standard input: line 4: {problem}" in error_of(result)
        assert len(result.stdout.splitlines()) == 3
    result = run(*GENERATE, "--handle-long-generation", "hole", text=b"King " * 300)
    assert result.stdout.startswith(b"King King")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--task", "text-generation", "--framework", "mxnet"], "framework: 'mxnet', expected one of torch"),
        (["--task", "translation"], "task: 'translation', expected one of text-generation"),
        (["--task", "text-classification"], "no default for text-classification"),
        (["--task", "text-generation", "--model", "absent"], "'absent'"),
        (["--task", "text-generation", "--device", "0"], "device: 0, expected one that"),
        (["--task", "text-generation", "--dtype", "int8"], "int8"),
        (["--task", "text-generation", "--batch-size", "0"], "batch_size: 0"),
        (["--task", "text-generation", "--max-new-tokens", "-1"], "max_new_tokens: -1"),
        (["--task", "text-generation", "--truncation"], "--truncation: given, expected only for"),
        (["--task", "ner", "--model", "gptzoo/shakespeare"], "GPT2LMHeadModel without trained classifier.weight"),
        (["--task", "ner", "--model", "x", "--seed", "1", "--do-sample"], "--seed: given, expected only for text-gen"),
        (["--task", "question-answering", "--model", "x"], "--question: none given"),
        (["--task", "feature-extraction", "--model", "x", "--question", "?"], "--question: given, expected only for"),
    ],
    ids=lambda given: "_".join(given) if isinstance(given, list) else "",
)
def test_wrong_options_end_in_one_line(options: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a line is read."""
    assert main(["run", "--framework", FIRST, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("gptzoo: error: ")
    assert problem in line


def test_wrong_options_of_generate_end_in_one_line() -> None:
    result = run(*GENERATE, "--top-p", "0.5", text=b"King\n")
    assert "top_p: 0.5, expected do_sample=True" in error_of(result)


def test_no_lines_give_no_results() -> None:
    result = run(*GENERATE, "--json")
    assert (result.returncode, result.stdout) == (0, b"")
