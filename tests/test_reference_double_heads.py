"""The reference's double heads: against Transformers in float64, and by hand where it errs.

See test_reference_heads.py for what that means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo.config import ACTIVATIONS, GPT2Config, OpenAIGPTConfig
from gptzoo.errors import InputError
from tests.reference_heads import (
    ANSWERS,
    DOUBLE,
    INNER,
    INTEGERS,
    NAMED,
    PAD,
    C,
    close,
    forward,
    padded,
    same,
    states,
    surprise,
    tokens,
    witness,
)
from tests.reference_witness import BOTH, EXACT, LEFT, RIGHT, SMALL, B, T, error, tiny, vectors

SUMMARIES = [
    {},
    {"summary_activation": "tanh"},
    {"summary_proj_to_labels": False},
    {"summary_proj_to_labels": False, "summary_activation": "gelu"},
    {"summary_use_proj": False},
    {"summary_use_proj": False, "summary_activation": "relu"},
    {"tie_word_embeddings": False},
    {"num_labels": 5},  # which Transformers overwrites with 1, and which has no say here
]
SUMMARY = pytest.mark.parametrize("fields", SUMMARIES, ids=str)
KINDS = pytest.mark.parametrize("kind", ["cls_index", "last", "first", "mean"])


def scored(fields: dict[str, Any]) -> bool:
    return fields.get("summary_use_proj", True) and fields.get("summary_proj_to_labels", True)


@pytest.mark.parametrize("named", [False, True], ids=["last", "named"])
@SUMMARY
@BOTH
def test_choices_match_transformers(family, fields, named):
    model = tiny(family, DOUBLE, **fields)
    inputs = {"input_ids": tokens(B, C, T), "labels": np.where(tokens(B, C, T) > 6, tokens(B, C, T), -100)}
    inputs |= {"mc_token_ids": NAMED} if named else {}
    inputs |= {"mc_labels": ANSWERS} if scored(fields) else {}
    ours, theirs = forward(DOUBLE, model, **inputs), witness(DOUBLE, model)(**inputs)
    assert ours.mc_logits.shape == ((B, C) if scored(fields) else (B, C, SMALL["n_embd"]))
    same(ours, theirs, "loss", "logits", "mc_logits", *(["mc_loss"] if scored(fields) else []))


@KINDS
@SUMMARY
@BOTH
def test_choices_without_an_axis_match_transformers(family, fields, kind):
    """All rows are the choices of one question."""
    model = tiny(family, DOUBLE, summary_type=kind, **fields)
    inputs = {"input_ids": tokens(), "labels": tokens()} | ({"mc_labels": np.array([1])} if scored(fields) else {})
    ours, theirs = forward(DOUBLE, model, **inputs), witness(DOUBLE, model)(**inputs)
    same(ours, theirs, "loss", "logits", "mc_logits", *(["mc_loss"] if scored(fields) else []))
    if scored(fields):
        assert ours.mc_logits.shape == (B,)
        assert forward(DOUBLE, model, **(inputs | {"mc_labels": np.array(1)})).mc_loss == ours.mc_loss
        assert forward(DOUBLE, model, **(inputs | {"mc_labels": 1})).mc_loss == ours.mc_loss


@BOTH
def test_named_token_of_a_row_matches_transformers(family):
    model = tiny(family, DOUBLE)
    inputs = {"input_ids": tokens(), "mc_token_ids": NAMED[:, 0]}
    same(forward(DOUBLE, model, **inputs), witness(DOUBLE, model)(**inputs), "mc_logits")


@pytest.mark.parametrize("kind", ["last", "first", "mean"])
@pytest.mark.parametrize("fields", [{}, {"summary_proj_to_labels": False}, {"summary_use_proj": False}], ids=str)
@BOTH
def test_summary_is_along_tokens(family, fields, kind):
    """Transformers goes along the choices; without their axis, it goes along the tokens."""
    model, given = tiny(family, DOUBLE, summary_type=kind, **fields), tokens(2, C, T)
    ours, theirs = forward(DOUBLE, model, input_ids=given), witness(DOUBLE, model)
    assert theirs(input_ids=given).mc_logits.shape[:2] == (2, T)
    flat = np.asarray(theirs(input_ids=given.reshape(-1, T)).mc_logits)
    close(ours.mc_logits, flat.reshape(2, C, *flat.shape[1:]))


def picked(kind: str, hidden: np.ndarray, real: np.ndarray) -> np.ndarray:
    """One row's summary before its projection, (T, E), (T,) -> (E,)."""
    chosen = hidden[real == 1]
    if kind == "mean":
        return chosen.mean(axis=0) if len(chosen) else np.zeros(hidden.shape[1])
    return (chosen if len(chosen) else hidden)[0 if kind == "first" or not len(chosen) else -1]


@pytest.mark.parametrize("source", ["ids", "mask", "ids and mask", "embeddings and mask"])
@KINDS
@BOTH
def test_summary_is_of_real_tokens(family, kind, source):
    """Transformers takes the last token, padding or not; one row here is all padding."""
    real = np.stack((LEFT, RIGHT, INNER))  # (3, B, T)
    real[1, 1] = 0
    model = tiny(family, DOUBLE, summary_type=kind, pad_token_id=PAD if "ids" in source else None)
    inputs = {"inputs_embeds": vectors(3, B, T)} if "embeddings" in source else {"input_ids": padded(real)}
    inputs |= {"attention_mask": real} if "mask" in source else {}
    ours, hidden = forward(DOUBLE, model, **inputs), states(model, **inputs)
    head = "multiple_choice_head.summary."
    for i, j in np.ndindex(3, B):
        vector = picked(kind, hidden[i, j], real[i, j])
        close(ours.mc_logits[i, j], vector @ model[1][head + "weight"][0] + model[1][head + "bias"][0])
    if source == "ids" and kind == "cls_index":
        theirs = np.asarray(witness(DOUBLE, model)(**inputs).mc_logits)
        ends = real[..., -1] == 1
        close(ours.mc_logits[ends], theirs[ends])
        assert (abs(ours.mc_logits - theirs)[~ends] > 1e-6).all()


