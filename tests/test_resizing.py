"""Embeddings that are got, set and resized, the same in every framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo import limits, surgery, weights
from gptzoo.checkpoint import open_checkpoint
from gptzoo.errors import InputError
from gptzoo.heads import class_name
from tests import matrix
from tests.matrix import CLASS_IDS, CLASSES, TESTED
from tests.models import FAMILIES, IDS, LM, check_against_reference, save, values

# Embeddings

TIES = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
EMBEDDINGS = {"gpt2": "wte", "openai-gpt": "tokens_embed"}


def embedding(family: str, head: str) -> str:
    return f"{'' if head == 'Model' else weights.PREFIX}{EMBEDDINGS[family]}.weight"


def numbers(framework: str, layer: Any) -> np.ndarray:
    """The weight of a layer."""
    weight = layer.weight.get_value() if framework == "flax" else layer.weight
    return np.asarray(weight.detach() if framework == "torch" else weight)


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize(("family", "head"), CLASSES, ids=CLASS_IDS)
@TIES
def test_embeddings_are_got_and_set(tied: bool, family: str, head: str, framework: str) -> None:
    """The outputs are those of the layers that were set, a tied head's too, and the old ones are gone."""
    config = matrix.tiny(family, tie_word_embeddings=tied)
    runner = matrix.build(framework, config, head, matrix.random_weights(config, head))
    other = matrix.build(framework, config, head, wanted := matrix.random_weights(config, head, seed=1))
    model, count = runner.model, runner.model.num_parameters()
    tokens, lm = embedding(family, head), head in LM
    assert np.array_equal(numbers(framework, model.get_input_embeddings()), matrix.stored(runner, tokens))
    layer = other.model.get_input_embeddings()
    model.set_input_embeddings(layer)
    assert model.get_input_embeddings() is layer
    assert (model.get_output_embeddings() is None) == (not lm)
    if lm and not tied:
        model.set_output_embeddings(other.model.get_output_embeddings())
        assert np.array_equal(numbers(framework, model.get_output_embeddings()), wanted["lm_head.weight"])
    elif lm:
        assert np.array_equal(numbers(framework, model.get_output_embeddings()), wanted[tokens])
        with pytest.raises(InputError, match="lm_head: is transformer"):
            model.set_output_embeddings(other.model.get_input_embeddings())
    else:
        with pytest.raises(InputError, match="has no output embeddings"):
            model.set_output_embeddings(layer)
    assert model.num_parameters() == count == weights.parameter_count(config, head)
    for name in set(wanted) - {tokens, "lm_head.weight"}:
        model.set_weight(name, wanted[name])
    found, expected = runner(input_ids=IDS[:1]), other(input_ids=IDS[:1])
    for name, value in expected.items():
        if name != "past_key_values":
            assert np.array_equal(runner.numpy(found[name]), other.numpy(value)), name


@pytest.mark.parametrize("framework", TESTED)
def test_layer_that_does_not_fit_is_refused(framework: str) -> None:
    model = matrix.build(framework, matrix.tiny("gpt2", tie_word_embeddings=False), "LMHeadModel").model
    larger = matrix.build(framework, matrix.tiny("gpt2", vocab_size=41), "Model").model.get_input_embeddings()
    for set_layer in (model.set_input_embeddings, model.set_output_embeddings):
        with pytest.raises(InputError, match=r"a weight \(41, 24\) float32, expected .*\(40, 24\) float32"):
            set_layer(larger)
        with pytest.raises(InputError, match="None, expected a layer"):
            set_layer(None)


