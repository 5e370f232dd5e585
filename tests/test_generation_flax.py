"""Completion in Flax NNX: what is compiled, what is donated, and float64 that stays inside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from gptzoo.errors import InputError
from tests import matrix

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
if "flax" not in matrix.TESTED:
    pytest.skip("GPTZOO_FRAMEWORKS is without flax", allow_module_level=True)

import jax.numpy as jnp  # noqa: E402

from gptzoo.flax import _generation  # noqa: E402
from gptzoo.flax._generation import XP, Engine  # noqa: E402
from gptzoo.generation import GenerationConfig  # noqa: E402
from gptzoo.generation._search import Search, State  # noqa: E402

PROMPTS = np.array([[5, 9, 31, 9], [22, 5, 9, 14], [1, 2, 1, 2]])
COMPILATION = "/jax/core/compile/backend_compile_duration"

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"do_sample": True, "seed": 3, "temperature": 0.7, "top_p": 0.8},
    "beams": {"num_beams": 3},
    "without_cache": {"use_cache": False},
}
ways = pytest.mark.parametrize("way", WAYS)


def built(family: str = "gpt2", seed: int = 2, config: Any = None, **options: Any) -> Any:
    config = config or matrix.tiny(family, n_positions=64, n_layer=1, eos_token_id=None)
    return matrix.build(
        "flax", config, "LMHeadModel", matrix.random_weights(config, "LMHeadModel", seed=seed), **options
    )


@pytest.fixture(scope="module")
def runner() -> Any:
    """What tests share is compiled once."""
    return built()


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Gives a list of the programs that are compiled, of single operations too."""
    found: list[str] = []

    def listen(event: str, duration: float, **kwargs: Any) -> None:
        if event == COMPILATION:
            found.append(str(kwargs.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@ways
def test_a_second_call_in_the_same_bucket_compiles_nothing(runner: Any, way: str) -> None:
    model, options = runner.model, WAYS[way]
    first, second = (jnp.asarray(np.tile(PROMPTS, times)) for times in (1, 3))
    model.generate(first, max_new_tokens=6, **options)
    changed = {"temperature": 1.4, "top_p": 0.95, "seed": 5} if way == "drawn" else {}
    mask = jnp.asarray(np.tile([[0, 0, 1, 1]], (3, 3)))
    with compilations() as found:
        model.generate(second, max_new_tokens=17, **options | changed)
        model.generate(second, attention_mask=mask, max_new_tokens=9, **options)
    assert found == []


def test_a_program_is_compiled_only_where_it_runs(runner: Any) -> None:
    """One token needs no loop; nor does a row that has ended need a loop without a cache."""
    with compilations() as found:
        ids = runner.generate(PROMPTS[:2], max_new_tokens=1)
    assert "jit(prefill)" in found
    assert "jit(loop)" not in found
    with compilations() as found:
        runner.generate(PROMPTS[:2], max_new_tokens=20, eos_token_id=ids[:, -1].tolist())
    assert "jit(loop)" not in found
    with compilations() as found:
        runner.generate(PROMPTS[:2], max_new_tokens=20)
    assert found.count("jit(loop)") == 1


@ways
def test_the_whole_loop_gives_what_single_steps_give(runner: Any, way: str) -> None:
    ids, options = jnp.asarray(PROMPTS), WAYS[way] | {"max_new_tokens": 12}
    whole = runner.model.generate(ids, **options)
    with compilations() as found:
        output = runner.model.generate(ids, return_dict_in_generate=True, output_logits=True, **options)
    assert not {"jit(loop)", "jit(prefill)"} & {*found}
    assert np.array_equal(whole, output.sequences)
    assert len(output.logits) == 12


def test_beyond_the_positions_the_last_ones_are_read_anew() -> None:
    config = matrix.tiny("gpt2", n_layer=1, eos_token_id=None)  # 16 positions
    runner, values = built(config=config), matrix.random_weights(config, "LMHeadModel", seed=2)
    wanted = PROMPTS
    for _ in range(20):
        logits = reference.forward("LMHeadModel", config, values, input_ids=wanted[:, -16:]).logits
        wanted = np.concatenate((wanted, logits[:, -1:].argmax(-1)), axis=1)
    assert np.array_equal(runner.generate(PROMPTS, max_new_tokens=20, overflow="slide"), wanted)
    with compilations() as found:
        shorter = runner.generate(PROMPTS, max_new_tokens=15, overflow="slide")
    assert found == []
    assert np.array_equal(shorter, wanted[:, :19])


@pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])
def test_without_a_cache_the_ids_are_the_references(family: str) -> None:
    runner = built(family)
    config, values = runner.model.config, matrix.random_weights(runner.model.config, "LMHeadModel", seed=2)
    wanted = reference.greedy(config, values, PROMPTS, 12)
    assert np.array_equal(runner.generate(PROMPTS, max_new_tokens=12, use_cache=False), wanted)


def start(columns: int = 32) -> tuple[State, dict[str, Any]]:
    """A state with PROMPTS, and what a greedy run needs beside it."""
    buffer = np.zeros((3, columns), int)
    buffer[:, :4] = PROMPTS
    state = State(*map(XP.array, (buffer, buffer >= 0, 4, np.zeros(3, bool), 0)))
    numbers = {"prompt": 4, "limit": 9, "until": 9, "pad": 0, "ends": np.zeros(0, int)}
    return state, {name: XP.array(value) for name, value in numbers.items()} | {"processors": {}}


