"""Heads that are removed from a model, the same in every framework."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo import reference, weights
from gptzoo.config import CONFIGS
from gptzoo.errors import CheckpointError, ConfigError, InputError
from tests import matrix
from tests.matrix import CLASS_IDS, CLASSES, TESTED
from tests.models import FAMILIES, IDS, check_against_reference, values

PRUNED: dict[int, list[int]] = {0: [1], 1: [0, 2]}
HEAD_ZEROS = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], np.float32)


def prunable(framework: str, family: str, head: str, **config: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A model with random weights, as a Runner, and these weights."""
    made = matrix.tiny(family, eos_token_id=None, pad_token_id=1, **config)
    stored = matrix.random_weights(made, head)
    return matrix.build(framework, made, head, stored), stored


# The heads share the backbone: one way of attention is enough for all but one of them.
PRUNED_MODELS = [
    pytest.param(family, head, attention, id=f"{name}-{attention}")
    for (family, head), name in zip(CLASSES, CLASS_IDS, strict=True)
    for attention in matrix.ATTENTIONS
    if head == "LMHeadModel" or attention == "eager"
]


def assert_close(found: Any, wanted: Any, name: str) -> None:
    for one, other in zip(matrix.leaves(found), matrix.leaves(wanted), strict=True):
        assert matrix.error(one, other) < 2 * matrix.TOLERANCE, (name, matrix.error(one, other))


def without_pruned(name: str, value: Any) -> Any:
    """What the reference says of every head, for the heads that are left."""
    if name == "attentions":
        return tuple(one[:, mask == 1] for one, mask in zip(value, HEAD_ZEROS, strict=True))
    if name == "past_key_values":
        pairs = zip(value, HEAD_ZEROS, strict=True)
        return tuple(tuple(one[:, mask == 1] for one in pair) for pair, mask in pairs)
    return value


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize(("family", "head", "attention"), PRUNED_MODELS)
def test_pruned_heads_are_masked_heads(family: str, head: str, framework: str, attention: str) -> None:
    """In one go or one by one, every output is the reference's for the whole model with those heads masked."""
    runner, stored = prunable(framework, family, head, attn_implementation=attention)
    config, model = runner.model.config, runner.model
    inputs: dict[str, Any] = {"input_ids": IDS, "output_hidden_states": True}
    if attention == "eager":
        inputs["output_attentions"] = True
    expected = reference.forward(head, config, stored, **inputs, head_mask=HEAD_ZEROS)
    whole = runner(**inputs)
    model.prune_heads({1: {2}})
    model.prune_heads({0: [1], 1: (0, 2)})  # head 0 has its first number, and 2 is gone already
    assert (model.config.pruned_heads, config.pruned_heads) == (PRUNED, {})
    assert model.base_model.config is model.config
    shapes = {name: tuple(model.get_weight(name).shape) for name in stored}
    assert shapes == {name: weights.specs(model.config, head)[name].shape for name in stored}
    block = "" if head == "Model" else weights.PREFIX
    assert shapes[f"{block}h.0.attn.c_attn.weight"] == (24, 3 * 16)
    assert shapes[f"{block}h.1.attn.c_proj.weight"] == (8, 24)
    assert model.num_parameters() == weights.parameter_count(model.config, head)
    found = runner(**inputs)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert_close(runner.numpy(found[name]), without_pruned(name, value), name)
    main = next(name for name in expected if name not in ("loss", "mc_loss"))
    assert matrix.error(runner.numpy(whole[main]), expected[main]) > 1e-3  # the heads do matter
    kept = {name: value for name, value in values(framework, model).items() if name in stored}
    again = reference.forward(head, model.config, kept, **inputs)
    for name, value in again.items():
        assert_close(value, without_pruned(name, expected[name]), name)


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_model_is_saved_and_loaded(family: str, framework: str, tmp_path: Path) -> None:
    runner, _ = prunable(framework, family, "DoubleHeadsModel", n_head=4, n_layer=3)
    model = runner.model
    model.prune_heads({2: [3, 0], 0: [1]})
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["pruned_heads"] == {"0": [1], "2": [0, 3]}
    wanted = runner.numpy(runner(input_ids=IDS)["logits"])
    for other in TESTED:
        again = matrix.model_class(other, model.config, model.head).from_pretrained(tmp_path)
        assert again.config.pruned_heads == {0: [1], 2: [0, 3]}
        stored = values(framework, model)
        assert all(np.array_equal(value, stored[name]) for name, value in values(other, again).items())
        found = matrix.runner_of(other, again)
        assert_close(found.numpy(found(input_ids=IDS)["logits"]), wanted, other)
        again.prune_heads({2: [1]})
        again.resize_token_embeddings(47)
        check_against_reference(found, family, again.head)
    with pytest.raises(CheckpointError, match=r"h.0.attn.c_attn.weight: shape \(24, 54\), expected \(24, 72\)"):
        type(model).from_pretrained(tmp_path, pruned_heads={2: [0, 3]})


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("family", FAMILIES)
def test_caches_of_a_pruned_model(family: str, framework: str) -> None:
    """Each block caches the heads that it has; steps by either cache give the logits of one call."""
    runner, _ = prunable(framework, family, "LMHeadModel")
    runner.model.prune_heads(PRUNED)
    wanted = runner.numpy(runner(input_ids=IDS)["logits"])
    static = runner.model.init_cache(2, 9)
    assert [tuple(key.shape) for key, _ in static.layers] == [(2, 2, 9, 8), (2, 1, 9, 8)]
    for cache in (None, static):
        first = runner(input_ids=IDS[:, :4], past_key_values=cache, use_cache=True)
        second = runner(input_ids=IDS[:, 4:], past_key_values=first["past_key_values"])
        assert_close(runner.numpy(second["logits"]), wanted[:, 4:], "logits")
    whole, _ = prunable(framework, family, "LMHeadModel")
    with pytest.raises(InputError, match=r"key 0 has shape \(2, 3, 4, 8\), expected \(2, 2, 4, 8\)"):
        runner(input_ids=IDS[:, 4:], past_key_values=whole(input_ids=IDS[:, :4])["past_key_values"])
    found, expected = runner.generate(IDS, max_new_tokens=4), IDS
    for _ in range(4):
        logits = runner.numpy(runner(input_ids=expected)["logits"])[:, -1]
        expected = np.concatenate((expected, logits.argmax(-1)[:, None]), axis=1)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("attention", matrix.ATTENTIONS)