# Another vocabulary


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize(("family", "head"), CLASSES, ids=CLASS_IDS)
@TIES
def test_resized_model_is_a_model_of_that_size(
    tied: bool, family: str, head: str, framework: str, tmp_path: Path
) -> None:
    """Old rows stay bit for bit; what follows is as for any model: reference, parameters, files, the other twins."""
    config = matrix.tiny(family, tie_word_embeddings=tied, eos_token_id=None, pad_token_id=1)
    for size in (44, 31):
        runner = matrix.build(framework, config, head, matrix.random_weights(config, head))
        model, before = runner.model, values(framework, runner.model)
        layer = model.resize_token_embeddings(size)
        assert layer is model.get_input_embeddings()
        assert (model.config.vocab_size, config.vocab_size) == (size, 40)  # other models may share the config
        assert model.base_model.config is model.config
        assert model.num_parameters() == weights.parameter_count(model.config, head)
        after = values(framework, model)
        for name, spec in weights.specs(model.config, head).items():
            assert after[name].shape == spec.shape
            kept = min(size, 40) if spec.row.axes.startswith("vocab ") else None
            assert np.array_equal(after[name][:kept], before[name][:kept]), name
            assert not spec.tied or np.array_equal(after[name], after[spec.tied])
        check_against_reference(runner, family, head)
        model.save_pretrained(tmp_path / str(size))
        for other in TESTED:
            again = matrix.model_class(other, config, head).from_pretrained(tmp_path / str(size))
            assert again.config.vocab_size == size
            assert all(np.array_equal(value, after[name]) for name, value in values(other, again).items())
        if head == "LMHeadModel":
            assert runner.generate(np.array([[size - 1, 2]]), max_new_tokens=3).shape == (1, 5)


@pytest.mark.parametrize("family", FAMILIES)
@TIES
def test_new_rows_are_the_same_in_every_framework(tied: bool, family: str) -> None:
    config = matrix.tiny(family, tie_word_embeddings=tied)
    for mean_resizing, seed in ((True, 0), (True, 7), (False, 7)):
        found = []
        for framework in TESTED:
            runner = matrix.build(framework, config, "LMHeadModel", matrix.random_weights(config, "LMHeadModel"))
            runner.model.resize_token_embeddings(50, mean_resizing=mean_resizing, seed=seed)
            found.append(values(framework, runner.model))
        name = embedding(family, "LMHeadModel")
        assert all(np.array_equal(one[key], value) for one in found[1:] for key, value in found[0].items())
        assert tied == np.array_equal(found[0][name][40:], found[0]["lm_head.weight"][40:])
        new = found[0][name][40:]
        assert len(np.unique(new, axis=0)) == 10
        again = surgery.mean_rows(found[0][name][:40].astype(float), 10, weights.generator(seed, name, 40))
        assert np.allclose(new, again, atol=1e-4) == mean_resizing  # near the mean, far from initial values


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("family", FAMILIES)
@TIES
def test_without_mean_resizing_a_model_is_as_if_made_so(tied: bool, family: str, framework: str) -> None:
    """A new model that is enlarged is a new model of that size, to the bit."""
    small, large = (matrix.tiny(family, tie_word_embeddings=tied, vocab_size=size) for size in (40, 53))
    model = matrix.build(framework, small, "LMHeadModel", seed=3).model
    model.resize_token_embeddings(53, mean_resizing=False, seed=3)
    wanted = values(framework, matrix.build(framework, large, "LMHeadModel", seed=3).model)
    assert all(np.array_equal(value, wanted[name]) for name, value in values(framework, model).items())


