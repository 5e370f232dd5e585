"""TensorFlow's layout of Transformers 4: tf_model.h5, and the safetensors that its classes wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptzoo._tensors import Read, TensorFile, TensorInfo
from gptzoo.config import GPTConfig
from gptzoo.heads import class_name
from gptzoo_conversion.cells import LEADING_ONE, TRANSPOSED, cell, column
from gptzoo_conversion.containers.hdf5 import read_hdf5, write_hdf5
from gptzoo_conversion.format import Target
from gptzoo_conversion.layouts.huggingface import HuggingFaceFormat

COLUMN = column(
    {
        "wte.weight": "transformer/wte/embeddings:0",
        "wpe.weight": "transformer/wpe/embeddings:0",
        "tokens_embed.weight": "transformer/tokens_embed/weight:0",
        "positions_embed.weight": "transformer/positions_embed/embeddings:0",
        "h.{i}.ln_1.weight": "transformer/h_._{i}/ln_1/gamma:0",
        "h.{i}.ln_1.bias": "transformer/h_._{i}/ln_1/beta:0",
        "h.{i}.attn.c_attn.weight": "transformer/h_._{i}/attn/c_attn/weight:0",
        "h.{i}.attn.c_attn.bias": cell("transformer/h_._{i}/attn/c_attn/bias:0", LEADING_ONE),
        "h.{i}.attn.c_proj.weight": "transformer/h_._{i}/attn/c_proj/weight:0",
        "h.{i}.attn.c_proj.bias": cell("transformer/h_._{i}/attn/c_proj/bias:0", LEADING_ONE),
        "h.{i}.ln_cross_attn.weight": "transformer/h_._{i}/ln_cross_attn/gamma:0",
        "h.{i}.ln_cross_attn.bias": "transformer/h_._{i}/ln_cross_attn/beta:0",
        "h.{i}.crossattention.q_attn.weight": "transformer/h_._{i}/crossattention/q_attn/weight:0",
        "h.{i}.crossattention.q_attn.bias": cell("transformer/h_._{i}/crossattention/q_attn/bias:0", LEADING_ONE),
        "h.{i}.crossattention.c_attn.weight": "transformer/h_._{i}/crossattention/c_attn/weight:0",
        "h.{i}.crossattention.c_attn.bias": cell("transformer/h_._{i}/crossattention/c_attn/bias:0", LEADING_ONE),
        "h.{i}.crossattention.c_proj.weight": "transformer/h_._{i}/crossattention/c_proj/weight:0",
        "h.{i}.crossattention.c_proj.bias": cell("transformer/h_._{i}/crossattention/c_proj/bias:0", LEADING_ONE),
        "h.{i}.ln_2.weight": "transformer/h_._{i}/ln_2/gamma:0",
        "h.{i}.ln_2.bias": "transformer/h_._{i}/ln_2/beta:0",
        "h.{i}.mlp.c_fc.weight": "transformer/h_._{i}/mlp/c_fc/weight:0",
        "h.{i}.mlp.c_fc.bias": cell("transformer/h_._{i}/mlp/c_fc/bias:0", LEADING_ONE),
        "h.{i}.mlp.c_proj.weight": "transformer/h_._{i}/mlp/c_proj/weight:0",
        "h.{i}.mlp.c_proj.bias": cell("transformer/h_._{i}/mlp/c_proj/bias:0", LEADING_ONE),
        "ln_f.weight": "transformer/ln_f/gamma:0",
        "ln_f.bias": "transformer/ln_f/beta:0",
        "multiple_choice_head.summary.weight": cell("multiple_choice_head/summary/kernel:0", TRANSPOSED),
        "multiple_choice_head.summary.bias": "multiple_choice_head/summary/bias:0",
        "score.weight": cell("score/kernel:0", TRANSPOSED),
    }
)

# The name of a variable begins with a scope that Keras made up, and differs from file to file: we begin at the layer.
_LAYER = re.compile(r"(?:.*/)?((?:transformer|multiple_choice_head|score)/.*)")


def without_scope(name: str) -> str:
    """Returns a variable's name from its layer on."""
    match = _LAYER.fullmatch(name)
    return match[1] if match else name


EXACT_GELU = (
    "TensorFlow's GPT computed the exact gelu whatever its config said; here afn is followed: "
    "'gelu' is the tanh form, as in OpenAI's code, 'gelu_python' the exact one"
)


def notes(file: TensorFile) -> list[str]:
    """Returns what is to be known of a model that TensorFlow's classes wrote."""
    names = map(without_scope, file.tensors)
    return [EXACT_GELU] if COLUMN["tokens_embed.weight"].names[0] in names else []


class TfH5(HuggingFaceFormat):
    """Keras' first HDF5 layout: a group for each layer, and in it the variables under their full names."""

    name = "tf_h5"
    file = "tf_model.h5"
    suffixes = (".h5",)
    column = COLUMN

    def matches(self, path: Path, start: bytes) -> bool:
        return start.startswith(b"\x89HDF\r\n\x1a\n") and "layer_names" in root_attributes(path)

    def bare(self, name: str) -> str:
        return without_scope(name)

    def full_name(self, name: str, in_backbone: bool, config: GPTConfig, head: str) -> str:
        layer = name.split("/", 1)[0]
        return f"{layer}/{scope(config, head)}/{name}"

    def notes(self, file: TensorFile) -> list[str]:
        return notes(file)

    def index_name(self, name: str) -> str:
        return name.split("/", 1)[1]

    def read_file(self, path: Path) -> TensorFile:
        return read_hdf5(path)

    def write_file(self, path: Path, infos: Mapping[str, TensorInfo], read: Read, target: Target) -> None:
        if path.name == target.file:
            write_hdf5(path, infos, read, _layer_attributes(infos))
            return
        full = {without_scope(name): name for name in infos}  # a shard has neither layers nor scope
        parts = {name: infos[full[name]] for name in full}
        write_hdf5(path, parts, lambda name: read(full[name]), {"attributes": {"": {"layer_names": list(full)}}})


def _layer_attributes(infos: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Returns what Keras says of the layers of a model and their variables."""
    layers: dict[str, list[str]] = {}
    for name in infos:
        layer, variable = name.split("/", 1)
        layers.setdefault(layer, []).append(variable)
    root = {"layer_names": list(layers), "backend": "tensorflow", "keras_version": "2.19.0"}
    layers["top_level_model_weights"] = []
    attributes = {layer: {"weight_names": variables} for layer, variables in layers.items()}
    return {"attributes": {"": root} | attributes, "groups": ["top_level_model_weights"]}


def root_attributes(path: Path) -> dict[str, object]:
    """Returns the attributes of an HDF5 file's root."""
    return dict(read_hdf5(path).metadata["attributes"].get("", {}))


def scope(config: GPTConfig, head: str) -> str:
    """Returns what Keras calls the model: tfgpt2lm_head_model, tf_open_aigpt_model."""
    return keras_name(f"TF{class_name(config, head)}")


def keras_name(name: str) -> str:
    """Returns the name that Keras makes of a class's: gpt2lm_head_model of GPT2LMHeadModel."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
