"""OpenAI's own layout of GPT-2: a TensorFlow checkpoint, hparams.json, encoder.json and vocab.bpe."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from gptzoo import limits
from gptzoo._files import open_regular
from gptzoo._json import read_json_object
from gptzoo._vocabulary import OPENAI_GPT2
from gptzoo.errors import CheckpointError
from gptzoo_conversion.cells import LEADING_ONE, cell, column
from gptzoo_conversion.containers.tf_bundle import read_state_file, read_tf_bundle, write_tf_bundle
from gptzoo_conversion.format import Format, Source, Target

HPARAMS = "hparams.json"
STATE = "checkpoint"

# hparams.json -> config.json
FIELDS = {"n_vocab": "vocab_size", "n_ctx": "n_positions", "n_embd": "n_embd", "n_head": "n_head", "n_layer": "n_layer"}

# What the code of OpenAI and of those who follow it takes for granted -> our fields.
GRANTED: dict[str, Any] = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}

COLUMN = column(
    {
        "wte.weight": "model/wte",
        "wpe.weight": "model/wpe",
        "h.{i}.ln_1.weight": "model/h{i}/ln_1/g",
        "h.{i}.ln_1.bias": "model/h{i}/ln_1/b",
        "h.{i}.attn.c_attn.weight": cell("model/h{i}/attn/c_attn/w", LEADING_ONE),
        "h.{i}.attn.c_attn.bias": "model/h{i}/attn/c_attn/b",
        "h.{i}.attn.c_proj.weight": cell("model/h{i}/attn/c_proj/w", LEADING_ONE),
        "h.{i}.attn.c_proj.bias": "model/h{i}/attn/c_proj/b",
        "h.{i}.ln_2.weight": "model/h{i}/ln_2/g",
        "h.{i}.ln_2.bias": "model/h{i}/ln_2/b",
        "h.{i}.mlp.c_fc.weight": cell("model/h{i}/mlp/c_fc/w", LEADING_ONE),
        "h.{i}.mlp.c_fc.bias": "model/h{i}/mlp/c_fc/b",
        "h.{i}.mlp.c_proj.weight": cell("model/h{i}/mlp/c_proj/w", LEADING_ONE),
        "h.{i}.mlp.c_proj.bias": "model/h{i}/mlp/c_proj/b",
        "ln_f.weight": "model/ln_f/g",
        "ln_f.bias": "model/ln_f/b",
    }
)

# What training leaves in a checkpoint: slots of optimizers, step counters, the graph of TensorFlow 2.
_TRAINING = re.compile(
    r".*/(Adam(_\d+)?|Momentum|Adagrad|RMSProp(_\d+)?|Ftrl(_\d+)?|vr|vc|v|m)|beta[12]_power(_\d+)?|global_step|counter|_step|"
    r"save_counter/.*|.*/\.OPTIMIZER_SLOT/.*|_CHECKPOINTABLE_OBJECT_GRAPH"
)


class Gpt2Tf1(Format):
    """Also what gpt-2-simple leaves behind, with the slots of its optimizer."""

    name = "gpt2_tf1"
    file = "model.ckpt.index"
    column = COLUMN
    families = ("gpt2",)
    dtypes = ("float16", "bfloat16", "float32", "float64")
    fixed = GRANTED
    vocabulary_names = OPENAI_GPT2

    def matches(self, path: Path, start: bytes) -> bool:
        return path.name == STATE or _has_table(path)

    def find(self, directory: Path) -> Path | None:
        state = directory / STATE
        if state.is_file():
            return directory / f"{read_state_file(state)}.index"
        found = sorted(directory.glob("*.ckpt.index")) or sorted(directory.glob("model*.index"))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise CheckpointError(f"{directory}: {names}, and no file {STATE!r} that says which is meant")
        return found[0] if found else None

    def open(self, path: Path) -> Source:
        if path.name == STATE:
            path = path.parent / f"{read_state_file(path)}.index"
        file = read_tf_bundle(path.with_suffix(""))
        hparams = path.parent / HPARAMS if os.path.lexists(path.parent / HPARAMS) else None
        return Source({path.name: file}, self.column, _bare, self._config(hparams), said_in=hparams)

    def _config(self, path: Path | None) -> dict[str, Any]:
        config = GRANTED | {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
        if path is None:
            return config
        hparams = read_json_object(path, CheckpointError, limits.MAX_CONFIG_BYTES)
        return config | {ours: hparams[theirs] for theirs, ours in FIELDS.items() if theirs in hparams}

    def problems(self, config: Any, head: str) -> list[str]:
        return super().problems(config, head) + narrow_mlp(self, config)

    def write(self, target: Target) -> None:
        prefix = target.directory / target.file.removesuffix(".index")
        write_tf_bundle(prefix, target.infos, target.read, {})
        state = f'model_checkpoint_path: "{prefix.name}"\nall_model_checkpoint_paths: "{prefix.name}"\n'
        target.write(STATE, state.encode())
        hparams = {theirs: getattr(target.config, ours) for theirs, ours in FIELDS.items()}
        target.write(HPARAMS, json.dumps(hparams, indent=2).encode() + b"\n")
        self.finish(target)


def narrow_mlp(layout: Format, config: Any) -> list[str]:
    """Says that an MLP is not four times as wide as the embedding, for software that takes this for granted."""
    if config.n_mlp == 4 * config.n_embd:
        return []
    return [f"n_inner {config.n_inner}: {layout.name} means 4 * n_embd ({4 * config.n_embd}) always"]


def _bare(name: str) -> str | None:
    return None if _TRAINING.fullmatch(name) else name


def _has_table(path: Path) -> bool:
    """Whether a file ends as an index does."""
    with open_regular(path) as file:
        file.seek(max(path.stat().st_size - 8, 0))
        return file.read() == (0xDB4775248B80FB57).to_bytes(8, "little")
