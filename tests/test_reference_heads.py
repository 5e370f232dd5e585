"""The reference's heads beside the language model: against Transformers in float64, and by hand where it errs.

Tokens, answers and what all heads share; test_reference_sequence.py and test_reference_double_heads.py have the rest.

By hand means: from the states of the bare model, which test_reference.py compares, with loops over rows and tokens.
Transformers' faults are those of section 11 of the spec; each test that names one shows it too, so that a version
without it is noticed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo.config import GPT2Config, GPTConfig
from gptzoo.errors import InputError
from gptzoo.outputs import OUTPUTS
from tests.reference_heads import (
    ANSWERS,
    DOUBLE,
    INTEGERS,
    NAMED,
    PAD,
    PADDED,
    SEQUENCE,
    SPAN,
    TOKEN,
    C,
    close,
    forward,
    last,
    padded,
    positions,
    same,
    states,
    surprise,
    tokens,
    witness,
)
from tests.reference_witness import BOTH, RIGHT, B, T, Witness, error, rng, tiny, vectors

# Token classification


@pytest.mark.parametrize("n_labels", [2, 5])
@PADDED
def test_token_scores_match_transformers(mask, n_labels):
    model = tiny(GPT2Config, TOKEN, num_labels=n_labels)
    labels = np.where(mask, rng().integers(0, n_labels, (B, T)), -100)
    inputs = {"input_ids": tokens(), "labels": labels, "attention_mask": mask}
    ours = forward(TOKEN, model, **inputs)
    theirs = witness(TOKEN, model)(**inputs, position_ids=positions(mask))
    close(ours.logits[mask == 1], np.asarray(theirs.logits)[mask == 1])
    close(ours.loss, theirs.loss)


def bare(model: tuple[GPTConfig, Any], **inputs: Any) -> np.ndarray:
    """States of Transformers' bare model: its GPT has no head for tokens and answers."""
    own = {name.removeprefix("transformer."): v for name, v in model[1].items() if name.startswith("transformer.")}
    return np.asarray(Witness(model[0], "Model", own)(**inputs).last_hidden_state)


@PADDED
@BOTH
def test_token_scores_by_hand(family, mask):
    model = tiny(family, TOKEN, num_labels=3)
    labels = np.where(mask, rng().integers(0, 3, (B, T)), -100)
    ours = forward(TOKEN, model, input_ids=tokens(), labels=labels, attention_mask=mask)
    hidden = bare(model, input_ids=tokens(), attention_mask=mask, position_ids=positions(mask))
    losses = []
    for b, t in zip(*np.nonzero(mask), strict=True):
        scores = model[1]["classifier.weight"] @ hidden[b, t] + model[1]["classifier.bias"]
        close(ours.logits[b, t], scores)
        losses.append(surprise(scores, labels[b, t]))
    close(ours.loss, np.mean(losses))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_label_of_any_integer_dtype(dtype):
    """PyTorch refuses most of them, int32 too."""
    model = tiny(GPT2Config, TOKEN, num_labels=3)
    labels = rng().integers(0, 3, (B, T))
    expected = witness(TOKEN, model)(input_ids=tokens(), labels=labels).loss
    close(forward(TOKEN, model, input_ids=tokens(), labels=labels.astype(dtype)).loss, expected)
    if dtype == np.int32:
        with pytest.raises(RuntimeError, match="expected target dtype"):
            witness(TOKEN, model)(input_ids=tokens(), labels=labels.astype(dtype))


@BOTH
def test_choices_have_tokens_of_their_own(family):
    model, given = tiny(family, TOKEN), tokens(2, C, T)
    labels = rng().integers(0, 2, given.shape)
    ours = forward(TOKEN, model, input_ids=given, labels=labels)
    flat = forward(TOKEN, model, input_ids=given.reshape(-1, T), labels=labels.reshape(-1, T))
    assert np.array_equal(ours.logits, flat.logits.reshape(2, C, T, 2))
    close(ours.loss, flat.loss)


# Question answering


SPANS = {
    "inside": (np.array([1, 0, 6]), np.array([3, 0, 6])),
    "in columns": (np.array([[1], [0], [6]]), np.array([[3], [0], [6]])),
    "some beyond": (np.array([1, T, 6]), np.array([3, 5, 99])),
}


