"""llm.c's flat files: headers and numbers in a known order, and nothing else in the file."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptzoo._tensors import TensorFile, TensorInfo
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers.flat import read_flat, write_flat
from tests import fuzz

HEADER_BYTES = 1024
DTYPES = ["float32", "float16", "bfloat16"]
Described = list[tuple[str, TensorInfo]]


def header(*numbers: int) -> bytes:
    return np.array([20240326, *numbers, *[0] * (255 - len(numbers))], "<i4").tobytes()


def describe(path: Path) -> Callable[[bytes], Described]:
    """Stands for a layout: a number says the dtype, one how many tensors there are, and two their shape."""

    def read(data: bytes) -> Described:
        magic, code, count, rows, columns = np.frombuffer(data, "<i4")[:5].tolist()
        if magic != 20240326 or not 0 <= code < 3 or not 0 <= count < 1000:
            raise CheckpointError(f"{path}: a header that is not this test's")
        return [(f"h{n}", TensorInfo("", DTYPES[code], (rows, columns))) for n in range(count)]

    return read


def read(path: Path) -> TensorFile:
    return read_flat(path, HEADER_BYTES, describe(path))


def read_all(path: Path) -> dict[str, np.ndarray]:
    file = read(path)
    assert all(b"".join(file.chunks(name)) == file.read(name).tobytes() for name in file.tensors)
    return {name: file.read(name) for name in file.tensors}


def write(path: Path, arrays: dict[str, np.ndarray], data: bytes) -> Path:
    infos = {name: TensorInfo("", array.dtype.name, array.shape) for name, array in arrays.items()}
    write_flat(path, infos, arrays.__getitem__, {"header": data})
    return path


def sample(dtype: str = "float32", shape: tuple[int, int] = (2, 3)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"h{n}": rng.standard_normal(shape).astype(np.dtype(dtype)) for n in range(3)}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "m.bin", sample(), header(0, 3, 2, 3))


# Round trips


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (0, 3), (0, 0)])
def test_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, int]) -> None:
    data, arrays = header(DTYPES.index(dtype), 3, *shape), sample(dtype, shape)
    path = write(tmp_path / "m.bin", arrays, data)
    assert path.read_bytes() == data + b"".join(array.tobytes() for array in arrays.values())
    assert read(path).metadata == {"header": data}
    for name, array in read_all(path).items():
        assert (array.dtype, array.shape) == (np.dtype(dtype), shape)
        assert array.tobytes() == arrays[name].tobytes()
        assert array.flags.writeable


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=4).map(tuple))), st.binary())
def test_any_tensors(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[str, tuple[int, ...]]], data: bytes
) -> None:
    data = b"\0" + data  # else it may begin as something that stands in for weights, and is refused as that
    rng = np.random.default_rng(1)
    arrays = {str(n): np.asarray(rng.standard_normal(s)).astype(np.dtype(d)) for n, (d, s) in enumerate(kinds)}
    described = [(name, TensorInfo("", array.dtype.name, array.shape)) for name, array in arrays.items()]
    path = write(tmp_path_factory.mktemp("any") / "m.bin", arrays, data)
    file = read_flat(path, len(data), lambda _: described)
    assert file.metadata["header"] == data
    assert {name: file.read(name).tobytes() for name in file.tensors} == {n: a.tobytes() for n, a in arrays.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_file_of_pytorch(tmp_path: Path, dtype: str) -> None:
    """Written as llm.c's train_gpt2.py does: `numpy().tobytes()`, of bfloat16 as 16-bit integers."""
    torch = pytest.importorskip("torch")
    tensors = {f"h{n}": torch.randn(4, 5, generator=torch.Generator().manual_seed(n)) for n in range(2)}
    tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tensors.items()}
    with open(tmp_path / "m.bin", "wb") as file:
        file.write(header(DTYPES.index(dtype), 2, 4, 5))
        for tensor in tensors.values():
            file.write((tensor.view(torch.int16) if dtype == "bfloat16" else tensor).numpy().tobytes())
    arrays = read_all(tmp_path / "m.bin")
    for name, tensor in tensors.items():
        assert torch.equal(torch.from_numpy(arrays[name].astype(np.float32)), tensor.float())
    write(tmp_path / "again.bin", arrays, read(tmp_path / "m.bin").metadata["header"])
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "m.bin").read_bytes()