@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("family", FAMILIES)
def test_head_mask_counts_pruned_heads(family: str, framework: str, attention: str) -> None:
    """A mask has the heads' first numbers, whatever is pruned; cross-attention has all of its heads."""
    cross = {"add_cross_attention": True} if family == "gpt2" else {}
    runner, stored = prunable(framework, family, "LMHeadModel", attn_implementation=attention, **cross)
    config, rng = runner.model.config, np.random.default_rng(2)
    runner.model.prune_heads(PRUNED)
    inputs: dict[str, Any] = {"input_ids": IDS}
    if cross:
        inputs["encoder_hidden_states"] = rng.standard_normal((2, 4, 24)).astype(np.float32)
    kept = {name: value for name, value in values(framework, runner.model).items() if name in stored}
    for shape in ((3,), (2, 3)):
        mask = rng.random(shape).astype(np.float32)
        expected = reference.forward("LMHeadModel", runner.model.config, kept, **inputs, head_mask=mask)
        found = runner(**inputs, head_mask=mask)
        assert_close(runner.numpy(found["logits"]), expected["logits"], "logits")
        if not cross:
            whole = reference.forward("LMHeadModel", config, stored, **inputs, head_mask=mask * HEAD_ZEROS)
            assert_close(expected["logits"], whole["logits"], "logits")
    with pytest.raises(InputError, match=r"head_mask: shape \(2,\), expected \(3,\) or \(2, 3\)"):
        runner(**inputs, head_mask=np.ones(2, np.float32))
    if cross:
        whole = matrix.build(framework, config, "LMHeadModel", stored)
        name = "transformer.h.1.crossattention.c_proj.weight"
        assert np.array_equal(matrix.stored(runner, name), matrix.stored(whole, name))
        states = runner(**inputs, output_attentions=True)["cross_attentions"]
        assert [one.shape[1] for one in runner.numpy(states)] == [3, 3]


