"""GPT-1's .npy shards: the numbers that NumPy reads and writes, and every lie of a header or of the shapes refused."""

from __future__ import annotations

import json
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptzoo import limits
from gptzoo._tensors import TensorInfo
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers.npy_shards import DTYPES, read_npy_shards, write_npy_shards
from tests import fuzz

SHAPES_FILE = "params_shapes.json"
REAL_SHAPES = Path(__file__).parents[2] / "shared/data/openai-gpt/params_shapes.json"


def write(directory: Path, arrays: list[np.ndarray], shards: int = 10) -> Path:
    directory.mkdir(exist_ok=True)
    infos = {str(n): TensorInfo("", array.dtype.name, array.shape) for n, array in enumerate(arrays)}
    write_npy_shards(directory, infos, lambda name: arrays[int(name)], {}, shards)
    return directory


def write_as_openai(directory: Path, arrays: list[np.ndarray], shards: int = 10) -> Path:
    """Does what must have made OpenAI's files, by NumPy alone."""
    directory.mkdir(exist_ok=True)
    vector = np.concatenate([array.reshape(-1) for array in arrays])
    for number, shard in enumerate(np.array_split(vector, shards)):
        np.save(directory / f"params_{number}.npy", shard)
    (directory / SHAPES_FILE).write_text(json.dumps([list(array.shape) for array in arrays]))
    return directory


def read_as_openai(directory: Path) -> list[np.ndarray]:
    """Reads the files as the code that OpenAI published with them does."""
    shapes = json.loads((directory / SHAPES_FILE).read_text())
    offsets = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])
    count = len(list(directory.glob("params_*.npy")))
    vector = np.concatenate([np.load(directory / f"params_{number}.npy") for number in range(count)], 0)
    return [part.reshape(shape) for part, shape in zip(np.split(vector, offsets)[:-1], shapes, strict=True)]


def read_all(directory: Path) -> list[np.ndarray]:
    file = read_npy_shards(directory)
    assert list(file.tensors) == [str(number) for number in range(len(file.tensors))]
    for name in file.tensors:
        assert b"".join(file.chunks(name)) == file.read(name).tobytes()
    return [file.read(name) for name in file.tensors]


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in expected]
    assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]
    assert all(a.flags.writeable and a.flags.c_contiguous for a in found)


def refused(directory: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_all(directory)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.isprintable()


def sample(dtype: str = "float32") -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(5, 4), (7, 4), (1, 4, 12), (12,), (), (0, 3), (4,), (2, 1, 2, 2)]
    return [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes]


# Round trips


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [1, 2, 10, 200])
def test_bytes_are_those_of_numpy(tmp_path: Path, dtype: str, shards: int) -> None:
    ours, theirs = write(tmp_path / "a", sample(dtype), shards), write_as_openai(tmp_path / "b", sample(dtype), shards)
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == {
        path.name: path.read_bytes() for path in theirs.iterdir()
    }
    assert_same(read_all(theirs), sample(dtype))
    assert [a.tobytes() for a in read_as_openai(ours)] == [a.tobytes() for a in sample(dtype)]


def test_tensor_in_many_shards(tmp_path: Path) -> None:
    arrays = sample()
    file = read_npy_shards(write(tmp_path / "m", arrays))
    assert max(sum(name in part.tensors for part in file.parts) for name in file.tensors) > 3
    assert file.nbytes == sum(path.stat().st_size for path in (tmp_path / "m").iterdir())


def test_no_tensors(tmp_path: Path) -> None:
    assert read_all(write(tmp_path / "m", [])) == []