@pytest.mark.parametrize("spans", SPANS.values(), ids=list(SPANS))
def test_spans_match_transformers(spans):
    model = tiny(GPT2Config, SPAN)
    inputs = {"input_ids": tokens(), "start_positions": spans[0], "end_positions": spans[1]}
    same(forward(SPAN, model, **inputs), witness(SPAN, model)(**inputs), "loss", "start_logits", "end_logits")


@pytest.mark.parametrize("spans", SPANS.values(), ids=list(SPANS))
@BOTH
def test_spans_by_hand(family, spans):
    model = tiny(family, SPAN)
    ours = forward(SPAN, model, input_ids=tokens(), start_positions=spans[0], end_positions=spans[1])
    scores = bare(model, input_ids=tokens()) @ model[1]["qa_outputs.weight"].T + model[1]["qa_outputs.bias"]
    halves = []
    for column, name in enumerate(("start_logits", "end_logits")):
        close(ours[name], scores[..., column])
        counted = [(row, t) for row, t in enumerate(spans[column].reshape(-1)) if 0 <= t < T]
        halves.append(np.mean([surprise(scores[row, :, column], t) for row, t in counted]))
    close(ours.loss, np.mean(halves))


@PADDED
def test_padded_spans_match_transformers(mask):
    """Padding competes too: scores are a distribution over all tokens, of which only the real ones are compared."""
    model = tiny(GPT2Config, SPAN)
    inputs = {"input_ids": tokens(), "attention_mask": mask}
    ours, theirs = forward(SPAN, model, **inputs), witness(SPAN, model)(**inputs, position_ids=positions(mask))
    for name in ("start_logits", "end_logits"):
        close(ours[name][mask == 1], np.asarray(theirs[name])[mask == 1])


@BOTH
def test_negative_position_is_not_scored(family):
    """Transformers takes it for the first token."""
    model = tiny(family, SPAN)
    start, end = np.array([-1, 2, -100]), np.array([1, -7, 3])
    ours = forward(SPAN, model, input_ids=tokens(), start_positions=start, end_positions=end)
    beyond = [np.where(each < 0, T, each) for each in (start, end)]
    expected = forward(SPAN, model, input_ids=tokens(), start_positions=beyond[0], end_positions=beyond[1])
    assert ours.loss == expected.loss
    if family is GPT2Config:
        theirs = witness(SPAN, model)(input_ids=tokens(), start_positions=start, end_positions=end)
        first = [np.maximum(each, 0) for each in (start, end)]
        taken = forward(SPAN, model, input_ids=tokens(), start_positions=first[0], end_positions=first[1])
        close(taken.loss, theirs.loss)
        assert error(ours.loss, theirs.loss) > 1e-3


@BOTH
def test_half_of_a_span_may_be_unscored(family):
    """The other half is still divided by two."""
    model, nowhere = tiny(family, SPAN), np.full(B, T)
    inputs = {"input_ids": tokens(), "start_positions": np.array([1, 2, 3]), "end_positions": nowhere}
    ours = forward(SPAN, model, **inputs)
    halves = [surprise(ours.start_logits[row], row + 1) for row in range(B)]
    close(ours.loss, np.mean(halves) / 2)
    if family is GPT2Config:
        assert np.isnan(float(witness(SPAN, model)(**inputs).loss))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_position_of_any_integer_dtype(dtype):
    model = tiny(GPT2Config, SPAN)
    start, end = np.array([1, 0, 100]), np.array([3, 6, 5])
    expected = witness(SPAN, model)(input_ids=tokens(), start_positions=start, end_positions=end).loss
    given = {"start_positions": start.astype(dtype), "end_positions": end.astype(dtype)}
    close(forward(SPAN, model, input_ids=tokens(), **given).loss, expected)


@BOTH
def test_choices_have_answers_of_their_own(family):
    model, given = tiny(family, SPAN), tokens(2, C, T)
    spans = {name: rng(len(name)).integers(-1, T + 1, (2, C)) for name in ("start_positions", "end_positions")}
    ours = forward(SPAN, model, input_ids=given, **spans)
    rows = {name: value.reshape(-1) for name, value in spans.items()}
    flat = forward(SPAN, model, input_ids=given.reshape(-1, T), **rows)
    for name in ("start_logits", "end_logits"):
        assert np.array_equal(ours[name], flat[name].reshape(2, C, T))
    close(ours.loss, flat.loss)


