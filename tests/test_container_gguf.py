"""GGUF files: those of the gguf package read, ours read by it, and nothing in them believed unchecked."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptzoo import limits
from gptzoo._tensors import TensorFile, TensorInfo
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers.gguf import DTYPES, read_gguf, write_gguf
from tests import fuzz

RNG = np.random.default_rng(0)
SHAPES = [(1,), (4,), (3, 5), (1, 1), (2, 3, 4), (1, 2, 3, 2), (300, 7)]


def random_array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.frombuffer(RNG.bytes(np.empty(shape, dtype).nbytes), np.dtype(dtype)).reshape(shape)


def write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> Path:
    infos = {name: TensorInfo("", array.dtype.name, array.shape) for name, array in arrays.items()}
    path.unlink(missing_ok=True)
    write_gguf(path, infos, arrays.__getitem__, metadata)
    return path


def contents(file: TensorFile) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    result = {}
    for name, info in file.tensors.items():
        array = file.read(name)
        assert array.flags.writeable
        assert b"".join(file.chunks(name)) == array.tobytes()
        result[name] = (info.dtype, info.shape, array.tobytes())
    return result


def expected(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in arrays.items()}


MANY = {f"{d}.{place}": random_array(shape, d) for d in DTYPES.values() for place, shape in enumerate(SHAPES)}
ODD = {name: random_array((2,), "float32") for name in ("", "..", "ä/\U0001f600", "a b\n\0", "x" * 1000)}
METADATA: dict[str, Any] = {
    "general.architecture": "gpt2",
    "general.file_type": 0,
    "general.empty": "",
    "gpt2.attention.layer_norm_epsilon": float(np.float32(1e-5)),
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.ggml.tokens": ["!", "Ġthe", "\U0001f600", ""],
    "tokenizer.ggml.token_type": [1, 1, 3, 6],
    "tokenizer.ggml.scores": [0.5, -1.0],
    "a.bools": [True, False],
    "a.uint64": 2**63,
    "a.int32": -5,
    "a.int64": -(2**40),
    "a.int64s": [2**40, 0],
    "command-r.Upper_1": 2**32 - 1,
}
TYPES = "STRING UINT32 STRING FLOAT32 BOOL STRING INT32 FLOAT32 BOOL UINT64 INT32 INT64 INT64 UINT32".split()  # noqa: SIM905


@pytest.mark.parametrize("arrays", [MANY, ODD, {}], ids=["many", "odd", "none"])
@pytest.mark.parametrize("alignment", [8, 32, 2**16])
def test_round_trip(arrays: dict[str, np.ndarray], alignment: int, tmp_path: Path) -> None:
    metadata = METADATA | {"general.alignment": alignment}
    file = read_gguf(write(tmp_path / "x.gguf", arrays, metadata))
    assert contents(file) == expected(arrays)
    assert repr(file.metadata) == repr(metadata)
    again = write(tmp_path / "y.gguf", {name: file.read(name) for name in file.tensors}, file.metadata)
    assert again.read_bytes() == (tmp_path / "x.gguf").read_bytes()


def test_gguf_package_reads_ours(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(write(tmp_path / "x.gguf", MANY, METADATA))
    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert {key: field.contents() for key, field in fields.items()} == METADATA
    assert [field.types[-1].name for field in fields.values()] == TYPES
    assert reader.fields["GGUF.version"].contents() == 3
    assert reader.data_offset % 32 == 0
    for tensor, (name, array) in zip(reader.tensors, MANY.items(), strict=True):
        assert (tensor.name, tuple(tensor.shape.tolist())) == (name, array.shape[::-1])
        assert tensor.tensor_type.name == {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[array.dtype.name]
        assert tensor.data.tobytes() == array.tobytes()


@pytest.mark.parametrize("alignment", [None, 8, 64])
def test_what_the_gguf_package_writes_is_read(alignment: int | None, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "gpt2")
    if alignment:
        writer.add_custom_alignment(alignment)
    values = {"uint8": 7, "int8": -7, "uint16": 7, "int16": -7, "float64": 1e-300, "uint64": 2**60, "string": "Ġ"}
    for kind, value in values.items():
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    writer.add_token_list(["a", "Ġb"])
    writer.add_array("a.list", [1.5, 2.5])
    for name, array in MANY.items():
        raw = gguf.GGMLQuantizationType.BF16 if array.dtype.name == "bfloat16" else None
        writer.add_tensor(name, array.view(np.uint8) if raw else array, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = read_gguf(path)
    assert contents(file) == expected(MANY)
    assert {f"a.{kind}": value for kind, value in values.items()}.items() <= file.metadata.items()
    assert file.metadata["tokenizer.ggml.tokens"] == ["a", "Ġb"]
    assert file.metadata["a.list"] == [1.5, 2.5]
    assert file.metadata["general.architecture"] == "gpt2"


def test_names_of_types_are_those_of_the_gguf_package() -> None:
    from gptzoo_conversion.containers import gguf as ours

    gguf = pytest.importorskip("gguf")
    theirs = {kind.value: kind.name for kind in gguf.GGMLQuantizationType}
    known = {0: "F32", 1: "F16", 30: "BF16"} | {code: name for code, name in ours._OTHERS.items() if code not in (4, 5)}
    assert known == theirs


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_file_round_trips(data: st.DataObject, tmp_path: Path) -> None:
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    shape = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
    arrays = data.draw(st.dictionaries(text, st.builds(random_array, shape, st.sampled_from(list(DTYPES.values())))))
    plain: list[st.SearchStrategy[Any]] = [
        st.booleans(), text, st.floats(width=32, allow_nan=False), st.integers(-(2**63), 2**63 - 1)
    ]  # fmt: skip
    value = st.one_of(*plain, *[st.lists(kind, min_size=1, max_size=4) for kind in plain])
    metadata = data.draw(
        st.dictionaries(st.from_regex(r"[a-z0-9_]+(\.[a-z0-9_]+)*", fullmatch=True), value, max_size=5)
    )
    file = read_gguf(write(tmp_path / "x.gguf", arrays, metadata))
    assert contents(file) == expected(arrays)
    assert repr(file.metadata) == repr(metadata)


# Bad inputs, built by hand.


def text(value: str | bytes, length: int | None = None) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data) if length is None else length) + data


def pair(key: str | bytes = "a.b", kind: int = 4, value: bytes = bytes(4)) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def entry(
    name: str | bytes = "wte", shape: tuple[int, ...] = (3, 2), kind: int = 0, offset: int = 0, rank: int | None = None
) -> bytes:
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape) if rank is None else rank, *shape)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


def build(
    pairs: list[bytes] | None = None, entries: list[bytes] | None = None, data: bytes | None = None, *,
    magic: bytes = b"GGUF", version: int = 3, tensors: int | None = None, keys: int | None = None, alignment: int = 32,
) -> bytes:  # fmt: skip
    pairs, entries = [pair()] if pairs is None else pairs, [entry()] if entries is None else entries
    counts = (len(entries) if tensors is None else tensors, len(pairs) if keys is None else keys)
    header = magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(entries)
    return header + bytes(-len(header) % alignment) + (bytes(24 * len(entries)) if data is None else data)


def listed(kind: int, count: int, data: bytes = b"") -> bytes:
    return pair(kind=9, value=struct.pack("<IQ", kind, count) + data)


def aligned(value: int, kind: int = 4, width: int = 4) -> bytes:
    return pair("general.alignment", kind, value.to_bytes(width, "little"))


BIG = 2**63
BAD: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "empty file"),
    "magic only": (b"GGUF", "4 bytes, expected at most the 0"),
    "git-lfs pointer": (b"version https://git-lfs.github.com", "this is a git-lfs pointer"),
    "old GGML": (build(magic=b"ggjt"), "not GGUF"),
    "version 0": (build(version=0), "version 0"),
    "version 1": (build(version=1), "version 1"),
    "version 4": (build(version=4), "version 4"),
    "big-endian": (build(version=3 << 24), "a big-endian file"),
    "2**63 tensors": (build(tensors=BIG), f"{BIG} tensors"),
    "2**64-1 tensors": (build(tensors=2**64 - 1), "tensors, expected at most"),
    "2**63 keys": (build(keys=BIG), f"{BIG} keys"),
    "2**64-1 keys": (build(keys=2**64 - 1), "keys, expected at most"),
    "a tensor too few": (build(tensors=0), "bytes, expected"),
    "a tensor too many": (build(tensors=2, data=bytes(100)), "0 dimensions"),
    "a key too few": (build(keys=0), "a.b: ends at byte"),
    "a key too many": (build(keys=2), "a text of 562949953421312 bytes"),
    "key stands twice": (build([pair(), pair()]), "key a.b stands twice"),
    "key of 2**63 bytes": (build([text("a", BIG) + bytes(40)]), f"a text of {BIG} bytes"),
    "key of 2**64-1 bytes": (build([text("a", 2**64 - 1) + bytes(40)]), "a text of"),
    "key longer than the file": (build([text("a", 1000)], [], b""), "1000 bytes, expected at most"),
    "key empty": (build([pair("")]), "key '', expected words"),
    "key of a space": (build([pair("a b")]), "key a b, expected words"),
    "key of an end of line": (build([pair("a\n")]), "expected words"),
    "key of a zero byte": (build([pair("a\0")]), "key 'a\\x00', expected words"),
    "key of dots": (build([pair("a..b")]), "key a..b"),
    "key not ASCII": (build([pair("ä")]), "key ä"),
    "key not UTF-8": (build([pair(b"\xff")]), "expected UTF-8"),
    "key of 2000 bytes": (build([pair("k" * 2000)]), "a text of 2000 bytes"),
    "type 13": (build([pair(kind=13)]), "a.b: a value of type 13"),
    "type 2**32-1": (build([pair(kind=2**32 - 1)]), "a.b: a value of type 4294967295"),
    "bool 2": (build([pair(kind=7, value=b"\2")]), "a.b: a bool of 2"),
    "text of 2**63 bytes": (build([pair(kind=8, value=text("x", BIG))]), f"a.b: a text of {BIG} bytes"),
    "text longer than the file": (build([pair(kind=8, value=text("x", 10_000))]), "a.b: 10000 bytes, expected at most"),
    "text not UTF-8": (build([pair(kind=8, value=text(b"\xff\xfe"))]), "a.b: text b'\\xff\\xfe', expected UTF-8"),
    "text of a surrogate": (build([pair(kind=8, value=text(b"\xed\xa0\x80"))]), "a.b: text"),
    "array of arrays": (build([listed(9, 1, struct.pack("<IQ", 4, 0))]), "a.b: an array of arrays"),
    "array of type 13": (build([listed(13, 1, bytes(4))]), "a.b: a value of type 13"),
    "array of 2**63": (build([listed(4, BIG)]), f"a.b: {BIG} values"),
    "array of 2**62 texts": (build([listed(8, 2**62)]), "a.b: 4611686018427387904 values"),
    "array whose bytes wrap": (build([listed(10, 2**61)]), "values"),
    "array longer than the file": (build([listed(4, 10_000)]), "a.b: 40000 bytes, expected at most"),
    "texts longer than the file": (build([listed(8, 10_000)]), "a.b: 10000 texts"),
    "array of a wrong bool": (build([listed(7, 3, b"\0\1\xff")]), "a.b: a bool of 255"),
    "alignment 0": (build([aligned(0)]), "general.alignment: 0"),
    "alignment 3": (build([aligned(3)]), "general.alignment: 3"),
    "alignment 4": (build([aligned(4)]), "general.alignment: 4"),
    "alignment 48": (build([aligned(48)]), "general.alignment: 48"),
    "alignment 2**31": (build([aligned(2**31)]), "general.alignment: 2147483648"),
    "alignment 2**63": (build([aligned(BIG, 10, 8)]), f"general.alignment: {BIG}"),
    "alignment true": (build([aligned(1, 7, 1)]), "general.alignment: True"),
    "alignment text": (build([pair("general.alignment", 8, text("32"))]), "general.alignment: 32"),
    "name stands twice": (build(None, [entry(), entry(offset=32)], bytes(64)), "tensor wte stands twice"),
    "name of 2**63 bytes": (build(None, [text("wte", BIG) + bytes(40)]), f"a text of {BIG} bytes"),
    "name of 2000 bytes": (build(None, [entry("w" * 2000)]), "a text of 2000 bytes"),
    "name not UTF-8": (build(None, [entry(b"\xff")]), "expected UTF-8"),
    "no dimensions": (build(None, [entry(shape=())], bytes(32)), "wte: 0 dimensions"),
    "five dimensions": (build(None, [entry(shape=(1, 1, 1, 3, 2))]), "wte: 5 dimensions"),
    "2**32-1 dimensions": (build(None, [entry(rank=2**32 - 1)]), "wte: 4294967295 dimensions"),
    "dimension 0": (build(None, [entry(shape=(3, 0))]), "wte: shape [0, 3]"),
    "dimension 2**64-1": (build(None, [entry(shape=(2**64 - 1, 2))]), "wte: ends at byte"),
    "dimensions whose product wraps to 4": (
        build(None, [entry(shape=((2**64 + 4) // 4, 4))], bytes(32)), "wte: ends at byte"
    ),
    "bytes that wrap to 0": (build(None, [entry(shape=(2**62,))], bytes(32)), "wte: ends at byte"),
    "Q4_0": (build(None, [entry(kind=2)]), "wte: Q4_0, expected F32, F16 or BF16 (quantized weights cannot be"),
    "Q4_K": (build(None, [entry("blk.0.attn_qkv.weight", kind=12)]), "blk.0.attn_qkv.weight: Q4_K, expected F32"),
    "MXFP4": (build(None, [entry(kind=39)]), "wte: MXFP4, expected F32, F16 or BF16 (quantized"),
    "I8": (build(None, [entry(kind=24)]), "wte: I8, expected F32, F16 or BF16"),
    "type of tensors 99": (build(None, [entry(kind=99)]), "wte: type 99"),
    "type of tensors 2**31": (build(None, [entry(kind=2**31)]), "wte: type 2147483648"),
    "offset not aligned": (build(None, [entry(offset=4)], bytes(64)), "wte: offset 4, expected 0"),
    "offset of a gap": (build(None, [entry(offset=32)], bytes(64)), "wte: offset 32, expected 0"),
    "offset 2**64-32": (build(None, [entry(offset=2**64 - 32)]), "wte: offset 18446744073709551584"),
    "offsets overlap": (build(None, [entry(), entry("b", offset=0)], bytes(64)), "b: offset 0, expected 32"),
    "offsets descend": (build(None, [entry(offset=32), entry("b")], bytes(64)), "wte: offset 32, expected 0"),
    "offsets not padded": (build(None, [entry(), entry("b", offset=24)], bytes(64)), "b: offset 24, expected 32"),
    "data cut": (build(data=bytes(23)), "wte: ends at byte"),
    "data absent": (build(data=b""), "wte: ends at byte"),
    "data too long": (build(data=bytes(24 + 33)), "bytes, expected"),
    "data oddly padded": (build(data=bytes(24 + 3)), "bytes, expected"),
    "bytes after no tensor": (build(None, [], bytes(100)), "bytes, expected"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=list(BAD))
def test_bad_files_are_refused(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_gguf(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "data",
    [build(), build(version=2), build(data=bytes(32)), build([]), build([aligned(64)], alignment=64)],
    ids=["plain", "version 2", "padded", "no keys", "alignment 64"],
)
def test_what_the_bad_files_are_made_from_is_read(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    file = read_gguf(path)
    assert contents(file) == {"wte": ("float32", (2, 3), bytes(24))}


@pytest.mark.parametrize(
    ("limit", "words"),
    [("MAX_TENSORS", "21 tensors"), ("MAX_GGUF_VALUES", "values"), ("MAX_GGUF_TEXT_BYTES", "bytes, expected at most")],
)
def test_limits(limit: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.gguf", MANY, METADATA)
    monkeypatch.setattr(limits, limit, 20)
    with pytest.raises(CheckpointError, match=words):
        read_gguf(path)


F4 = np.zeros(2, "float32")
WRITE_FAULTS: dict[str, tuple[dict[str, np.ndarray], dict[str, Any], str]] = {
    "float64": ({"a": np.zeros(2)}, {}, "a: dtype float64"),
    "int32": ({"a": np.zeros(2, "int32")}, {}, "a: dtype int32"),
    "rank 0": ({"a": np.float32(1).reshape(())}, {}, r"a: shape \[\]"),
    "rank 5": ({"a": np.zeros((1,) * 5, "float32")}, {}, "a: shape"),
    "empty": ({"a": np.zeros((0, 2), "float32")}, {}, "a: shape"),
    "long name": ({"a" * 2000: F4}, {}, "at most 1024"),
    "surrogate name": ({"\ud800": F4}, {}, "UTF-8"),
    "key": ({"a": F4}, {"a b": 1}, "a b: 1: expected a key"),
    "None": ({"a": F4}, {"a.b": None}, "a.b: None: expected int"),
    "dict": ({"a": F4}, {"a.b": {}}, "a.b: {}: expected int"),
    "empty list": ({"a": F4}, {"a.b": []}, "a.b: .*: expected int"),
    "mixed list": ({"a": F4}, {"a.b": [1, "x"]}, "a.b: .*: expected int"),
    "list of lists": ({"a": F4}, {"a.b": [[1]]}, "a.b: .*: expected int"),
    "bool among ints": ({"a": F4}, {"a.b": [1, True]}, "a.b: .*: expected int"),
    "int too large": ({"a": F4}, {"a.b": 2**64}, "a.b: 1844"),
    "ints too large": ({"a": F4}, {"a.b": [2**63]}, "a.b: "),
    "float too large": ({"a": F4}, {"a.b": 1e300}, "a.b: 1e"),
    "surrogate text": ({"a": F4}, {"a.b": "\ud800"}, "a.b: "),
    "alignment": ({"a": F4}, {"general.alignment": 33}, "general.alignment: 33"),
}


@pytest.mark.parametrize(("arrays", "metadata", "words"), WRITE_FAULTS.values(), ids=list(WRITE_FAULTS))
def test_what_cannot_be_written_is_refused(
    arrays: dict[str, np.ndarray], metadata: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        write(tmp_path / "x.gguf", arrays, metadata)
    assert not (tmp_path / "x.gguf").exists()


def test_change_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", MANY, METADATA)
    file = read_gguf(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="changed"):
        file.read("float32.0")


def read_all(path: Path) -> None:
    contents(read_gguf(path))


def test_mutants(tmp_path: Path) -> None:
    some = {name: array for name, array in MANY.items() if array.size < 100}
    data = write(tmp_path / "x.gguf", some, METADATA).read_bytes()
    seen = fuzz.attack(read_all, data, tmp_path / "mutant.gguf")
    assert min(seen.values()) > 0


def structured(_: bytes, rng: np.random.Generator) -> bytes:
    """A file of right and wrong parts whose counts and lengths are right."""
    numbers = [0, 1, 2, 3, 8, 24, 32, 2**31, 2**62, BIG, 2**64 - 1]
    number = lambda: numbers[rng.integers(len(numbers))]  # noqa: E731
    kinds = lambda: int(rng.integers(14))  # noqa: E731
    pairs = [
        pair("a", kinds(), rng.bytes(8)),
        listed(kinds(), number(), rng.bytes(24)),
        aligned(number() % 2**32),
        pair("b", 8, text(rng.bytes(3))),
    ]
    entries = [entry(), entry("b", (number(), number()), int(rng.choice([0, 1, 30, 12])), number())]
    chosen = [pairs[place] for place in rng.permutation(4)[: rng.integers(3)]]
    return build(chosen, entries[: rng.integers(3)], bytes(int(rng.integers(100))))


def test_structured_mutants(tmp_path: Path) -> None:
    seen = fuzz.attack(read_all, build(), tmp_path / "mutant.gguf", mutate=structured)
    assert min(seen.values()) > 0
