"""Opens a checkpoint of any format: the same thing to its readers as one of our own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptzoo import limits, weights
from gptzoo._files import naming
from gptzoo._json import read_json_object
from gptzoo._tensors import TensorInfo, shown
from gptzoo._vocabulary import read_vocabulary
from gptzoo.checkpoint import Checkpoint, locate_path
from gptzoo.config import ACTIVATIONS, CONFIG_FILE, AutoConfig, GPTConfig, config_class
from gptzoo.errors import CheckpointError, ConfigError
from gptzoo.heads import HEADS, class_name
from gptzoo.hub import resolve
from gptzoo_conversion._numbers import is_same
from gptzoo_conversion.format import Source
from gptzoo_conversion.formats import format_named, locate
from gptzoo_conversion.view import View, view

HEAD_WIDTH = 64  # of OpenAI's models, of every size
END_OF_TEXT_ID = 50256  # of GPT-2's token for the beginning and the end

# Fields in which a format's own words and a config.json beside it must agree.
_SAID_TWICE = (
    "model_type",
    "n_layer",
    "n_head",
    "n_embd",
    "n_positions",
    "vocab_size",
    "activation_function",
    "afn",
    "layer_norm_epsilon",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "tie_word_embeddings",
)


@dataclass(frozen=True)
class ForeignCheckpoint(Checkpoint):
    """A checkpoint in a format of other software, under the canonical names of its weights.

    Attributes:
        view: where each weight lies.
        notes: what the user of a conversion should know.
        assumed: those of them that say what was assumed.
        vocabulary: tokenizer files by their usual names.
        single: whether it is one file, of whose directory the rest is not ours.
    """

    view: View = field(repr=False, default_factory=View)
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    vocabulary: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    single: bool = False

    def peek(self, name: str) -> np.ndarray:
        """Returns one tensor, in whatever order its numbers lie."""
        return self.view.read(name)

    def read(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            return super().read(name)  # the error
        return np.ascontiguousarray(self.view.read(name)).reshape(self.tensors[name].shape)

    def where(self, name: str) -> str:
        return self.view.where(name)

    def is_equal(self, one: str, other: str) -> bool:
        return is_same(self.peek(one), self.peek(other))


def open_foreign(
    path: str | Path, format: str | None = None, config: GPTConfig | str | Path | None = None
) -> ForeignCheckpoint:
    """Reads the headers and the config of a checkpoint in any format, and no tensor but those that say nothing else.

    Args:
        path: a directory, a file, the prefix of a TensorFlow checkpoint, or the name of a model: bundled, or on the
            Hugging Face hub.
        format: key of `FORMATS`; by default told from the content.
        config: in place of what the checkpoint says.

    Raises:
        CheckpointError: a file is absent, broken, or of no known format.
        ConfigError: the config is wrong.
    """
    wanted = format_named(format) if format else None
    local = locate_path(path, "whole")
    found_format, found, notes = locate(local, wanted)
    with naming(found):
        source = found_format.open(found)
    directory = local if local.is_dir() else found.parent
    seen = view(source.files, source.column, source.bare)
    if seen.problems:
        raise CheckpointError.listing(str(directory), seen.problems)
    chosen, assumed = _config(found, directory, source, seen, config)
    if misfits := seen.misfits(chosen.n_head):
        raise CheckpointError.listing(str(directory), misfits)
    _add_zeros(source, seen, chosen)
    vocabulary = read_vocabulary(
        directory, found_format.vocabulary_files, found_format.vocabulary_names, source.vocabulary
    )
    return ForeignCheckpoint(
        path=directory,
        config=chosen,
        tensors=seen.tensors,
        files=source.files,
        format=found_format.name,
        view=seen,
        notes=(*notes, *source.notes, *assumed),
        assumed=tuple(assumed),
        vocabulary=vocabulary,
        single=not local.is_dir(),
    )


def _config(
    found: Path, directory: Path, source: Source, seen: View, given: GPTConfig | str | Path | None
) -> tuple[GPTConfig, list[str]]:
    """Returns the config: as given, of the config.json beside the weights, or as far as format and shapes tell."""
    config = None
    if isinstance(given, GPTConfig):
        config = deepcopy(given)
    elif given is not None:  # what it does not say, the shapes do
        values = read_json_object(_config_file(given), ConfigError, limits.MAX_CONFIG_BYTES)
        config = _built(_config_file(given), _shape_fields(found, seen) | dict(source.config) | values)
    elif source.has_config_file and os.path.lexists(directory / CONFIG_FILE):
        config = AutoConfig.from_pretrained(directory)
        _require_agreement(directory / CONFIG_FILE, config, source.config)
    if config is not None:
        config.architectures = config.architectures or source.config.get("architectures")
        return config, []
    fields, notes = _inferred(found, seen, source.config)
    return _built(source.said_in or found, fields), notes


def _config_file(path: str | Path) -> Path:
    local = resolve(path, "config")
    return local / CONFIG_FILE if local.is_dir() else local


def _built(path: Path, fields: dict[str, Any]) -> GPTConfig:
    try:
        return config_class(fields["model_type"]).from_dict(fields)
    except ConfigError as problem:
        raise ConfigError(f"{path}: {problem}") from None


def _require_agreement(path: Path, config: GPTConfig, said: Mapping[str, Any]) -> None:
    problems = []
    for name in _SAID_TWICE:
        stored = getattr(config, name, None)
        if name in said and _meaning(stored) != _meaning(said[name]):
            problems.append(f"{name}: {stored!r}, but the checkpoint says {said[name]!r}")
    if problems:
        raise ConfigError.listing(str(path), problems)


def _meaning(value: Any) -> Any:
    """Returns the same for names of one activation; all else as it is."""
    return ACTIVATIONS.get(value, value) if isinstance(value, str) else value


def _inferred(found: Path, seen: View, said: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the fields of a config as shapes tell them, below what the format says itself; and what is assumed."""
    fields = _shape_fields(found, seen) | dict(said)
    if "n_head" in fields or type(fields["n_embd"]) is not int:  # the latter is refused later
        return fields, []
    heads, rest = divmod(fields["n_embd"], HEAD_WIDTH)
    if rest:
        width = f"n_embd {fields['n_embd']} is no multiple of {HEAD_WIDTH}"
        raise ConfigError(f"{found}: n_head is not said, and {width}: give a config (--config FILE, or config=)")
    return fields | {"n_head": heads}, [
        f"n_head is not said: {heads} heads of {HEAD_WIDTH} are assumed (another config says otherwise: --config)"
    ]


