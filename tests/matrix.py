"""The matrix: class x framework x case, as data. Every test over models is a loop over it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gptzoo import weights
from gptzoo._extras import FRAMEWORKS
from gptzoo.config import ACTIVATIONS, CONFIGS, GPTConfig
from gptzoo.heads import class_name
from gptzoo.parity import Runner
from gptzoo.parity._runners import runner_of

TESTED = [name for name in os.environ.get("GPTZOO_FRAMEWORKS", ",".join(FRAMEWORKS)).split(",") if name]
HEADS = ("Model", "LMHeadModel")
CLASSES = [(family, head) for family in CONFIGS for head in HEADS]
CLASS_IDS = [class_name(CONFIGS[family], head) for family, head in CLASSES]
ATTENTIONS = ("eager", "sdpa")

TINY: dict[str, Any] = {"vocab_size": 40, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3}
BATCH, TOKENS, HALF = 3, 8, 5
PAD = 3

TOLERANCE = 1e-6  # max |error| / max |reference|, float32

# Cases whose float32 rounding alone is above the tolerance: (part of the test's case name) -> (tolerance, reason).
# Each number is twice the largest error seen over the three frameworks.
ROUNDING: dict[str, tuple[float, str]] = {
    "all_scale_flags": (2.3e-6, "scores that nothing scales down make the softmax steep: it multiplies their rounding"),
}


def tolerance(case: str) -> float:
    return max((number for part, (number, _) in ROUNDING.items() if part in case), default=TOLERANCE)


Inputs = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Arguments of a call, made from a config and a generator, over a config with some fields changed."""

    make: Callable[[GPTConfig, np.random.Generator], Inputs]
    config: dict[str, Any] = field(default_factory=dict)
    before: Callable[[GPTConfig, np.random.Generator], Inputs] | None = None
    families: tuple[str, ...] = tuple(CONFIGS)
    heads: tuple[str, ...] = HEADS


def ids(config: GPTConfig, rng: np.random.Generator, tokens: int = TOKENS) -> np.ndarray:
    return np.random.default_rng(1).integers(0, config.vocab_size, (BATCH, TOKENS))[:, :tokens]


def mask(side: str) -> np.ndarray:
    """Row 0 padded on a side or inside, row 1 all padding but one token, row 2 full."""
    result = np.ones((BATCH, TOKENS), int)
    rows = {
        "left": (slice(0, PAD), slice(0, -1)),
        "right": (slice(-PAD, None), slice(1, None)),
        "inner": (slice(2, 4), slice(3, 7)),
    }
    result[0, rows[side][0]] = 0
    result[1, rows[side][1]] = 0
    return result


def _plain(config: GPTConfig, rng: np.random.Generator) -> Inputs:
    return {"input_ids": ids(config, rng)}


def _with(**more: Any) -> Callable[[GPTConfig, np.random.Generator], Inputs]:
    """The plain call with further arguments; functions among them are called with the config and the generator."""

    def make(config: GPTConfig, rng: np.random.Generator) -> Inputs:
        extra = {name: value(config, rng) if callable(value) else value for name, value in more.items()}
        return _plain(config, rng) | extra

    return make


def _embeds(config: GPTConfig, rng: np.random.Generator) -> Inputs:
    return {"inputs_embeds": rng.standard_normal((BATCH, TOKENS, config.n_embd)).astype(np.float32)}


def _part(start: int, stop: int, side: str | None = None) -> Callable[[GPTConfig, np.random.Generator], Inputs]:
    """Tokens from start to stop; the mask, if any, covers those before too."""

    def make(config: GPTConfig, rng: np.random.Generator) -> Inputs:
        result: Inputs = {"input_ids": ids(config, rng)[:, start:stop]}
        return result if side is None else result | {"attention_mask": mask(side)[:, :stop]}

    return make


def _types(config: GPTConfig, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2, (BATCH, TOKENS))


def _shuffled(config: GPTConfig, rng: np.random.Generator) -> np.ndarray:
    return np.stack([rng.permutation(config.n_positions)[:TOKENS] for _ in range(BATCH)])


def _labels(config: GPTConfig, rng: np.random.Generator) -> np.ndarray:
    return np.where(mask("right") == 1, ids(config, rng), -100)


