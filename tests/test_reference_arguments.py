"""The NumPy reference's arguments and loss against Transformers in float64, and against properties where it errs."""

from __future__ import annotations

import numpy as np
import pytest

from gptzoo.config import GPT2Config
from gptzoo.errors import InputError
from tests.reference_witness import (
    BOTH,
    HEADS,
    LEFT,
    RIGHT,
    TOLERANCE,
    B,
    T,
    Witness,
    X,
    assert_same,
    check,
    error,
    forward,
    ids,
    rng,
    tiny,
    vectors,
)

LEFT_POSITIONS = np.array([[0, 0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6], [0, 0, 1, 2, 3, 4, 5]])
RIGHT_POSITIONS = np.array([[0, 1, 2, 3, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 0]])
PADDED = pytest.mark.parametrize(
    ("mask", "positions"),
    [pytest.param(LEFT, LEFT_POSITIONS, id="left"), pytest.param(RIGHT, RIGHT_POSITIONS, id="right")],
)


# Arguments


@pytest.mark.parametrize("head", HEADS)
@BOTH
def test_token_types_match_transformers(family, head):
    config, values = tiny(family, head)
    check(config, head, values, input_ids=ids(), token_type_ids=ids()[::-1])


@BOTH
def test_token_types_of_zero_are_not_none(family):
    config, values = tiny(family)
    zeros = forward("LMHeadModel", config, values, input_ids=ids(), token_type_ids=np.zeros((B, T), int))
    assert error(zeros.logits, forward("LMHeadModel", config, values, input_ids=ids()).logits) > 0.1


@pytest.mark.parametrize("shape", [(B, T), (1, T), (T,)], ids=str)
@BOTH
def test_position_ids_match_transformers(family, shape):
    config, values = tiny(family)
    check(config, "LMHeadModel", values, input_ids=ids(), position_ids=rng().integers(0, 12, shape))


@PADDED
@pytest.mark.parametrize("head", HEADS)
@BOTH
def test_padding_matches_transformers(family, head, mask, positions):
    """Transformers' forward does not derive positions from the mask (section 11 of the spec): they are given to it."""
    config, values = tiny(family, head)
    ours = forward(head, config, values, input_ids=ids(), attention_mask=mask)
    theirs = Witness(config, head, values)(input_ids=ids(), attention_mask=mask, position_ids=positions)
    assert_same(ours, theirs, mask == 1)


@PADDED
@BOTH
def test_positions_come_from_the_mask(family, mask, positions):
    """Padding has position 0, which only its own states show."""
    config, values = tiny(family, "Model")
    found = forward("Model", config, values, input_ids=ids(), attention_mask=mask)
    assert_same(found, forward("Model", config, values, input_ids=ids(), attention_mask=mask, position_ids=positions))


@pytest.mark.parametrize("head", HEADS)
@BOTH
def test_inputs_embeds_match_transformers(family, head):
    config, values = tiny(family, head)
    check(config, head, values, inputs_embeds=vectors(), token_type_ids=ids())
    table = next(value for name, value in values.items() if name.endswith(("wte.weight", "tokens_embed.weight")))
    by_ids = forward(head, config, values, input_ids=ids())
    assert_same(forward(head, config, values, inputs_embeds=table[ids()]), by_ids)


@pytest.mark.parametrize("n_past", range(1, T))
@pytest.mark.parametrize("mask", [None, LEFT], ids=["plain", "left"])
def test_past_matches_transformers(n_past, mask):
    cache_utils, torch = pytest.importorskip("transformers.cache_utils"), pytest.importorskip("torch")
    config, values = tiny(GPT2Config)
    past, cache = [], cache_utils.DynamicCache()
    for layer in range(config.n_layer):
        past.append(tuple(rng(layer).standard_normal((2, B, 3, n_past, 4))))
        cache.update(*map(torch.tensor, past[-1]), layer)
    new, real = ids()[:, n_past:], None if mask is None else mask[:, n_past:] == 1
    given = {} if mask is None else {"attention_mask": mask}
    ours = forward("LMHeadModel", config, values, input_ids=new, past_key_values=past, **given)
    if mask is not None:
        given["position_ids"] = LEFT_POSITIONS[:, n_past:]
    theirs = Witness(config, "LMHeadModel", values)(input_ids=new, past_key_values=cache, use_cache=True, **given)
    assert_same(ours, theirs, real)
    known = np.ones((B, T), bool) if mask is None else (mask == 1) | (np.arange(T) < n_past)
    for (key, value), layer in zip(ours.past_key_values, theirs.past_key_values.layers, strict=True):
        for mine, other in ((key, layer.keys), (value, layer.values)):
            assert error(mine.transpose(0, 2, 1, 3)[known], other.transpose(1, 2)[known]) <= TOLERANCE


