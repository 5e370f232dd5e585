"""Tiny models with random weights, in directories of the names that the original documentation uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from gptzoo import GPT2Tokenizer, OpenAIGPTTokenizerFast, PreTrainedTokenizer
from gptzoo.config import CONFIGS, GPTConfig
from gptzoo.heads import HEADS, class_name
from tests.matrix import random_weights

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = DATA.is_dir()  # the real vocabularies are there
LETTERS = "abcdefghijklmnopqrstuvwxyz,.?!'"

SIZE = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 4}
ESSAYS = ("Lead", "Position", "Evidence", "Claim", "Concluding Statement", "Counterclaim", "Rebuttal")

# Directory -> family, head that the config names, and settings of the config; as of the models on the hub.
NAMES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("gpt2", "LMHeadModel", {}),
    "openai-community/gpt2": ("gpt2", "LMHeadModel", {}),
    "openai-community/gpt2-xl": ("gpt2", "LMHeadModel", {}),
    "microsoft/DialogRPT-updown": ("gpt2", "ForSequenceClassification", {"id2label": {0: "LABEL_0"}}),
    "brad1141/gpt2-finetuned-comp2": ("gpt2", "ForTokenClassification", {"id2label": dict(enumerate(ESSAYS))}),
    "openai-gpt": ("openai-gpt", "LMHeadModel", {}),
    "openai-community/openai-gpt": ("openai-gpt", "LMHeadModel", {}),
    "openai-community/gpt": ("openai-gpt", "LMHeadModel", {}),
}


def save_models(root: Path, all_heads: bool) -> None:
    """Writes every directory.

    Args:
        all_heads: whether a model has the weights of every head, so that each gives the same numbers wherever it is
            loaded, and the real vocabulary if it is there; otherwise it has those of the head that its config names, as
            those on the hub do, and a small vocabulary.
    """
    tokenizers = {family: tokenizer(family, REAL and all_heads) for family in CONFIGS}
    for name, (family, head, settings) in NAMES.items():
        end = tokenizers[family].eos_token_id
        ends = {} if end is None else {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
        config = CONFIGS[family](vocab_size=len(tokenizers[family]), **SIZE, **ends, **settings)
        config.architectures = [class_name(config, head)]
        config.save_pretrained(root / name)
        tokenizers[family].save_pretrained(root / name)
        save_file(tensors(config, HEADS if all_heads else [head]), root / name / "model.safetensors", {"format": "pt"})


def tokenizer(family: str, real: bool = REAL) -> PreTrainedTokenizer:
    """Returns a tokenizer with the real vocabulary or a small one; GPT's has no words, so that all have one length."""
    if family == "gpt2":
        return GPT2Tokenizer.from_pretrained(DATA / family if real else "gptzoo/shakespeare")
    if real:
        return OpenAIGPTTokenizerFast.from_pretrained(DATA / family)
    tokens = ["<unk>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS), "he"]
    return OpenAIGPTTokenizerFast(vocab={token: i for i, token in enumerate(tokens)}, merges=[("h", "e")])


def tensors(config: GPTConfig, heads: Any) -> dict[str, np.ndarray]:
    """Returns the weights of the heads on one backbone."""
    result: dict[str, np.ndarray] = {}
    for head in heads:
        if head != "Model":  # whose names would have no prefix
            result |= {name: value for name, value in random_weights(config, head).items() if name not in result}
    return result
