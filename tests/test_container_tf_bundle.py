"""TensorFlow's checkpoints: the same bits as TensorFlow reads and writes, and every lie of an index refused."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptzoo import limits
from gptzoo._tensors import TensorInfo
from gptzoo.errors import CheckpointError, MissingExtraError
from gptzoo_conversion.containers._sstable import crc32c, masked, read_table, write_table
from gptzoo_conversion.containers.tf_bundle import DTYPES, read_state_file, read_tf_bundle, write_tf_bundle
from tests import fuzz

Arrays = dict[str, np.ndarray]
Rows = dict[bytes, bytes]

SHARD, SHARDS_OF_TWO = "m.data-00000-of-00001", ("m.data-00000-of-00002", "m.data-00001-of-00002")


def write(prefix: Path, arrays: Arrays) -> Path:
    infos = {name: TensorInfo("", array.dtype.name, array.shape) for name, array in arrays.items()}
    write_tf_bundle(prefix, infos, arrays.__getitem__, {})
    return prefix


def read_all(prefix: Path) -> Arrays:
    bundle = read_tf_bundle(prefix)
    for name in bundle.tensors:
        assert b"".join(bundle.chunks(name)) == bundle.read(name).tobytes()
    return {name: bundle.read(name) for name in bundle.tensors}


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name
        assert found[name].flags.writeable
        assert found[name].flags.c_contiguous


def refused(prefix: Path, *words: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_all(prefix)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.isprintable() or "problems" in message
    return message


def sample() -> Arrays:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**16, (3, 2, 2), np.uint16)
    return {
        "model/wte": rng.standard_normal((20, 8)).astype(np.float32),
        "model/h0/attn/c_attn/w": rng.standard_normal((1, 8, 24)),
        "half": bits.view(np.float16),
        "brain": bits.view(ml_dtypes.bfloat16),
        "flags": rng.integers(0, 2, (2, 1, 2, 1)).astype(bool),
        "step": np.array(7, np.int64),
        "small": np.arange(-3, 3, dtype=np.int32),
        "empty": np.zeros((0, 3), np.float32),
        "großes ẞ: \n'": np.ones(1, np.float32),
    }


# Round trips


def test_round_trip(tmp_path: Path) -> None:
    assert {array.dtype.name for array in sample().values()} == set(DTYPES.values())
    assert_same(read_all(write(tmp_path / "m", sample())), sample())
    again = write(tmp_path / "again", sample())
    assert Path(f"{again}.index").read_bytes() == (tmp_path / "m.index").read_bytes()
    assert read_tf_bundle(again).nbytes == sum(path.stat().st_size for path in tmp_path.glob("again.*"))


def test_no_tensors(tmp_path: Path) -> None:
    assert read_all(write(tmp_path / "m", {})) == {}


NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name[0] != "\0" and name.isprintable())
SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.text("abc/_é", min_size=1, max_size=40) | NAMES, st.tuples(st.sampled_from([*DTYPES]), SHAPES))
)
def test_any_tensors(tmp_path_factory: pytest.TempPathFactory, kinds: dict[str, tuple[int, tuple[int, ...]]]) -> None:
    rng = np.random.default_rng(1)
    arrays = {name: rng.integers(0, 2, shape).astype(DTYPES[code]) for name, (code, shape) in kinds.items()}
    assert_same(read_all(write(tmp_path_factory.mktemp("any") / "m", arrays)), arrays)


def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path) -> None:
    infos = {str(n): TensorInfo("", "float32", (2**21,)) for n in range(3)}
    tracemalloc.start()
    try:
        write_tf_bundle(tmp_path / "m", infos, lambda name: np.full(2**21, int(name), np.float32), {})
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        bundle = read_tf_bundle(tmp_path / "m")
        assert [bundle.read(name)[-1] for name in bundle.tensors] == [0, 1, 2]
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(written, read) < 12 * 2**20  # a tensor has 8


@pytest.mark.parametrize(
    ("name", "dtype", "words"),
    [
        ("a", "complex64", "a: dtype complex64"),
        ("a", "uint8", "a: dtype uint8"),
        ("", "float32", "a name of 0 bytes"),
        ("\0p", "float32", "first of them not zero"),
        ("x" * 1025, "float32", "1025 bytes"),
        ("\ud800", "float32", "UTF-8"),
    ],
)
def test_what_a_bundle_cannot_hold(tmp_path: Path, name: str, dtype: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        write_tf_bundle(tmp_path / "m", {name: TensorInfo("", dtype, (1,))}, lambda _: np.zeros(1), {})
    assert not list(tmp_path.iterdir())


def test_existing_files_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "m", {"a": np.zeros(1)})
    with pytest.raises(CheckpointError, match=f"{SHARD}: File exists"):
        write(tmp_path / "m", {"a": np.ones(1)})


def test_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m", sample())
    monkeypatch.setitem(__import__("sys").modules, "google_crc32c", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gptzoo\[conversion\]'"):
        read_tf_bundle(tmp_path / "m")


# TensorFlow itself


@pytest.fixture(scope="module")
def tf() -> ModuleType:
    return pytest.importorskip("tensorflow")


def save_by_tensorflow(tf: ModuleType, prefix: Path, arrays: Arrays) -> None:
    names, values = list(arrays), [tf.constant(array) for array in arrays.values()]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)


def test_bytes_are_those_of_tensorflow(tf: ModuleType, tmp_path: Path) -> None:
    arrays = dict(sorted(sample().items()))
    save_by_tensorflow(tf, tmp_path / "theirs", arrays)
    write(tmp_path / "ours", arrays)
    for suffix in (".index", ".data-00000-of-00001"):
        assert Path(f"{tmp_path}/ours{suffix}").read_bytes() == Path(f"{tmp_path}/theirs{suffix}").read_bytes()
    assert_same(read_all(tmp_path / "theirs"), arrays)


def test_tensorflow_reads_ours(tf: ModuleType, tmp_path: Path) -> None:
    write(tmp_path / "m", sample())
    reader = tf.train.load_checkpoint(str(tmp_path / "m"))
    assert_same({name: np.array(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}, sample())


def test_index_of_several_blocks(tf: ModuleType, tmp_path: Path) -> None:
    arrays = {f"model/h{n:04d}/{'x' * 100 * (n % 3)}{n}": np.full(1, n, np.float32) for n in range(4000)}
    save_by_tensorflow(tf, tmp_path / "theirs", arrays)
    assert (tmp_path / "theirs.index").stat().st_size > 2**18
    assert_same(read_all(tmp_path / "theirs"), arrays)
    write(tmp_path / "ours", arrays)
    assert_same(read_all(tmp_path / "ours"), arrays)
    reader = tf.train.load_checkpoint(str(tmp_path / "ours"))
    assert all(reader.get_tensor(name) == array for name, array in arrays.items())


def train_by_tensorflow1(tf: ModuleType, prefix: Path, partitions: int = 0) -> Arrays:
    """Trains two variables on two devices for a step, saves all, and returns what was saved."""
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        with v1.device("/cpu:0"):
            wte = v1.get_variable("model/wte", shape=(20, 8))
        with v1.device("/cpu:1"):
            partitioner = v1.fixed_size_partitioner(partitions) if partitions else None
            wpe = v1.get_variable("model/wpe", shape=(6, 8), partitioner=partitioner)
        step = v1.train.get_or_create_global_step()
        loss = v1.reduce_sum(wte * wte) + v1.reduce_sum(v1.convert_to_tensor(wpe) ** 2)
        train = v1.train.AdamOptimizer().minimize(loss, global_step=step)
        saver = v1.train.Saver(sharded=True)
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer())
            session.run(train)
            saver.save(session, str(prefix))
            return {variable.op.name: session.run(variable) for variable in v1.global_variables()}


def test_sharded_checkpoint_of_tensorflow1(tf: ModuleType, tmp_path: Path) -> None:
    expected = train_by_tensorflow1(tf, tmp_path / "model.ckpt")
    assert len(list(tmp_path.glob("model.ckpt.data-*"))) > 1
    found = read_all(tmp_path / "model.ckpt")
    assert_same(found, {name: np.asarray(array) for name, array in expected.items()})
    assert {"model/wte/Adam", "model/wte/Adam_1", "global_step", "beta1_power"} < set(found)
    assert found["global_step"] == 1


def test_partitioned_variable_is_refused(tf: ModuleType, tmp_path: Path) -> None:
    train_by_tensorflow1(tf, tmp_path / "model.ckpt", partitions=2)
    refused(tmp_path / "model.ckpt", "model.ckpt.index", "model/wpe: a partitioned variable of 2 slices")


def test_saver_restores_ours(tf: ModuleType, tmp_path: Path) -> None:
    expected = sample()["model/wte"]
    write(tmp_path / "m", sample())
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        variable = v1.get_variable("model/wte", shape=(20, 8))
        with v1.Session() as session:
            v1.train.Saver().restore(session, str(tmp_path / "m"))
            assert session.run(variable).tobytes() == expected.tobytes()


def test_object_checkpoint_of_tensorflow2(tf: ModuleType, tmp_path: Path) -> None:
    module = tf.Module()
    module.wte = tf.Variable(np.arange(6, dtype=np.float32).reshape(2, 3))
    path = tf.train.Checkpoint(model=module).save(str(tmp_path / "model.ckpt"))
    assert read_state_file(tmp_path / "checkpoint") == Path(path).name == "model.ckpt-1"
    bundle = read_tf_bundle(Path(path))
    assert bundle.metadata == {"skipped": {"_CHECKPOINTABLE_OBJECT_GRAPH": "dtype string, not numbers"}}
    wte = np.arange(6, dtype=np.float32).reshape(2, 3)
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert_same(read_all(Path(path)), {f"model/wte{suffix}": wte, f"save_counter{suffix}": np.array(1, np.int64)})


# Falsified entries, under right checksums of blocks

A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(2, dtype=np.int64)


def number(value: int) -> bytes:
    value, result = value % 2**64, b""
    while value > 127:
        result, value = result + bytes([value & 127 | 128]), value >> 7
    return result + bytes([value])


def sub(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2]) + number(len(data)) + data


def entry(
    dtype: int = 1, dims: Any = (2, 3), shard: int = 0, offset: int = 0, size: int = 24, extra: bytes = b""
) -> bytes:
    shape = b"".join(sub(2, b"\x08" + number(dim)) for dim in dims)
    fields = b"".join(bytes([field]) + number(value) for field, value in [(24, shard), (32, offset), (40, size)])
    crc = b"\x35" + masked(crc32c(A.tobytes())).to_bytes(4, "little")
    return b"\x08" + number(dtype) + sub(2, shape) + fields + crc + extra


def header(shards: int = 1, endianness: int = 0, version: bytes = b"\x08\x01") -> bytes:
    return b"\x08" + number(shards) + b"\x10" + number(endianness) + sub(3, version)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write(tmp_path / "m", {"a": A, "b": B})


def falsify(prefix: Path, rows: dict[bytes, bytes | None]) -> None:
    index = Path(f"{prefix}.index")
    merged = read_table(index.read_bytes(), 100, 1024) | rows
    index.write_bytes(write_table({key: value for key, value in merged.items() if value is not None}))


def test_entry_of_this_test_is_right(good: Path) -> None:
    falsify(good, {b"": header(), b"a": entry()})
    assert_same(read_all(good), {"a": A, "b": B})


ENTRIES: dict[str, tuple[bytes, str]] = {
    "dtype 999": (entry(999), "dtype 999, expected one of 1 (float32)"),
    "dtype 0": (entry(0), "dtype 0,"),
    "dtype complex": (entry(8), "dtype 8,"),
    "dtype a reference": (entry(101), "dtype 101,"),
    "dtype -1": (entry(-1), "dtype -1,"),
    "dtype 1 beyond 32 bits": (entry(2**32 + 1), "dtype 4294967297,"),
    "dtype wider": (entry(2), "size 24, expected 48 for float64 [2, 3]"),
    "shape smaller": (entry(dims=(2, 2)), "size 24, expected 16 for float32 [2, 2]"),
    "shape -1": (entry(dims=(-1, 3)), "shape [-1, 3]"),
    "shape -2 times -3": (entry(dims=(-2, -3)), "shape [-2, -3]"),
    "shape wraps to 24 bytes": (entry(dims=(2**62, 4, 6)), "shape [4611686018427387904, 4, 6]"),
    "shape 2**63": (entry(dims=(2**63,)), "shape [-9223372036854775808]"),
    "shape huge beside a zero": (entry(dims=(0, 2**62), size=0), "shape [0, 4611686018427387904]"),
    "rank 9": (entry(dims=(1,) * 9), "9 dimensions, expected at most 8"),
    "rank 10,000": (entry(dims=(1,) * 10_000), "10000 dimensions"),
    "rank unknown": (
        entry(dims=()).replace(b"\x12\x00", b"\x12\x02\x18\x01"),
        "a shape of unknown rank",
    ),
    "no shape": (entry().replace(sub(2, sub(2, b"\x08\x02") + sub(2, b"\x08\x03")), b""), "expected 4 for float32 []"),
    "two shapes": (entry(extra=sub(2, b"")), "shape stands 2 times"),
    "size 0": (entry(size=0), "size 0, expected 24"),
    "size -24": (entry(size=-24), "size -24, expected 24"),
    "size 2**62": (entry(size=2**62), "size 4611686018427387904, expected 24"),
    "size twice": (entry(extra=b"\x28\x18"), "size stands twice"),
    "offset -1": (entry(offset=-1), "offset -1"),
    "offset beyond the shard": (entry(offset=17), "bytes 17 to 41 of m.data-00000-of-00001, expected at most 40"),
    "offset 2**62": (entry(offset=2**62), "expected at most 40"),
    "offset 2**63 - 1": (entry(offset=2**63 - 1), "expected at most 40"),
    "shard 1 of 1": (entry(shard=1), "shard_id 1, expected less than num_shards 1"),
    "shard -1": (entry(shard=-1), "shard_id -1"),
    "shard 2**31": (entry(shard=2**31), "shard_id 2147483648"),
    "slices": (entry(extra=sub(7, sub(1, b"\x10\x02"))), "partitioned variable of 1 slices"),
    "unknown field": (entry(extra=b"\x40\x01"), "field 8 of wire type 0"),
    "group": (entry(extra=b"\x0b\x0c"), "field 1 of wire type 3"),
    "offset as bytes": (entry(extra=sub(4, b"\0")), "field 4 of wire type 2"),
    "cut in a number": (entry(extra=b"\x08\x80"), "dtype stands twice"),
    "cut in a tag": (entry(extra=b"\x80"), "cut off within a number"),
    "cut in a text": (entry(extra=b"\x3a\x05a"), "slices: 5 bytes, expected at most 1"),
    "text of 2**63 bytes": (entry(extra=b"\x3a" + number(2**63)), "slices: 9223372036854775808 bytes"),
    "number of 11 bytes": (entry(extra=b"\x80" * 11), "more than 64 bits"),
    "number above 2**64": (entry(extra=b"\xff" * 9 + b"\x7f"), "more than 64 bits"),
    "empty": (b"", "dtype 0,"),
    "garbage": (b"\xff\xff\xff", "cut off within a number"),
}


@pytest.mark.parametrize("case", ENTRIES)
def test_falsified_entry(case: str, good: Path) -> None:
    value, words = ENTRIES[case]
    falsify(good, {b"a": value})
    refused(good, "m.index: a: ", words)


def test_overlap(good: Path) -> None:
    falsify(good, {b"a": entry(offset=16)})
    refused(good, f"m.index: b: offset 24 of {SHARD}, expected 40 or more, behind a")


def test_every_problem_is_listed(good: Path) -> None:
    falsify(good, {b"a": entry(999), b"b": entry(size=1)})
    refused(good, "(2 problems)", "\n  a: dtype 999", "\n  b: size 1")


@pytest.mark.parametrize("key", [b"\0p\0\x01", b"\xc3(", b"caf\xe9"])
def test_odd_key(good: Path, key: bytes) -> None:
    falsify(good, {key: entry()})
    refused(good, "m.index: ", "a slice of" if key[0] == 0 else "not UTF-8")


HEADERS: dict[str, tuple[bytes | None, str]] = {
    "none": (None, "no header"),
    "empty": (b"", "num_shards 0"),
    "no shards": (header(0), "num_shards 0, expected 1 to 1000"),
    "-1 shards": (header(-1), "num_shards -1"),
    "2**31 shards": (header(2**31), "num_shards 2147483648"),
    "1001 shards": (header(1001), "num_shards 1001"),
    "2 shards": (header(2), "shard 1 of 2: "),
    "big-endian": (header(endianness=1), "endianness 1, expected 0 (little)"),
    "a version to come": (header(version=b"\x08\x02\x10\x02"), "min_consumer 2, expected at most 1"),
    "a bad consumer": (header(version=b"\x08\x01\x18\x01"), "field 3 of wire type 0"),
    "garbage": (b"\xff", "cut off"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_falsified_header(case: str, good: Path) -> None:
    value, words = HEADERS[case]
    falsify(good, {b"": value})
    refused(good, "m.index: ", words)


# Falsified tables


def block(items: list[tuple[bytes, bytes]], restarts: tuple[int, ...] = (0,), count: int | None = None) -> bytes:
    body = b"".join(b"\0" + number(len(key)) + number(len(value)) + key + value for key, value in items)
    numbers = [*restarts, len(restarts) if count is None else count]
    return body + b"".join(value.to_bytes(4, "little") for value in numbers)


def sealed(data: bytes, kind: int = 0) -> bytes:
    data += bytes([kind])
    return data + masked(crc32c(data)).to_bytes(4, "little")


def table(*blocks: tuple[bytes, bytes], kind: int = 0, gap: bytes = b"", size: int = 0, again: bool = False) -> bytes:
    """Returns a table of blocks, given with their bounds."""
    data, handles = b"", []
    for bound, content in blocks:
        handles.append((bound, number(0 if again else len(data)) + number(len(content) + size)))
        data += sealed(content, kind) + gap
    meta, index = sealed(block([])), sealed(block(handles))
    ends = number(len(data)) + number(len(meta) - 5) + number(len(data) + len(meta)) + number(len(index) - 5)
    return data + meta + index + ends.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


HEAD, ROW_A = (b"", header()), (b"a", entry())
TABLES: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "not a TensorFlow index, or cut off"),
    "zeros": (bytes(100), "not a TensorFlow index"),
    "footer alone": (bytes(40) + bytes.fromhex("57fb808b247547db"), "expected to end at most at 0"),
    "git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "this is a git-lfs pointer",
    ),
    "keys descend": (table((b"b", block([HEAD, ROW_A, (b"Z", b"")]))), "key Z follows a"),
    "key stands twice": (table((b"b", block([HEAD, ROW_A, ROW_A]))), "key a follows a"),
    "key in two blocks": (table((b"a", block([HEAD, ROW_A])), (b"b", block([ROW_A]))), "key a follows a"),
    "header twice": (table((b"b", block([HEAD, HEAD]))), "key '' follows ''"),
    "bound below its block": (table((b"A", block([HEAD, ROW_A]))), "index of blocks: key A"),
    "bound above the next block": (table((b"z", block([HEAD])), (b"zz", block([ROW_A]))), "key a follows z"),
    "empty block": (table((b"z", block([]))), "index of blocks: key z"),
    "no blocks": (table(), "no header"),
    "snappy": (table((b"b", block([HEAD, ROW_A])), kind=1), "compressed (snappy), expected an uncompressed one"),
    "zstd": (table((b"b", block([HEAD, ROW_A])), kind=2), "compressed (type 2)"),
    "footer padded otherwise": (
        table((b"b", block([HEAD, ROW_A])))[:-9] + b"x" + bytes.fromhex("57fb808b247547db"),
        "behind the place of a block",
    ),
    "gap": (table((b"b", block([HEAD, ROW_A])), gap=b"hidden"), "(a gap or an overlap)"),
    "one block twice": (table((b"b", block([HEAD])), (b"c", block([HEAD])), again=True), "(a gap or an overlap)"),
    "block beyond the file": (table((b"b", block([HEAD, ROW_A])), size=2**62), "expected to end at most"),
    "block larger": (table((b"b", block([HEAD, ROW_A])), size=1), "checksum"),
    "no restarts": (table((b"b", block([HEAD, ROW_A], ()))), "0 restarts"),
    "restarts beyond the block": (table((b"b", block([HEAD], count=2**32 - 1))), "4294967295 restarts"),
    "restart within an entry": (table((b"b", block([HEAD, ROW_A], (0, 3)))), "restarts of a block"),
    "first restart not at the begin": (table((b"b", block([HEAD, ROW_A], (1,)))), "restarts of a block"),
    "restarts descend": (table((b"b", block([HEAD, ROW_A], (0, 0)))), "restarts of a block"),
    "shares more than there is": (table((b"b", b"\x05\x01\0a" + block([]))), "sizes beyond its block"),
    "key beyond the block": (table((b"b", b"\0" + number(2**40) + b"\0a" + block([]))), "sizes beyond its block"),
    "value beyond the block": (table((b"b", b"\0\x01" + number(2**63) + b"a" + block([]))), "sizes beyond its block"),
    "key of 1025 bytes": (table((b"y", block([HEAD, (b"x" * 1025, entry())]))), "a key of 1025 bytes"),
    "block of 3 bytes": (table((b"b", b"\0\0\0")), "block of 3 bytes"),
}


@pytest.mark.parametrize("case", TABLES)
def test_falsified_table(case: str, good: Path) -> None:
    data, words = TABLES[case]
    Path(f"{good}.index").write_bytes(data)
    refused(good, "m.index: ", words)


def test_table_of_this_test_is_right(good: Path) -> None:
    Path(f"{good}.index").write_bytes(table((b"", block([HEAD])), (b"b", block([ROW_A]))))
    assert_same(read_all(good), {"a": A})


def test_every_flipped_bit_of_an_index_is_noticed(good: Path) -> None:
    index = Path(f"{good}.index")
    data = index.read_bytes()
    for place in range(len(data)):
        index.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        refused(good, "m.index: ")


@pytest.mark.parametrize("cut", [1, 8, 40, 48, 49, 100, -1])
def test_index_cut_off(good: Path, cut: int) -> None:
    index = Path(f"{good}.index")
    index.write_bytes(index.read_bytes()[:cut])
    refused(good, "m.index: not a TensorFlow index, or cut off")


def test_limits(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TENSORS", 1)
    refused(good, "m.index: more than 2 entries")
    monkeypatch.setattr(limits, "MAX_TF_INDEX_BYTES", 100)
    refused(good, "m.index: ", "bytes, expected at most 100")


# Shards that are absent, cut, exchanged or no files


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A bundle of two shards of equal sizes."""
    crc = b"\x35" + masked(crc32c((A + 1).tobytes())).to_bytes(4, "little")
    second = entry(shard=1)[: -len(crc)] + crc
    (tmp_path / "m.index").write_bytes(write_table({b"": header(2), b"a": entry(), b"b": second}))
    for name, array in zip(SHARDS_OF_TWO, (A, A + 1), strict=True):
        (tmp_path / name).write_bytes(array.tobytes())
    return tmp_path / "m"