@pytest.mark.parametrize("fields", [{}, {"scale_attn_by_inverse_layer_idx": True}], ids=str)
@pytest.mark.parametrize("encoder_mask", [None, np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1]])])
@pytest.mark.parametrize("head", HEADS)
def test_cross_attention_matches_transformers(head, encoder_mask, fields):
    config, values = tiny(GPT2Config, head, add_cross_attention=True, **fields)
    given = {} if encoder_mask is None else {"encoder_attention_mask": encoder_mask}
    inputs = {"input_ids": ids(), "encoder_hidden_states": vectors(B, X)}
    check(config, head, values, **inputs, **given)
    if encoder_mask is not None:
        flat = forward(head, config, values, **inputs, **given)
        assert_same(forward(head, config, values, **inputs, encoder_attention_mask=encoder_mask[:, None]), flat)


def test_cross_attention_with_past_matches_transformers():
    cache_utils = pytest.importorskip("transformers.cache_utils")
    config, values = tiny(GPT2Config, add_cross_attention=True)
    encoder = {"encoder_hidden_states": vectors(B, X)}
    cache = cache_utils.EncoderDecoderCache(cache_utils.DynamicCache(), cache_utils.DynamicCache())
    model, past = Witness(config, "LMHeadModel", values), None
    for part in (ids()[:, :4], ids()[:, 4:]):
        ours = forward("LMHeadModel", config, values, input_ids=part, past_key_values=past, **encoder)
        theirs = model(input_ids=part, past_key_values=cache, use_cache=True, **encoder)
        assert_same(ours, theirs)
        past = ours.past_key_values


def test_encoder_has_a_row_for_each_choice():
    config, values = tiny(GPT2Config, "Model", add_cross_attention=True)
    choices, encoder, mask = ids(2, 3, T), vectors(6, X), rng().integers(0, 2, (6, X))
    mask[:, 0] = 1  # Transformers has its own way with rows that mask all
    inputs = {"input_ids": choices, "encoder_hidden_states": encoder, "encoder_attention_mask": mask}
    check(config, "Model", values, **inputs)
    for wrong in (encoder[:2], encoder[:1], vectors(2, 3, X), encoder[..., 1:], encoder[0]):
        with pytest.raises(InputError, match=r"encoder_hidden_states: shape .* expected \(6, "):
            forward("Model", config, values, input_ids=choices, encoder_hidden_states=wrong)
    with pytest.raises(InputError, match="encoder_attention_mask: shape"):
        forward("Model", config, values, **(inputs | {"encoder_attention_mask": mask[:2]}))


def test_encoder_row_that_is_all_masked_sees_all():
    """Transformers gives such a row equal weights (eager) whatever the scores."""
    config, values = tiny(GPT2Config, add_cross_attention=True)
    inputs = {"input_ids": ids(), "encoder_hidden_states": vectors(B, X)}
    mask = np.array([[0] * X, [1] * X, [1, 1, 0, 0, 0]])
    ours = forward("LMHeadModel", config, values, **inputs, encoder_attention_mask=mask)
    free = forward("LMHeadModel", config, values, **inputs)
    assert error(ours.logits[:2], free.logits[:2]) <= TOLERANCE
    assert error(ours.logits[2], free.logits[2]) > 1e-3
    assert np.ptp(ours.cross_attentions[0][0], axis=-1).min() > 1e-6


@pytest.mark.parametrize("keep", [0, 1, 3, T, T + 1, np.array([5, 0, -1])], ids=str)
@BOTH
def test_logits_to_keep_match_transformers(family, keep):
    config, values = tiny(family)
    check(config, "LMHeadModel", values, input_ids=ids(), logits_to_keep=keep)


@pytest.mark.parametrize("head", HEADS)
@BOTH
def test_choices_are_rows(family, head):
    """Shapes are Transformers': choices come back in the states and logits, not in the other hidden states."""
    config, values = tiny(family, head)
    choices = ids(2, 3, T)
    ours = forward(head, config, values, input_ids=choices)
    assert ours[0].shape[:3] == (2, 3, T)
    check(config, head, values, input_ids=choices, token_type_ids=choices[::-1])
    flat = forward(head, config, values, input_ids=choices.reshape(6, T))
    assert error(ours[0].reshape(flat[0].shape), flat[0]) == 0.0


