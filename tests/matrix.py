"""The matrix: class x framework x case, as data. Every test over models is a loop over it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gptzoo import weights
from gptzoo._extras import FRAMEWORKS
from gptzoo._runners import runner_of
from gptzoo.config import CONFIGS, MLP_ACTIVATIONS, GPTConfig
from gptzoo.heads import HEADS as HEAD_TABLE
from gptzoo.heads import class_name
from gptzoo.parity import Runner

TESTED = [name for name in os.environ.get("GPTZOO_FRAMEWORKS", ",".join(FRAMEWORKS)).split(",") if name]
CORE = ("Model", "LMHeadModel")  # they go through every case; the other heads share the same backbones
HEADS = tuple(HEAD_TABLE)
CLASSES = [(family, head) for family in CONFIGS for head in HEADS]
CLASS_IDS = [class_name(CONFIGS[family], head) for family, head in CLASSES]
ATTENTIONS = ("eager", "sdpa")

TINY: dict[str, Any] = {"vocab_size": 40, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3}
BATCH, CHOICES, TOKENS, HALF = 3, 4, 8, 5
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
    heads: tuple[str, ...] = CORE


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
DOUBLE, SEQUENCE = ("DoubleHeadsModel",), ("ForSequenceClassification",)
TOKEN, SPAN = ("ForTokenClassification",), ("ForQuestionAnswering",)

CASES: dict[str, Case] = {
    "plain": Case(_plain),
    "everything": Case(_with(**EVERYTHING)),
    "no_cache": Case(_with(use_cache=False, output_hidden_states=True)),
    **{
        f"{side}_padding": Case(_with(attention_mask=mask(side), **EVERYTHING), heads=HEADS)
        for side in ("left", "right", "inner")
    },
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
    **{
        f"activation_{name}": Case(_plain, {"activation_function": name}, families=GPT2_ONLY)
        for name in MLP_ACTIVATIONS
    },
    **{f"afn_{name}": Case(_plain, {"afn": name}, families=("openai-gpt",)) for name in MLP_ACTIVATIONS},
}

# What the other heads have beside the backbone, which the cases above go through.

PAD_ID = {"pad_token_id": 39}


def _pads(side: str) -> Callable[[GPTConfig, np.random.Generator], Inputs]:
    """Tokens with the pad id where the mask of that side is 0."""
    return lambda config, rng: {"input_ids": np.where(mask(side) == 1, ids(config, rng) % 39, 39)}


def _choices(**more: Any) -> Callable[[GPTConfig, np.random.Generator], Inputs]:
    """(B, C, T) tokens with a mask that leaves each choice another length."""
    lengths = np.arange(BATCH * CHOICES).reshape(BATCH, CHOICES, 1) % (TOKENS - 1) + 1
    masks = {
        "left": np.arange(TOKENS)[::-1] < lengths,
        "right": np.arange(TOKENS) < lengths,
    }

    def make(config: GPTConfig, rng: np.random.Generator) -> Inputs:
        extra = {name: value(config, rng) if callable(value) else value for name, value in more.items()}
        if isinstance(extra.get("attention_mask"), str):
            extra["attention_mask"] = masks[extra["attention_mask"]].astype(int)
        return {"input_ids": rng.integers(0, config.vocab_size, (BATCH, CHOICES, TOKENS))} | extra

    return make


def _choice_labels(config: GPTConfig, rng: np.random.Generator) -> np.ndarray:
    tokens = rng.integers(0, config.vocab_size, (BATCH, CHOICES, TOKENS))
    return np.where(rng.random(tokens.shape) < 0.3, -100, tokens)


def _classes(*shape: int, dtype: str = "int64") -> Callable[[GPTConfig, np.random.Generator], np.ndarray]:
    return lambda config, rng: rng.integers(0, config.num_labels, shape).astype(dtype)


def _numbers(*shape: int) -> Callable[[GPTConfig, np.random.Generator], np.ndarray]:
    return lambda config, rng: rng.standard_normal(shape).astype(np.float32)


def _labelled(labels: Any, **more: Any) -> Callable[[GPTConfig, np.random.Generator], Inputs]:
    return _with(labels=labels, attention_mask=mask("right"), **more)


def _choice_embeds(config: GPTConfig, rng: np.random.Generator) -> Inputs:
    return {"inputs_embeds": rng.standard_normal((BATCH, CHOICES, TOKENS, config.n_embd)).astype(np.float32)}


THREE = {"id2label": {0: "a", 1: "b", 2: "c"}}
MULTIPLE = {"problem_type": "multi_label_classification"}
MC_IDS = np.array([[0, 7, 3, 2], [1, 1, 6, 5], [4, 0, 0, 7]])
BOTH_LABELS = {"labels": _choice_labels, "mc_labels": np.array([3, 0, 1])}

CASES |= {
    "choices_everything": Case(_choices(**BOTH_LABELS, **EVERYTHING), heads=DOUBLE),
    "choices_right": Case(_choices(attention_mask="right", **BOTH_LABELS), heads=DOUBLE),
    "choices_left": Case(_choices(attention_mask="left", mc_labels=np.array([-100, 0, 1])), heads=DOUBLE),
    "choices_named": Case(_choices(mc_token_ids=MC_IDS, attention_mask="right"), heads=DOUBLE),
    "choices_embeds": Case(_choice_embeds, heads=DOUBLE),
    "choices_ignored": Case(_choices(mc_labels=np.full(BATCH, -100)), heads=DOUBLE),
    "choices_pad_id": Case(_pads("inner"), PAD_ID, heads=DOUBLE),
    "choices_cache": Case(
        lambda config, rng: {"input_ids": np.random.default_rng(1).integers(0, 40, (BATCH, CHOICES, TOKENS))[..., 5:]},
        before=lambda config, rng: {"input_ids": rng.integers(0, 40, (BATCH, CHOICES, 5))},
        heads=DOUBLE,
    ),
    "choices_one_question": Case(_with(mc_labels=np.array(2), labels=_labels, logits_to_keep=1), heads=DOUBLE),
    "choices_one_label": Case(_with(mc_labels=np.array([2])), heads=DOUBLE),
    **{
        f"summary_{kind}_{side}": Case(
            _choices(attention_mask=side, mc_labels=np.array([3, 0, 1])), {"summary_type": kind}, heads=DOUBLE
        )
        for kind in ("first", "last", "mean")
        for side in ("left", "right")
    },
    "summary_mean": Case(_choices(), {"summary_type": "mean"}, heads=DOUBLE),
    "summary_activation": Case(_choices(), {"summary_activation": "tanh"}, heads=DOUBLE),
    "summary_gelu": Case(_choices(), {"summary_activation": "gelu"}, heads=DOUBLE),
    "summary_vector": Case(_choices(), {"summary_proj_to_labels": False}, heads=DOUBLE),
    "summary_no_projection": Case(_choices(), {"summary_use_proj": False}, heads=DOUBLE),
    "summary_ignores_labels": Case(_choices(), THREE, heads=DOUBLE),
    "choices_untied": Case(_choices(), {"tie_word_embeddings": False}, heads=DOUBLE),
    **{f"{side}_pad_id": Case(_pads(side), PAD_ID, heads=SEQUENCE) for side in ("left", "right", "inner")},
    "all_pads": Case(lambda c, rng: {"input_ids": np.full((BATCH, TOKENS), 3)}, {"pad_token_id": 3}, heads=SEQUENCE),
    "pad_id_and_embeds": Case(_embeds, PAD_ID, heads=SEQUENCE),
    "one_row": Case(lambda config, rng: {"input_ids": ids(config, rng)[:1]}, heads=SEQUENCE),
    "cache_mask": Case(_part(HALF, TOKENS, "right"), before=_part(0, HALF, "right"), heads=SEQUENCE),
    **{
        f"classes_{dtype}": Case(_labelled(_classes(BATCH, dtype=dtype)), THREE, heads=SEQUENCE)
        for dtype in ("int64", "int32", "int8", "uint8")
    },
    "classes_column": Case(_labelled(_classes(BATCH, 1)), THREE, heads=SEQUENCE),
    "classes_ignored": Case(_labelled(np.array([1, -100, 2])), THREE, heads=SEQUENCE),
    "classes_none": Case(_labelled(np.full(BATCH, -100)), THREE, heads=SEQUENCE),
    "numbers": Case(_labelled(_numbers(BATCH)), {"id2label": {0: "score"}}, heads=SEQUENCE),
    "numbers_column": Case(_labelled(_numbers(BATCH, 1)), {"id2label": {0: "score"}}, heads=SEQUENCE),
    "numbers_whole": Case(_labelled(np.array([3, -1, 0])), {"id2label": {0: "score"}}, heads=SEQUENCE),
    "numbers_three": Case(_labelled(_numbers(BATCH, 3)), THREE | {"problem_type": "regression"}, heads=SEQUENCE),
    "multiple": Case(
        _labelled(lambda config, rng: rng.random((BATCH, 3)).round().astype(np.float32)), THREE, heads=SEQUENCE
    ),
    "multiple_flags": Case(_labelled(lambda config, rng: rng.random((BATCH, 3)) < 0.5), THREE, heads=SEQUENCE),
    "multiple_whole": Case(_labelled(_classes(BATCH, 3)), THREE | MULTIPLE, heads=SEQUENCE),
    "token_classes": Case(
        _with(labels=lambda config, rng: np.where(mask("right") == 1, rng.integers(0, 3, (BATCH, TOKENS)), -100)),
        THREE,
        heads=TOKEN,
    ),
    "token_classes_none": Case(_with(labels=np.full((BATCH, TOKENS), -100)), THREE, heads=TOKEN),
    "token_classes_int8": Case(_with(labels=_classes(BATCH, TOKENS, dtype="int8")), THREE, heads=TOKEN),
    "token_one_class": Case(_with(labels=np.zeros((BATCH, TOKENS), int)), {"id2label": {0: "only"}}, heads=TOKEN),
    "spans": Case(_with(start_positions=np.array([0, 3, 7]), end_positions=np.array([1, 3, 7])), heads=SPAN),
    "spans_column": Case(
        _with(start_positions=np.array([[0], [3], [7]]), end_positions=np.array([[1], [3], [7]])), heads=SPAN
    ),
    "spans_outside": Case(_with(start_positions=np.array([0, -1, 8]), end_positions=np.array([99, 3, -7])), heads=SPAN),
    "spans_nowhere": Case(_with(start_positions=np.full(3, 8), end_positions=np.full(3, -1)), heads=SPAN),
}


def labels(head: str) -> Inputs:
    """Labels of every loss of a head, for `Runner` calls on (B, T) tokens."""
    rng, shape = np.random.default_rng(3), (BATCH, TOKENS)
    return {
        "Model": {},
        "LMHeadModel": {"labels": rng.integers(0, 39, shape)},
        "DoubleHeadsModel": {"labels": rng.integers(0, 39, shape), "mc_labels": np.array([1])},
        "ForSequenceClassification": {"labels": np.array([1, 0, 1])},
        "ForTokenClassification": {"labels": rng.integers(0, 2, shape)},
        "ForQuestionAnswering": {"start_positions": np.array([1, 0, 7]), "end_positions": np.array([2, 0, 7])},
    }[head]


def main_output(head: str) -> str:
    """The first output that is there without labels."""
    return next(output.name for output in HEAD_TABLE[head].outputs if "loss" not in output.name)


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


def error(found: Any, wanted: Any, scale: float = 0.0) -> float:
    """Largest error over the largest value of the reference, or `scale`; infinite where shapes or finiteness differ."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if found.shape != wanted.shape or not (np.isfinite(found).all() and np.isfinite(wanted).all()):
        return float("inf")
    scale = np.abs(wanted).max(initial=scale)
    return float(np.abs(found - wanted).max(initial=0.0) / (scale or 1.0))


def leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, tuple) else [value]