def exchange(first: Path, second: Path) -> None:
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def replaced(make: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def change(first: Path, second: Path) -> None:
        second.unlink()
        make(second)

    return change


SHARDS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "absent": (lambda first, second: second.unlink(), f"m.index: shard 2 of 2: *{SHARDS_OF_TWO[1]}: No such file"),
    "cut": (lambda first, second: os.truncate(second, 23), f"m.index: b: bytes 0 to 24 of {SHARDS_OF_TWO[1]}"),
    "empty": (lambda first, second: os.truncate(second, 0), "expected at most 0, its size (cut off?)"),
    "exchanged": (exchange, f"{SHARDS_OF_TWO[0]}: a: checksum *(damaged)"),
    "a bit flipped": (
        lambda first, second: second.write_bytes(bytes([second.read_bytes()[0] ^ 1]) + second.read_bytes()[1:]),
        f"{SHARDS_OF_TWO[1]}: b: checksum *by m.index (damaged)",
    ),
    "a pipe": (replaced(os.mkfifo), f"{SHARDS_OF_TWO[1]}: not a regular file"),
    "a directory": (replaced(Path.mkdir), f"{SHARDS_OF_TWO[1]}: not a regular file"),
    "a device": (replaced(lambda path: path.symlink_to("/dev/zero")), f"{SHARDS_OF_TWO[1]}: not a regular file"),
    "a dangling link": (replaced(lambda path: path.symlink_to("nowhere")), f"{SHARDS_OF_TWO[1]}: No such file"),
    "a link to itself": (replaced(lambda path: path.symlink_to(path.name)), f"{SHARDS_OF_TWO[1]}: Too many levels"),
}