# What all of them share


UNSCORED = {
    SEQUENCE: {"labels": np.full(B, -100)},
    TOKEN: {"labels": np.full((B, T), -100)},
    SPAN: {"start_positions": np.full(B, T), "end_positions": np.full(B, T + 1)},
    DOUBLE: {"labels": np.full((B, T), -100), "mc_labels": np.array([-100])},
}


@pytest.mark.parametrize("head", UNSCORED)
@BOTH
def test_loss_of_nothing_is_zero(family, head):
    """Transformers returns NaN."""
    model = tiny(family, head, num_labels=3, pad_token_id=PAD)
    ours = forward(head, model, input_ids=tokens(), **UNSCORED[head])
    names = ["loss", "mc_loss"] if head == DOUBLE else ["loss"]
    assert all(ours[name] == 0.0 for name in names)
    if family is GPT2Config or head in (SEQUENCE, DOUBLE):
        theirs = witness(head, model)(input_ids=tokens(), **UNSCORED[head])
        assert all(np.isnan(float(theirs[name])) for name in names)


@pytest.mark.parametrize("head", UNSCORED)
@BOTH
def test_outputs_are_those_of_the_head_table(family, head):
    model = tiny(family, head, num_labels=3, pad_token_id=PAD)
    options = {"output_hidden_states": True, "output_attentions": True, "use_cache": True}
    ours = forward(head, model, input_ids=tokens(), **UNSCORED[head], **options)
    assert list(ours) == list(OUTPUTS[head].names())
    assert all(np.asarray(ours[name]).dtype == np.float64 for name in ours)
    hidden = states(model, input_ids=tokens())
    assert np.array_equal(ours.hidden_states[-1], hidden)


SEVERAL = {"input_ids": tokens(B, C, T)}
WRONG = {
    "sequence label too high": (SEQUENCE, {"labels": np.array([0, 1, 3])}, "labels: 0 to 3, expected 0 to 2, or -100"),
    "sequence label negative": (SEQUENCE, {"labels": np.array([0, 1, -1])}, "labels: -1 to 1, expected 0 to 2"),
    "sequence labels' shape": (SEQUENCE, {"labels": np.array([0, 1])}, r"labels: shape \(2,\), expected \(3,\) or \(3"),
    "one-hot integers": (SEQUENCE, {"labels": np.eye(3, dtype=int)}, r"labels: shape \(3, 3\)"),
    "classes' shape": (SEQUENCE, {"labels": np.zeros(3)}, r"labels: shape \(3,\), expected \(3, 3\)"),
    "token labels' shape": (TOKEN, {"labels": np.array([0, 1, 2])}, r"labels: shape \(3,\), expected \(3, 7\)"),
    "token label too high": (TOKEN, {"labels": tokens()}, "labels: .* expected 0 to 2, or -100"),
    "token labels are floats": (TOKEN, {"labels": np.zeros((B, T))}, "labels: float64, expected integers"),
    "none scored, but floats": (TOKEN, {"labels": np.full((B, T), -100.0)}, "labels: float64, expected integers"),
    "token labels are bools": (TOKEN, {"labels": np.zeros((B, T), bool)}, "labels: bool, expected integers"),
    "start alone": (SPAN, {"start_positions": ANSWERS}, "only start_positions given"),
    "end alone": (SPAN, {"end_positions": ANSWERS}, "only end_positions given"),
    "starts' shape": (SPAN, {"start_positions": NAMED, "end_positions": ANSWERS}, "start_positions: shape"),
    "ends' shape": (SPAN, {"start_positions": ANSWERS, "end_positions": ANSWERS[:1]}, "end_positions: shape"),
    "ends are floats": (SPAN, {"start_positions": ANSWERS, "end_positions": np.full(B, 9.0)}, "end_positions: float64"),
    "lm labels' shape": (DOUBLE, SEVERAL | {"labels": tokens()}, "labels: shape"),
    "answer too high": (DOUBLE, SEVERAL | {"mc_labels": ANSWERS + 1}, "mc_labels: 1 to 4, expected 0 to 3, or -100"),
    "answers' shape": (DOUBLE, SEVERAL | {"mc_labels": NAMED}, r"mc_labels: shape \(3, 4\), expected \(3,\)"),
    "an answer a row": (DOUBLE, {"mc_labels": ANSWERS}, r"mc_labels: shape \(3,\), expected \(\) or \(1,\)"),
    "answers are floats": (DOUBLE, SEVERAL | {"mc_labels": ANSWERS + 0.0}, "mc_labels: float64"),
    "named token too far": (
        DOUBLE,
        SEVERAL | {"mc_token_ids": np.full((B, C), T)},
        "mc_token_ids: 7 to 7, expected 0 to",
    ),
    "named token negative": (DOUBLE, SEVERAL | {"mc_token_ids": np.full((B, C), -1)}, "mc_token_ids: -1 to -1"),
    "named tokens' shape": (
        DOUBLE,
        SEVERAL | {"mc_token_ids": ANSWERS},
        r"mc_token_ids: shape \(3,\), expected \(3, 4",
    ),
    "named tokens are floats": (DOUBLE, SEVERAL | {"mc_token_ids": NAMED + 0.0}, "mc_token_ids: float64"),
    "logits to keep": (TOKEN, {"logits_to_keep": 1}, "ForTokenClassification takes no logits_to_keep"),
    "an encoder": (TOKEN, {"encoder_hidden_states": vectors()}, "takes no encoder_hidden_states"),
}


