"""Faults of disks, memory and permissions, and sources that change: refused in one line, and nothing is left."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from gptzoo import _files, weights
from gptzoo._shards import index_text
from gptzoo._tensors import TensorInfo
from gptzoo.errors import CheckpointError, GPTZooError
from gptzoo.hub import DEFAULT_MODEL
from gptzoo_conversion import FORMATS, convert, open_foreign

from .checkpoints import arrays, outcome, tiny
from .runs import ENVIRONMENT, Job, assert_refused, job_for, listing, store_small, tree


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """For every format, a small model that it can hold."""
    place = tmp_path_factory.mktemp("small")
    gpt1, gpt2 = store_small(place / "gpt1", "openai-gpt"), store_small(place / "gpt2")
    return {to: job_for(to, gpt1, gpt2) for to in FORMATS}


@pytest.fixture(scope="module")
def made(small: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of every format."""
    place = tmp_path_factory.mktemp("made")
    return {to: run(job, place / to) for to, job in small.items()}


def run(job: Job, target: Path, **options: Any) -> Path:
    convert(job.source, target, job.to, dtype=job.dtype, drop=True, **options)
    return target


# Disks: F3, F4, F21


@pytest.mark.parametrize("part", [0, 0.99])
@pytest.mark.parametrize("to", FORMATS)
def test_file_that_grows_too_large(to: str, part: float, small: dict[str, Job], made: Any, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    largest = max(map(len, tree(made[to]).values()))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(part * largest), limits[1]))
    try:
        with pytest.raises(CheckpointError, match="File too large") as caught:
            run(small[to], tmp_path / "a" / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(str(caught.value).splitlines()) == 1
    assert listing(tmp_path) == []


# In a mount of its own: a disk that is full, and one that cannot be written to.
FULL = """
import os, sys
from gptzoo.errors import GPTZooError
from gptzoo_conversion import convert

for to in sys.argv[2:]:
    source, to, dtype = to.split(",")
    try:
        convert(source, "out", to, dtype=dtype or None, drop=True)
        print(to, "done")
    except GPTZooError as problem:
        print(to, sys.argv[1] in str(problem) or problem, os.listdir())
"""


@pytest.mark.parametrize(("mount", "message"), [("size=100k", "No space left"), ("ro", "cannot be written to")])
def test_disk_that_is_full_or_read_only(mount: str, message: str, small: dict[str, Job], tmp_path: Path) -> None:
    mounted = f'mount -t tmpfs -o {mount} gptzoo "$0" && cd "$0" && exec "$@"'
    space = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*space, "true"], capture_output=True).returncode:
        pytest.skip("no mounts can be made here")
    jobs = [",".join([job.source, job.to, job.dtype or ""]) for job in small.values()]
    command = [*space, sys.executable, "-c", FULL, message, *jobs]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [f"{to} True []" for to in FORMATS], done.stderr


