"""What Keras writes of our own models: weights alone (.weights.h5), or with the config in an archive (.keras)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptzoo import weights
from gptzoo._tensors import TensorFile, shown
from gptzoo.config import CONFIGS, GPTConfig
from gptzoo.errors import CheckpointError
from gptzoo.heads import class_name, parse_class_name
from gptzoo_conversion.cells import Cell
from gptzoo_conversion.containers.hdf5 import read_hdf5, write_hdf5
from gptzoo_conversion.containers.keras_archive import read_keras_archive, write_keras_archive
from gptzoo_conversion.format import Format, Source, Target
from gptzoo_conversion.layouts.hf_tf import keras_name

ARCHIVE = ".keras"
VERSION = "3.15.1"  # of the Keras whose layout this is

# Of the heads, what class Keras' path names.
HEADS = {"multiple_choice_head": "summary"}  # all others: linear
LEAVES = {"weight": 0, "bias": 1}
ACTIVATION = "mlp/act/vars/"
SLOPES = ("alpha_p", "alpha_n")  # of xielu; prelu has one weight
FAMILIES = {weights.GPT: "gpt", weights.GPT2: "gpt2"}  # as our modules are called
TOP = {"wte": "embedding", "tokens_embed": "embedding", "wpe": "embedding_1", "positions_embed": "embedding_1"}


def _cell(row: weights.Weight) -> Cell:
    """Returns the path of a weight below its model: attributes, and classes where a layer is in no list."""
    *path, leaf = row.name.split(".")
    number = leaf if "act" in path else LEAVES[leaf]  # activations of two kinds share their place
    if path[0] == "h":
        path[:2] = ["h", "block{_i}"]
    elif row.heads is None:
        path = [FAMILIES[row.family or weights.GPT2], "layers", TOP.get(path[0], "layer_norm")]
    return Cell((f"{'/'.join(path)}/vars/{number}",))


COLUMN = {row.name: _cell(row) for row in weights.TABLE}

_BLOCK = re.compile(r"(?<=^h/)(gpt2|open_aigpt)(?=_block)_")
_BACKBONE = re.compile(r"layers/(gpt2|open_aigpt)_model/")
_TRAINING = re.compile(r"(optimizer|metrics|.*seed_generator.*)(/.*)?")


class Keras(Format):
    """Paths of Keras are counted by class; below the top level the order of our models' parts makes them the same."""

    name = "keras"
    file = "model.weights.h5"
    suffixes = (ARCHIVE, ".weights.h5")
    column = COLUMN
    dtypes = ("float16", "bfloat16", "float32")
    prunes = True

    def matches(self, path: Path, start: bytes) -> bool:
        if start.startswith(b"PK\x03\x04"):
            return b"metadata.json" in start or b"config.json" in start
        if not start.startswith(b"\x89HDF\r\n\x1a\n"):
            return False
        return any(_BLOCK.search(_BACKBONE.sub("", name)) for name in read_hdf5(path).tensors)

    def find(self, directory: Path) -> Path | None:
        path = directory / self.file
        return path if path.is_file() and self.matches(path, b"\x89HDF\r\n\x1a\n") else None

    def says_config(self, file: str) -> bool:
        return file.endswith(ARCHIVE)

    def open(self, path: Path) -> Source:
        with open(path, "rb") as start:
            is_archive = start.read(2) == b"PK"
        file = read_keras_archive(path) if is_archive else read_hdf5(path)
        config = _config(path, file.metadata["config"]) if is_archive else {}
        return Source({path.name: file}, self.column, _naming(file), config, has_config_file=not is_archive)

    def full_name(self, name: str, in_backbone: bool, config: GPTConfig, head: str) -> str:
        family = _snake(config)
        if not in_backbone:
            head_name, rest = name.split("/", 1)
            return f"layers/{HEADS.get(head_name, 'linear')}/{rest}"
        name = name.replace("h/block", f"h/{family}_block", 1).removeprefix("gpt2/").removeprefix("gpt/")
        if ACTIVATION in name:
            place, leaf = name.rsplit("/", 1)
            name = f"{place}/{SLOPES.index(leaf) if leaf in SLOPES else 0}"
        return name if head == "Model" else f"layers/{family}_model/{name}"

    def write(self, target: Target) -> None:
        metadata: dict[str, Any] = {"attributes": _names(target)}
        path = target.directory / target.file
        if path.name.endswith(ARCHIVE):
            metadata |= {"config": _saved(target), "metadata": {"keras_version": VERSION}}
            write_keras_archive(path, target.infos, target.read, metadata)
        else:
            write_hdf5(path, target.infos, target.read, metadata)
        self.finish(target)


