"""Flax's layout of Transformers 4: flax_model.msgpack, and the safetensors that its classes wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from gptzoo._tensors import Read, TensorFile, TensorInfo
from gptzoo.config import GPTConfig
from gptzoo_conversion.cells import TRANSPOSED, cell, column
from gptzoo_conversion.containers.flax_msgpack import read_flax_msgpack, write_flax_msgpack
from gptzoo_conversion.format import Target
from gptzoo_conversion.layouts.huggingface import HuggingFaceFormat

PREFIX = "transformer/"

# Of a block, kernels are (out, in), against Flax's own custom; that of the head is (in, out).
COLUMN = column(
    {
        "wte.weight": "wte/embedding",
        "wpe.weight": "wpe/embedding",
        "h.{i}.ln_1.weight": "h/{i}/ln_1/scale",
        "h.{i}.ln_1.bias": "h/{i}/ln_1/bias",
        "h.{i}.attn.c_attn.weight": cell("h/{i}/attn/c_attn/kernel", TRANSPOSED),
        "h.{i}.attn.c_attn.bias": "h/{i}/attn/c_attn/bias",
        "h.{i}.attn.c_proj.weight": cell("h/{i}/attn/c_proj/kernel", TRANSPOSED),
        "h.{i}.attn.c_proj.bias": "h/{i}/attn/c_proj/bias",
        "h.{i}.ln_cross_attn.weight": "h/{i}/ln_cross_attn/scale",
        "h.{i}.ln_cross_attn.bias": "h/{i}/ln_cross_attn/bias",
        "h.{i}.crossattention.q_attn.weight": cell("h/{i}/crossattention/q_attn/kernel", TRANSPOSED),
        "h.{i}.crossattention.q_attn.bias": "h/{i}/crossattention/q_attn/bias",
        "h.{i}.crossattention.c_attn.weight": cell("h/{i}/crossattention/c_attn/kernel", TRANSPOSED),
        "h.{i}.crossattention.c_attn.bias": "h/{i}/crossattention/c_attn/bias",
        "h.{i}.crossattention.c_proj.weight": cell("h/{i}/crossattention/c_proj/kernel", TRANSPOSED),
        "h.{i}.crossattention.c_proj.bias": "h/{i}/crossattention/c_proj/bias",
        "h.{i}.ln_2.weight": "h/{i}/ln_2/scale",
        "h.{i}.ln_2.bias": "h/{i}/ln_2/bias",
        "h.{i}.mlp.c_fc.weight": cell("h/{i}/mlp/c_fc/kernel", TRANSPOSED),
        "h.{i}.mlp.c_fc.bias": "h/{i}/mlp/c_fc/bias",
        "h.{i}.mlp.c_proj.weight": cell("h/{i}/mlp/c_proj/kernel", TRANSPOSED),
        "h.{i}.mlp.c_proj.bias": "h/{i}/mlp/c_proj/bias",
        "ln_f.weight": "ln_f/scale",
        "ln_f.bias": "ln_f/bias",
        "lm_head.weight": cell("lm_head/kernel", TRANSPOSED),
    }
)


def without_prefix(name: str) -> str:
    """Returns the name of a weight whether a head is over it or not."""
    return name.removeprefix(PREFIX)


class FlaxMsgpack(HuggingFaceFormat):
    """Nested maps of arrays. There were Flax classes of GPT-2 only: the bare model and the language model."""

    name = "flax_msgpack"
    file = "flax_model.msgpack"
    suffixes = (".msgpack",)
    column = COLUMN
    families = ("gpt2",)

    def matches(self, path: Path, start: bytes) -> bool:
        return _MAP_OF_TEXTS.match(start) is not None

    def bare(self, name: str) -> str:
        return without_prefix(name)

    def full_name(self, name: str, in_backbone: bool, config: GPTConfig, head: str) -> str:
        return PREFIX + name if in_backbone and head != "Model" else name

    def read_file(self, path: Path) -> TensorFile:
        return read_flax_msgpack(path)

    def write_file(self, path: Path, infos: Mapping[str, TensorInfo], read: Read, target: Target) -> None:
        write_flax_msgpack(path, infos, read, {})


# A map that is not empty, and the first byte of its first key: a text.
_MAP_OF_TEXTS = re.compile(rb"([\x81-\x8f]|\xde..|\xdf....)[\xa0-\xbf\xd9-\xdb]", re.DOTALL)