@pytest.mark.parametrize("case", SHARDS)
def test_shards(case: str, two: Path) -> None:
    assert_same(read_all(two), {"a": A, "b": A + 1})
    change, words = SHARDS[case]
    change(*(two.parent / name for name in SHARDS_OF_TWO))
    refused(two, *words.split("*"))


def test_shard_without_tensors_must_be_there(good: Path) -> None:
    falsify(good, {b"": header(2)})
    (good.parent / SHARD).rename(good.parent / SHARDS_OF_TWO[0])
    refused(good, f"{SHARDS_OF_TWO[1]}: No such file")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: None], ids=["pipe", "directory", "nothing"])
def test_index_that_is_no_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "m.index")
    refused(tmp_path / "m", "m.index: ")


def test_shard_that_changes(two: Path) -> None:
    bundle = read_tf_bundle(two)
    shard = two.parent / SHARDS_OF_TWO[1]
    shard.write_bytes((A + 1).tobytes() + b"more")
    with pytest.raises(CheckpointError, match=f"{shard.name}: changed since"):
        bundle.read("b")
    assert_same({"a": bundle.read("a")}, {"a": A})


# The file `checkpoint`

STATES: dict[str, tuple[bytes, str]] = {
    "traversal": (b'model_checkpoint_path: "../../x"', "model_checkpoint_path: *../../x*expected a plain file name"),
    "absolute": (b'model_checkpoint_path: "/tmp/x"', "expected a plain file name"),
    "folder": (b'model_checkpoint_path: "a/b"', "plain"),
    "backslash": (rb'model_checkpoint_path: "..\\x"', "plain"),
    "escaped": (rb'model_checkpoint_path: "\056\056\057x"', "plain"),
    "dots": (b'model_checkpoint_path: ".."', "plain"),
    "dot": (b'model_checkpoint_path: "."', "plain"),
    "nothing": (b'model_checkpoint_path: ""', "plain"),
    "zero byte": (b'model_checkpoint_path: "a\0b"', "plain"),
    "space": (b'model_checkpoint_path: "a b"', "plain"),
    "URL": (b'model_checkpoint_path: "gs://bucket/x"', "plain"),
    "number": (b"model_checkpoint_path: 5", "plain"),
    "not quoted": (b"model_checkpoint_path: model.ckpt", "plain"),
    "line end in it": (b'model_checkpoint_path: "a\n"', "line 1"),
    "twice": (b'model_checkpoint_path: "a"\nmodel_checkpoint_path: "b"', "stands 2 times, expected once"),
    "two on a line": (b'model_checkpoint_path: "a" model_checkpoint_path: "b"', "line 1"),
    "joined": (b'model_checkpoint_path: "a" "/../b"', "line 1"),
    "absent": (b'all_model_checkpoint_paths: "a"', "stands 0 times"),
    "empty": (b"", "stands 0 times"),
    "not UTF-8": (b'model_checkpoint_path: "\xff"', "not UTF-8"),
    "UTF-16": ('model_checkpoint_path: "a"'.encode("utf-16"), "not UTF-8"),
    "long": (b" " * (2**16 + 1), "65537 bytes, expected at most 65536"),
}


