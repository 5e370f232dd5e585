"""What the scripts of the golden files share: the tiny configs, their weights, the inputs, the writing of an entry."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent
SEED = 20240607
PAD = 38
SIZES = {
    "vocab_size": 40,
    "n_positions": 16,
    "n_embd": 12,
    "n_layer": 2,
    "n_head": 3,
    "bos_token_id": 39,
    "eos_token_id": 39,
    "pad_token_id": PAD,
}
GPT2 = {"model_type": "gpt2", **SIZES, "n_inner": 20}
PLAIN = {**GPT2, "n_inner": None}
NANOGPT = {**PLAIN, "vocab_size": 64, "activation_function": "gelu"}

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "gpt2_untied": {**GPT2, "tie_word_embeddings": False},
    "gpt2_cross": {**GPT2, "add_cross_attention": True},
    "gpt2_plain": PLAIN,
    "nanogpt": NANOGPT,
    "nanogpt_unbiased": NANOGPT,
    "gpt": {"model_type": "openai-gpt", **SIZES},
}
NUM_LABELS = 3
HEAD_TENSORS: dict[str, tuple[str, ...]] = {
    "model": (),
    "lm": ("lm_head.",),
    "double": ("lm_head.", "multiple_choice_head."),
    "sequence": ("score.",),
    "token": ("classifier.",),
    "qa": ("qa_outputs.",),
}

Arrays = dict[str, np.ndarray]


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every tensor that some head of a config has; a tied lm_head is not one of them."""
    gpt2 = config["model_type"] == "gpt2"
    tokens, positions = ("wte", "wpe") if gpt2 else ("tokens_embed", "positions_embed")
    width = config["n_embd"]
    result: dict[str, tuple[int, ...]] = {
        f"transformer.{tokens}.weight": (config["vocab_size"], width),
        f"transformer.{positions}.weight": (config["n_positions"], width),
    }
    for layer in range(config["n_layer"]):
        result |= {f"transformer.h.{layer}.{name}": shape for name, shape in block_shapes(config).items()}
    if gpt2:
        result |= {"transformer.ln_f.weight": (width,), "transformer.ln_f.bias": (width,)}
    if not config.get("tie_word_embeddings", True):
        result["lm_head.weight"] = (config["vocab_size"], width)
    result |= linear("multiple_choice_head.summary", 1, width)
    result["score.weight"] = (NUM_LABELS, width)
    if gpt2:
        result |= linear("classifier", NUM_LABELS, width) | linear("qa_outputs", 2, width)
    return result


def block_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner = config["n_embd"], config.get("n_inner") or 4 * config["n_embd"]
    kernels = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, inner),
        "mlp.c_proj": (inner, width),
    }
    norms = ["ln_1", "ln_2"]
    if config.get("add_cross_attention"):
        kernels |= {
            "crossattention.c_attn": (width, 2 * width),
            "crossattention.q_attn": (width, width),
            "crossattention.c_proj": (width, width),
        }
        norms.append("ln_cross_attn")
    result: dict[str, tuple[int, ...]] = {}
    for name, shape in kernels.items():
        result |= {f"{name}.weight": shape, f"{name}.bias": shape[-1:]}
    for name in norms:
        result |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return result


def linear(name: str, n_out: int, n_in: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def truth(key: str) -> Arrays:
    """The float32 weights of a config; the same name holds the same numbers in every config that has its shape."""
    result = {}
    for name, shape in shapes(CONFIGS[key]).items():
        draw = np.random.default_rng([SEED, zlib.crc32(name.encode())]).standard_normal(shape)
        center = 1.0 if ".ln_" in name and name.endswith(".weight") else 0.0
        result[name] = (center + 0.2 * draw).astype(np.float32)
        if key == "nanogpt_unbiased" and name.startswith("transformer.") and name.endswith(".bias"):
            result[name][:] = 0
    return result


def inputs(what: str = "padded") -> Arrays:
    """int64 inputs: "padded" (a full, a left-padded and a right-padded row), "plain", "choices" or "cross"."""
    rng = np.random.default_rng(SEED)
    if what == "choices":
        return {"input_ids": rng.integers(0, PAD, (2, 2, 6)), "mc_token_ids": np.array([[5, 3], [0, 4]])}
    ids = rng.integers(0, PAD, (3, 7))
    if what == "plain":
        return {"input_ids": ids}
    mask = np.array([[1] * 7, [0] * 2 + [1] * 5, [1] * 4 + [0] * 3])
    padded = {
        "input_ids": np.where(mask == 1, ids, PAD),
        "attention_mask": mask,
        "position_ids": np.maximum(mask.cumsum(1) - 1, 0),
    }
    if what == "cross":
        padded["encoder_hidden_states"] = rng.standard_normal((3, 5, SIZES["n_embd"])).astype(np.float32)
        padded["encoder_attention_mask"] = np.array([[1] * 5, [0, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return padded


def fresh(name: str) -> Path:
    """The emptied directory of an entry."""
    path = GOLDEN / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def record(
    path: Path,
    given: Arrays,
    outputs: Mapping[str, Any],
    *,
    format: str,
    class_name: str,
    key: str,
    head: str,
    software: tuple[str, ...],
    dtype: str = "float32",
    expected_by: str | None = None,
    notes: str = "",
) -> None:
    """Writes an entry's expected.npz and its line of index.json."""
    computed = {name: np.asarray(value, np.float32) for name, value in outputs.items()}
    if bad := [name for name, value in computed.items() if not np.isfinite(value).all()]:
        raise ValueError(f"{path.name}: not finite: {bad}")
    np.savez(path / "expected.npz", **given, **computed)
    for found in path.rglob("*"):
        found.chmod(0o755 if found.is_dir() else 0o644)
    index_path = GOLDEN / "index.json"
    index = json.loads(index_path.read_text()) if index_path.exists() else {}
    index[path.name] = {
        "format": format,
        "class": class_name,
        "dtype": dtype,
        "truth": key,
        "head_tensors": [name for name in shapes(CONFIGS[key]) if name.startswith(HEAD_TENSORS[head] or "-")],
        "inputs": list(given),
        "outputs": list(computed),
        "expected_by": expected_by or class_name,
        "software": {name: version(name) for name in software},
        "files": sorted(found.name for found in path.iterdir() if found.name != "expected.npz"),
        "notes": notes,
    }
    index_path.write_text(json.dumps(dict(sorted(index.items())), indent=2) + "\n")


def same(found: Mapping[str, Any], wanted: Mapping[str, Any], given: Arrays, tolerance: float = 2e-6) -> None:
    """Raises where one software's outputs are not another's, padded positions left out."""
    for name in wanted:
        one, other = np.asarray(found[name], np.float64), np.asarray(wanted[name], np.float64)
        if "attention_mask" in given and one.ndim > 2:
            real = given["attention_mask"] == 1
            one, other = one[real], other[real]
        error = np.abs(one - other).max() / np.abs(other).max()
        if not error <= tolerance:
            raise ValueError(f"{name}: differs by {error:.1e}")
