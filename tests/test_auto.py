"""Auto classes: the family from the config, the head from the class, everything else as of the model itself."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gptzoo
from gptzoo import reference
from gptzoo.config import CONFIGS, AutoConfig, GPT2Config
from gptzoo.errors import CheckpointError, ConfigError
from gptzoo.heads import AUTO_HEADS, class_name
from tests import matrix
from tests.matrix import TESTED

PREFIXES = {"torch": "", "keras": "TF", "flax": "Flax"}

frameworks = pytest.mark.parametrize("framework", TESTED)
families = pytest.mark.parametrize("family", CONFIGS)
autos = pytest.mark.parametrize("auto", AUTO_HEADS)


def auto_class(framework: str, auto: str) -> Any:
    return getattr(importlib.import_module(f"gptzoo.{framework}"), auto)


def test_head_table_has_the_heads_that_the_names_say() -> None:
    assert {auto.removeprefix("AutoModel"): head for auto, head in AUTO_HEADS.items()} == {
        "": "Model",
        "ForCausalLM": "LMHeadModel",
        "ForSequenceClassification": "ForSequenceClassification",
        "ForTokenClassification": "ForTokenClassification",
        "ForQuestionAnswering": "ForQuestionAnswering",
    }


@frameworks
@families
@autos
def test_loads_the_class_that_the_checkpoint_is_of(auto: str, family: str, framework: str, tmp_path: Path) -> None:
    """By its plain and by its old name, with the weights of the checkpoint."""
    config, head = matrix.tiny(family, pad_token_id=0), AUTO_HEADS[auto]
    values = matrix.random_weights(config, head)
    matrix.build(framework, config, head, values).model.save_pretrained(tmp_path)
    ids = matrix.ids(config, np.random.default_rng(0))
    output = next(iter(reference.forward(head, config, values, input_ids=ids)))
    wanted = reference.forward(head, config, values, input_ids=ids)[output]
    prefix = PREFIXES[framework]
    for cls, name in (
        (auto_class(framework, auto), class_name(config, head)),
        (getattr(gptzoo, prefix + auto), prefix + class_name(config, head)),
    ):
        model = cls.from_pretrained(tmp_path)
        assert type(model).__name__ == name
        runner = matrix.runner_of(framework, model)
        assert matrix.error(runner.numpy(runner(input_ids=ids)[output]), wanted) <= matrix.TOLERANCE


@frameworks
@families
@autos
def test_from_config_makes_the_model_of_a_copy(auto: str, family: str, framework: str) -> None:
    config, head = matrix.tiny(family), AUTO_HEADS[auto]
    model = auto_class(framework, auto).from_config(config, seed=4, num_labels=5, attn_implementation="eager")
    assert type(model).__name__ == class_name(config, head)
    assert (model.config.num_labels, model.config.attn_implementation) == (5, "eager")
    assert (config.num_labels, config.attn_implementation) == (2, None)
    plain = matrix.build(framework, type(config).derive(config, num_labels=5), head, seed=4)
    runner = matrix.runner_of(framework, model)
    for name in matrix.random_weights(model.config, head):
        assert (matrix.stored(runner, name) == matrix.stored(plain, name)).all()


@frameworks
def test_options_reach_the_model(framework: str, tmp_path: Path) -> None:
    matrix.build(framework, matrix.tiny("gpt2"), "Model").model.save_pretrained(tmp_path)
    auto = auto_class(framework, "AutoModelForTokenClassification")
    assert auto.from_pretrained(tmp_path, num_labels=7).config.num_labels == 7
    given = GPT2Config.from_pretrained(tmp_path, num_labels=3)
    assert auto.from_pretrained(tmp_path, config=given).config.num_labels == 3
    assert "bfloat16" in str(auto.from_pretrained(tmp_path, dtype="bfloat16").get_weight("classifier.weight").dtype)


@frameworks
def test_config_of_no_family_is_refused(framework: str, tmp_path: Path) -> None:
    auto = auto_class(framework, "AutoModelForCausalLM")
    matrix.build(framework, matrix.tiny("gpt2"), "LMHeadModel").model.save_pretrained(tmp_path)
    for wrong in ("gpt2", {"model_type": "gpt2"}, GPT2Config, None):
        with pytest.raises(ConfigError, match="AutoModelForCausalLM needs a GPT2Config or OpenAIGPTConfig, got"):
            auto.from_config(wrong)
    with pytest.raises(CheckpointError, match="'gpt2': no such file or directory"):
        auto.from_pretrained(tmp_path, config="gpt2")  # a path, as in Transformers
    assert auto.from_pretrained(tmp_path, config=str(tmp_path)).config == auto.from_pretrained(tmp_path).config
    with pytest.raises(ConfigError, match=r"from_config: num_label: .* \(num_labels\?\)"):
        auto.from_config(matrix.tiny("gpt2"), num_label=3)
    with pytest.raises(CheckpointError, match="model_type: gpt2, expected openai-gpt"):
        auto.from_pretrained(tmp_path, config=matrix.tiny("openai-gpt"))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "bert"}))
    with pytest.raises(ConfigError, match=r"model_type: '?bert'?, expected one of gpt2, openai-gpt"):
        auto.from_pretrained(tmp_path)


@frameworks
@autos
def test_no_instance_without_a_checkpoint_or_config(auto: str, framework: str) -> None:
    for cls in (auto_class(framework, auto), getattr(gptzoo, PREFIXES[framework] + auto)):
        with pytest.raises(ConfigError, match=rf"use {cls.__name__}\.from_pretrained\(path\)"):
            cls(matrix.tiny("gpt2"))


def test_config_reads_either_family(tmp_path: Path) -> None:
    for family, config in CONFIGS.items():
        matrix.tiny(family).save_pretrained(tmp_path)
        assert type(AutoConfig.from_pretrained(tmp_path)) is config
