"""Saved in one framework, loaded in another: the same bits, and the same dtype unless another is asked for."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gptzoo import reference, weights
from gptzoo.checkpoint import open_checkpoint, plan_load
from gptzoo.config import TRAINED_ACTIVATIONS, GPTConfig
from gptzoo.errors import CheckpointError, ConfigError, GPTZooError
from tests import matrix
from tests.matrix import CLASS_IDS, CLASSES, TESTED


def _bits(runner: Any, config: GPTConfig, head: str) -> dict[str, bytes]:
    result = {}
    for name in weights.specs(config, head):
        result[name] = np.ascontiguousarray(matrix.stored(runner, name)).astype(np.float32).tobytes()
    return result


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("source", "target"), list(itertools.product(TESTED, TESTED)))
@pytest.mark.parametrize(("family", "head"), CLASSES, ids=CLASS_IDS)
def test_saved_here_loads_there(family: str, head: str, source: str, target: str, dtype: str, tmp_path: Path) -> None:
    config = matrix.tiny(family, tie_word_embeddings=head == "Model" or family == "gpt2")
    first = matrix.build(source, config, head, matrix.random_weights(config, head))
    first.model.save_pretrained(tmp_path / "float32", max_shard_size="10KB" if family == "gpt2" else "5GB")
    cls = matrix.model_class(source, config, head)
    cls.from_pretrained(tmp_path / "float32", dtype=dtype).save_pretrained(tmp_path / dtype)
    stored = json.loads((tmp_path / dtype / "config.json").read_text())
    assert stored["architectures"] == [cls.__name__]
    assert stored["dtype"] == dtype
    one = matrix.runner_of(source, cls.from_pretrained(tmp_path / dtype))
    other = matrix.runner_of(target, matrix.model_class(target, config, head).from_pretrained(tmp_path / dtype))
    assert _bits(one, config, head) == _bits(other, config, head)
    if dtype == "float32":
        assert _bits(one, config, head) == _bits(first, config, head)
    assert {info.dtype for info in open_checkpoint(tmp_path / dtype).tensors.values()} == {dtype}
    assert dtype in str(other.model.get_weight(next(iter(weights.specs(config, head)))).dtype)


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])
def test_base_and_head_load_each_other(family: str, framework: str, tmp_path: Path) -> None:
    """Base into head makes a fresh head only where it is not tied; head into base drops it."""
    config = matrix.tiny(family, tie_word_embeddings=False)
    for head in matrix.CORE:
        runner = matrix.build(framework, config, head, matrix.random_weights(config, head))
        runner.model.save_pretrained(tmp_path / head)
    base, lm = (matrix.model_class(framework, config, head) for head in matrix.CORE)
    from_base = lm.from_pretrained(tmp_path / "Model")
    assert from_base.load_report.fresh == ["lm_head.weight"]
    from_head = base.from_pretrained(tmp_path / "LMHeadModel")
    assert from_head.load_report.ignored == ["lm_head.weight"]
    tied = lm.from_pretrained(tmp_path / "Model", tie_word_embeddings=True)
    assert tied.load_report.tied == ["lm_head.weight"]
    assert tied.load_report.fresh == []


@pytest.mark.parametrize("framework", TESTED)
def test_load_options(framework: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = matrix.tiny("gpt2")
    runner = matrix.build(framework, config, "LMHeadModel")
    runner.model.save_pretrained(tmp_path / "m")
    cls = matrix.model_class(framework, config, "LMHeadModel")
    model = cls.from_pretrained(tmp_path / "m", attn_implementation="eager", resid_pdrop=0.3)
    assert (model.config.attn_implementation, model.config.resid_pdrop) == ("eager", 0.3)
    assert cls.from_pretrained(tmp_path / "m", config=config).config == type(config).derive(config, dtype="float32")
    assert config.dtype is None  # the caller's config is not changed
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ConfigError, match="n_layers"):
        cls.from_pretrained(tmp_path / "m", n_layers=3)
    with pytest.raises(GPTZooError, match="model_type"):
        matrix.model_class(framework, matrix.tiny("openai-gpt"), "LMHeadModel").from_pretrained(tmp_path / "m")
    with pytest.raises(CheckpointError, match="missing"):
        cls.from_pretrained(tmp_path / "m", n_layer=3)
    with pytest.raises(CheckpointError, match="no such"):
        cls.from_pretrained(tmp_path / "absent")


@pytest.mark.parametrize("framework", TESTED)
def test_nothing_random_is_made_while_loading(framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = matrix.tiny("gpt2")
    matrix.build(framework, config, "LMHeadModel").model.save_pretrained(tmp_path / "m")

    def never(*args: Any) -> None:
        raise AssertionError("an initial value was made")

    monkeypatch.setattr(weights, "initial_value", never)
    cls = matrix.model_class(framework, config, "LMHeadModel")
    cls.from_pretrained(tmp_path / "m")
    with pytest.raises(AssertionError):  # the check can fail
        cls(config)


def test_transformers_loads_what_every_framework_saves(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for framework in TESTED:
        for family, head in CLASSES:
            config = matrix.tiny(family, bos_token_id=0, eos_token_id=0)
            runner = matrix.build(framework, config, head, matrix.random_weights(config, head))
            runner.model.save_pretrained(tmp_path / framework / family / head)
            name = matrix.class_name(config, head)
            if not hasattr(transformers, name):
                assert (family, head) in {
                    ("openai-gpt", "ForTokenClassification"),
                    ("openai-gpt", "ForQuestionAnswering"),
                }
                continue
            theirs, info = getattr(transformers, name).from_pretrained(
                tmp_path / framework / family / head, output_loading_info=True
            )
            assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
            state = theirs.state_dict()
            ours = dict(plan_load(open_checkpoint(tmp_path / framework / family / head), config, head).values())
            assert all(np.array_equal(state[key].numpy(), value) for key, value in ours.items())


@pytest.mark.parametrize("name", TRAINED_ACTIVATIONS)
def test_weights_of_activations_travel(name: str, tmp_path: Path) -> None:
    """To the other frameworks, to Transformers, and back with the constants that it stores beside them."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = matrix.tiny("gpt2", activation_function=name, bos_token_id=0, eos_token_id=0)
    values = matrix.random_weights(config, "LMHeadModel")
    for weight in values:
        if ".act." in weight:  # Transformers has those of xielu in bfloat16, whatever the model's dtype
            values[weight] = values[weight].astype(ml_dtypes.bfloat16).astype(np.float32)
    ids = matrix.ids(config, np.random.default_rng(0))
    wanted = reference.forward("LMHeadModel", config, values, input_ids=ids)["logits"]
    for framework in TESTED:
        matrix.build(framework, config, "LMHeadModel", values).model.save_pretrained(tmp_path / framework)
        theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / framework).float()
        with torch.no_grad():
            assert matrix.error(theirs(torch.tensor(ids)).logits.numpy(), wanted) < 1e-5
        theirs.save_pretrained(tmp_path / "theirs")
        for other in TESTED:
            back = matrix.model_class(other, config, "LMHeadModel").from_pretrained(tmp_path / "theirs")
            runner = matrix.runner_of(other, back)
            assert matrix.error(runner.numpy(runner(input_ids=ids)["logits"]), wanted) <= matrix.TOLERANCE
            ignored = back.load_report.ignored
            assert len(ignored) == (2 * config.n_layer if name == "xielu" else 0)
