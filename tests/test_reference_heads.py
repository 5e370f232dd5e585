"""The reference's heads beside the language model: against Transformers in float64, and by hand where it errs.

By hand means: from the states of the bare model, which test_reference.py compares, with loops over rows and tokens.
Transformers' faults are those of section 11 of the spec; each test that names one shows it too, so that a version
without it is noticed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from gptzoo.config import ACTIVATIONS, GPT2Config, GPTConfig, OpenAIGPTConfig
from gptzoo.errors import InputError
from gptzoo.outputs import OUTPUTS
from tests.test_reference import BOTH, EXACT, LEFT, RIGHT, SMALL, TOLERANCE, B, T, Witness, error, rng, tiny, vectors

C = 4
PAD = 3
INNER = np.array([[1, 0, 0, 1, 0, 1, 0], [1, 1, 0, 1, 1, 1, 1], [0, 1, 0, 0, 1, 0, 0]])
MASKS = {"none": np.ones_like(LEFT), "left": LEFT, "right": RIGHT, "inner": INNER}
PADDED = pytest.mark.parametrize("mask", [pytest.param(mask, id=name) for name, mask in MASKS.items()])
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]

DOUBLE, SEQUENCE = "DoubleHeadsModel", "ForSequenceClassification"
TOKEN, SPAN = "ForTokenClassification", "ForQuestionAnswering"


def tokens(*shape: int) -> np.ndarray:
    """Ids of which none is the padding's."""
    return rng(11).integers(PAD + 1, SMALL["vocab_size"], shape or (B, T))


def padded(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, tokens(*mask.shape), PAD)


def positions(mask: np.ndarray) -> np.ndarray:
    """What the witness must be told: its forward does not derive positions from the mask."""
    return np.where(mask, mask.cumsum(axis=-1) - 1, 0)


def last(mask: np.ndarray) -> np.ndarray:
    return np.array([max(np.flatnonzero(row), default=0) for row in mask])


def forward(head: str, model: tuple[GPTConfig, Any], **inputs: Any) -> Any:
    return reference.forward(head, *model, **inputs)


def states(model: tuple[GPTConfig, Any], **inputs: Any) -> np.ndarray:
    """Of the bare model under a head."""
    config, values = model
    own = {
        name.removeprefix("transformer."): value for name, value in values.items() if name.startswith("transformer.")
    }
    return reference.forward("Model", config, own, **inputs).last_hidden_state


def witness(head: str, model: tuple[GPTConfig, Any]) -> Witness:
    return Witness(model[0], head, model[1])


def same(ours: Any, theirs: Any, *names: str) -> None:
    for name in names:
        assert error(ours[name], theirs[name]) <= TOLERANCE, name


def close(ours: Any, expected: Any) -> None:
    assert error(ours, expected) <= TOLERANCE


def surprise(scores: np.ndarray, label: int) -> float:
    """-log p(label), for scores that are small."""
    return float(np.log(np.exp(scores).sum()) - scores[label])


# Sequence classification


@pytest.mark.parametrize("masked", [False, True], ids=["ids", "ids and mask"])
@PADDED
@BOTH
def test_sequence_scores_match_transformers(family, mask, masked):
    model = tiny(family, SEQUENCE, num_labels=3, pad_token_id=PAD)
    inputs = {"input_ids": padded(mask), "labels": np.array([2, 0, 1])}
    given, told = ({"attention_mask": mask}, {"position_ids": positions(mask)}) if masked else ({}, {})
    ours = forward(SEQUENCE, model, **inputs, **given)
    same(ours, witness(SEQUENCE, model)(**inputs, **given, **told), "logits", "loss")
    hidden = states(model, input_ids=padded(mask), **given)
    expected = [hidden[b, t] @ model[1]["score.weight"].T for b, t in enumerate(last(mask))]
    close(ours.logits, expected)


@BOTH
def test_sequence_of_padding_has_the_first_token_s_scores(family):
    model = tiny(family, SEQUENCE, pad_token_id=PAD)
    given = np.full((B, T), PAD)
    ours = forward(SEQUENCE, model, input_ids=given)
    same(ours, witness(SEQUENCE, model)(input_ids=given), "logits")
    close(ours.logits, states(model, input_ids=given)[:, 0] @ model[1]["score.weight"].T)


@PADDED
@BOTH
def test_ids_tell_padding_before_the_mask_does(family, mask):
    """As in Transformers: the token is the last one that is not the padding's, even if the mask hides it."""
    model = tiny(family, SEQUENCE, pad_token_id=PAD)
    hidden = mask.copy()
    hidden[np.arange(B), last(mask)] = 0
    ours = forward(SEQUENCE, model, input_ids=padded(mask), attention_mask=hidden)
    expected = states(model, input_ids=padded(mask), attention_mask=hidden)[np.arange(B), last(mask)]
    close(ours.logits, expected @ model[1]["score.weight"].T)


