"""Completion: the ids of the reference in every framework, how long it gets, and what it refuses.

What drawing tokens means is tested in test_sampling.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from gptzoo.errors import InputError
from gptzoo.generation._others import NEUTRAL, UNUSED
from gptzoo.reference._generation import sample
from tests import matrix
from tests.matrix import TESTED

SEED = 2  # of models that say more than one thing
frameworks = pytest.mark.parametrize("framework", TESTED)
families = pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])


@cache
def _model(family: str, framework: str, **overrides: Any) -> tuple[Any, Any, Any]:
    config = matrix.tiny(family, **({"eos_token_id": None} | overrides))
    values = matrix.random_weights(config, "LMHeadModel", seed=SEED)
    return config, values, matrix.build(framework, config, "LMHeadModel", values)


@frameworks
@families
def test_greedy_ids_are_the_references(family: str, framework: str) -> None:
    config, values, runner = _model(family, framework)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=4)
    wanted = reference.greedy(config, values, ids, 12)
    assert len(set(wanted[:, 4:].ravel().tolist())) > 3  # a model that says one thing only would prove little
    assert np.array_equal(runner.generate(ids, max_new_tokens=12), wanted)


@frameworks
@families
def test_not_only_greedy_but_drawn_ids_are_the_references(family: str, framework: str) -> None:
    config, values, runner = _model(family, framework)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=6)
    mask = np.ones_like(ids)
    mask[0, :4] = 0
    options: dict[str, Any] = {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "num_return_sequences": 2, "seed": 3}
    wanted = sample(config, values, ids, 10, mask, **options)
    found = runner.generate(ids, attention_mask=runner.to_native(mask), max_length=16, do_sample=True, **options)
    assert np.array_equal(found, wanted)


@frameworks
@families
def test_left_padded_rows_continue_as_alone(family: str, framework: str) -> None:
    config, _, runner = _model(family, framework)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=6)
    mask = np.ones_like(ids)
    mask[0, :4], mask[1, :1] = 0, 0
    together = runner.generate(ids, max_new_tokens=8, attention_mask=runner.to_native(mask))
    for row in range(len(ids)):
        start = int((mask[row] == 0).sum())
        alone = runner.generate(ids[row : row + 1, start:], max_new_tokens=8)
        assert np.array_equal(together[row, start:], alone[0])


@frameworks
def test_rows_end_and_are_filled(framework: str) -> None:
    config, values, runner = _model("gpt2", framework)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=4)
    free = reference.greedy(config, values, ids, 10)
    ends = [int(free[0, 6]), int(free[1, 8])]
    for options in ({"eos_token_id": ends}, {"eos_token_id": ends, "pad_token_id": 1}, {"eos_token_id": ends[0]}):
        wanted = reference.greedy(config, values, ids, 10, **options)
        assert np.array_equal(runner.generate(ids, max_new_tokens=10, **options), wanted)


@frameworks
def test_stops_when_all_rows_have_ended(framework: str) -> None:
    config, values, runner = _model("gpt2", framework)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=4)[:1]
    end = int(reference.greedy(config, values, ids, 3)[0, -1])
    assert runner.generate(ids, max_new_tokens=10, eos_token_id=end).shape[1] <= 7


@frameworks
def test_refuses_what_cannot_be(framework: str) -> None:
    config, _, runner = _model("gpt2", framework)
    ids = matrix.ids(config, np.random.default_rng(0))
    with pytest.raises(InputError, match="max_new_tokens: 9, expected 1 to 8"):
        runner.generate(ids, max_new_tokens=9)
    with pytest.raises(InputError, match="max_new_tokens: 0"):
        runner.generate(ids, max_new_tokens=0)
    with pytest.raises(InputError, match="input_ids"):
        runner.generate(ids[0])
    with pytest.raises(InputError, match=r"generate: input_ids: 40, expected 0 to 39 \(vocab_size\)"):
        runner.generate(np.full((1, 3), 40), max_new_tokens=2)
    with pytest.raises(InputError, match=r"attention_mask: shape \(3, 4\), expected \(3, 8\)"):
        runner.generate(ids, max_new_tokens=2, attention_mask=runner.to_native(np.ones((3, 4), int)))
    with pytest.raises(InputError, match=r"generate \(3 problems\)"):
        runner.generate(ids, max_new_tokens=2.5, eos_token_id="a", pad_token_id=-1)
    with pytest.raises(InputError, match="max_length: 8, expected 9 to 16, with the prompt's 8"):
        runner.generate(ids, max_length=8)
    with pytest.raises(InputError, match="max_length: 17, expected 9 to 16, with the prompt's 8"):
        runner.generate(ids, max_length=17)
    with pytest.raises(InputError, match=r"max_length: 12, expected 10 \(the prompt and max_new_tokens\), or only one"):
        runner.generate(ids, max_new_tokens=2, max_length=12)
    with pytest.raises(InputError, match="input_ids: 16 tokens, expected at most 15: n_positions less a new one"):
        runner.generate(np.tile(ids, 2))
    with pytest.raises(InputError, match="17 tokens, expected 1 to 16"):
        runner.generate(np.tile(ids, 3)[:, :17])
    base = matrix.build(framework, config, "Model")
    with pytest.raises(InputError, match="no language model head"):
        base.generate(ids)


@frameworks
def test_prompt_of_a_narrow_dtype(framework: str) -> None:
    """New tokens may be larger than the prompt's dtype holds: they come out whole."""
    config = matrix.tiny("gpt2", vocab_size=300)
    values = matrix.random_weights(config, "LMHeadModel")
    runner = matrix.build(framework, config, "LMHeadModel", values)
    ids = matrix.ids(matrix.tiny("gpt2"), np.random.default_rng(0), tokens=4)
    wanted = reference.greedy(config, values, ids, 8)
    assert wanted.max() > 255
    for dtype in ("uint8", "int8", "int32", "int64"):
        assert np.array_equal(runner.generate(ids.astype(dtype), max_new_tokens=np.int64(8)), wanted)


