"""Targets that are there already, F8, or entangled with the source, F9: what is not a checkpoint is never lost."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptzoo.cli import main
from gptzoo_conversion import convert, open_foreign

from .runs import assert_one_line, store_small, tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint."""
    place = tmp_path_factory.mktemp("made")
    convert(store_small(place / "source"), place / "made", "gguf")
    return place / "made"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Returns the one line with which the command line refuses."""
    assert main(["convert", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert_one_line(err)
    assert out == ""
    return err


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        server.bind(path.name)
        os.chdir(before)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except OSError as problem:
        pytest.skip(f"no device can be made: {problem}")


def _full(path: Path) -> Path:
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    return path


# What is there -> how to make it beside a checkpoint, and whether --overwrite replaces it.
TAKEN: dict[str, tuple[Callable[[Path, Path], Any], bool]] = {
    "file": (lambda path, made: path.write_text("mine"), False),
    "empty file": (lambda path, made: path.touch(), True),
    "file of a checkpoint": (lambda path, made: shutil.copy(made / "model.gguf", path), True),
    "empty directory": (lambda path, made: path.mkdir(), True),
    "full directory": (lambda path, made: _full(path), False),
    "directory of a checkpoint": (lambda path, made: shutil.copytree(made, path), True),
    "link to an empty directory": (lambda path, made: path.symlink_to(made.parent / "empty"), True),
    "link to a full directory": (lambda path, made: path.symlink_to(_full(made.parent / "full")), False),
    "link to a checkpoint": (lambda path, made: path.symlink_to(made), True),
    "link to a checkpoint's file": (lambda path, made: path.symlink_to(made / "model.gguf"), True),
    "dangling link": (lambda path, made: path.symlink_to("nowhere"), True),
    "link to itself": (lambda path, made: path.symlink_to(path.name), True),
    "pipe": (lambda path, made: os.mkfifo(path), False),
    "socket": (lambda path, made: _socket(path), False),
    "device": (lambda path, made: _device(path), False),
}


def as_it_is(path: Path) -> tuple[int, ...]:
    """Returns what changes when something is replaced or written to; not when it is looked at."""
    status = path.lstat()
    return status.st_mode, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@pytest.mark.parametrize("name", ["out", "out.gguf"])
@pytest.mark.parametrize("kind", TAKEN)
def test_target_that_exists(
    kind: str, name: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, replaced = TAKEN[kind]
    shutil.copytree(made, tmp_path / "made")
    (tmp_path / "empty").mkdir()
    (tmp_path / "place").mkdir()
    target = tmp_path / "place" / name
    make(target, tmp_path / "made")
    others = [path for path in tmp_path.rglob("*") if path != target]
    before, mine = [(path, as_it_is(path)) for path in others], as_it_is(target)

    assert "exists (--overwrite replaces it)" in refused(capsys, made, target, "--to", "gguf")
    assert as_it_is(target) == mine
    assert [(path, as_it_is(path)) for path in others] == before

    arguments: list[str | Path] = [made, target, "--to", "gguf", "--overwrite"]
    if replaced:
        assert main(["convert", *map(str, arguments)]) == 0
        assert open_foreign(target).format == "gguf"
        assert target.is_file() is (name == "out.gguf")
        assert not target.is_symlink()
    else:
        assert str(target) in refused(capsys, *arguments)
        assert as_it_is(target) == mine
    kept = [entry for entry in before if target not in entry[0].parents and entry[0] != target.parent]
    assert [(path, as_it_is(path)) for path, _ in kept] == kept  # no link was followed
    assert os.listdir(target.parent) == [name]


INTERTWINED = {
    "the same": ("source", "source"),
    "the same by dots": ("source", "source/../source"),
    "the same by a link": ("source", "link"),
    "inside": ("source", "source/out"),
    "inside a folder of it": ("source", "source/sub/out"),
    "inside by dots": ("source", "source/sub/../../source/out"),
    "inside by a link": ("source", "link/out"),
    "from a link": ("link", "source/out"),
    "its file": ("source/model.gguf", "source/model.gguf"),
    "its file by a link": ("link/model.gguf", "source/model.gguf"),
    "file in it": ("source", "source/model.gguf"),
    "around": ("source", "."),
    "around by name": ("source", "../place"),
    "the parent": ("source", ".."),
    "the root": ("source", "/"),
    "around and more": ("outer/source", "outer"),
    "nothing": ("source", ""),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("case", INTERTWINED)
def test_target_and_source_in_each_other(
    case: str,
    overwrite: bool,
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "place"
    for name in ("source", "outer/source"):
        shutil.copytree(made, place / name)
    shutil.copy(made / "model.gguf", place / "outer")  # a checkpoint, which may be overwritten
    (place / "source" / "sub").mkdir()
    (place / "link").symlink_to("source")
    before = tree(tmp_path)
    monkeypatch.chdir(place)
    source, target = INTERTWINED[case]
    refused(capsys, source, target, "--to", "gguf", *(["--overwrite"] if overwrite else []))
    assert tree(tmp_path) == before
    assert (place / "link").is_symlink()