@pytest.mark.parametrize("framework", TESTED)
def test_what_cannot_be_pruned_is_refused(framework: str) -> None:
    runner, _ = prunable(framework, "gpt2", "Model")
    model = runner.model
    for wrong in ({"0": [1]}, {0: 1}, {0: "1"}, {0: [1.0]}, [1], None):
        with pytest.raises(InputError, match=r"heads_to_prune: .*expected a map"):
            model.prune_heads(wrong)
    for wrong, reason in (
        ({2: [0]}, "block 2, expected 0 to 1"),
        ({0: [3, 4]}, r"heads \[3, 4\] of block 0, expected 0 to 2"),
        ({0: [-1]}, r"heads \[-1\]"),
        ({1: [0, 1, 2]}, "all heads of block 1"),
    ):
        with pytest.raises(ConfigError, match=f"pruned_heads: {reason}"):
            model.prune_heads(wrong)
    assert model.config.pruned_heads == {}
    layer = model.get_weight("h.0.attn.c_attn.weight")
    model.prune_heads({})
    model.prune_heads({0: []})
    assert model.config.pruned_heads == {}
    assert model.get_weight("h.0.attn.c_attn.weight") is layer


@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_heads_in_a_config(family: str) -> None:
    cls = CONFIGS[family]
    for given, wanted in (
        (None, {}),
        ({}, {}),
        ({"0": []}, {}),
        ({"3": [2, 1], "1": [4]}, {1: [4], 3: [1, 2]}),
        ({1: {2, 0, 1}}, {1: [0, 1, 2]}),
    ):
        config = cls(pruned_heads=given)
        assert config.pruned_heads == wanted
        assert cls.from_dict(json.loads(config.to_json_string())) == config
        assert cls.derive(config).pruned_heads == wanted
    for wrong in ({"a": [1]}, {0: 1}, {0: ["1"]}, [1], "on"):
        with pytest.raises(ConfigError, match=r"pruned_heads: .*expected a map from block to a list of heads"):
            cls(pruned_heads=wrong)
    for wrong in ({12: [0]}, {0: [12]}, {0: list(range(12))}):
        with pytest.raises(ConfigError, match="pruned_heads: "):
            cls(pruned_heads=wrong)
    config = cls(pruned_heads={1: [4]})
    assert (config.kept_heads(1), len(config.kept_heads(0))) == ((0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11), 12)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of how Keras calls NumPy
def test_keras_files_hold_pruned_models(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    runner, _ = prunable("keras", "gpt2", "LMHeadModel")
    runner.model.prune_heads(PRUNED)
    runner.model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.config.pruned_heads == PRUNED
    wanted = values("keras", runner.model)
    assert all(np.array_equal(value, wanted[name]) for name, value in values("keras", again).items())


def test_flax_compiles_pruned_models() -> None:
    nnx, jax = pytest.importorskip("flax.nnx"), pytest.importorskip("jax")
    runner, _ = prunable("flax", "gpt2", "LMHeadModel")
    compiled = nnx.jit(lambda model, tokens: model(tokens).logits)
    tokens, model = jax.numpy.asarray(IDS), runner.model
    whole = compiled(model, tokens)
    model.prune_heads(PRUNED)
    assert np.allclose(compiled(model, tokens), model(tokens).logits, atol=1e-5)
    assert not np.allclose(compiled(model, tokens), whole, atol=1e-2)
    assert np.allclose(nnx.clone(model)(tokens).logits, model(tokens).logits, atol=1e-5)


def test_torch_copies_pruned_models() -> None:
    torch = pytest.importorskip("torch")
    runner, _ = prunable("torch", "gpt2", "LMHeadModel")
    runner.model.prune_heads(PRUNED)
    tokens = torch.from_numpy(IDS)
    for again in (copy.deepcopy(runner.model), pickle.loads(pickle.dumps(runner.model))):
        assert torch.equal(again(tokens).logits, runner.model(tokens).logits)
    fresh = type(runner.model)(runner.model.config)
    fresh.load_state_dict(runner.model.state_dict())
    assert torch.equal(fresh.eval()(tokens).logits, runner.model(tokens).logits)
