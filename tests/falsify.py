"""Copies of good checkpoints with one thing falsified, and the command that must refuse each in one line."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from gptzoo.cli import main
from gptzoo_conversion import convert
from tests.conversion import GOLDEN
from tests.fuzz import forget_peak, peak

SECONDS = 2.0
MEMORY = 100 * 2**20
MAX_LINE = 1000
PREFIX = "gptzoo: error: "

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 548105171\n"
WEB_PAGE = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>"

Falsify = Callable[[Path], object]  # is given the directory of a checkpoint


@dataclass(frozen=True)
class Case:
    """One falsified checkpoint.

    Attributes:
        base: the golden checkpoint of which it is a copy, as `copied` takes it.
        words: that the message holds, separated by "*".
        file: of the directory, to be given as the source; by default the directory is.
    """

    base: str
    falsify: Falsify
    words: str
    file: str = ""
    options: tuple[str, ...] = ()

    def check(self, place: Path) -> None:
        """Makes the checkpoint in a directory, and checks that it is refused."""
        directory = copied(self.base, place)
        self.falsify(directory)
        refused(directory / self.file, *self.words.split("*"), options=self.options, place=place)


def cases(base: str, table: Mapping[str, tuple[Falsify, str]], file: str = "", *options: str) -> dict[str, Case]:
    """Returns a case for each row of a table, named after what its copies are of."""
    return {f"{base}: {name}": Case(base, falsify, words, file, options) for name, (falsify, words) in table.items()}


def copied(base: str, place: Path) -> Path:
    """Copies a golden checkpoint to where it may be falsified; "NAME as FORMAT/FILE" is converted first."""
    name, _, wanted = base.partition(" as ")
    if wanted:
        format, _, file = wanted.partition("/")
        convert(GOLDEN / name, place / "src" / file, format)
        return place / "src"
    return Path(shutil.copytree(GOLDEN / base, place / "src", ignore=shutil.ignore_patterns("expected.npz")))


def run(source: Path, target: Path, *options: str) -> tuple[int, str, str]:
    """Runs `gptzoo convert` in this process; returns its exit code, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["convert", str(source), str(target), "--to", "safetensors", *options])
    return code, out.getvalue(), err.getvalue()


def refused(source: Path, *words: str, options: tuple[str, ...] = (), place: Path | None = None) -> str:
    """Converts a bad checkpoint; checks the refusal, its time and memory, and that it left nothing in `place`."""
    place = place or source.parent
    before, held = listed(place), forget_peak()
    begin = time.process_time()  # not the clock's: the machine may have other work
    code, out, err = run(source, place / "out", *options)
    took, grown = time.process_time() - begin, peak() - held
    assert (code, out) == (2, ""), (code, out, err)
    assert_one_line(err, *words)
    assert listed(place) == before
    assert took < SECONDS, f"{took:.1f} s"
    assert grown < MEMORY, f"{grown} bytes"
    return err


def assert_one_line(err: str, *words: str) -> None:
    """Checks the form of an error on the command line, and that it holds some words."""
    assert err.startswith(PREFIX), err
    assert err.endswith("\n"), err
    assert len(err) <= MAX_LINE + 1, err
    assert err[:-1].isprintable(), err
    assert "Traceback" not in err
    for word in words:
        assert word in err, (word, err)


def listed(place: Path) -> list[str]:
    """Returns everything that is in a directory, its own name aside."""
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


# What falsifies one file of a checkpoint


def with_bytes(file: str, data: bytes | Callable[[bytes], bytes]) -> Falsify:
    """Returns what exchanges the content of a file, or changes it."""

    def falsify(directory: Path) -> None:
        path = directory / file
        path.write_bytes(data(path.read_bytes()) if callable(data) else data)

    return falsify


def with_json(file: str, change: Callable[[Any], object]) -> Falsify:
    """Returns what changes the value that a JSON file holds."""

    def falsify(directory: Path) -> None:
        value = json.loads((directory / file).read_text())
        change(value)
        (directory / file).write_text(json.dumps(value))

    return falsify


def with_config(**values: Any) -> Falsify:
    """Returns what sets fields of config.json."""
    return with_json(CONFIG, lambda config: config.update(values))


def without(file: str) -> Falsify:
    """Returns what removes a file."""
    return lambda directory: (directory / file).unlink()


def replaced(file: str, make: Callable[[Path], object]) -> Falsify:
    """Returns what puts something in the place of a file that may be none."""

    def falsify(directory: Path) -> None:
        (directory / file).unlink(missing_ok=True)
        make(directory / file)

    return falsify


def no_files(file: str) -> dict[str, tuple[Falsify, str]]:
    """Returns the things that may be in the place of a file and are no files."""
    return {
        "pipe": (replaced(file, os.mkfifo), f"{file}: not a regular file"),
        "directory": (replaced(file, Path.mkdir), f"{file}: not a regular file"),
        "device": (replaced(file, lambda path: path.symlink_to("/dev/zero")), f"{file}: not a regular file"),
    }


def with_header(change: Callable[[dict[str, Any]], object], file: str = WEIGHTS) -> Falsify:
    """Returns what changes the header of a safetensors file, and leaves the numbers as they are."""

    def changed(data: bytes) -> bytes:
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        change(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[end:]

    return with_bytes(file, changed)


def with_tensors(change: Callable[[dict[str, np.ndarray]], object], file: str = WEIGHTS) -> Falsify:
    """Returns what changes the tensors of a safetensors file, whose header is then right."""

    def falsify(directory: Path) -> None:
        tensors = load_file(directory / file)
        change(tensors)
        save_file(tensors, directory / file, {"format": "pt"})

    return falsify


def both(*changes: Falsify) -> Falsify:
    """Returns what makes several changes."""
    return lambda directory: [change(directory) for change in changes]