def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path) -> None:
    described = [(str(n), TensorInfo("", "float32", (2**21,))) for n in range(3)]
    tracemalloc.start()
    try:
        make = lambda name: np.full(2**21, int(name), np.float32)  # noqa: E731
        write_flat(tmp_path / "m.bin", dict(described), make, {"header": b"head"})
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        file = read_flat(tmp_path / "m.bin", 4, lambda _: described)
        assert [file.read(name)[-1] for name in file.tensors] == [0, 1, 2]
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(written, read) < 12 * 2**20  # a tensor has 8


def test_existing_file_is_kept(good: Path) -> None:
    with pytest.raises(CheckpointError, match=r"m\.bin: File exists"):
        write(good, sample(), b"")


# Falsified files

GOOD = header(0, 3, 2, 3) + b"".join(array.tobytes() for array in sample().values())
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes, expected a header of 1024 (cut off)"),
    "cut in the header": (GOOD[:1023], "1023 bytes, expected a header of 1024 (cut off)"),
    "cut behind the header": (GOOD[:1024], "1024 bytes, expected 1096 by its header (cut off)"),
    "cut in a tensor": (GOOD[:-1], "1095 bytes, expected 1096 by its header (cut off)"),
    "a byte too many": (GOOD + b"\0", "1097 bytes, expected 1096 by its header"),
    "a second file behind": (GOOD + GOOD, "2192 bytes, expected 1096"),
    "a tensor more": (header(0, 4, 2, 3) + GOOD[1024:], "expected 1120 by its header (cut off)"),
    "a tensor less": (header(0, 2, 2, 3) + GOOD[1024:], "expected 1072 by its header"),
    "another dtype": (header(1, 3, 2, 3) + GOOD[1024:], "expected 1060 by its header"),
    "shape -2 times -3": (header(0, 3, -2, -3) + GOOD[1024:], "h0: shape [-2, -3]"),
    "shape -1": (header(0, 3, -1, 0) + GOOD[1024:], "h0: shape [-1, 0]"),
    "shape 2**31 squared": (header(0, 3, 2**31 - 1, 2**31 - 1) + GOOD[1024:], "h0: shape [2147483647, 2147483647]"),
    "shape of 16 GiB": (header(0, 3, 2**16, 2**16) + GOOD[1024:], "(cut off)"),
    "another magic": (b"GGUF" + GOOD[4:], "not this test's"),
}


@pytest.mark.parametrize("case", FILES)
def test_falsified_file(case: str, tmp_path: Path) -> None:
    data, words = FILES[case]
    (tmp_path / "m.bin").write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_all(tmp_path / "m.bin")
    assert str(caught.value).startswith(f"{tmp_path / 'm.bin'}: ")
    assert words in str(caught.value)


def link(target: str) -> Callable[[Path], Any]:
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "not a regular file"),
        (Path.mkdir, "not a regular file"),
        (link("/dev/zero"), "not a regular file"),
        (link("nowhere"), "No such file"),
        (lambda path: None, "No such file"),
    ],
    ids=["a pipe", "a directory", "a device", "a dangling link", "nothing"],
)
def test_no_file(tmp_path: Path, make: Callable[[Path], Any], words: str) -> None:
    make(tmp_path / "m.bin")
    with pytest.raises(CheckpointError, match=rf"m\.bin: {words}"):
        read(tmp_path / "m.bin")


def test_file_that_changes(good: Path) -> None:
    file = read(good)
    good.write_bytes(GOOD + b"more")
    with pytest.raises(CheckpointError, match=r"m\.bin: changed since"):
        file.read("h0")


def falsify_numbers(data: bytes, rng: np.random.Generator) -> bytes:
    """Falsifies the numbers of a header."""
    numbers = [int(rng.choice([0, 1, 2, 3, 6, -1, 2**16, 2**31 - 1, -(2**31)])) for _ in range(4)]
    for place in set(range(4)) - {int(rng.integers(4)), int(rng.integers(4))}:
        numbers[place] = (0, 3, 2, 3)[place]
    return header(*numbers) + data[1024:]


@pytest.mark.parametrize("mutate", [fuzz.mutate, falsify_numbers])
def test_falsified_at_random(tmp_path: Path, mutate: Callable[..., bytes]) -> None:
    seen = fuzz.attack(read_all, GOOD, tmp_path / "m.bin", mutate=mutate)
    assert seen["refused"] > 0.2 * fuzz.COUNT
    assert seen["read"] > 0
