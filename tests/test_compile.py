"""Under each framework's compiler: the same numbers, and one compilation for each shape."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from gptzoo.outputs import OUTPUTS
from tests import matrix
from tests.matrix import BATCH, CLASS_IDS, CLASSES, CORE, TESTED, TOKENS

classes = pytest.mark.parametrize(("family", "head"), CLASSES, ids=CLASS_IDS)
CAPACITY = TOKENS + 4


def only(framework: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(framework not in TESTED, reason=f"{framework} is not in GPTZOO_FRAMEWORKS")


class Setting:
    """A model, arguments of a call with every label that the head has, and what the reference makes of them."""

    def __init__(self, framework: str, family: str, head: str):
        self.head, self.config = head, matrix.tiny(family)
        self.values = matrix.random_weights(self.config, head)
        self.runner = matrix.build(framework, self.config, head, self.values)
        self.ids, self.mask = matrix.ids(self.config, np.random.default_rng(0)), matrix.mask("left")
        self.labels = {} if head in CORE else matrix.labels(head)
        self.wanted = self.expected(slice(None), slice(None), **self.labels)

    def expected(self, rows: slice, tokens: slice, **labels: Any) -> list[Any]:
        inputs = {"input_ids": self.ids[rows, tokens], "attention_mask": self.mask[rows, tokens]}
        return computed(reference.forward(self.head, self.config, self.values, **inputs, **labels))

    def call(self, model: Any, ids: Any, mask: Any, cache: Any) -> tuple[list[Any], Any]:
        """What is compiled: a call with the labels, which returns what it computed and its cache."""
        past = {} if cache is None else {"past_key_values": cache}
        labels = {name: self.runner.to_native(value) for name, value in self.labels.items()}
        output = model(ids, attention_mask=mask, **past, **labels)
        return computed(output), output.get("past_key_values")


def computed(output: Any) -> list[Any]:
    return [value for name, value in output.items() if name != "past_key_values"]


def _check(setting: Setting, call: Callable[..., Any], count: Callable[[], int]) -> None:
    """`call(ids, mask, cache)`: plain, token by token with a static cache, and again."""
    runner = setting.runner
    ids, mask = runner.to_native(setting.ids), runner.to_native(setting.mask)
    for _ in range(2):
        for found, wanted in zip(call(ids, mask, None)[0], setting.wanted, strict=True):
            assert matrix.error(runner.numpy(found), wanted) <= matrix.TOLERANCE
    assert count() == 1
    for _ in range(2 if setting.head in CORE else 0):  # the others make no text
        cache, found = runner.model.init_cache(BATCH, CAPACITY), []
        long = runner.to_native(np.concatenate((matrix.mask("left"), np.ones((BATCH, CAPACITY - TOKENS), int)), axis=1))
        for i in range(TOKENS):
            arrays, cache = call(ids[:, i : i + 1], long, cache)
            found.append(runner.numpy(arrays[0]))
        assert matrix.error(np.concatenate(found, axis=1), setting.wanted[0]) <= matrix.TOLERANCE
    assert count() == (2 if setting.head in CORE else 1)


@only("torch")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of the compiler about itself
@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # on Python 3.13.0
@classes
def test_torch_compile(family: str, head: str) -> None:
    import torch

    setting = Setting("torch", family, head)
    torch.compiler.reset()
    compiled = 0

    def backend(graph: Any, inputs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        from torch._inductor.compile_fx import compile_fx

        return compile_fx(graph, inputs)

    @torch.compile(fullgraph=True, dynamic=False, backend=backend)
    def step(ids: Any, mask: Any, cache: Any) -> Any:
        return setting.call(setting.runner.model, ids, mask, cache)

    with torch.no_grad():
        _check(setting, step, lambda: compiled)


@only("torch")
@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free"])
@classes
def test_torch_export(family: str, head: str, free: bool, tmp_path: Path) -> None:
    """The program takes the model's place, also from a file, and for any number of tokens where that is asked for."""
    import torch

    setting = Setting("torch", family, head)
    native = setting.runner.to_native
    inputs = {"input_ids": native(setting.ids), "attention_mask": native(setting.mask)}
    tokens = {1: torch.export.Dim("tokens", min=2, max=setting.config.n_positions)}
    dims = dict.fromkeys(inputs, tokens) if free else None
    program = torch.export.export(setting.runner.model, (), inputs, dynamic_shapes=dims)
    torch.export.save(program, tmp_path / "model.pt2")
    module = torch.export.load(tmp_path / "model.pt2").module()
    for part in (slice(None), slice(3, None)) if free else (slice(None),):
        found = module(**{name: array[:, part] for name, array in inputs.items()})
        assert type(found) is OUTPUTS[head]
        wanted = setting.expected(slice(None), part)
        for array, expected in zip(computed(found), wanted, strict=True):
            assert matrix.error(setting.runner.numpy(array), expected) <= matrix.TOLERANCE


