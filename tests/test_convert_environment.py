"""Conversions where streams are closed, names odd, modules hostile: they work, or tell so in one line."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptzoo.errors import CheckpointError
from gptzoo.hub import DEFAULT_MODEL, resolve
from gptzoo_conversion import FORMATS, convert, open_foreign

from .checkpoints import outcome
from .runs import (
    CLI,
    ENVIRONMENT,
    PATHS,
    Job,
    assert_refused,
    gptzoo,
    job_for,
    listing,
    store_small,
    tree,
)

BUNDLED = resolve(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    """For every format, a small model that it can hold."""
    place = tmp_path_factory.mktemp("small")
    gpt1, gpt2 = store_small(place / "gpt1", "openai-gpt"), store_small(place / "gpt2")
    return {to: job_for(to, gpt1, gpt2) for to in FORMATS}


# Streams: F15


def shell(redirections: str, place: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a conversion under a shell that redirects its streams; returns its exit code, not that of a pipe."""
    script = f'("$@"; echo $? >"$0") {redirections}'
    command = ["sh", "-c", script, str(place / "code"), *CLI, "convert", *map(str, arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    done.returncode = int((place / "code").read_text())
    return done


STREAMS = {
    "no standard output": (">&-", ""),
    "no standard error": ("2>&-", ""),
    "no streams at all": ("<&- >&- 2>&-", ""),
    "full standard output": (">/dev/full", "gptzoo: standard output: No space left on device\n"),  # but it is done
    "full standard error": ("2>/dev/full", ""),
    "nobody reads": ("| head -c0 >/dev/null", ""),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="streams are redirected by a POSIX shell")
@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize("case", STREAMS)
def test_streams_that_cannot_be_written(case: str, json: bool, tmp_path: Path) -> None:
    redirections, told = STREAMS[case]
    arguments = ["--to", "tf_h5", *(["--json"] if json else [])]
    done = shell(redirections, tmp_path, BUNDLED, tmp_path / "out", *arguments)
    assert (done.returncode, done.stderr) == (0, told)
    assert "Traceback" not in done.stdout
    convert(BUNDLED, tmp_path / "expected", "tf_h5")
    assert tree(tmp_path / "out") == tree(tmp_path / "expected")  # nobody's messages went into our files

    done = shell(redirections, tmp_path, tmp_path / "absent", tmp_path / "refused", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "refused").exists()


# Names: F16, F24

NAMES = {
    "spaces": " a  b ",
    "newline": "a\nb",
    "terminal sequence": "a\x1b[2Jb",
    "hyphen": "-rf",
    "option": "--to",
    "not UTF-8": os.fsdecode(b"a\xff\xfeb"),
    "accent": "é",
    "beyond": "\U0001f600",
    "right to left": "\u202egnp.a",
    "quotes": "a'\"`$(x)b",
    "pattern": "[a]*?",
    "tilde": "~a",
    "backslash": "a\\b",
    "percent": "%s%n{0}",
    "colon": "file:a",
    "address": "http:",
    "dots": "...",
    "255 bytes": "a" * 255,
}
LOCALES = {
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "ASCII": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"},
    "UTF-8": {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"},
}


@pytest.mark.parametrize("locale", LOCALES)
def test_odd_names_in_any_locale(locale: str, tmp_path: Path) -> None:
    """All in one process, to be fast; each conversion is told of, and one that fails says so in one line."""
    for number, name in enumerate(NAMES.values()):
        try:
            store_small(tmp_path / str(number) / "source").rename(tmp_path / str(number) / name)
        except OSError as problem:
            pytest.skip(f"this file system has no such names: {problem}")
        (tmp_path / str(number) / "place").mkdir()
    script = tmp_path / "script.py"
    script.write_text(ODD)
    command = [sys.executable, str(script), *NAMES.values()]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT | LOCALES[locale], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    for number, name in enumerate(NAMES.values()):
        place = tmp_path / str(number) / "place"
        assert os.listdir(place) == [name]
        assert open_foreign(place / name).format == "gguf"


ODD = """
import os, sys
from gptzoo.cli import main

for number, name in enumerate(sys.argv[1:]):
    os.chdir(str(number))
    source = f"./{name}"
    for code in (
        main(["convert", "--to=gguf", "--json", "--", source, f"place/{name}"]),
        main(["convert", "--to=gguf", "--overwrite", "--certificate=certificate.json", "--", source, f"place/{name}"]),
        main(["verify-certificate", "certificate.json"]),
    ):
        assert code == 0, name
    os.chdir("..")
"""


@pytest.mark.parametrize("name", ["a" * 256, "a" * 252, "a\0b", "~nobody-of-this-name/a", "a/" * 3000, "\ud800"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError):
        open_foreign(name)
    if len(name) != 252 and "~" not in name:
        with pytest.raises(CheckpointError) as caught:
            convert(BUNDLED, name, "gguf")
        assert len(str(caught.value).splitlines()) == 1
    assert listing(tmp_path) == []


@pytest.mark.parametrize("to", FORMATS)
def test_names_of_files_suit_every_file_system(to: str, small: dict[str, Job], tmp_path: Path) -> None:
    """F24: also one that knows no case, or has names for other things than Unix; no such one can be mounted here."""
    run(small[to], tmp_path / "out")
    names = listing(tmp_path / "out")
    assert len({name.casefold() for name in names}) == len(names)
    for part in {part for name in names for part in name.split("/")}:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,255}", part)
        assert not re.fullmatch(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.", part)


# Surroundings: F17, F18, F22, F23, F25


def run(job: Job, target: Path) -> Path:
    convert(job.source, target, job.to, dtype=job.dtype, drop=True)
    return target


# Converts to every format and prints the digest of each file, and which modules came from the current directory.
ALL = """
import hashlib, os, sys
from pathlib import Path
from gptzoo_conversion import convert

for job in sys.argv[2:]:
    source, to, dtype = job.split(",")
    target = Path(sys.argv[1], to)
    convert(source, target, to, dtype=dtype or None, drop=True)
"""


def convert_all(small: dict[str, Job], place: Path, before: tuple[str, ...] = (), **environment: str) -> dict[str, str]:
    """Converts to all formats in a process of its own; returns a digest of every file."""
    place.mkdir()
    jobs = [",".join([job.source, job.to, job.dtype or ""]) for job in small.values()]
    command = [*before, sys.executable, "-c", ALL, str(place), *jobs]
    done = subprocess.run(command, env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return {name: hashlib.sha256(content).hexdigest() for name, content in tree(place).items()}


@pytest.fixture(scope="module")
def expected(small: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> tuple[float, dict[str, str]]:
    """When the reference was made, and its digests."""
    return time.time(), convert_all(small, tmp_path_factory.mktemp("expected") / "all")


@pytest.mark.parametrize("threads", ["1", "64"])
def test_same_bytes_whatever_the_threads(threads: str, small: Any, expected: Any, tmp_path: Path) -> None:
    """F25, and F22: neither threads, nor the order of sets, nor the clock (which zip archives have by two seconds)."""
    time.sleep(max(0.0, expected[0] + 2.1 - time.time()))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "MKL_NUM_THREADS")
    found = convert_all(small, tmp_path / "all", (), **dict.fromkeys(names, threads), PYTHONHASHSEED=threads)
    assert found == expected[1]


def test_same_bytes_whenever(small: Any, expected: Any, tmp_path: Path) -> None:
    """F22: a clock that jumps is seen by nobody: sources are of 1970, and of 2100."""
    for number, job in enumerate(small.values()):
        for path in Path(job.source).iterdir():
            os.utime(path, (0, 0) if number % 2 else (2**32, 2**32))
    assert convert_all(small, tmp_path / "all") == expected[1]


def test_without_home_or_network(small: Any, expected: Any, tmp_path: Path) -> None:
    """F17."""
    before: tuple[str, ...] = ("env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME")
    isolated = ("unshare", "--user", "--map-root-user", "--net")
    if shutil.which("unshare") and not subprocess.run([*isolated, "true"], capture_output=True).returncode:
        before = isolated + before
    nowhere = dict.fromkeys(("HF_HOME", "XDG_CACHE_HOME", "TORCH_HOME", "KERAS_HOME"), "/proc/nowhere")
    assert convert_all(small, tmp_path / "all", before, **nowhere) == expected[1]


@pytest.mark.parametrize("temporary", ["/dev/shm", "/proc/nowhere"])
def test_temporary_directory_elsewhere(temporary: str, small: Any, expected: Any, tmp_path: Path) -> None:
    """F23: what is written is beside its target, and nothing elsewhere."""
    elsewhere = Path(temporary)
    if elsewhere.exists():
        elsewhere = elsewhere / f"gptzoo-{os.getpid()}"
        elsewhere.mkdir()
        if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("no other file system")
    try:
        assert convert_all(small, tmp_path / "all", TMPDIR=str(elsewhere)) == expected[1]
        assert not elsewhere.exists() or listing(elsewhere) == []
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)


def test_target_on_another_file_system(small: dict[str, Job], tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm", f"gptzoo-{os.getpid()}-target")
    if not elsewhere.parent.exists() or elsewhere.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no other file system")
    try:
        run(small["gguf"], elsewhere / "out")
        assert os.listdir(elsewhere) == ["out"]
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
@pytest.mark.parametrize("to", FORMATS)
def test_modes_follow_the_umask(to: str, umask: int, small: dict[str, Job], tmp_path: Path) -> None:
    """F22."""
    tmp_path.chmod(0o2777)
    before = os.umask(umask)
    try:
        run(small[to], tmp_path / "out")
    finally:
        os.umask(before)
    found = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {0o666 & ~umask}
    folders = {path.stat().st_mode & 0o7777 for path in found if path.is_dir()}
    assert {mode & 0o777 for mode in folders} == {0o777 & ~umask}
    if sys.platform == "linux":
        assert {mode & 0o7000 for mode in folders} == {0o2000}  # the group's folder stays the group's
    assert {path.stat().st_gid for path in found} == {tmp_path.stat().st_gid}


HOSTILE = "import os, sys\nos.write(2, b'HOSTILE ' + __file__.encode())\nos._exit(66)\n"
CONSOLE = "import re\nimport sys\nfrom gptzoo.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


@pytest.mark.parametrize("how", ["console script", "python -P -m"])
def test_modules_in_the_current_directory_are_not_imported(how: str, small: dict[str, Job], tmp_path: Path) -> None:
    """F18: the current directory is the source, and holds a module of every name that is imported."""
    source = shutil.copytree(small["tf_h5"].source, tmp_path / "source")
    names = ["json", "config", "numpy", "torch", "h5py", "tensorflow", "jax", "gptzoo", "gptzoo_conversion"]
    for name in {*names, "tensorstore", "safetensors", "tokenizers", "ml_dtypes", *sys.stdlib_module_names}:
        (source / f"{name}.py").write_text(HOSTILE)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gptzoo").write_text(CONSOLE)
    start = {"console script": [str(tmp_path / "bin" / "gptzoo")], "python -P -m": ["-P", "-m", "gptzoo.cli"]}[how]
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHONPATH"} | PATHS
    for to in ("gguf", "tf_h5", "orbax", "pytorch_bin"):
        command = [sys.executable, *start, "convert", ".", f"../{to}", "--to", to]
        done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "HOSTILE" not in done.stderr
    hostile = subprocess.run([sys.executable, "-c", "import json"], cwd=source, env=environment, capture_output=True)
    assert hostile.returncode == 66  # it would have been noticed


# Downloads: F19, F20


@pytest.mark.parametrize("source", FORMATS)
def test_sparse_file(source: str, small: dict[str, Job], tmp_path: Path) -> None:
    """F19: what a file's tail holds is not read to find that it is too long."""
    made = run(small[source], tmp_path / "made")
    largest = max((path for path in made.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    try:
        os.truncate(largest, 40 * 2**30)
    except OSError as problem:
        pytest.skip(f"no file can be as large: {problem}")
    begin = time.perf_counter()
    result = outcome(lambda: convert(made, tmp_path / "out", "safetensors", drop=True))
    assert time.perf_counter() - begin < 2
    if source == "gpt2_tf1":  # nothing in it says how long the data are
        convert(run(small[source], tmp_path / "short"), tmp_path / "expected", "safetensors", drop=True)
        assert tree(tmp_path / "out") == tree(tmp_path / "expected")
    else:
        assert isinstance(result, CheckpointError)
        assert str(made) in str(result)
        assert os.listdir(tmp_path) == ["made"]


def _pointer(blob: Path, data: bytes) -> None:
    digest, size = hashlib.sha256(data).hexdigest(), len(data)
    blob.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n")


DOWNLOADS: dict[str, tuple[Callable[[Path, bytes], Any], str]] = {
    "incomplete": (lambda blob, data: blob.with_suffix(".incomplete").write_bytes(data[:1000]), "model.safetensors"),
    "cut": (lambda blob, data: blob.write_bytes(data[:-1000]), "cut off"),
    "cut in the header": (lambda blob, data: blob.write_bytes(data[:100]), "cut off"),
    "nothing yet": (lambda blob, data: blob.touch(), "empty file"),
    "zeros at the end": (lambda blob, data: blob.write_bytes(bytes(1000)), "not safetensors"),
    "git-lfs pointer": (lambda blob, data: _pointer(blob, data), "git lfs pull"),
    "page of an error": (lambda blob, data: blob.write_text("<!DOCTYPE html>\n<p>503"), "web page"),
}


@pytest.mark.parametrize("case", DOWNLOADS)
def test_interrupted_download(case: str, tmp_path: Path) -> None:
    """F20: as the cache of huggingface_hub lays it; refused, and after the download is finished it succeeds."""
    cache = tmp_path / "models--someone--model"
    revision, blobs = cache / "snapshots" / "0123abcd", cache / "blobs"
    for folder in (revision, blobs):
        folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (revision / name).symlink_to(f"../../blobs/{name.split('.')[0]}")
    shutil.copy(BUNDLED / "config.json", blobs / "config")
    data = (BUNDLED / "model.safetensors").read_bytes()
    spoil, words = DOWNLOADS[case]
    spoil(blobs / "model", data)
    assert_refused(gptzoo("convert", revision, tmp_path / "out", "--to", "gguf"), words)
    assert os.listdir(tmp_path) == [cache.name]
    (blobs / "model").write_bytes(data)
    convert(revision, tmp_path / "out", "gguf")
    assert open_foreign(tmp_path / "out").format == "gguf"