@pytest.mark.skipif(not REAL_SHAPES.exists(), reason="the shapes of the real model are not here")
def test_shapes_of_the_real_model(tmp_path: Path) -> None:
    # Its numbers are 466 MB; the files here have holes in their place.
    shapes = json.loads(REAL_SHAPES.read_text())
    (tmp_path / SHAPES_FILE).write_bytes(REAL_SHAPES.read_bytes())
    total = sum(int(np.prod(shape)) for shape in shapes)
    for number in range(10):
        with open(tmp_path / f"params_{number}.npy", "wb") as out:
            length = total // 10 + (number < total % 10)
            np.lib.format.write_array_header_1_0(out, {"descr": "<f4", "fortran_order": False, "shape": (length,)})
            out.truncate(out.tell() + 4 * length)
    file = read_npy_shards(tmp_path)
    assert [info.shape for info in file.tensors.values()] == [tuple(shape) for shape in shapes]
    assert file.read("145").shape == (768,)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=4).map(tuple), max_size=8),
    st.sampled_from(list(DTYPES)),
    st.integers(1, 12),
)
def test_any_tensors(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, ...]], dtype: str, shards: int
) -> None:
    rng = np.random.default_rng(1)
    arrays = [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape in shapes]
    found = read_all(write(tmp_path_factory.mktemp("any"), arrays, shards))
    assert_same(found, arrays)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("fortran", [False, True])
def test_versions_of_headers(tmp_path: Path, version: tuple[int, int], fortran: bool) -> None:
    write(tmp_path / "m", [np.arange(3, dtype=np.float32)], 1)
    text = b"{'descr': '<f4', 'fortran_order': %a, 'shape': (3,), }  \n" % fortran
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    data = np.arange(3, dtype=np.float32).tobytes()
    (tmp_path / "m/params_0.npy").write_bytes(b"\x93NUMPY" + bytes(version) + length + text + data)
    assert_same(read_all(tmp_path / "m"), [np.load(tmp_path / "m/params_0.npy")])


def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path) -> None:
    infos = {str(n): TensorInfo("", "float32", (2**21,)) for n in range(3)}
    tracemalloc.start()
    try:
        write_npy_shards(tmp_path, infos, lambda name: np.full(2**21, int(name), np.float32), {}, 2)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        file = read_npy_shards(tmp_path)
        assert [file.read(name)[-1] for name in file.tensors] == [0, 1, 2]
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(written, read) < 12 * 2**20  # a tensor has 8


@pytest.mark.parametrize(
    ("kinds", "shards", "words"),
    [
        ({"0": "bfloat16"}, 1, "0: dtype bfloat16, expected one of float16, float32, float64"),
        ({"0": "int32"}, 1, "0: dtype int32"),
        ({"0": "float32", "1": "float16"}, 1, "1: dtype float16, expected float32 as of the first"),
        ({"1": "float32"}, 1, "1: a name, expected 0"),
        ({"wte": "float32"}, 1, "wte: a name, expected 0"),
        ({"0": "float32"}, 0, "0 shards, expected 1 to 1000"),
        ({"0": "float32"}, 1001, "1001 shards"),
    ],
)
def test_what_shards_cannot_hold(tmp_path: Path, kinds: dict[str, str], shards: int, words: str) -> None:
    infos = {name: TensorInfo("", dtype, (1,)) for name, dtype in kinds.items()}
    with pytest.raises(CheckpointError, match=words):
        write_npy_shards(tmp_path, infos, lambda _: np.zeros(1, np.float32), {}, shards)
    assert not list(tmp_path.iterdir())


def test_existing_files_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "m", sample())
    with pytest.raises(CheckpointError, match=r"params_0.npy: File exists"):
        write(tmp_path / "m", sample())


# Falsified headers


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "m", [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4, np.float32)], 2)


DATA = np.arange(5, dtype=np.float32).tobytes()


def npy(text: bytes, data: bytes = DATA, version: bytes = b"\1\0", length: int | None = None) -> bytes:
    length = len(text) if length is None else length
    return b"\x93NUMPY" + version + length.to_bytes(2 if version == b"\1\0" else 4, "little") + text + data


def said(descr: str = "'<f4'", order: str = "False", shape: str = "(5,)") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()


