"""Golden files of Transformers' Flax models: flax_model.msgpack, whole or in shards, and safetensors with its names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import transformers
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers.modeling_flax_pytorch_utils import convert_pytorch_state_dict_to_flax

from tests.golden.common import Arrays, fresh, record, same, truth
from tests.golden.torch_models import OUTPUTS, class_name, given_for, make, make_config, run

SOFTWARE = ("transformers", "flax", "jax", "jaxlib", "msgpack", "safetensors")
jax.config.update("jax_default_matmul_precision", "highest")


def convert(key: str, head: str) -> Any:
    """The Flax model with the golden weights."""
    model = getattr(transformers, "Flax" + class_name(key, head))(make_config(key, head))
    params = flatten_dict(convert_pytorch_state_dict_to_flax(make(key, head).state_dict(), model))
    # As in from_pretrained: a tied model has no lm_head of its own.
    model.params = unflatten_dict({path: jnp.asarray(params[path]) for path in flatten_dict(model.params)})
    return model


def run_flax(model: Any, given: Arrays) -> Arrays:
    """The outputs of the heads as arrays, computed in float32."""
    numbers = {name: jnp.asarray(array) for name, array in given.items()}
    result = model(**numbers, params=model.to_fp32(model.params), train=False)
    return {name: np.asarray(result[name]) for name in OUTPUTS if name in result}


def entry(name: str, key: str, head: str, *, dtype: str = "float32", notes: str = "", **options: Any) -> None:
    """A model saved by save_pretrained(**options), whose outputs are those of PyTorch."""
    model = convert(key, head)
    weights = truth(key)
    if dtype != "float32":
        model.params = jax.tree.map(lambda leaf: leaf.astype(dtype), model.params)
        weights = {title: array.astype(jnp.dtype(dtype)).astype(np.float32) for title, array in weights.items()}
    path = fresh(name)
    model.save_pretrained(path, **options)
    given = given_for(key, head)
    outputs = run_flax(model, given)
    same(outputs, run(make(key, head, weights), given), given)
    record(
        path,
        given,
        outputs,
        format="safetensors" if options.get("safe_serialization") else "flax_msgpack",
        class_name="Flax" + class_name(key, head),
        key=key,
        head=head,
        dtype=dtype,
        software=SOFTWARE,
        notes=notes,
    )


def main() -> None:
    entry("flax-gpt2-model", "gpt2", "model")
    entry("flax-gpt2-lm", "gpt2", "lm")
    entry("flax-gpt2-untied", "gpt2_untied", "lm", notes="lm_head/kernel is (n_embd, vocab_size)")
    entry("flax-gpt2-sharded", "gpt2", "lm", max_shard_size="6KB")
    notes = "Flax's leaf names joined by dots, metadata format: flax"
    entry("flax-gpt2-safetensors", "gpt2", "lm", safe_serialization=True, notes=notes)
    entry("flax-gpt2-bfloat16", "gpt2", "lm", dtype="bfloat16")
    entry("flax-gpt2-cross", "gpt2_cross", "lm")


if __name__ == "__main__":
    main()