def test_each_program_uses_the_memory_of_the_cache_that_it_is_given(runner: Any) -> None:
    """Where it could not, JAX would warn, and a warning is an error here."""
    engine = Engine(runner.model)
    with jax.enable_x64(True):
        state, values = start()
        rows = XP.array(np.array([2, 0, 0]))
        for use in (
            lambda cache: engine.advance(state, cache),
            lambda cache: engine.verify(state, cache, 2),
            lambda cache: engine.reorder(cache, rows),
            lambda cache: engine.loop(Search(()), values, state, cache),
        ):
            cache = engine.prefill(state, 32, 32)[1]
            use(cache)
            assert all(x.is_deleted() for x in jax.tree.leaves(cache.layers))
        assert not any(x.is_deleted() for x in jax.tree.leaves((state, values, engine.weights)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_array_of_the_model_is_in_float64(dtype: str) -> None:
    model = built(dtype=dtype, param_dtype=dtype).model
    engine, cache = Engine(model), model.init_cache(3, 32)
    with jax.enable_x64(True):
        given = engine.weights, start()[0]
        traces = [_generation.prefill.trace(engine.program, 32, 32, *given)]
        traces += [_generation.advance.trace(engine.program, *given, past) for past in (cache, None)]
    for trace in traces:
        logits, cache = trace.out_info
        assert (
            {str(logits.dtype)} == {str(x.dtype) for x in jax.tree.leaves((logits, cache and cache.layers))} == {dtype}
        )
        assert not re.search(r"f64\[.+?\]", str(trace.jaxpr))  # but for constants, f64[]


def test_logits_are_the_same_to_the_last_bit_as_without_float64(runner: Any) -> None:
    engine, found = Engine(runner.model), []
    for wide in (False, True):
        with jax.enable_x64(wide):
            found.append(jax.tree.leaves(engine.prefill(start()[0], 32, 32)))
    assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))


def test_float64_is_for_scores_and_stays_inside(runner: Any) -> None:
    seen = []

    def look(ids: Any, scores: Any) -> Any:
        seen.append((str(ids.dtype), str(scores.dtype), jax.config.jax_enable_x64))
        return scores

    options = {"max_new_tokens": 3, "do_sample": True, "seed": 1}
    output = runner.model.generate(
        jnp.asarray(PROMPTS), logits_processor=[look], return_dict_in_generate=True, output_scores=True, **options
    )
    assert seen == [("int32", "float64", True)] * 3
    assert {str(x.dtype) for x in output.scores} == {"float32"}
    assert str(output.sequences.dtype) == "int32"
    assert not jax.config.jax_enable_x64
    with jax.enable_x64(True):
        output = runner.model.generate(
            jnp.asarray(PROMPTS), return_dict_in_generate=True, output_scores=True, **options
        )
        assert {str(x.dtype) for x in output.scores} == {"float64"}
        assert str(output.sequences.dtype) == "int32"
    with pytest.raises(InputError):
        runner.model.generate(jnp.asarray(PROMPTS), max_new_tokens=100)
    assert not jax.config.jax_enable_x64


def test_half_precision_takes_about_the_largest_logits() -> None:
    runner = built(dtype="bfloat16", param_dtype="bfloat16")
    config = runner.model.config
    values = matrix.random_weights(config, "LMHeadModel", seed=2)
    rounded = {name: value.astype(jnp.bfloat16).astype(np.float32) for name, value in values.items()}
    ids = runner.generate(PROMPTS, max_new_tokens=12)
    logits = reference.forward("LMHeadModel", config, rounded, input_ids=ids).logits[:, 3:-1]
    taken = np.take_along_axis(logits, ids[:, 4:, None], axis=-1)[..., 0]
    assert np.all(taken >= logits.max(-1) - 0.05 * np.abs(logits).max())
    assert len(set(ids[:, 4:].ravel().tolist())) > 2  # a model that says one thing only would prove little


def test_weights_are_no_part_of_a_program() -> None:
    """Other weights of the same model, of another model of the same config, and in place of the model's own."""
    first = built()
    config = first.model.config
    second = built(config=config, seed=5)
    wanted = [
        reference.greedy(config, matrix.random_weights(config, "LMHeadModel", seed=seed), PROMPTS, 8) for seed in (2, 5)
    ]
    assert not np.array_equal(*wanted)
    assert np.array_equal(first.generate(PROMPTS, max_new_tokens=8), wanted[0])
    with compilations() as found:
        assert np.array_equal(second.generate(PROMPTS, max_new_tokens=8), wanted[1])
        given = first.generate(PROMPTS, max_new_tokens=8, params=second.model.params)
        assert np.array_equal(given, wanted[1])
        assert np.array_equal(first.generate(PROMPTS, max_new_tokens=8), wanted[0])
        first.model.generation_config = GenerationConfig(pad_token_id=1)
        for name, value in matrix.random_weights(config, "LMHeadModel", seed=5).items():
            first.model.set_weight(name, value)
        assert np.array_equal(first.generate(PROMPTS, max_new_tokens=8), wanted[1])
    assert not [name for name in found if name in ("jit(prefill)", "jit(loop)", "jit(choose)")]
