"""Gradient checkpointing: it changes no number, saves memory, and runs where each ecosystem compiles."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gptzoo.errors import InputError
from tests import matrix
from tests.matrix import TESTED
from tests.test_gradients import loss_of
from tests.training import DOUBLE, LM, TOKEN, arrays, assert_falls, families, fit, made, only

BLOCK = 2 * 6 * 12 * 4  # bytes of what goes into a block: B T E float32

# Gradient checkpointing. `slopes(model, batch, head)` returns an output in training, and gradients by some name.
Slopes = Callable[[Any, dict[str, Any], str], tuple[dict[str, Any], dict[str, Any]]]


def _slopes_torch(model: Any, batch: dict[str, Any], head: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import torch

    torch.manual_seed(0)
    watched = {name: x.requires_grad_() for name, x in batch.items() if x.is_floating_point()}
    output = model.train()(**batch)
    watched |= dict(model.named_parameters())
    found = torch.autograd.grad(loss_of(head, output, None), list(watched.values()), allow_unused=True)
    return output, dict(zip(watched, found, strict=True))


def _slopes_keras(model: Any, batch: dict[str, Any], head: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import tensorflow as tf

    for variable in model.non_trainable_variables:  # the states of its dropouts
        variable.assign(tf.ones_like(variable.value))
    watched = {name: x for name, x in batch.items() if hasattr(x, "dtype") and x.dtype.is_floating}
    with tf.GradientTape() as tape:
        tape.watch(watched)
        output = model(**batch, training=True)
        loss = loss_of(head, output, None)
    watched |= {variable.path: variable.value for variable in model.trainable_variables}
    found = tape.gradient(loss, watched)
    states = {variable.path: tf.cast(variable.value, "float32") for variable in model.non_trainable_variables}
    return output, found | states


def _slopes_flax(model: Any, batch: dict[str, Any], head: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import jax

    floats = {name: x for name, x in batch.items() if hasattr(x, "dtype") and x.dtype.kind == "f"}

    def loss_fn(params: Any, floats: Any) -> Any:
        output = model(**(batch | floats), params=params, train=True, dropout_rng=jax.random.key(0))
        return loss_of(head, output, None), output

    found, output = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)(model.params, floats)
    return output, {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(found)}


def close(framework: str, found: Any, wanted: Any) -> bool:
    if found is None or wanted is None:
        return found is wanted
    if isinstance(found, tuple):
        return len(found) == len(wanted) and all(close(framework, *two) for two in zip(found, wanted, strict=True))
    if framework == "torch":
        found, wanted = found.detach(), wanted.detach()
    # JAX compiles a checkpointed block, and an operation alone is rounded in another way.
    return matrix.error(found, wanted) <= (1e-5 if framework == "flax" else 1e-6)


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("head", [LM, DOUBLE, TOKEN])
@families
def test_checkpointing_changes_nothing(family: str, head: str, framework: str) -> None:
    """Outputs, gradients (of inputs too) and random numbers, with dropout; but there is no cache."""
    crossed = head == LM and family == "gpt2"
    fields = {"attn_pdrop": 0.3, "resid_pdrop": 0.2, "add_cross_attention": crossed}
    model, batch = made(framework, family, head, n_layer=2, **fields)
    runner = matrix.runner_of(framework, model)
    batch |= {"head_mask": runner.to_native(np.full((2, 3), 0.9, np.float32))}
    batch |= {"output_hidden_states": True, "output_attentions": True} if head != TOKEN else {}
    slopes: Slopes = globals()[f"_slopes_{framework}"]
    if framework == "torch":
        flags = {name: x for name, x in batch.items() if isinstance(x, bool)}
        batch = {name: x for name, x in batch.items() if name not in flags}
        model.config.output_hidden_states = model.config.output_attentions = bool(flags)
    wanted, wanted_slopes = slopes(model, batch, head)
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    found, found_slopes = slopes(model, batch, head)
    assert set(wanted) - set(found) == ({"past_key_values"} if head != TOKEN else set())
    assert all(close(framework, found[name], wanted[name]) for name in found)
    if head != TOKEN:
        assert len(found["attentions"]) == 2
        assert len(found["hidden_states"]) == 3
    assert found_slopes.keys() == wanted_slopes.keys()
    bad = [name for name in found_slopes if not close(framework, found_slopes[name], wanted_slopes[name])]
    assert not bad
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    assert "past_key_values" in slopes(model, batch, head)[0] or head == TOKEN


@pytest.mark.parametrize("framework", TESTED)
def test_checkpointing_is_for_training_only(framework: str) -> None:
    model, batch = made(framework, "gpt2", LM)
    model.gradient_checkpointing_enable()
    assert model(batch["input_ids"])["past_key_values"] is not None


@only("torch")
def test_torch_checkpointing_options() -> None:
    model, _ = made("torch", "gpt2", LM)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for options in ({"use_reentrant": True}, {"preserve_rng_state": False}):
        with pytest.raises(InputError, match="use_reentrant=False"):
            model.gradient_checkpointing_enable(options)
    with pytest.raises(InputError, match="every_n_layers=2"):
        model.activation_checkpointing_enable(every_n_layers=2)


@only("torch")
@families
def test_torch_checkpointing_saves_memory(family: str) -> None:
    """What is kept for the gradient grows by one array a block, and not by all that is computed in it."""
    import torch

    def kept(n_layer: int, checkpointing: bool) -> int:
        model, batch = made("torch", family, LM, n_layer=n_layer)
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        seen: dict[int, int] = {}
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

        def pack(x: Any) -> Any:
            if x.untyped_storage().data_ptr() not in weights:
                seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            output = model(**batch)
        assert output.loss.requires_grad
        return sum(seen.values())

    plain, saving = (kept(6, on) - kept(2, on) for on in (False, True))
    assert plain > 10 * 4 * BLOCK
    assert saving <= 2 * 4 * BLOCK


@only("flax")
@families
def test_flax_checkpointing_saves_memory(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    import jax
    from jax.ad_checkpoint import print_saved_residuals

    def kept(n_layer: int, checkpointing: bool) -> int:
        model, batch = made("flax", family, LM, n_layer=n_layer)
        if checkpointing:
            model.gradient_checkpointing_enable()

        def loss_fn(params: Any) -> Any:
            return model(**batch, params=params, train=True, dropout_rng=jax.random.key(0)).loss

        print_saved_residuals(loss_fn, model.params)
        lines = [line for line in capsys.readouterr().out.splitlines() if "argument" not in line]  # the weights
        shapes = [re.findall(r"\d+", match[1]) for line in lines if (match := re.match(r"\w+\[(.*?)\]", line))]
        return sum(4 * math.prod(map(int, shape)) for shape in shapes)

    plain, saving = (kept(6, on) - kept(2, on) for on in (False, True))
    assert plain > 10 * 4 * BLOCK
    assert saving <= 2 * 4 * BLOCK


@only("torch")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of the compiler about itself
def test_torch_checkpointing_compiled() -> None:
    import torch

    model, batch = made("torch", "gpt2", LM, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    _, wanted = _slopes_torch(model, batch, LM)
    model.gradient_checkpointing_enable()
    torch.compiler.reset()
    compiled = torch.compile(
        lambda batch: model(**batch, output_hidden_states=True).loss, fullgraph=True, backend="aot_eager"
    )
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(compiled(batch), parameters)
    assert all(close("torch", x, wanted[name]) for name, x in zip(names, found, strict=True))


@only("keras")
@pytest.mark.parametrize(("family", "jit"), [("gpt2", False), ("openai-gpt", True)], ids=["graph", "xla"])
def test_keras_checkpointing_in_fit(family: str, jit: bool) -> None:
    """The same losses step by step, so the same dropout."""
    import keras

    found = []
    for checkpointing in (False, True):
        keras.utils.set_random_seed(0)
        model, batch = made("keras", family, LM, n_layer=2)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.compile(keras.optimizers.AdamW(3e-2), jit_compile=jit)
        found.append(fit(model, arrays(batch), epochs=15))
    assert_falls(found[0])
    assert np.allclose(*found, rtol=1e-3)


@only("flax")
@families
def test_nnx_checkpointing_compiled(family: str) -> None:
    import jax
    from flax import nnx

    model, batch = made("flax", family, LM)

    @nnx.jit
    def slopes(model: Any, rngs: Any) -> Any:
        key = rngs.dropout()
        return nnx.grad(lambda model: model(**batch, train=True, dropout_rng=key).loss)(model)

    wanted = jax.tree.leaves(slopes(model, nnx.Rngs(dropout=0)))
    model.gradient_checkpointing_enable()
    found = jax.tree.leaves(slopes(model, nnx.Rngs(dropout=0)))
    assert all(matrix.error(*two) <= 1e-5 for two in zip(found, wanted, strict=True))