@pytest.mark.parametrize("case", STATES)
def test_falsified_state_file(case: str, tmp_path: Path) -> None:
    data, words = STATES[case]
    (tmp_path / "checkpoint").write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_state_file(tmp_path / "checkpoint")
    assert all(word in str(caught.value) for word in [f"{tmp_path}/checkpoint: ", *words.split("*")]), caught.value
    assert str(caught.value).isprintable()


def test_state_file(tmp_path: Path) -> None:
    lines = ['model_checkpoint_path: "model.ckpt-1"', 'all_model_checkpoint_paths: "/abs/model.ckpt-1"']
    lines += ["all_model_checkpoint_timestamps: 1795279406.4", "last_preserved_timestamp: 1.5e+09", ""]
    (tmp_path / "checkpoint").write_text("\r\n".join(lines))
    assert read_state_file(tmp_path / "checkpoint") == "model.ckpt-1"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: None], ids=["pipe", "directory", "nothing"])
def test_state_file_that_is_no_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match=r"/checkpoint: "):
        read_state_file(tmp_path / "checkpoint")


# Falsified at random


def small() -> Arrays:
    return {"a": A, "b": B, "model/wte": np.ones((3, 4), np.float16), "model/wpe": np.zeros((0, 4), np.float32)}


def test_falsified_bytes(tmp_path: Path) -> None:
    index = Path(f"{write(tmp_path / 'm', small())}.index")
    seen = fuzz.attack(lambda _: read_all(tmp_path / "m"), index.read_bytes(), index)
    assert seen["refused"] > 0.8 * fuzz.COUNT


