"""What is changed about a model as it is loaded and afterwards, the same in every framework."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo import limits, reference, surgery, weights
from gptzoo._load import FOREIGN_ARGUMENTS
from gptzoo.checkpoint import open_checkpoint, plan_load
from gptzoo.config import CONFIGS
from gptzoo.errors import CheckpointError, ConfigError, InputError
from gptzoo.heads import HEADS, class_name
from tests import matrix
from tests.matrix import TESTED

FAMILIES = tuple(CONFIGS)
LABELLED = ("ForSequenceClassification", "ForTokenClassification")
IDS = np.random.default_rng(1).integers(0, 40, (2, 6))
CLASSES = list(itertools.product(FAMILIES, HEADS))
CLASS_IDS = [class_name(CONFIGS[family], head) for family, head in CLASSES]


def save(path: Path, framework: str, family: str, head: str, **config: Any) -> Any:
    """Stores a model with random weights, and returns its class."""
    runner = matrix.build(framework, *(made := (matrix.tiny(family, **config), head)), matrix.random_weights(*made))
    runner.model.save_pretrained(path)
    return type(runner.model)


def values(framework: str, model: Any) -> dict[str, np.ndarray]:
    """Every weight of a model by name, tied ones included."""
    runner = matrix.runner_of(framework, model)
    return {name: matrix.stored(runner, name) for name in weights.specs(model.config, model.head)}


# Loading


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", LABELLED)
def test_labels_at_load(head: str, family: str, framework: str, tmp_path: Path) -> None:
    """A base model gets a head of the size asked for, and names that fit it."""
    save(tmp_path, framework, family, "Model", id2label={0: "no", 1: "yes"})
    cls = matrix.model_class(framework, matrix.tiny(family), head)
    name = "score.weight" if head == LABELLED[0] else "classifier.weight"
    names, ids = {0: "a", 1: "b", 2: "c"}, {"a": 0, "b": 1, "c": 2}
    for given, wanted in (
        ({}, {0: "no", 1: "yes"}),
        ({"num_labels": 2}, {0: "no", 1: "yes"}),
        ({"num_labels": 3}, {i: f"LABEL_{i}" for i in range(3)}),
        ({"id2label": names}, names),
        ({"label2id": ids}, names),
        ({"id2label": names, "label2id": ids, "num_labels": 3}, names),
    ):
        model = cls.from_pretrained(tmp_path, **given)
        assert (model.config.id2label, model.config.label2id) == (wanted, {one: i for i, one in wanted.items()})
        assert tuple(model.get_weight(name).shape) == (len(wanted), model.config.n_embd)
        assert matrix.runner_of(framework, model)(input_ids=IDS[:1])["logits"].shape[-1] == len(wanted)
    with pytest.raises(ConfigError, match="num_labels: 4, but id2label has 3 entries"):
        cls.from_pretrained(tmp_path, num_labels=4, id2label=names)


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize(("family", "head"), CLASSES, ids=CLASS_IDS)
def test_base_and_head_load_each_other(family: str, head: str, framework: str, tmp_path: Path) -> None:
    """What both have is the same bits, what the checkpoint lacks begins as the table says, what is left is named."""
    untied = {"tie_word_embeddings": False}
    base = save(tmp_path / "base", framework, family, "Model", **untied)
    cls = save(tmp_path / "head", framework, family, head, **untied)
    for target, source in ((cls, "base"), (base, "head")):
        model, info = target.from_pretrained(tmp_path / source, seed=5, output_loading_info=True)
        stored = {name.removeprefix(weights.PREFIX): array for name, array in _stored(tmp_path / source).items()}
        specs = weights.specs(model.config, model.head)
        own = {name for name, spec in specs.items() if not spec.in_backbone}
        other = {name for name in stored if name in weights.specs(model.config, head) and name in own ^ set(stored)}
        for name, array in values(framework, model).items():
            fresh = name in own
            wanted = weights.initial_value(specs[name], 5) if fresh else stored[name.removeprefix(weights.PREFIX)]
            assert np.array_equal(array, wanted), name
        unexpected = sorted(other - {spec.backbone_name for spec in specs.values()})
        assert info["missing_keys"] == sorted(own) == sorted(model.load_report.fresh)
        assert info["unexpected_keys"] == unexpected == sorted(model.load_report.ignored)
        assert (info["mismatched_keys"], info["error_msgs"]) == ([], [])


def _stored(path: Path) -> dict[str, np.ndarray]:
    checkpoint = open_checkpoint(path)
    return {name: checkpoint.read(name) for name in checkpoint.tensors}


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("family", FAMILIES)
def test_another_shape_is_an_error_or_is_reported(family: str, framework: str, tmp_path: Path) -> None:
    cls = save(tmp_path, framework, family, LABELLED[1])
    with pytest.raises(CheckpointError, match=r"classifier.weight: shape \(2, 24\), expected \(3, 24\)"):
        cls.from_pretrained(tmp_path, num_labels=3)
    model = cls.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    report = model.load_report
    assert report.fresh == ["classifier.weight", "classifier.bias"]
    assert report.mismatched == {"classifier.weight": ((2, 24), (3, 24)), "classifier.bias": ((2,), (3,))}
    assert "classifier.weight of shape (2, 24), not (3, 24)" in str(report)
    specs, stored = weights.specs(model.config, model.head), _stored(tmp_path)
    for name, value in values(framework, model).items():
        fresh = name in report.fresh
        assert np.array_equal(value, weights.initial_value(specs[name]) if fresh else stored[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tied_head_of_another_size_is_not_dropped_silently(family: str, tmp_path: Path) -> None:
    """A stored head that fits, tied to an embedding that does not, belongs to neither."""
    config = matrix.tiny(family, tie_word_embeddings=False)
    tensors = matrix.random_weights(config, "LMHeadModel")
    embedding = next(name for name in tensors if name.endswith(("wte.weight", "tokens_embed.weight")))
    from tests.checkpoints import store

    store(tmp_path, tensors | {embedding: np.ones((7, 24), np.float32)}, matrix.tiny(family))
    plan = plan_load(open_checkpoint(tmp_path), matrix.tiny(family), "LMHeadModel", ignore_mismatched_sizes=True)
    assert list(plan.report.mismatched) == [embedding]
    with pytest.raises(CheckpointError, match=f"lm_head.weight: differs from {embedding}"):
        dict(plan.values())


@pytest.mark.parametrize("framework", TESTED)
def test_arguments_of_other_libraries(framework: str, tmp_path: Path) -> None:
    """Those without effect are passed over; what would have one, or means nothing, is refused by name, all at once."""
    cls = save(tmp_path, framework, "gpt2", LABELLED[0])
    harmless = {name: (at or ("anything",))[-1] for name, (at, _) in FOREIGN_ARGUMENTS.items()}
    model = cls.from_pretrained(tmp_path, **harmless)
    assert not set(harmless) & set(vars(model.config))
    for name, (at, _) in FOREIGN_ARGUMENTS.items():
        if at is not None:
            with pytest.raises(ConfigError, match=f"{name}: 'other' is not implemented"):
                cls.from_pretrained(tmp_path, **{name: "other"})
    with pytest.raises(ConfigError) as caught:
        cls.from_pretrained(tmp_path, num_label=3, vocabulary=4, use_safetensors=False, torch_dtype="float32")
    lines = str(caught.value).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["num_label", "vocabulary", "use_safetensors"]
    assert "(num_labels?)" in lines[0]
    with pytest.raises(ConfigError, match=r"n_layers: .* called n_layer"):
        cls.from_pretrained(tmp_path, n_layers=2)


def test_a_foreign_field_of_the_checkpoint_may_be_replaced(tmp_path: Path) -> None:
    framework = TESTED[0]
    cls = save(tmp_path, framework, "gpt2", "Model", task_specific_params={"a": 1})
    assert cls.from_pretrained(tmp_path, task_specific_params={"b": 2}).config.task_specific_params == {"b": 2}
    with pytest.raises(ConfigError, match="specific_params"):
        cls.from_pretrained(tmp_path, specific_params={})


@pytest.mark.parametrize("family", FAMILIES)
def test_loading_info_is_that_of_transformers(family: str, tmp_path: Path) -> None:
    """Where both have the class: the same keys for the same files, num_labels and labels included."""
    transformers = pytest.importorskip("transformers")
    framework, n_compared = TESTED[0], 0
    for source, target in itertools.product(HEADS, HEADS):
        name = class_name(CONFIGS[family], target)
        path = tmp_path / source
        if not path.exists():
            save(path, framework, family, source)
        if hasattr(transformers, name):
            asked = {"num_labels": 3, "ignore_mismatched_sizes": True, "output_loading_info": True}
            cls = matrix.model_class(framework, matrix.tiny(family), target)
            model, ours = cls.from_pretrained(path, **asked)
            other, theirs = getattr(transformers, name).from_pretrained(path, **asked)
            theirs["mismatched_keys"] = {(key, *map(tuple, shapes)) for key, *shapes in theirs["mismatched_keys"]}
            assert {key: set(value) for key, value in ours.items()} == {key: set(theirs[key]) for key in ours}
            if target != "DoubleHeadsModel":  # where Transformers overwrites num_labels by 1
                assert model.config.id2label == other.config.id2label
            n_compared += 1
    assert n_compared >= 24


# Embeddings


LM = ("LMHeadModel", "DoubleHeadsModel")
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
        assert surgery.backbone(model).config is model.config
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


def check_against_reference(runner: Any, family: str, head: str, **inputs: Any) -> None:
    """Compares every output and loss with the float64 reference on the same weights, its newest tokens included."""
    model = runner.model
    stored = values(runner.framework, model)
    tied = {name for name, spec in weights.specs(model.config, head).items() if spec.tied}
    tokens = np.random.default_rng(3).integers(0, model.config.vocab_size, (2, 6))
    tokens[:, 0] = model.config.vocab_size - 1
    arguments = {"input_ids": tokens} | inputs
    if head in LM:
        arguments["labels"] = tokens
    plain = {name: value for name, value in stored.items() if name not in tied}
    expected = reference.forward(head, model.config, plain, **arguments)
    found = runner(**arguments)
    for name, value in expected.items():
        for one, other in zip(matrix.leaves(runner.numpy(found[name])), matrix.leaves(value), strict=True):
            # Twice the matrix' tolerance, for the rounding of a few small logits: a wrong row or head is 1e-2 off.
            assert matrix.error(one, other) < 2 * matrix.TOLERANCE, (name, matrix.error(one, other))


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


# Fewer heads


PRUNED: dict[int, list[int]] = {0: [1], 1: [0, 2]}
HEAD_ZEROS = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]], np.float32)


def prunable(framework: str, family: str, head: str, **config: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A model with random weights, as a Runner, and these weights."""
    made = matrix.tiny(family, eos_token_id=None, pad_token_id=1, **config)
    stored = matrix.random_weights(made, head)
    return matrix.build(framework, made, head, stored), stored


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


@pytest.mark.parametrize("attention", matrix.ATTENTIONS)
@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize(("family", "head"), CLASSES, ids=CLASS_IDS)
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
    assert surgery.backbone(model).config is model.config
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
