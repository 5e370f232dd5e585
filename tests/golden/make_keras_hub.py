"""Golden files of KerasHub: presets of a GPT-2 backbone, and of a language model with its tokenizer."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
import numpy as np
from ml_dtypes import bfloat16

from tests.golden.common import CONFIGS, Arrays, fresh, inputs, record, same, truth
from tests.golden.torch_models import make, run
from tests.golden.vocabularies import gpt2_vocabulary

CONFIG = CONFIGS["gpt2_plain"]
POSITIONS = "positions count from the left edge, whatever the padding: see position_ids"
WIDTH, HEADS = CONFIG["n_embd"], CONFIG["n_head"]


def make_backbone(weights: Arrays, dtype: str) -> Any:
    """The backbone with given weights, in a process state in which its layers are numbered from the start."""
    keras.backend.clear_session()
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=CONFIG["vocab_size"],
        num_layers=CONFIG["n_layer"],
        num_heads=HEADS,
        hidden_dim=WIDTH,
        intermediate_dim=4 * WIDTH,
        dropout=0.1,
        max_sequence_length=CONFIG["n_positions"],
        dtype=dtype,
    )
    values = {name.removeprefix("transformer."): value for name, value in weights.items()}
    for variable in backbone.variables:
        if "seed_generator" not in variable.path:
            variable.assign(value_of(variable.path, values).reshape(variable.shape))
    return backbone


def value_of(path: str, values: Arrays) -> np.ndarray:
    """The canonical weight of a variable, heads not yet an axis of their own."""
    scope, *parts, leaf = path.split("/")
    if scope in ("token_embedding", "position_embedding"):
        return values["wte.weight" if scope == "token_embedding" else "wpe.weight"]
    suffix = "weight" if leaf in ("kernel", "gamma") else "bias"
    if scope == "layer_norm":
        return values[f"ln_f.{suffix}"]
    block = f"h.{scope.removeprefix('transformer_layer_')}"
    if parts[-1] in ("query", "key", "value"):
        start = ("query", "key", "value").index(parts[-1]) * WIDTH
        return values[f"{block}.attn.c_attn.{suffix}"][..., start : start + WIDTH]
    module = {
        "attention_output": "attn.c_proj",
        "self_attention_layer_norm": "ln_1",
        "feedforward_intermediate_dense": "mlp.c_fc",
        "feedforward_output_dense": "mlp.c_proj",
        "feedforward_layer_norm": "ln_2",
    }[parts[-1]]
    return values[f"{block}.{module}.{suffix}"]


def make_preprocessor() -> Any:
    vocabulary, merges = gpt2_vocabulary()
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=merges)
    return keras_hub.models.GPT2CausalLMPreprocessor(tokenizer=tokenizer, sequence_length=CONFIG["n_positions"])


def entry(name: str, head: str, dtype: str, notes: str = "", **options: Any) -> None:
    """A preset, with the outputs of a float32 model that holds the same, if need be rounded, weights."""
    weights = truth("gpt2_plain")
    rounded = weights
    if dtype == "bfloat16":
        rounded = {title: value.astype(bfloat16).astype(np.float32) for title, value in weights.items()}
    path = fresh(name)
    model = make_backbone(weights, dtype)
    if head == "lm":
        model = keras_hub.models.GPT2CausalLM(backbone=model, preprocessor=make_preprocessor())
    model.save_to_preset(str(path), **options)
    backbone = make_backbone(rounded, "float32")
    given = inputs()
    given["position_ids"] = np.tile(np.arange(given["input_ids"].shape[1]), (len(given["input_ids"]), 1))
    hidden = backbone({"token_ids": given["input_ids"], "padding_mask": given["attention_mask"]}, training=False)
    outputs = {"last_hidden_state": np.asarray(hidden)}
    if head == "lm":
        outputs = {"logits": np.asarray(backbone.token_embedding(hidden, reverse=True))}
    same(outputs, run(make("gpt2_plain", head, rounded), given), given)
    record(
        path,
        given,
        outputs,
        format="kerashub",
        class_name="GPT2CausalLM" if head == "lm" else "GPT2Backbone",
        key="gpt2_plain",
        head=head,
        dtype=dtype,
        software=("keras-hub", "keras", "tensorflow", "h5py"),
        notes="; ".join(filter(None, [notes, POSITIONS])),
    )


def main() -> None:
    entry("kerashub-backbone", "model", "float32")
    entry("kerashub-lm", "lm", "float32")
    entry("kerashub-lm-bfloat16", "lm", "bfloat16", "bfloat16 is HDF5's opaque type of two bytes with attribute dtype")
    entry("kerashub-sharded", "model", "float32", max_shard_size=12_000 / 2**30)


if __name__ == "__main__":
    main()
