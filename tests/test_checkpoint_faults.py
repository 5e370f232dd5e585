"""Saves that are refused, that fail half way, or that a crash cuts short: nothing is lost, nothing is left behind."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo.checkpoint import open_checkpoint, save_checkpoint, write_file
from gptzoo.errors import CheckpointError, ConfigError, GPTZooError
from tests.checkpoints import (
    arrays,
    assert_same,
    contents,
    load,
    outcome,
    tiny,
)

TENSORS = arrays(tiny(), "Model")

# What a save refuses, and what it leaves behind


def test_wrong_tensors_are_all_listed_and_nothing_is_written(tmp_path: Path) -> None:
    tensors: dict[str, Any] = dict(arrays(tiny(), "LMHeadModel"))
    del tensors["transformer.ln_f.bias"]
    tensors |= {"score.weight": tensors["transformer.wte.weight"], "transformer.wpe.weight": np.zeros((8, 7))}
    tensors["transformer.h.0.ln_1.bias"] = np.zeros(8, np.int64)
    tensors["transformer.h.1.ln_1.bias"] = [None] * 8
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(tmp_path / "a" / "b", tiny(), "LMHeadModel", tensors)
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'a' / 'b'}: not a GPT2LMHeadModel (5 problems):",
        "  unexpected score.weight",
        "  transformer.wpe.weight: shape (8, 7), expected (7, 8) (n_positions n_embd)",
        "  transformer.h.0.ln_1.bias: dtype int64, expected one of float16, bfloat16, float32, float64",
        "  transformer.h.1.ln_1.bias: dtype object, expected one of float16, bfloat16, float32, float64",
        "  missing transformer.ln_f.bias",
    ]
    config = tiny()
    config.n_layer = 0
    with pytest.raises(ConfigError, match="n_layer: 0"):
        save_checkpoint(tmp_path / "a", config, "Model", {})
    assert list(tmp_path.iterdir()) == []


def test_weight_that_changes_while_saved_is_refused(tmp_path: Path) -> None:
    tensors: dict[str, Any] = dict(arrays(tiny(), "Model"))
    shapes = iter([(8,), (9,)])
    tensors["ln_f.bias"] = lambda: np.zeros(next(shapes), np.float32)
    with pytest.raises(CheckpointError, match=r"ln_f\.bias: changed"):
        save_checkpoint(tmp_path / "x", tiny(), "Model", tensors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("first", "second"), [("5GB", "5GB"), ("5GB", "2KB"), ("2KB", "5GB"), ("2KB", "3KB")])
def test_save_replaces_the_earlier_checkpoint_and_nothing_else(first: str, second: str, tmp_path: Path) -> None:
    others = {
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"x",
        "model-best.safetensors": b"y",
        "sub/config.json": b"z",
    }
    save_checkpoint(tmp_path / "d", tiny(), "Model", arrays(tiny(), "Model"), max_shard_size=first)
    for name, data in others.items():
        write_file(tmp_path / "d" / name, data)
    (tmp_path / "link").symlink_to("d")
    expected = arrays(tiny(n_layer=1), "LMHeadModel", "float16")
    save_checkpoint(tmp_path / "link", tiny(n_layer=1), "LMHeadModel", expected, max_shard_size=second)
    save_checkpoint(tmp_path / "new", tiny(n_layer=1), "LMHeadModel", expected, max_shard_size=second)
    assert contents(tmp_path / "d") == contents(tmp_path / "new") | others
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "link", "new"]
    assert_same(load(tmp_path / "d", "LMHeadModel"), expected)


def test_bytes_are_deterministic_and_metadata_is_kept(tmp_path: Path) -> None:
    tensors = arrays(tiny(), "Model")
    save_checkpoint(tmp_path / "a", tiny(), "Model", tensors, metadata={"b": "2", "a": "1"})
    save_checkpoint(tmp_path / "b", tiny(), "Model", dict(reversed(tensors.items())), metadata={"a": "1", "b": "2"})
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert open_checkpoint(tmp_path / "a").files["model.safetensors"].metadata == {"a": "1", "b": "2", "format": "pt"}


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(umask: int, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    before = os.umask(umask)
    try:
        for name in ("new", "old"):
            save_checkpoint(tmp_path / name, tiny(), "Model", arrays(tiny(), "Model"), max_shard_size="2KB")
        write_file(tmp_path / "file", b"")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~umask


CALLS = ("fsync", "replace", "mkdir")


class Fault:
    """Makes the n-th call into the operating system fail, counted over several functions."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int):
        self.count, self.at = 0, at
        for name in CALLS:
            patch.setattr(os, name, self.wrap(getattr(os, name)))

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("old", [None, "5GB", "4KB"])
@pytest.mark.parametrize("size", ["5GB", "4KB"])
def test_fault_at_any_call_leaves_everything_as_it_was(size: str, old: str | None, tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    if old:
        save_checkpoint(directory, tiny(n_layer=1), "Model", arrays(tiny(n_layer=1), "Model"), max_shard_size=old)
    before = contents(tmp_path)
    for at in range(1, 500):
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, at)
            problem = outcome(lambda: save_checkpoint(directory, tiny(), "Model", TENSORS, max_shard_size=size))
        if problem is None:
            break
        assert str(problem) == f"{directory}: No space left on device"
        assert contents(tmp_path) == before, at
        assert len(list(tmp_path.rglob("*"))) == (len(before) + 2 if old else 0)
    assert fault.count == at - 1 > 5
    assert_same(load(directory, "Model"), arrays(tiny(), "Model"))


