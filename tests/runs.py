"""Runs `gptzoo convert` in processes of its own, and says what it left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptzoo.checkpoint import save_checkpoint
from gptzoo.errors import ConversionError
from gptzoo.heads import class_name
from gptzoo.hub import DEFAULT_MODEL
from gptzoo_conversion import open_foreign
from gptzoo_conversion.formats import FORMATS
from gptzoo_conversion.plan import plan_conversion

from .checkpoints import arrays, contents, tiny

ROOT = Path(__file__).parents[1]
CLI = (sys.executable, "-m", "gptzoo.cli")
PATHS = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "conversion")])}
ENVIRONMENT = os.environ | PATHS | {"OMP_NUM_THREADS": "1"}

SMALL = {"n_embd": 32, "n_head": 4}
LARGE = {"n_embd": 160, "vocab_size": 1000}


@dataclass(frozen=True)
class Job:
    """What is converted to a format that cannot hold all."""

    source: str
    to: str
    dtype: str | None

    @property
    def options(self) -> list[str]:
        return ["--to", self.to, "--drop", *(["--dtype", self.dtype] if self.dtype else [])]


def store_small(path: Path, family: str = "gpt2", **changes: Any) -> Path:
    """Writes a model of some kilobytes that every format of its family takes."""
    config = tiny(family, **(SMALL | changes))
    config.architectures = [class_name(type(config), "LMHeadModel")]
    save_checkpoint(path, config, "LMHeadModel", arrays(config, "LMHeadModel"))
    return path


def job_for(to: str, gpt1: Path, gpt2: str | Path = DEFAULT_MODEL) -> Job:
    """Returns the first of the models, in its own dtype or in float32, that a format can hold."""
    for source in (gpt2, gpt1):
        for dtype in (None, "float32"):
            try:
                plan_conversion(open_foreign(source), FORMATS[to], dtype, drop=True)
            except ConversionError:
                continue
            return Job(str(source), to, dtype)
    raise AssertionError(f"{to} holds neither model")


def tree(path: Path) -> dict[str, bytes]:
    """Returns the bytes of a file, or of every file in a directory."""
    return contents(path) if path.is_dir() else {"": path.read_bytes()}


def listing(path: Path) -> list[str]:
    """Returns the names of everything below a directory, hidden or not."""
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def gptzoo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command line to its end."""
    command = [*CLI, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


def assert_refused(process: subprocess.CompletedProcess[str], *words: str) -> None:
    """Checks the one line on standard error with which the command line refuses."""
    assert process.returncode == 2, process.stderr
    assert_one_line(process.stderr, *words)
    assert process.stdout == ""


def assert_one_line(text: str, *words: str) -> None:
    (line,) = text.splitlines()
    assert line.startswith("gptzoo: error: ")
    assert len(line) <= 1000
    assert line.isprintable()
    for word in words:
        assert word in line, f"{word!r} is not in {line!r}"
