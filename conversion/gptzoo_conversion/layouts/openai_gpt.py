"""OpenAI's own layout of GPT: params_*.npy, params_shapes.json and the files of its tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

from gptzoo._vocabulary import OPENAI_GPT
from gptzoo_conversion.cells import LEADING_ONE, cell, column
from gptzoo_conversion.containers.npy_shards import read_npy_shards, write_npy_shards
from gptzoo_conversion.format import Format, Source, Target

SHAPES = "params_shapes.json"

FIXED = {"afn": "gelu", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}

# Arrays have numbers for names: positions, tokens, and twelve of each block in the order in which they were made.
COLUMN = column(
    {
        "positions_embed.weight": "0",
        "tokens_embed.weight": "1",
        "h.{i}.attn.c_attn.weight": cell("{12i+2}", LEADING_ONE),
        "h.{i}.attn.c_attn.bias": "{12i+3}",
        "h.{i}.attn.c_proj.weight": cell("{12i+4}", LEADING_ONE),
        "h.{i}.attn.c_proj.bias": "{12i+5}",
        "h.{i}.ln_1.weight": "{12i+6}",
        "h.{i}.ln_1.bias": "{12i+7}",
        "h.{i}.mlp.c_fc.weight": cell("{12i+8}", LEADING_ONE),
        "h.{i}.mlp.c_fc.bias": "{12i+9}",
        "h.{i}.mlp.c_proj.weight": cell("{12i+10}", LEADING_ONE),
        "h.{i}.mlp.c_proj.bias": "{12i+11}",
        "h.{i}.ln_2.weight": "{12i+12}",
        "h.{i}.ln_2.bias": "{12i+13}",
    }
)


class Gpt1Npy(Format):
    """Rows of special tokens, where there are any, are the last of the tokens'."""

    name = "gpt1_npy"
    file = SHAPES
    column = COLUMN
    families = ("openai-gpt",)
    dtypes = ("float16", "float32", "float64")
    fixed = FIXED
    vocabulary_names = OPENAI_GPT

    def matches(self, path: Path, start: bytes) -> bool:
        return start.startswith(b"\x93NUMPY") or path.name == SHAPES

    def find(self, directory: Path) -> Path | None:
        found = (directory / SHAPES, directory / "params_0.npy")
        return found[0] if any(map(os.path.lexists, found)) else None

    def open(self, path: Path) -> Source:
        file = read_npy_shards(path.parent)
        config = self.fixed | {"model_type": "openai-gpt", "architectures": ["OpenAIGPTLMHeadModel"]}
        return Source({path.parent.name: file}, self.column, config=config)

    def write(self, target: Target) -> None:
        infos = dict(sorted(target.infos.items(), key=lambda item: int(item[0])))
        write_npy_shards(target.directory, infos, target.read, {})
        self.finish(target)