@pytest.mark.parametrize(("old", "new"), [("5GB", "5GB"), ("5GB", "2KB"), ("2KB", "5GB"), ("2KB", "2KB")])
def test_crash_at_any_rename_is_never_half_of_each(old: str, new: str, tmp_path: Path) -> None:
    """After each rename the directory is copied, as a crash would leave it: it loads as the new one, or not at all."""
    directory, states = tmp_path / "d", tmp_path / "states"
    tensors = {name: (arrays(tiny(), "Model", "float32"), size) for name, size in (("old", old), ("new", new))}
    tensors["new"] = ({name: array + 1 for name, array in tensors["new"][0].items()}, new)
    save_checkpoint(directory, tiny(), "Model", tensors["old"][0], max_shard_size=old)
    real = os.replace
    count = 0

    def replace(source: Any, target: Any) -> None:
        nonlocal count
        real(source, target)
        count += 1
        shutil.copytree(directory, states / f"{count:03d}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        save_checkpoint(directory, tiny(), "Model", tensors["new"][0], max_shard_size=new)
    outcomes = []
    for state in sorted(states.iterdir()):
        found = outcome(lambda state=state: load(state, "Model"))
        if isinstance(found, GPTZooError):
            assert "config.json" in str(found) or "no weights" in str(found) or "give " in str(found)
            outcomes.append("refused")
        else:
            assert_same(found, tensors["new"][0])
            outcomes.append("new")
    assert outcomes == ["refused"] * (count - 1) + ["new"]
    assert count >= 4


BOOT = Path("/proc/sys/kernel/random/boot_id")
needs_locks = pytest.mark.skipif(not BOOT.exists(), reason="leftovers are told from live saves by Linux's means")

# A save in a process of its own, which at its n-th rename kills itself, or waits until it is told to go on.
SAVE = """
import os, signal, sys
from gptzoo.checkpoint import save_checkpoint
from tests.checkpoints import arrays, tiny

path, at, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
real, count = os.replace, 0

def replace(source, target):
    global count
    count += 1
    if count == at and what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif count == at:
        print("waiting", flush=True)
        sys.stdin.readline()
    real(source, target)

os.replace = replace
save_checkpoint(path, tiny(), "Model", arrays(tiny(), "Model"))
"""


def _start_save(path: Path, at: int, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SAVE, str(path), str(at), what]
    root = Path(__file__).parents[1]
    return subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _kill_save(path: Path, at: int) -> None:
    with _start_save(path, at, "die") as process:
        assert process.wait() == -9


def _hidden(path: Path) -> set[str]:
    return {found.name for found in path.iterdir() if found.name.startswith(".")}


@needs_locks
@pytest.mark.parametrize("at", [1, 3])
def test_leftovers_of_a_killed_save_go_with_the_next(at: int, tmp_path: Path) -> None:
    directory, boot = tmp_path / "d", BOOT.read_text().strip()
    save_checkpoint(directory, tiny(), "Model", TENSORS)
    not_ours = {".gptzoo-notes", ".gptzoo-1-01234567.tmp", f".gptzoo-{boot}-01234567.old"}
    another_machines = ".gptzoo-00000000-0000-0000-0000-000000000000-01234567.tmp"
    for name in not_ours | {another_machines}:
        (directory / name).mkdir()
    file, link = f".gptzoo-{boot}-00000001.tmp", f".gptzoo-{boot}-00000002.tmp"
    (directory / file).write_text("x")
    (directory / link).symlink_to("/")
    kept = not_ours | {another_machines, file, link}
    _kill_save(directory, at)
    left = _hidden(directory) - kept
    assert {name[-4:] for name in left} == {".tmp", ".old"}
    with pytest.raises(CheckpointError):
        save_checkpoint(directory, tiny(), "Model", {})
    assert _hidden(directory) == kept | left  # a save that fails takes nothing away
    save_checkpoint(directory, tiny(), "Model", TENSORS)
    assert _hidden(directory) == kept
    assert_same(load(directory, "Model"), TENSORS)


@needs_locks
def test_leftovers_of_a_killed_save_of_a_new_directory_go(tmp_path: Path) -> None:
    _kill_save(tmp_path / "d", 1)
    assert len(_hidden(tmp_path)) == 1
    save_checkpoint(tmp_path / "d", tiny(), "Model", TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@needs_locks
def test_save_that_still_runs_is_left_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "d", tiny(), "Model", TENSORS)
    with _start_save(tmp_path / "d", 1, "wait") as process:
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        live = _hidden(tmp_path / "d")
        assert {name[-4:] for name in live} == {".tmp", ".old"}
        save_checkpoint(tmp_path / "d", tiny(), "Model", TENSORS)
        assert _hidden(tmp_path / "d") == live
        process.communicate("go on\n")
    assert process.returncode == 0
    assert _hidden(tmp_path / "d") == set()
    assert_same(load(tmp_path / "d", "Model"), TENSORS)


@needs_locks
def test_what_could_not_be_moved_back_stays(tmp_path: Path) -> None:
    """A fault, and another one while its traces are removed: the earlier files are kept, by this save and the next."""
    directory = tmp_path / "d"
    save_checkpoint(directory, tiny(), "Model", TENSORS)
    real, count = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal count
        count += 1
        if count > 2:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        problem = outcome(lambda: save_checkpoint(directory, tiny(), "Model", TENSORS))
    assert isinstance(problem, CheckpointError)
    save_checkpoint(directory, tiny(), "Model", TENSORS)
    (left,) = _hidden(directory)
    assert left.endswith(".old")
    assert_same(load(directory / left, "Model"), TENSORS)


UNWRITABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "is a file": (lambda path: path.write_text("x"), "not a directory"),
    "lies in a file": (lambda path: path.parent.rmdir() or path.parent.write_text("x"), "Not a directory"),
    "is a dangling link": (lambda path: path.symlink_to("nowhere"), "not a directory"),
    "is a pipe": (lambda path: os.mkfifo(path), "not a directory"),
    "has a directory where the weights go": (
        lambda path: (path / "model.safetensors").mkdir(parents=True),
        "a directory",
    ),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_target_that_cannot_be_written(case: str, tmp_path: Path) -> None:
    path = tmp_path / "parent" / "target"
    path.parent.mkdir()
    make, message = UNWRITABLE[case]
    make(path)
    before = sorted(str(found) for found in tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match=message) as caught:
        save_checkpoint(path, tiny(), "Model", arrays(tiny(), "Model"))
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(str(found) for found in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["nul\0byte", "x" * 300])
def test_name_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    for write in (lambda path: write_file(path, b""), lambda path: save_checkpoint(path, tiny(), "Model", TENSORS)):
        with pytest.raises(CheckpointError):
            write(tmp_path / "new" / name)
    assert list(tmp_path.iterdir()) == []


def test_file_that_grows_too_large(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            save_checkpoint(tmp_path / "x", tiny(), "Model", TENSORS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_error_in_a_callers_function_is_the_callers(tmp_path: Path) -> None:
    calls = iter([TENSORS["ln_f.bias"]])
    tensors: dict[str, Any] = TENSORS | {"ln_f.bias": lambda: next(calls)}
    with pytest.raises(StopIteration):
        save_checkpoint(tmp_path / "x", tiny(), "Model", tensors)
    assert list(tmp_path.iterdir()) == []