class Fault:
    """Makes the n-th call into the operating system fail, counted over several functions."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, number: int = errno.ENOSPC):
        self.count, self.at, self.number = 0, at, number
        for name in ("fsync", "replace", "rename"):
            patch.setattr(os, name, self.wrap(getattr(os, name)))
        patch.setattr(_files, "_rename", self.wrap(_files._rename))

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                raise OSError(self.number, os.strerror(self.number))
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("to", FORMATS)
def test_fault_at_any_call_leaves_everything_as_it_was(
    to: str, overwrite: bool, small: dict[str, Job], made: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / "a" / "out"

    def inodes() -> dict[str, int]:
        return {name: (tmp_path / name).lstat().st_ino for name in listing(tmp_path)}

    def attempt(at: int) -> tuple[Any, int]:
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, at, number=errno.EIO if at % 2 else errno.ENOSPC)
            return outcome(lambda: run(small[to], target, overwrite=overwrite)), fault.count

    def prepare() -> None:
        if overwrite:
            shutil.copytree(made["gguf"], target)

    prepare()
    _, count = attempt(at=0)
    shutil.rmtree(tmp_path / "a")
    prepare()
    before = inodes()
    for at in sorted({1, 2, 3, count // 2, *range(count - 3, count + 1)}):
        problem, _ = attempt(at)
        assert isinstance(problem, CheckpointError), at
        assert "Input/output error" in str(problem) or "No space left on device" in str(problem)
        assert inodes() == before, at


class Slow(FileIO):
    """Gives one byte a call, as a system may that is interrupted often."""

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:1]) or 0

    def read(self, size: int | None = -1) -> bytes:
        return super().read(1) if size else b""


class Failing(FileIO):
    """Fails at its n-th reading, counted over all files."""

    left = 0

    def _count(self) -> None:
        Failing.left -= 1
        if not Failing.left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def readinto(self, buffer: Any) -> int | None:
        self._count()
        return super().readinto(buffer)

    def read(self, size: int | None = -1) -> bytes:
        self._count()
        return super().read(-1 if size is None else size)


def read_by(kind: type[FileIO]) -> Callable[..., Any]:
    """Returns an `open` of which files that are read are of a kind."""

    def open_as(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "rb":
            return kind(path, mode, opener=kwargs.get("opener"))
        return open(path, mode, *args, **kwargs)

    return open_as


@pytest.mark.parametrize("source", FORMATS)
def test_one_byte_a_read(
    source: str, small: dict[str, Job], made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F21: the right result, or one line. (HDF5 and TensorStore read by themselves.)"""
    expected = tree(run(Job(str(made[source]), "safetensors", None), tmp_path / "expected"))
    monkeypatch.setattr(_files, "open", read_by(Slow), raising=False)
    result = outcome(lambda: run(Job(str(made[source]), "safetensors", None), tmp_path / "out"))
    if isinstance(result, GPTZooError):
        assert len(str(result).splitlines()) == 1
        assert listing(tmp_path) == sorted(["expected", *(f"expected/{name}" for name in expected)])
    else:
        assert tree(tmp_path / "out") == expected


