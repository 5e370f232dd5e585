"""Under each framework's compiler: the same numbers, and one compilation for each shape."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from tests import matrix
from tests.matrix import BATCH, CLASS_IDS, CLASSES, TESTED, TOKENS

classes = pytest.mark.parametrize(("family", "head"), CLASSES, ids=CLASS_IDS)
CAPACITY = TOKENS + 4


def only(framework: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(framework not in TESTED, reason=f"{framework} is not in GPTZOO_FRAMEWORKS")


def _setting(framework: str, family: str, head: str) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    config = matrix.tiny(family)
    values = matrix.random_weights(config, head)
    ids, mask = matrix.ids(config, np.random.default_rng(0)), matrix.mask("left")
    output = reference.forward(head, config, values, input_ids=ids, attention_mask=mask)
    return matrix.build(framework, config, head, values), ids, mask, output[0]


def _check(runner: Any, call: Callable[..., Any], count: Callable[[], int], ids: Any, mask: Any, wanted: Any) -> None:
    """`call(ids, mask, cache)` returns (array, cache): plain, token by token with a static cache, and again."""
    ids, mask = runner.to_native(ids), runner.to_native(mask)
    for _ in range(2):
        assert matrix.error(runner.numpy(call(ids, mask, None)[0]), wanted) <= matrix.TOLERANCE
    assert count() == 1
    for _ in range(2):
        cache, found = runner.model.init_cache(BATCH, CAPACITY), []
        long = runner.to_native(np.concatenate((matrix.mask("left"), np.ones((BATCH, CAPACITY - TOKENS), int)), axis=1))
        for i in range(TOKENS):
            array, cache = call(ids[:, i : i + 1], long, cache)
            found.append(runner.numpy(array))
        assert matrix.error(np.concatenate(found, axis=1), wanted) <= matrix.TOLERANCE
    assert count() == 2


@only("torch")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of the compiler about itself
@classes
def test_torch_compile(family: str, head: str) -> None:
    import torch

    runner, ids, mask, wanted = _setting("torch", family, head)
    torch.compiler.reset()
    compiled = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        from torch._inductor.compile_fx import compile_fx

        return compile_fx(graph, inputs)

    @torch.compile(fullgraph=True, dynamic=False, backend=backend)
    def step(ids: Any, mask: Any, cache: Any) -> Any:
        output = runner.model(ids, attention_mask=mask, past_key_values=cache)
        return output[0], output["past_key_values"]

    with torch.no_grad():
        _check(runner, step, lambda: compiled, ids, mask, wanted)


@only("keras")
@pytest.mark.parametrize("xla", [True, False])
@classes
def test_tf_function(family: str, head: str, xla: bool) -> None:
    import tensorflow as tf

    runner, ids, mask, wanted = _setting("keras", family, head)

    @tf.function(jit_compile=xla)
    def step(ids: Any, mask: Any, cache: Any) -> Any:
        output = runner.model(ids, attention_mask=mask, past_key_values=cache)
        return output[0], output["past_key_values"]

    _check(runner, step, step.experimental_get_tracing_count, ids, mask, wanted)


@only("keras")
@classes
def test_tf_function_with_free_dimensions(family: str, head: str) -> None:
    """One trace serves every batch and length."""
    import tensorflow as tf

    runner, ids, mask, wanted = _setting("keras", family, head)
    free = tf.TensorSpec((None, None), tf.int64)

    @tf.function(input_signature=[free, free])
    def step(ids: Any, mask: Any) -> Any:
        return runner.model(ids, attention_mask=mask)[0]

    for rows, tokens in ((BATCH, TOKENS), (2, TOKENS), (1, 5)):
        start = TOKENS - tokens
        if start:  # the right part of a left-padded row is a shorter left-padded row
            found = runner.numpy(step(runner.to_native(ids[2:, :tokens]), runner.to_native(mask[2:, :tokens])))
            assert matrix.error(found, wanted[2:, :tokens]) <= matrix.TOLERANCE
        else:
            found = runner.numpy(step(runner.to_native(ids[:rows]), runner.to_native(mask[:rows])))
            assert matrix.error(found, wanted[:rows]) <= matrix.TOLERANCE
    assert step.experimental_get_tracing_count() == 1


@only("flax")
@pytest.mark.parametrize("way", ["nnx.jit", "jax.jit"])
@classes
def test_jit(family: str, head: str, way: str) -> None:
    import jax
    from flax import nnx

    runner, ids, mask, wanted = _setting("flax", family, head)
    traced = 0

    def step(model: Any, ids: Any, mask: Any, cache: Any) -> Any:
        nonlocal traced
        traced += 1
        output = model(ids, attention_mask=mask, past_key_values=cache)
        return output[0], output["past_key_values"]

    if way == "nnx.jit":
        jitted = nnx.jit(step)

        def call(*args: Any) -> Any:
            return jitted(runner.model, *args)
    else:
        graphdef, state = nnx.split(runner.model)
        merged = jax.jit(lambda state, *args: step(nnx.merge(graphdef, state), *args))

        def call(*args: Any) -> Any:
            return merged(state, *args)

    with runner.scope():
        _check(runner, call, lambda: traced, ids, mask, wanted)
