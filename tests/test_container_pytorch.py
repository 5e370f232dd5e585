"""PyTorch's checkpoints: equal numbers both ways, and nothing that a pickle wants is done."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptzoo._tensors import TensorInfo
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers._pickling import Call, Name, Persistent, pickled
from gptzoo_conversion.containers.pytorch import read_pytorch, write_pytorch
from tests import fuzz

ARRAYS = {
    "f32": np.arange(24, dtype="float32").reshape(2, 3, 4),
    "f16": np.ones((3, 1, 2, 2), "float16"),
    "bf16": np.arange(5).astype(ml_dtypes.bfloat16),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), "float32"),
    "mask": np.array([[True, False]]),
    "i64": np.array([-1, 2**62]),
    "c64": np.array([1 + 2j], "complex64"),
    "odd/name .é\n\0": np.array([7], "int8"),
}
METADATA = {"model_args": {"n_layer": 2, "bias": False}, "iter_num": 5, "losses": [0.5, None, "é", -(2**40), {}, []]}


def infos(arrays: dict[str, np.ndarray]) -> dict[str, TensorInfo]:
    return {name: TensorInfo("", array.dtype.name, array.shape) for name, array in arrays.items()}


def written(path: Path, arrays: dict[str, np.ndarray] = ARRAYS, metadata: Any = None, **options: Any) -> Path:
    path.unlink(missing_ok=True)
    write_pytorch(path, infos(arrays), arrays.__getitem__, metadata or {}, **options)
    return path


def read_all(path: Path) -> dict[str, np.ndarray]:
    file = read_pytorch(path)
    arrays = {name: file.read(name) for name in file.tensors}
    for name, array in arrays.items():
        assert b"".join(file.chunks(name)) == array.tobytes()
    return arrays


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].flags.c_contiguous, name
        assert found[name].flags.writeable, name
        assert found[name].tobytes() == array.tobytes(), name


def test_round_trip(tmp_path):
    path = written(tmp_path / "x.bin")
    assert_same(read_all(path), ARRAYS)
    assert {name: info.dtype for name, info in read_pytorch(path).tensors.items()}["bf16"] == "bfloat16"
    assert written(tmp_path / "y.bin").read_bytes() == path.read_bytes()


def test_round_trip_beside_metadata(tmp_path):
    path = written(tmp_path / "ckpt.pt", metadata=METADATA, nest="model", aliases={"tied": "f32"})
    file = read_pytorch(path)
    assert file.metadata == METADATA
    expected = ARRAYS | {"tied": ARRAYS["f32"]}
    assert_same(read_all(path), {f"model/{name}": array for name, array in expected.items()})
    assert file.tensors["model/tied"] == file.tensors["model/f32"]


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_round_trip_of_any(tmp_path_factory, data):
    names = data.draw(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), unique=True, max_size=4))
    arrays = {}
    for name in names:
        shape = tuple(data.draw(st.lists(st.integers(0, 4), max_size=4)))
        dtype = np.dtype(data.draw(st.sampled_from(["float32", "float16", "bfloat16", "float64", "int64", "uint8"])))
        count = int(np.prod(shape)) * dtype.itemsize
        arrays[name] = np.frombuffer(data.draw(st.binary(min_size=count, max_size=count)), dtype).reshape(shape)
    path = written(tmp_path_factory.getbasetemp() / "any.bin", arrays)
    assert_same(read_all(path), arrays)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"metadata": {"a": 1}}, "metadata a", id="metadata_among_tensors"),
        pytest.param(
            {"metadata": {"model": 1}, "nest": "model"}, "metadata model", id="metadata_in_the_place_of_tensors"
        ),
        pytest.param({"metadata": {"a": object()}, "nest": "model"}, "a object", id="metadata_not_plain"),
        pytest.param({"metadata": {"a": {1.5: 2}}, "nest": "model"}, "1.5 as a key", id="metadata_key"),
        pytest.param({"metadata": {"a": "\ud800"}, "nest": "model"}, "UTF-8", id="metadata_surrogate"),
        pytest.param({"metadata": {"a": 2**3000}, "nest": "model"}, "integer", id="metadata_large"),
        pytest.param({"aliases": {"x": "nothing"}}, "x: other name of nothing", id="alias_of_nothing"),
        pytest.param({"aliases": {"f32": "f16"}}, "f32: a tensor and", id="alias_is_a_tensor"),
        pytest.param({"arrays": {"u": np.zeros(2, "uint16")}}, "u: dtype uint16", id="dtype"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, options, words):
    with pytest.raises(CheckpointError, match=r"x\.bin: ") as caught:
        written(tmp_path / "x.bin", **options)
    assert words in str(caught.value)


def test_tensor_that_is_not_as_announced_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"x\.bin: a: float32 \[2\], expected float32 \[3\]"):
        write_pytorch(
            tmp_path / "x.bin", {"a": TensorInfo("", "float32", (3,))}, lambda name: np.zeros(2, "float32"), {}
        )


# PyTorch itself


@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mmap"])
@pytest.mark.parametrize("nest", ["", "model"])
def test_torch_reads_ours(tmp_path, nest, mmap):
    torch = pytest.importorskip("torch")
    path = written(tmp_path / "x.bin", metadata=METADATA if nest else {}, nest=nest, aliases={"tied": "f32"})
    loaded = torch.load(path, weights_only=True, mmap=mmap)
    state = loaded.pop(nest) if nest else loaded
    assert not nest or loaded == METADATA
    assert type(state).__name__ == "OrderedDict"
    assert state["tied"].data_ptr() == state.pop("f32").data_ptr()
    state["f32"] = state.pop("tied")
    assert sorted(state) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert tuple(state[name].shape) == array.shape, name
        assert state[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() == array.tobytes(), name
        assert state[name].data_ptr() % 64 == 0 or not mmap, name


def torch_values() -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns tensors of all kinds, and what stands beside them."""
    import torch

    x = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "x": x,
        "view": x[1],
        "transposed": x.transpose(0, 2),
        "columns": x[:, 1:, ::2],
        "one": x[:, :1, :1],
        "parameter": torch.nn.Parameter(x),
        "bf16": x.bfloat16(),
        "f16": x.half().T,
        "f8": x.to(torch.float8_e4m3fn),
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
        "bool": x > 3,
        "u16": torch.tensor([1, 65535], dtype=torch.uint16),
        "c64": torch.tensor([1 + 2j]),
    }
    plain = {"i": [1, 2**80, -3, 256, 70000], "f": (0.5, True, None), "s": "é", "b": b"a\xff", "d": {"t": ()}, "n": {}}
    return tensors, plain