@PADDED
@BOTH
def test_mask_tells_padding_where_ids_cannot(family, mask):
    """Transformers refuses ids without a pad id, and takes the last vector of embeddings whatever the mask."""
    model = tiny(family, SEQUENCE)
    hidden = states(model, input_ids=tokens(), attention_mask=mask)
    ours = forward(SEQUENCE, model, input_ids=tokens(), attention_mask=mask)
    close(ours.logits, hidden[np.arange(B), last(mask)] @ model[1]["score.weight"].T)
    with pytest.raises(ValueError, match="no padding token"):
        witness(SEQUENCE, model)(input_ids=tokens(), attention_mask=mask)
    with_pad = tiny(family, SEQUENCE, pad_token_id=PAD)
    for each in (model, with_pad):
        hidden = states(each, inputs_embeds=vectors(), attention_mask=mask)
        ours = forward(SEQUENCE, each, inputs_embeds=vectors(), attention_mask=mask)
        close(ours.logits, hidden[np.arange(B), last(mask)] @ each[1]["score.weight"].T)
    inputs = {"inputs_embeds": vectors(), "attention_mask": mask, "position_ids": positions(mask)}
    theirs = witness(SEQUENCE, with_pad)(**inputs)
    for row in range(B):
        assert (error(ours.logits[row], theirs.logits[row]) <= TOLERANCE) == (mask[row, -1] == 1)


@BOTH
def test_sequence_of_embeddings_matches_transformers(family):
    model = tiny(family, SEQUENCE, pad_token_id=PAD)
    ours = forward(SEQUENCE, model, inputs_embeds=vectors())
    same(ours, witness(SEQUENCE, model)(inputs_embeds=vectors()), "logits")


@BOTH
def test_sequences_need_an_end_where_there_are_several(family):
    model = tiny(family, SEQUENCE)
    for inputs in ({"input_ids": tokens()}, {"inputs_embeds": vectors()}, {"input_ids": tokens(1, C, T)}):
        with pytest.raises(InputError, match=r"set config\.pad_token_id or give attention_mask"):
            forward(SEQUENCE, model, **inputs)
    with pytest.raises(ValueError, match="no padding token"):
        witness(SEQUENCE, model)(input_ids=tokens())
    for inputs in ({"input_ids": tokens(1, T)}, {"inputs_embeds": vectors(1, T)}):
        same(forward(SEQUENCE, model, **inputs), witness(SEQUENCE, model)(**inputs), "logits")


@pytest.mark.parametrize("by_mask", [False, True], ids=["ids", "mask"])
@BOTH
def test_sequence_after_a_cache_is_the_whole_sequence(family, by_mask):
    """The mask covers cached tokens too; padded on the left, the sequence ends in its second part."""
    model = tiny(family, SEQUENCE, pad_token_id=None if by_mask else PAD)
    mask = np.concatenate((LEFT, np.array([[1, 0], [1, 1], [0, 0]])), axis=1)
    mask[:, T - 1] = 1
    full = forward(SEQUENCE, model, input_ids=padded(mask), attention_mask=mask)
    for n_past in (1, 4, T - 1):
        past = forward(SEQUENCE, model, input_ids=padded(mask)[:, :n_past], attention_mask=mask[:, :n_past])
        new = {"input_ids": padded(mask)[:, n_past:], "attention_mask": mask}
        ours = forward(SEQUENCE, model, **new, past_key_values=past.past_key_values)
        close(ours.logits, full.logits)


@BOTH
def test_choices_are_sequences(family):
    model = tiny(family, SEQUENCE, pad_token_id=PAD, num_labels=3)
    given, labels = padded(np.stack((LEFT, RIGHT))), np.array([[0, 2, 1], [-100, 0, 0]])
    ours = forward(SEQUENCE, model, input_ids=given, labels=labels)
    flat = forward(SEQUENCE, model, input_ids=given.reshape(-1, T), labels=labels.reshape(-1))
    assert ours.logits.shape == (2, 3, 3)
    assert np.array_equal(ours.logits.reshape(6, 3), flat.logits)
    assert ours.loss == flat.loss


NUMBERS = rng(3).standard_normal((B, 3))
FLAGS = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.25, 1.0, 0.0]])
SINGLE, MULTI = "single_label_classification", "multi_label_classification"
PROBLEMS = {
    "one number": (1, NUMBERS[:, 0], "regression"),
    "one number in a column": (1, NUMBERS[:, :1], "regression"),
    "one class": (3, np.array([2, 0, 1]), SINGLE),
    "one class in a column": (3, np.array([[2], [0], [1]]), SINGLE),
    "one class or none": (3, np.array([2, -100, 1]), SINGLE),
    "classes": (3, FLAGS, MULTI),
}
STATED = PROBLEMS | {
    "numbers": (3, NUMBERS, "regression"),
    "the only class or not": (1, FLAGS[:, :1], MULTI),
}