@only("torch")
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_torch_func() -> None:
    """One gradient per row, by vmap over grad, is what each row alone gives."""
    import torch
    from torch.func import functional_call, grad, vmap

    setting = Setting("torch", "gpt2", "LMHeadModel")
    model, ids = setting.runner.model, setting.runner.to_native(setting.ids)
    parameters = dict(model.named_parameters())

    def loss(parameters: Any, row: Any) -> Any:
        return functional_call(model, parameters, (row[None],), {"labels": row[None]}).loss

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, ids)["transformer.wte.weight"]
    for found, row in zip(each, ids, strict=True):
        (wanted,) = torch.autograd.grad(loss(parameters, row), [parameters["transformer.wte.weight"]])
        assert matrix.error(found.detach().numpy(), wanted.numpy()) <= 10 * matrix.TOLERANCE


@only("keras")
@pytest.mark.parametrize("xla", [True, False])
@classes
def test_tf_function(family: str, head: str, xla: bool) -> None:
    import tensorflow as tf

    setting = Setting("keras", family, head)

    @tf.function(jit_compile=xla)
    def step(ids: Any, mask: Any, cache: Any) -> Any:
        return setting.call(setting.runner.model, ids, mask, cache)

    _check(setting, step, step.experimental_get_tracing_count)


@only("keras")
@classes
def test_tf_function_with_free_dimensions(family: str, head: str) -> None:
    """One trace serves every batch and length."""
    import tensorflow as tf

    setting = Setting("keras", family, head)
    runner = setting.runner
    free = tf.TensorSpec((None, None), tf.int64)

    @tf.function(input_signature=[free, free])
    def step(ids: Any, mask: Any) -> Any:
        return computed(runner.model(ids, attention_mask=mask))

    for rows, tokens in ((slice(None), slice(None)), (slice(2), slice(None)), (slice(2, 3), slice(5))):
        found = step(runner.to_native(setting.ids[rows, tokens]), runner.to_native(setting.mask[rows, tokens]))
        for array, wanted, whole in zip(
            found, setting.expected(rows, tokens), setting.wanted[-len(found) :], strict=True
        ):
            # A part of the scores may be small by chance: its rounding is that of the whole.
            assert matrix.error(runner.numpy(array), wanted, np.abs(whole).max()) <= matrix.TOLERANCE
    assert step.experimental_get_tracing_count() == 1


@only("flax")
@pytest.mark.parametrize("way", ["nnx.jit", "jax.jit"])
@classes
def test_jit(family: str, head: str, way: str) -> None:
    import jax
    from flax import nnx

    setting = Setting("flax", family, head)
    traced = 0

    def step(model: Any, ids: Any, mask: Any, cache: Any) -> Any:
        nonlocal traced
        traced += 1
        return setting.call(model, ids, mask, cache)

    if way == "nnx.jit":
        jitted = nnx.jit(step)

        def call(*args: Any) -> Any:
            return jitted(setting.runner.model, *args)
    else:
        graphdef, state = nnx.split(setting.runner.model)
        merged = jax.jit(lambda state, *args: step(nnx.merge(graphdef, state), *args))

        def call(*args: Any) -> Any:
            return merged(state, *args)

    with setting.runner.scope():
        _check(setting, call, lambda: traced)
