"""Keras' archives: what Keras saves is read to the bit, Keras loads what is written, and nothing in them is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo import limits
from gptzoo._tensors import TensorInfo
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers.hdf5 import read_hdf5, write_hdf5
from gptzoo_conversion.containers.keras_archive import read_keras_archive, write_keras_archive
from tests import fuzz

pytest.importorskip("h5py")

RNG = np.random.default_rng(0)
ARRAYS = {
    f"layers/{dtype}/vars/{number}": RNG.integers(0, 100, shape).astype(dtype)
    for dtype in ("float32", "float16", "bfloat16")
    for number, shape in enumerate([(), (5,), (3, 4), (0,), (2, 3, 4)])
}
METADATA: dict[str, Any] = {
    "config": {"class_name": "GPT2Model", "config": {"n_layer": 2, "naïve": None}},
    "metadata": {"keras_version": "3.15.1"},
    "attributes": {"layers/float32/vars": {"name": "wte"}},
    "groups": ["layers/dropout/vars"],
}


def write(path: Path) -> Path:
    infos = {name: TensorInfo("", array.dtype.name, array.shape) for name, array in ARRAYS.items()}
    write_keras_archive(path, infos, ARRAYS.__getitem__, METADATA)
    return path


def read_all(path: Path) -> dict[str, bytes]:
    file = read_keras_archive(path)
    for name in file.tensors:
        assert b"".join(file.chunks(name)) == file.read(name).tobytes()
    return {name: file.read(name).tobytes() for name in file.tensors}


def test_round_trip(tmp_path: Path) -> None:
    path = write(tmp_path / "x.keras")
    assert read_all(path) == {name: array.tobytes() for name, array in ARRAYS.items()}
    marks = {name: {"dtype": "bfloat16"} for name, array in ARRAYS.items() if array.dtype == "bfloat16"}
    assert read_keras_archive(path).metadata == METADATA | {"attributes": METADATA["attributes"] | marks}
    assert os.listdir(tmp_path) == ["x.keras"]


def test_same_bytes_whenever_written(tmp_path: Path) -> None:
    first = write(tmp_path / "x.keras").read_bytes()
    code = "import sys, time; from pathlib import Path; from tests.test_container_keras_archive import write"
    code += "; time.sleep(2.1); write(Path(sys.argv[1]))"  # a zip tells every other second
    root = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (root, root / "conversion")))}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "y.keras")], check=True, env=environment)
    assert (tmp_path / "y.keras").read_bytes() == first


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    (tmp_path / "x.keras").write_bytes(b"old")
    with pytest.raises(CheckpointError, match=r"x\.keras: File exists"):
        write(tmp_path / "x.keras")
    with pytest.raises(CheckpointError, match="complex64"):
        write_keras_archive(tmp_path / "y.keras", {"a": TensorInfo("", "complex64", ())}, ARRAYS.__getitem__, METADATA)
    assert os.listdir(tmp_path) == ["x.keras"]


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    file = read_keras_archive(write(tmp_path / "x.keras"))
    os.utime(tmp_path / "x.keras", ns=(0, 0))
    with pytest.raises(CheckpointError, match=r"x\.keras: changed"):
        file.read(next(iter(ARRAYS)))


# Keras itself


@pytest.fixture(scope="module")
def model() -> Any:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((3,))
    layers = [keras.layers.Dense(4, dtype=dtype) for dtype in ("float32", "bfloat16", "float16")]
    made = keras.Sequential([inputs, *layers, keras.layers.Dropout(0.1), keras.layers.LayerNormalization()])
    for variable in made.variables:
        variable.assign(RNG.normal(size=variable.shape).astype("float32"))
    made.compile(keras.optimizers.Adam(), "mse")
    made.fit(np.ones((2, 3)), np.ones((2, 4)), verbose=0)
    return made


def weights_of(model: Any) -> list[bytes]:
    return [np.asarray(variable.value).tobytes() for variable in model.weights]


@pytest.mark.filterwarnings("ignore:__array__")
def test_keras_archive_is_read_and_written_back(tmp_path: Path, model: Any) -> None:
    keras = pytest.importorskip("keras")
    model.save(tmp_path / "x.keras")
    file = read_keras_archive(tmp_path / "x.keras")
    stored = {name: file.read(name).tobytes() for name in file.tensors}
    assert set(weights_of(model)) <= set(stored.values())
    assert {info.dtype for info in file.tensors.values()} >= {"float32", "bfloat16", "float16"}
    assert any(name.startswith("optimizer/vars/") for name in stored)
    assert file.metadata["config"]["class_name"] == "Sequential"
    assert file.metadata["metadata"]["keras_version"] == keras.__version__
    write_keras_archive(tmp_path / "y.keras", file.tensors, file.read, file.metadata)
    assert read_all(tmp_path / "y.keras") == stored
    assert weights_of(keras.saving.load_model(tmp_path / "y.keras")) == weights_of(model)


@pytest.mark.filterwarnings("ignore:__array__")
def test_keras_weights_are_read_and_written_back(tmp_path: Path, model: Any) -> None:
    keras = pytest.importorskip("keras")
    model.save_weights(tmp_path / "x.weights.h5")
    file = read_hdf5(tmp_path / "x.weights.h5")
    write_hdf5(tmp_path / "y.weights.h5", file.tensors, file.read, file.metadata)
    other = keras.models.clone_model(model)
    other.load_weights(tmp_path / "y.weights.h5", skip_mismatch=False)
    assert weights_of(other) == weights_of(model)


@pytest.mark.filterwarnings("ignore:__array__")
def test_keras_legacy_weights_are_read_and_written_back(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    legacy = pytest.importorskip("keras.src.legacy.saving.legacy_h5_format")
    h5py = pytest.importorskip("h5py")
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, name="one"), keras.layers.Dropout(0.1, name="dropout")]
    )
    with h5py.File(tmp_path / "x.h5", "w") as h5:
        legacy.save_weights_to_hdf5_group(h5, model)
    file = read_hdf5(tmp_path / "x.h5")
    assert file.metadata["attributes"][""]["layer_names"] == [layer.name for layer in model.layers]
    assert file.metadata["attributes"]["one"]["weight_names"] == [variable.path for variable in model.weights]
    write_hdf5(tmp_path / "y.h5", file.tensors, file.read, file.metadata)
    other = keras.models.clone_model(model)
    with h5py.File(tmp_path / "y.h5") as h5, h5py.File(tmp_path / "x.h5") as theirs:
        for group, key in (("/", "layer_names"), ("one", "weight_names"), ("dropout", "weight_names")):
            kinds = [each[group].attrs.get_id(key).get_type() for each in (h5, theirs)]
            assert kinds[0] == kinds[1]
        legacy.load_weights_from_hdf5_group(h5, other)
    assert weights_of(other) == weights_of(model)


# Bad inputs


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


Falsify = Callable[[Path, dict[str, bytes]], None]


def with_members(changes: Mapping[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> Falsify:
    """Writes an archive with members changed, added, or left out."""

    def falsify(path: Path, good: dict[str, bytes]) -> None:
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in {**good, **changes}.items():
                if data is not None:
                    archive.writestr(name, data)

    return falsify


def twice(path: Path, good: dict[str, bytes]) -> None:
    with_members({})(path, good)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", b'{"class_name": "other"}')


def as_link(path: Path, good: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in good.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if name.endswith(".h5") else 0o100644) << 16
            archive.writestr(info, data)


def one_bit(path: Path, good: dict[str, bytes]) -> None:
    with_members({})(path, good)
    data = bytearray(path.read_bytes())
    place = data.rindex(ARRAYS["layers/float32/vars/4"].tobytes())
    data[place] ^= 1
    path.write_bytes(data)


def content(data: bytes) -> Falsify:
    def falsify(path: Path, good: dict[str, bytes]) -> None:
        path.write_bytes(data)

    return falsify


def deflated_weights(path: Path, good: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in good.items():
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if name.endswith(".h5") else zipfile.ZIP_STORED)


BAD: dict[str, tuple[Falsify, str]] = {
    "empty file": (content(b""), "not a zip archive"),
    "hdf5 under this name": (content(b"\x89HDF\r\n\x1a\n" + bytes(100)), "not a zip archive"),
    "no config": (with_members({"config.json": None}), "config.json: missing"),
    "no metadata": (with_members({"metadata.json": None}), "metadata.json: missing"),
    "no weights": (with_members({"model.weights.h5": None}), "model.weights.h5: missing"),
    "npz weights": (with_members({"model.weights.npz": b""}), "model.weights.npz: not known"),
    "unknown member": (with_members({"evil.py": b"1"}), "evil.py: not known"),
    "member above": (with_members({"../evil": b"1"}), "evil: not a plain relative path"),
    "absolute member": (with_members({"/evil": b"1"}), "evil: not a plain relative path"),
    "asset above": (with_members({"assets/../../evil": b"1"}), "evil: not a plain relative path"),
    "config twice": (twice, "config.json is there twice"),
    "weights are a link": (as_link, "model.weights.h5: a link"),
    "deflated weights": (deflated_weights, "model.weights.h5: deflated"),
    "one bit of the weights": (one_bit, "model.weights.h5: CRC-32"),
    "config is no JSON": (with_members({"config.json": b"{"}), "config.json: not valid JSON"),
    "config is a list": (with_members({"config.json": b"[]"}), "config.json: holds a JSON list"),
    "config is no text": (with_members({"config.json": b"\xff"}), "config.json: not UTF-8"),
    "config is UTF-16": (with_members({"config.json": "{}".encode("utf-16")}), "config.json: not UTF-8"),
    "config is empty": (with_members({"config.json": b""}), "config.json: not valid JSON"),
    "config says a key twice": (
        with_members({"config.json": b'{"a": 1, "a": 2}'}),
        "config.json: .*key 'a' stands twice",
    ),
    "config has NaN": (with_members({"config.json": b'{"a": NaN}'}), "config.json: "),
    "config is deep": (with_members({"config.json": b'{"a": ' + b"[" * 100_000}), "config.json: nested too deeply"),
    "config of spaces": (
        with_members({"config.json": b" " * (limits.MAX_CONFIG_BYTES + 1)}),
        f"config.json: {limits.MAX_CONFIG_BYTES + 1} bytes",
    ),
    "config of 256 MiB of spaces, deflated": (
        with_members({"config.json": b" " * 2**28}, zipfile.ZIP_DEFLATED),
        "expected at most 100 to one",
    ),
    "metadata is no object": (with_members({"metadata.json": b"3"}), "metadata.json: holds a JSON int"),
    "weights are empty": (with_members({"model.weights.h5": b""}), "empty file"),
    "weights are no HDF5": (with_members({"model.weights.h5": b"PK" * 100}), "expected an HDF5 file"),
    "weights are cut off": (
        lambda path, good: with_members({"model.weights.h5": good["model.weights.h5"][:-100]})(path, good),
        "cut off",
    ),
}


@pytest.mark.parametrize(("falsify", "words"), BAD.values(), ids=BAD)
def test_refuses(tmp_path: Path, falsify: Falsify, words: str) -> None:
    good = members(write(tmp_path / "good.keras"))
    falsify(tmp_path / "x.keras", good)
    with pytest.raises(CheckpointError, match=f"x.keras.*{words}"):
        read_keras_archive(tmp_path / "x.keras")


def test_assets_are_passed_over(tmp_path: Path) -> None:
    good = members(write(tmp_path / "good.keras"))
    with_members({"assets/vocabulary.txt": b"a"})(tmp_path / "x.keras", good)
    assert read_all(tmp_path / "x.keras") == read_all(tmp_path / "good.keras")


def test_nothing_that_the_config_names_is_imported_or_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "canary_module.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    call = {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "function"}
    layer = {"module": "canary_module", "class_name": "Lambda", "config": {"function": call, "arguments": {"x": "1/0"}}}
    marshalled = {"class_name": "__lambda__", "config": {"code": "4wAAAAAAAAAA", "defaults": None, "closure": None}}
    config = {"module": "canary_module", "class_name": "Evil", "config": {"layers": [layer, marshalled]}}
    good = members(write(tmp_path / "good.keras"))
    with_members({"config.json": json.dumps(config).encode()})(tmp_path / "x.keras", good)
    assert read_keras_archive(tmp_path / "x.keras").metadata["config"] == config
    assert "canary_module" not in sys.modules
    assert not (tmp_path / "canary").exists()


def test_fuzz(tmp_path: Path) -> None:
    data = write(tmp_path / "base.keras").read_bytes()
    seen = fuzz.attack(read_all, data, tmp_path / "x.keras")
    assert seen["refused"] > 0.8 * fuzz.COUNT


def test_fuzz_with_right_checksums(tmp_path: Path) -> None:
    good = members(write(tmp_path / "good.keras"))

    def mutate(data: bytes, rng: np.random.Generator) -> bytes:
        name = list(good)[rng.integers(len(good))]
        with_members({name: fuzz.mutate(good[name], rng)})(tmp_path / "mutant", good)
        return (tmp_path / "mutant").read_bytes()

    data = (tmp_path / "good.keras").read_bytes()
    seen = fuzz.attack(read_all, data, tmp_path / "x.keras", mutate=mutate)
    assert min(seen.values()) > fuzz.COUNT / 50
