"""Bad arguments: refused before any computation, by the same words in every framework, all problems at once."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from gptzoo.cache import StaticCache
from gptzoo.config import CONFIGS
from gptzoo.errors import ConfigError, InputError
from gptzoo.heads import HEADS, class_name
from gptzoo.parity import Runner
from tests import matrix
from tests.matrix import CLASSES, TESTED

frameworks = pytest.mark.parametrize("framework", TESTED)

Inputs = dict[str, Any]

IDS = np.ones((2, 5), int)
LONG = {"input_ids": IDS, "attention_mask": IDS}
EMBEDS = np.zeros((2, 5, 24), np.float32)


def at(value: int, ids: np.ndarray = IDS) -> np.ndarray:
    """The ids with one of them replaced."""
    return np.where(np.arange(ids.size).reshape(ids.shape) == 3, value, ids)


# Arguments of any head -> what the message says after its first line's subject.
BACKBONE: dict[str, tuple[Inputs, str]] = {
    "nothing": ({}, "give one of input_ids and inputs_embeds; neither given"),
    "both": (LONG | {"inputs_embeds": EMBEDS}, "give one of input_ids and inputs_embeds; both given"),
    "rank_1": ({"input_ids": IDS[0]}, "input_ids: shape (5,), expected (batch, tokens)"),
    "no_tokens": ({"input_ids": IDS[:, :0], "attention_mask": IDS[:, :0]}, "0 tokens, expected 1 to 16 (n_positions)"),
    "too_long": ({"input_ids": np.ones((1, 17), int)}, "17 tokens, expected 1 to 16 (n_positions)"),
    "narrow_embeds": (
        {"inputs_embeds": EMBEDS[..., :23], "attention_mask": IDS},
        "inputs_embeds: shape (2, 5, 23), expected (batch, tokens, 24)",
    ),
    "short_mask": (
        {"input_ids": IDS, "attention_mask": IDS[:, :4]},
        "attention_mask: shape (2, 4), expected (2, 5)",
    ),
    "mask_rows": ({"input_ids": IDS, "attention_mask": IDS[:1]}, "attention_mask: shape (1, 5), expected (2, 5)"),
    "types": (LONG | {"token_type_ids": IDS[:, :4]}, "token_type_ids: shape (2, 4), expected (2, 5)"),
    "positions": (LONG | {"position_ids": IDS[:, :4]}, "position_ids: shape (2, 4), expected (2, 5)"),
    "head_mask": (LONG | {"head_mask": np.ones(4, np.float32)}, "head_mask: shape (4,), expected (3,) or (2, 3)"),
    "id_too_high": (LONG | {"input_ids": at(40)}, "input_ids: 40, expected 0 to 39 (vocab_size)"),
    "id_negative": (LONG | {"input_ids": at(-1)}, "input_ids: -1, expected 0 to 39 (vocab_size)"),
    "float_ids": (LONG | {"input_ids": IDS.astype(np.float32)}, "input_ids: dtype float32, expected integers"),
    "type_too_high": (LONG | {"token_type_ids": at(99)}, "token_type_ids: 99, expected 0 to 39 (vocab_size)"),
    "position_too_high": (LONG | {"position_ids": at(16)}, "position_ids: 16, expected 0 to 15 (n_positions)"),
    "position_negative": (LONG | {"position_ids": at(-2)}, "position_ids: -2, expected 0 to 15 (n_positions)"),
    "both_ends": (
        LONG | {"input_ids": np.array([[-7, 1, 1, 1, 41]] * 2)},
        "input_ids: -7 and 41, expected 0 to 39 (vocab_size)",
    ),
    "several": (
        {"input_ids": at(40), "attention_mask": IDS[:, :4], "head_mask": np.ones(4, np.float32)},
        " (3 problems):\n"
        "  attention_mask: shape (2, 4), expected (2, 5)\n"
        "  head_mask: shape (4,), expected (3,) or (2, 3)\n"
        "  input_ids: 40, expected 0 to 39 (vocab_size)",
    ),
    "mask_as_past": (
        LONG | {"past_key_values": IDS},
        "past_key_values: an array of shape (2, 5), expected 2 pairs (give attention_mask by its name)",
    ),
    "short_past": (LONG | {"past_key_values": ((IDS, IDS),)}, "past_key_values: 1 entries, expected 2 pairs"),
    "flat_past": (
        LONG | {"past_key_values": ((IDS, IDS), (IDS, IDS))},
        "past_key_values: key 0 has shape (2, 5), expected (2, 3, ?, 8) (and 3 more)",
    ),
    "half_past": (
        LONG | {"past_key_values": ((None, None), (np.zeros((2, 3, 4, 8), np.float32),) * 2)},
        "past_key_values: nothing in entry 0, expected keys and values as in the others",
    ),
    "other_batch": (
        LONG
        | {"attention_mask": np.ones((2, 9), int), "past_key_values": ((np.zeros((1, 3, 4, 8), np.float32),) * 2,) * 2},
        "past_key_values: key 0 has shape (1, 3, 4, 8), expected (2, 3, 4, 8) (and 3 more)",
    ),
    "no_rank": ({"input_ids": np.array(1)}, "input_ids: shape (), expected (batch, tokens)"),
    "complex": (
        {"inputs_embeds": EMBEDS.astype(np.complex64), "attention_mask": IDS},
        "inputs_embeds: dtype complex64, expected real numbers",
    ),
    "encoder": (
        LONG | {"encoder_hidden_states": np.zeros((2, 3, 24), np.float32)},
        "encoder_hidden_states: given, but the config has no add_cross_attention",
    ),
    "encoder_mask": (
        LONG | {"encoder_attention_mask": IDS},
        "encoder_attention_mask: shape (2, 5), expected to come with encoder_hidden_states",
    ),
}

C_IDS = np.ones((2, 3, 5), int)
FLAT = np.array([0, 1])
NOT_A_CLASS = "labels: -1, expected 0 to 1 (num_labels), or -100 for none"

# Head -> what is wrong -> arguments, config, and what the message says.
OWN: dict[str, dict[str, tuple[Inputs, dict[str, Any], str]]] = {
    "LMHeadModel": {
        "short_labels": (LONG | {"labels": IDS[:, :4]}, {}, "labels: shape (2, 4), expected (2, 5)"),
        "label_negative": (
            LONG | {"labels": at(-1)},
            {},
            "labels: -1, expected 0 to 39 (vocab_size), or -100 for none",
        ),
        "label_too_high": (
            LONG | {"labels": at(40)},
            {},
            "labels: 40, expected 0 to 39 (vocab_size), or -100 for none",
        ),
        "float_labels": (LONG | {"labels": EMBEDS[..., 0]}, {}, "labels: dtype float32, expected integers"),
        "keep_negative": (
            LONG | {"logits_to_keep": -1},
            {},
            "logits_to_keep: -1, expected a number of tokens, or a 1-D array of indices",
        ),
        "keep_word": (
            LONG | {"logits_to_keep": "a"},
            {},
            "logits_to_keep: 'a', expected a number of tokens, or a 1-D array of indices",
        ),
        "keep_beyond": (LONG | {"logits_to_keep": FLAT * 5}, {}, "logits_to_keep: 5, expected -5 to 4 (tokens)"),
        "two": (
            LONG | {"labels": at(-1), "logits_to_keep": -1},
            {},
            " (2 problems):\n"
            "  labels: -1, expected 0 to 39 (vocab_size), or -100 for none\n"
            "  logits_to_keep: -1, expected a number of tokens, or a 1-D array of indices",
        ),
        "all": (
            {"input_ids": at(40), "attention_mask": IDS[:, :4], "head_mask": EMBEDS[0, 0, :4], "labels": IDS[:, :4]},
            {},
            "GPT2LMHeadModel call (4 problems):\n"
            "  attention_mask: shape (2, 4), expected (2, 5)\n"
            "  head_mask: shape (4,), expected (3,) or (2, 3)\n"
            "  input_ids: 40, expected 0 to 39 (vocab_size)\n"
            "  labels: shape (2, 4), expected (2, 5)",
        ),
    },
    "DoubleHeadsModel": {
        "mc_ids_shape": (
            {"input_ids": C_IDS, "mc_token_ids": np.ones((2, 4), int)},
            {},
            "mc_token_ids: shape (2, 4), expected (2, 3)",
        ),
        "mc_ids_beyond": (
            {"input_ids": C_IDS, "mc_token_ids": np.full((2, 3), 5)},
            {},
            "mc_token_ids: 5, expected 0 to 4 (tokens)",
        ),
        "mc_ids_negative": (
            {"input_ids": C_IDS, "mc_token_ids": np.full((2, 3), -1)},
            {},
            "mc_token_ids: -1, expected 0 to 4 (tokens)",
        ),
        "mc_labels_shape": ({"input_ids": C_IDS, "mc_labels": C_IDS[0, 0]}, {}, "mc_labels: shape (5,), expected (2,)"),
        "mc_labels_flat": ({"input_ids": IDS, "mc_labels": FLAT}, {}, "mc_labels: shape (2,), expected () or (1,)"),
        "mc_label_beyond": (
            {"input_ids": C_IDS, "mc_labels": FLAT * 3},
            {},
            "mc_labels: 3, expected 0 to 2 (choices), or -100 for none",
        ),
        "mc_labels_of_vectors": (
            {"input_ids": C_IDS, "mc_labels": FLAT},
            {"summary_proj_to_labels": False},
            "mc_labels: given, but this config's summary is no single score (summary_proj_to_labels)",
        ),
        "labels": (
            {"input_ids": C_IDS, "labels": C_IDS * -1},
            {},
            "labels: -1, expected 0 to 39 (vocab_size), or -100 for none",
        ),
    },
    "ForSequenceClassification": {
        "no_padding": (
            {"input_ids": IDS},
            {},
            "a batch of 2 rows without padding information, which the last token of each row depends on: "
            "give attention_mask, or set config.pad_token_id",
        ),
        "label_negative": (LONG | {"labels": np.array([0, -1])}, {}, NOT_A_CLASS),
        "label_too_high": (LONG | {"labels": FLAT + 1}, {}, NOT_A_CLASS.replace("-1", "2", 1)),
        "label_shape": (
            LONG | {"labels": IDS},
            {},
            "labels: shape (2, 5), expected (2,) or (2, 1) (single_label_classification)",
        ),
        "flags_shape": (
            LONG | {"labels": FLAT.astype(np.float32)},
            {},
            "labels: shape (2,), expected (2, 2) (multi_label_classification)",
        ),
        "numbers_shape": (
            LONG | {"labels": EMBEDS[:, :3, 0]},
            {"id2label": {0: "one"}},
            "labels: shape (2, 3), expected (2,) or (2, 1) (regression)",
        ),
        "float_classes": (
            LONG | {"labels": FLAT.astype(np.float32)},
            {"problem_type": "single_label_classification"},
            "labels: dtype float32, expected integers",
        ),
    },
    "ForTokenClassification": {
        "label_negative": (LONG | {"labels": at(-1)}, {}, NOT_A_CLASS),
        "label_shape": (LONG | {"labels": FLAT}, {}, "labels: shape (2,), expected (2, 5)"),
        "float_labels": (LONG | {"labels": EMBEDS[..., 0]}, {}, "labels: dtype float32, expected integers"),
    },
    "ForQuestionAnswering": {
        "one_only": (
            LONG | {"start_positions": FLAT},
            {},
            "start_positions and end_positions: one given, expected both or neither",
        ),
        "shape": (
            LONG | {"start_positions": FLAT, "end_positions": IDS},
            {},
            "end_positions: shape (2, 5), expected (2,) or (2, 1)",
        ),
        "float_positions": (
            LONG | {"start_positions": FLAT, "end_positions": FLAT.astype(np.float32)},
            {},
            "end_positions: dtype float32, expected integers",
        ),
    },
}


@cache
def runner_of(framework: str, family: str, head: str, **overrides: Any) -> Runner:
    return matrix.build(framework, matrix.tiny(family, **overrides), head)


def refusal(runner: Runner, inputs: Inputs) -> str:
    """The message of the error that a call ends in."""
    native = dict(inputs)
    if isinstance(past := inputs.get("past_key_values"), tuple):
        native["past_key_values"] = tuple(
            tuple(None if x is None else runner.to_native(x) for x in pair) for pair in past
        )
    if isinstance(past, np.ndarray):
        native["past_key_values"] = runner.to_native(past)
    with pytest.raises(InputError) as caught:
        runner(**native)
    return str(caught.value)


BAD = [
    pytest.param(family, head, bad, id=f"{class_name(CONFIGS[family], head)}-{bad}")
    for family, head in CLASSES
    for bad, (inputs, _) in BACKBONE.items()
    if set(inputs) <= set(HEADS[head].arguments)
]


@pytest.mark.parametrize(("family", "head", "bad"), BAD)
@frameworks
def test_bad_call_is_refused_alike(family: str, head: str, framework: str, bad: str) -> None:
    inputs, message = BACKBONE[bad]
    found = refusal(runner_of(framework, family, head), inputs)
    assert found.endswith(message)
    if not message.startswith("give one of") and "past_key_values: " not in message and "batch, tokens" not in message:
        assert found.startswith({"gpt2": "GPT2", "openai-gpt": "OpenAIGPT"}[family] + " model call")


OWN_IDS = [(head, bad) for head, cases in OWN.items() for bad in cases]


@pytest.mark.parametrize(("head", "bad"), OWN_IDS, ids=["-".join(one) for one in OWN_IDS])
@pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])
@frameworks
def test_bad_labels_are_refused_alike(framework: str, family: str, head: str, bad: str) -> None:
    inputs, overrides, message = OWN[head][bad]
    found = refusal(matrix.build(framework, matrix.tiny(family, **overrides), head), inputs)
    assert found.endswith(message.removeprefix("GPT2") if family == "openai-gpt" else message)


@frameworks
def test_lists_and_foreign_arrays(framework: str) -> None:
    """Keras brings them to its backend, as its own layers do; the others name what they take."""
    model = runner_of(framework, "gpt2", "Model").model
    for ids, found in (
        ([[1, 2]], "a list"),
        *([(np.array([[1, 2]]), "a NumPy array")] if framework == "torch" else ()),
    ):
        if framework == "keras":
            assert model(ids).last_hidden_state.shape == (1, 2, 24)
            continue
        name = {"torch": "a torch.Tensor", "flax": "a jax.Array"}[framework]
        with pytest.raises(InputError, match=f"GPT2 model call: input_ids: {found}, expected {name}"):
            model(ids)


@pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])
@frameworks
def test_cache_bounds(framework: str, family: str) -> None:
    runner = runner_of(framework, family, "LMHeadModel")
    past = runner(input_ids=IDS)["past_key_values"]
    with pytest.raises(InputError, match=r"expected \(2, 10\) \(5 cached and 5 new tokens\)"):
        runner(input_ids=IDS, past_key_values=past, attention_mask=IDS)
    with pytest.raises(InputError, match="5 cached and 12 new tokens, expected 1 to 16"):
        runner(input_ids=np.ones((2, 12), int), past_key_values=past)
    with pytest.raises(InputError, match=r"past_key_values: key 0 has shape \(2, 3, 5, 8\), expected \(1, 3, 5, 8\)"):
        runner(input_ids=IDS[:1], past_key_values=past)


@frameworks
def test_static_cache_bounds(framework: str) -> None:
    runner = runner_of(framework, "gpt2", "LMHeadModel")
    for arguments, message in (
        ((1, 17), r"max_length: 17, expected 1 to 16"),
        ((0, 4), r"batch_size: 0, expected an integer of at least 1"),
        ((-1, "a"), r"\(2 problems\)"),
    ):
        with pytest.raises(InputError, match=message):
            runner.model.init_cache(*arguments)
    with pytest.raises(InputError, match="5 tokens, expected 1 to 4"):
        runner(input_ids=IDS, past_key_values=runner.model.init_cache(2, 4))
    with pytest.raises(InputError, match=r"shape \(1, 3, 8, 8\), expected \(2, 3, 8, 8\)"):
        runner(input_ids=IDS, past_key_values=runner.model.init_cache(1, 8))


@frameworks
def test_static_cache_overfilled(framework: str) -> None:
    """The second call finds too little room: its tokens fit the capacity, but not behind those that are there."""
    runner = runner_of(framework, "gpt2", "LMHeadModel")
    past = runner(input_ids=IDS, past_key_values=runner.model.init_cache(2, 8))["past_key_values"]
    assert isinstance(past, StaticCache)
    with pytest.raises(InputError, match=r"5 cached and 5 new tokens, expected 1 to 8 \(in all\)"):
        runner(input_ids=IDS, past_key_values=past)


@frameworks
def test_static_cache_that_is_none(framework: str) -> None:
    runner = runner_of(framework, "gpt2", "LMHeadModel")
    layers, length = runner.model.init_cache(2, 8)
    for static, message in (
        (StaticCache(layers[:1], length), "past_key_values: 1 layers, expected 2"),
        (StaticCache(layers, runner.to_native(np.array(-2))), "past_key_values: length -2, expected at least 0"),
        (StaticCache(layers, runner.to_native(np.array([0]))), "expected an integer of rank 0"),
        (StaticCache(layers, runner.to_native(np.array(0.5, np.float32))), "expected an integer of rank 0"),
    ):
        with pytest.raises(InputError, match=message):
            runner(input_ids=IDS, past_key_values=static)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
@frameworks
def test_indices_of_any_integer_dtype(framework: str, dtype: str) -> None:
    runner = runner_of(framework, "gpt2", "LMHeadModel")
    positions = np.arange(5)[None]
    wanted = runner.numpy(runner(input_ids=IDS, token_type_ids=IDS, position_ids=positions)["logits"])
    narrow = {"input_ids": IDS, "token_type_ids": IDS, "position_ids": positions}
    found = runner(**{name: array.astype(dtype) for name, array in narrow.items()})["logits"]
    assert matrix.error(runner.numpy(found), wanted) == 0


@frameworks
def test_kept_logits(framework: str) -> None:
    """Whole numbers of any kind, None for all, indices from either end."""
    runner = runner_of(framework, "gpt2", "LMHeadModel")
    whole = runner.numpy(runner(input_ids=IDS)["logits"])
    for wanted, expected in (
        (None, whole),
        (np.int64(2), whole[:, -2:]),
        (9, whole),
        (runner.to_native(np.array([0, -1])), whole[:, [0, 4]]),
    ):
        assert matrix.error(runner.numpy(runner(input_ids=IDS, logits_to_keep=wanted)["logits"]), expected) < 1e-6


@frameworks
def test_nothing_cached_is_no_cache(framework: str) -> None:
    """What older code passes at its first step."""
    runner = runner_of(framework, "gpt2", "LMHeadModel")
    wanted = runner.numpy(runner(input_ids=IDS)["logits"])
    for past in ([None, None], ((None, None), (None, None))):
        assert matrix.error(runner.numpy(runner(input_ids=IDS, past_key_values=past)["logits"]), wanted) == 0


@pytest.mark.parametrize("static", [False, True])
@frameworks
def test_cache_of_another_dtype_is_cast(framework: str, static: bool) -> None:
    full = runner_of(framework, "gpt2", "LMHeadModel")
    past = full(input_ids=IDS, past_key_values=full.model.init_cache(2, 10) if static else None)["past_key_values"]
    half = matrix.build(framework, matrix.tiny("gpt2", dtype="bfloat16"), "LMHeadModel")
    output = half(input_ids=IDS, past_key_values=past)
    assert "bfloat16" in str(output["logits"].dtype)
    layers = output["past_key_values"].layers if static else output["past_key_values"]
    assert all("bfloat16" in str(x.dtype) for pair in layers for x in pair)


@frameworks
def test_config_dtype_is_the_models(framework: str) -> None:
    runner = matrix.build(framework, matrix.tiny("gpt2", dtype="bfloat16"), "ForTokenClassification")
    assert "bfloat16" in str(runner.model.get_weight("classifier.weight").dtype)
    assert "bfloat16" in str(runner(input_ids=IDS)["logits"].dtype)


@frameworks
def test_given_config_says_the_dtype(framework: str, tmp_path: Any) -> None:
    """An explicit dtype wins, then that of a config given in place of the checkpoint's, then what is stored."""
    model = runner_of(framework, "gpt2", "LMHeadModel").model
    model.save_pretrained(tmp_path)
    config = matrix.tiny("gpt2", dtype="float16")
    for options, wanted in (
        ({"config": config}, "float16"),
        ({"config": config, "dtype": "bfloat16"}, "bfloat16"),
        ({"config": matrix.tiny("gpt2")}, "float32"),
        ({}, "float32"),
    ):
        loaded = type(model).from_pretrained(tmp_path, **options)
        assert wanted in str(loaded.get_weight("transformer.wte.weight").dtype)
        assert loaded.config.dtype == wanted


@frameworks
def test_bad_construction(framework: str, tmp_path: Any) -> None:
    config = matrix.tiny("gpt2")
    with pytest.raises(InputError, match="seed: -1, expected an integer of at least 0"):
        matrix.build(framework, config, "Model", seed=-1)
    config.dtype = "float31"
    with pytest.raises(ConfigError, match="dtype: 'float31', expected one of float16, bfloat16, float32, float64"):
        matrix.build(framework, config, "Model")
    if framework != "flax":  # JAX places arrays by its own means
        model = runner_of(framework, "gpt2", "Model").model
        model.save_pretrained(tmp_path)
        with pytest.raises(InputError, match="device: 'moon'"):
            type(model).from_pretrained(tmp_path, device="moon")