@pytest.mark.parametrize(
    ("case", "stated"), [*((case, False) for case in PROBLEMS), *((case, True) for case in STATED)]
)
@BOTH
def test_problem_loss_matches_transformers(family, case, stated):
    """Transformers writes the problem that it inferred into the config."""
    n_labels, labels, problem = STATED[case]
    model = tiny(family, SEQUENCE, num_labels=n_labels, pad_token_id=PAD, problem_type=problem if stated else None)
    theirs = witness(SEQUENCE, model)
    inputs = {"input_ids": padded(INNER), "labels": labels}
    ours, expected = forward(SEQUENCE, model, **inputs), theirs(**inputs)
    assert theirs.model.config.problem_type == problem
    assert model[0].problem_type == (problem if stated else None)
    close(ours.logits, expected.logits)
    close(ours.loss, expected.loss)


@BOTH
def test_the_only_class_has_probability_one(family):
    """Transformers refuses the config."""
    model = tiny(family, SEQUENCE, num_labels=1, pad_token_id=PAD, problem_type=SINGLE)
    assert forward(SEQUENCE, model, input_ids=tokens(), labels=np.array([0, -100, 0])).loss == 0.0
    with pytest.raises(InputError, match="labels: 0 to 1, expected 0 to 0"):
        forward(SEQUENCE, model, input_ids=tokens(), labels=np.array([0, 1, 0]))
    with pytest.raises(ValueError, match="requires `num_labels > 1`"):
        witness(SEQUENCE, model)


@BOTH
def test_problem_is_inferred_anew_at_each_call(family):
    model = tiny(family, SEQUENCE, num_labels=3, pad_token_id=PAD)
    for case in ("one class", "classes", "one class"):
        _, labels, problem = PROBLEMS[case]
        stated, _ = tiny(family, SEQUENCE, num_labels=3, pad_token_id=PAD, problem_type=problem)
        ours = forward(SEQUENCE, model, input_ids=tokens(), labels=labels)
        assert ours.loss == forward(SEQUENCE, (stated, model[1]), input_ids=tokens(), labels=labels).loss


@pytest.mark.parametrize("dtype", INTEGERS)
def test_class_of_any_integer_dtype(dtype):
    """Transformers takes int64 only: of the others it infers another problem, or PyTorch refuses them."""
    model = tiny(GPT2Config, SEQUENCE, num_labels=3, pad_token_id=PAD)
    inputs = {"input_ids": tokens(), "labels": np.array([2, 0, 1], dtype)}
    expected = witness(SEQUENCE, model)(input_ids=tokens(), labels=np.array([2, 0, 1])).loss
    close(forward(SEQUENCE, model, **inputs).loss, expected)
    if dtype != np.int64:
        with pytest.raises((RuntimeError, ValueError, IndexError)):
            witness(SEQUENCE, model)(**inputs)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float16, np.float32])
@pytest.mark.parametrize("problem", ["regression", MULTI])
def test_targets_of_any_dtype(problem, dtype):
    stated = tiny(GPT2Config, SEQUENCE, num_labels=3, pad_token_id=PAD, problem_type=problem)
    flags = (FLAGS == 1.0).astype(dtype)
    ours = forward(SEQUENCE, stated, input_ids=tokens(), labels=flags)
    close(ours.loss, witness(SEQUENCE, stated)(input_ids=tokens(), labels=flags.astype(np.float64)).loss)
    if problem == MULTI and dtype in (bool, np.float16, np.float32):
        inferred = tiny(GPT2Config, SEQUENCE, num_labels=3, pad_token_id=PAD)
        assert forward(SEQUENCE, inferred, input_ids=tokens(), labels=flags).loss == ours.loss


def test_loss_of_classes_is_stable():
    """Where the sigmoid is 0 or 1 in floating point, the loss is the logit's distance from right."""
    config, values = tiny(GPT2Config, SEQUENCE, num_labels=3, pad_token_id=PAD)
    values["score.weight"] = values["score.weight"] * 1e5
    right = (forward(SEQUENCE, (config, values), input_ids=tokens()).logits > 0.0).astype(float)
    wrong = forward(SEQUENCE, (config, values), input_ids=tokens(), labels=1.0 - right)
    close(wrong.loss, abs(wrong.logits).mean())
    assert 0.0 <= forward(SEQUENCE, (config, values), input_ids=tokens(), labels=right).loss < 1e-9 * wrong.loss


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


# Double heads

NAMED = rng(5).integers(0, T, (B, C))
ANSWERS = np.array([2, 0, 3])
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


@pytest.mark.parametrize("name", EXACT)
def test_summary_activation_matches_transformers(name):
    """All but gelu_fast, whose constant Transformers rounds; see test_reference.py."""
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
    "logits to keep": (DOUBLE, {"logits_to_keep": 1}, "DoubleHeadsModel takes no logits_to_keep"),
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