def as_arrays(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    import torch

    result = {}
    for name, tensor in tensors.items():
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        dtype = np.dtype(str(tensor.dtype).removeprefix("torch."))
        result[name] = raw.view(dtype).reshape(tuple(tensor.shape))
    return result


@pytest.mark.filterwarnings("ignore:The use of `x.T`")
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_ours_read_torch(tmp_path, is_zip, protocol):
    torch = pytest.importorskip("torch")
    tensors, plain = torch_values()
    path = tmp_path / "x.pt"
    torch.save(tensors | plain, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    assert_same(read_all(path), as_arrays(tensors))
    assert read_pytorch(path).metadata == plain


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_ours_read_a_state_dict(tmp_path, is_zip):
    torch = pytest.importorskip("torch")
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 2), "norm": torch.nn.BatchNorm1d(2)})
    module["a"].other = module["a"].weight
    path = tmp_path / "x.pt"
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=is_zip)
    assert_same(read_all(path), as_arrays(module.state_dict()))
    assert read_pytorch(path).metadata == {}


def test_ours_read_nanogpt(tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    beside = {"model_args": {"n_layer": 2, "bias": False}, "iter_num": 5, "config": {"device": "cuda", "lr": 6e-4}}
    path = tmp_path / "ckpt.pt"
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "best_val_loss": torch.tensor(1.5)}
    torch.save(state | beside, path)
    file = read_pytorch(path)
    assert list(file.tensors)[:3] == ["model/weight", "model/bias", "optimizer/state/0/step"]
    assert (file.read("optimizer/state/0/exp_avg") == optimizer.state_dict()["state"][0]["exp_avg"].numpy()).all()
    assert file.read("best_val_loss") == 1.5
    assert file.metadata.pop("optimizer")["param_groups"][0]["betas"] == (0.9, 0.999)
    assert file.metadata == beside


