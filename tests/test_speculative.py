"""Speculative decoding: the ids of a run without guesses, from fewer calls of the model.

How guesses are checked is written once. PyTorch, where nothing is compiled, goes through the cases; all frameworks show
that their models and caches do as they are told.
"""

from __future__ import annotations

import importlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo.errors import InputError
from gptzoo.generation._engine import Engine
from gptzoo.generation._namespace import Namespace
from gptzoo.generation._search import State
from gptzoo.generation._speculative import PromptLookup
from gptzoo.parity import Runner
from tests import matrix
from tests.matrix import TESTED

POSITIONS = 64
frameworks = pytest.mark.parametrize("framework", TESTED)
eager = pytest.mark.parametrize("framework", ["torch"] if "torch" in TESTED else [])


@cache
def _model(framework: str, seed: int = 2, family: str = "gpt2", head: str = "LMHeadModel", **overrides: Any) -> Runner:
    config = matrix.tiny(family, **({"eos_token_id": None, "n_positions": POSITIONS} | overrides))
    return matrix.build(framework, config, head, matrix.random_weights(config, head, seed=seed))


@cache
def _opposite(framework: str, negative: bool) -> Runner:
    """A model, or the one that holds unlikely what that holds likely."""
    config = matrix.tiny("gpt2", eos_token_id=None, n_positions=POSITIONS, tie_word_embeddings=False)
    weights = matrix.random_weights(config, "LMHeadModel", seed=2)
    if negative:
        weights["lm_head.weight"] = -weights["lm_head.weight"]
    return matrix.build(framework, config, "LMHeadModel", weights)


def _ids(tokens: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 40, (1, tokens))


def _drafts(framework: str) -> dict[str, dict[str, Any]]:
    """What to guess with: the model itself, others, the smaller of which has fewer positions, and the row itself."""
    return {
        "itself": {"assistant_model": _model(framework).model},
        "one at a time": {"assistant_model": _model(framework).model, "num_assistant_tokens": 1},
        "other": {"assistant_model": _model(framework, 3, "openai-gpt").model, "num_assistant_tokens": 3},
        "smaller": {"assistant_model": _model(framework, 4, n_positions=20, n_layer=1).model},
        "double heads": {"assistant_model": _model(framework, 2, head="DoubleHeadsModel").model},
        "lookup": {"prompt_lookup_num_tokens": 4},
        "lookup of one": {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1},
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"do_sample": True, "seed": 5, "temperature": 0.4, "top_k": 20},
    "penalty": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
}