@pytest.mark.parametrize("case", WRONG)
@BOTH
def test_wrong_label_is_named(family, case):
    head, inputs, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        forward(head, tiny(family, head, num_labels=3, pad_token_id=PAD), **({"input_ids": tokens()} | inputs))


@pytest.mark.parametrize("fields", [{"summary_use_proj": False}, {"summary_proj_to_labels": False}], ids=str)
@BOTH
def test_answers_need_scores(family, fields):
    with pytest.raises(InputError, match="mc_labels: given, but choices have no single score"):
        forward(DOUBLE, tiny(family, DOUBLE, **fields), input_ids=tokens(B, C, T), mc_labels=ANSWERS)


# The tolerance bites


MISTAKES = {
    "sequence ends one token early": (SEQUENCE, "logits", "pad"),
    "classes swapped": (SEQUENCE, "logits", "score.weight"),
    "label off by one": (TOKEN, "loss", "labels"),
    "no bias of classes": (TOKEN, "logits", "classifier.bias"),
    "start and end swapped": (SPAN, "start_logits", "qa_outputs.weight"),
    "start off by one": (SPAN, "loss", "start_positions"),
    "named token off by one": (DOUBLE, "mc_logits", "mc_token_ids"),
    "no bias of the summary": (DOUBLE, "mc_logits", "multiple_choice_head.summary.bias"),
    "answer off by one": (DOUBLE, "mc_loss", "mc_labels"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_comparison_detects(mistake):
    """A comparison that holds without a mistake in ours, and does not with it."""
    head, name, where = MISTAKES[mistake]
    config, values = tiny(GPT2Config, head, num_labels=3, pad_token_id=PAD)
    inputs = {
        SEQUENCE: {"input_ids": padded(RIGHT)},
        TOKEN: {"input_ids": tokens(), "labels": tokens() % 3},
        SPAN: {"input_ids": tokens(), "start_positions": ANSWERS, "end_positions": ANSWERS},
        DOUBLE: SEVERAL | {"mc_token_ids": np.minimum(NAMED, T - 2), "mc_labels": ANSWERS},
    }[head]
    theirs = Witness(config, head, values)(**inputs)
    close(forward(head, (config, values), **inputs)[name], theirs[name])
    if where == "pad":  # a causal model's earlier states do not see it
        early = inputs["input_ids"].copy()
        early[np.arange(B), last(RIGHT)] = PAD
        inputs = {"input_ids": early}
    elif where in inputs:
        inputs = inputs | {where: (inputs[where] + 1) % {"labels": 3, "mc_labels": C}.get(where, T)}
    elif where.endswith("weight"):
        values = values | {where: values[where][::-1]}
    else:
        values = values | {where: np.zeros_like(values[where])}
    assert error(forward(head, (config, values), **inputs)[name], theirs[name]) > 1e-3
