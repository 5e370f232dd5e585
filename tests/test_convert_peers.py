"""Other software reads what we write, to the same numbers and outputs; and our models read what it wrote."""

from __future__ import annotations

import importlib
import json
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from gptzoo._runners import runner_of
from gptzoo.checkpoint import save_checkpoint
from gptzoo.config import CONFIGS
from gptzoo.heads import class_name, parse_class_name
from gptzoo_conversion import convert
from tests import matrix
from tests.conversion import GOLDEN, INDEX, golden_config, truth
from tests.matrix import TESTED
from tests.test_checkpoint_transformers import WITNESS_IDS, WITNESSES
from tests.test_convert_golden import WITNESS

LINEAR = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def outputs_of(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Inputs and outputs of a golden checkpoint, and which of its tokens are real."""
    with np.load(GOLDEN / WITNESS.get(name, name) / "expected.npz") as file:
        arrays = {key: file[key] for key in file.files}
    inputs = {key: arrays[key] for key in INDEX[name]["inputs"] if key in arrays}
    real = inputs.get("attention_mask", np.ones(inputs["input_ids"].shape)).astype(bool)
    return inputs, {key: arrays[key] for key in INDEX[name]["outputs"]}, real


def difference(found: Any, wanted: np.ndarray, real: np.ndarray) -> float:
    """The largest difference in real tokens over the largest number."""
    array = np.asarray(found, np.float64)
    assert array.shape == wanted.shape
    if array.shape[: real.ndim] == real.shape:
        array, wanted = array[real], wanted[real]
    return float(np.abs(array - wanted).max() / np.abs(wanted).max())


# Transformers


@pytest.fixture(scope="module")
def transformers() -> Any:
    module = pytest.importorskip("transformers")
    module.utils.logging.set_verbosity_error()
    return module


@pytest.mark.parametrize("size", ["5GB", "8KB"], ids=["single", "sharded"])
@pytest.mark.parametrize("format", ["safetensors", "pytorch_bin"])
@pytest.mark.parametrize(("family", "head"), WITNESSES, ids=WITNESS_IDS)
def test_transformers_computes_the_same_from_ours(
    family: str, head: str, format: str, size: str, tmp_path: Path, transformers: Any
) -> None:
    torch = pytest.importorskip("torch")
    config = matrix.tiny(family, n_embd=12, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    values = matrix.random_weights(config, head)
    save_checkpoint(tmp_path / "saved", config, head, values)
    convert(tmp_path / "saved", tmp_path / "between", "pytorch_bin" if format == "safetensors" else "safetensors")
    convert(tmp_path / "between", tmp_path / "ours", format, max_shard_size=size)
    assert any((tmp_path / "ours").glob("*.index.json")) == (size == "8KB")
    load = getattr(transformers, class_name(config, head)).from_pretrained
    model, info = load(tmp_path / "ours", use_safetensors=format == "safetensors", output_loading_info=True)
    assert not any(info.values()), info
    ids = np.random.default_rng(7).integers(1, config.vocab_size, (2, 3, 6) if head == "DoubleHeadsModel" else (3, 6))
    inputs = {"input_ids": ids} | ({"mc_token_ids": np.array([[5, 2, 3]] * 2)} if ids.ndim == 3 else {})
    wanted = reference.forward(head, config, values, **inputs)
    with torch.no_grad():
        found = model.eval()(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    for key in set(wanted) & {"last_hidden_state", "logits", "mc_logits", "start_logits", "end_logits"}:
        assert difference(found[key].numpy(), np.asarray(wanted[key]), np.ones(ids.shape, bool)) <= 4e-6, key


# llama.cpp's package


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_gguf_package_finds_every_weight_where_llama_cpp_looks(dtype: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    convert(GOLDEN / "kerashub-lm", tmp_path / "there.gguf", "gguf", dtype=dtype)
    reader = gguf.GGUFReader(tmp_path / "there.gguf")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 2)
    expected = {}
    for name, array in truth("kerashub-lm").items():
        key = names.get_name(f"transformer.{name}", try_suffixes=(".weight", ".bias"))
        expected[key] = (array.T if name.endswith(LINEAR) else array).astype(np.dtype(dtype))
    assert {tensor.name for tensor in reader.tensors} == expected.keys()
    for tensor in reader.tensors:
        array = expected[tensor.name]
        assert tuple(tensor.shape.tolist()) == array.shape[::-1]
        assert tensor.data.tobytes() == array.tobytes(), tensor.name
    assert {key: reader.fields[key].contents() for key in _GGUF_FIELDS} == _GGUF_FIELDS
    ids = json.loads((GOLDEN / "kerashub-lm/assets/tokenizer/vocabulary.json").read_text())
    merges = (GOLDEN / "kerashub-lm/assets/tokenizer/merges.txt").read_text().split("\n")
    assert reader.fields["tokenizer.ggml.tokens"].contents() == sorted(ids, key=ids.__getitem__)
    assert reader.fields["tokenizer.ggml.merges"].contents() == [line for line in merges if line]
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    assert kinds == [3 if token == "<|endoftext|>" else 1 for token in sorted(ids, key=ids.__getitem__)]


_GGUF_FIELDS = {
    "general.architecture": "gpt2",
    "gpt2.block_count": 2,
    "gpt2.context_length": 16,
    "gpt2.embedding_length": 12,
    "gpt2.feed_forward_length": 48,
    "gpt2.attention.head_count": 3,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
}


# KerasHub


@pytest.fixture(scope="module")
def keras_hub() -> Any:
    if "keras" not in TESTED:
        pytest.skip("GPTZOO_FRAMEWORKS is without keras")
    import gptzoo.keras  # noqa: F401  (chooses the backend)

    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("keras_hub")


@pytest.mark.parametrize("source", ["openai-gpt2", "llmc-float32"])
def test_keras_hub_computes_the_same_from_our_preset(source: str, tmp_path: Path, keras_hub: Any) -> None:
    convert(GOLDEN / source, tmp_path / "preset", "kerashub")
    given, outputs, real = outputs_of("kerashub-backbone")
    inputs = {"token_ids": given["input_ids"], "padding_mask": given["attention_mask"]}
    with warnings.catch_warnings(action="ignore"):
        backbone = keras_hub.models.GPT2Backbone.from_preset(str(tmp_path / "preset"))
        hidden = np.asarray(backbone(inputs, training=False))
    assert difference(hidden, outputs["last_hidden_state"], real) <= 1e-5


def test_keras_hub_makes_a_language_model_of_our_preset(tmp_path: Path, keras_hub: Any) -> None:
    convert(GOLDEN / "openai-gpt2", tmp_path / "preset", "kerashub")
    given, outputs, real = outputs_of("kerashub-lm")
    inputs = {"token_ids": given["input_ids"], "padding_mask": given["attention_mask"]}
    with warnings.catch_warnings(action="ignore"):
        model = keras_hub.models.GPT2CausalLM.from_preset(str(tmp_path / "preset"))
        logits = np.asarray(model(inputs, training=False))
        tokens = model.preprocessor.tokenizer("the hat")
    assert difference(logits, outputs["logits"], real) <= 1e-5
    ids = json.loads((GOLDEN / "openai-gpt2/encoder.json").read_text())
    names = sorted(ids, key=ids.__getitem__)
    assert "".join(names[int(token)] for token in np.asarray(tokens)).replace("Ġ", " ") == "the hat"


# nanoGPT, TensorFlow 1, Flax, HDF5, NumPy, Orbax, llm.c


def test_torch_loads_our_nanogpt_file_as_nanogpt_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    convert(GOLDEN / "nanogpt-bias", tmp_path / "there", "nanogpt")
    found = torch.load(tmp_path / "there" / "ckpt.pt", weights_only=True)
    theirs = torch.load(GOLDEN / "nanogpt-bias" / "ckpt.pt", weights_only=True)
    wanted = {name.removeprefix("_orig_mod."): tensor for name, tensor in theirs["model"].items()}
    assert found["model_args"] == theirs["model_args"]
    assert found["model"].keys() == wanted.keys()
    assert all(torch.equal(found["model"][name], tensor) for name, tensor in wanted.items())
    tied = found["model"]["lm_head.weight"], found["model"]["transformer.wte.weight"]
    assert tied[0].data_ptr() == tied[1].data_ptr()


def test_tensorflow_restores_our_checkpoint_as_openai_does(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    convert(GOLDEN / "kerashub-lm", tmp_path / "there", "gpt2_tf1")
    theirs = tf.train.load_checkpoint(str(GOLDEN / "openai-gpt2" / "model.ckpt"))
    shapes = theirs.get_variable_to_shape_map()
    assert tf.train.latest_checkpoint(str(tmp_path / "there")) == str(tmp_path / "there" / "model.ckpt")
    ours = tf.train.load_checkpoint(str(tmp_path / "there" / "model.ckpt"))
    assert ours.get_variable_to_shape_map() == shapes
    assert ours.get_variable_to_dtype_map() == theirs.get_variable_to_dtype_map()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(name, shape) for name, shape in shapes.items()]
        tf.compat.v1.train.Saver(variables).restore(session, str(tmp_path / "there" / "model.ckpt"))
        for variable, value in zip(variables, session.run(variables), strict=True):
            assert value.tobytes() == theirs.get_tensor(variable.op.name).tobytes(), variable.op.name
    hparams = [json.loads((path / "hparams.json").read_text()) for path in (tmp_path / "there", GOLDEN / "openai-gpt2")]
    assert hparams[0] == hparams[1]


@pytest.mark.parametrize(
    ("source", "theirs"),
    [
        ("torch-gpt2-lm", "flax-gpt2-lm"),
        ("torch-gpt2-model", "flax-gpt2-model"),
        ("torch-gpt2-cross", "flax-gpt2-cross"),
        ("torch-gpt2-untied", "flax-gpt2-untied"),
        ("torch-gpt2-bfloat16", "flax-gpt2-bfloat16"),
    ],
)
def test_flax_restores_our_msgpack_to_the_tree_of_its_own(source: str, theirs: str, tmp_path: Path) -> None:
    serialization = pytest.importorskip("flax.serialization")
    convert(GOLDEN / source, tmp_path / "there", "flax_msgpack")
    paths = (tmp_path / "there" / "flax_model.msgpack", GOLDEN / theirs / "flax_model.msgpack")
    found, wanted = (dict(leaves(serialization.msgpack_restore(path.read_bytes()))) for path in paths)
    assert found == wanted


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, tuple[str, tuple[int, ...], bytes]]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}")
    else:
        array = np.asarray(tree)
        yield path, (array.dtype.name, array.shape, array.tobytes())


H5_TWINS = [f"{family}-{head}" for family in ("gpt", "gpt2") for head in ("model", "lm", "double", "sequence")]
H5_TWINS += ["gpt2-cross"]


@pytest.mark.parametrize("model", H5_TWINS)
def test_our_hdf5_is_laid_out_as_tensorflow_does(model: str, tmp_path: Path) -> None:
    """Same groups, datasets, bits and attributes; but for the order of names, by which nothing goes."""
    h5py = pytest.importorskip("h5py")
    convert(GOLDEN / f"torch-{model}", tmp_path / "there", "tf_h5")
    with h5py.File(tmp_path / "there" / "tf_model.h5") as ours, h5py.File(GOLDEN / f"tf-{model}/tf_model.h5") as theirs:
        found, wanted = h5_content(ours), h5_content(theirs)
    assert wanted[""]["@layer_names"]
    assert wanted["transformer"]["@weight_names"]
    assert found == wanted


def test_our_hdf5_shards_are_laid_out_as_tensorflow_does(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    convert(GOLDEN / "torch-gpt2-double", tmp_path / "there", "tf_h5", max_shard_size="12KB")
    contents, keys = [], []
    for directory in (tmp_path / "there", GOLDEN / "tf-gpt2-sharded"):
        weight_map = json.loads((directory / "tf_model.h5.index.json").read_text())["weight_map"]
        places = {name.split("/", 1)[1]: file for name, file in weight_map.items()}
        datasets: dict[str, Any] = {}
        for path in sorted(directory.glob("tf_model-*.h5")):
            with h5py.File(path) as file:
                content = h5_content(file)
            held = {name: what for name, what in content.items() if "dataset" in what}
            assert content[""] == {"@layer_names": sorted(held)}
            assert {places[name] for name in held} == {path.name}
            datasets |= held
        contents.append(datasets)
        keys.append(weight_map.keys())
    assert contents[0] == contents[1]
    assert keys[0] == keys[1]


def h5_content(file: Any) -> dict[str, dict[str, Any]]:
    """Path -> attributes, lists of names in them sorted, and the bits of the dataset if it is one."""
    result = {"": {f"@{name}": _plain(value) for name, value in file.attrs.items()}}

    def visit(name: str, item: Any) -> None:
        content = {f"@{key}": _plain(value) for key, value in item.attrs.items()}
        if hasattr(item, "dtype"):
            content["dataset"] = (item.dtype.str, item.shape, item[()].tobytes())
        result[name] = content

    file.visititems(visit)
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return sorted(_plain(item) for item in value.tolist())
    return value.decode() if isinstance(value, bytes) else value


def test_our_npy_shards_are_those_of_openai(tmp_path: Path) -> None:
    convert(GOLDEN / "torch-gpt-lm", tmp_path / "there", "gpt1_npy")
    flat = []
    for directory in (tmp_path / "there", GOLDEN / "openai-gpt"):
        shards = [np.load(directory / f"params_{i}.npy") for i in range(10)]
        assert {shard.dtype.name for shard in shards} == {"float32"}
        flat.append([shard.tobytes() for shard in shards])
    assert flat[0] == flat[1]
    shapes = [(path / "params_shapes.json").read_bytes() for path in (tmp_path / "there", GOLDEN / "openai-gpt")]
    assert json.loads(shapes[0]) == json.loads(shapes[1])


@pytest.mark.parametrize("head", ["Model", "LMHeadModel", "ForTokenClassification"])
def test_orbax_restores_ours_into_our_flax_model(head: str, tmp_path: Path) -> None:
    if "flax" not in TESTED:
        pytest.skip("GPTZOO_FRAMEWORKS is without flax")
    ocp = pytest.importorskip("orbax.checkpoint")
    from flax import nnx

    config = matrix.tiny("gpt2", n_embd=12)
    values = matrix.random_weights(config, head)
    save_checkpoint(tmp_path / "saved", config, head, values)
    convert(tmp_path / "saved", tmp_path / "there", "orbax")
    model = matrix.build("flax", config, head).model
    wanted = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    with warnings.catch_warnings(action="ignore"), ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(tmp_path / "there" / "state", wanted)
    nnx.update(model, restored)
    for name, array in values.items():
        assert np.asarray(model.get_weight(name).get_value()).tobytes() == array.tobytes(), name


@pytest.mark.parametrize(("dtype", "theirs"), [("float32", "gpt2_tiny.bin"), ("bfloat16", "gpt2_tiny_bf16.bin")])
def test_our_llmc_file_is_theirs_byte_for_byte(dtype: str, theirs: str, tmp_path: Path) -> None:
    convert(GOLDEN / "openai-gpt2", tmp_path / "there.bin", "llmc", dtype=dtype)
    found, wanted = (tmp_path / "there.bin").read_bytes(), (GOLDEN / f"llmc-{dtype}" / theirs).read_bytes()
    assert struct.unpack_from("<8i", found) == (20240326, 3 if dtype == "float32" else 5, 16, 40, 2, 3, 12, 128)
    assert found == wanted


# Our models, given other software's files as they are


def _load(framework: str, name: str) -> Any:
    """A model of ours in evaluation mode, of the class that a golden checkpoint was saved from."""
    family = CONFIGS["openai-gpt" if "OpenAIGPT" in INDEX[name]["class"] else "gpt2"]
    model_class = getattr(importlib.import_module(f"gptzoo.{framework}"), class_name(family, _head(name)))
    with warnings.catch_warnings(action="ignore"):  # they say what is assumed of a file that says little
        model = model_class.from_pretrained(GOLDEN / name, config=golden_config(name), dtype="float32")
    return model


def _head(name: str) -> str:
    title = _title(name)
    if INDEX[name]["format"] == "kerashub":
        return "LMHeadModel" if title == "GPT2CausalLM" else "Model"
    return parse_class_name(title)[1]


def _title(name: str) -> str:
    return str(INDEX[name]["class"]).removeprefix("TF").removeprefix("Flax")


@pytest.mark.parametrize("name", sorted(INDEX))
@pytest.mark.parametrize("framework", TESTED)
def test_our_models_read_what_other_software_wrote(framework: str, name: str) -> None:
    inputs, outputs, real = outputs_of(name)
    runner = runner_of(framework, _load(framework, name))
    result = runner(**inputs)
    half = INDEX[name]["dtype"] != "float32" and "keras" in name
    for key, wanted in outputs.items():
        assert difference(runner.numpy(result[key]), wanted.astype(np.float64), real) <= (1e-1 if half else 4e-6), key
