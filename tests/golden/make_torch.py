"""Golden files of Transformers' PyTorch models: safetensors and pickled state dicts, old and new, also in shards."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save_file

from tests.golden.common import fresh, record
from tests.golden.torch_models import class_name, given_for, make, run

SOFTWARE = ("transformers", "torch", "safetensors")
SHARD = "6KB"


def entry(name: str, key: str, head: str, *, dtype: str = "float32", notes: str = "", **options: Any) -> None:
    """A model saved by save_pretrained(**options)."""
    model = make(key, head).to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    path = fresh(name)
    model.save_pretrained(path, **options)
    finish(path, model, key, head, options.get("safe_serialization", True), dtype, notes)


def finish(path: Any, model: Any, key: str, head: str, safe: bool, dtype: str, notes: str) -> None:
    given = given_for(key, head)
    record(
        path,
        given,
        run(model, given),
        format="safetensors" if safe else "pytorch_bin",
        class_name=class_name(key, head),
        key=key,
        head=head,
        dtype=dtype,
        software=SOFTWARE,
        notes=notes,
    )


def with_buffers(model: Any, base: bool, mask_dtype: torch.dtype, masked_bias: bool) -> dict[str, torch.Tensor]:
    """A state dict as old versions kept it: the causal mask of each block was saved too, before the block's weights."""
    size = model.config.n_positions
    mask = torch.tril(torch.ones(size, size, dtype=mask_dtype)).view(1, 1, size, size)
    state = model.state_dict()
    result = type(state)()
    for name, tensor in state.items():
        if base and name == "lm_head.weight":
            continue
        short = name.removeprefix("transformer.") if base else name
        if short.endswith("attn.c_attn.weight"):
            block = short.removesuffix("c_attn.weight")
            result[f"{block}bias"] = mask.clone()
            if masked_bias:
                result[f"{block}masked_bias"] = torch.tensor(-1e4)
        result[short] = tensor
    return result


def old_pickle() -> None:
    """The way of torch < 1.6 and the names of the hub's first files: no zip archive, no prefix, the masks kept."""
    model = make("gpt2", "lm")
    path = fresh("torch-gpt2-hub-bin")
    model.config.architectures = ["GPT2LMHeadModel"]
    model.config.save_pretrained(path)
    state = with_buffers(model, base=True, mask_dtype=torch.uint8, masked_bias=True)
    torch.save(state, path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    notes = "not a zip archive; base names; h.N.attn.bias (uint8) and h.N.attn.masked_bias are masks, not weights"
    finish(path, model, "gpt2", "lm", False, "float32", notes)


def hub_safetensors() -> None:
    """The names of openai-community/gpt2's model.safetensors."""
    model = make("gpt2", "lm")
    path = fresh("torch-gpt2-hub")
    model.config.architectures = ["GPT2LMHeadModel"]
    model.config.save_pretrained(path)
    state = with_buffers(model, base=True, mask_dtype=torch.float32, masked_bias=False)
    save_file(dict(state), path / "model.safetensors", metadata={"format": "pt"})
    finish(path, model, "gpt2", "lm", True, "float32", "base names in the file of a LM; h.N.attn.bias are float masks")


def main() -> None:
    for head in ("model", "lm", "double", "sequence", "token", "qa"):
        entry(f"torch-gpt2-{head}", "gpt2", head)
    for head in ("model", "lm", "double", "sequence"):
        entry(f"torch-gpt-{head}", "gpt", head)
    for key in ("gpt2", "gpt"):
        entry(f"torch-{key}-lm-bin", key, "lm", safe_serialization=False, notes="holds the tied lm_head.weight")
    for dtype in ("float16", "bfloat16"):
        entry(f"torch-gpt2-{dtype}", "gpt2", "lm", dtype=dtype)
        entry(f"torch-gpt2-{dtype}-bin", "gpt2", "lm", dtype=dtype, safe_serialization=False)
    entry("torch-gpt2-sharded", "gpt2", "lm", max_shard_size=SHARD)
    entry("torch-gpt2-sharded-bin", "gpt2", "lm", max_shard_size=SHARD, safe_serialization=False)
    entry("torch-gpt2-untied", "gpt2_untied", "lm")
    entry("torch-gpt2-cross", "gpt2_cross", "lm")
    old_pickle()
    hub_safetensors()


if __name__ == "__main__":
    main()
