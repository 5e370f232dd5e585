"""Conversions that are killed, interrupted or race each other: what is there is whole, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptzoo import _files
from gptzoo.errors import CheckpointError
from gptzoo.hub import DEFAULT_MODEL
from gptzoo_conversion import FORMATS, convert, open_foreign

from .runs import ENVIRONMENT, ROOT, assert_one_line, listing, store_small, tree

KILLS = int(os.environ.get("GPTZOO_KILLS", "100"))  # of each format
SIGNALS = 10  # of each that can be caught
BOOT = Path("/proc/sys/kernel/random/boot_id")
needs_linux = pytest.mark.skipif(not BOOT.exists(), reason="leftovers are told from live ones by Linux's means")


def rehearse(signal: str, to: str, count: int) -> dict[str, Any]:
    memory = Path("/dev/shm")  # a disk would make most kills fall into the time in which it is waited for
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        return _rehearse([sys.executable, "-m", "tests.kills", signal, to, place, str(count)])


def _rehearse(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    print(command, done.stdout)  # for those who want the counts: pytest -rP
    return dict(json.loads(done.stdout))


@needs_linux
@pytest.mark.parametrize("to", FORMATS)
def test_kill_at_any_time(to: str) -> None:
    """F1: nothing is there or the whole, and the next run succeeds, with the same bytes, and removes what was left."""
    found = rehearse("SIGKILL", to, KILLS)
    assert found["faults"] == []
    assert found["absent"] + found.get("complete", 0) >= KILLS / 3  # it was disturbed


@needs_linux
@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signal_at_any_time(signal: str) -> None:
    """F2: exit code 143, 130 or 129 once it has begun, and nothing is left."""
    found = rehearse(signal, "safetensors", SIGNALS)
    assert found["faults"] == []
    assert found["absent"] + found.get("complete", 0) >= SIGNALS / 3


# Tells each signal's exit code for certain: it comes while the first tensor is converted.
SIGNALLED = """
import os, signal, sys
from gptzoo_conversion import command
from gptzoo.cli import main

command._Bar.show = lambda *_: os.kill(os.getpid(), int(sys.argv[1]))
if sys.argv[2] == "ignored":
    signal.signal(int(sys.argv[1]), signal.SIG_IGN)
sys.exit(main(["convert", *sys.argv[3:]]))
"""


@pytest.mark.parametrize(("number", "code"), [(15, 143), (2, 130), (1, 129)])
def test_exit_code_of_signals(number: int, code: int, tmp_path: Path) -> None:
    def run(how: str) -> int:
        arguments = [str(number), how, DEFAULT_MODEL, str(tmp_path / "new" / "out"), "--to", "gguf"]
        return subprocess.run([sys.executable, "-c", SIGNALLED, *arguments], env=ENVIRONMENT, timeout=60).returncode

    assert run("caught") == code
    assert listing(tmp_path) == []
    assert run("ignored") == 0  # as under nohup
    assert listing(tmp_path) != []


# Eight at once. Each says that it is ready, and begins at a line on standard input.
RACE = """
import sys
import gptzoo_conversion
from gptzoo.cli import main

print("ready", flush=True)
sys.stdin.readline()
sys.exit(main(["convert", *sys.argv[1:], "--quiet"]))
"""


def race(commands: list[list[str]]) -> list[tuple[int, str]]:
    """Returns exit codes and what was said on standard error."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-c", RACE]
    processes = [subprocess.Popen([*command, *each], env=ENVIRONMENT, text=True, **pipes) for each in commands]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


@pytest.mark.parametrize(("overwrite", "name"), [(False, "out"), (True, "out.gguf")])
def test_eight_to_one_target(overwrite: bool, name: str, tmp_path: Path) -> None:
    """F10: one wins, or with --overwrite several that agree; the others are refused, and the target is whole."""
    convert(DEFAULT_MODEL, tmp_path / "expected" / name, "gguf")
    target = tmp_path / "new" / name
    command = [DEFAULT_MODEL, str(target), "--to", "gguf", *(["--overwrite"] if overwrite else [])]
    results = race([command] * 8)
    codes = [code for code, _ in results]
    assert set(codes) <= {0, 2}
    assert codes.count(0) >= 1 if overwrite else codes.count(0) == 1
    for code, error in results:
        if code:
            assert_one_line(error, str(target), "xists")
    assert tree(target) == tree(tmp_path / "expected" / name)
    assert os.listdir(target.parent) == [name]