@frameworks
def test_length(framework: str) -> None:
    """max_length counts the prompt; without a length there are 20 new tokens, or as many as fit."""
    config, values, runner = _model("gpt2", framework, n_positions=32)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=4)
    wanted = reference.greedy(config, values, ids, 28)
    assert np.array_equal(runner.generate(ids, max_length=9), wanted[:, :9])
    assert np.array_equal(runner.generate(ids, max_length=9, max_new_tokens=5), wanted[:, :9])
    assert np.array_equal(runner.generate(ids), wanted[:, :24])
    assert np.array_equal(runner.generate(wanted[:, :24]), wanted)


@frameworks
def test_no_end_by_an_empty_list(framework: str) -> None:
    config, values, _ = _model("gpt2", framework)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=4)
    wanted = reference.greedy(config, values, ids, 6)
    _, _, runner = _model("gpt2", framework, eos_token_id=int(wanted[0, 4]))
    assert np.array_equal(runner.generate(ids, max_new_tokens=6, eos_token_id=[]), wanted)
    assert not np.array_equal(runner.generate(ids, max_new_tokens=6), wanted)


@frameworks
def test_arguments_that_ask_for_nothing(framework: str) -> None:
    config, values, runner = _model("gpt2", framework)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=4)
    wanted = reference.greedy(config, values, ids, 6)
    nothing = {name: values[0] if values else None for name, values in NEUTRAL.items()} | dict.fromkeys(UNUSED, 5)
    own = {
        "do_sample": None,
        "temperature": 1,
        "top_k": 0,
        "top_p": None,
        "num_return_sequences": None,
        "seed": [1] * 3,
    }
    assert np.array_equal(runner.generate(ids, max_new_tokens=6, **nothing, **own), wanted)
    also: dict[str, Any] = {"use_cache": False, "logits_processor": [], "guidance_scale": 1.0, "min_p": None}
    assert np.array_equal(runner.generate(ids, max_new_tokens=6, cache_implementation="static", **also), wanted)


@frameworks
def test_refuses_every_argument_that_is_not_implemented_by_name(framework: str) -> None:
    config, _, runner = _model("gpt2", framework)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=4)
    with pytest.raises(InputError) as caught:
        runner.generate(ids, **dict.fromkeys(NEUTRAL, 7.5))
    assert str(caught.value).startswith(f"generate ({len(NEUTRAL)} problems)")
    for name in NEUTRAL:
        assert f"\n  {name}: 7.5, expected " in str(caught.value)
    with pytest.raises(InputError, match=r"num_beam_groups: 4, expected 1 \(anything else is not implemented yet\)"):
        runner.generate(ids, num_beam_groups=4)
    with pytest.raises(InputError, match=r"force_words_ids: \[\[7\]\], expected None"):
        runner.generate(ids, force_words_ids=[[7]])
    with pytest.raises(InputError, match=r"disable_compile: an array, expected False or True \("):
        runner.generate(ids, disable_compile=np.array([1, 0]))