def _shape_fields(found: Path, seen: View) -> dict[str, Any]:
    tensors = seen.tensors
    gpt2 = "wte.weight" in tensors
    tokens = tensors.get("wte.weight" if gpt2 else "tokens_embed.weight")
    positions = tensors.get("wpe.weight" if gpt2 else "positions_embed.weight")
    if tokens is None or positions is None or len(tokens.shape) != 2 or len(positions.shape) != 2:
        names = ", ".join(map(shown, list(tensors)[:3]))
        raise CheckpointError(f"{found}: no embeddings as GPT and GPT-2 have them (it holds {names}, ...)")
    fields: dict[str, Any] = {"model_type": "gpt2" if gpt2 else "openai-gpt"}
    fields |= {"vocab_size": tokens.shape[0], "n_embd": tokens.shape[1], "n_positions": positions.shape[0]}
    fields["n_layer"] = len({name.split(".")[1] for name in tensors if name.startswith("h.") and name in seen.cells})
    wide = tensors.get("h.0.mlp.c_fc.weight")
    if gpt2 and wide and len(wide.shape) == 2 and wide.shape[1] != 4 * tokens.shape[1]:
        fields["n_inner"] = wide.shape[1]
    if "h.0.crossattention.q_attn.weight" in tensors:
        fields["add_cross_attention"] = True
    if gpt2 and tokens.shape[0] <= END_OF_TEXT_ID:  # of another vocabulary than OpenAI's
        fields |= {"bos_token_id": None, "eos_token_id": None}
    return fields | _head_fields(seen, gpt2)


def _head_fields(seen: View, gpt2: bool) -> dict[str, Any]:
    """Returns what the weights of a head tell: which head it is, and how many labels it has."""
    rows = {row.name: row.heads for row in weights.TABLE if row.heads}
    heads = [rows[name] for name in seen.tensors if name in rows]
    common = [head for head in HEADS if heads and all(head in named for named in heads)]
    family = config_class("gpt2" if gpt2 else "openai-gpt")
    fields: dict[str, Any] = {"architectures": [class_name(family, common[0])]} if common else {}
    for name in ("score.weight", "classifier.weight"):
        if name in seen.tensors and seen.tensors[name].shape:
            fields["num_labels"] = seen.tensors[name].shape[0]
    if "lm_head.weight" in seen.tensors:
        embedding = "wte.weight" if gpt2 else "tokens_embed.weight"
        fields["tie_word_embeddings"] = is_same(seen.read("lm_head.weight"), seen.read(embedding))
    return fields


def _add_zeros(source: Source, seen: View, config: GPTConfig) -> None:
    """Adds the weights that a checkpoint leaves out because they are zero."""
    if source.zeros is None:
        return
    first = next(iter(seen.tensors.values()))
    for name, spec in weights.specs(config, "Model").items():
        if name.endswith(source.zeros) and name not in seen.tensors:
            seen.tensors[name] = TensorInfo(first.file, first.dtype, spec.shape)
            seen.places[name] = []