def test_one_source_to_two_targets(tmp_path: Path) -> None:
    """F11."""
    results = race([[DEFAULT_MODEL, str(tmp_path / to), "--to", to] for to in ("gguf", "safetensors")])
    assert [code for code, _ in results] == [0, 0]
    assert sorted(os.listdir(tmp_path)) == ["gguf", "safetensors"]


def exchanges() -> bool:
    return sys.platform == "linux"


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("name", ["out", "out.gguf"])
def test_crash_at_any_rename_keeps_the_old_or_has_the_new(
    exchange: bool, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after each rename all is copied as a crash would leave it; then another conversion goes beside it."""
    if exchange and not exchanges():
        pytest.skip("this system has no renameat2")
    old, new = store_small(tmp_path / "old"), store_small(tmp_path / "new", n_layer=1)
    place, states = tmp_path / "place", tmp_path / "states"
    convert(old, place / name, "gguf")
    convert(new, tmp_path / "expected" / name, "gguf")
    allowed = [tree(place / name), tree(tmp_path / "expected" / name)]

    def watch(real: Callable[..., Any]) -> Callable[..., Any]:
        def rename(*arguments: Any) -> Any:
            result = real(*arguments)
            shutil.copytree(place, states / f"{len(listing(states)):05d}")
            return result

        return rename

    with monkeypatch.context() as patch:
        for function in ("rename", "replace"):
            patch.setattr(os, function, watch(getattr(os, function)))
        patch.setattr(_files, "_rename", watch(_files._rename) if exchange else lambda *_: False)
        convert(new, place / name, "gguf", overwrite=True)
    assert os.listdir(place) == [name]
    assert tree(place / name) == allowed[1]
    found = []
    for state in sorted(states.iterdir()):
        convert(new, state / "another", "gguf")  # a leftover's lock is free: its process is gone
        kept = [path for path in state.iterdir() if path.name != "another" and tree(path) in allowed]
        assert kept, listing(state)
        found.append("there" if state / name in kept else "aside")
    assert "aside" not in found if exchange else found.count("aside") == 1


def test_fault_between_the_two_renames_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = store_small(tmp_path / "source"), tmp_path / "place" / "out"
    convert(source, target, "gguf")
    before, real = tree(target), os.replace

    def replace(one: Path, other: Path) -> None:
        if other == target and one.name == "new":
            raise OSError(5, "Input/output error")
        real(one, other)

    monkeypatch.setattr(_files, "_rename", lambda *_: False)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(CheckpointError, match=r"out: Input/output error"):
        convert(source, target, "gguf", overwrite=True)
    assert os.listdir(target.parent) == ["out"]
    assert tree(target) == before


@needs_linux
def test_only_what_is_certainly_left_is_removed(tmp_path: Path) -> None:
    boot = BOOT.read_text().strip()
    dead, fresh, aged, full = (
        f".gptzoo-{boot}-01234567.tmp",
        ".gptzoo-1-01234567.tmp",
        ".gptzoo-1-89abcdef.tmp",
        ".gptzoo-1-00000000.tmp",
    )
    for name in (dead, fresh, aged, full):
        (tmp_path / name).mkdir()
    (tmp_path / full / "file").touch()
    for name in (aged, full):
        os.utime(tmp_path / name, (0, 0))
    convert(DEFAULT_MODEL, tmp_path / "out", "gguf")
    assert sorted(os.listdir(tmp_path)) == sorted([fresh, full, "out"])


def test_conversion_that_still_runs_is_left_alone(tmp_path: Path) -> None:
    """Another one beside it removes no stage of it; both end well."""
    inside, outside = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        assert outside.wait(60)

    thread = threading.Thread(target=lambda: convert(DEFAULT_MODEL, tmp_path / "slow", "gguf", progress=wait))
    thread.start()
    assert inside.wait(60)
    convert(DEFAULT_MODEL, tmp_path / "fast", "gguf")
    outside.set()
    thread.join(60)
    assert sorted(os.listdir(tmp_path)) == ["fast", "slow"]
    assert tree(tmp_path / "fast") == tree(tmp_path / "slow")
    assert open_foreign(tmp_path / "slow").format == "gguf"
