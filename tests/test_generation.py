"""Greedy completion: the ids of the reference, in every framework, padded or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from gptzoo.errors import InputError
from tests import matrix
from tests.matrix import TESTED

SEED = 2  # of models that say more than one thing
frameworks = pytest.mark.parametrize("framework", TESTED)
families = pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])


def _model(family: str, framework: str, **overrides: Any) -> tuple[Any, Any, Any]:
    config = matrix.tiny(family, eos_token_id=None, **overrides)
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