@frameworks
def test_says_what_else_is_meant_and_shows_flags_as_flags(framework: str) -> None:
    _, _, runner = _model("gpt2", framework)
    ids = np.zeros((2, 3), int)
    with pytest.raises(InputError) as caught:
        runner.generate(ids, token_type_ids=ids, synced_gpus=True, trace=False, penalty_alpha=0.6)
    first, *others = str(caught.value).splitlines()[1:]
    assert first == (
        "  token_type_ids: an array, expected None (not implemented yet in generate; "
        "a tokenizer's return_token_type_ids=False leaves them out)"
    )
    assert [line.removesuffix(" (anything else is not implemented yet)") for line in others] == [
        "  synced_gpus: True, expected False",
        "  trace: False, expected True",
        "  penalty_alpha: 0.6, expected 0",
    ]


@frameworks
def test_inputs_is_another_name_of_input_ids(framework: str) -> None:
    config, values, runner = _model("gpt2", framework)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=4)
    native, generate = runner.to_native(ids), runner.model.generate
    with runner.scope():
        found = runner.to_numpy(generate(inputs=native, max_new_tokens=6))
    assert np.array_equal(found, reference.greedy(config, values, ids, 6))
    with pytest.raises(
        InputError, match=r"^generate: inputs: an array, expected None \(.* input_ids, which is given too"
    ):
        generate(native, inputs=native)
    for nothing in ({}, {"input_ids": None, "inputs": None}, {"attention_mask": native}):
        with pytest.raises(InputError, match=r"^generate: input_ids: None, expected token ids, \(batch, tokens\)$"):
            generate(**nothing)


@frameworks
def test_refuses_unknown_arguments_with_what_they_may_mean(framework: str) -> None:
    _, _, runner = _model("gpt2", framework)
    with pytest.raises(InputError) as caught:
        runner.generate(np.zeros((1, 2), int), temprature=0.9, num_beam=2, banana=1, max_tokens=7)
    assert str(caught.value).splitlines() == [
        "generate (4 problems):",
        "  unknown argument 'temprature', did you mean temperature?",
        "  unknown argument 'num_beam', did you mean num_beams?",
        "  unknown argument 'banana'",
        "  unknown argument 'max_tokens', did you mean max_new_tokens?",
    ]


WRONG: dict[str, tuple[Any, ...]] = {
    "do_sample": (1, "yes", np.array([True, False])),
    "temperature": (0, -1.0, True, "1", float("nan"), float("inf"), 10**400, [1.0]),
    "top_k": (-1, 2.5, True, "5", [5]),
    "top_p": (0, 0.0, -0.1, 1.1, False, "1", float("nan")),
    "num_return_sequences": (0, -1, 2.0, True, "2"),
    "seed": (-1, 2**64, 1.5, "a", "", True, [1, 2], [1, 2, -3], [1, 2, "c"], [], {1: 2}),
}


@frameworks
@pytest.mark.parametrize("name", WRONG)
def test_refuses_wrong_values(name: str, framework: str) -> None:
    _, _, runner = _model("gpt2", framework)
    for value in WRONG[name]:
        with pytest.raises(InputError, match=f"{name}: .*, expected "):
            runner.generate(np.zeros((3, 2), int), **({"do_sample": True} | {name: value}))


@frameworks
def test_refuses_what_has_no_effect_without_drawing(framework: str) -> None:
    _, _, runner = _model("gpt2", framework)
    with pytest.raises(InputError) as caught:
        runner.generate(np.zeros((3, 2), int), temperature=0.7, top_k=5, top_p=0.9, num_return_sequences=2)
    assert str(caught.value).startswith("generate (4 problems)")
    for shown in ("temperature: 0.7", "top_k: 5", "top_p: 0.9", "num_return_sequences: 2"):
        assert f"{shown}, expected " in str(caught.value)