def test_torch_without_checksums_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(2)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(CheckpointError, match="saved without checksums"):
        read_pytorch(path)


@pytest.mark.parametrize("kind", ["sparse", "quantized", "meta", "expanded", "module", "numpy", "conjugate", "set"])
@pytest.mark.filterwarnings("ignore")
def test_other_things_of_torch_are_refused(tmp_path, kind):
    torch = pytest.importorskip("torch")
    value = {
        "sparse": lambda: torch.eye(2).to_sparse(),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "meta": lambda: torch.ones(2, device="meta"),
        "expanded": lambda: torch.ones(1).expand(1000),
        "module": lambda: torch.nn.Linear(1, 1),
        "numpy": lambda: np.float64(3),
        "conjugate": lambda: torch.tensor([1j]).conj(),
        "set": lambda: {1},
    }[kind]()
    path = tmp_path / "x.pt"
    torch.save({"a": value}, path)
    words = "a: strides" if kind == "expanded" else "mark" if kind == "conjugate" else "pickle wants "
    with pytest.raises(CheckpointError, match=words):
        read_pytorch(path)


# Falsified tensors


def archive(data: bytes, members: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """Returns a checkpoint of a pickle and storages."""
    target = io.BytesIO()
    storages = {"data/0": np.arange(6, dtype="float32").tobytes()} if members is None else members
    with zipfile.ZipFile(target, "w", method) as writer:
        for name, content in {"data.pkl": data, **storages}.items():
            writer.writestr(zipfile.ZipInfo(f"x/{name}"), content, method)
    return target.getvalue()


def legacy(data: bytes, keys: Any = ("0",), counts: tuple[int, ...] = (6,), system: Any = None) -> bytes:
    header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True} if system is None else system]
    numbers = b"".join(struct.pack("<q", count) + np.arange(6, dtype="float32").tobytes() for count in counts)
    return b"".join(map(pickled, header)) + data + pickled(list(keys)) + numbers


def storage(kind: str = "FloatStorage", key: Any = "0", count: Any = 6) -> Persistent:
    return Persistent(("storage", Name("torch", kind), key, "cpu", count))


