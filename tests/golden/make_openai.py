"""Golden files in OpenAI's own layouts: TensorFlow 1 checkpoints of GPT-2, and the NumPy files of GPT."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

from tests.golden.common import CONFIGS, Arrays, fresh, inputs, record, truth
from tests.golden.torch_models import make, run
from tests.golden.vocabularies import gpt2_vocabulary, gpt_vocabulary

EXPECTED_BY = "GPT2LMHeadModel of Transformers' PyTorch, holding the same numbers"
tf.disable_v2_behavior()


def variables(weights: Arrays) -> Arrays:
    """The variables of openai/gpt-2's model.py: kernels have a leading axis of one, norms are named g and b."""
    result = {}
    for name, value in weights.items():
        if not name.startswith("transformer."):
            continue
        parts = name.removeprefix("transformer.").split(".")
        if parts[0] in ("wte", "wpe"):
            result[f"model/{parts[0]}"] = value
            continue
        leaf = {"bias": "b", "weight": "g" if parts[-2].startswith("ln_") else "w"}[parts[-1]]
        scope = "/".join(parts[:-1]).replace("h/", "h", 1) if parts[0] == "h" else parts[0]
        result[f"model/{scope}/{leaf}"] = value[None] if leaf == "w" else value
    return result


def write_checkpoint(path: Path, name: str, step: int | None, adam: bool) -> None:
    """Saves the golden weights by a Saver, with Adam's slots on request (without .meta: their graph is large)."""
    values = variables(truth("gpt2_plain"))
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(0)
        tensors = [tf.get_variable(title, value.shape, tf.float32) for title, value in values.items()]
        train = tf.no_op()
        if adam:
            train = tf.train.AdamOptimizer(1e-4).minimize(tf.add_n([tf.reduce_sum(tensor**2) for tensor in tensors]))
        saver = tf.train.Saver(save_relative_paths=True)
        session.run(tf.global_variables_initializer())
        session.run(train)  # so that Adam's slots are not zero
        for tensor, value in zip(tensors, values.values(), strict=True):
            tensor.load(value, session)
        options = {"write_meta_graph": not adam, "strip_default_attrs": True}
        saver.save(session, str(path / name), global_step=step, **options)


def write_gpt2(name: str, prefix: str, step: int | None, adam: bool, notes: str) -> None:
    path = fresh(name)
    write_checkpoint(path, prefix, step, adam)
    config = CONFIGS["gpt2_plain"]
    hparams = {"n_vocab": config["vocab_size"], "n_ctx": config["n_positions"]}
    hparams |= {field: config[field] for field in ("n_embd", "n_head", "n_layer")}
    (path / "hparams.json").write_text(json.dumps(hparams))
    if step is not None:
        (path / "counter").write_text(f"{step}\n")
    vocabulary, merges = gpt2_vocabulary()
    (path / "encoder.json").write_text(json.dumps(vocabulary))
    (path / "vocab.bpe").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    given = inputs()
    record(
        path,
        given,
        run(make("gpt2_plain", "lm"), given),
        format="gpt2_tf1",
        class_name="GPT2LMHeadModel",
        key="gpt2_plain",
        head="lm",
        software=("tensorflow", "transformers", "torch"),
        expected_by=EXPECTED_BY,
        notes=notes,
    )


def gpt_order(n_layer: int) -> list[str]:
    """The canonical names in the order of finetune-transformer-lm's params_*.npy: positions first, norms amid."""
    kinds = ("attn.c_attn", "attn.c_proj", "ln_1", "mlp.c_fc", "mlp.c_proj", "ln_2")
    blocks = [f"h.{i}.{kind}.{leaf}" for i in range(n_layer) for kind in kinds for leaf in ("weight", "bias")]
    return [f"transformer.{name}" for name in ("positions_embed.weight", "tokens_embed.weight", *blocks)]


def is_kernel(name: str, weights: Arrays) -> bool:
    return ".h." in name and weights[name].ndim == 2


def write_gpt() -> None:
    path = fresh("openai-gpt")
    weights = truth("gpt")
    names = gpt_order(CONFIGS["gpt"]["n_layer"])
    arrays = [weights[name][None] if is_kernel(name, weights) else weights[name] for name in names]
    (path / "params_shapes.json").write_text(json.dumps([array.shape for array in arrays]))
    flat = np.concatenate([array.ravel() for array in arrays])
    for index, piece in enumerate(np.array_split(flat, 10)):
        np.save(path / f"params_{index}.npy", piece)
    vocabulary, merges = gpt_vocabulary()
    (path / "encoder_bpe_40000.json").write_text(json.dumps(vocabulary))
    (path / "vocab_40000.bpe").write_text("\n".join(["#version: 0.2", *merges, ""]))
    given = inputs()
    record(
        path,
        given,
        run(make("gpt", "lm"), given),
        format="gpt1_npy",
        class_name="OpenAIGPTLMHeadModel",
        key="gpt",
        head="lm",
        software=("numpy", "transformers", "torch"),
        expected_by=EXPECTED_BY.replace("GPT2", "OpenAIGPT"),
        notes="n_head (3) stands in no file; the pieces do not end where tensors end",
    )


def main() -> None:
    notes = "no step in the names, no slots; n_head is in hparams.json only"
    write_gpt2("openai-gpt2", "model.ckpt", None, False, notes)
    notes = "saved by a training program with a plain Saver: Adam's slots, beta1_power and beta2_power are no weights"
    write_gpt2("gpt2simple-run1", "model", 10, True, notes)
    write_gpt()


if __name__ == "__main__":
    main()
