"""Golden files of Transformers' TensorFlow models: tf_model.h5, whole or in shards, and safetensors with its names."""

from __future__ import annotations

import os
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tensorflow as tf
import torch
import transformers
from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

from tests.golden.common import Arrays, fresh, record, same
from tests.golden.torch_models import OUTPUTS, class_name, given_for, make, make_config, run

SOFTWARE = ("transformers", "tensorflow", "tf_keras", "h5py", "safetensors")


def convert(key: str, head: str, instances: int = 1) -> Any:
    """The TensorFlow model with the golden weights; the last of some instances, whose names are numbered by Keras."""
    tf.keras.backend.clear_session()
    tf_class = getattr(transformers, "TF" + class_name(key, head))
    for _ in range(instances):
        model = tf_class(make_config(key, head))
    return load_pytorch_state_dict_in_tf2_model(model, make(key, head).state_dict())


def run_tf(model: Any, given: Arrays) -> Arrays:
    """The outputs of the heads as arrays."""
    result = model({name: tf.constant(array) for name, array in given.items()}, training=False)
    return {name: result[name].numpy() for name in OUTPUTS if name in result}


def witness(key: str, head: str) -> Any:
    """PyTorch's model; with the exact gelu for GPT, as TensorFlow ignores the config's afn."""
    model = make(key, head)
    if key == "gpt":
        for block in (model if head == "model" else model.transformer).h:
            block.mlp.act = torch.nn.GELU()
    return model


def entry(name: str, key: str, head: str, *, instances: int = 1, notes: str = "", **options: Any) -> None:
    """A model saved by save_pretrained(**options), whose outputs are those of PyTorch."""
    model = convert(key, head, instances)
    path = fresh(name)
    model.save_pretrained(path, **options)
    given = given_for(key, head)
    outputs = run_tf(model, given)
    same(outputs, run(witness(key, head), given), given)
    record(
        path,
        given,
        outputs,
        format="safetensors" if options.get("safe_serialization") else "tf_h5",
        class_name="TF" + class_name(key, head),
        key=key,
        head=head,
        software=SOFTWARE,
        notes=notes,
    )


def main() -> None:
    exact = "TensorFlow computes the exact gelu, PyTorch (torch-gpt-*, same numbers and inputs) the tanh form: 2e-4 off"
    for key, notes in (("gpt2", ""), ("gpt", exact)):
        for head in ("model", "lm", "double", "sequence"):
            entry(f"tf-{key}-{head}", key, head, notes=notes)
    entry("tf-gpt2-second", "gpt2", "lm", instances=2, notes="the second model of its process: the scope ends in _1")
    notes = "datasets stand at the root without the scope, and layer_names lists them; the index has the scope"
    entry("tf-gpt2-sharded", "gpt2", "double", max_shard_size="6KB", notes=notes)
    notes = "names and shapes of TensorFlow's variables, metadata format: tf"
    entry("tf-gpt2-safetensors", "gpt2", "double", safe_serialization=True, notes=notes)
    entry("tf-gpt2-cross", "gpt2_cross", "lm")


if __name__ == "__main__":
    main()