def tensor(place: Any = None, offset: Any = 0, shape: Any = (2, 3), strides: Any = (3, 1), *more: Any) -> Call:
    return Call("torch._utils", "_rebuild_tensor", (place or storage(), offset, shape, strides, *more))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param(tensor(storage(count=7)), "a: storage 0 of 24 bytes, expected 28", id="count_above_the_member"),
        pytest.param(tensor(storage(count=5)), "a: storage 0 of 24 bytes, expected 20", id="count_below_the_member"),
        pytest.param(tensor(storage(count=2**62)), "a: storage 0 of 24 bytes", id="count_huge"),
        pytest.param(tensor(storage(count=-6)), "-6 elements", id="count_negative"),
        pytest.param(tensor(storage(count=True)), "True elements", id="count_bool"),
        pytest.param(tensor(storage("HalfStorage")), "a: storage 0 of 24 bytes, expected 12", id="narrower_dtype"),
        pytest.param(tensor(storage("DoubleStorage")), "a: storage 0 of 24 bytes, expected 48", id="wider_dtype"),
        pytest.param(tensor(storage("QInt8Storage")), "wants torch.QInt8Storage", id="quantized_dtype"),
        pytest.param(tensor(storage("float32")), "type torch.float32", id="dtype_as_storage"),
        pytest.param(tensor(storage("UntypedStorage", count=24)), "without a dtype", id="no_dtype"),
        pytest.param(tensor(storage(key="1")), "a: storage 1 is not in the file", id="no_such_member"),
        pytest.param(tensor(storage(key="../data.pkl")), "a: storage ../data.pkl is not", id="key_is_a_path"),
        pytest.param(tensor(storage(key=0)), "key 0; refused", id="key_is_a_number"),
        pytest.param(tensor(storage(key=("0",))), "key a tuple; refused", id="key_is_a_tuple"),
        pytest.param(tensor(offset=1), "a: offset 1, shape", id="offset_beyond"),
        pytest.param(tensor(offset=-1), "at -1", id="offset_negative"),
        pytest.param(tensor(offset=2**62), "a: offset 4611686018427387904", id="offset_huge"),
        pytest.param(tensor(shape=(3, 3)), "a: offset 0, shape [3, 3]", id="shape_above"),
        pytest.param(tensor(shape=(2**40, 2**40)), "a: shape [1099511627776", id="shape_overflows"),
        pytest.param(tensor(shape=(0, 2**62)), "a: shape [0, 4611", id="shape_empty_and_huge"),
        pytest.param(tensor(shape=(-2, -3)), "a tuple as shape", id="shape_negative"),
        pytest.param(tensor(shape=(2, 3.0)), "a tuple as shape", id="shape_float"),
        pytest.param(tensor(shape=6), "6 as shape", id="shape_not_a_tuple"),
        pytest.param(tensor(shape=(1,) * 9, strides=(1,) * 9), "a: shape [1, 1", id="rank"),
        pytest.param(tensor(strides=(1,)), "a: shape [2, 3], strides [1]", id="fewer_strides"),
        pytest.param(tensor(strides=(0, 0)), "a: strides [0, 0]", id="expanded"),
        pytest.param(tensor(shape=(2**20, 2**20), strides=(0, 0)), "a: strides [0, 0]", id="expanded_bomb"),
        pytest.param(tensor(strides=(1, 1)), "a: strides [1, 1]", id="overlapping"),
        pytest.param(tensor(strides=(-3, 1)), "a tuple as shape or strides", id="negative_stride"),
        pytest.param(tensor(strides=(2**62, 1)), "a: offset 0", id="huge_stride"),
        pytest.param(tensor(None, 0, (2, 3), (3, 1), 5), "of 5 parts", id="five_arguments"),
        pytest.param(tensor("x"), "a tensor of x", id="storage_is_text"),
        pytest.param([tensor(), tensor(storage(count=5))], "storage 0 in two sizes", id="storage_in_two_sizes"),
        pytest.param([tensor(), tensor(storage("IntStorage"))], "storage 0 in two", id="storage_in_two_types"),
        pytest.param(storage(), "a: a storage, expected a tensor", id="bare_storage"),
        pytest.param(Name("torch", "FloatStorage"), "a: torch.FloatStorage, expected", id="bare_type"),
        pytest.param(Persistent(("storage",)), "of 1 parts", id="persistent_id_short"),
        pytest.param(Persistent(()), "persistent id of None", id="persistent_id_empty"),
        pytest.param(Persistent(("module", Name("torch", "Size"), "", "")), "persistent id of module", id="module"),
        pytest.param(Call("torch._utils", "_rebuild_parameter", (5, True, {})), "parameter that is 5", id="parameter"),
        pytest.param(Call("torch", "device", ([],)), "device a list", id="device"),
        pytest.param(Call("torch", "Size", ((-1,),)), "a tuple as shape", id="size"),
        pytest.param(Call("collections", "OrderedDict", ([],)), "of 1 parts", id="ordered_dict_of_a_list"),
        pytest.param(Call("_codecs", "encode", ("a", "rot13")), "encodes a as rot13", id="codec"),
        pytest.param(Call("torch", "float32", ()), "calls torch.float32", id="dtype_called"),
        pytest.param({"b": tensor(), 1: 2, "1": 3}, "the key 1 as text and as a number", id="key_text_and_number"),
        pytest.param({"x" * 1025: 5}, "a name of more than 1024 bytes", id="long_name"),
    ],
)  # fmt: skip
def test_falsified_tensors_are_refused(tmp_path, value, words):
    path = tmp_path / "x.bin"
    path.write_bytes(archive(pickled({"a": tensor()})))
    assert list(read_all(path)) == ["a"]
    path.write_bytes(archive(pickled({"a": value})))
    with pytest.raises(CheckpointError, match=r"x\.bin: ") as caught:
        read_pytorch(path)
    assert words in str(caught.value)


