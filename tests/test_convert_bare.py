"""Conversion without any framework: in an environment that has none, and beside those that are installed."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gptzoo.hub import DEFAULT_MODEL
from gptzoo_conversion import FORMATS, convert, open_foreign
from tests.conversion import GOLDEN, numbers

ROOT = Path(__file__).parents[1]
PACKAGES = ("numpy", "safetensors", "ml_dtypes", "tokenizers", "h5py", "google-crc32c")
NEEDS_AN_EXTRA = ("orbax",)
FOREIGN = ("torch", "tensorflow", "keras", "keras_hub", "jax", "jaxlib", "flax", "transformers", "orbax")
INSTALL = "Orbax checkpoints need orbax-checkpoint: pip install 'gptzoo[orbax]'"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment without a framework."""
    place = tmp_path_factory.mktemp("bare")
    venv.create(place, with_pip=True)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    call: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--retries",
        "1",
        "-c",
        ROOT / "constraints.txt",
        *PACKAGES,
    ]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"pip reaches no index: {done.stderr.strip().splitlines()[-1]}")
    absent = f"import importlib.util as u; print(*(name for name in {FOREIGN!r} if u.find_spec(name)))"
    assert run(python, ["-c", absent]).stdout.split() == []
    return python


def run(python: Path | str, arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "conversion")])}
    return subprocess.run([python, *arguments], capture_output=True, text=True, env=env, check=False, timeout=120)


def source_of(format: str) -> str | Path:
    """A model of a family that the format holds: the bundled one, or a golden one."""
    return DEFAULT_MODEL if "gpt2" in FORMATS[format].families else GOLDEN / "torch-gpt-lm"


def arguments(source: str | Path, target: Path, format: str) -> list[str | Path]:
    """Of `gptzoo convert`: in the dtype of the source, or in float32 if the format cannot hold it."""
    dtype = open_foreign(source).config.dtype if not isinstance(source, Path) else "float32"
    to = [] if dtype in FORMATS[format].dtypes else ["--dtype", "float32"]
    return ["convert", source, target, "--to", format, "--drop", *to]


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in NEEDS_AN_EXTRA])
def test_there_and_back_without_a_framework(format: str, bare: Path, tmp_path: Path) -> None:
    source, there, back = source_of(format), tmp_path / "there", tmp_path / "back"
    for call in (arguments(source, there, format), ["convert", there, back, "--to", "safetensors"]):
        done = run(bare, ["-W", "error", "-m", "gptzoo.cli", *call])
        assert done.returncode == 0, done.stderr
    wanted, found = numbers(open_foreign(source)), numbers(open_foreign(back))
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].tobytes() == array.astype(found[name].dtype).tobytes(), name
        assert found[name].dtype in (array.dtype, np.float32)


def test_orbax_without_its_extra_is_one_line_that_says_what_to_install(bare: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorstore")
    convert(DEFAULT_MODEL, tmp_path / "orbax", "orbax")
    calls: tuple[list[str | Path], ...] = (
        ["convert", tmp_path / "orbax", tmp_path / "there", "--to", "safetensors"],
        ["convert", DEFAULT_MODEL, tmp_path / "there", "--to", "orbax"],
        ["inspect", tmp_path / "orbax"],
    )
    for call in calls:
        done = run(bare, ["-m", "gptzoo.cli", *call])
        assert done.returncode == 2, done
        assert INSTALL in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["orbax"]


# Formats that are written by a package of the extra "conversion", and which package that is.
WRITERS = {"kerashub": "h5py", "keras": "h5py", "tf_h5": "h5py", "gpt2_tf1": "google_crc32c"}


@pytest.mark.parametrize("format", FORMATS)
def test_an_extra_is_needed_only_where_it_is_said(format: str, tmp_path: Path) -> None:
    """Where it is not installed, one line names it, and nothing is left behind."""
    absent = "import sys; sys.modules.update(h5py=None, google_crc32c=None)"
    code = f"{absent}; import gptzoo.cli; sys.exit(gptzoo.cli.main())"
    done = run(sys.executable, ["-c", code, *arguments(source_of(format), tmp_path / "there", format)])
    if format not in WRITERS:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2, done.stderr
    assert WRITERS[format].replace("_", "-") in done.stderr
    assert "pip install 'gptzoo[conversion]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# Sockets are refused as they are made, by whatever Python code, and imports are looked at in the end.
WATCHED = """
import sys

def refuse(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
from gptzoo.cli import main

code = main(sys.argv[1:])
print("loaded", *sorted({name.split(".")[0] for name in sys.modules}))
sys.exit(code)
"""


@pytest.mark.parametrize("format", FORMATS)
def test_no_framework_is_imported_and_no_socket_opened(format: str, tmp_path: Path) -> None:
    if format == "orbax":
        pytest.importorskip("tensorstore")
    there = tmp_path / "there"
    for call in (
        arguments(source_of(format), there, format),
        ["convert", there, tmp_path / "back", "--to", "safetensors"],
        ["inspect", there],
    ):
        done = run(sys.executable, ["-c", WATCHED, *call])
        assert done.returncode == 0, done.stderr
        loaded = set(done.stdout.split("loaded ")[-1].split())
        assert {"gptzoo_conversion", "numpy"} <= loaded
        assert not loaded & set(FOREIGN)


def test_a_socket_or_a_framework_would_be_seen(tmp_path: Path) -> None:
    done = run(sys.executable, ["-c", WATCHED.replace("code = main(sys.argv[1:])", "import socket; socket.socket()")])
    assert done.returncode == 1
    assert "socket.__new__" in done.stderr
