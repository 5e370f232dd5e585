"""Orbax checkpoints: what Orbax saves is read without it, ours are restored by it, and C++ meets falsified files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptzoo._tensors import TensorInfo
from gptzoo.errors import CheckpointError, MissingExtraError
from gptzoo_conversion.containers import orbax
from gptzoo_conversion.containers.orbax import DTYPES, OrbaxDirectory, read_orbax, write_orbax
from tests import fuzz

ts = pytest.importorskip("tensorstore")

RNG = np.random.default_rng(0)
SHAPES = [(), (4,), (3, 5), (0,), (2, 0, 3), (2, 3, 4), (1, 2, 3, 2)]


def random_array(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    data = RNG.bytes(np.empty(shape, dtype).nbytes)
    return np.frombuffer(data if dtype != "bool" else bytes(b & 1 for b in data), np.dtype(dtype)).reshape(shape)


def write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, Any] | None = None) -> Path:
    infos = {name: TensorInfo("", array.dtype.name, array.shape) for name, array in arrays.items()}
    write_orbax(path, infos, arrays.__getitem__, metadata or {})
    return path


Contents = dict[str, tuple[str, tuple[int, ...], bytes]]


def contents(file: OrbaxDirectory) -> Contents:
    result = {}
    for name, info in file.tensors.items():
        array = file.read(name)
        assert array.flags.writeable
        assert array.flags.c_contiguous
        assert b"".join(file.chunks(name)) == array.tobytes()
        result[name] = (info.dtype, info.shape, array.tobytes())
    return result


def expected(arrays: dict[str, np.ndarray]) -> Contents:
    return {name: (array.dtype.name, array.shape, array.tobytes()) for name, array in arrays.items()}


def nested(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *above, last = name.split(".")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
        node[last] = array
    return tree


MODEL = {
    "transformer.wte.weight": random_array((20, 8), "float32"),
    "transformer.h.0.ln_1.weight": random_array((8,), "bfloat16"),
    "transformer.h.10.ln_1.weight": random_array((8,), "float16"),
    "step": random_array((), "int32"),
}
MANY = {f"{dtype}.{place}": random_array(shape, dtype) for dtype in DTYPES for place, shape in enumerate(SHAPES)}
ODD = {name: random_array((2,), "float32") for name in ("a b", "ä.\U0001f600", "'.\"", "(.)", "x" * 200, "-", "%2e%2e")}


@pytest.mark.parametrize("arrays", [MODEL, MANY, ODD, {}], ids=["model", "many", "odd", "none"])
def test_round_trip(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    metadata = {"step": 3, "note": "ä"}
    file = read_orbax(write(tmp_path / "a", arrays, metadata))
    assert contents(file) == expected(arrays)
    assert file.metadata == metadata
    write(tmp_path / "b", arrays, metadata)
    assert tree_bytes(tmp_path / "a") == tree_bytes(tmp_path / "b")


def tree_bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_tree_round_trips(data: st.DataObject, tmp_path: Path) -> None:
    key = st.text(st.characters(exclude_characters="./\\", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
    shape = st.lists(st.integers(0, 4), max_size=4).map(tuple)
    leaf = st.builds(random_array, shape, st.sampled_from(DTYPES))
    tree = data.draw(st.dictionaries(key, leaf | st.dictionaries(key, leaf, min_size=1, max_size=2), max_size=3))
    arrays = {}
    for name, value in tree.items():
        arrays |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    assert contents(read_orbax(write(tmp_path / "x", arrays))) == expected(arrays)


SAVERS: dict[str, Callable[[Any], Any]] = {
    "StandardCheckpointer": lambda ocp: ocp.StandardCheckpointer(),
    "PyTreeCheckpointer": lambda ocp: ocp.PyTreeCheckpointer(),
    "zarr3": lambda ocp: ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_zarr3=True)),
    "no OCDBT": lambda ocp: ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)),
    "no OCDBT, zarr3": lambda ocp: ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=True)),
}


@pytest.mark.parametrize("saver", SAVERS.values(), ids=list(SAVERS))
def test_what_orbax_saves_is_read(saver: Callable[[Any], Any], tmp_path: Path) -> None:
    ocp = pytest.importorskip("orbax.checkpoint")
    some = {name: array for name, array in MANY.items() if array.size} | MODEL
    with saver(ocp) as checkpointer:
        checkpointer.save(tmp_path / "x", nested(some) | {"none": None, "empty": {}})
    assert contents(read_orbax(tmp_path / "x")) == expected(some)


def test_a_list_and_a_number_are_read(tmp_path: Path) -> None:
    ocp = pytest.importorskip("orbax.checkpoint")
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "x", {"h": [np.zeros(2, "float32"), np.ones(2, "float32")], "step": 3})
    file = read_orbax(tmp_path / "x")
    assert set(file.tensors) == {"h.0", "h.1", "step"}
    assert file.read("h.1").tolist() == [1, 1]
    assert file.read("step") == 3


def model() -> Any:
    pytest.importorskip("flax")
    from flax import nnx

    from gptzoo.config import GPT2Config
    from gptzoo.flax import GPT2LMHeadModel

    config = GPT2Config(vocab_size=7, n_positions=6, n_embd=4, n_layer=2, n_head=2)
    return GPT2LMHeadModel(config, rngs=nnx.Rngs(0))


def parameters(model: Any) -> dict[str, np.ndarray]:
    from flax import nnx

    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, keys)): np.asarray(value[...]) for keys, value in state}


@pytest.mark.parametrize("pure", [False, True], ids=["nnx.State", "nnx.to_pure_dict"])
def test_a_saved_nnx_model_is_read(pure: bool, tmp_path: Path) -> None:
    ocp = pytest.importorskip("orbax.checkpoint")
    from flax import nnx

    ours = model()
    state = nnx.state(ours)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "x", nnx.to_pure_dict(state) if pure else state)
    found = contents(read_orbax(tmp_path / "x"))
    assert found.pop("rngs.key")[0] == "uint32"
    assert found.pop("rngs.count")[1] == ()
    assert found == expected(parameters(ours))


def test_orbax_restores_ours_into_an_nnx_model(tmp_path: Path) -> None:
    ocp = pytest.importorskip("orbax.checkpoint")
    from flax import nnx

    weights = {name: RNG.normal(size=array.shape).astype("float32") for name, array in parameters(model()).items()}
    write(tmp_path / "x", weights, {"by": "gptzoo"})
    restored = ocp.StandardCheckpointer().restore(tmp_path / "x")
    ours = model()
    state = nnx.state(ours)
    nnx.replace_by_pure_dict(state, restored)
    nnx.update(ours, state)
    assert expected(parameters(ours)) == expected(weights)

    wanted = nnx.to_pure_dict(nnx.state(nnx.eval_shape(model), nnx.Param))
    again = ocp.StandardCheckpointer().restore(tmp_path / "x", wanted)
    ours = model()
    nnx.update(ours, again)
    assert expected(parameters(ours)) == expected(weights)


def test_orbax_restores_every_dtype_and_shape(tmp_path: Path) -> None:
    ocp = pytest.importorskip("orbax.checkpoint")
    restored = ocp.PyTreeCheckpointer().restore(write(tmp_path / "x", MANY))
    flat = {f"{dtype}.{place}": np.asarray(array) for dtype, part in restored.items() for place, array in part.items()}
    assert expected(flat) == expected(MANY)
    described = ocp.StandardCheckpointer().metadata(tmp_path / "x")
    assert described is not None


EIGHT = """
import sys, jax, numpy as np, orbax.checkpoint as ocp
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
assert mesh.size == 8
rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(sys.argv[1], {"w": jax.device_put(np.arange(48, dtype="float32").reshape(16, 3), rows)})
"""


def test_what_eight_devices_saved_is_read_on_one(tmp_path: Path) -> None:
    pytest.importorskip("orbax.checkpoint")
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", EIGHT, tmp_path / "x"], env=environment, check=True, capture_output=True)
    file = read_orbax(tmp_path / "x")
    assert file.store("w").chunk_layout.read_chunk.shape == (2, 3)
    assert np.array_equal(file.read("w"), np.arange(48, dtype="float32").reshape(16, 3))


def test_neither_jax_nor_orbax_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from gptzoo_conversion.containers.orbax import read_orbax\n"
        "assert 'tensorstore' not in sys.modules\n"
        "read_orbax(pathlib.Path(sys.argv[1])).read('step'); assert not {'jax', 'orbax', 'flax'} & set(sys.modules)"
    )
    run_child(code, write(tmp_path / "x", MODEL))


def test_without_tensorstore_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orbax, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gptzoo\[orbax\]'"):
        read_orbax(tmp_path)


# Bad checkpoints: each falsifies a copy of `plain`, whose leaves are directories.


def tree_of(path: Path) -> dict[str, Any]:
    return json.loads((path / "_METADATA").read_text())


def leaf(*keys: Any, kind: str = "np.ndarray") -> dict[str, Any]:
    return {"key_metadata": [{"key": key, "key_type": 2} for key in keys], "value_metadata": {"value_type": kind}}


def with_leaf(entry: Any) -> Callable[[Path], None]:
    return with_tree(lambda tree: tree["tree_metadata"].update(new=entry))


def with_tree(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def falsify(path: Path) -> None:
        tree = tree_of(path)
        change(tree)
        (path / "_METADATA").write_text(json.dumps(tree))

    return falsify


def with_zarr(**changes: Any) -> Callable[[Path], None]:
    def falsify(path: Path) -> None:
        header = path / "wte.weight/.zarray"
        header.write_text(json.dumps(json.loads(header.read_text()) | changes))

    return falsify


def with_file(name: str, data: bytes | None) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(data) if data is not None else (path / name).unlink()


def linked(name: str, target: str) -> Callable[[Path], None]:
    def falsify(path: Path) -> None:
        (path.parent / "outside").mkdir()
        (path.parent / "outside/0.0").write_bytes(bytes(96))
        shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()
        (path / name).symlink_to(target)

    return falsify


WTE = "wte.weight"
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no _METADATA": (with_file("_METADATA", None), "no _METADATA, expected a committed"),
    "_METADATA not JSON": (with_file("_METADATA", b"{"), "not valid JSON"),
    "_METADATA not UTF-8": (with_file("_METADATA", b"\xff"), "not UTF-8"),
    "_METADATA a list": (with_file("_METADATA", b"[]"), "expected an object"),
    "_METADATA says a key twice": (with_file("_METADATA", b'{"a": 1, "a": 2}'), "stands twice"),
    "_METADATA deep": (with_file("_METADATA", b"[" * 100_000), "nested too deeply"),
    "no tree": (with_tree(lambda tree: tree.pop("tree_metadata")), "tree_metadata"),
    "tree a list": (with_tree(lambda tree: tree.update(tree_metadata=[])), "tree_metadata"),
    "leaf a number": (with_leaf(3), "new: 3, expected key_metadata"),
    "leaf without keys": (with_leaf({"value_metadata": {"value_type": "scalar"}}), "new: "),
    "keys a number": (with_leaf(leaf() | {"key_metadata": 3}), "new: "),
    "value a text": (with_leaf(leaf("a") | {"value_metadata": "x"}), "new: "),
    "no keys": (with_leaf(leaf()), "new: keys []"),
    "key a list": (with_leaf(leaf(["a"])), "new: keys"),
    "key empty": (with_leaf(leaf("a", "")), "new: keys"),
    "key of a path": (with_leaf(leaf("../../outside/wte")), "new: keys"),
    "key ..": (with_leaf(leaf("..", "outside")), "new: keys"),
    "key of a slash": (with_leaf(leaf("a/b")), "new: keys"),
    "key of a backslash": (with_leaf(leaf("a\\b")), "new: keys"),
    "key of a zero byte": (with_leaf(leaf("a\0b")), "new: keys"),
    "key of a dot": (with_leaf(leaf("wte.weight")), "new: keys"),
    "key a surrogate": (with_leaf(leaf("\ud800")), "new: keys"),
    "name of 2000 bytes": (with_leaf(leaf(*["k" * 100] * 20)), "new: a name of more than 1024"),
    "leaf twice": (with_leaf(leaf("wte", "weight")), "a leaf stands twice"),
    "leaf a text": (with_leaf(leaf("a", kind="string")), "new: string, expected an array"),
    "leaf of an object": (with_leaf(leaf("a", kind="builtins.exec")), "new: builtins.exec, expected an array"),
    "leaf of a list": (with_leaf(leaf("a", kind=["x"])), "new: "),  # type: ignore[arg-type]
    "leaf absent": (with_leaf(leaf("absent")), "absent: "),
    "zarr 3 said": (with_tree(lambda tree: tree.update(use_zarr3=True)), "h.0: "),
    "no .zarray": (with_file("wte.weight/.zarray", None), f"{WTE}: "),
    ".zarray not JSON": (with_file("wte.weight/.zarray", b"{"), f"{WTE}: "),
    "chunk absent": (with_file("wte.weight/0.0", None), f"{WTE}: "),
    "chunk cut": (with_file("wte.weight/0.0", bytes(95)), f"{WTE}: "),
    "chunk too long": (with_file("wte.weight/0.0", bytes(97)), f"{WTE}: "),
    "chunk empty": (with_file("wte.weight/0.0", b""), f"{WTE}: "),
    "shape longer": (with_zarr(shape=[8, 6]), f"{WTE}: "),
    "shape -1": (with_zarr(shape=[-1, 6]), f"{WTE}: "),
    "shape of 16 TiB": (with_zarr(shape=[2**21, 2**21], chunks=[2**21, 2**21]), f"{WTE}: shape"),
    "shape 2**62 by 0": (with_zarr(shape=[2**62, 0]), f"{WTE}: shape"),
    "shape that wraps": (with_zarr(shape=[2**33, 2**33], chunks=[2**33, 2**33]), f"{WTE}: "),
    "shape 1e300": (with_zarr(shape=[1e300, 6]), f"{WTE}: "),
    "chunks of 16 TiB": (with_zarr(chunks=[2**21, 2**21]), f"{WTE}: shape [4, 6] in chunks"),
    "chunks 0": (with_zarr(chunks=[0, 6]), f"{WTE}: "),
    "a million chunks": (with_zarr(shape=[2**20, 6], chunks=[1, 6]), f"{WTE}: shape"),
    "rank 9": (with_zarr(shape=[1] * 9, chunks=[1] * 9), f"{WTE}: rank 9"),
    "complex": (with_zarr(dtype="<c8"), f"{WTE}: dtype complex64"),
    "texts": (with_zarr(dtype="|S4"), f"{WTE}: "),
    "object": (with_zarr(dtype="|O"), f"{WTE}: "),
    "fields": (with_zarr(dtype=[["a", "<f4"], ["b", "<f4"]]), f"{WTE}: "),
    "dtype wider": (with_zarr(dtype="<f8"), f"{WTE}: "),
    "unknown compressor": (with_zarr(compressor={"id": "evil"}), f"{WTE}: "),
    "filters": (with_zarr(filters=[{"id": "delta"}]), f"{WTE}: "),
    "not compressed": (with_zarr(compressor={"id": "zstd", "level": 1}), f"{WTE}: "),
    "chunk a link out": (linked("wte.weight/0.0", "../../outside/0.0"), "wte.weight/0.0: a link out"),
    "leaf a link out": (linked("wte.weight", "../outside"), "wte.weight: a link out"),
    "_METADATA a link out": (linked("_METADATA", "/etc/hostname"), "_METADATA: a link out"),
    "chunk a link to nothing": (linked("wte.weight/0.0", "../nothing"), "No such file"),
    "chunk a pipe": (
        lambda path: (with_file("wte.weight/0.0", None)(path), os.mkfifo(path / "wte.weight/0.0")), "a pipe or device"
    ),
    "manifest not one": (with_file("manifest.ocdbt", b"\x0c\xdb:*" + bytes(40)), "h.0: "),
    "manifest empty": (with_file("manifest.ocdbt", b""), "h.0: "),
}  # fmt: skip

PLAIN = {"h.0": random_array((2,), "float32"), "wte.weight": random_array((4, 6), "float32")}


@pytest.mark.parametrize(("falsify", "words"), BAD.values(), ids=list(BAD))
def test_bad_checkpoints_are_refused(falsify: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "plain", PLAIN)
    assert contents(read_orbax(path)) == expected(PLAIN)
    falsify(path)
    begin = time.perf_counter()
    with pytest.raises(CheckpointError) as caught:
        contents(read_orbax(path))
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    "place", ["x.orbax-checkpoint-tmp", "x.orbax-checkpoint-tmp-123", "3.orbax-checkpoint-tmp/default"]
)
def test_uncommitted_checkpoints_are_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    write(tmp_path / place, PLAIN)
    with pytest.raises(CheckpointError, match="uncommitted"):
        read_orbax(tmp_path / place)


def test_the_step_of_a_manager_is_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "default", PLAIN)
    with pytest.raises(CheckpointError, match="give the directory 'default'"):
        read_orbax(tmp_path)


def test_links_within_are_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "x", PLAIN)
    (path / "wte.weight/0.0").rename(path / "elsewhere")
    (path / "wte.weight/0.0").symlink_to("../elsewhere")
    (tmp_path / "link").symlink_to(path)
    assert contents(read_orbax(tmp_path / "link")) == expected(PLAIN)


def test_change_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "x", PLAIN)
    file = read_orbax(path)
    (path / "h.0/0").write_bytes(bytes(8))
    file.read("wte.weight")  # lies in a directory of its own, which has not changed
    with pytest.raises(CheckpointError, match="changed"):
        file.read("h.0")


def test_change_of_a_database_is_noticed(tmp_path: Path) -> None:
    path = database(tmp_path / "x")
    file = read_orbax(path)
    (path / "manifest.ocdbt").touch()
    with pytest.raises(CheckpointError, match="changed"):
        file.read(next(iter(file.tensors)))


def test_our_files_are_read_as_they_lie_and_tensorstore_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = read_orbax(write(tmp_path / "x", MANY))
    assert all(file.plain(name) for name, info in file.tensors.items() if info.size)
    monkeypatch.setattr(OrbaxDirectory, "plain", lambda self, name: None)
    assert contents(file) == expected(MANY)


F4 = np.zeros(2, "float32")
WRITE_FAULTS: dict[str, tuple[dict[str, np.ndarray], dict[str, Any], str]] = {
    "complex": ({"a": np.zeros(2, "complex64")}, {}, "a: dtype complex64"),
    "a tensor and a dict": ({"a.b": F4, "a": F4}, {}, "a.b: within another"),
    "empty key": ({"a..b": F4}, {}, "expected a name"),
    "no name": ({"": F4}, {}, "expected a name"),
    "slash": ({"../x": F4}, {}, "expected a name"),
    "value": ({"a.value": F4, "b.value": F4}, {}, "does not end with .value"),
    "metadata": ({"a": F4}, {"x": object()}, "metadata"),
    "NaN": ({"a": F4}, {"x": float("nan")}, "metadata"),
    "long": ({"a" * 300: F4}, {}, "too long"),
}


@pytest.mark.parametrize(("arrays", "metadata", "words"), WRITE_FAULTS.values(), ids=list(WRITE_FAULTS))
def test_what_cannot_be_written_is_refused(
    arrays: dict[str, np.ndarray], metadata: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=words):
        write(tmp_path / "x", arrays, metadata)
    assert not (tmp_path / "x/_METADATA").exists()


# OCDBT, the database: checksums hide its structure from plain mutants, so there are some with the checksum put right.


def crc32c(data: bytes) -> int:
    value = 2**32 - 1
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 * (value & 1)
    return value ^ 2**32 - 1


def sealed(data: bytes) -> bytes:
    """Puts the length and the checksum of a file of one node right."""
    data = data[:4] + len(data).to_bytes(8, "little") + data[12:-4]
    return data + crc32c(data).to_bytes(4, "little")


def database(path: Path) -> Path:
    """A checkpoint in a database that is not compressed, and whose values lie in files of their own."""
    write(path, PLAIN)
    base = {"driver": "file", "path": f"{path}/"}
    for name, array in PLAIN.items():
        config = {"compression": None, "max_inline_value_bytes": 0}
        kvstore = {"driver": "ocdbt", "base": base, "config": config, "path": f"{name}/"}
        metadata = json.loads((path / name / ".zarray").read_text())
        ts.open({"driver": "zarr", "kvstore": kvstore, "metadata": metadata}, create=True).result().write(
            array
        ).result()
        shutil.rmtree(path / name)
    return path


@pytest.mark.parametrize("place", ["/elsewhere/", "/../../../outside/"])
def test_a_database_that_names_a_file_outside_is_refused(place: str, tmp_path: Path) -> None:
    path = database(tmp_path / "x")
    assert contents(read_orbax(path)) == expected(PLAIN)
    manifest = (path / "manifest.ocdbt").read_bytes()
    moved = [name for name in os.listdir(path / "d") if name[4:].encode() in manifest]
    for name in moved:
        new = name[:4] + (place + name)[: len(name) - 4]
        (path / "d" / name[:4]).mkdir()
        (path / "d" / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path / "d" / name, path / "d" / new)  # values may be in it too, by its old name
        manifest = manifest.replace(name[4:].encode(), new[4:].encode())
    (path / "manifest.ocdbt").write_bytes(sealed(manifest))
    if ".." not in place:  # proves that the falsified manifest is otherwise a right one
        assert contents(read_orbax(path)) == expected(PLAIN)
        return
    assert list((tmp_path / "outside").iterdir())
    with pytest.raises(CheckpointError, match="Invalid key"):
        contents(read_orbax(path))


def test_a_database_without_one_of_its_files_is_refused(tmp_path: Path) -> None:
    refused = 0
    path = database(tmp_path / "x")
    for name in os.listdir(path / "d"):
        shutil.copytree(path, tmp_path / name)
        (tmp_path / name / "d" / name).unlink()
        try:
            assert contents(read_orbax(tmp_path / name)) == expected(PLAIN)  # an older version's
        except CheckpointError:
            refused += 1
    assert refused > 1


def run_child(code: str, *arguments: object) -> str:
    root = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'conversion'}"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-3000:]}"
    return done.stdout


def attack(path: Path, count: int, seal: bool) -> dict[str, int]:
    """Falsifies one file of a checkpoint at a time, reads it all, and checks error, time and memory of each."""
    rng, seen = np.random.default_rng(0), {"read": 0, "refused": 0}
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and (not seal or file.name != "_METADATA")]
    for number in range(count):
        file = files[number % len(files)]
        data = file.read_bytes()
        mutant = fuzz.mutate(data, rng)
        file.write_bytes(sealed(mutant) if seal else mutant)
        base, begin, where = fuzz.forget_peak(), time.perf_counter(), f"mutant {number}, of {file}"
        try:
            contents(read_orbax(path))
            seen["read"] += 1
        except CheckpointError as problem:
            if path.name not in str(problem):
                raise AssertionError(f"{where}: {problem} names no directory") from problem
            seen["refused"] += 1
        assert time.perf_counter() - begin < fuzz.SECONDS, f"{where}: took {time.perf_counter() - begin:.1f} s"
        assert number == 0 or fuzz.peak() - base < fuzz.MEMORY + 2**20, f"{where}: memory"
        file.write_bytes(data)
    return seen


# Half as many as of other containers in each of five ways: a mutant takes 5 ms.
@pytest.mark.parametrize("kind", ["orbax", "zarr3", "plain", "database", "sealed"])
def test_mutants(kind: str, tmp_path: Path) -> None:
    if kind in ("orbax", "zarr3"):
        ocp = pytest.importorskip("orbax.checkpoint")
        with SAVERS["zarr3" if kind == "zarr3" else "StandardCheckpointer"](ocp) as checkpointer:
            checkpointer.save(tmp_path / "x", nested(PLAIN))
    elif kind == "plain":
        write(tmp_path / "x", PLAIN)
    else:
        database(tmp_path / "x")
    code = (
        "import json, sys, pathlib; from tests.test_container_orbax import attack\n"
        "print(json.dumps(attack(pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == 'sealed')))"
    )
    seen = json.loads(run_child(code, tmp_path / "x", fuzz.COUNT // 2, kind))
    assert min(seen.values()) > 0
