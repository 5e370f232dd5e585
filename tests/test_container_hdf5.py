"""HDF5 files: to the bit what h5py, Keras and TensorFlow mean by them, and nothing that lies elsewhere or nowhere."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptzoo import limits
from gptzoo._tensors import TensorFile, TensorInfo
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers.hdf5 import read_hdf5, text_list, write_hdf5
from tests import fuzz

h5py = pytest.importorskip("h5py")

Arrays = dict[str, np.ndarray]
RNG = np.random.default_rng(0)
DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "uint64", "bool")
SHAPES = [(), (1,), (5,), (3, 4), (0,), (2, 0, 3), (2, 3, 4), (1, 2, 3, 2)]
UNDEFINED = b"\xff" * 8


def random_array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return RNG.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def write(path: Path, arrays: Arrays, **metadata: Any) -> Path:
    infos = {name: TensorInfo("", array.dtype.name, array.shape) for name, array in arrays.items()}
    path.unlink(missing_ok=True)
    write_hdf5(path, infos, arrays.__getitem__, metadata)
    return path


def contents(file: TensorFile) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
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


def meant(arrays: Arrays) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in arrays.items()}


ARRAYS = {
    f"{dtype}/{len(shape)}/{size}": random_array(shape, dtype) for dtype in DTYPES for size, shape in enumerate(SHAPES)
}
ODD_NAMES = ["a b", "h_._0/attn/c_attn/weight:0", "ünï/ço→de", "x" * 255, "-", "0", "vars/10", "vars/2", "..."]


def test_round_trip(tmp_path: Path) -> None:
    arrays = ARRAYS | {f"odd/{name}": random_array((2,), "float32") for name in ODD_NAMES}
    assert contents(read_hdf5(write(tmp_path / "x.h5", arrays))) == meant(arrays)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_round_trip_of_anything(tmp_path: Path, data: st.DataObject) -> None:
    part = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=9)
    names = data.draw(st.lists(part.filter(lambda name: name not in (".", "..")), unique=True, max_size=20))
    shapes = st.lists(st.integers(0, 4), max_size=5).map(tuple)
    arrays = {f"g/{name}": random_array(data.draw(shapes), data.draw(st.sampled_from(DTYPES))) for name in names}
    assert contents(read_hdf5(write(tmp_path / "x.h5", arrays))) == meant(arrays)


def test_h5py_reads_what_is_written(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "x.h5", ARRAYS)) as h5:
        for name, array in ARRAYS.items():
            found = h5[name][()]
            assert np.asarray(found).view(array.dtype).tobytes() == array.tobytes(), name
            assert h5[name].attrs.get("dtype") == ("bfloat16" if array.dtype == "bfloat16" else None)


def test_what_h5py_writes_is_read(tmp_path: Path) -> None:
    values = RNG.normal(size=(33, 10)).astype("float32")
    stored: dict[str, dict[str, Any]] = {
        "big-endian": {"data": values, "dtype": ">f4"},
        "big-endian-scalar": {"data": 1.5, "dtype": ">f8"},
        "chunks": {"data": values, "chunks": (8, 3)},
        "gzip": {"data": values, "chunks": (8, 3), "compression": "gzip"},
        "shuffle": {"data": values, "chunks": (40, 10), "maxshape": (None, None), "compression": 9, "shuffle": True},
        "big-endian-chunks": {"data": values, "dtype": ">f8", "chunks": (10, 10), "shuffle": True},
        "empty-chunks": {"shape": (0, 4), "maxshape": (None, 4), "dtype": "f4"},
        "many-chunks": {"data": np.arange(300), "chunks": (1,)},
        "empty": {"shape": (3, 0), "dtype": "f4"},
    }
    with h5py.File(tmp_path / "x.h5", "w") as h5:
        for name, options in stored.items():
            h5.create_dataset(name, **options)
        newer = h5.create_group("newer")
        newer["b"], newer["a"], newer["link"] = values, values, h5py.ExternalLink("x", "y")
        del newer["link"]
        expected = {name: h5[name][()] for name in [*stored, "newer/b", "newer/a"]}
        compact(h5, "compact", values)
    file = read_hdf5(tmp_path / "x.h5")
    assert contents(file) == meant({n: a.astype(a.dtype.newbyteorder("=")) for n, a in expected.items()}) | meant(
        {"compact": values}
    )


def compact(h5: Any, name: str, array: np.ndarray) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(array.shape)
    made = h5py.h5d.create(h5.id, name.encode(), h5py.h5t.py_create(array.dtype), space, plist)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, array)


ATTRIBUTES = {
    "": {
        "layer_names": ["transformer", "score"],
        "backend": "tensorflow",
        "n": 3,
        "x": 0.5,
        "numbers": [1, 2],
        "none": [],
    },
    "a": {"weight_names": [], "naïve": "é" * 100},
    "a/b": {"dtype": "float32", "empty": ""},
    "a/c": {"name": "drop"},
}


def test_attributes_and_groups_round_trip(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", {"a/b": np.ones(3)}, attributes=ATTRIBUTES, groups=["a/c", "d/e"])
    metadata = read_hdf5(path).metadata
    assert metadata == {"attributes": ATTRIBUTES, "groups": ["a/c", "d/e"]}
    with h5py.File(path) as h5:
        assert h5.attrs["layer_names"].tolist() == ["transformer", "score"]
        assert h5["a/c"].attrs["name"] == "drop"


def test_bytes_become_ascii_text_as_keras_writes_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", {}, attributes={"": {"backend": b"tensorflow", "name": "x"}})
    with h5py.File(path) as h5:
        kinds = [h5.attrs.get_id(key).get_type() for key in ("backend", "name")]
        assert [kind.is_variable_str() for kind in kinds] == [True, True]
        assert [kind.get_cset() for kind in kinds] == [h5py.h5t.CSET_ASCII, h5py.h5t.CSET_UTF8]
    assert read_hdf5(path).metadata["attributes"] == {"": {"backend": "tensorflow", "name": "x"}}


def test_long_lists_are_split_as_keras_does(tmp_path: Path) -> None:
    legacy = pytest.importorskip("keras.src.legacy.saving.legacy_h5_format")
    names = [f"model/transformer/h_._{number}/attn/c_attn/weight:0" for number in range(4000)]
    path = write(tmp_path / "x.h5", {}, attributes={"a": {"weight_names": names}})
    attributes = read_hdf5(path).metadata["attributes"]["a"]
    assert text_list(attributes, "weight_names") == names
    with h5py.File(path) as h5, h5py.File(tmp_path / "y.h5", "w") as theirs:
        assert legacy.load_attributes_from_hdf5_group(h5["a"], "weight_names") == names
        legacy.save_attributes_to_hdf5_group(theirs, "weight_names", [name.encode() for name in names])
        assert {key: value.tolist() for key, value in theirs.attrs.items()} == {
            key: value.tolist() for key, value in h5["a"].attrs.items()
        }


@pytest.mark.parametrize("attributes", [{}, {"x": 3}, {"x": "abc"}, {"x": [1]}, {"x0": ["a"], "x1": 5}])
def test_what_is_no_list_of_texts(attributes: dict[str, Any]) -> None:
    assert text_list(attributes, "x") is None


def test_other_attributes_are_left_out(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as h5:
        h5.attrs["table"] = np.ones((2, 2))
        h5.attrs["nothing"] = h5py.Empty("f4")
        h5.attrs["point"] = np.zeros((), "f4,f4")
        h5.attrs["reference"] = h5.ref
        h5.attrs["texts"] = ["a", "bc"]
    assert read_hdf5(tmp_path / "x.h5").metadata["attributes"] == {"": {"texts": ["a", "bc"]}}


def test_same_bytes_whenever_written(tmp_path: Path) -> None:
    first = write(tmp_path / "x.h5", ARRAYS, attributes=ATTRIBUTES | {"a/b": {}}, groups=["e"]).read_bytes()
    code = "import sys, time; time.sleep(1.1); from tests.test_container_hdf5 import *; from pathlib import Path"
    code += '; write(Path(sys.argv[1]), ARRAYS, attributes=ATTRIBUTES | {"a/b": {}}, groups=["e"])'
    in_child(code, tmp_path / "y.h5")
    assert (tmp_path / "y.h5").read_bytes() == first


def in_child(code: str, *arguments: Path) -> None:
    root = Path(__file__).parent.parent
    path = os.pathsep.join(map(str, (root, root / "conversion")))
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=True, env=os.environ | {"PYTHONPATH": path}
    )


def test_reading_needs_no_hdf5_library(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from gptzoo_conversion.containers.hdf5 import read_hdf5"
    code += "; file = read_hdf5(Path(sys.argv[1])); file.read('float32/3/6'); assert 'h5py' not in sys.modules"
    in_child(code, write(tmp_path / "x.h5", ARRAYS))


def test_a_file_within_a_file(tmp_path: Path) -> None:
    inner = write(tmp_path / "x.h5", ARRAYS).read_bytes()
    (tmp_path / "y").write_bytes(b"before" + inner + b"behind")
    assert contents(read_hdf5(tmp_path / "y", (6, len(inner)))) == meant(ARRAYS)


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    file = read_hdf5(write(tmp_path / "x.h5", ARRAYS))
    os.utime(tmp_path / "x.h5", ns=(0, 0))
    with pytest.raises(CheckpointError, match=r"x\.h5: changed"):
        file.read("float32/3/6")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", {"a": np.ones(3)})
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(1000):
        read_hdf5(path).read("a")
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_one_tensor_at_a_time_in_memory(tmp_path: Path) -> None:
    size, count = 2**24, 8
    infos = {str(number): TensorInfo("", "float32", (size // 4,)) for number in range(count)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_hdf5(tmp_path / "x.h5", infos, lambda name: np.full(size // 4, 1.5, "float32"), {})
    file = read_hdf5(tmp_path / "x.h5")
    for name in infos:
        assert file.read(name)[-1] == 1.5
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 3 * size + 2**24


# Bad inputs


def good(path: Path, **options: Any) -> Any:
    h5 = h5py.File(path, "w", **options)
    h5["a/b"] = np.arange(6.0)
    return h5


def made(make: Callable[[Any], None], **options: Any) -> Callable[[Path], None]:
    """A fault that h5py itself makes."""

    def falsify(path: Path) -> None:
        with good(path, **options) as h5:
            make(h5)

    return falsify


def replaced(old: bytes, new: bytes, make: Callable[[Any], None] = lambda h5: None) -> Callable[[Path], None]:
    """A fault that takes other bytes than h5py writes."""

    def falsify(path: Path) -> None:
        made(make)(path)
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return falsify


def content(data: bytes) -> Callable[[Path], None]:
    def falsify(path: Path) -> None:
        path.write_bytes(data)

    return falsify


def edited(edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def falsify(path: Path) -> None:
        made(lambda h5: None)(path)
        path.write_bytes(edit(path.read_bytes()))

    return falsify


def virtual(h5: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("canary.h5", "x", (4,))
    h5.create_virtual_dataset("v", layout)


def chunk_missing(h5: Any) -> None:
    h5.create_dataset("c", (10,), "f4", chunks=(3,))[:9] = 1


def bomb(h5: Any) -> None:
    h5.create_dataset("c", data=np.zeros(2**22, "f4"), chunks=(2**20,), compression=9)


def deep(h5: Any) -> None:
    h5.create_group("/".join("g" * (limits.MAX_HDF5_DEPTH + 1)))


def fractal(h5: Any) -> None:
    for number in range(20):
        h5.create_group(f"g/{number}")
    h5["g/l"] = h5py.ExternalLink("canary.h5", "/x")


def bytes_as_name(h5: Any) -> None:
    h5py.h5g.create(h5["a"].id, b"\xff\xfe")


def raw_attribute(h5: Any) -> None:
    h5["a"].attrs["x"] = np.bytes_(b"\xff")


def written(name: str, **options: Any) -> Callable[[Any], None]:
    return lambda h5: h5.create_dataset(name, **options) and None


def linked(name: str, target: Callable[[Any], Any]) -> Callable[[Any], None]:
    return lambda h5: h5.__setitem__(name, target(h5))


def number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def with_address(value: bytes) -> Callable[[bytes], bytes]:
    """Falsifies where the numbers of a/b are said to be."""

    def edit(data: bytes) -> bytes:
        place = data.index(b"\x03\x01")
        while data[place + 10 : place + 18] != number(48):
            place = data.index(b"\x03\x01", place + 1)
        return data[: place + 2] + value + data[place + 10 :]

    return edit


def at(magic: bytes, offset: int, value: bytes, skip: int = 0) -> Callable[[bytes], bytes]:
    """Overwrites bytes behind a magic number."""

    def edit(data: bytes) -> bytes:
        place = -1
        for _ in range(skip + 1):
            place = data.index(magic, place + 1)
        return data[: place + offset] + value + data[place + offset + len(value) :]

    return edit


def text(h5: Any) -> None:
    h5.attrs["t"] = "some text"


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty file": (content(b""), "empty file"),
    "git-lfs pointer": (content(b"version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "web page": (content(b"<html>"), "this is a web page"),
    "zip archive": (content(b"PK\3\4" * 40), "expected an HDF5 file"),
    "signature alone": (content(b"\x89HDF\r\n\x1a\n"), "96"),
    "cut in half": (edited(lambda data: data[: len(data) // 2]), "cut off"),
    "one byte short": (edited(lambda data: data[:-1]), "cut off"),
    "bytes behind": (edited(lambda data: data + b"x"), "by its header"),
    "newer superblock": (made(lambda h5: None, libver="latest"), "superblock version 3"),
    "user block": (made(lambda h5: None, userblock_size=512), "expected an HDF5 file"),
    "base address": (edited(at(b"\x89HDF", 24, number(8))), "after other data"),
    "driver information": (edited(at(b"\x89HDF", 48, number(96))), "set of files"),
    "offsets of four bytes": (edited(at(b"\x89HDF", 13, b"\4")), "widths"),
    "root outside": (edited(at(b"\x89HDF", 64, number(2**40))), str(2**40)),
    "root undefined": (edited(at(b"\x89HDF", 64, UNDEFINED)), "not there"),
    "order of creation": (made(lambda h5: h5.create_group("g", track_order=True) and None), "g: header version 79"),
    "newer object header": (edited(at(b"\x89HDF", 96, b"\2")), "header version 2"),
    "external storage": (
        made(written("e", shape=(4,), dtype="f4", external=[("canary", 0, 16)])),
        "e: data lies in another file",
    ),
    "external link": (
        made(linked("l", lambda h5: h5py.ExternalLink("canary.h5", "/x"))),
        "l: a link into another file",
    ),
    "soft link": (made(linked("a/l", lambda h5: h5py.SoftLink("/a/b"))), "a/l: a soft link"),
    "soft link to nothing": (made(linked("l", lambda h5: h5py.SoftLink("/none"))), "l: a soft link"),
    "virtual dataset": (made(virtual), "v: data is made of parts of other files"),
    "hard link": (made(linked("z", lambda h5: h5["a/b"])), "z: a second name of one object"),
    "group in itself": (made(linked("a/z", lambda h5: h5["a"])), "a/z: a second name of one object"),
    "root in a group": (made(linked("a/z", lambda h5: h5["/"])), "a/z: a second name of one object"),
    "named datatype": (made(linked("t", lambda h5: np.dtype("f4"))), "t: a named datatype"),
    "dataset of a named datatype": (
        made(lambda h5: (linked("0", lambda h5: np.dtype("f4"))(h5), h5.create_dataset("1", (2,), h5["0"]))[0]),
        "0: a named datatype",
    ),
    "no data": (made(linked("n", lambda h5: h5py.Empty("f4"))), "n: has no data"),
    "never written": (made(written("u", shape=(4,), dtype="f4")), "u: was never written"),
    "never written and huge": (made(written("u", shape=(2**33,), dtype="f4")), "u: was never written"),
    "huge in chunks": (
        made(written("u", shape=(2**40,), dtype="f4", chunks=(2**20,))),
        "u: 4398046511104 bytes in chunks",
    ),
    "a chunk missing": (made(chunk_missing), "c: 3 of 3 chunks are right, expected 4"),
    "no chunk at all": (made(written("c", shape=(9,), dtype="f4", chunks=(3,))), "c: 0 of 0 chunks"),
    "gzip bomb": (made(bomb), "c: 16777216 bytes in chunks"),
    "unknown filter": (
        made(written("f", shape=(4,), dtype="f4", chunks=(4,), compression=32099, allow_unknown_filter=True)),
        r"f: filters \[32099\]",
    ),
    "checksum filter": (made(written("f", data=np.ones(4), chunks=(4,), fletcher32=True)), r"f: filters \[3\]"),
    "lzf filter": (made(written("f", data=np.ones(4), chunks=(4,), compression="lzf")), r"f: filters \[32000\]"),
    "scale-offset filter": (made(written("f", data=np.arange(4), chunks=(4,), scaleoffset=0)), r"f: filters \[6\]"),
    "texts of variable length": (
        made(written("d", data=["a", "b"], dtype=h5py.string_dtype())),
        "d: variable-length values",
    ),
    "texts": (made(linked("d", lambda h5: np.bytes_(b"abc"))), "d: text values"),
    "compound": (made(written("d", data=np.zeros(2, "f4,i4"))), "d: compound values"),
    "complex": (made(written("d", data=np.zeros(2, "c8"))), "d: compound values"),
    "reference": (
        made(written("d", data=np.array([None], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype)),
        "d: reference values",
    ),
    "enumeration": (made(written("d", shape=(2,), dtype=h5py.enum_dtype({"a": 0, "b": 1}))), "d: enumeration values"),
    "array type": (made(written("d", shape=(2,), dtype=np.dtype("(3,)f4"))), "d: array values"),
    "opaque": (made(written("d", data=np.zeros(2, "V2"))), "d: opaque values"),
    "float8": (made(written("d", data=np.zeros(2, ml_dtypes.float8_e4m3fn))), "d: opaque values"),
    "bfloat16 of four bytes": (
        made(lambda h5: h5["a/b"].attrs.__setitem__("dtype", "bfloat16")),
        "a/b: floating point values .* marked as bfloat16",
    ),
    "rank 9": (made(written("r", data=np.ones([1] * 9))), "r: rank 9"),
    "33 groups deep": (made(deep), "lies deeper"),
    "long name": (made(lambda h5: h5.create_group("x" * 1025) and None), "more than 1024 bytes"),
    "name of no text": (made(bytes_as_name), "a: holds the name"),
    "name with a slash": (
        replaced(b"\0bcd\0", b"\0b/d\0", lambda h5: h5.create_group("a/bcd") and None),
        "holds the name b/d",
    ),
    "name of a dot": (replaced(b"\0b\0\0", b"\0.\0\0"), "a: holds the name .,"),
    "name twice": (replaced(b"\0bcd\0", b"\0b\0\0\0", lambda h5: h5.create_group("a/bcd") and None), "in order"),
    "names out of order": (replaced(b"\0bcd\0", b"\0acd\0", lambda h5: h5.create_group("a/bcd") and None), "in order"),
    "links in a fractal heap": (made(fractal), "g: links in a fractal heap"),
    "attribute of no text": (made(raw_attribute), "a: attribute 'x' is not UTF-8"),
    "index without magic": (edited(at(b"TREE", 0, b"TREX")), "an index begins with"),
    "index of chunks for names": (edited(at(b"TREE", 4, b"\1")), "an index begins with"),
    "index of many": (edited(at(b"TREE", 6, b"\xff\xff")), "bytes 160 to"),
    "index deeper than it is": (edited(at(b"TREE", 5, b"\1")), "index begins with"),
    "names without magic": (edited(at(b"SNOD", 4, b"\2")), "a list of names begins"),
    "names of many": (edited(at(b"SNOD", 6, b"\xff\xff")), "bytes 4104 to"),
    "heap outside": (edited(at(b"HEAP", 24, number(2**50))), "bytes 1125899906842624 to"),
    "heap of everything": (edited(at(b"HEAP", 8, number(2**63))), "bytes 712 to"),
    "name outside of the heap": (edited(at(b"SNOD", 8, number(2**20))), "outside of the heap"),
    "object is a heap": (edited(at(b"SNOD", 16, number(680))), "a: header version 72"),
    "object is the root": (edited(at(b"SNOD", 16, number(96))), "a second name of one object"),
    "entry of unknown kind": (edited(at(b"SNOD", 24, b"\7")), "of kind 7"),
    "numbers outside": (edited(with_address(number(2**40))), "a/b: bytes"),
    "numbers beyond all": (edited(with_address(number(2**64 - 8))), "a/b: bytes"),
    "numbers nowhere": (edited(with_address(UNDEFINED)), "a/b: was never written"),
    "numbers in the header": (edited(with_address(number(0))), "shares bytes with"),
    "numbers at the very end": (edited(lambda data: with_address(number(len(data) - 47))(data)), "a/b: bytes"),
    "text heap without magic": (replaced(b"GCOL\1", b"GCOL\2", text), "a heap of texts begins"),
    "text heap of nothing": (
        replaced(b"GCOL\1\0\0\0" + number(4096), b"GCOL\1\0\0\0" + number(0), text),
        "heap of 0",
    ),
    "text heap outside": (
        replaced(b"GCOL\1\0\0\0" + number(4096), b"GCOL\1\0\0\0" + number(2**60), text),
        "bytes",
    ),
    "text of nothing": (replaced(number(9) + b"some", number(0) + b"some", text), "a text of 9 bytes"),
    "text of 2**63": (replaced(number(9) + b"some", number(2**63) + b"some", text), "ends early"),
}


@pytest.mark.parametrize(("falsify", "words"), BAD.values(), ids=BAD)
def test_refuses(tmp_path: Path, falsify: Callable[[Path], None], words: str) -> None:
    (tmp_path / "bad").mkdir()
    path = tmp_path / "bad" / "tf_model.h5"
    falsify(path)
    with pytest.raises(CheckpointError, match=f"tf_model.h5: .*{words}"):
        contents(read_hdf5(path))


def test_the_file_that_is_falsified_is_good(tmp_path: Path) -> None:
    made(lambda h5: None)(tmp_path / "x.h5")
    assert contents(read_hdf5(tmp_path / "x.h5")) == meant({"a/b": np.arange(6.0)})


def test_numbers_that_two_datasets_share(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as h5:
        h5["a"], h5["b"] = np.ones(8), np.ones(8)
        first, second = (number(h5[name].id.get_offset()) for name in "ab")
    path.write_bytes(path.read_bytes().replace(second + number(64), first + number(64)))
    with pytest.raises(CheckpointError, match="b: shares bytes with a"):
        read_hdf5(path)


@pytest.mark.parametrize(
    ("change", "words"), [(lambda raw: raw[:-4], "c: "), (lambda raw: bytes(len(raw)), "c: compressed")]
)
def test_broken_chunks(tmp_path: Path, change: Callable[[bytes], bytes], words: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as h5:
        made = h5.create_dataset("c", (100,), "f4", chunks=(100,), compression="gzip")
        made[:] = np.arange(100)
        raw = made.id.read_direct_chunk((0,))[1]
        made.id.write_direct_chunk((0,), change(raw))
    file = read_hdf5(tmp_path / "x.h5")
    with pytest.raises(CheckpointError, match=f"x.h5: {words}"):
        file.read("c")
    with pytest.raises(CheckpointError, match=f"x.h5: {words}"):
        list(file.chunks("c"))


@pytest.mark.parametrize("size", [99, 101, 2**24])
def test_chunks_that_inflate_to_another_size(tmp_path: Path, size: int) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as h5:
        made = h5.create_dataset("c", (100,), "u1", chunks=(100,), compression="gzip")
        made.id.write_direct_chunk((0,), zlib.compress(bytes(size)))
    with pytest.raises(CheckpointError, match="c: compressed data is not of 100 bytes"):
        read_hdf5(tmp_path / "x.h5").read("c")


def test_filters_that_a_chunk_skipped(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as h5:
        made = h5.create_dataset("c", (3,), "f4", chunks=(3,), compression="gzip", shuffle=True)
        made.id.write_direct_chunk((0,), np.arange(3, dtype="<f4").tobytes(), filter_mask=3)
    assert read_hdf5(tmp_path / "x.h5").read("c").tolist() == [0, 1, 2]


def test_too_many_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.h5", {}, groups=list("abcdef"))
    monkeypatch.setattr(limits, "MAX_HDF5_OBJECTS", 6)
    with pytest.raises(CheckpointError, match="more than 6 objects"):
        read_hdf5(path)


def test_too_much_beside_the_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.h5", {}, attributes={"": {"a": "x" * 50_000}})
    monkeypatch.setattr(limits, "MAX_HDF5_BYTES", 50_000)
    with pytest.raises(CheckpointError, match="more than 50000 bytes"):
        read_hdf5(path)


def test_one_long_text_many_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as h5:
        h5.attrs["x"] = ["y" * 20_000, *"abcdefgh"]
    data = path.read_bytes()
    first, last = data.index((20_000).to_bytes(4, "little")), data.rindex((20_000).to_bytes(8, "little"))
    assert first < last
    path.write_bytes(data[:first] + data[first : first + 16] * 9 + data[first + 144 :])
    assert read_hdf5(path).metadata["attributes"][""]["x"] == ["y" * 20_000] * 9
    monkeypatch.setattr(limits, "MAX_HDF5_BYTES", 100_000)
    with pytest.raises(CheckpointError, match="texts of more than 100000 bytes"):
        read_hdf5(path)


def test_a_long_read_of_a_sparse_file_is_refused_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", ARRAYS)
    os.truncate(path, 2**40)
    with pytest.raises(CheckpointError, match=f"{2**40} bytes, expected"):
        read_hdf5(path)


OPENED: list[str] = []
sys.addaudithook(lambda event, arguments: OPENED.append(str(arguments[0])) if event == "open" else None)


@pytest.mark.parametrize("name", ["external storage", "external link", "virtual dataset", "unknown filter"])
def test_no_other_file_is_opened(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path))
    path = tmp_path / "x.h5"
    (tmp_path / "canary").write_bytes(bytes(16))
    write(tmp_path / "canary.h5", {"x": np.ones(4, "float32")})
    monkeypatch.chdir(tmp_path)
    BAD[name][0](path)
    OPENED.clear()
    with pytest.raises(CheckpointError):
        read_hdf5(path)
    assert set(OPENED) == {str(path)}


def fuzzed(path: Path) -> bytes:
    """A file of every kind of part that is read."""
    with h5py.File(path, "w") as h5:
        h5.attrs["layer_names"], h5.attrs["backend"], h5.attrs["n"] = [b"transformer", b"score"], b"tensorflow", 3
        h5["layers/a/vars/0"] = np.arange(40, dtype="f4").reshape(5, 8)
        h5["layers/a/vars"].attrs["name"] = "wte"
        h5.create_dataset("layers/a/vars/1", data=np.arange(5).astype("bfloat16")).attrs["dtype"] = "bfloat16"
        h5.create_dataset("c", data=np.arange(100.0).reshape(10, 10), chunks=(4, 4), compression=9, shuffle=True)
        h5["big-endian"] = np.arange(6, dtype=">f8")
        h5["newer/x"], h5["newer/y"] = [True, False], h5py.ExternalLink("x", "y")
        del h5["newer/y"]
        compact(h5, "compact", np.arange(3.0))
    return path.read_bytes()


def read_all(path: Path) -> None:
    file = read_hdf5(path)
    for name in file.tensors:
        file.read(name)
        list(file.chunks(name))


def mutate_parts(data: bytes, rng: np.random.Generator) -> bytes:
    """Falsifies what lies right behind the magic number of a part, where its counts, sizes and addresses are."""
    result = bytearray(data)
    magic = [b"TREE", b"SNOD", b"HEAP", b"GCOL", b"\x89HDF", b"\3\1", b"\3\2", b"\1\0\2\0", b"\x0c\0"][rng.integers(9)]
    places = [found.end() for found in re.finditer(re.escape(magic), data)]
    place = places[rng.integers(len(places))] + int(rng.integers(40))
    width = int(rng.choice([1, 2, 4, 8]))
    value = int(rng.choice([0, 1, 2, 16, 96, 800, len(data), 2**16 - 1, 2**32 - 1, 2**63 - 1]))
    result[place : place + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(result[: len(data)])


@pytest.mark.parametrize("mutate", [fuzz.mutate, mutate_parts])
def test_fuzz(tmp_path: Path, mutate: Callable[[bytes, np.random.Generator], bytes]) -> None:
    seen = fuzz.attack(read_all, fuzzed(tmp_path / "base.h5"), tmp_path / "x.h5", mutate=mutate)
    assert min(seen.values()) > fuzz.COUNT / 50


@pytest.mark.parametrize(
    ("name", "info", "words"),
    [
        ("c", TensorInfo("", "complex64", (2,)), "c: dtype complex64"),
        ("c", TensorInfo("", "float8_e5m2", (2,)), "c: dtype float8_e5m2"),
        ("a//b", TensorInfo("", "float32", (2,)), "a//b: not a name"),
        ("/a", TensorInfo("", "float32", (2,)), "/a: not a name"),
        ("a/../b", TensorInfo("", "float32", (2,)), "not a name"),
        ("a\0b", TensorInfo("", "float32", (2,)), "not a name"),
        ("\udc80", TensorInfo("", "float32", (2,)), "cannot be written"),
        ("x/y", TensorInfo("", "float32", (2,)), "x/y: cannot be written"),
        ("y", TensorInfo("", "float32", (3,)), "y: cannot be written"),
    ],
)
def test_cannot_be_written(tmp_path: Path, name: str, info: TensorInfo, words: str) -> None:
    infos = {"x": TensorInfo("", "float32", (2,)), name: info}
    with pytest.raises(CheckpointError, match=words):
        write_hdf5(tmp_path / "x.h5", infos, lambda name: np.ones(2, "float32"), {})


def test_an_attribute_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a: cannot be written"):
        write(tmp_path / "x.h5", {}, attributes={"a": {"x": ["y" * 70_000, "z"]}})


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(b"old")
    with pytest.raises(CheckpointError, match=r"x\.h5"):
        write_hdf5(tmp_path / "x.h5", {}, lambda name: np.ones(2), {})
    assert (tmp_path / "x.h5").read_bytes() == b"old"


def test_a_full_disk(tmp_path: Path) -> None:
    code = "import resource; from tests.test_container_hdf5 import *; from tests.test_container_hdf5 import sys"
    code += "\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    code += "\ntry: write(Path(sys.argv[1]), ARRAYS)\nexcept CheckpointError as problem: assert 'x.h5' in str(problem)"
    code += "\nelse: raise SystemExit('written')"
    in_child(code, tmp_path / "x.h5")
