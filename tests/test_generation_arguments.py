"""The options of a call of generate: whose win, what they amount to, and every refusal by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo import GenerationConfig
from gptzoo.errors import InputError
from gptzoo.generation._arguments import resolve_options
from gptzoo.generation._config import DEFAULTS, IDS, OPTIONS
from tests import matrix
from tests.generation_calls import VALUES, Model, planned, refused
from tests.matrix import TESTED

frameworks = pytest.mark.parametrize("framework", TESTED)

# Whose options win


@pytest.mark.parametrize("name", OPTIONS)
def test_who_wins(name: str) -> None:
    """Of each option: the call, then its object, then the model's, then the config's ids, then the default."""
    config = matrix.tiny("gpt2", bos_token_id=20, eos_token_id=21, pad_token_id=22)

    def found(model: Any, call: Any, by_name: dict[str, Any]) -> Any:
        stored = GenerationConfig(**model)
        return getattr(resolve_options(Model(config, stored), GenerationConfig(**call), by_name), name)

    def settled(value: Any) -> Any:
        return found({}, {}, {name: value})

    one, two = VALUES[name], other_value(name)
    assert settled(one) != settled(two)
    for lower in ({}, {name: two}):
        assert found(lower, lower, {name: one}) == found(lower, {name: one}, {}) == settled(one)
    assert found({name: one}, {}, {}) == settled(one)
    assert found({}, {}, {}) == (getattr(config, name) if name in IDS else DEFAULTS[name])


def other_value(name: str) -> Any:
    value = VALUES[name]
    if isinstance(value, bool):
        return not value
    others = {"early_stopping": True, "overflow": "error", "stop_strings": "c", "sequence_bias": {(4,): 1.0}}
    others |= {"bad_words_ids": [[5]], "exponential_decay_length_penalty": (3, 1.5)}
    if name in others:
        return others[name]
    return [*value, 12] if isinstance(value, list) else value / 2 if isinstance(value, float) else value + 1


@pytest.mark.parametrize("name", OPTIONS)
def test_none_in_a_call_asks_for_nothing(name: str) -> None:
    """Whatever is stored; but a length and a special token stay as they are stored."""
    found = getattr(planned(stored={name: VALUES[name]}, **{name: None}).options, name)
    if name in IDS:
        assert found == VALUES[name]
    elif name in ("max_length", "max_new_tokens"):
        assert found == {"max_length": 14, "max_new_tokens": 6}[name]
    else:
        assert found == {"max_length": 16, "max_new_tokens": 12, "top_k": 0}.get(name, DEFAULTS[name])


def test_top_k() -> None:
    assert planned(do_sample=True).options.top_k == 50
    assert planned(do_sample=True, top_k=None).options.top_k == 0
    assert planned(do_sample=True, stored={"top_k": 5}).options.top_k == 5
    assert planned(do_sample=True, stored={"top_k": 5}, given=GenerationConfig(top_k=0)).options.top_k == 0


def test_options_have_one_form() -> None:
    found = planned(
        stop_strings="a",
        forced_eos_token_id=5,
        sequence_bias=[[(1, 2), 3]],
        bad_words_ids=((1,),),
        suppress_tokens=(2,),
    ).options
    assert found.stop_strings == ["a"]
    assert found.forced_eos_token_id == [5]
    assert found.sequence_bias == {(1, 2): 3}
    assert found.bad_words_ids == [[1]]
    assert found.suppress_tokens == [2]


LENGTHS: dict[str, tuple[dict[str, Any], int]] = {
    "nobody says": ({}, 12),
    "call": ({"max_new_tokens": 5}, 5),
    "call, with the prompt": ({"max_length": 9}, 5),
    "call, both": ({"max_length": 9, "max_new_tokens": 5}, 5),
    "call over stored": ({"max_new_tokens": 5, "stored": {"max_length": 9000}}, 5),
    "call over stored, with the prompt": ({"max_length": 9, "stored": {"max_new_tokens": 9000}}, 5),
    "object over stored": ({"given": GenerationConfig(max_length=9), "stored": {"max_new_tokens": 9000}}, 5),
    "stored": ({"stored": {"max_length": 9}}, 5),
    "stored, both": ({"stored": {"max_length": 4, "max_new_tokens": 5}}, 5),
    "sliding": ({"overflow": "slide"}, 20),
    "sliding far": ({"overflow": "slide", "max_new_tokens": 10**6}, 10**6),
    "sliding, with the prompt": ({"overflow": "slide", "max_length": 1004}, 1000),
    "sliding, a full prompt": ({"overflow": "slide", "tokens": 16}, 20),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_lengths(case: str) -> None:
    call, wanted = LENGTHS[case]
    found = planned(**call)
    assert found.new == wanted == found.options.max_new_tokens
    assert found.options.max_length == call.get("tokens", 4) + wanted


def test_shortest_lengths() -> None:
    """As in Transformers, min_new_tokens wins over min_length; what is stored gives way to what a call allows."""
    found = planned(min_length=9, min_new_tokens=2).options
    assert (found.min_length, found.min_new_tokens) == (0, 2)
    found = planned(min_length=9, stored={"min_new_tokens": 2}).options
    assert (found.min_length, found.min_new_tokens) == (9, None)
    assert planned(max_new_tokens=2, stored={"min_new_tokens": 9}).new == 2


def test_ends_and_pads() -> None:
    assert (planned().ends, planned().pad) == ([3], 3)
    assert planned(eos_token_id=None).ends == [3]
    assert (planned(eos_token_id=[]).ends, planned(eos_token_id=[]).pad) == ([], 0)
    found = planned(eos_token_id=(5, 6), given=GenerationConfig(pad_token_id=7))
    assert (found.ends, found.pad) == ([5, 6], 7)


def test_rows_and_keys() -> None:
    assert planned(rows=2).keys is None
    found = planned(rows=2, do_sample=True, num_return_sequences=2, seed=9)
    assert (found.copies, found.keys) == (2, [(9, 0), (9, 1), (9, 2), (9, 3)])
    assert planned(rows=2, do_sample=True, num_return_sequences=2, seed=(8, 9)).keys == [(8, 0), (8, 1), (9, 0), (9, 1)]
    assert planned(rows=2, do_sample=True, num_return_sequences=2, seed=[(9, 0), (9, 1)]).keys == found.keys
    assert planned(rows=1, do_sample=True).keys != planned(rows=1, do_sample=True).keys
    beams = planned(num_beams=3, num_return_sequences=2)
    assert (beams.copies, beams.keys, beams.options.num_return_sequences) == (1, None, 2)


# Refusals

WRONG: dict[str, tuple[Any, ...]] = {
    "max_length": (0, -1, 2.5, True, "9", [9]),
    "max_new_tokens": (0, -1, 2.5, True, "9"),
    "min_length": (-1, 2.5, False, "9"),
    "min_new_tokens": (-1, 2.5, "9"),
    "do_sample": (1, 0, "yes", np.array([True, False])),
    "temperature": (0, -1.0, True, "1", float("nan"), float("inf"), 10**400, [1.0]),
    "top_k": (-1, 2.5, True, "5", [5]),
    "top_p": (0, 0.0, -0.1, 1.1, False, "1", float("nan")),
    "min_p": (-0.1, 1.1, True, "0"),
    "typical_p": (0, 1.1, "1"),
    "epsilon_cutoff": (-0.1, 1, 2, "0"),
    "eta_cutoff": (-0.1, 1.0, "0"),
    "repetition_penalty": (0, -1, float("inf"), "1"),
    "no_repeat_ngram_size": (-1, 2.5, "2"),
    "bad_words_ids": (5, [5], [[]], [["a"]], [[1.5]], "a", [[True]]),
    "sequence_bias": (5, {1: 2.0}, {(): 1.0}, {(1,): "a"}, [[1, 2.0]], [[[1]]], {(1,): float("nan")}),
    "suppress_tokens": (5, ["a"], [1.5], [[1]], {1: 2}),
    "begin_suppress_tokens": (5, "a"),
    "forced_bos_token_id": ([5], "a", 1.5),
    "forced_eos_token_id": ("a", [[5]], 1.5),
    "exponential_decay_length_penalty": (5, (1,), (-1, 1.5), (1.5, 1.5), (1, 0), (1, "a")),
    "renormalize_logits": (1, "yes"),
    "num_beams": (0, -1, 2.0, "2", True),
    "length_penalty": ("a", float("nan"), True),
    "early_stopping": ("always", 1, 0, 2.0),
    "num_return_sequences": (0, -1, 2.0, True, "2"),
    "bos_token_id": ("a", 1.5, [1], -1, 2**31),
    "eos_token_id": ("a", 1.5, True, [1, "b"], [[1]], -1, [1, -1], 2**31),
    "pad_token_id": ("a", 1.5, [1], -1, 2**31),
    "stop_strings": (5, "", ["a", ""], ["a", 5]),
    "output_scores": (1,),
    "output_logits": ("yes",),
    "return_dict_in_generate": (1,),
    "use_cache": (0, "no", np.array([1, 0])),
    "seed": (-1, 2**64, 1.5, "a", "", True, [1, 2], [1, 2, -3], [1, 2, "c"], [], {1: 2}, [1, 2, (3, -1)], [1, 2, (3,)]),
    "overflow": ("crop", True, 5),
    "num_assistant_tokens": (0, "a", 1.5),
    "prompt_lookup_num_tokens": (0, -1, "a", 2.5),
    "max_matching_ngram_size": (0, "a"),
    "max_time": (0, -1, "a", float("inf")),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_values_in_a_call(name: str) -> None:
    for value in WRONG[name]:
        assert refused(**({"rows": 3, "do_sample": name != "num_beams"} | {name: value})).startswith(
            f"generate: {name}: "
        )


def test_wrong_values_of_objects_are_named_with_them() -> None:
    own, stored = GenerationConfig(), GenerationConfig()
    own.top_p, stored.temperature = 2, "hot"  # type: ignore[assignment]
    with pytest.raises(InputError) as caught:
        resolve_options(Model(matrix.tiny("gpt2"), stored), own, {"top_k": -1})
    assert str(caught.value).splitlines()[1:] == [
        "  model.generation_config.temperature: 'hot', expected a number above 0",
        "  generation_config.top_p: 2, expected a number above 0, to 1",
        "  top_k: -1, expected an integer of at least 1, or None for all",
    ]
    assert refused(given={"top_k": 5}) == "generate: generation_config: a dict, expected a gptzoo.GenerationConfig"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"temprature": 1}, "unknown argument 'temprature', did you mean temperature?"),
    "not implemented": (
        {"penalty_alpha": 0.6},
        "penalty_alpha: 0.6, expected 0 (anything else is not implemented yet)",
    ),
    "temperature alone": (
        {"temperature": 0.7},
        "temperature: 0.7, expected do_sample=True beside it: without, it has no effect",
    ),
    **{
        f"{name} alone": ({name: VALUES[name]}, f"{name}: {VALUES[name]}, expected do_sample=True beside it")
        for name in ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
    },
    "length_penalty alone": ({"length_penalty": 2}, "length_penalty: 2, expected num_beams above 1 beside it"),
    "early_stopping alone": (
        {"early_stopping": "never"},
        "early_stopping: 'never', expected num_beams above 1 beside it",
    ),
    "sequences alone": ({"num_return_sequences": 2}, "num_return_sequences: 2, expected 1 without do_sample=True"),
    "more sequences than beams": (
        {"num_return_sequences": 3, "num_beams": 2},
        "num_return_sequences: 3, expected at most num_beams, which is 2",
    ),
    "drawn beams": ({"do_sample": True, "num_beams": 2}, "do_sample: True, expected False beside num_beams 2"),
    "beams of a model that draws": (
        {"num_beams": 2, "stored": {"do_sample": True}},
        "do_sample: True (of model.generation_config), expected False beside num_beams 2",
    ),
    "too many": ({"max_new_tokens": 13}, "max_new_tokens: 13, expected 1 to 12 (n_positions less the prompt;"),
    "too many, sliding": (
        {"max_new_tokens": 10**6 + 1, "overflow": "slide"},
        "max_new_tokens: 1000001, expected 1 to 1000000",
    ),
    "too long": ({"max_length": 17}, "max_length: 17, expected 5 to 16, with the prompt's 4"),
    "both": ({"max_length": 9, "max_new_tokens": 6}, "max_length: 9, expected 10 (the prompt and max_new_tokens)"),
    "stored, no longer than the prompt": (
        {"stored": {"max_length": 4}},
        "max_length: 4 (of model.generation_config), expected 5 to 16, with the prompt's 4; "
        "max_new_tokens says how many to add",
    ),
    "object, too many": (
        {"given": GenerationConfig(max_new_tokens=13)},
        "max_new_tokens: 13 (of generation_config), expected 1 to 12 (n_positions less the prompt;",
    ),
    "no room": ({"tokens": 16}, "input_ids: 16 tokens, expected at most 15: n_positions less a new one"),
    "at least more than at most": (
        {"min_new_tokens": 6, "max_new_tokens": 5},
        "min_new_tokens: 6, expected at most 5: 5 tokens are added at most",
    ),
    "at least longer than at most": (
        {"min_length": 10, "max_new_tokens": 5},
        "min_length: 10, expected at most 9: 5 tokens are added at most",
    ),
    "lookup with beams": (
        {"prompt_lookup_num_tokens": 5, "num_beams": 2},
        "prompt_lookup_num_tokens: given, expected none beside num_beams 2",
    ),
    "lookup of rows": (
        {"prompt_lookup_num_tokens": 5, "rows": 2},
        "prompt_lookup_num_tokens: given, expected none for 2",
    ),
    "nothing to begin with": (
        {"suppress_tokens": [39], "begin_suppress_tokens": [*range(39)]},
        "begin_suppress_tokens: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,",
    ),
    "seeds": ({"seed": [1, 2], "rows": 3}, "seed: 2 entries, expected one for each of 3 rows of input_ids"),
    **{
        f"{name} outside the vocabulary": (
            {name: value},
            f"{name}: {value}, expected ids from 0 to 39 (vocab_size), and not 40",
        )
        for name, value in {
            "suppress_tokens": [1, 40],
            "begin_suppress_tokens": [40],
            "bad_words_ids": [[1], [2, 40]],
            "sequence_bias": {(40,): 1.0},
            "forced_bos_token_id": 40,
            "forced_eos_token_id": [40],
        }.items()
    },
    "stored ids outside the vocabulary": (
        {"stored": {"suppress_tokens": [-1]}},
        "suppress_tokens: [-1] (of model.generation_config), expected ids from 0 to 39 (vocab_size), and not -1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case: str) -> None:
    call, message = REFUSED[case]
    found = refused(**call)
    assert found.startswith(f"generate: {message}")
    assert len(found.splitlines()) == 1


def test_all_problems_of_a_call_at_once() -> None:
    found = refused(temprature=1, top_k=-1, num_return_sequences=2, temperature=0.5, seed=[1, 2], suppress_tokens=[77])
    assert found.startswith("generate (6 problems):")


FINE: dict[str, dict[str, Any]] = {
    "values that change nothing": {"temperature": 1, "top_k": 50, "top_p": 1.0, "min_p": 0, "typical_p": 1},
    "no top_k": {"top_k": 0},
    "no beams": {"length_penalty": 1, "early_stopping": False, "num_beams": 1},
    "scores without a dict": {"output_scores": True, "output_logits": True},
    "seed": {"seed": 5},
    "stored, without effect": {
        "stored": {"temperature": 0.7, "top_k": 5, "length_penalty": 2.0, "early_stopping": True}
    },
    "object, without effect": {"given": GenerationConfig(temperature=0.7)},
    "drawing is stored": {"stored": {"do_sample": True}, "temperature": 0.7},
    "no words": {"bad_words_ids": [], "suppress_tokens": [], "sequence_bias": {}},
    "stored lookup of rows": {"stored": {"prompt_lookup_num_tokens": 5}, "rows": 2},
    "an end that cannot come": {"eos_token_id": 50256, "pad_token_id": 50256},
}


@pytest.mark.parametrize("case", FINE)
def test_does_not_refuse(case: str) -> None:
    assert planned(**FINE[case]).options.prompt_lookup_num_tokens is None


@frameworks
def test_refuses_before_work_starts(framework: str) -> None:
    """A model whose logits are no numbers says so at its first step: here it does not come to that."""
    config = matrix.tiny("gpt2")
    values = {name: np.full_like(x, np.nan) for name, x in matrix.random_weights(config, "LMHeadModel").items()}
    runner = matrix.build(framework, config, "LMHeadModel", values)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=4)[:1]
    for case in ("temperature alone", "unknown", "both", "more sequences than beams", "lookup with beams"):
        call, message = REFUSED[case]
        with pytest.raises(InputError) as caught:
            runner.generate(ids, **call)
        assert str(caught.value).startswith(f"generate: {message}")


@frameworks
def test_refuses_an_assistant_of_several_rows(framework: str) -> None:
    runner = matrix.build(framework, matrix.tiny("gpt2"), "LMHeadModel")
    one, two = np.zeros((1, 4), int), np.zeros((2, 4), int)
    for ids, options, message in (
        (one, {"num_beams": 2}, "assistant_model: given, expected none beside num_beams 2"),
        (two, {}, "assistant_model: given, expected none for 2 rows"),
        (one, {"do_sample": True, "num_return_sequences": 3}, "assistant_model: given, expected none for 3 rows"),
        (one, {"prompt_lookup_num_tokens": 5}, "prompt_lookup_num_tokens: given, expected none beside assistant_model"),
    ):
        with pytest.raises(InputError, match=f"^generate: {message}"):
            runner.generate(ids, assistant_model=runner.model, **options)
