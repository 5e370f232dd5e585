"""Configs: files of Transformers 4 and 5 read and written back, every field checked, aliases, labels."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo.config import ACTIVATIONS, CONFIGS, INERT, MISNAMED, AutoConfig, GPT2Config, GPTConfig, OpenAIGPTConfig
from gptzoo.errors import CheckpointError, ConfigError

SHARED = {
    "attn_pdrop": 0.1,
    "dtype": "float32",
    "embd_pdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "n_embd": 8,
    "n_head": 2,
    "n_layer": 2,
    "n_positions": 16,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "transformers_version": "4.57.6",
    "vocab_size": 20,
}
GPT1 = SHARED | {"model_type": "openai-gpt", "afn": "gelu"}
GPT2 = SHARED | {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "n_inner": None,
    "reorder_and_upcast_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "use_cache": True,
}
ONE_LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
CONVERSATION = {"text-generation": {"do_sample": True, "max_length": 50}}

# Files as Transformers 4 wrote them, and as they lie on the hub.
WRITTEN_BY_V4 = {
    "gpt2": GPT2 | {"architectures": ["GPT2LMHeadModel"]},
    "gpt2-cross": GPT2 | {"architectures": ["GPT2LMHeadModel"], "add_cross_attention": True},
    "gpt2-double": GPT2 | {"architectures": ["GPT2DoubleHeadsModel"]} | ONE_LABEL,
    "gpt2-untied": GPT2 | {"architectures": ["GPT2LMHeadModel"], "tie_word_embeddings": False},
    "gpt2-hub": GPT2 | {"architectures": ["GPT2LMHeadModel"], "n_ctx": 1024, "task_specific_params": CONVERSATION},
    "gpt2-half": GPT2 | {"architectures": ["GPT2Model"], "dtype": "bfloat16"},
    "gpt1": GPT1 | {"architectures": ["OpenAIGPTLMHeadModel"]},
    "gpt1-double": GPT1 | {"architectures": ["OpenAIGPTDoubleHeadsModel"]} | ONE_LABEL,
    "gpt1-hub": GPT1
    | {"architectures": ["OpenAIGPTLMHeadModel"], "n_ctx": 512, "n_special": 0, "predict_special_tokens": True},
}


def write(directory: Path, values: dict[str, Any]) -> Path:
    (directory / "config.json").write_text(json.dumps(values))
    return directory


@pytest.mark.parametrize("name", WRITTEN_BY_V4)
def test_reads_and_writes_back_what_v4_wrote(name: str, tmp_path: Path) -> None:
    values = WRITTEN_BY_V4[name]
    config = AutoConfig.from_pretrained(write(tmp_path, values))
    assert type(config) is CONFIGS[values["model_type"]]
    assert json.loads(config.to_json_string()) == values
    config.save_pretrained(tmp_path / "new" / "directory")
    assert (tmp_path / "new" / "directory" / "config.json").read_text() == config.to_json_string()
    assert type(config).from_pretrained(tmp_path / "new" / "directory" / "config.json") == config


V5_CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "shape": {"n_layer": 3, "n_embd": 12, "n_head": 3, "n_positions": 7, "vocab_size": 11},
    "labels": {"num_labels": 3, "problem_type": "multi_label_classification"},
    "named-labels": {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}},
    "untied": {"tie_word_embeddings": False},
    "tokens": {"pad_token_id": 3, "eos_token_id": [4, 5], "bos_token_id": None},
    "dropout": {"resid_pdrop": 0.0, "embd_pdrop": 0, "attn_pdrop": 1.0, "layer_norm_epsilon": 1e-3},
    "summary": {"summary_type": "mean", "summary_activation": "tanh", "summary_proj_to_labels": False},
    "half": {"dtype": "float16"},
}


@pytest.mark.parametrize("changes", V5_CHANGES)
@pytest.mark.parametrize("family", CONFIGS)
def test_agrees_with_transformers_5(family: str, changes: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, CONFIGS[family].__name__)(**V5_CHANGES[changes])
    theirs.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    ours = AutoConfig.from_pretrained(tmp_path)
    assert written.items() <= json.loads(ours.to_json_string()).items()
    for setting in fields(ours):
        if setting.name in theirs.to_dict():
            assert getattr(ours, setting.name) == theirs.to_dict()[setting.name], setting.name
    ours.save_pretrained(tmp_path / "ours")
    assert type(theirs).from_pretrained(tmp_path / "ours").to_dict() == theirs.to_dict()


@pytest.mark.parametrize("family", CONFIGS)
def test_defaults_are_those_of_transformers_5(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, CONFIGS[family].__name__)().to_dict()
    ours = CONFIGS[family]()
    assert {name: getattr(ours, name) for name in ours.documented} == {name: theirs[name] for name in ours.documented}


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("alias", GPTConfig.aliases)
def test_alias_is_the_field(family: str, alias: str) -> None:
    value = {"torch_dtype": "float16", "_attn_implementation": "eager"}.get(alias, 24)
    name = GPTConfig.aliases[alias]
    config = CONFIGS[family].from_dict(
        {alias: value, "n_head": 3, "n_embd": 48} if alias == "n_layer" else {alias: value}
    )
    assert getattr(config, name) == value
    assert alias not in config.to_dict()
    if not alias.startswith("_"):
        assert getattr(config, alias) == value
        setattr(config, alias, None)
        assert getattr(config, name) is None


def test_alias_that_contradicts_its_field() -> None:
    with pytest.raises(ConfigError, match="n_embd: given twice, as 8 and as hidden_size=16"):
        GPT2Config(n_embd=8, hidden_size=16)
    assert GPT2Config(n_embd=24, hidden_size=24).n_embd == 24


WRONG_COUNTS = [0, -1, 10**9, "32", 2.5, 2.0, True, None, [2], {}]
WRONG = {
    **dict.fromkeys(("n_layer", "n_head", "n_embd", "n_positions", "vocab_size"), WRONG_COUNTS),
    "n_inner": [0, -1, "32", 2.5, True],
    "activation_function": ["Gelu", "glu", "", None, 1, ["gelu"]],
    "layer_norm_epsilon": [0, -1e-5, "1e-5", None, float("nan"), float("inf"), True],
    "initializer_range": [-0.1, "0.02", float("inf"), None],
    "resid_pdrop": [-0.1, 1.1, "0.1", None, True, float("nan")],
    "summary_type": ["attn", "", None, 0],
    "summary_use_proj": [0, 1, "true", None],
    "tie_word_embeddings": [0, "false", None],
    "scale_attn_weights": [1, "true", None],
    "bos_token_id": ["1", 1.0, True, [1]],
    "eos_token_id": ["1", [1, "2"], True],
    "id2label": [{"0": 1}, {"a": "b"}, ["a"], "a", {"0": "a", "2": "b"}],
    "label2id": [{"a": "b"}, {"a": 0.5}, ["a"]],
    "problem_type": ["classification", 1],
    "architectures": ["GPT2Model", [1]],
    "dtype": ["float8", "int8", 32],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_value_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        GPT2Config(**{name: value})
    assert name in str(caught.value)
    assert "expected" in str(caught.value) or "entries" in str(caught.value)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_field_is_checked(family: str) -> None:
    names = [setting.name for setting in fields(CONFIGS[family])]
    with pytest.raises(ConfigError) as caught:
        CONFIGS[family](**{name: {"?": []} for name in names})
    lines = str(caught.value).splitlines()
    assert len(lines) == len(names) + 1  # all at once
    assert all(line.startswith(f"  {name}: ") for line, name in zip(lines[1:], names, strict=True))


@pytest.mark.parametrize("name", ["activation", "n_mlp", "head_dim", "foreign", "validate", "to_dict", "_given"])
def test_foreign_field_does_not_hide_our_own_names(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        GPT2Config.from_dict({name: 1})


@pytest.mark.parametrize("family", CONFIGS)
def test_field_of_another_library_is_refused_by_name(family: str) -> None:
    names = CONFIGS[family].misnamed
    for wrong, right in names.items():
        with pytest.raises(ConfigError, match=f"{wrong}: .*called {right}"):
            CONFIGS[family](**{wrong: 1})
    assert set(MISNAMED) <= set(CONFIGS[family].misnamed)


@pytest.mark.parametrize("family", CONFIGS)
def test_foreign_field_is_kept_where_it_has_no_effect(family: str) -> None:
    for name, values in INERT.items():
        assert CONFIGS[family](**{name: values[0]}).to_dict()[name] == values[0]
        with pytest.raises(ConfigError, match=f"{name}: 'on' is not implemented"):
            CONFIGS[family](**{name: "on"})
    kept = CONFIGS[family](task_specific_params=CONVERSATION, n_ctx=7)
    assert (kept.to_dict()["task_specific_params"], kept.n_ctx) == (CONVERSATION, 7)  # type: ignore[attr-defined]


def test_fields_that_do_not_fit_together() -> None:
    with pytest.raises(ConfigError, match="n_embd: 10 is not divisible by n_head 4"):
        GPT2Config(n_embd=10, n_head=4)
    with pytest.raises(ConfigError, match="num_labels: 3, but id2label has 2 entries"):
        GPT2Config(id2label={0: "a", 1: "b"}, num_labels=3)


def test_value_set_later_is_checked_by_validate() -> None:
    config = GPT2Config()
    config.n_layer = "12"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="n_layer: '12', expected an integer"):
        config.validate()


def test_positions_of_the_documented_arguments() -> None:
    config = GPT2Config(20, 16, 8, 2, 4, 24, "relu")
    assert (config.vocab_size, config.n_positions, config.n_embd, config.n_layer, config.n_head) == (20, 16, 8, 2, 4)
    assert (config.n_inner, config.n_mlp, config.activation) == (24, 24, "relu")
    with pytest.raises(TypeError, match="at most 16 positional arguments"):
        OpenAIGPTConfig(*range(17))


def test_labels_follow_their_number() -> None:
    config = GPT2Config(num_labels=3)
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    config.num_labels = 1
    assert config.label2id == {"LABEL_0": 0}
    again = GPT2Config.from_dict(config.to_dict(), num_labels=4)
    assert (again.num_labels, len(again.label2id)) == (4, 4)
    for wrong in (-1, 10**9, "3", 2.5):
        with pytest.raises(ConfigError, match="num_labels"):
            GPT2Config(num_labels=wrong)


def test_override_wins_over_the_file_by_either_name(tmp_path: Path) -> None:
    directory = write(tmp_path, GPT2 | {"dtype": "float16"})
    for override in ({"dtype": "float32"}, {"torch_dtype": "float32"}):
        assert AutoConfig.from_pretrained(directory, **override).dtype == "float32"
    assert GPT2Config.from_pretrained(directory, n_layer=1).n_layer == 1


@pytest.mark.parametrize("dtype", [np.float32, np.dtype("float32"), "float32", "torch.float32"])
def test_dtype_of_any_library(dtype: Any) -> None:
    assert GPT2Config(dtype=dtype).dtype == "float32"


def test_activation_names_mean_the_same_function() -> None:
    assert GPT2Config().activation == OpenAIGPTConfig().activation == "gelu_tanh"
    assert GPT2Config(activation_function="gelu").activation == "gelu"  # the exact form in GPT-2, but not in GPT
    assert {OpenAIGPTConfig(afn=name).activation for name in ACTIVATIONS} == set(ACTIVATIONS.values())


def test_copies_and_equality() -> None:
    labels = {0: "a", 1: "b"}
    config = GPT2Config(id2label=labels)
    labels[0] = "changed"
    assert config.id2label[0] == "a"
    config.to_dict()["id2label"][0] = "changed"
    assert config.id2label[0] == "a"
    assert deepcopy(config) == config
    assert GPT2Config() != GPT2Config(n_layer=3)
    assert GPT2Config() != OpenAIGPTConfig()


@pytest.mark.parametrize("model_type", ["openai-gpt", "bert", None, 1, ["gpt2"], ""])
def test_other_family_is_named(model_type: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: model_type: .*expected gpt2 for GPT2Config"):
        GPT2Config.from_pretrained(write(tmp_path, GPT2 | {"model_type": model_type}))
    if model_type != "openai-gpt":
        with pytest.raises(ConfigError, match="expected one of gpt2, openai-gpt"):
            AutoConfig.from_pretrained(tmp_path)


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GPT2)
    before = (tmp_path / "config.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for directory in (tmp_path, tmp_path / "new" / "one"):
        with pytest.raises(CheckpointError, match=r"config\.json: No space left on device"):
            GPT2Config().save_pretrained(directory)
    assert (tmp_path / "config.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
