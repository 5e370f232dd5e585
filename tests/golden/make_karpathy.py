"""Golden files in the layouts of nanoGPT (ckpt.pt) and llm.c (.bin), by small programs of our own."""

from __future__ import annotations

import numpy as np
import torch
from ml_dtypes import bfloat16
from torch import nn
from torch.nn import functional as F

from tests.golden.common import CONFIGS, Arrays, fresh, inputs, record, same, truth
from tests.golden.torch_models import make, run

CONFIG = CONFIGS["nanogpt"]
WIDTH, HEADS = CONFIG["n_embd"], CONFIG["n_head"]


class Norm(nn.Module):
    """A layer norm whose bias may be absent."""

    def __init__(self, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(WIDTH))
        self.bias = nn.Parameter(torch.empty(WIDTH)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), self.weight, self.bias, 1e-5)


class Block(nn.Module):
    """nanoGPT's names and shapes: linear layers (out, in), the exact gelu."""

    def __init__(self, bias: bool):
        super().__init__()
        self.ln_1 = Norm(bias)
        self.attn = nn.ModuleDict(
            {"c_attn": nn.Linear(WIDTH, 3 * WIDTH, bias=bias), "c_proj": nn.Linear(WIDTH, WIDTH, bias=bias)}
        )
        self.ln_2 = Norm(bias)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(WIDTH, 4 * WIDTH, bias=bias), "c_proj": nn.Linear(4 * WIDTH, WIDTH, bias=bias)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.attn["c_attn"](self.ln_1(x)).split(WIDTH, dim=2)
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.attn["c_proj"](y)
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class NanoGPT(nn.Module):
    """A model with nanoGPT's state dict, lm_head tied."""

    def __init__(self, bias: bool):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(CONFIG["vocab_size"], WIDTH),
                "wpe": nn.Embedding(CONFIG["n_positions"], WIDTH),
                "h": nn.ModuleList(Block(bias) for _ in range(CONFIG["n_layer"])),
                "ln_f": Norm(bias),
            }
        )
        self.lm_head = nn.Linear(WIDTH, CONFIG["vocab_size"], bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(self.transformer["ln_f"](x))


def is_kernel(name: str) -> bool:
    return ".h." in name and name.endswith(".weight") and ".ln_" not in name


def fill(model: NanoGPT, weights: Arrays) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = weights[name]
            parameter.copy_(torch.from_numpy((value.T if is_kernel(name) else value).copy()))


def write_nanogpt(name: str, key: str, bias: bool, compiled: bool, notes: str) -> None:
    """Trains one step, so that the optimizer has its state, then puts the golden weights back and saves."""
    weights, given = truth(key), inputs("plain")
    model = NanoGPT(bias)
    fill(model, weights)
    decayed = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95))
    ids = torch.from_numpy(given["input_ids"])
    loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    fill(model, weights)
    arguments = {field: CONFIG[field] for field in ("n_layer", "n_head", "n_embd")}
    arguments |= {"block_size": CONFIG["n_positions"], "bias": bias, "vocab_size": CONFIG["vocab_size"], "dropout": 0.0}
    checkpoint = {
        "model": (nn.ModuleDict({"_orig_mod": model}) if compiled else model).state_dict(),
        "optimizer": optimizer.state_dict(),
        "model_args": arguments,
        "iter_num": 1,
        "best_val_loss": loss.detach(),
        "config": {"out_dir": "out", "eval_interval": 2000, "learning_rate": 6e-4, "compile": compiled},
    }
    path = fresh(name)
    torch.save(checkpoint, path / "ckpt.pt")
    with torch.no_grad():
        outputs = {"logits": model(ids).numpy()}
    same(outputs, run(make(key, "lm"), given), given)
    record(
        path,
        given,
        outputs,
        format="nanogpt",
        class_name="GPT2LMHeadModel",
        key=key,
        head="lm",
        software=("torch",),
        expected_by="a module with nanoGPT's names, shapes and computation (tests/golden/make_karpathy.py)",
        notes=notes,
    )


def write_llmc(name: str, filename: str, version: int, dtype: type) -> None:
    """llm.c's write_model: 256 int32 of header, then each kind of tensor for all layers."""
    config, weights = CONFIGS["gpt2_plain"], truth("gpt2_plain")
    sizes = [config[field] for field in ("n_positions", "vocab_size", "n_layer", "n_head", "n_embd")]
    padding = -config["vocab_size"] % 128
    header = np.zeros(256, "<i4")
    header[:8] = [20240326, version, *sizes, config["vocab_size"] + padding]
    kinds = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    leaves = [(kind, leaf) for kind in kinds for leaf in ("weight", "bias")]
    names = [f"transformer.h.{i}.{kind}.{leaf}" for kind, leaf in leaves for i in range(config["n_layer"])]
    names += ["transformer.ln_f.weight", "transformer.ln_f.bias"]
    arrays = [np.pad(weights["transformer.wte.weight"], ((0, padding), (0, 0))), weights["transformer.wpe.weight"]]
    arrays += [weights[title].T if is_kernel(title) else weights[title] for title in names]
    path = fresh(name)
    blobs = [array.astype(dtype).tobytes() for array in arrays]  # in C order; the machine is little-endian
    (path / filename).write_bytes(header.tobytes() + b"".join(blobs))
    rounded = {title: value.astype(dtype).astype(np.float32) for title, value in weights.items()}
    given = inputs()
    record(
        path,
        given,
        run(make("gpt2_plain", "lm", rounded), given),
        format="llmc",
        class_name="GPT2LMHeadModel",
        key="gpt2_plain",
        head="lm",
        dtype=np.dtype(dtype).name,
        software=("numpy", "transformers", "torch"),
        expected_by="GPT2LMHeadModel of Transformers' PyTorch, holding the same numbers",
        notes="n_positions 16, padded vocabulary 128 of which 40 are real",
    )


def main() -> None:
    notes = "compiled: names start with _orig_mod.; the exact gelu; a vocabulary of 64"
    write_nanogpt("nanogpt-bias", "nanogpt", True, True, notes)
    notes = "no bias anywhere, norms included; truth has them as zeros; the exact gelu; a vocabulary of 64"
    write_nanogpt("nanogpt-unbiased", "nanogpt_unbiased", False, False, notes)
    write_llmc("llmc-float32", "gpt2_tiny.bin", 3, np.float32)
    write_llmc("llmc-bfloat16", "gpt2_tiny_bf16.bin", 5, bfloat16)


if __name__ == "__main__":
    main()
