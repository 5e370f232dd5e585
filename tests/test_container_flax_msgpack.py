"""Flax's msgpack files: to the byte as Flax writes them, read strictly, whatever is in them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptzoo import limits
from gptzoo._tensors import TensorInfo
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers.flax_msgpack import DTYPES, FlaxFile, read_flax_msgpack, write_flax_msgpack
from tests import fuzz

Tree = dict[str, Any]

RNG = np.random.default_rng(0)
SHAPES = [(), (1,), (4,), (3, 5), (0,), (2, 0, 3), (2, 3, 4), (1, 2, 3, 2), (300,), (130, 140)]


def random_array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    array = np.empty(shape, np.dtype(dtype))
    data = RNG.bytes(array.nbytes)
    return np.frombuffer(data if dtype != "bool" else bytes(b & 1 for b in data), np.dtype(dtype)).reshape(shape)


def nested(arrays: dict[str, np.ndarray]) -> Tree:
    tree: Tree = {}
    for name, array in arrays.items():
        *above, last = name.split("/")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = array
    return tree


def write(path: Path, arrays: dict[str, np.ndarray], **options: Any) -> Path:
    infos = {name: TensorInfo("", array.dtype.name, array.shape) for name, array in arrays.items()}
    path.unlink(missing_ok=True)
    write_flax_msgpack(path, infos, arrays.__getitem__, {}, **options)
    return path


def contents(file: FlaxFile) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor, once by `read` and once by `chunks`."""
    result = {}
    for name, info in file.tensors.items():
        array = file.read(name)
        assert array.flags.writeable
        assert array.flags.c_contiguous
        assert (array.dtype, array.shape) == (np.dtype(info.dtype), info.shape)
        assert b"".join(file.chunks(name)) == array.tobytes()
        result[name] = (info.dtype, info.shape, array.tobytes())
    return result


def expected(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in arrays.items()}


MANY = {f"{dtype}/{place}": random_array(shape, dtype) for dtype in DTYPES for place, shape in enumerate(SHAPES)}
MODEL = {
    "transformer/wte/embedding": random_array((20, 8), "float32"),
    "transformer/h/0/ln_1/scale": random_array((8,), "float32"),
    "transformer/h/0/ln_1/bias": random_array((8,), "bfloat16"),
    "transformer/h/10/ln_1/scale": random_array((8,), "float16"),
    "lm_head/kernel": random_array((8, 20), "float32"),
}
ODD = {
    name: random_array((2,), "float32") for name in ("", "a//b", "ä/\U0001f600", "a b\n/\0", "x" * 1000, "..", "x/..")
}
LONG = {"x" * length: random_array((2,), "float32") for length in (31, 32, 255, 256)}
WIDE = {f"k{place}": random_array((), "float32") for place in range(70_000)}


