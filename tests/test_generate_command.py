"""`gptzoo generate`: a prompt in, the text out; and how it ends, in processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from gptzoo.cli import main
from gptzoo.pipelines import pipeline
from tests.matrix import TESTED

FIRST = TESTED[0]
ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "conversion")]),
    "PYTHONUTF8": "1",
    "OMP_NUM_THREADS": "1",
}
PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
PROMPT = "Now is the winter\nof été"
SHORT = ("--dtype", "float32", "--max-new-tokens", "8")
LONG = ("--prompt", PROMPT, "--max-new-tokens", "100000", "--set", "overflow=slide")  # no test waits for its end


def command(*options: str) -> list[str]:
    return [sys.executable, "-W", "error::UserWarning", "-m", "gptzoo.cli", "generate", "--framework", FIRST, *options]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that succeeds, in this process, and returns what it prints."""

    def run(*options: str, framework: str = FIRST) -> str:
        assert main(["generate", "--framework", framework, *options]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run


@cache
def expected(framework: str = FIRST, **options: Any) -> str:
    """What the pipeline makes of the prompt, with a line end."""
    pipe = pipeline("text-generation", framework=framework, dtype="float32")
    return f"{pipe(PROMPT, max_new_tokens=8, **options)[0]['generated_text']}\n"


@pytest.mark.parametrize("stream", [False, True], ids=["at once", "token by token"])
@pytest.mark.parametrize("framework", TESTED)
def test_prints_the_prompt_and_what_is_added_to_it(framework: str, stream: bool, printed: Callable[..., str]) -> None:
    options = [*SHORT, "--prompt", PROMPT, *(["--stream"] if stream else [])]
    assert printed(*options, framework=framework) == expected()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["no line end", "line end", "line end of Windows"])
def test_a_prompt_from_standard_input_has_no_line_end(
    end: str, printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(f"{PROMPT}{end}".encode())))
    assert printed(*SHORT) == expected()


def test_an_empty_prompt_begins_a_text(printed: Callable[..., str]) -> None:
    pipe = pipeline("text-generation", framework=FIRST, dtype="float32")
    assert printed(*SHORT, "--prompt", "") == f"{pipe('', max_new_tokens=8)[0]['generated_text']}\n"


def test_options_of_generate(printed: Callable[..., str]) -> None:
    drawn = {"do_sample": True, "temperature": 0.9, "top_k": 30, "top_p": 0.95, "seed": 4, "repetition_penalty": 1.2}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in drawn.items() if name != "do_sample"]
    found = printed(*SHORT, "--prompt", PROMPT, "--do-sample", *flags)
    assert found == expected(**drawn) != expected()
    beams = ["--num-beams", "3", "--set", "early_stopping=never", "--set", "suppress_tokens=[3, 5]"]
    found = printed(*SHORT, "--prompt", PROMPT, *beams)
    assert found == expected(num_beams=3, early_stopping="never", suppress_tokens=(3, 5)) != expected()


@pytest.mark.parametrize("stream", [[], ["--stream"]], ids=["at once", "token by token"])
def test_a_stop_string_ends_it(stream: list[str], printed: Callable[..., str]) -> None:
    text = expected().removesuffix("\n")
    stop = text[len(PROMPT) + 2 : len(PROMPT) + 5]
    found = printed(*SHORT, "--prompt", PROMPT, "--stop", "never seen", "--stop", stop, *stream).removesuffix("\n")
    assert stop in found
    assert text.startswith(found)
    assert len(found) < len(text)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--framework", "mxnet"], "framework: 'mxnet', expected one of torch"),
        (["--model", "absent"], "'absent'"),
        (["--device", "0"], "device: 0, expected one that"),
        (["--max-new-tokens", "-1"], "max_new_tokens: -1"),
        (["--max-new-tokens", "999"], "max_new_tokens: 999, expected 1 to"),
        (["--top-p", "0.5"], "top_p: 0.5, expected"),
        (["--set", "top_q=1"], "--set: unknown argument 'top_q', did you mean top_"),
        (["--set", "min_p"], "--set: 'min_p': not valid JSON"),
        (["--set", "min_p=[1"], "expected NAME=VALUE with a value in JSON"),
        (["--set", "min_p=never"], "min_p: 'never', expected"),
        (["--set", "seed=1", "--seed", "1"], "--set: seed: given twice"),
        (["--set", "num_return_sequences=2"], "--set: num_return_sequences: given, expected none"),
        (["--stop", ""], "stop_strings: "),
        (["--stream", "--num-beams", "2"], "streamer"),
    ],
    ids=lambda given: "_".join(given) if isinstance(given, list) else "",
)
def test_wrong_options_end_in_one_line(options: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", PROMPT, "--framework", FIRST, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("gptzoo: error: ")
    assert problem in line


def test_a_prompt_that_is_no_text_ends_in_one_line() -> None:
    found = subprocess.run(command(), input=b"caf\xe9", capture_output=True, env=ENVIRONMENT, check=False)
    assert (found.returncode, found.stdout) == (2, b"")
    assert found.stderr == b"gptzoo: error: standard input: byte 0xe9 at 3, expected UTF-8\n"


def test_ctrl_c_leaves_what_was_printed_and_one_line() -> None:
    with subprocess.Popen(command(*LONG, "--stream"), env=ENVIRONMENT, **PIPES) as process:
        assert process.stdout
        begun = process.stdout.read(len(PROMPT.encode()) + 20)
        process.send_signal(signal.SIGINT)
        try:
            rest, errors = process.communicate(timeout=100)
        finally:
            process.kill()
    assert begun.decode(errors="ignore").startswith(PROMPT)
    assert rest.endswith(b"\n")
    assert process.returncode == 130
    assert_interrupted(errors)


def assert_interrupted(errors: bytes) -> None:
    """Checks for the one line, behind what TensorFlow logs."""
    assert errors.endswith(b"gptzoo: error: interrupted\n")
    assert len(re.findall(b"gptzoo|Traceback", errors)) == 1


# Sends itself the signal some time after the generation has begun, which nobody sees from outside.
INTERRUPTED = """
import os, signal, sys, threading, time
from gptzoo.cli import main

def interrupt():
    while not any(thread.daemon and thread is not own for thread in threading.enumerate()):
        time.sleep(0.01)
    time.sleep(float(sys.argv.pop()))
    os.kill(os.getpid(), signal.SIGINT)

own = threading.Thread(target=interrupt, daemon=True)
own.start()
sys.exit(main(["generate", *sys.argv[1:-1]]))
"""


@pytest.mark.parametrize("framework", TESTED)
def test_ctrl_c_is_heard_in_the_middle_of_a_step(framework: str) -> None:
    """While a program is compiled, or runs: one of all steps in Keras and Flax."""
    code = [sys.executable, "-c", INTERRUPTED, "--framework", framework, *LONG, "0.3"]
    found = subprocess.run(code, input=b"", capture_output=True, env=ENVIRONMENT, check=False, timeout=100)
    assert (found.returncode, found.stdout) == (130, b"")
    assert_interrupted(found.stderr)


def test_a_reader_who_leaves_ends_it_silently() -> None:
    with subprocess.Popen(command(*LONG, "--stream"), env=ENVIRONMENT, **PIPES) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(len(PROMPT.encode()))
        process.stdout.close()
        assert process.wait() == 0
        assert not re.findall(b"gptzoo|Traceback", process.stderr.read())