@BOTH
def test_named_token_may_be_padding(family):
    model = tiny(family, DOUBLE, pad_token_id=PAD)
    inputs = {"input_ids": padded(RIGHT), "mc_token_ids": np.array([T - 1, 0, T - 1])}
    same(forward(DOUBLE, model, **inputs), witness(DOUBLE, model)(**inputs), "mc_logits")


@pytest.mark.parametrize("name", [name for name in EXACT if name in ACTIVATIONS])
def test_summary_activation_matches_transformers(name):
    """All but gelu_fast, whose constant Transformers rounds; see reference_witness.py."""
    model = tiny(GPT2Config, DOUBLE, summary_activation=name, summary_proj_to_labels=False)  # many numbers, of any sign
    inputs = {"input_ids": tokens(B, C, T), "mc_token_ids": NAMED}
    same(forward(DOUBLE, model, **inputs), witness(DOUBLE, model)(**inputs), "mc_logits")


def test_gelu_of_a_gpt_summary_is_exact():
    """Only the MLPs of GPT mean the tanh form by this name."""
    model = tiny(OpenAIGPTConfig, DOUBLE, summary_activation="gelu", summary_use_proj=False)
    ours = forward(DOUBLE, model, input_ids=tokens())
    same(ours, witness(DOUBLE, model)(input_ids=tokens()), "mc_logits")
    tanh = tiny(OpenAIGPTConfig, DOUBLE, summary_activation="gelu_new", summary_use_proj=False)
    assert error(forward(DOUBLE, tanh, input_ids=tokens()).mc_logits, ours.mc_logits) > 1e-6


def test_every_summary_activation_is_taken():
    for name in ACTIVATIONS:
        out = forward(DOUBLE, tiny(GPT2Config, DOUBLE, summary_activation=name), input_ids=tokens(1, C, T))
        assert np.isfinite(out.mc_logits).all()


@BOTH
def test_answers_may_be_none(family):
    model, answers = tiny(family, DOUBLE), np.array([2, -100, 3])
    inputs = {"input_ids": tokens(B, C, T), "mc_labels": answers}
    ours = forward(DOUBLE, model, **inputs)
    same(ours, witness(DOUBLE, model)(**inputs), "mc_loss")
    close(ours.mc_loss, np.mean([surprise(ours.mc_logits[row], answers[row]) for row in (0, 2)]))
    assert "loss" not in ours


@pytest.mark.parametrize("dtype", INTEGERS)
def test_answer_and_named_token_of_any_integer_dtype(dtype):
    model, inputs = tiny(GPT2Config, DOUBLE), {"input_ids": tokens(B, C, T)}
    expected = forward(DOUBLE, model, **inputs, mc_token_ids=NAMED, mc_labels=ANSWERS)
    ours = forward(DOUBLE, model, **inputs, mc_token_ids=NAMED.astype(dtype), mc_labels=ANSWERS.astype(dtype))
    assert ours.mc_loss == expected.mc_loss


@BOTH
def test_choices_as_embeddings(family):
    """Transformers fails on four axes."""
    model, inputs = tiny(family, DOUBLE), {"mc_token_ids": NAMED[:2], "mc_labels": ANSWERS[:2]}
    flat = forward(DOUBLE, model, inputs_embeds=vectors(2 * C, T), mc_token_ids=NAMED[:2].reshape(-1))
    ours = forward(DOUBLE, model, inputs_embeds=vectors(2 * C, T).reshape(2, C, T, -1), **inputs)
    assert np.array_equal(ours.mc_logits, flat.mc_logits.reshape(2, C))
    assert np.array_equal(ours.logits, flat.logits.reshape(2, C, T, -1))
    with pytest.raises((RuntimeError, ValueError)):
        witness(DOUBLE, model)(inputs_embeds=vectors(2 * C, T).reshape(2, C, T, -1), **inputs)


@BOTH
def test_summary_after_a_cache(family):
    """Named tokens count from the first new one; the summary's default is the last real one."""
    model, mask = tiny(family, DOUBLE), np.stack((LEFT, INNER))
    full = forward(DOUBLE, model, input_ids=tokens(2, B, T), attention_mask=mask, mc_token_ids=np.full((2, B), 5))
    past = forward(DOUBLE, model, input_ids=tokens(2, B, T)[..., :4], attention_mask=mask[..., :4]).past_key_values
    new = {"input_ids": tokens(2, B, T)[..., 4:], "attention_mask": mask, "past_key_values": past}
    close(forward(DOUBLE, model, **new, mc_token_ids=np.full((2, B), 1)).mc_logits, full.mc_logits)
    whole = forward(DOUBLE, model, input_ids=tokens(2, B, T), attention_mask=mask)
    close(forward(DOUBLE, model, **new).mc_logits[mask[..., 4:].any(-1)], whole.mc_logits[mask[..., 4:].any(-1)])


def test_width_of_one_is_no_score():
    """Transformers drops this axis too."""
    for fields in ({"summary_use_proj": False}, {"summary_proj_to_labels": False}):
        model = tiny(GPT2Config, DOUBLE, n_embd=1, n_head=1, **fields)
        assert forward(DOUBLE, model, input_ids=tokens(B, C, T)).mc_logits.shape == (B, C, 1)
        with pytest.raises(InputError, match="mc_labels: given, but"):
            forward(DOUBLE, model, input_ids=tokens(B, C, T), mc_labels=ANSWERS)
