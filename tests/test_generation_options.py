"""Each option of generate in every framework: the tokens of Transformers 5's generate, and of the reference where it
draws."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from gptzoo.config import GPTConfig
from gptzoo.errors import InputError
from gptzoo.reference._generation import sample
from tests import matrix
from tests.matrix import TESTED
from tests.reference_witness import Witness

frameworks = pytest.mark.parametrize("framework", TESTED)
families = pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])

NEW, PAD, END = 10, 3, 17
PROMPTS = np.array([[5, 9, 31, 9], [22, 5, 9, 14], [1, 2, 1, 2]])

# Options whose effect is not drawn.
GREEDY: dict[str, dict[str, Any]] = {
    "plain": {},
    "max_length": {"max_length": 9, "max_new_tokens": None},
    "min_length": {"min_length": 9},
    "min_new_tokens": {"min_new_tokens": 7},
    "repetition_penalty": {"repetition_penalty": 1.7},
    "repetition_reward": {"repetition_penalty": 0.6},
    "no_repeat_1_gram": {"no_repeat_ngram_size": 1},
    "no_repeat_2_gram": {"no_repeat_ngram_size": 2},
    "no_repeat_3_gram": {"no_repeat_ngram_size": 3},
    "bad_words": {"bad_words_ids": [[24], [36, 36], [9, 14, 29]]},
    "sequence_bias": {"sequence_bias": {(24,): -9.0, (36, 36): -7.0, (6,): 2.5, (9, 14, 30): 12.0}},
    "suppress": {"suppress_tokens": [24, 36, 29]},
    "begin_suppress": {"begin_suppress_tokens": [33, 29, 2, 0]},
    "forced_eos": {"forced_eos_token_id": 8},
    "forced_eos_list": {"forced_eos_token_id": [8, 5]},
    "decay": {"exponential_decay_length_penalty": (2, 1.6)},
    "renormalize": {"renormalize_logits": True},
    "several_ends": {"eos_token_id": [END, 36, 29]},
    "no_cache": {"use_cache": False},
    "all": {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[36]],
        "min_new_tokens": 3,
        "suppress_tokens": [30],
        "exponential_decay_length_penalty": (3, 1.2),
    },
}
BEAMS: dict[str, dict[str, Any]] = {
    "two": {"num_beams": 2},
    "five": {"num_beams": 5, "num_return_sequences": 5},
    "early": {"num_beams": 3, "early_stopping": True, "num_return_sequences": 3},
    "never": {"num_beams": 3, "early_stopping": "never", "num_return_sequences": 2},
    "long": {"num_beams": 3, "length_penalty": 2.5, "num_return_sequences": 3},
    "short": {"num_beams": 3, "length_penalty": -1.5, "num_return_sequences": 3},
    "never_short": {"num_beams": 3, "length_penalty": -1.5, "early_stopping": "never"},
    "several_ends": {"num_beams": 3, "eos_token_id": [END, 36, 29, 39], "num_return_sequences": 3},
    "processors": {"num_beams": 3, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "min_new_tokens": 4},
    "bias": {"num_beams": 2, "sequence_bias": {(9, 33): 7.0}, "renormalize_logits": True, "num_return_sequences": 2},
    "no_cache": {"num_beams": 3, "use_cache": False},
}
CASES = GREEDY | {f"beams_{name}": options for name, options in BEAMS.items()}

# Keras and Flax compile a loop for each of these, which takes seconds, or go step by step, uncompiled, which does too:
# what else processors do is the same in every namespace by test_processors.py.
COMPILED = ("all", "beams_processors")
STEPS = (
    "sequence_bias",
    "forced_eos_list",
    "several_ends",
    "no_cache",
    "beams_five",
    "beams_never_short",
    "beams_early",
)

DRAWN: dict[str, dict[str, Any]] = {
    "top_k": {"top_k": 5},
    "top_p": {"top_k": 0, "top_p": 0.7},
    "min_p": {"min_p": 0.2},
    "typical_p": {"top_k": 0, "typical_p": 0.6},
    "epsilon": {"epsilon_cutoff": 0.03},
    "eta": {"eta_cutoff": 0.05, "temperature": 1.5},
    "renormalize": {"top_k": 7, "renormalize_logits": True},
    "penalties": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "temperature": 0.8, "min_new_tokens": 5},
}


def config_of(family: str, **fields: Any) -> GPTConfig:
    return matrix.tiny(family, eos_token_id=END, bos_token_id=None, pad_token_id=PAD, **fields)


@cache
def weights_of(family: str) -> dict[str, np.ndarray]:
    return matrix.random_weights(config_of(family), "LMHeadModel", seed=2)


@cache
def runner_of(family: str, framework: str) -> Any:
    return matrix.build(framework, config_of(family), "LMHeadModel", weights_of(family))


@cache
def witness_of(family: str) -> Witness:
    return Witness(config_of(family), "LMHeadModel", weights_of(family))


def by_steps(ids: Any, scores: Any) -> Any:
    """A processor that changes nothing: with it, calls go step by step, and what chooses is not compiled."""
    return scores


def uncompiled(framework: str) -> list[Any]:
    """What makes a call of Keras or Flax go by steps; PyTorch's do so anyway."""
    return [] if framework == "torch" else [by_steps]