@BOTH
def test_masked_choices_are_rows(family):
    """Transformers fails here: neither 3-D position ids (both families) nor 3-D masks (GPT) are flattened."""
    config, values = tiny(family)
    choices, mask = ids(2, 3, T), np.stack((LEFT, RIGHT))
    flat = forward("Model", *tiny(family, "Model"), input_ids=choices.reshape(6, T), attention_mask=mask.reshape(6, T))
    ours = forward("Model", *tiny(family, "Model"), input_ids=choices, attention_mask=mask)
    assert error(ours.last_hidden_state.reshape(6, T, -1), flat.last_hidden_state) == 0.0
    inputs = {"input_ids": choices, "labels": choices, "logits_to_keep": 2}
    positions = rng().integers(0, 12, (2, 3, T))
    ours = forward("LMHeadModel", config, values, **inputs, position_ids=positions)
    inputs = {"input_ids": choices.reshape(6, T), "labels": choices.reshape(6, T), "logits_to_keep": 2}
    flat = forward("LMHeadModel", config, values, **inputs, position_ids=positions.reshape(6, T))
    assert error(ours.logits.reshape(6, 2, -1), flat.logits) == 0.0
    assert ours.loss == flat.loss


# Loss


@pytest.mark.parametrize("ignored", [None, LEFT == 0, RIGHT == 0, ids() > 5], ids=["none", "left", "right", "some"])
@BOTH
def test_loss_matches_transformers(family, ignored):
    """Transformers' own loss is in float32; its float64 logits and PyTorch's cross entropy give the other digits."""
    torch = pytest.importorskip("torch")
    config, values = tiny(family)
    labels = ids() if ignored is None else np.where(ignored, -100, ids())
    loss = forward("LMHeadModel", config, values, input_ids=ids(), labels=labels).loss
    theirs = Witness(config, "LMHeadModel", values)(input_ids=ids(), labels=labels)
    assert error(loss, theirs.loss) < 1e-6
    predicted = theirs.logits[:, :-1].flatten(0, 1)
    assert error(loss, torch.nn.functional.cross_entropy(predicted, torch.tensor(labels[:, 1:]).flatten())) <= TOLERANCE


@BOTH
def test_loss_of_ignored_labels_is_zero(family):
    """Transformers returns NaN."""
    config, values = tiny(family)
    for labels in (np.full((B, T), -100), np.where(np.arange(T) == 0, ids(), -100)):  # the first label is never scored
        assert forward("LMHeadModel", config, values, input_ids=ids(), labels=labels).loss == 0.0
    assert forward("LMHeadModel", config, values, input_ids=ids()[:, :1], labels=ids()[:, :1]).loss == 0.0


@pytest.mark.parametrize("keep", [1, 3, np.array([0, 2])], ids=str)
@BOTH
def test_loss_is_over_all_logits(family, keep):
    """Transformers refuses labels with fewer logits."""
    config, values = tiny(family)
    full = forward("LMHeadModel", config, values, input_ids=ids(), labels=ids())
    ours = forward("LMHeadModel", config, values, input_ids=ids(), labels=ids(), logits_to_keep=keep)
    assert ours.loss == full.loss
    positions = keep if np.ndim(keep) else np.arange(T)[-keep:]
    assert error(ours.logits, full.logits[:, positions]) == 0.0


# Head mask: removed from Transformers 5, which ignores it silently


@pytest.mark.parametrize("per_layer", [False, True], ids=["all layers", "per layer"])
@BOTH
def test_head_mask_scales_rows_of_the_projection(family, per_layer):
    """A factor on a head's attention is the same factor on the rows of `c_proj` that read this head."""
    fields = {"add_cross_attention": True} if family is GPT2Config else {}
    config, values = tiny(family, **fields)
    mask = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 1.0], [0.25, 1.0, 0.0]])
    mask = mask if per_layer else mask[0]
    inputs = {"input_ids": ids()} | ({"encoder_hidden_states": vectors(B, X)} if fields else {})
    ours = forward("LMHeadModel", config, values, head_mask=mask, **inputs)
    rows = np.repeat(np.broadcast_to(mask, (3, 3)), 4, axis=1)  # (n_layer, E)
    scaled = dict(values)
    for name in values:
        if name.endswith(("attn.c_proj.weight", "crossattention.c_proj.weight")):
            scaled[name] = values[name] * rows[int(name.split(".")[2])][:, None]
    theirs = forward("LMHeadModel", config, scaled, **inputs)
    assert error(ours.logits, theirs.logits) <= TOLERANCE
    for name in ("attentions", "cross_attentions") if fields else ("attentions",):
        for layer in range(3):
            factors = np.broadcast_to(mask, (3, 3))[layer][:, None, None]
            assert error(ours[name][layer], theirs[name][layer] * factors) <= TOLERANCE