def _snake(config: GPTConfig) -> str:
    """Returns how Keras spells a family's prefix in the names of layers."""
    return "gpt2" if config.model_type == weights.GPT2 else "open_aigpt"


def _naming(file: TensorFile) -> Callable[[str], str | None]:
    """Returns the way from Keras' paths to those of the column."""
    family = "gpt" if any("open_aigpt" in name for name in file.tensors) else "gpt2"
    attributes = file.metadata["attributes"]
    slopes = any(name.endswith(f"{ACTIVATION}1") for name in file.tensors)

    def bare(name: str) -> str | None:
        if _TRAINING.fullmatch(name):
            return None
        inner = _BACKBONE.sub("", name, count=1)
        if inner != name or not name.startswith(("layers/linear/", "layers/summary/")):
            if ACTIVATION in inner:
                place, number = inner.rsplit("/", 1)
                leaves = SLOPES if slopes else ("weight",)
                inner = f"{place}/{dict(zip('01', leaves, strict=False)).get(number, number)}"
            return f"{family}/{inner}" if inner.startswith("layers/") else _BLOCK.sub("", inner)
        layer = "/".join(name.split("/")[:2])  # one class for several heads: Keras notes the layer's own name
        own = attributes.get(f"{layer}/vars", {}).get("name", "?")
        return f"{own}/{name.removeprefix(layer + '/')}"

    return bare


def _names(target: Target) -> dict[str, dict[str, Any]]:
    """Returns the name of each layer that has variables, by its path."""
    names = {"vars": {"name": keras_name(class_name(target.config, target.head))}}
    for name in target.infos:
        group = name.rsplit("/", 1)[0]
        names[group] = {"name": group.split("/")[-2]}
    for spec in weights.specs(target.config, target.head).values():
        if not spec.in_backbone and not spec.tied:
            own = spec.row.name.split(".")[0]
            names[f"layers/{HEADS.get(own, 'linear')}/vars"] = {"name": own}
    return names


def _saved(target: Target) -> dict[str, Any]:
    """Returns what Keras writes of a model, so that it can be built again."""
    name = class_name(target.config, target.head)
    policy = {"name": target.config.dtype}
    dtype = {"module": "keras", "class_name": "DTypePolicy", "config": policy, "registered_name": None}
    config = {"name": keras_name(name), "trainable": True, "dtype": dtype}
    return {
        "module": "gptzoo.keras._heads"
        if target.head != "Model"
        else f"gptzoo.keras._{FAMILIES[target.config.model_type]}",
        "class_name": name,
        "config": config | {"config": target.config.to_dict(), "seed": 0},
        "registered_name": f"gptzoo>{name}",
        "compile_config": {},
    }


def _config(path: Path, saved: Any) -> dict[str, Any]:
    """Returns config.json's content from what Keras wrote of a model of ours."""
    name = saved.get("registered_name") if isinstance(saved, dict) else None
    try:
        family, head = parse_class_name(str(name).removeprefix("gptzoo>"))
    except KeyError:
        found = shown(name)
        raise CheckpointError(f"{path}: config.json: {found}, expected one of gptzoo's models ('gptzoo>...')") from None
    model = saved.get("config")
    config = model.get("config") if isinstance(model, dict) else None
    if not isinstance(config, dict) or str(config.get("model_type")) not in CONFIGS:
        raise CheckpointError(f"{path}: config.json: config.config: expected the fields of a GPT's config.json")
    return config | {"architectures": [class_name(family, head)]}