def test_two_tensors_of_one_path_are_refused(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(archive(pickled({"a": {"b": tensor()}, "a/b": tensor()})))
    with pytest.raises(CheckpointError, match="a/b: two tensors of this name"):
        read_pytorch(path)


def test_all_problems_are_listed(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(archive(pickled({"a": tensor(offset=9), "b": tensor(), "c": tensor(storage(key="5"))})))
    with pytest.raises(CheckpointError, match=r"(?s)2 problems.*a: .*c: "):
        read_pytorch(path)


ONE = pickled({"a": tensor()})
NUMBERS = {"data/0": np.arange(6, dtype="float32").tobytes()}


def flipped(data: bytes) -> bytes:
    place = data.index(NUMBERS["data/0"]) + 5
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "empty file", id="empty"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer", id="git_lfs"),
        pytest.param(b"\n<!DOCTYPE html>", "web page", id="web_page"),
        pytest.param(b'{"a": 1}', "JSON", id="json"),
        pytest.param(b"\x89HDF\r\n", "HDF5", id="hdf5"),
        pytest.param(bytes(257) + b"ustar" + bytes(250), "tar archive", id="tar"),
        pytest.param(b"not a checkpoint", "not a PyTorch checkpoint", id="garbage"),
        pytest.param(ONE, "not a PyTorch checkpoint", id="bare_pickle"),
        pytest.param(pickled({"a": 1}), "begins with a pickle of a dict", id="bare_pickle_of_plain_values"),
        pytest.param(archive(ONE, NUMBERS | {"byteorder": b"big"}), "byteorder: big", id="big_endian"),
        pytest.param(archive(ONE, NUMBERS | {"y/data.pkl": ONE, "../y": b""}), "not a plain", id="path_out"),
        pytest.param(archive(ONE + b"x"), "1 bytes after the pickle", id="after_the_pickle"),
        pytest.param(archive(pickled([tensor()])), "holds a list", id="list"),
        pytest.param(archive(pickled(tensor())), "holds a tensor", id="bare_tensor"),
        pytest.param(archive(ONE, NUMBERS).replace(b"data.pkl", b"data.pkx"), "0 members data.pkl", id="no_pickle"),
        pytest.param(archive(ONE, NUMBERS | {"data.pky": ONE}).replace(b"data.pky", b"data.pkl"), "twice", id="twice"),
        pytest.param(archive(ONE, NUMBERS | {"y": b""}).replace(b"x/y", b"y/y"), "only those in x/", id="second_root"),
        pytest.param(flipped(archive(ONE)), "x/data/0: CRC-32", id="flipped_bit"),
        pytest.param(
            flipped(archive(pickled({"a": tensor(shape=(2, 2), strides=(2, 1))}))), "CRC-32", id="flipped_bit_elsewhere"
        ),
        pytest.param(
            flipped(archive(pickled({"a": tensor(shape=(3, 2), strides=(1, 3))}))), "CRC-32", id="flipped_transposed"
        ),
        pytest.param(
            archive(pickled({"a": tensor(shape=(3, 2), strides=(1, 3))}), method=zipfile.ZIP_DEFLATED),
            "a: a transposed or strided tensor in a deflated storage",
            id="transposed_and_deflated",
        ),
        pytest.param(archive(b"\x80\x02}X\xff\xff\xff\xffa."), "cut off", id="text_beyond"),
        pytest.param(legacy(ONE, counts=(5,)), "storage 0: 5 elements, expected 6", id="legacy_count"),
        pytest.param(legacy(ONE, counts=(-1,)), "storage 0: 18446744073709551615 elements", id="legacy_count_negative"),
        pytest.param(legacy(ONE)[:-1], "storage 0: cut off", id="legacy_cut_off"),
        pytest.param(legacy(ONE)[:-30], "storage 0: cut off", id="legacy_cut_off_before"),
        pytest.param(legacy(ONE) + b"x", "by its storages", id="legacy_longer"),
        pytest.param(legacy(ONE, keys=()), "list of storages", id="legacy_no_keys"),
        pytest.param(legacy(ONE, keys=("0", "0"), counts=(6, 6)), "list of storages", id="legacy_key_twice"),
        pytest.param(legacy(ONE, keys=("1",)), "list of storages", id="legacy_other_key"),
        pytest.param(legacy(ONE, keys=(0,)), "list of storages", id="legacy_key_number"),
        pytest.param(legacy(ONE, system={"little_endian": False}), "not little-endian", id="legacy_big_endian"),
        pytest.param(legacy(ONE, system=[]), "not little-endian", id="legacy_system"),
        pytest.param(legacy(ONE).replace(pickled(1001), pickled(1002)), "version 1002", id="legacy_version"),
    ],
)  # fmt: skip
def test_falsified_files_are_refused(tmp_path, data, words):
    path = tmp_path / "x.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.bin: ") as caught:
        read_all(path)
    assert words in str(caught.value)


