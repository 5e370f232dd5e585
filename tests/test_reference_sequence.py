"""The reference's sequence classification: against Transformers in float64, and by hand where it errs.

See test_reference_heads.py for what that means.
"""

from __future__ import annotations

import numpy as np
import pytest

from gptzoo.config import GPT2Config
from gptzoo.errors import InputError
from tests.reference_heads import (
    INNER,
    INTEGERS,
    PAD,
    PADDED,
    SEQUENCE,
    C,
    close,
    forward,
    last,
    padded,
    positions,
    same,
    states,
    tokens,
    witness,
)
from tests.reference_witness import BOTH, LEFT, RIGHT, TOLERANCE, B, T, error, rng, tiny, vectors


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