@pytest.mark.parametrize("arrays", [MANY, MODEL, ODD, LONG, {}], ids=["many", "model", "odd", "long", "empty"])
@pytest.mark.parametrize("chunk_bytes", [2**30, 16, 1])
def test_round_trip(arrays: dict[str, np.ndarray], chunk_bytes: int, tmp_path: Path) -> None:
    small = {name: array for name, array in arrays.items() if array.nbytes // chunk_bytes < 2000}
    path = write(tmp_path / "x.msgpack", small, chunk_bytes=chunk_bytes)
    assert contents(read_flax_msgpack(path)) == expected(small)


@pytest.mark.parametrize(
    "arrays", [MANY, MODEL, ODD, LONG, WIDE, {}], ids=["many", "model", "odd", "long", "wide", "empty"]
)
@pytest.mark.parametrize("chunk_bytes", [2**30, 1600, 99])
def test_bytes_are_those_of_flax(
    arrays: dict[str, np.ndarray], chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serialization = pytest.importorskip("flax.serialization")
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", chunk_bytes)
    theirs = serialization.to_bytes(nested(arrays))
    ours = write(tmp_path / "ours.msgpack", arrays, chunk_bytes=chunk_bytes)
    assert ours.read_bytes() == theirs
    if len(arrays) < 1000:
        (tmp_path / "theirs.msgpack").write_bytes(theirs)
        assert contents(read_flax_msgpack(tmp_path / "theirs.msgpack")) == expected(arrays)


def test_flax_restores_ours(tmp_path: Path) -> None:
    serialization = pytest.importorskip("flax.serialization")
    restored = serialization.msgpack_restore(write(tmp_path / "x.msgpack", MODEL, chunk_bytes=100).read_bytes())
    wte = restored["transformer"]["wte"]["embedding"]
    assert wte.tobytes() == MODEL["transformer/wte/embedding"].tobytes()
    assert restored["transformer"]["h"]["10"]["ln_1"]["scale"].dtype == np.float16


def test_flax_scalars_and_jax_arrays(tmp_path: Path) -> None:
    serialization = pytest.importorskip("flax.serialization")
    jnp = pytest.importorskip("jax.numpy")
    path = tmp_path / "x.msgpack"
    path.write_bytes(serialization.to_bytes({"step": np.float32(3), "w": jnp.arange(6, dtype=jnp.bfloat16)}))
    file = read_flax_msgpack(path)
    assert file.tensors["step"].shape == ()
    assert file.read("step") == 3
    assert file.read("w").tolist() == [0, 1, 2, 3, 4, 5]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_tree_round_trips(data: st.DataObject, tmp_path: Path) -> None:
    key = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=40)
    shape = st.lists(st.integers(0, 5), max_size=4).map(tuple)
    leaf = st.builds(random_array, shape, st.sampled_from(DTYPES))
    tree = data.draw(st.dictionaries(key, leaf | st.dictionaries(key, leaf, min_size=1, max_size=3), max_size=5))
    arrays = {}
    for name, value in tree.items():
        arrays |= {f"{name}/{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    path = write(tmp_path / "x.msgpack", arrays, chunk_bytes=data.draw(st.sampled_from([2**30, 8, 50])))
    assert contents(read_flax_msgpack(path)) == expected(arrays)


# Bad inputs, built by hand: m(...) is a map, s(...) a text, ext(...) an extension.


def s(text: str) -> bytes:
    return b"\xd9" + bytes([len(text.encode())]) + text.encode()


def m(*pairs: tuple[bytes | str, bytes]) -> bytes:
    return b"\xde" + len(pairs).to_bytes(2, "big") + b"".join((s(k) if isinstance(k, str) else k) + v for k, v in pairs)


def ext(payload: bytes, code: int = 1, length: int | None = None) -> bytes:
    return b"\xc9" + (len(payload) if length is None else length).to_bytes(4, "big") + bytes([code]) + payload


def array(
    shape: bytes = b"\x92\x02\x03", dtype: bytes | str = "float32", data: bytes = bytes(24), length: int | None = None
) -> bytes:
    size = (len(data) if length is None else length).to_bytes(4, "big")
    return b"\x93" + shape + (s(dtype) if isinstance(dtype, str) else dtype) + b"\xc6" + size + data


GOOD = ext(array())
FLAT = ext(array(b"\x91\x03", data=bytes(12)))
MARKER = "__msgpack_chunked_array__"
SHAPE = m(("0", b"\x02"), ("1", b"\x03"))


def wte(leaf: bytes) -> bytes:
    return m(("transformer", m(("wte", m(("embedding", leaf))))))


def chunked(marker: bytes = b"\xc3", shape: bytes = SHAPE, chunks: bytes = m(("0", FLAT), ("1", FLAT))) -> bytes:
    return wte(m((MARKER, marker), ("shape", shape), ("chunks", chunks)))


def deep(levels: int) -> bytes:
    return b"\x81\xa1a" * levels + GOOD


NAME = "transformer/wte/embedding: "
BAD = {
    "no bytes": (b"", "empty file"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "this is a git-lfs pointer"),
    "web page": (b"<!DOCTYPE html>", "this is a web page"),
    "an array and no map": (GOOD, "expected a map"),
    "unused byte": (b"\xc1", "0xc1"),
    "cut in a key": (wte(GOOD)[:10], "cut off"),
    "cut in the data": (wte(GOOD)[:-1], NAME + "ext of 42 takes 43 bytes, expected at most the 42 left"),
    "cut in the shape": (wte(GOOD)[:50], "cut off"),
    "bytes after the end": (wte(GOOD) + b"\0", "1 bytes after the end"),
    "a second object": (wte(GOOD) + wte(GOOD), "after the end"),
    "duplicate key": (m(("wte", GOOD), ("wte", GOOD)), "key wte stands twice"),
    "duplicate key of two encodings": (m(("wte", GOOD), (b"\xa3wte", GOOD)), "key wte stands twice"),
    "duplicate key below": (m(("h", m(("0", GOOD), ("0", m())))), "h: key 0 stands twice"),
    "slash in a key": (m(("a/b", GOOD)), "key a/b, expected one without /"),
    "int key": (m((b"\x01", GOOD)), "a key that is int"),
    "bytes key": (m((b"\xc4\x01a", GOOD)), "a key that is bin"),
    "nil key": (m((b"\xc0", GOOD)), "a key that is nil"),
    "long key": (m((b"\xda\x10\x00" + b"k" * 4096, GOOD)), "a key that is str of 4096 bytes"),
    "key of 4 GiB": (b"\x81\xdb\xff\xff\xff\xff", "str of 4294967295"),
    "key not UTF-8": (m((b"\xa1\xff", GOOD)), "expected UTF-8"),
    "surrogate key": (m((b"\xa3\xed\xa0\x80", GOOD)), "expected UTF-8"),
    "long name": (m(("a" * 250, m(("b" * 250, m(("c" * 250, m(("d" * 250, m(("e" * 250, GOOD)))))))))), "a name of"),
    "too deep": (deep(40), "nested too deeply"),
    "far too deep": (deep(100_000), "nested too deeply"),
    "map of 2**32-1": (b"\xdf\xff\xff\xff\xff", "map of 4294967295"),
    "leaf int": (wte(b"\x05"), NAME + "int, not an array"),
    "leaf nil": (wte(b"\xc0"), NAME + "nil, not an array"),
    "leaf true": (wte(b"\xc3"), NAME + "true, not an array"),
    "leaf float": (wte(b"\xcb" + bytes(8)), NAME + "float, not an array"),
    "leaf str": (wte(s("x")), NAME + "str, not an array"),
    "leaf bin": (wte(b"\xc4\x01a"), NAME + "bin, not an array"),
    "leaf list": (wte(b"\x91\xc0"), NAME + "array, not an array"),
    "list of 2**32-1": (wte(b"\xdd\xff\xff\xff\xff"), NAME + "array of 4294967295"),
    "complex number": (wte(ext(b"\x92" + b"\xcb" + bytes(8) + b"\xcb" + bytes(8), 2)), NAME + "a complex number"),
    "timestamp": (wte(ext(bytes(4), 255)), NAME + "an extension of type 255"),
    "unknown extension": (wte(ext(array(), 77)), NAME + "an extension of type 77"),
    "extension of 4 GiB": (wte(ext(array(), length=2**32 - 1)), NAME + "ext of 4294967295"),
    "extension longer than its array": (wte(ext(array() + b"\0")), NAME + "24 bytes of data, expected 25"),
    "extension shorter than its array": (wte(ext(array(), length=40) + bytes(99)), NAME + "24 bytes of data, exp"),
    "empty extension": (wte(ext(b"") + bytes(9)), NAME),
    "four fields": (wte(ext(b"\x94" + array()[1:] + b"\xc0")), NAME + "array 4 inside an array, expected array of 3"),
    "shape short": (wte(ext(array(b"\x92\x02\x02"))), NAME + "24 bytes of data, expected 16 for float32 [2, 2]"),
    "shape long": (wte(ext(array(b"\x92\x02\x04"))), NAME + "24 bytes of data, expected 32"),
    "shape -1": (wte(ext(array(b"\x92\xff\x03"))), NAME + "shape -1"),
    "shape -1 in 8 bytes": (wte(ext(array(b"\x92\xd3" + b"\xff" * 8 + b"\x03"))), NAME + "shape -1"),
    "shape 2**64-1": (wte(ext(array(b"\x92\xcf" + b"\xff" * 8 + b"\x03"))), NAME + "24 bytes of data, expected"),
    "shape whose product wraps": (
        wte(ext(array(b"\x92\xcf" + (2**62).to_bytes(8, "big") + b"\x04", data=b""))), NAME + "0 bytes of data"
    ),
    "shape 2**62 by 0": (
        wte(ext(array(b"\x92\xcf" + (2**62).to_bytes(8, "big") + b"\0", data=b""))), NAME + "shape [4611686018427387904"
    ),
    "shape 2.0": (wte(ext(array(b"\x92\xca" + struct.pack(">f", 2) + b"\x03"))), NAME + "float"),
    "shape true": (wte(ext(array(b"\x92\xc3\x03"))), NAME + "true"),
    "shape no list": (wte(ext(array(b"\x06"))), NAME + "int 6 inside an array, expected array"),
    "rank 9": (wte(ext(array(b"\x99" + b"\x01" * 9, data=bytes(4)))), NAME + "rank 9"),
    "rank 60000": (wte(ext(array(b"\xdc\xea\x60" + b"\x01" * 60_000, data=bytes(4)))), NAME + "rank 60000"),
    "dtype wider": (wte(ext(array(dtype="float64"))), NAME + "24 bytes of data, expected 48"),
    "dtype texts": (wte(ext(array(dtype="<U2"))), NAME + "dtype <U2, expected one of"),
    "dtype code": (wte(ext(array(dtype="<f4"))), NAME + "dtype <f4"),
    "dtype object": (wte(ext(array(dtype="object"))), NAME + "dtype object"),
    "dtype void": (wte(ext(array(dtype="V4"))), NAME + "dtype V4"),
    "dtype complex": (wte(ext(array(dtype="complex64"))), NAME + "dtype complex64"),
    "dtype fields": (wte(ext(array(dtype="f4,O"))), NAME + "dtype f4,O"),
    "dtype bytes": (wte(ext(array(dtype=b"\xc4\x07float32"))), NAME + "bin 7 inside an array, expected str"),
    "dtype long": (wte(ext(array(dtype="f" * 200))), NAME + "dtype ''"),
    "data longer than the file": (wte(ext(array(length=2**32 - 1))), NAME + "bin of 4294967295"),
    "data text": (wte(ext(array()[:-29] + b"\xd9\x18" + bytes(24))), NAME + "str 24 inside an array, expected bin"),
    "scalar of a shape": (wte(ext(array(), 3)), NAME + "array 2 inside an array, expected array of 0"),
    "chunk marker false": (chunked(b"\xc2"), NAME + "a chunked array"),
    "chunk marker only": (wte(m((MARKER, b"\xc3"))), NAME + "a chunked array of 1 keys"),
    "chunk marker second": (wte(m(("shape", GOOD), (MARKER, GOOD))), NAME + "key __msgpack"),
    "chunk marker at the root": (m((MARKER, b"\xc3"), ("shape", SHAPE), ("chunks", m(("0", FLAT)))), "key __msgpack"),
    "chunk keys swapped": (wte(m((MARKER, b"\xc3"), ("chunks", m()), ("shape", SHAPE))), NAME + "key chunks"),
    "chunk shape short": (chunked(shape=m(("0", b"\x02"))), NAME + "24 bytes of data, expected 8"),
    "chunk shape -1": (chunked(shape=m(("0", b"\xff"), ("1", b"\x03"))), NAME + "shape -1"),
    "chunk shape a list": (chunked(shape=b"\x92\x02\x03"), NAME + "array 2"),
    "chunk shape of gaps": (chunked(shape=m(("0", b"\x02"), ("2", b"\x03"))), NAME + "key 2 in a chunked array"),
    "no chunks": (chunked(chunks=m()), NAME + "chunks that differ"),
    "a chunk too few": (chunked(chunks=m(("0", FLAT))), NAME + "12 bytes of data, expected 24"),
    "a chunk too many": (chunked(chunks=m(("0", FLAT), ("1", FLAT), ("2", FLAT))), NAME + "36 bytes of data"),
    "a chunk twice": (chunked(chunks=m(("0", FLAT), ("0", FLAT))), NAME + "key 0 in a chunked array, expected 1"),
    "chunks out of order": (chunked(chunks=m(("1", FLAT), ("0", FLAT))), NAME + "key 1 in a chunked array, expected 0"),
    "a chunk that is not flat": (chunked(chunks=m(("0", GOOD))), NAME + "chunks that differ"),
    "chunks of two dtypes": (
        chunked(chunks=m(("0", FLAT), ("1", ext(array(b"\x91\x03", "int32", bytes(12)))))), NAME + "chunks that differ"
    ),
    "a chunk that is a map": (chunked(chunks=m(("0", m()), ("1", FLAT))), NAME + "map, not an array"),
    "2**32-1 chunks": (chunked(chunks=b"\xdf\xff\xff\xff\xff"), NAME + "map of 4294967295"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=list(BAD))
def test_bad_files_are_refused(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_flax_msgpack(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "data", [wte(GOOD), chunked(), m(("a", m())), m()], ids=["plain", "chunked", "empty map", "none"]
)
def test_what_the_bad_files_are_made_from_is_read(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(data)
    for info in read_flax_msgpack(path).tensors.values():
        assert (info.dtype, info.shape) == ("float32", (2, 3))


@pytest.mark.parametrize(("limit", "value"), [("MAX_TENSORS", 3), ("MAX_MSGPACK_OBJECTS", 20)])
def test_limits(limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.msgpack", MODEL)
    monkeypatch.setattr(limits, limit, value)
    with pytest.raises(CheckpointError, match=f"more than {value}"):
        read_flax_msgpack(path)


WRITE_FAULTS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "complex": ({"a": np.zeros(2, "complex64")}, "a: dtype complex64"),
    "a tensor and a map": ({"a": np.zeros(2), "a/b": np.zeros(2)}, "a/b: a tensor and a map"),
    "a map and a tensor": ({"a/b": np.zeros(2), "a": np.zeros(2)}, "a: a tensor and a map"),
    "surrogate": ({"a\ud800": np.zeros(2)}, "UTF-8"),
    "deep": ({"/".join("a" * 50): np.zeros(2)}, "at most 32 keys"),
    "long": ({"a" * 2000: np.zeros(2)}, "at most 1024 bytes"),
    "marker": ({f"a/{MARKER}": np.zeros(2)}, "none of them"),
    "rank 9": ({"a": np.zeros((1,) * 9)}, "rank 9"),
}


@pytest.mark.parametrize(("arrays", "words"), WRITE_FAULTS.values(), ids=list(WRITE_FAULTS))
def test_what_cannot_be_written_is_refused(arrays: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        write(tmp_path / "x.msgpack", arrays)
    assert not (tmp_path / "x.msgpack").exists()


def test_metadata_has_no_place(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="metadata"):
        write_flax_msgpack(tmp_path / "x.msgpack", {}, MODEL.__getitem__, {"format": "flax"})


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "x.msgpack").write_bytes(b"mine")
    with pytest.raises(CheckpointError, match="exists"):
        write_flax_msgpack(tmp_path / "x.msgpack", {}, MODEL.__getitem__, {})
    assert (tmp_path / "x.msgpack").read_bytes() == b"mine"


def test_one_tensor_at_a_time_is_read(tmp_path: Path) -> None:
    asked: list[str] = []
    infos = {name: TensorInfo("", array.dtype.name, array.shape) for name, array in MODEL.items()}
    write_flax_msgpack(tmp_path / "x", infos, lambda name: asked.append(name) or MODEL[name], {})  # type: ignore[func-returns-value]
    assert asked == list(MODEL)


def test_change_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.msgpack", MODEL)
    file = read_flax_msgpack(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="changed"):
        file.read("lm_head/kernel")
    with pytest.raises(CheckpointError, match="changed"):
        list(file.chunks("lm_head/kernel"))


def read_all(path: Path) -> None:
    contents(read_flax_msgpack(path))


@pytest.mark.parametrize("chunk_bytes", [2**30, 40])
def test_mutants(chunk_bytes: int, tmp_path: Path) -> None:
    data = write(tmp_path / "x.msgpack", MODEL, chunk_bytes=chunk_bytes).read_bytes()
    seen = fuzz.attack(read_all, data, tmp_path / "mutant.msgpack")
    assert min(seen.values()) > 0


def structured(_: bytes, rng: np.random.Generator) -> bytes:
    """A random tree of right and wrong objects, all lengths around them right."""
    return m(*[(str(rng.choice(["a", "b", "ä", MARKER, "shape"])), _object(rng, 4)) for _ in range(rng.integers(1, 4))])


def _object(rng: np.random.Generator, depth: int) -> bytes:
    kinds: list[Callable[[], bytes]] = [
        lambda: GOOD,
        lambda: ext(array(bytes([0x90 + int(rng.integers(5))]) + rng.bytes(4), str(rng.choice(DTYPES)))),
        lambda: ext(array(b"\x92" + _number(rng) + _number(rng), data=bytes(int(rng.choice([0, 24]))))),
        lambda: ext(rng.bytes(int(rng.integers(40))), int(rng.integers(256))),
        lambda: chunked(shape=m(("0", _number(rng)), ("1", b"\x03"))),
        lambda: rng.bytes(3),
    ]
    if depth:
        kinds.append(lambda: m(*[(str(place), _object(rng, depth - 1)) for place in range(rng.integers(3))]))
    return kinds[rng.integers(len(kinds))]()


def _number(rng: np.random.Generator) -> bytes:
    return bytes([int(rng.choice([0xCF, 0xD3]))]) + int(rng.choice([0, 2, 3, 2**31, 2**62])).to_bytes(8, "big")


def test_structured_mutants(tmp_path: Path) -> None:
    seen = fuzz.attack(read_all, wte(GOOD), tmp_path / "mutant.msgpack", mutate=structured)
    assert min(seen.values()) > 0