@frameworks
@pytest.mark.parametrize("options", ["greedy", "drawn"])
def test_ids_are_those_without_a_draft(framework: str, options: str, calls: Counter[int]) -> None:
    runner, given = _model(framework), {"max_new_tokens": 20, **OPTIONS[options]}
    wanted, padded = runner.generate(_ids(6), **given), np.concatenate((_ids(3), _ids(6)), axis=1)
    mask = runner.to_native(np.arange(9)[None] // 3)
    for draft in ({"prompt_lookup_num_tokens": 5}, {"assistant_model": runner.model}):
        calls.clear()
        assert np.array_equal(runner.generate(_ids(6), **given, **draft), wanted), draft
        assert np.array_equal(runner.generate(padded, attention_mask=mask, **given, **draft)[:, 3:], wanted), draft
    assert calls[id(runner.model)] == 2 * (5 + 15)  # the prompt and 4 rounds; as a draft, 5 in all but the last round


@eager
@pytest.mark.parametrize("options", OPTIONS)
def test_ids_are_those_without_any_draft(framework: str, options: str) -> None:
    runner, given = _model(framework), OPTIONS[options]
    wanted = runner.generate(_ids(6), max_new_tokens=30, **given)
    for name, draft in _drafts(framework).items():
        assert np.array_equal(runner.generate(_ids(6), max_new_tokens=30, **given, **draft), wanted), name


@eager
def test_ids_are_the_same_where_rows_and_positions_begin_and_end(framework: str) -> None:
    for tokens in (1, 2, 15):
        runner = _model(framework, n_positions=16)
        drafts = [
            {"assistant_model": _model(framework, n_positions=16).model},
            {"assistant_model": _model(framework, n_positions=16).model, "num_assistant_tokens": 99},
            {"assistant_model": _model(framework, 2, n_positions=4).model, "num_assistant_tokens": 2},
            {"prompt_lookup_num_tokens": 99},
        ]
        longest = runner.generate(_ids(tokens), max_new_tokens=30, overflow="slide")
        for new in (1, 2, 3, 7, 16 - tokens, 17 - tokens, 30):
            for draft in drafts:
                found = runner.generate(_ids(tokens), max_new_tokens=new, overflow="slide", **draft)
                assert np.array_equal(found, longest[:, : tokens + new]), (tokens, new, draft)


@eager
def test_a_padded_row_is_as_alone(framework: str) -> None:
    runner, ids = _model(framework), _ids(8)
    mask = np.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    wanted = runner.generate(ids[:, 3:], max_new_tokens=20)
    for name, draft in _drafts(framework).items():
        found = runner.generate(ids, attention_mask=runner.to_native(mask), max_new_tokens=20, **draft)
        assert np.array_equal(found[:, 3:], wanted), name


@eager
def test_a_row_ends_among_guesses_that_hold(framework: str) -> None:
    runner = _model(framework)
    free = runner.generate(_ids(6), max_new_tokens=20)
    fresh = [i for i in range(7, 20) if free[0, i] not in free[0, 6:i]]
    for column in fresh[1:4]:
        end = {"eos_token_id": [int(free[0, column])], "max_new_tokens": 20}
        length = {"stopping_criteria": [lambda ids, scores, column=column: ids.shape[1] > column]}
        for name, draft in _drafts(framework).items():
            for options in (end, length):
                found = runner.generate(_ids(6), **{"max_new_tokens": 20, **options}, **draft)
                assert np.array_equal(found, free[:, : column + 1]), (name, column)


CALLS = {"prefill", "advance", "verify"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """Counts the calls of each model, by its id."""
    counted: Counter[int] = Counter()

    def count(cls: type[Engine], name: str) -> None:
        method = getattr(cls, name)

        def counting(self: Engine, *arguments: Any) -> Any:
            counted[id(self.model)] += 1
            return method(self, *arguments)

        monkeypatch.setattr(cls, name, counting)

    for framework in TESTED:
        module = importlib.import_module(f"gptzoo.{framework}._generation")
        engines = {one for one in vars(module).values() if isinstance(one, type) and issubclass(one, Engine)}
        for cls in engines - {Engine}:
            for name in vars(cls).keys() & CALLS:
                count(cls, name)
    for name in CALLS:
        count(Engine, name)
    return counted


@eager
@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "seed": 3}], ids=["greedy", "drawn"])
def test_a_draft_that_is_right_saves_calls(framework: str, sampling: dict[str, Any], calls: Counter[int]) -> None:
    runner, draft = _model(framework), _model(framework, family="gpt2")  # two equal ones
    assert runner.model is not draft.model
    for most, new in ((5, 31), (1, 12), (3, 4)):
        calls.clear()
        runner.generate(_ids(6), max_new_tokens=new, assistant_model=draft.model, num_assistant_tokens=most, **sampling)
        rounds = -((1 - new) // (most + 1))  # the first new token is the prompt's
        assert calls[id(runner.model)] == 1 + rounds
    calls.clear()
    runner.generate(_ids(6), max_new_tokens=2, assistant_model=draft.model, **sampling)
    assert calls == {id(runner.model): 2}  # the last token needs no guess


@eager
def test_a_draft_that_is_wrong_costs_none_of_the_tokens(framework: str, calls: Counter[int]) -> None:
    runner, draft = _opposite(framework, False), _opposite(framework, True)
    wanted = runner.generate(_ids(6), max_new_tokens=20)
    calls.clear()
    found = runner.generate(_ids(6), max_new_tokens=20, assistant_model=draft.model)
    assert np.array_equal(found, wanted)
    assert calls[id(runner.model)] == 20  # one for each new token


@eager
def test_lookup_saves_calls_where_a_row_repeats_itself(framework: str, calls: Counter[int]) -> None:
    runner = _model(framework)
    forced = [lambda ids, scores: scores + 1e3 * runner.to_native(np.eye(40)[[(ids.shape[1] % 7)]])]
    prompt = np.arange(15)[None] % 7
    found = runner.generate(prompt, max_new_tokens=31, prompt_lookup_num_tokens=5, logits_processor=forced)
    assert found[0].tolist() == [i % 7 for i in range(46)]
    assert calls[id(runner.model)] == 6  # the prompt's, then six tokens each


class Told:
    """A streamer, processor and criterion that keeps what it is told, in order."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.events: list[tuple[str, list[int]]] = []

    def put(self, ids: np.ndarray) -> None:
        self.events.append(("put", np.ravel(ids).tolist()))

    def end(self) -> None:
        self.events.append(("end", []))

    def process(self, ids: Any, scores: Any) -> Any:
        self.events.append(("process", self.runner.numpy(ids)[0].tolist()))
        return scores * 1.5

    def stop(self, ids: Any, scores: Any) -> bool:
        self.events.append(("stop", self.runner.numpy(ids)[0].tolist()))
        return False


@frameworks
def test_who_listens_is_told_the_same_as_without_a_draft(framework: str) -> None:
    runner = _model(framework)

    def listen(**draft: Any) -> tuple[list[Any], Any]:
        told = Told(runner)
        with runner.scope():
            output = runner.model.generate(
                runner.to_native(_ids(6)),
                max_new_tokens=9,
                streamer=told,
                logits_processor=[told.process],
                stopping_criteria=[told.stop],
                return_dict_in_generate=True,
                output_scores=True,
                output_logits=True,
                **draft,
            )
        return told.events, output

    events, output = listen()
    assert [name for name, _ in events] == ["put", *["process", "stop", "put"] * 9, "end"]
    for draft in ({"prompt_lookup_num_tokens": 5}, {"assistant_model": runner.model}):
        found = listen(**draft)
        assert found[0] == events, draft
        for field in ("scores", "logits"):
            rows = zip(found[1][field], output[field], strict=True)
            assert all(matrix.error(*map(runner.numpy, pair)) < matrix.TOLERANCE for pair in rows), (draft, field)


@eager
def test_the_end_of_time_ends_a_row_among_guesses(framework: str) -> None:
    runner = _model(framework)
    found = runner.generate(_ids(6), max_new_tokens=20, max_time=1e-9, assistant_model=runner.model)
    assert found.shape == (1, 7)


@frameworks
def test_unfit_assistants_are_refused_by_name(framework: str) -> None:
    runner = _model(framework)
    other = _model(framework, 2, head="Model", vocab_size=50).model
    for assistant, options, problems in (
        (other, {}, ["assistant_model: a GPT2Model, expected", "assistant_model: vocab_size 50, expected 40"]),
        ("distilgpt2", {}, [f"assistant_model: a str, expected a model of gptzoo.{framework}"]),
        (runner.model, {"num_beams": 2}, ["assistant_model"]),
        (runner.model, {"use_cache": False}, ["assistant_model", "use_cache"]),
        (runner.model, {"num_assistant_tokens": 0}, ["num_assistant_tokens: 0"]),
        (None, {"prompt_lookup_num_tokens": 0}, ["prompt_lookup_num_tokens: 0"]),
    ):
        with pytest.raises(InputError) as caught:
            runner.generate(_ids(4), assistant_model=assistant, **options)
        assert all(problem in str(caught.value) for problem in problems), str(caught.value)
    with pytest.raises(InputError, match="assistant_model"):
        runner.generate(np.ones((2, 4), int), assistant_model=runner.model)


@pytest.mark.skipif(len(TESTED) < 2, reason="needs two frameworks")
def test_an_assistant_of_another_framework_is_refused() -> None:
    one, two = (_model(framework) for framework in TESTED[:2])
    with pytest.raises(InputError, match=f"a model of gptzoo.{TESTED[1]}, expected one of gptzoo.{TESTED[0]}"):
        one.generate(_ids(4), assistant_model=two.model)


@eager
def test_an_assistant_on_another_device_is_refused(framework: str) -> None:
    runner, other = _model(framework), _model(framework, 5)
    with pytest.raises(InputError, match="assistant_model: on meta, expected cpu"):
        runner.generate(_ids(4), assistant_model=other.model.to("meta"))


@eager
@pytest.mark.parametrize("seed", [2, 3])
def test_assisted_ids_are_those_of_transformers(framework: str, seed: int, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    runners = [_model(framework, seed), _model(framework, seed + 1, n_layer=1)]
    theirs = []
    for i, runner in enumerate(runners):
        runner.model.save_pretrained(tmp_path / str(i))
        theirs.append(transformers.GPT2LMHeadModel.from_pretrained(tmp_path / str(i)).eval())
    for draft, own in (
        ({"assistant_model": theirs[1]}, {"assistant_model": runners[1].model}),
        ({"prompt_lookup_num_tokens": 3}, {"prompt_lookup_num_tokens": 3}),
    ):
        options = {"max_new_tokens": 24, "do_sample": False}
        ids = torch.tensor(_ids(6))
        wanted = theirs[0].generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options, **draft)
        assert np.array_equal(runners[0].generate(_ids(6), **options, **own), wanted.numpy())


class Host(Engine):
    """Arrays of NumPy, and no model."""

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return x


LOOKUPS = {
    "what followed": ([7, 8, 9, 1, 2, 7, 8], 2, 3, [9, 1, 2]),
    "the last place": ([7, 8, 1, 7, 8, 2, 7, 8], 2, 2, [2, 7]),
    "the most tokens": ([6, 7, 8, 1, 5, 7, 8, 2, 6, 7, 8], 3, 1, [1]),
    "at most as many": ([6, 7, 8, 1, 5, 7, 8, 2, 6, 7, 8], 2, 1, [2]),
    "fewer match": ([8, 1, 2, 3, 8], 4, 2, [1, 2]),
    "a circle": ([4, 5, 6, 4, 5, 6], 2, 5, [4, 5, 6, 4, 5]),
    "itself": ([3, 3], 2, 4, [3, 3, 3, 3]),
    "nothing before": ([1, 2, 3], 2, 4, []),
}


@pytest.mark.parametrize("name", LOOKUPS)
@pytest.mark.parametrize("padded", [0, 3])
def test_lookup_finds(name: str, padded: int) -> None:
    row, longest, n, wanted = LOOKUPS[name]
    ids = np.array([[*row[-1:] * padded, *row, 9, 9]])  # behind the row there may be anything
    real = np.arange(ids.shape[1])[None] >= padded
    length = np.array(padded + len(row))
    state = State(ids, real, length, np.zeros(1, bool), np.array(0))
    lookup = PromptLookup(Host(None, Namespace()), n, longest)
    assert lookup.propose(state, n).tolist() == wanted