class Canary:
    """Unpickled, it would leave a file behind."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return open, ("canary", "w")


BOMB = pickle.dumps([Canary()] * 5)
NPYS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an .npy file"),
    "cut in the magic": (npy(said())[:5], "not an .npy file"),
    "cut in the version": (npy(said())[:7], "version [1], expected"),
    "cut in the length": (npy(said())[:9], "header"),
    "cut in the header": (npy(said())[:30], "expected at most 20 (cut off?)"),
    "cut in the data": (npy(said())[:-1], "expected 88 for float32 [5] (cut off)"),
    "no data": (npy(said(), b""), "(cut off)"),
    "a byte too many": (npy(said()) + b"\0", "89 bytes, expected 88 for float32 [5]"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "this is a git-lfs pointer"),
    "zip": (b"PK\x03\x04" + bytes(50), "not an .npy file"),
    "pickle": (BOMB, "not an .npy file"),
    "version 4": (npy(said(), version=b"\4\0"), "version [4, 0], expected"),
    "version 1.1": (npy(said(), version=b"\1\1"), "version [1, 1], expected"),
    "header of 65535": (npy(said(), length=2**16 - 1), "header of 65535 bytes, expected at most"),
    "header of 2**32-1": (npy(said(), version=b"\2\0", length=2**32 - 1), "header of 4294967295 bytes"),
    "header above the limit": (npy(said() + b" " * 10_000), "expected at most 10000"),
    "header empty": (npy(b""), "header ''"),
    "header too short": (npy(said(), length=20), "header "),
    "text behind it": (npy(said() + b"x"), "expected descr, fortran_order and shape"),
    "descr big-endian": (npy(said("'>f4'")), "descr '>f4' (big-endian), expected '<f2' or '<f4' or '<f8'"),
    "descr native": (npy(said("'=f4'")), "descr '=f4', expected"),
    "descr integers": (npy(said("'<i4'")), "descr '<i4'"),
    "descr text": (npy(said("'<U5'")), "descr '<U5'"),
    "descr raw bytes": (npy(said("'|V4'")), "descr '|V4'"),
    "descr a record": (npy(said("[('a', '<f4')]")), "descr [('a', '<f4')]"),
    "descr wider": (npy(said("'<f8'")), "expected 108 for float64 [5] (cut off)"),
    "descr a call": (npy(said("open('canary', 'w')")), "descr open('canary', 'w')"),
    "descr missing": (npy(b"{'fortran_order': False, 'shape': (5,), }\n"), "expected descr"),
    "objects": (npy(said("'|O'"), BOMB), "descr '|O' (Python objects, never unpickled here)"),
    "objects in a record": (npy(said("[('a', 'O')]"), BOMB), "never unpickled"),
    "key stands twice": (npy(b"{'descr': '<f4', 'descr': '<f8', " + said()[17:]), "descr '<f4', 'descr': '<f8'"),
    "fortran_order 1": (npy(said(order="1")), "expected descr, fortran_order and shape"),
    "shape smaller": (npy(said(shape="(4,)")), "88 bytes, expected 84 for float32 [4]"),
    "shape of 64 GiB": (npy(said(shape="(17179869184,)")), "for float32 [17179869184] (cut off)"),
    "shape wraps": (npy(said(shape="(4611686018427387909,)")), "(cut off)"),
    "shape of 30 digits": (npy(said(shape=f"({'9' * 30},)")), "expected one dimension"),
    "shape of 5000 digits": (npy(said(shape=f"({'9' * 5000},)")), "expected one dimension"),
    "shape -5": (npy(said(shape="(-5,)")), "shape (-5,), expected one dimension"),
    "shape 5.0": (npy(said(shape="(5.0,)")), "shape (5.0,)"),
    "shape True": (npy(said(shape="(True,)")), "shape (True,)"),
    "shape no tuple": (npy(said(shape="5")), "expected descr"),
    "shape a number": (npy(said(shape="(5)")), "shape (5), expected one dimension"),
    "shape of two": (npy(said(shape="(5, 1)")), "shape (5, 1), expected one dimension"),
    "shape of none": (npy(said(shape="()"), DATA[:4]), "shape (), expected one dimension"),
    "shape 05": (npy(said(shape="(05,)")), "shape (05,)"),
    "shape in other digits": (
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (\u0665,), }".encode()),
        "one dimension",
    ),
    "nested": (npy(b"[" * 9000), "expected descr"),
    "NUL": (npy(b"\0" * 50), "expected descr"),
}


@pytest.mark.parametrize("case", NPYS)
def test_falsified_shard(case: str, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, words = NPYS[case]
    monkeypatch.chdir(good)
    (good / "params_1.npy").write_bytes(data)
    refused(good, "params_1.npy: ", words)
    assert not (good / "canary").exists()


def test_canary_sings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(BOMB)[0].close()
    assert (tmp_path / "canary").exists()


def test_header_of_this_test_is_right(good: Path) -> None:
    (good / "params_1.npy").write_bytes(npy(said()))
    assert read_all(good)[1].tolist() == [1, 2, 3, 4]


# Falsified shapes

SHAPES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "cut": (b"[[2, 3], [4]", "not valid JSON"),
    "an object": (b'{"0": [2, 3]}', "expected a list of at most 100000 shapes"),
    "null": (b"null", "None, expected a list"),
    "a flat list": (b"[2, 3, 5]", "0: 2, expected a list of sizes"),
    "-1": (b"[[2, 3], [-1]]", "1: [-1], expected a list of sizes"),
    "a float": (b"[[2, 3], [4.0]]", "1: [4.0]"),
    "true": (b"[[2, 3], [4], [true]]", "2: [True]"),
    "a text": (b'[[2, 3], ["4"]]', "1: ['4']"),
    "a nested list": (b"[[2, 3], [[4]]]", "1: [[4]]"),
    "NaN": (b"[[2, 3], [NaN]]", "NaN is not a JSON number"),
    "rank 9": (b"[[2, 3], [4, 1, 1, 1, 1, 1, 1, 1, 1]]", "1: 9 dimensions, expected at most 8"),
    "too much": (b"[[2, 3], [5]]", "10 numbers in params_0.npy to params_1.npy, expected 11 for 2 shapes"),
    "too little": (b"[[2, 3], [3]]", "10 numbers in params_0.npy to params_1.npy, expected 9 for 2 shapes"),
    "none": (b"[]", "expected 0 for 0 shapes"),
    "2**62": (b"[[2, 3], [4611686018427387904]]", "1: shape [4611686018427387904]"),
    "huge beside a zero": (b"[[2, 3], [4], [0, 4611686018427387904]]", "2: shape [0, 4611686018427387904]"),
    "5000 digits": (b"[[2, 3], [%s]]" % (b"9" * 5000), "not valid JSON"),
    "deep": (b"[" * 100_000, "too deeply"),
    "not UTF-8": (b'[["\xff"]]', "not UTF-8"),
    "100,001 shapes": (b"[" + b"[]," * 100_000 + b"[]]", "expected a list of at most 100000 shapes"),
    "above the limit": (b" " * (2**20 + 1), "1048577 bytes, expected at most 1048576"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_falsified_shapes(case: str, good: Path) -> None:
    data, words = SHAPES[case]
    (good / SHAPES_FILE).write_bytes(data)
    refused(good, f"{good / SHAPES_FILE}: ", words)


# Files that are absent, exchanged or no files


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(directory: Path) -> None:
        (directory / name).unlink()
        make(directory / name)

    return change


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no shapes": (lambda d: (d / SHAPES_FILE).unlink(), "params_shapes.json: No such file"),
    "no shards": (
        lambda d: list(map(os.remove, d.glob("*.npy"))),
        "params_0.npy: no such file, though there is no par",
    ),
    "first absent": (
        lambda d: (d / "params_0.npy").unlink(),
        "params_0.npy: no such file, though there is params_2.npy",
    ),
    "middle absent": (
        lambda d: (d / "params_1.npy").unlink(),
        "params_1.npy: no such file, though there is params_2.npy",
    ),
    "last absent": (lambda d: (d / "params_2.npy").unlink(), "6 numbers in params_0.npy to params_1.npy, expected 9"),
    "last absent, named": (lambda d: (d / "params_2.npy").unlink(), "(is params_2.npy missing?)"),
    "one too many": (lambda d: np.save(d / "params_3.npy", np.ones(3, np.float32)), "12 numbers"),
    "numbered with zeros": (
        lambda d: (d / "params_1.npy").rename(d / "params_01.npy"),
        "params_1.npy: no such file, though there is params_01.npy",
    ),
    "numbered twice": (
        lambda d: np.save(d / "params_01.npy", np.ones(3, np.float32)),
        "params_3.npy: no such file, though there is params_01.npy",
    ),
    "another dtype": (
        lambda d: np.save(d / "params_1.npy", np.ones(3, np.float16)),
        "params_1.npy: dtype float16, expected float32 as in params_0.npy",
    ),
    "a longer one": (lambda d: np.save(d / "params_1.npy", np.ones(4, np.float32)), "10 numbers"),
    "a matrix": (lambda d: np.save(d / "params_1.npy", np.ones((3, 1), np.float32)), "params_1.npy: shape (3, 1)"),
    "cut": (lambda d: os.truncate(d / "params_1.npy", 139), "params_1.npy: 139 bytes, expected 140"),
    "cut to nothing": (lambda d: os.truncate(d / "params_1.npy", 0), "params_1.npy: begins with b''"),
    "a pipe": (replaced("params_1.npy", os.mkfifo), "params_1.npy: not a regular file"),
    "a directory": (replaced("params_1.npy", Path.mkdir), "params_1.npy: not a regular file"),
    "a device": (replaced("params_1.npy", lambda p: p.symlink_to("/dev/zero")), "params_1.npy: not a regular file"),
    "a dangling link": (replaced("params_1.npy", lambda p: p.symlink_to("nowhere")), "params_1.npy: No such file"),
    "shapes a pipe": (replaced(SHAPES_FILE, os.mkfifo), "params_shapes.json: not a regular file"),
    "shapes a directory": (replaced(SHAPES_FILE, Path.mkdir), "params_shapes.json: not a regular file"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_files(case: str, tmp_path: Path) -> None:
    directory = write(tmp_path / "m", [np.arange(9, dtype=np.float32)], 3)
    change, words = FAULTS[case]
    change(directory)
    refused(directory, f"{directory}/params_", words)


def test_too_many_shards(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_NPY_FILES", 1)
    refused(good, f"{good}: 2 files params_*.npy, expected at most 1")


def test_shard_that_changes(good: Path) -> None:
    file = read_npy_shards(good)
    np.save(good / "params_1.npy", np.ones(6, np.float32))
    with pytest.raises(CheckpointError, match=r"params_1\.npy: changed since"):
        file.read("1")


# Falsified at random


def test_falsified_bytes_of_a_shard(good: Path) -> None:
    path = good / "params_1.npy"
    seen = fuzz.attack(lambda _: read_all(good), path.read_bytes(), path)
    assert seen["refused"] > 0.3 * fuzz.COUNT  # the numbers have no checksum


def test_falsified_bytes_of_the_shapes(good: Path) -> None:
    path = good / SHAPES_FILE
    seen = fuzz.attack(lambda _: read_all(good), path.read_bytes(), path)
    assert seen["refused"] > 0.5 * fuzz.COUNT


def falsify_header(data: bytes, rng: np.random.Generator) -> bytes:
    """Falsifies what a header says, in the words of a header."""
    text = said(
        str(rng.choice(["'<f4'", "'<f2'", "'<f8'", "'>f4'", "'|O'", "'<f4", "[]", "1", "()"])),
        str(rng.choice(["False", "True", "0", "None"], p=[0.6, 0.2, 0.1, 0.1])),
        str(rng.choice(["(5,)", "(10,)", "(0,)", "(-1,)", "(5, 1)", f"({2**62},)", "((5,),)", "(5L,)", "()"])),
    )
    if rng.random() < 0.5:
        text = fuzz.mutate(text, rng)
    return npy(text, version=bytes([int(rng.integers(1, 4)), 0]))


def test_falsified_headers(good: Path) -> None:
    path = good / "params_1.npy"
    seen = fuzz.attack(lambda _: read_all(good), path.read_bytes(), path, mutate=falsify_header)
    assert seen["read"] > 0
    assert seen["refused"] > 0.5 * fuzz.COUNT
