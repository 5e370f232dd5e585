"""Configs and inputs that nobody thought of: hypothesis against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptzoo import reference
from gptzoo.config import ACTIVATIONS, CONFIGS, GPTConfig
from tests import matrix
from tests.matrix import TESTED

# Every new shape costs JAX a compilation of each operation, hence the smaller numbers there.
EXAMPLES = {"torch": 100, "keras": 50, "flax": 12}


@st.composite
def configs(draw: st.DrawFn) -> GPTConfig:
    family = draw(st.sampled_from(list(CONFIGS)))
    n_head = draw(st.integers(1, 4))
    values: dict[str, Any] = {
        "vocab_size": draw(st.integers(1, 30)),
        "n_positions": draw(st.integers(1, 12)),
        "n_head": n_head,
        "n_embd": n_head * draw(st.integers(2, 6)),
        "n_layer": draw(st.integers(1, 3)),
        "layer_norm_epsilon": draw(st.sampled_from([1e-12, 1e-5, 1e-2])),
        "tie_word_embeddings": draw(st.booleans()),
        "attn_implementation": draw(st.sampled_from(matrix.ATTENTIONS)),
    }
    activation = draw(st.sampled_from(sorted(ACTIVATIONS)))
    if family == "openai-gpt":
        return CONFIGS[family](**values, afn=activation)
    flags = ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn")
    values |= {flag: draw(st.booleans()) for flag in flags}
    return CONFIGS[family](**values, activation_function=activation, n_inner=draw(st.none() | st.integers(1, 40)))


@st.composite
def calls(draw: st.DrawFn) -> tuple[GPTConfig, dict[str, Any]]:
    config = draw(configs())
    batch, tokens = draw(st.integers(1, 3)), draw(st.integers(1, config.n_positions))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inputs: dict[str, Any] = {"input_ids": rng.integers(0, config.vocab_size, (batch, tokens))}
    if draw(st.booleans()):
        inputs["attention_mask"] = rng.integers(0, 2, (batch, tokens))
    if draw(st.booleans()):
        inputs["labels"] = np.where(rng.random((batch, tokens)) < 0.3, -100, inputs["input_ids"])
    if draw(st.booleans()):
        inputs["token_type_ids"] = rng.integers(0, config.vocab_size, (batch, tokens))
    return config, inputs


@pytest.mark.parametrize("framework", TESTED)
def test_any_config_and_input_matches_the_reference(framework: str) -> None:
    @settings(
        max_examples=EXAMPLES[framework],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(calls())
    def check(call: tuple[GPTConfig, dict[str, Any]]) -> None:
        config, inputs = call
        values = matrix.random_weights(config, "LMHeadModel")
        wanted = reference.forward("LMHeadModel", config, values, **inputs)
        runner = matrix.build(framework, config, "LMHeadModel", values)
        found = runner(**inputs)
        for name in ("logits", "loss"):
            if name in wanted:
                # Far fewer numbers than in the matrix, so that one unlucky rounding weighs more.
                assert matrix.error(runner.numpy(found[name]), wanted[name]) <= 3 * matrix.TOLERANCE, name

    check()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(configs())
def test_any_config_survives_config_json(config: GPTConfig) -> None:
    again = type(config).from_dict(config.to_dict(), attn_implementation=config.attn_implementation)
    assert again == config
    assert again.attn_implementation == config.attn_implementation
