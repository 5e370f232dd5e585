"""nanoGPT's ckpt.pt: Transformers' names, linear weights as (out, in), and the model's arguments beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gptzoo import limits, weights
from gptzoo.config import GPTConfig
from gptzoo.errors import CheckpointError
from gptzoo_conversion.cells import TRANSPOSED, cell, column
from gptzoo_conversion.containers.pytorch import read_pytorch, write_pytorch
from gptzoo_conversion.format import Format, Source, Target
from gptzoo_conversion.layouts.hf_torch import is_pytorch, unwrapped
from gptzoo_conversion.layouts.openai_gpt2 import GRANTED, narrow_mlp

MODEL, ARGUMENTS = "model/", "model_args"

# model_args -> config.json
FIELDS = {
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
    "block_size": "n_positions",
    "vocab_size": "vocab_size",
}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
NO_BIAS = "nanogpt_bias"  # our config's memory of a model without biases, which are zeros here

LINEAR = ("c_attn.weight", "c_proj.weight", "c_fc.weight")

COLUMN = column(
    {
        row.name: cell(row.name, TRANSPOSED) if row.name.endswith(LINEAR) else row.name
        for row in weights.TABLE
        if row.family in (None, "gpt2") and row.when is None and (row.heads is None or row.name == "lm_head.weight")
    }
)


class NanoGpt(Format):
    """The head is tied and in the file; the vocabulary may be padded, with rows that were trained like the others."""

    name = "nanogpt"
    file = "ckpt.pt"
    suffixes = (".pt",)
    column = COLUMN
    families = ("gpt2",)
    fixed = GRANTED | {"activation_function": "gelu"}  # the exact form, whatever its author says of GPT-2

    def matches(self, path: Path, start: bytes) -> bool:
        return is_pytorch(start) and ARGUMENTS in read_pytorch(path).metadata

    def says_config(self, file: str) -> bool:
        return True

    def open(self, path: Path) -> Source:
        file = read_pytorch(path)
        arguments = file.metadata.get(ARGUMENTS)
        if not isinstance(arguments, dict):
            raise CheckpointError(f"{path}: no {ARGUMENTS}, expected nanoGPT's dict of model, model_args and more")
        config = self.fixed | {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
        problems = [f"{ARGUMENTS}.{name}: absent" for name in FIELDS if name not in arguments]
        for name, limit in _LIMITS.items():
            value = arguments.get(name, 1)
            if type(value) is not int or not 1 <= value <= limit:
                problems.append(f"{ARGUMENTS}.{name}: {value!r:.80}, expected an integer from 1 to {limit}")
        if type(arguments.get("bias", True)) is not bool:
            problems.append(f"{ARGUMENTS}.bias: {arguments['bias']!r:.80}, expected True or False")
        if problems:
            raise CheckpointError.listing(str(path), problems)
        config |= {ours: arguments[theirs] for theirs, ours in FIELDS.items()}
        config |= dict.fromkeys(DROPOUTS, arguments.get("dropout", 0.0))
        has_bias = arguments.get("bias", True)
        config |= {} if has_bias else {NO_BIAS: False}
        return Source({path.name: file}, self.column, _bare, config, None if has_bias else ".bias")

    def full_name(self, name: str, in_backbone: bool, config: GPTConfig, head: str) -> str:
        return weights.PREFIX + name

    def problems(self, config: Any, head: str) -> list[str]:
        return super().problems(config, head) + narrow_mlp(self, config)

    def write(self, target: Target) -> None:
        config = target.config
        arguments = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
        has_bias = config.foreign.get(NO_BIAS, True)
        arguments |= {"bias": has_bias, "dropout": config.resid_pdrop}
        infos = {name: info for name, info in target.infos.items() if has_bias or not name.endswith(".bias")}
        for name in target.infos.keys() - infos.keys():
            if target.read(name).any():
                raise CheckpointError(f"{name}: not zero, but the config says that there are no biases ({NO_BIAS})")
        aliases = {"lm_head.weight": f"{weights.PREFIX}wte.weight"}
        write_pytorch(target.directory / target.file, infos, target.read, {ARGUMENTS: arguments}, aliases, nest="model")
        self.finish(target)


_LIMITS = {
    "n_layer": limits.MAX_LAYERS,
    "n_head": limits.MAX_HEADS,
    "n_embd": limits.MAX_EMBED,
    "block_size": limits.MAX_POSITIONS,
    "vocab_size": limits.MAX_VOCAB,
}


def _bare(name: str) -> str | None:
    """Names of the model; its optimizer is left behind."""
    return unwrapped(name.removeprefix(MODEL)) if name.startswith(MODEL) else None
