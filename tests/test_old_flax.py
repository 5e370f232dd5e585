"""The original's Flax names: argument order, weights apart from the model, step-by-step completion, dtypes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gptzoo
from gptzoo import reference
from gptzoo.errors import InputError
from gptzoo.heads import parse_class_name
from tests import matrix
from tests.matrix import TESTED
from tests.old import IDS, MASK, PADDED, agrees, numpy, saved

flax = pytest.mark.skipif("flax" not in TESTED, reason="Flax is not tested")


@flax
def test_flax_positional_arguments() -> None:
    import jax
    import jax.numpy as jnp

    config = matrix.tiny("gpt2", add_cross_attention=True)
    model = gptzoo.FlaxGPT2LMHeadModel(config, (1, 1), 3, jnp.float32, True)
    assert (
        model.get_weight("transformer.wte.weight") == gptzoo.FlaxGPT2Model(config, seed=3).get_weight("wte.weight")
    ).all()
    encoder = np.random.default_rng(0).standard_normal((1, 3, config.n_embd)).astype(np.float32)
    params = jax.tree.map(lambda x: x * 1.5, model.params)
    arrays = {
        "input_ids": IDS,
        "attention_mask": PADDED,
        "position_ids": IDS % 7,
        "encoder_hidden_states": encoder,
        "encoder_attention_mask": np.array([[1, 0, 1]]),
        "params": params,
        "past_key_values": model.init_cache(1, 5),
        "dropout_rng": jax.random.PRNGKey(0),
        "train": True,
        "output_attentions": True,
        "output_hidden_states": True,
        "return_dict": False,
    }
    logits = numpy(model(IDS).logits)
    for count in range(2, len(arrays) + 1):
        given = dict(list(arrays.items())[:count])
        found, wanted = model(*given.values()), model(**given)
        assert agrees(found[0], numpy(wanted[0]))
        assert matrix.error(numpy(found[0]), logits) > 1e-4
    assert type(found) is tuple
    assert len(found) == 5  # logits, cache, hidden states, attentions and those of the encoder


@flax
def test_flax_weights_apart_from_the_model(tmp_path: Path) -> None:
    """`_do_init=False`: the model knows shapes only, and each call brings the weights."""
    import jax

    config, head, values = saved("FlaxGPT2LMHeadModel", tmp_path)
    wanted = reference.forward(head, config, values, input_ids=IDS)["logits"]
    model, params = gptzoo.FlaxGPT2LMHeadModel.from_pretrained(tmp_path, _do_init=False)
    assert agrees(model(IDS, params=params).logits, wanted)
    assert agrees(jax.jit(lambda params: model(IDS, params=params).logits)(params), wanted)
    for use in (lambda: model(IDS), lambda: model.params, lambda: setattr(model, "params", params)):
        with pytest.raises(InputError, match="weights without values"):
            use()
    model.save_pretrained(tmp_path / "again", params=params)
    assert agrees(gptzoo.FlaxGPT2LMHeadModel.from_pretrained(tmp_path / "again")(IDS).logits, wanted)
    auto, params = gptzoo.FlaxAutoModelForCausalLM.from_pretrained(tmp_path, _do_init=False)
    assert agrees(auto(IDS, params=params).logits, wanted)


@flax
def test_flax_init_weights_returns_a_tree() -> None:
    import jax

    config = matrix.tiny("gpt2")
    model = gptzoo.FlaxGPT2LMHeadModel(config, _do_init=False)
    wanted = gptzoo.FlaxGPT2LMHeadModel(config, seed=7)
    for key in (jax.random.key(7), jax.random.PRNGKey(7)):
        params = model.init_weights(key, (1, 1))
        assert agrees(model(IDS, params=params).logits, numpy(wanted(IDS).logits))
    jitted = jax.jit(model.init_weights, static_argnums=1)(jax.random.PRNGKey(7), (1, 1))
    assert agrees(model(IDS, params=jitted).logits, numpy(wanted(IDS).logits))
    trained = {"transformer": {"ln_f": {"bias": np.full(config.n_embd, 9.0, np.float32)}}}
    params = model.init_weights(jax.random.key(7), (1, 1), trained)
    assert (params["transformer"]["ln_f"]["bias"] == 9).all()
    assert (params["transformer"]["wte"]["weight"] == wanted.params["transformer"]["wte"]["weight"]).all()


@flax
def test_flax_params_are_replaced_as_a_whole() -> None:
    import jax

    model, other = (gptzoo.FlaxGPT2LMHeadModel(matrix.tiny("gpt2"), seed=seed) for seed in (0, 1))
    model.params = other.params
    assert agrees(model(IDS).logits, numpy(other(IDS).logits))
    model.params = jax.tree.map(lambda x: x * 0, model.params)
    assert numpy(model(IDS).logits).max() == 0
    with pytest.raises(InputError, match=r"transformer\.wte\.weight: absent"):
        model.params = {"transformer": {}}


@flax
@pytest.mark.parametrize("name", ["FlaxGPT2LMHeadModel", "FlaxOpenAIGPTLMHeadModel"])
def test_flax_step_by_step_completion(name: str) -> None:
    """init_cache, a mask as long as the cache, and positions, as the linen models wanted them."""
    config_class, _ = parse_class_name(name)
    model = getattr(gptzoo, name)(matrix.tiny(config_class.model_type))
    ids, mask = np.concatenate((IDS, IDS[:, ::-1])), np.concatenate((PADDED, MASK))
    wanted = numpy(model(ids, mask).logits)
    assert model(ids, mask).past_key_values is None
    kwargs = model.prepare_inputs_for_generation(ids[:, :3], 8, mask[:, :3])
    assert kwargs["attention_mask"].shape == (2, 8)
    assert kwargs["position_ids"].tolist() == [[0, 0, 0], [0, 1, 2]]
    found = []
    for start, stop in ((0, 3), (3, 4), (4, 5)):
        outputs = model(ids[:, start:stop], **kwargs)
        kwargs = model.update_inputs_for_generation(outputs, kwargs)
        found.append(numpy(outputs.logits))
    assert agrees(np.concatenate(found, 1), wanted)


@flax
def test_flax_dtypes(tmp_path: Path) -> None:
    """`dtype` is that of the computation; weights stay as stored, and are cast by methods."""
    import jax
    import jax.numpy as jnp

    model = gptzoo.FlaxGPT2LMHeadModel(matrix.tiny("gpt2"), dtype=jnp.bfloat16)
    assert model(IDS).logits.dtype == jnp.bfloat16
    assert model.params["transformer"]["wte"]["weight"].dtype == jnp.float32
    for cast, dtype in ((model.to_bf16, "bfloat16"), (model.to_fp16, "float16"), (model.to_fp32, "float32")):
        assert {str(x.dtype) for x in jax.tree.leaves(cast(model.params))} == {dtype}
    mask = jax.tree.map(lambda x: x.ndim > 1, model.params)
    half = model.to_fp16(model.params, mask)["transformer"]["ln_f"]
    assert half["weight"].dtype == jnp.float32
    model.save_pretrained(tmp_path, params=model.to_bf16(model.params))
    loaded = gptzoo.FlaxGPT2LMHeadModel.from_pretrained(tmp_path)
    assert loaded(IDS).logits.dtype == jnp.float32
    assert loaded.params["transformer"]["wte"]["weight"].dtype == jnp.bfloat16
    assert gptzoo.FlaxGPT2LMHeadModel.from_pretrained(tmp_path, dtype=None)(IDS).logits.dtype == jnp.bfloat16


@flax
def test_flax_models_under_nnx_jit() -> None:
    from flax import nnx

    model = gptzoo.FlaxGPT2LMHeadModel(matrix.tiny("gpt2"))
    compiled = nnx.jit(lambda model, ids, mask: model(ids, mask).logits)
    assert agrees(compiled(model, IDS, PADDED), numpy(model(IDS, PADDED).logits))


@flax
def test_flax_training_step_as_scripts_write_it() -> None:
    """`apply_fn=model.__call__` with params and dropout_rng, and the logits as the first output."""
    import jax

    model = gptzoo.FlaxGPT2LMHeadModel(matrix.tiny("gpt2"))
    apply_fn: Callable[..., Any] = model.__call__

    def loss(params: Any, rng: Any) -> Any:
        logits = apply_fn(input_ids=IDS, attention_mask=MASK, params=params, dropout_rng=rng, train=True)[0]
        return (logits**2).mean()

    gradients = jax.jit(jax.grad(loss))(model.params, jax.random.PRNGKey(1))
    assert jax.tree.structure(gradients) == jax.tree.structure(model.params)
    assert all(abs(numpy(x)).max() > 0 for x in jax.tree.leaves(gradients["transformer"]["ln_f"]))
    with pytest.raises(InputError, match="train=True needs dropout_rng"):
        model(IDS, train=True)


# What docs/migration.md says of the old names, where no other test has looked.


@flax
def test_flax_params_are_named_as_in_pytorch() -> None:
    config = matrix.tiny("gpt2")
    params = gptzoo.FlaxGPT2LMHeadModel(config).params
    assert set(params) == {"transformer"}
    assert set(params["transformer"]["h"]["0"]["ln_1"]) == {"weight", "bias"}
    assert params["transformer"]["h"]["0"]["attn"]["c_attn"]["weight"].shape == (24, 72)


@flax
def test_flax_refuses_ids_beyond_the_vocabulary() -> None:
    with pytest.raises(InputError, match="input_ids: 40, expected 0 to 39"):
        gptzoo.FlaxGPT2LMHeadModel(matrix.tiny("gpt2"))(np.array([[40]]))