def theirs(family: str, prompts: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    witness = witness_of(family)
    ids = witness.torch.tensor(prompts)
    given = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": PAD} | options
    found: np.ndarray = witness.model.generate(ids, attention_mask=witness.torch.ones_like(ids), **given).numpy()
    return found


@cache
def tokens_of_transformers(family: str, case: str) -> np.ndarray:
    return theirs(family, PROMPTS, CASES[case])


@frameworks
@families
def test_tokens_of_transformers(family: str, framework: str) -> None:
    runner = runner_of(family, framework)
    few = COMPILED if family == "openai-gpt" else (*COMPILED, *STEPS)
    for case, options in CASES.items() if framework == "torch" else ((case, CASES[case]) for case in few):
        own = [] if case in COMPILED else uncompiled(framework)
        found = runner.generate(PROMPTS, logits_processor=own, **({"max_new_tokens": NEW} | options))
        assert np.array_equal(found, tokens_of_transformers(family, case)), case


def test_cases_differ_from_the_plain_call() -> None:
    """A case that changes nothing would prove nothing."""
    same = {"renormalize", "no_cache"}
    for case in GREEDY.keys() - same - {"plain"}:
        found = [tokens_of_transformers(family, case) for family in ("gpt2", "openai-gpt")]
        plain = [tokens_of_transformers(family, "plain") for family in ("gpt2", "openai-gpt")]
        assert not all(map(np.array_equal, found, plain)), case
    sequences = {tokens_of_transformers("gpt2", f"beams_{name}").tobytes() for name in BEAMS}
    assert len(sequences) > len(BEAMS) // 2


@frameworks
def test_forced_first_token(framework: str) -> None:
    runner, prompts = runner_of("gpt2", framework), PROMPTS[:, :1]
    options = {"forced_bos_token_id": 30}
    found = runner.generate(prompts, max_new_tokens=NEW, **options)
    assert (found[:, 1] == 30).all()
    assert np.array_equal(found, theirs("gpt2", prompts, options))


@frameworks
def test_drawn_tokens_are_the_references(framework: str) -> None:
    config, values, runner = config_of("gpt2"), weights_of("gpt2"), runner_of("gpt2", framework)
    for case, options in DRAWN.items():
        wanted = sample(config, values, PROMPTS, NEW, eos_token_id=END, pad_token_id=PAD, seed=5, **options)
        own = [] if case == "penalties" else uncompiled(framework)
        options = options | {"max_new_tokens": NEW, "do_sample": True, "seed": 5, "logits_processor": own}
        found = runner.generate(PROMPTS, **options)
        assert np.array_equal(found, wanted), case


@frameworks
@pytest.mark.parametrize("options", [{"num_beams": 3, "num_return_sequences": 2}, {"repetition_penalty": 1.6}], ids=str)
def test_padding_changes_nothing(options: dict[str, Any], framework: str) -> None:
    """Not even for penalties and n-grams: padding is no token, and new ones follow the last that is one."""
    runner = runner_of("gpt2", framework)
    options = {"max_new_tokens": 8, "no_repeat_ngram_size": 2, "logits_processor": uncompiled(framework)} | options
    ids = np.full((3, 6), 6)  # a token that comes: were padding one, it would be penalised
    mask = np.zeros_like(ids)
    prompts = [PROMPTS[0], PROMPTS[1, :2], PROMPTS[2, :3]]
    for row, prompt in enumerate(prompts):
        place = slice(6 - len(prompt), 6) if row < 2 else slice(1, 1 + len(prompt))  # one of them on both sides
        ids[row, place], mask[row, place] = prompt, 1
    found = runner.generate(ids, attention_mask=runner.to_native(mask), **options)
    assert np.array_equal(found[:, :6], np.repeat(ids, len(found) // 3, axis=0))
    together = found[:, 6:]
    copies = len(together) // 3
    for row, prompt in enumerate(prompts):
        alone = runner.generate(prompt[None], **options)[:, len(prompt) :]
        rest = together[row * copies : (row + 1) * copies]
        assert np.array_equal(rest[:, : alone.shape[1]], alone)
        assert (rest[:, alone.shape[1] :] == PAD).all()


@frameworks
def test_what_is_returned_beside_the_sequences(framework: str) -> None:
    """Scores and logits of each step are those of Transformers; of beams those of the rows."""
    runner, witness = runner_of("gpt2", framework), witness_of("gpt2")
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "max_new_tokens": 5}
    for options in ({}, {"repetition_penalty": 1.4}, {"num_beams": 3, "num_return_sequences": 2}):
        with runner.scope():
            ours = runner.model.generate(runner.to_native(PROMPTS), **wanted, **options)
        ids = witness.torch.tensor(PROMPTS)
        more = {"attention_mask": witness.torch.ones_like(ids), "do_sample": False, "pad_token_id": PAD}
        other = witness.model.generate(ids, **more, **wanted, **options)
        assert list(ours) == [name for name in ("sequences", "sequences_scores", "scores", "logits") if name in other]
        assert np.array_equal(runner.to_numpy(ours.sequences), other.sequences)
        for name in ("scores", "logits"):
            for one, two in zip(ours[name], other[name], strict=True):
                assert np.allclose(runner.to_numpy(one), two, atol=2e-5), name
        if "num_beams" in options:
            assert np.allclose(runner.to_numpy(ours.sequences_scores), other.sequences_scores, atol=1e-5)


@frameworks
def test_own_processors_and_criteria(framework: str) -> None:
    """They get the ids so far; a processor's scores are chosen by; a criterion ends rows, or all of them."""
    runner = runner_of("gpt2", framework)
    seen: list[np.ndarray] = []

    def only_even(ids: Any, scores: Any) -> Any:
        seen.append(np.asarray(runner.to_numpy(ids)))
        return scores + runner.to_native(np.where(np.arange(scores.shape[1]) % 2, -1e9, 0.0))

    found = runner.generate(PROMPTS, max_new_tokens=5, logits_processor=[only_even])
    assert (found[:, 4:] % 2 == 0).all()
    assert [ids.tolist() for ids in seen] == [found[:, :n].tolist() for n in range(4, 9)]

    def first_row(ids: Any, scores: Any) -> Any:
        return runner.to_native(np.arange(len(ids)) == 0)

    ended = runner.generate(PROMPTS, max_new_tokens=5, stopping_criteria=[first_row])
    plain = runner.generate(PROMPTS, max_new_tokens=5)
    assert (ended[0, 5:] == PAD).all()
    assert np.array_equal(ended[1:], plain[1:, : ended.shape[1]])
    assert runner.generate(
        PROMPTS, max_new_tokens=5, stopping_criteria=[lambda ids, scores: ids.shape[1] >= 6]
    ).shape == (3, 6)
    beams = runner.generate(
        PROMPTS, max_new_tokens=5, num_beams=3, stopping_criteria=[lambda ids, scores: ids.shape[1] >= 6]
    )
    assert beams.shape == (3, 6)


@frameworks
def test_what_own_functions_return_is_checked(framework: str) -> None:
    runner = runner_of("gpt2", framework)

    def called(**functions: Any) -> Any:
        return runner.generate(PROMPTS[:2], max_new_tokens=2, **functions)

    for wrong in (lambda ids, scores: scores[:, :5], lambda ids, scores: None, lambda ids, scores: 1.5):
        with pytest.raises(InputError, match=r"logits_processor: .* returned, expected scores of shape \(2, 40\)"):
            called(logits_processor=[wrong])
    for said in (None, 0.5, "x", np.ones(3, bool), np.ones((2, 1), bool)):
        with pytest.raises(InputError, match=r"stopping_criteria: .* returned, expected True or False, or one for"):
            called(stopping_criteria=[lambda ids, scores, said=said: said])
    plain = called(logits_processor=None, stopping_criteria=None)
    for said in (False, 0, np.bool_(False), [False, False], np.zeros(2, bool)):
        assert np.array_equal(called(stopping_criteria=[lambda ids, scores, said=said: said]), plain)
    for said in (True, 1, np.bool_(True), [True, True]):
        assert called(stopping_criteria=[lambda ids, scores, said=said: said]).shape == (2, 5)
    for name in ("logits_processor", "stopping_criteria"):
        for given in (by_steps, 3, [None], "abc", [by_steps, 5]):
            with pytest.raises(InputError, match=rf"{name}: .*, expected a list of functions"):
                called(**{name: given})


@frameworks
@pytest.mark.parametrize("beams", [1, 2])
def test_no_score_that_is_left_is_an_error(beams: int, framework: str) -> None:
    runner = runner_of("gpt2", framework)
    for factor in (float("nan"), float("inf")):
        own = [lambda ids, scores, factor=factor: scores * 0 - factor]
        with pytest.raises(InputError, match="no finite score is left for new token 1"):
            runner.generate(PROMPTS, max_new_tokens=3, num_beams=beams, logits_processor=own)
    with pytest.raises(InputError, match=r"suppress_tokens: .*, expected one token at least that is left"):
        runner.generate(PROMPTS, num_beams=beams, max_new_tokens=2, suppress_tokens=list(range(40)))
    with pytest.raises(InputError, match=r"forced_eos_token_id: .*, expected a token that is not suppressed"):
        runner.generate(PROMPTS, num_beams=beams, max_new_tokens=2, suppress_tokens=[5], forced_eos_token_id=5)


@frameworks
def test_a_finished_beam_of_a_very_low_score_is_found(framework: str) -> None:
    """Scores below Transformers' smallest, -1e9: there is no empty row for them."""
    found = runner_of("gpt2", framework).generate(
        PROMPTS, max_new_tokens=NEW, num_beams=2, length_penalty=-20.0, eos_token_id=[], logits_processor=[by_steps]
    )
    assert found.shape == (3, 4 + NEW)
    assert np.array_equal(found[:, :4], PROMPTS)


@frameworks
def test_sliding_past_n_positions(framework: str) -> None:
    """As nanoGPT: each token from the last n_positions ones, counted anew. Padding goes first."""
    runner = runner_of("gpt2", framework)
    options = {"max_new_tokens": 9, "eos_token_id": [], "logits_processor": uncompiled(framework)}
    ids = np.tile(PROMPTS, (1, 3))  # 12 of 16 positions
    with pytest.raises(InputError, match='overflow="slide"'):
        runner.generate(ids, **options)
    options["overflow"] = "slide"
    found = runner.generate(ids, **options)
    for step in range(9):
        window = found[:, : 12 + step][:, -16:]
        logits = runner.predict(input_ids=window)["logits"]
        assert np.array_equal(runner.numpy(logits)[:, -1].argmax(-1), found[:, 12 + step])
    longer = np.tile(ids, (1, 2))  # than there are positions
    logits = runner.predict(input_ids=longer[:, -16:])["logits"]
    last = runner.generate(longer, **options | {"max_new_tokens": 1})[:, -1]
    assert np.array_equal(runner.numpy(logits)[:, -1].argmax(-1), last)
    mask = np.ones_like(ids)
    mask[0, :8] = 0
    padded = runner.generate(ids, attention_mask=runner.to_native(mask), **options)
    alone = runner.generate(ids[:1, 8:], **options)
    assert np.array_equal(padded[0, 12:], alone[0, 4:])


@frameworks
def test_half_precision(framework: str) -> None:
    """Mostly the tokens of float32: the scores are float64, but the logits are not."""
    runner = matrix.build(framework, config_of("gpt2", dtype="bfloat16"), "LMHeadModel", weights_of("gpt2"))
    options = {"max_new_tokens": 6, "eos_token_id": [], "logits_processor": [by_steps]}
    found, plain = (one.generate(PROMPTS, **options) for one in (runner, runner_of("gpt2", framework)))
    assert (found == plain).mean() > 0.6
    for other in ({"num_beams": 2}, {"repetition_penalty": 1.3}, {"do_sample": True, "seed": 1}):
        assert runner.generate(PROMPTS, **options, **other).shape == (3, 10)
