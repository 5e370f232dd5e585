"""What from_pretrained takes beside the checkpoint, and what it reports, the same in every framework."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from gptzoo import weights
from gptzoo._load import FOREIGN_ARGUMENTS
from gptzoo.checkpoint import open_checkpoint, plan_load
from gptzoo.config import CONFIGS
from gptzoo.errors import CheckpointError, ConfigError, GPTZooError
from gptzoo.heads import HEADS, class_name
from tests import matrix
from tests.matrix import CLASS_IDS, CLASSES, TESTED
from tests.models import FAMILIES, IDS, save, values

LABELLED = ("ForSequenceClassification", "ForTokenClassification")


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
            refusal = (
                "expected one that torch finds"
                if (framework, name) == ("torch", "device_map")
                else "is not implemented"
            )
            with pytest.raises(GPTZooError, match=f"{name}: 'other',? {refusal}"):
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
