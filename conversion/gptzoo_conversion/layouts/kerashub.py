"""KerasHub's presets of GPT-2: model.weights.h5, its own config.json, and the tokenizer's files under assets."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptzoo import limits
from gptzoo._files import naming, open_regular
from gptzoo._json import read_json_object
from gptzoo._shards import PLAIN_NAME
from gptzoo._tensors import TensorFile, shown
from gptzoo._vocabulary import END_OF_TEXT, HEADER, KERASHUB, MERGES, VOCAB, all_ids, bpe_files, end_of_text_id
from gptzoo.config import CONFIG_FILE, GPTConfig
from gptzoo.errors import CheckpointError
from gptzoo.weights import parameter_count
from gptzoo_conversion.cells import HEADS_FIRST, HEADS_LAST, cell, column
from gptzoo_conversion.containers.hdf5 import read_hdf5, write_hdf5
from gptzoo_conversion.format import Format, Source, Target
from gptzoo_conversion.layouts.openai_gpt2 import GRANTED

BACKBONE = "GPT2Backbone"
INDEX = "model.weights.json"
HEADER_LINE = f"{HEADER}\n".encode()  # which KerasHub does without
VERSIONS = {"keras_version": "3.15.1", "keras_hub_version": "0.32.0"}  # those whose layout this is

# Their config -> ours.
FIELDS = {
    "vocabulary_size": "vocab_size",
    "num_layers": "n_layer",
    "num_heads": "n_head",
    "hidden_dim": "n_embd",
    "intermediate_dim": "n_inner",
    "max_sequence_length": "n_positions",
}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")

_BLOCK = "layers/transformer_decoder{_i}"
_ATTENTION = f"{_BLOCK}/_self_attention_layer"
_QKV = " ".join(f"{_ATTENTION}/{part}_dense/vars/{{0}}" for part in ("query", "key", "value"))

COLUMN = column(
    {
        "wte.weight": "layers/reversible_embedding/vars/0",
        "wpe.weight": "layers/position_embedding/vars/0",
        "h.{i}.ln_1.weight": f"{_BLOCK}/_self_attention_layer_norm/vars/0",
        "h.{i}.ln_1.bias": f"{_BLOCK}/_self_attention_layer_norm/vars/1",
        "h.{i}.attn.c_attn.weight": cell(_QKV.replace("{0}", "0"), HEADS_LAST),
        "h.{i}.attn.c_attn.bias": cell(_QKV.replace("{0}", "1"), HEADS_LAST),
        "h.{i}.attn.c_proj.weight": cell(f"{_ATTENTION}/output_dense/vars/0", HEADS_FIRST),
        "h.{i}.attn.c_proj.bias": f"{_ATTENTION}/output_dense/vars/1",
        "h.{i}.ln_2.weight": f"{_BLOCK}/_feedforward_layer_norm/vars/0",
        "h.{i}.ln_2.bias": f"{_BLOCK}/_feedforward_layer_norm/vars/1",
        "h.{i}.mlp.c_fc.weight": f"{_BLOCK}/_feedforward_intermediate_dense/vars/0",
        "h.{i}.mlp.c_fc.bias": f"{_BLOCK}/_feedforward_intermediate_dense/vars/1",
        "h.{i}.mlp.c_proj.weight": f"{_BLOCK}/_feedforward_output_dense/vars/0",
        "h.{i}.mlp.c_proj.bias": f"{_BLOCK}/_feedforward_output_dense/vars/1",
        "ln_f.weight": "layers/layer_normalization/vars/0",
        "ln_f.bias": "layers/layer_normalization/vars/1",
    }
)


class KerasHub(Format):
    """The backbone; a causal language model over it has no weights of its own."""

    name = "kerashub"
    file = "model.weights.h5"
    column = COLUMN
    families = ("gpt2",)
    dtypes = ("float16", "bfloat16", "float32")
    fixed = GRANTED
    vocabulary_names = KERASHUB
    vocabulary_files = ()
    writes_config = False

    def matches(self, path: Path, start: bytes) -> bool:
        if not start.startswith(b"\x89HDF\r\n\x1a\n"):
            return False
        return COLUMN["wte.weight"].names[0] in read_hdf5(path).tensors

    def find(self, directory: Path) -> Path | None:
        if not (directory / CONFIG_FILE).is_file():
            return None
        config = read_json_object(directory / CONFIG_FILE, CheckpointError, limits.MAX_CONFIG_BYTES)
        found = (directory / self.file, directory / INDEX)
        return next((path for path in found if os.path.lexists(path) and config.get("class_name") == BACKBONE), None)

    def open(self, path: Path) -> Source:
        files: dict[str, TensorFile] = _shards(path) if path.name == INDEX else {path.name: read_hdf5(path)}
        config, vocabulary = _config(path.parent), _assets(path.parent)
        if VOCAB in vocabulary:  # the only special token of GPT-2
            end = end_of_text_id(vocabulary[VOCAB])
            config |= {"bos_token_id": end, "eos_token_id": end}
        return Source(
            files,
            self.column,
            config=config,
            said_in=path.parent / CONFIG_FILE,
            vocabulary=vocabulary,
            has_config_file=False,
        )

    def write(self, target: Target) -> None:
        config, dtype = target.config, target.config.dtype
        groups = {name.rsplit("/", 1)[0] for name in target.infos}
        attributes = {group: {"name": _variable_name(group)} for group in sorted(groups)}
        write_hdf5(target.directory / self.file, target.infos, target.read, {"attributes": attributes})
        backbone = _object("models.gpt2.gpt2_backbone", BACKBONE, _backbone_config(config), "gpt2_backbone", dtype)
        _write_json(target, CONFIG_FILE, backbone)
        count = parameter_count(config, "Model")
        _write_json(target, "metadata.json", {**VERSIONS, "parameter_count": count, "tasks": ["CausalLM"]})
        files, ids = bpe_files(target.vocabulary), all_ids(target.vocabulary)
        if files and END_OF_TEXT in ids:  # KerasHub's tokenizer is none without it
            plain = json.loads(files[VOCAB])
            target.write(KERASHUB[VOCAB], files[VOCAB] if plain == ids else json.dumps(ids).encode())
            target.write(KERASHUB[MERGES], files[MERGES].removeprefix(HEADER_LINE))
            _write_task(target, backbone, dtype)


def _config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_FILE
    content = read_json_object(path, CheckpointError, limits.MAX_CONFIG_BYTES)
    inner = content.get("config")
    if not isinstance(inner, dict):
        raise CheckpointError(f"{path}: config: {shown(inner)}, expected an object")
    if content.get("class_name") != BACKBONE:
        raise CheckpointError(f"{path}: class_name {shown(content.get('class_name'))}, expected {BACKBONE}")
    missing = [f"{name}: absent" for name in FIELDS if name not in inner]
    if missing:
        raise CheckpointError.listing(f"{path}: config", missing)
    config = GRANTED | {ours: inner[theirs] for theirs, ours in FIELDS.items()}
    if type(config["n_embd"]) is int and config["n_inner"] == 4 * config["n_embd"]:
        config["n_inner"] = None
    config |= dict.fromkeys(DROPOUTS, inner.get("dropout", 0.1))
    return config | {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}


def _shards(index: Path) -> dict[str, TensorFile]:
    """Opens all files that an index of groups names, which must hold what it says, and nothing else."""
    weight_map = read_json_object(index, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index}: weight_map: {shown(weight_map)}, expected a map from group to files")
    wanted: dict[str, set[str]] = {}
    for group, files in weight_map.items():
        for name in files if isinstance(files, list) else [files]:
            if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
                raise CheckpointError(f"{index}: weight_map[{shown(group)}]: {shown(name)} is not a plain file name")
            wanted.setdefault(name, set()).add(group)
    found: dict[str, TensorFile] = {name: read_hdf5(index.parent / name) for name in sorted(wanted)}
    problems = []
    for name, file in found.items():
        held = {f"/{tensor.rpartition('/')[0]}" for tensor in file.tensors}
        problems += [f"{name}: nothing in {shown(one)}, which the index names" for one in sorted(wanted[name] - held)]
        problems += [f"{name}: holds {shown(one)}, which the index does not say" for one in sorted(held - wanted[name])]
    if problems:
        raise CheckpointError.listing(str(index), problems)
    return found


def _assets(directory: Path) -> dict[str, bytes]:
    files = {}
    for usual, name in KERASHUB.items():
        path = directory / name
        if os.path.lexists(path):
            with naming(path), open_regular(path) as file:
                content = file.read(limits.MAX_JSON_BYTES + 1)
            if len(content) > limits.MAX_JSON_BYTES:
                raise CheckpointError(f"{path}: more than {limits.MAX_JSON_BYTES} bytes")
            files[usual] = content
    if MERGES in files and not files[MERGES].startswith(HEADER_LINE):
        files[MERGES] = HEADER_LINE + files[MERGES]
    return files


def _backbone_config(config: GPTConfig) -> dict[str, Any]:
    values = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
    return values | {"intermediate_dim": config.n_mlp, "dropout": config.resid_pdrop}


def _object(module: str, class_name: str, config: Mapping[str, Any], name: str, dtype: str | None) -> dict[str, Any]:
    """Returns what Keras writes of an object."""
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": dtype}, "registered_name": None}
    return {
        "module": f"keras_hub.src.{module}",
        "class_name": class_name,
        "config": {"name": name, "trainable": True, "dtype": policy, **config},
        "registered_name": f"keras_hub>{class_name}",
    }


def _write_task(target: Target, backbone: Mapping[str, Any], dtype: str | None) -> None:
    """Writes what makes a causal language model of the backbone: tokenizer and preprocessor."""
    tokens = {
        "config_file": "tokenizer.json",
        "sequence_length": None,
        "add_prefix_space": False,
        "unsplittable_tokens": [END_OF_TEXT],
    }
    tokenizer = _object("models.gpt2.gpt2_tokenizer", "GPT2Tokenizer", tokens, "gpt2_tokenizer", "int32")
    lengths = {
        "tokenizer": tokenizer,
        "config_file": "preprocessor.json",
        "sequence_length": target.config.n_positions,
        "add_start_token": True,
        "add_end_token": True,
    }
    module, name = "models.gpt2.gpt2_causal_lm_preprocessor", "gpt2_causal_lm_preprocessor"
    preprocessor = _object(module, "GPT2CausalLMPreprocessor", lengths, name, dtype)
    task = {
        "module": "keras_hub.src.models.gpt2.gpt2_causal_lm",
        "class_name": "GPT2CausalLM",
        "config": {"backbone": backbone, "preprocessor": preprocessor, "name": "gpt2_causal_lm"},
        "registered_name": "keras_hub>GPT2CausalLM",
    }
    for file, content in (("tokenizer.json", tokenizer), ("preprocessor.json", preprocessor), ("task.json", task)):
        _write_json(target, file, content)


def _write_json(target: Target, name: str, content: Mapping[str, Any]) -> None:
    target.write(name, json.dumps(content, indent=4).encode())


# The last part of a group's path -> what Keras calls the layer.
_LAYERS = {
    "reversible_embedding": "token_embedding",
    "layer_normalization": "layer_norm",
    "query_dense": "query",
    "key_dense": "key",
    "value_dense": "value",
    "output_dense": "attention_output",
}


def _variable_name(group: str) -> str:
    layer = group.split("/")[-2].lstrip("_")
    return _LAYERS.get(layer, layer)
