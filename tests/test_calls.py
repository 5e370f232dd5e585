"""The call contract beyond numbers: caches in every layout, dropout, half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from gptzoo.cache import StaticCache
from gptzoo.errors import MissingExtraError
from gptzoo.parity import TOLERANCES, compare
from tests import matrix
from tests.matrix import BATCH, HALF, TESTED, TOKENS

frameworks = pytest.mark.parametrize("framework", TESTED)
families = pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])


@pytest.mark.parametrize("split", range(1, TOKENS))
@frameworks
@families
def test_static_cache_equals_no_cache(family: str, framework: str, split: int) -> None:
    """Any split, with and without padding, a mask as long as the tokens or as the cache."""
    config = matrix.tiny(family)
    values = matrix.random_weights(config, "LMHeadModel")
    runner = matrix.build(framework, config, "LMHeadModel", values)
    ids, mask = matrix.ids(config, np.random.default_rng(0)), matrix.mask("left")
    wanted = reference.forward("LMHeadModel", config, values, input_ids=ids, attention_mask=mask)["logits"]
    long = np.concatenate((mask, np.ones((BATCH, 3), int)), axis=1)
    for first, then in ((mask[:, :split], mask), (long, long)):
        cache = runner.model.init_cache(BATCH, TOKENS + 3)
        start = runner(input_ids=ids[:, :split], past_key_values=cache, attention_mask=first)
        end = runner(input_ids=ids[:, split:], past_key_values=start["past_key_values"], attention_mask=then)
        assert isinstance(end["past_key_values"], StaticCache)
        assert int(runner.numpy(end["past_key_values"].length)) == TOKENS
        found = np.concatenate((runner.numpy(start["logits"]), runner.numpy(end["logits"])), axis=1)
        assert matrix.error(found, wanted) <= matrix.TOLERANCE


@frameworks
@families
def test_caches_of_older_libraries_are_taken(family: str, framework: str) -> None:
    """TensorFlow's stacked arrays, and the dict of Flax's linen models with tokens before heads."""
    config = matrix.tiny(family)
    runner = matrix.build(framework, config, "LMHeadModel", matrix.random_weights(config, "LMHeadModel"))
    ids = matrix.ids(config, np.random.default_rng(0))
    first = runner(input_ids=ids[:, :HALF])["past_key_values"]
    wanted = runner.numpy(runner(input_ids=ids[:, HALF:], past_key_values=first)["logits"])
    pairs = [[runner.numpy(x).astype(np.float32) for x in pair] for pair in first]
    stacked = tuple(runner.to_native(np.stack(pair)) for pair in pairs)
    blocks = {}
    for i, pair in enumerate(pairs):
        k, v = (np.pad(x.swapaxes(1, 2), ((0, 0), (0, TOKENS - HALF), (0, 0), (0, 0))) for x in pair)
        index = runner.to_native(np.array(HALF))
        blocks[str(i)] = {
            "attn": {"cached_key": runner.to_native(k), "cached_value": runner.to_native(v), "cache_index": index}
        }
    for past in (stacked, {"transformer": {"h": blocks}}, {"h": blocks}):
        found = runner(input_ids=ids[:, HALF:], past_key_values=past)["logits"]
        assert matrix.error(runner.numpy(found), wanted) <= matrix.TOLERANCE


def _train(framework: str, runner: Any, **inputs: Any) -> dict[str, Any]:
    if framework == "torch":
        import torch

        runner.model.train()
        torch.manual_seed(0)
        return dict(runner(**inputs))
    if framework == "keras":
        return dict(runner(**inputs, training=True))
    import jax

    return dict(runner(**inputs, train=True, dropout_rng=jax.random.key(0)))


@pytest.mark.parametrize("rate", ["embd_pdrop", "attn_pdrop", "resid_pdrop"])
@pytest.mark.parametrize("attention", matrix.ATTENTIONS)
@frameworks
@families
def test_dropout_only_in_training_and_at_every_place(family: str, framework: str, attention: str, rate: str) -> None:
    off = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0)
    config = matrix.tiny(family, attn_implementation=attention, **(off | {rate: 0.5}))
    values = matrix.random_weights(config, "Model")
    ids = matrix.ids(config, np.random.default_rng(0))
    runner = matrix.build(framework, config, "Model", values)
    still = runner.numpy(runner(input_ids=ids)["last_hidden_state"])
    wanted = reference.forward("Model", config, values, input_ids=ids)["last_hidden_state"]
    assert matrix.error(still, wanted) <= matrix.TOLERANCE
    noisy = runner.numpy(_train(framework, runner, input_ids=ids)["last_hidden_state"])
    assert np.isfinite(noisy).all()
    assert matrix.error(noisy, wanted) > 1e-2
    without = matrix.build(framework, matrix.tiny(family, attn_implementation=attention, **off), "Model", values)
    found = runner.numpy(_train(framework, without, input_ids=ids)["last_hidden_state"])
    assert matrix.error(found, wanted) <= matrix.TOLERANCE


@frameworks
def test_dropout_keeps_the_mean(framework: str) -> None:
    """Kept values are scaled up: over many draws the embeddings come out as without dropout."""
    config = matrix.tiny("gpt2", embd_pdrop=0.25, n_layer=1)
    runner = matrix.build(framework, config, "Model", matrix.random_weights(config, "Model"))
    ids = np.zeros((400, 4), int)
    still = runner.numpy(runner(input_ids=ids, output_hidden_states=True)["hidden_states"][0])
    noisy = runner.numpy(_train(framework, runner, input_ids=ids, output_hidden_states=True)["hidden_states"][0])
    assert abs((noisy == 0).mean() - 0.25) < 0.02
    kept = noisy != 0
    assert np.allclose(noisy[kept], still[kept] / 0.75, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("attention", matrix.ATTENTIONS)
@frameworks
@families
def test_half_precision(family: str, framework: str, attention: str, dtype: str, tmp_path: Any) -> None:
    """Weights and computation in half precision, the loss in float32, finite even for rows that are all padding."""
    config = matrix.tiny(family)
    matrix.build(framework, config, "LMHeadModel", matrix.random_weights(config, "LMHeadModel")).model.save_pretrained(
        tmp_path
    )
    cls = matrix.model_class(framework, config, "LMHeadModel")
    model = cls.from_pretrained(tmp_path, dtype=dtype, attn_implementation=attention)
    if framework == "torch":
        model.eval()
    runner = matrix.runner_of(framework, model)
    ids, mask = matrix.ids(config, np.random.default_rng(0)), matrix.mask("left")
    mask[1] = 0
    output = runner(input_ids=ids, attention_mask=mask, labels=ids)
    assert dtype in str(output["logits"].dtype)
    assert "float32" in str(output["loss"].dtype)
    assert dtype in str(output["past_key_values"][0][0].dtype)
    values = {}
    for name in matrix.random_weights(config, "LMHeadModel"):
        values[name] = matrix.stored(runner, name).astype(np.float64)
    wanted = reference.forward("LMHeadModel", config, values, input_ids=ids, attention_mask=mask, labels=ids)
    for name in ("logits", "loss"):
        assert (
            compare(framework, "half", name, runner.numpy(output[name]), wanted[name], TOLERANCES[dtype]).problem
            is None
        )
        assert matrix.error(runner.numpy(output[name]), wanted[name]) <= TOLERANCES[dtype]


@frameworks
def test_flash_attention_says_what_it_needs(framework: str) -> None:
    config = matrix.tiny("gpt2", attn_implementation="flash_attention_2")
    with pytest.raises(MissingExtraError, match=r"flash_attention_2.*sdpa"):
        matrix.build(framework, config, "Model")


@frameworks
def test_ignored_labels_give_no_gradient(framework: str) -> None:
    config = matrix.tiny("gpt2")
    runner = matrix.build(framework, config, "LMHeadModel", matrix.random_weights(config, "LMHeadModel"))
    ids = matrix.ids(config, np.random.default_rng(0))
    some = np.where(np.arange(TOKENS) > 3, ids, -100)
    for labels, silent in ((np.full_like(ids, -100), True), (some, False)):
        gradient = _gradient(framework, runner, ids, labels)
        assert np.isfinite(gradient).all()
        assert (np.abs(gradient).max() == 0) == silent


def _gradient(framework: str, runner: Any, ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Gradient of the loss in the token embedding."""
    ids, labels = runner.to_native(ids), runner.to_native(labels)
    name = "transformer.wte.weight"
    if framework == "torch":
        import torch

        (gradient,) = torch.autograd.grad(runner.model(ids, labels=labels).loss, [runner.model.get_weight(name)])
        return gradient.numpy()
    if framework == "keras":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = runner.model(ids, labels=labels)["loss"]
        gradient = tape.gradient(loss, runner.model.get_weight(name).value, unconnected_gradients="zero")
        return np.asarray(tf.convert_to_tensor(gradient))
    import jax

    def loss_of(params: Any) -> Any:
        return runner.model(ids, labels=labels, params=params).loss

    gradients = jax.grad(loss_of)(runner.model.params)
    return np.asarray(gradients["transformer"]["wte"]["weight"])