def _states(config: GPTConfig, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((BATCH, 4, config.n_embd)).astype(np.float32)


def _head_mask(*shape: str) -> Callable[[GPTConfig, np.random.Generator], np.ndarray]:
    return lambda config, rng: rng.random([getattr(config, dim) for dim in shape]).astype(np.float32)


ENCODER_MASK = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
ENCODER = {"add_cross_attention": True}
EVERYTHING = {"output_hidden_states": True, "output_attentions": True}
GPT2_ONLY, LM_ONLY = ("gpt2",), ("LMHeadModel",)

CASES: dict[str, Case] = {
    "plain": Case(_plain),
    "everything": Case(_with(**EVERYTHING)),
    "no_cache": Case(_with(use_cache=False, output_hidden_states=True)),
    **{f"{side}_padding": Case(_with(attention_mask=mask(side), **EVERYTHING)) for side in ("left", "right", "inner")},
    "float_mask": Case(_with(attention_mask=mask("left").astype(np.float32))),
    "all_padding": Case(_with(attention_mask=np.zeros((BATCH, TOKENS), int), output_hidden_states=True)),
    "token_types": Case(_with(token_type_ids=_types)),
    "zero_token_types": Case(_with(token_type_ids=np.zeros((BATCH, TOKENS), int))),
    "positions": Case(_with(position_ids=_shuffled)),
    "positions_and_padding": Case(_with(position_ids=_shuffled, attention_mask=mask("right"))),
    "one_row_of_positions": Case(_with(position_ids=np.arange(TOKENS)[None] + 2)),
    "embeds": Case(_embeds),
    "head_mask": Case(_with(head_mask=_head_mask("n_layer", "n_head"), **EVERYTHING)),
    "one_head_mask": Case(_with(head_mask=_head_mask("n_head"))),
    "cache": Case(_part(HALF, TOKENS), before=_part(0, HALF)),
    "cache_one_token": Case(_part(TOKENS - 1, TOKENS), before=_part(0, TOKENS - 1)),
    "cache_left_padding": Case(_part(HALF, TOKENS, "left"), before=_part(0, HALF, "left")),
    "cache_everything": Case(
        lambda config, rng: _part(HALF, TOKENS, "left")(config, rng) | EVERYTHING, before=_part(0, HALF, "left")
    ),
    "choices": Case(lambda config, rng: {"input_ids": ids(config, rng)[None, ..., :4], "output_hidden_states": True}),
    "one_token": Case(_part(0, 1)),
    "full_length": Case(lambda config, rng: {"input_ids": rng.integers(0, config.vocab_size, (2, config.n_positions))}),
    "labels": Case(_with(labels=_labels), heads=LM_ONLY),
    "labels_and_padding": Case(_with(labels=_labels, attention_mask=mask("right")), heads=LM_ONLY),
    "ignored_labels": Case(_with(labels=np.full((BATCH, TOKENS), -100)), heads=LM_ONLY),
    "labels_keep": Case(_with(labels=_labels, logits_to_keep=1), heads=LM_ONLY),
    "keep_two": Case(_with(logits_to_keep=2), heads=LM_ONLY),
    "keep_by_index": Case(_with(logits_to_keep=np.array([0, 3])), heads=LM_ONLY),
    "untied": Case(_plain, {"tie_word_embeddings": False}, heads=LM_ONLY),
    "encoder": Case(_with(encoder_hidden_states=_states, **EVERYTHING), ENCODER, families=GPT2_ONLY),
    "encoder_mask": Case(
        _with(
            encoder_hidden_states=_states,
            encoder_attention_mask=ENCODER_MASK,
            attention_mask=mask("left"),
            **EVERYTHING,
        ),
        ENCODER,
        families=GPT2_ONLY,
    ),
    "encoder_mask_3d": Case(
        _with(encoder_hidden_states=_states, encoder_attention_mask=ENCODER_MASK[:, None]), ENCODER, families=GPT2_ONLY
    ),
    "no_encoder": Case(_with(output_attentions=True), ENCODER, families=GPT2_ONLY),
    "encoder_head_mask": Case(
        _with(encoder_hidden_states=_states, head_mask=_head_mask("n_layer", "n_head")), ENCODER, families=GPT2_ONLY
    ),
    "narrow_mlp": Case(_plain, {"n_inner": 20}, families=GPT2_ONLY),
    "wide_epsilon": Case(_plain, {"layer_norm_epsilon": 1e-3}),
    "one_head": Case(_plain, {"n_head": 1}),
    "one_layer": Case(_plain, {"n_layer": 1}),
    "no_scale": Case(_plain, {"scale_attn_weights": False}, families=GPT2_ONLY),
    "scale_by_layer": Case(_plain, {"scale_attn_by_inverse_layer_idx": True}, families=GPT2_ONLY),
    "upcast": Case(_plain, {"reorder_and_upcast_attn": True}, families=GPT2_ONLY),
    "all_scale_flags": Case(
        _with(encoder_hidden_states=_states),
        ENCODER
        | {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
        families=GPT2_ONLY,
    ),
    **{f"activation_{name}": Case(_plain, {"activation_function": name}, families=GPT2_ONLY) for name in ACTIVATIONS},
    **{f"afn_{name}": Case(_plain, {"afn": name}, families=("openai-gpt",)) for name in ACTIVATIONS},
}


def tiny(family: str, **overrides: Any) -> GPTConfig:
    return CONFIGS[family](**(TINY | overrides))


def random_weights(config: GPTConfig, head: str, std: float = 0.2, seed: int = 0) -> dict[str, np.ndarray]:
    """Every stored weight with errors large enough to show: std 0.2, biases and norms included."""
    rng = np.random.default_rng(seed)
    result = {}
    for name, spec in weights.specs(config, head).items():
        if not spec.tied:
            center = 1.0 if spec.row.init == "ones" else 0.0
            result[name] = (center + std * rng.standard_normal(spec.shape)).astype(np.float32)
    return result


def model_class(framework: str, config: GPTConfig, head: str) -> Any:
    import importlib

    return getattr(importlib.import_module(f"gptzoo.{framework}"), class_name(config, head))


def build(
    framework: str, config: GPTConfig, head: str, values: dict[str, np.ndarray] | None = None, **options: Any
) -> Runner:
    """A model of a framework with given weights, in evaluation mode, as a Runner."""
    model = model_class(framework, config, head)(config, **options)
    for name, value in (values or {}).items():
        model.set_weight(name, value)
    if framework == "torch":
        model.eval()
    return runner_of(framework, model)


def stored(runner: Runner, name: str) -> np.ndarray:
    """The value of a weight."""
    weight = runner.model.get_weight(name)
    return runner.numpy(weight.get_value() if runner.framework == "flax" else weight)


def error(found: Any, wanted: Any) -> float:
    """Largest error over the largest value of the reference; infinite where shapes or finiteness differ."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if found.shape != wanted.shape or not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        return float("inf")
    scale = np.abs(wanted).max(initial=0.0)
    return float(np.abs(found - wanted).max(initial=0.0) / (scale or 1.0))


def leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, tuple) else [value]