@pytest.mark.parametrize("source", FORMATS)
def test_error_at_any_read(source: str, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F21: one line that names the disk's fault; or the right result, if it was no file that is needed."""
    monkeypatch.setattr(_files, "open", read_by(Failing), raising=False)
    Failing.left = 2**31
    run(Job(str(made[source]), "safetensors", None), tmp_path / "counted")
    count, refused = 2**31 - Failing.left, 0
    assert count >= 3
    expected = tree((tmp_path / "counted").rename(tmp_path / "expected"))
    for at in sorted({1, 2, 3, count // 3, count // 2, count - 1, count}):
        Failing.left = at
        problem = outcome(lambda: run(Job(str(made[source]), "safetensors", None), tmp_path / "out"))
        if isinstance(problem, GPTZooError):
            assert "Input/output error" in str(problem)
            assert os.listdir(tmp_path) == ["expected"]
            refused += 1
        else:
            assert tree(problem) == expected, at
            shutil.rmtree(problem)
    assert refused >= 3


# Permissions: F5, F6, F7

DROPPED = """
import os, sys, tempfile
from gptzoo.cli import main
from gptzoo_conversion import certificate, convert

with tempfile.TemporaryDirectory() as place:  # imports all, while it may be read
    convert(sys.argv[1], f"{place}/out", "tf_h5", drop=True)
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main(["convert", *sys.argv[2:], "--quiet"]))
"""


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that any user can reach."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)
        for path in Path(name).rglob("*"):
            path.chmod(0o777)


def as_nobody(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a conversion as a user whom modes bind."""
    command = [sys.executable, "-c", DROPPED, DEFAULT_MODEL, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


needs_modes = pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")


@needs_modes
def test_read_only_parent(public: Path) -> None:
    """F5: refused before the source is read: it is not even there."""
    (public / "place").mkdir(mode=0o555)
    for target in ("place/out", "place/new/out.gguf"):
        done = as_nobody(public / "absent", public / target, "--to", "gguf")
        assert_refused(done, str(public / target), f"{public / 'place'} cannot be written to")
    assert listing(public) == ["place"]


@needs_modes
def test_read_only_source(public: Path, made: dict[str, Path]) -> None:
    """F6: nothing is written there."""
    source = shutil.copytree(made["tf_h5"], public / "source")
    for path in (source, *source.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = [(name, (public / name).stat().st_mtime_ns) for name in listing(public)]
    done = as_nobody(source, public / "out", "--to", "safetensors")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(public / "out")
    assert [(name, (public / name).stat().st_mtime_ns) for name in listing(public)] == before


@needs_modes
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", ""])
def test_unreadable_source(name: str, public: Path, made: dict[str, Path]) -> None:
    """F7."""
    source = shutil.copytree(made["safetensors"], public / "source")
    (source / name).chmod(0)
    done = as_nobody(source, public / "out", "--to", "gguf")
    assert_refused(done, str(source / name), "Permission denied")
    assert not (public / "out").exists()


# Sources that change, and memory and files that end: F12, F13, F14, F19, F20


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _replace(path: Path) -> None:
    path.with_name("other").write_bytes(path.read_bytes()[::-1])
    os.replace(path.with_name("other"), path)


def _append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"\0")


def _rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


@pytest.mark.parametrize("change", [_truncate, _replace, _append, _rewrite, os.unlink])
@pytest.mark.parametrize("source", FORMATS)
def test_source_that_changes(source: str, change: Callable[[Path], Any], made: dict[str, Path], tmp_path: Path) -> None:
    """F12: an error, or the old content; as it is noticed while reading, and never the end of the process."""
    place = shutil.copytree(made[source], tmp_path / "source")
    job = Job(str(place), "safetensors", None)
    expected = tree(run(job, tmp_path / "expected"))
    told: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        told.append(what)
        if len(told) == 1:
            for path in sorted(place.rglob("*")):
                if path.is_file():
                    change(path)

    result = outcome(lambda: run(job, tmp_path / "out", progress=progress))
    assert told
    if isinstance(result, GPTZooError):
        assert str(place) in str(result)
        assert not (tmp_path / "out").exists()
    else:
        assert tree(tmp_path / "out") == expected
    assert sorted(os.listdir(tmp_path)) in (["expected", "source"], ["expected", "out", "source"])


def large(path: Path, dtype: str = "float32") -> Path:
    """Writes a model of 64 MiB in one tensor, all of it zeros that take no place on the disk."""
    config = tiny(vocab_size=2**18, n_embd=64, n_layer=1, architectures=["GPT2LMHeadModel"])
    specs = [spec for spec in weights.specs(config, "LMHeadModel").values() if not spec.tied]
    header, end = {}, 0
    for spec in specs:
        begin, end = end, end + TensorInfo("", dtype, spec.shape).nbytes
        header[spec.name] = {"dtype": "F32", "shape": list(spec.shape), "data_offsets": [begin, end]}
    path.mkdir()
    (path / "config.json").write_text(config.to_json_string())
    text = str(header).replace("'", '"').encode()
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path / "model.safetensors", 8 + len(text) + end)
    return path


LIMITED = """
import re, resource, sys
import gptzoo_conversion.certificate
from gptzoo.cli import main

used = int(re.search(r"VmSize:\\s+([0-9]+)", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20,) * 2)
sys.exit(main(["convert", *sys.argv[2:], "--quiet"]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the size of a process is told by Linux's means")
@pytest.mark.parametrize("room", [0, 8, 40, 63])
def test_too_little_memory(room: int, tmp_path: Path) -> None:
    """F13."""
    source = large(tmp_path / "source")
    command = [sys.executable, "-c", LIMITED, str(room), str(source), str(tmp_path / "out"), "--to", "safetensors"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert_refused(done, "memory")
    assert os.listdir(tmp_path) == ["source"]


OPEN = """
import resource, sys
from gptzoo.cli import main

resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
sys.exit(main(["convert", *sys.argv[1:], "--quiet"]))
"""


def test_two_thousand_shards(tmp_path: Path) -> None:
    """F14: one is open at a time."""
    pytest.importorskip("resource")
    config = tiny(n_layer=167, architectures=["GPT2LMHeadModel"])
    tensors = arrays(config, "LMHeadModel")
    assert len(tensors) > 2000
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text(config.to_json_string())
    shards = {}
    for number, (name, array) in enumerate(tensors.items(), 1):
        file = f"model-{number:05d}-of-{len(tensors):05d}.safetensors"
        shards[file] = {name: TensorInfo(file, array.dtype.name, array.shape)}
        save_file({name: array}, tmp_path / "source" / file)
    (tmp_path / "source" / "model.safetensors.index.json").write_bytes(index_text(shards))
    command = [sys.executable, "-c", OPEN, str(tmp_path / "source"), str(tmp_path / "out"), "--to", "gguf"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = open_foreign(tmp_path / "out")
    assert np.array_equal(found.read("h.166.ln_2.bias"), tensors["transformer.h.166.ln_2.bias"])