def test_mean_rows_have_the_distribution_of_transformers() -> None:
    """Mean and covariance of many rows, ours and theirs, against the formula; and theirs would not pass at twice it."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    count, old = 20000, np.random.default_rng(0).standard_normal((40, 6)) * 0.2 + np.linspace(-1, 1, 6)
    ours = surgery.mean_rows(old, count, np.random.default_rng(1))
    model = transformers.GPT2Model(transformers.GPT2Config(vocab_size=40, n_embd=6, n_head=1, n_layer=1))
    table, new = torch.nn.Embedding(40, 6), torch.nn.Embedding(40 + count, 6).to(torch.float64)
    table.weight.data = torch.from_numpy(old)
    # They draw in float32, whose steps are a thousandth of this spread.
    model._init_added_embeddings_weights_with_mean(table, new, 40, count)
    theirs = new.weight[-count:].detach().numpy()
    mean, covariance = old.mean(0), surgery.SHRINK * np.cov(old.T, bias=True)

    def off(rows: np.ndarray, covariance: np.ndarray) -> float:
        spread = np.sqrt(np.diag(covariance))
        of_mean = np.abs((rows.mean(0) - mean) / spread).max()
        return float(max(of_mean, np.abs((np.cov(rows.T) - covariance) / np.outer(spread, spread)).max()))

    assert off(ours, covariance) < 0.04
    assert off(theirs, covariance) < 0.04
    assert off(ours, 1.1 * covariance) > 0.04


def test_mean_rows_of_few_tokens_vary_where_the_old_ones_do() -> None:
    """With a singular covariance the new rows lie in the span of the old ones, and not outside."""
    old = np.random.default_rng(0).standard_normal((4, 10))
    new = surgery.mean_rows(old, 3, np.random.default_rng(1)) - old.mean(0)
    directions = np.linalg.svd(old - old.mean(0))[2]
    assert np.abs(new @ directions[:3].T).max() > 1e-6
    assert np.abs(new @ directions[3:].T).max() < 1e-15
    assert np.array_equal(surgery.mean_rows(old[:1], 2, np.random.default_rng(1)), old[[0, 0]])


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("family", FAMILIES)
def test_size_asked_for(family: str, framework: str) -> None:
    model = matrix.build(framework, matrix.tiny(family), "LMHeadModel").model
    layer = model.get_input_embeddings()
    for asked, wanted in (((), 40), ((None, 16), 48), ((41, 8), 48), ((45,), 45), ((40, 8), 40), ((5, 5), 5)):
        assert model.resize_token_embeddings(*asked) is layer
        assert (model.config.vocab_size, tuple(layer.weight.shape)) == (wanted, (wanted, 24))
    for wrong in (0, -1, 2.5, "50", True, limits.MAX_VOCAB + 1):
        with pytest.raises(InputError, match=r"resize_token_embeddings: .*expected"):
            model.resize_token_embeddings(wrong)
        if wrong != limits.MAX_VOCAB + 1:
            with pytest.raises(InputError, match=r"pad_to_multiple_of: .*expected an integer"):
                model.resize_token_embeddings(44, pad_to_multiple_of=wrong)
    with pytest.raises(InputError, match="seed: -1"):
        model.resize_token_embeddings(44, seed=-1)
    assert model.config.vocab_size == 5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("framework", TESTED)
def test_resizing_keeps_the_dtype_and_the_bits(framework: str, dtype: str, tmp_path: Path) -> None:
    cls = save(tmp_path, framework, "gpt2", "LMHeadModel")
    model = cls.from_pretrained(tmp_path, dtype=dtype)
    before = model.read_weight("transformer.wte.weight").copy()
    model.resize_token_embeddings(45)
    after = model.read_weight("transformer.wte.weight")
    assert after.dtype.name == dtype
    assert np.array_equal(after[:40], before)
    model.save_pretrained(tmp_path / "again")
    assert {info.dtype for info in open_checkpoint(tmp_path / "again").tensors.values()} == {dtype}


@pytest.mark.parametrize("family", FAMILIES)
@TIES
def test_transformers_loads_a_resized_model(tied: bool, family: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = matrix.tiny(family, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0)
    for framework in TESTED:
        runner = matrix.build(framework, config, "LMHeadModel", matrix.random_weights(config, "LMHeadModel"))
        runner.model.resize_token_embeddings(45)
        runner.model.save_pretrained(tmp_path / framework)
        name = class_name(config, "LMHeadModel")
        theirs, info = getattr(transformers, name).from_pretrained(tmp_path / framework, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert tuple(theirs.get_input_embeddings().weight.shape) == (45, 24)


@TIES
def test_torch_trains_after_resizing(tied: bool) -> None:
    torch = pytest.importorskip("torch")
    config = matrix.tiny("gpt2", tie_word_embeddings=tied)
    model = matrix.build("torch", config, "LMHeadModel").model
    old = model.get_input_embeddings().weight
    model.resize_token_embeddings(50)
    new = model.get_input_embeddings().weight
    assert isinstance(new, torch.nn.Parameter)
    assert new is not old
    assert (model.lm_head.weight is new) == tied
    before = new.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    tokens = torch.tensor([[45, 49, 47, 3]])
    losses = []
    for _ in range(5):
        loss = model(tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not torch.equal(before[49], new[49])
    frozen = matrix.build("torch", config, "LMHeadModel").model.requires_grad_(False)
    assert not frozen.resize_token_embeddings(41).weight.requires_grad


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of how Keras calls NumPy
@TIES
def test_keras_does_not_train_with_the_optimizer_of_the_old_variables(tied: bool) -> None:
    keras = pytest.importorskip("keras")
    model = matrix.build("keras", matrix.tiny("gpt2", tie_word_embeddings=tied), "LMHeadModel").model
    model.compile(keras.optimizers.Adam())
    model.fit({"input_ids": IDS, "labels": IDS}, verbose=0)
    model.resize_token_embeddings(50)
    with pytest.raises(Exception, match=r"(?i)unknown variable|optimizer|shape"):
        model.fit({"input_ids": IDS, "labels": IDS}, verbose=0)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of how Keras calls NumPy
@TIES
def test_keras_trains_and_predicts_after_resizing(tied: bool, tmp_path: Path) -> None:
    """What Keras compiled before is not used again, and what it stores is the new weights alone."""
    keras = pytest.importorskip("keras")
    config = matrix.tiny("gpt2", tie_word_embeddings=tied)
    model = matrix.build("keras", config, "LMHeadModel").model
    tokens = {"input_ids": IDS, "labels": IDS}
    paths = [weight.path for weight in model.weights]
    model.compile(keras.optimizers.SGD(0.5))
    model.fit(tokens, verbose=0)
    model.predict(IDS, verbose=0)
    model.resize_token_embeddings(50)
    assert [weight.path for weight in model.weights] == paths
    assert model.predict(IDS, verbose=0)["logits"].shape[-1] == 50
    model.compile(keras.optimizers.SGD(0.5))
    tokens = {"input_ids": np.full((2, 6), 49), "labels": np.full((2, 6), 49)}
    before = model.read_weight("transformer.wte.weight").copy()
    history = model.fit(tokens, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert not np.array_equal(before[49], model.read_weight("transformer.wte.weight")[49])
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.config.vocab_size == 50
    assert all(np.array_equal(value, values("keras", model)[name]) for name, value in values("keras", again).items())


@TIES
def test_flax_compiles_and_trains_after_resizing(tied: bool) -> None:
    jax, nnx = pytest.importorskip("jax"), pytest.importorskip("flax.nnx")
    config = matrix.tiny("gpt2", tie_word_embeddings=tied)
    model = matrix.build("flax", config, "LMHeadModel").model
    tokens = jax.numpy.array([[3, 4, 5]])
    compiled = nnx.jit(lambda model, tokens: model(tokens).logits)
    assert compiled(model, tokens).shape[-1] == 40
    model.resize_token_embeddings(50)
    tokens = jax.numpy.array([[45, 49, 47]])
    assert np.allclose(compiled(model, tokens), model(tokens).logits, atol=1e-5)
    assert compiled(model, tokens).shape[-1] == 50

    def loss(params: Any) -> Any:
        return model(tokens, labels=tokens, params=params).loss

    before, gradient = jax.value_and_grad(loss)(model.params)
    stepped = jax.tree.map(lambda p, g: p - 0.1 * g, model.params, gradient)
    assert loss(stepped) < before
    empty = matrix.build("flax", config, "LMHeadModel", seed=None).model
    with pytest.raises(InputError, match="weights without values"):
        empty.resize_token_embeddings(50)


@pytest.mark.parametrize("framework", TESTED)
def test_backbone_of_a_head_is_not_operated_on_alone(framework: str) -> None:
    """The head's config and weights would not follow."""
    model = matrix.build(framework, matrix.tiny("gpt2"), "LMHeadModel").model
    for operate in (
        lambda part: part.resize_token_embeddings(30),
        lambda part: part.prune_heads({0: [1]}),
        lambda part: part.set_input_embeddings(part.get_input_embeddings()),
    ):
        with pytest.raises(InputError, match="GPT2Model: inside a model with a head; operate on that model"):
            operate(model.transformer)
        operate(model)
