"""llama.cpp's layout of GPT-2: a GGUF file with the config and the tokenizer in it, linear weights as (out, in)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gptzoo._tensors import shown
from gptzoo._vocabulary import END_OF_TEXT, HEADER, MERGES, VOCAB, all_ids, bpe_files
from gptzoo.config import GPTConfig
from gptzoo.errors import CheckpointError, ConversionError
from gptzoo_conversion.cells import TRANSPOSED, cell, column
from gptzoo_conversion.containers.gguf import read_gguf, write_gguf
from gptzoo_conversion.format import Format, Source, Target
from gptzoo_conversion.layouts.openai_gpt2 import GRANTED

ARCHITECTURE = "gpt2"
FILE_TYPES = {"float32": 0, "float16": 1, "bfloat16": 32}

# Keys of the file -> config.json
FIELDS = {
    "gpt2.block_count": "n_layer",
    "gpt2.context_length": "n_positions",
    "gpt2.embedding_length": "n_embd",
    "gpt2.feed_forward_length": "n_inner",
    "gpt2.attention.head_count": "n_head",
    "gpt2.attention.layer_norm_epsilon": "layer_norm_epsilon",
    "gpt2.vocab_size": "vocab_size",
    "tokenizer.ggml.bos_token_id": "bos_token_id",
    "tokenizer.ggml.eos_token_id": "eos_token_id",
}
NORMAL_TOKEN, CONTROL_TOKEN, UNUSED_TOKEN = 1, 3, 5  # values of tokenizer.ggml.token_type

SAID = ("layer_norm_epsilon", "tie_word_embeddings")  # by the file itself
FIXED = {name: value for name, value in GRANTED.items() if name not in SAID}

COLUMN = column(
    {
        "wte.weight": "token_embd.weight",
        "wpe.weight": "position_embd.weight",
        "h.{i}.ln_1.weight": "blk.{i}.attn_norm.weight",
        "h.{i}.ln_1.bias": "blk.{i}.attn_norm.bias",
        "h.{i}.attn.c_attn.weight": cell("blk.{i}.attn_qkv.weight", TRANSPOSED),
        "h.{i}.attn.c_attn.bias": "blk.{i}.attn_qkv.bias",
        "h.{i}.attn.c_proj.weight": cell("blk.{i}.attn_output.weight", TRANSPOSED),
        "h.{i}.attn.c_proj.bias": "blk.{i}.attn_output.bias",
        "h.{i}.ln_2.weight": "blk.{i}.ffn_norm.weight",
        "h.{i}.ln_2.bias": "blk.{i}.ffn_norm.bias",
        "h.{i}.mlp.c_fc.weight": cell("blk.{i}.ffn_up.weight", TRANSPOSED),
        "h.{i}.mlp.c_fc.bias": "blk.{i}.ffn_up.bias",
        "h.{i}.mlp.c_proj.weight": cell("blk.{i}.ffn_down.weight", TRANSPOSED),
        "h.{i}.mlp.c_proj.bias": "blk.{i}.ffn_down.bias",
        "ln_f.weight": "output_norm.weight",
        "ln_f.bias": "output_norm.bias",
        "lm_head.weight": "output.weight",
    }
)


class Gguf(Format):
    """Numbers as they are: float32, float16 or bfloat16, never quantized."""

    name = "gguf"
    file = "model.gguf"
    suffixes = (".gguf",)
    column = COLUMN
    families = ("gpt2",)
    dtypes = ("float16", "bfloat16", "float32")
    fixed = FIXED

    def matches(self, path: Path, start: bytes) -> bool:
        return start.startswith(b"GGUF")

    def says_config(self, file: str) -> bool:
        return True

    def open(self, path: Path) -> Source:
        file = read_gguf(path)
        keys = file.metadata
        if keys.get("general.architecture") != ARCHITECTURE:
            found = keys.get("general.architecture")
            raise CheckpointError(f"{path}: general.architecture: {found!r:.80}, expected {ARCHITECTURE!r}")
        config: dict[str, Any] = self.fixed | {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
        config |= {ours: keys[theirs] for theirs, ours in FIELDS.items() if theirs in keys}
        config["layer_norm_epsilon"] = _shortest(config.get("layer_norm_epsilon"))
        config |= {"tie_word_embeddings": False} if "output.weight" in file.tensors else {}
        if config.get("n_inner") == 4 * config.get("n_embd", 0):
            config["n_inner"] = None
        return Source({path.name: file}, self.column, config=config, vocabulary=_vocabulary(path, keys))

    def problems(self, config: GPTConfig, head: str) -> list[str]:
        problems, epsilon = super().problems(config, head), config.layer_norm_epsilon
        if _shortest(epsilon) != epsilon:
            problems.append(f"layer_norm_epsilon {epsilon}: {self.name} holds a float32, {_shortest(epsilon)}")
        return problems

    def write(self, target: Target) -> None:
        config = target.config
        keys: dict[str, Any] = {"general.architecture": ARCHITECTURE, "general.name": target.file.removesuffix(".gguf")}
        values = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
        values["gpt2.feed_forward_length"] = config.n_mlp
        dtypes = [info.dtype for info in target.infos.values() if len(info.shape) > 1]
        keys |= {name: value for name, value in values.items() if type(value) in (int, float)}
        keys["general.file_type"] = FILE_TYPES[max(set(dtypes), key=dtypes.count)]
        keys |= _tokenizer_keys(target)
        write_gguf(target.directory / target.file, target.infos, target.read, keys)
        self.finish(target)


def _shortest(value: Any) -> Any:
    """Returns the shortest decimal that is the same float32: the file's 1e-5 has no more digits than that."""
    import numpy as np

    return float(str(np.float32(value))) if isinstance(value, float) else value


def _tokenizer_keys(target: Target) -> dict[str, Any]:
    """Returns the tokenizer as llama.cpp wants it; nothing if there is none."""
    files = bpe_files(target.vocabulary)
    if not files:
        return {}
    tokens = [f"[PAD{i}]" for i in range(target.config.vocab_size)]
    types = [UNUSED_TOKEN] * len(tokens)
    plain = json.loads(files[VOCAB])
    for token, number in all_ids(target.vocabulary).items():
        if number >= len(tokens):
            found = f"{shown(token)} has id {number}"
            raise ConversionError(f"{VOCAB}: {found}, expected ids below vocab_size {len(tokens)}")
        tokens[number] = token
        types[number] = NORMAL_TOKEN if token in plain and token != END_OF_TEXT else CONTROL_TOKEN
    lines = files[MERGES].decode().splitlines()
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [line for line in lines if line and not line.startswith("#version")],
    }


def _vocabulary(path: Path, keys: dict[str, Any]) -> dict[str, bytes]:
    tokens, merges = keys.get("tokenizer.ggml.tokens"), keys.get("tokenizer.ggml.merges")
    if tokens is None or merges is None:
        return {}
    types = keys.get("tokenizer.ggml.token_type", [NORMAL_TOKEN] * len(tokens))
    if not _is_list(tokens, str) or not _is_list(merges, str) or not _is_list(types, int) or len(types) != len(tokens):
        raise CheckpointError(f"{path}: tokenizer.ggml: expected tokens, merges and token_type as lists that fit")
    ids = {token: i for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind != UNUSED_TOKEN}
    text = json.dumps(ids, ensure_ascii=False).encode()
    return {VOCAB: text, MERGES: "\n".join([HEADER, *merges, ""]).encode()}


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)