def test_hand_made_files_are_read(tmp_path):
    """What the falsified ones are made from is right."""
    path = tmp_path / "x.bin"
    for data in [archive(ONE), archive(ONE, method=zipfile.ZIP_DEFLATED), legacy(ONE)]:
        path.write_bytes(data)
        assert_same(read_all(path), {"a": np.arange(6, dtype="float32").reshape(2, 3)})


def test_part_of_a_deflated_storage(tmp_path):
    path = tmp_path / "x.bin"
    part = tensor(offset=1, shape=(2, 2), strides=(2, 1))
    path.write_bytes(archive(pickled({"a": part}), method=zipfile.ZIP_DEFLATED))
    assert_same(read_all(path), {"a": np.arange(1, 5, dtype="float32").reshape(2, 2)})


def test_strided_tensors_are_gathered_piecewise(tmp_path, monkeypatch):
    monkeypatch.setattr("gptzoo_conversion.containers.pytorch._CHUNK", 16)
    numbers = np.arange(5 * 7 * 3, dtype="int32").reshape(5, 7, 3)
    shapes = {"t": (3, 7, 5), "s": (2, 3, 2), "d": (5, 3)}
    strides = {"t": (1, 3, 21), "s": (42, 6, 2), "d": (21, 1)}
    values = {name: tensor(storage("IntStorage", count=105), 0, shapes[name], strides[name]) for name in shapes}
    path = tmp_path / "x.bin"
    path.write_bytes(archive(pickled(values), {"data/0": numbers.tobytes()}))
    expected = {"t": numbers.T, "s": numbers[0:4:2, 0:6:2, 0:3:2], "d": numbers[:, 0]}
    assert_same(read_all(path), {name: np.ascontiguousarray(array) for name, array in expected.items()})


def test_changed_file_is_refused(tmp_path):
    path = written(tmp_path / "x.bin")
    file = read_pytorch(path)
    with open(path, "ab") as longer:
        longer.write(b"x")
    with pytest.raises(CheckpointError, match="changed"):
        file.read("f32")


# Fuzzing


def in_the_pickle(data: bytes, rng: np.random.Generator) -> bytes:
    """Falsifies the pickle only, with right checksums."""
    with zipfile.ZipFile(io.BytesIO(data)) as reader:
        members = {name.removeprefix("archive/"): reader.read(name) for name in reader.namelist()}
    return archive(fuzz.mutate(members.pop("data.pkl"), rng), members)


@pytest.mark.parametrize("mutate", [fuzz.mutate, in_the_pickle], ids=["anywhere", "in_the_pickle"])
def test_fuzzed(tmp_path, mutate):
    few = {name: ARRAYS[name] for name in ["f32", "bf16", "empty"]}
    data = written(tmp_path / "base.bin", few, METADATA, nest="model", aliases={"t": "f32"}).read_bytes()
    seen = fuzz.attack(read_all, data, tmp_path / "x.bin", mutate=mutate)
    assert seen["refused"] > seen["read"]


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_fuzzed_files_of_torch(tmp_path, is_zip):
    torch = pytest.importorskip("torch")
    target = io.BytesIO()
    x = torch.arange(6.0).reshape(2, 3)
    state = torch.nn.Linear(2, 2).state_dict()
    torch.save(
        {"s": state, "x": x.T, "p": torch.nn.Parameter(x[1:]), "n": [1, 2.5]},
        target,
        pickle_protocol=4,
        _use_new_zipfile_serialization=is_zip,
    )
    seen = fuzz.attack(read_all, target.getvalue(), tmp_path / "x.bin")
    assert seen["refused"] > seen["read"] or not is_zip