def test_falsified_shard(tmp_path: Path) -> None:
    write(tmp_path / "m", small())
    seen = fuzz.attack(lambda _: read_all(tmp_path / "m"), (tmp_path / SHARD).read_bytes(), tmp_path / SHARD)
    assert seen["refused"] > 0.8 * fuzz.COUNT


def falsify_fields(data: bytes, rng: np.random.Generator) -> bytes:
    """Falsifies an entry or its key, or the bytes of a block; all checksums are right."""
    rows = read_table(data, 100, 1024)
    if rng.random() < 0.3:
        end = int.from_bytes(data[-48:-46], "little") & 127 | (data[-47] & 127) << 7
        return table((b"z", fuzz.mutate(data[: end - 5], rng)))
    key = list(rows)[rng.integers(len(rows))]
    value = rows.pop(key) if rng.random() < 0.9 else rows[key]
    if rng.random() < 0.2:
        key = fuzz.mutate(key + b"x", rng).replace(b"\xff", b"\xfe")
    if key and rng.random() < 0.6:
        dims = [int(rng.choice([0, 1, 2, 3, -1, 2**31, 2**32, 2**62, 2**63])) for _ in range(rng.integers(4))]
        pick = [int(rng.choice([0, 1, 2, 24, 2**31, 2**63 - 1, 2**64 - 1])) for _ in range(3)]
        value = entry(int(rng.choice([1, 1, 1, 2, 7, 9, 14, 19, 999])), dims or (2, 3), pick[0], pick[1], pick[2])
    elif rng.random() < 0.8:
        value = fuzz.mutate(value, rng)
    return write_table(rows | {key: value})


def test_falsified_fields_under_right_checksums(tmp_path: Path) -> None:
    index = Path(f"{write(tmp_path / 'm', small())}.index")
    seen = fuzz.attack(lambda _: read_all(tmp_path / "m"), index.read_bytes(), index, mutate=falsify_fields)
    assert seen["refused"] > 0.5 * fuzz.COUNT
    assert seen["read"] > 0
