"""Code written for the original runs on its names: every documented class, called as its documentation shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gptzoo
from gptzoo import reference
from gptzoo.config import CONFIGS, GPT2Config, OpenAIGPTConfig
from gptzoo.errors import ConfigError, InputError
from gptzoo.heads import HEADS, class_name, parse_class_name
from gptzoo.outputs import ModelOutput
from tests import matrix
from tests.matrix import TESTED
from tests.old import CHOICES, FRAMEWORKS, IDS, MASK, PADDED, agrees, native, numpy, prefix_of, saved, with_tested

PREFIXES = {framework: prefix for prefix, framework in FRAMEWORKS.items()}

# The models in the documentation of GPT and GPT-2 -> what their calls return.
DOCUMENTED = {
    "GPT2Model": "BaseModelOutputWithPastAndCrossAttentions",
    "GPT2LMHeadModel": "CausalLMOutputWithCrossAttentions",
    "GPT2DoubleHeadsModel": "GPT2DoubleHeadsModelOutput",
    "GPT2ForQuestionAnswering": "QuestionAnsweringModelOutput",
    "GPT2ForSequenceClassification": "SequenceClassifierOutputWithPast",
    "GPT2ForTokenClassification": "TokenClassifierOutput",
    "TFGPT2Model": "TFBaseModelOutputWithPastAndCrossAttentions",
    "TFGPT2LMHeadModel": "TFCausalLMOutputWithCrossAttentions",
    "TFGPT2DoubleHeadsModel": "TFGPT2DoubleHeadsModelOutput",
    "TFGPT2ForSequenceClassification": "TFSequenceClassifierOutputWithPast",
    "FlaxGPT2Model": "FlaxBaseModelOutputWithPastAndCrossAttentions",
    "FlaxGPT2LMHeadModel": "FlaxCausalLMOutputWithCrossAttentions",
    "OpenAIGPTModel": "BaseModelOutput",
    "OpenAIGPTLMHeadModel": "CausalLMOutput",
    "OpenAIGPTDoubleHeadsModel": "OpenAIGPTDoubleHeadsModelOutput",
    "OpenAIGPTForSequenceClassification": "SequenceClassifierOutput",
    "TFOpenAIGPTModel": "TFBaseModelOutput",
    "TFOpenAIGPTLMHeadModel": "TFCausalLMOutput",
    "TFOpenAIGPTDoubleHeadsModel": "TFOpenAIGPTDoubleHeadsModelOutput",
    "TFOpenAIGPTForSequenceClassification": "TFSequenceClassifierOutput",
}

MC_TOKENS = np.array([[3, 3]])


def old_names(framework: str) -> list[Any]:
    names = [PREFIXES[framework] + class_name(config, head) for config in CONFIGS.values() for head in HEADS]
    return names if framework in TESTED else []


@pytest.mark.parametrize("name", with_tested(*DOCUMENTED))
def test_documented_usage_runs(name: str, tmp_path: Path) -> None:
    """from_pretrained, the call of the documentation's example, its output's class, names and first entries."""
    config, head, values = saved(name, tmp_path)
    model = getattr(gptzoo, name).from_pretrained(tmp_path)
    if head == "DoubleHeadsModel":
        arrays = {"input_ids": CHOICES, "mc_token_ids": MC_TOKENS}
    else:
        arrays = {"input_ids": IDS, "attention_mask": MASK}
    inputs = native(name, **arrays)
    outputs = model(inputs) if prefix_of(name) == "TF" else model(**inputs)
    assert isinstance(outputs, getattr(gptzoo, DOCUMENTED[name]))
    wanted = reference.forward(head, config, values, **arrays, use_cache=False)
    for i, (key, value) in enumerate(wanted.items()):
        assert agrees(getattr(outputs, key), value)
        assert outputs[i] is outputs[key]
        assert outputs[: i + 1][i] is outputs[key]
    labelled = {
        "LMHeadModel": {"labels": IDS},
        "ForSequenceClassification": {"labels": np.array([1])},
        "ForTokenClassification": {"labels": np.array([[0, 1, 1, 0, 1]])},
        "ForQuestionAnswering": {"start_positions": np.array([1]), "end_positions": np.array([3])},
    }
    if head in labelled:
        loss = model(**inputs, **native(name, **labelled[head])).loss
        assert agrees(loss, reference.forward(head, config, values, **arrays, **labelled[head])["loss"])


@pytest.mark.parametrize("name", [name for framework in FRAMEWORKS.values() for name in old_names(framework)])
def test_every_head_and_family_has_the_name(name: str, tmp_path: Path) -> None:
    """36 names, also where the original had none: instances of the plain class and of the old bases."""
    config, head, values = saved(name, tmp_path / "plain", pad_token_id=0)
    prefix, family = prefix_of(name), config.class_prefix
    cls = getattr(gptzoo, name)
    model = cls.from_pretrained(tmp_path / "plain")
    assert type(model) is cls
    assert isinstance(model, matrix.model_class(FRAMEWORKS[prefix], config, head))
    other = "GPT2" if family == "OpenAIGPT" else "OpenAIGPT"
    assert isinstance(model, getattr(gptzoo, f"{prefix}PreTrainedModel"))
    assert isinstance(model, getattr(gptzoo, f"{prefix}{family}PreTrainedModel"))
    assert not isinstance(model, getattr(gptzoo, f"{prefix}{other}PreTrainedModel"))
    model.save_pretrained(tmp_path / "old")
    assert cls.from_pretrained(tmp_path / "old").config.architectures == [class_name(config, head)]
    again = matrix.model_class(FRAMEWORKS[prefix], config, head).from_pretrained(tmp_path / "old")
    runner = matrix.runner_of(FRAMEWORKS[prefix], again)
    for weight, value in values.items():
        assert (matrix.stored(runner, weight) == value).all()
    assert type(cls(config).config) is type(config)


@pytest.mark.parametrize("name", with_tested("GPT2LMHeadModel", "TFGPT2LMHeadModel", "FlaxGPT2LMHeadModel"))
def test_load_flags_of_the_original(name: str, tmp_path: Path) -> None:
    """Those that name a format or a way to load change nothing, and are not kept as fields of the config."""
    config, head, values = saved(name, tmp_path)
    flags = {"from_pt": True, "from_tf": True, "from_flax": True, "use_safetensors": True, "low_cpu_mem_usage": True}
    model = getattr(gptzoo, name).from_pretrained(tmp_path, **flags, cache_dir="x", trust_remote_code=True)
    assert agrees(
        model(**native(name, input_ids=IDS)).logits, reference.forward(head, config, values, input_ids=IDS)["logits"]
    )
    assert not set(flags) & set(model.config.to_dict())
    with pytest.raises(ConfigError, match="load_in_8bit"):
        getattr(gptzoo, name).from_pretrained(tmp_path, load_in_8bit=True)


def test_outputs_of_one_head_are_one_class() -> None:
    for name in gptzoo._NAMES["gptzoo.outputs"]:
        assert issubclass(getattr(gptzoo, name), ModelOutput)
    assert (
        gptzoo.TFCausalLMOutput
        is gptzoo.CausalLMOutputWithCrossAttentions
        is gptzoo.FlaxCausalLMOutputWithCrossAttentions
    )
    assert set(DOCUMENTED.values()) <= set(gptzoo._NAMES["gptzoo.outputs"])


if "torch" in TESTED:

    def test_base_class_of_torch_carries_heads_of_ones_own() -> None:
        import torch

        class Ranker(gptzoo.GPT2PreTrainedModel):
            def __init__(self, config: GPT2Config):
                super().__init__(config)
                self.transformer = gptzoo.GPT2Model(config)
                self.rank = torch.nn.Linear(config.n_embd, 1)

            def forward(self, input_ids: Any) -> Any:
                return self.rank(self.transformer(input_ids).last_hidden_state)

        ranker = Ranker(matrix.tiny("gpt2"))
        assert ranker(torch.tensor(IDS)).shape == (1, 5, 1)
        assert isinstance(ranker, gptzoo.GPT2PreTrainedModel)
        assert not isinstance(ranker, gptzoo.OpenAIGPTPreTrainedModel)
        with pytest.raises(ConfigError, match="needs a GPT2Config"):
            Ranker(matrix.tiny("openai-gpt"))

    def test_gpt_in_torch_says_that_its_second_argument_is_the_cache() -> None:
        import torch

        model = gptzoo.OpenAIGPTLMHeadModel(matrix.tiny("openai-gpt"))
        with pytest.raises(InputError, match="give attention_mask by its name"):
            model(torch.tensor(IDS), torch.tensor(MASK))


@pytest.mark.parametrize("name", with_tested("TFGPT2Model", "FlaxGPT2Model"))
def test_nothing_is_uploaded(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="push_to_hub"):
        getattr(gptzoo, name)(matrix.tiny("gpt2")).save_pretrained(tmp_path, push_to_hub=True)


@pytest.mark.parametrize("name", with_tested("TFGPT2LMHeadModel", "TFOpenAIGPTLMHeadModel", "FlaxGPT2LMHeadModel"))
def test_completion_by_an_old_name(name: str) -> None:
    """generate calls the model itself, whatever the order of its arguments."""
    config_class, _ = parse_class_name(name)
    config = matrix.tiny(config_class.model_type, eos_token_id=None)
    framework = FRAMEWORKS[prefix_of(name)]
    plain = matrix.build(framework, config, "LMHeadModel", seed=2)
    old = matrix.runner_of(framework, getattr(gptzoo, name)(config, seed=2))
    found = old.generate(IDS, max_new_tokens=4, attention_mask=old.to_native(PADDED))
    assert (found == plain.generate(IDS, max_new_tokens=4, attention_mask=plain.to_native(PADDED))).all()


def test_config_names_are_there() -> None:
    assert (gptzoo.GPT2Config, gptzoo.OpenAIGPTConfig) == (GPT2Config, OpenAIGPTConfig)
    assert gptzoo.AutoConfig.for_model("gpt2", n_layer=3) == GPT2Config(n_layer=3)


# What docs/migration.md says of the old names, where no other test has looked.


doubles = pytest.mark.parametrize(
    "name",
    with_tested(
        *(f"{prefix}{family}DoubleHeadsModel" for prefix in FRAMEWORKS for family in ("GPT2", "OpenAIGPT")),
    ),
)


@doubles
def test_double_heads_leave_the_config_and_take_the_last_real_token(name: str) -> None:
    config_class, _ = parse_class_name(name)
    config = matrix.tiny(config_class.model_type, num_labels=4)
    model = getattr(gptzoo, name)(config)
    assert config.num_labels == model.config.num_labels == 4
    if prefix_of(name) == "":
        model.eval()
    mask = np.array([[[1, 1, 1, 0], [1, 1, 0, 0]]])
    by_default = model(**native(name, input_ids=CHOICES, attention_mask=mask)).mc_logits
    last = native(name, input_ids=CHOICES, attention_mask=mask, mc_token_ids=np.array([[2, 1]]))
    assert agrees(by_default, numpy(model(**last).mc_logits))
    assert matrix.error(numpy(model(**native(name, input_ids=CHOICES)).mc_logits), numpy(by_default)) > 1e-4


@doubles
def test_double_heads_example_adds_a_token(name: str) -> None:
    """The documentation's example resizes the embeddings for [CLS], and points at it."""
    config_class, _ = parse_class_name(name)
    model = getattr(gptzoo, name)(matrix.tiny(config_class.model_type))
    if prefix_of(name) == "":
        model.eval()
    before = model(**native(name, input_ids=CHOICES)).logits
    model.resize_token_embeddings(41)
    after = model(**native(name, input_ids=CHOICES, mc_token_ids=MC_TOKENS)).logits
    assert agrees(numpy(after)[..., :40], numpy(before))
    lm_scores, mc_scores = model(**native(name, input_ids=np.where(CHOICES == 39, 40, CHOICES)))[:2]
    assert (tuple(lm_scores.shape), tuple(mc_scores.shape)) == ((1, 2, 4, 41), (1, 2))


@doubles
def test_double_heads_losses_are_the_first_outputs(name: str) -> None:
    config_class, _ = parse_class_name(name)
    model = getattr(gptzoo, name)(matrix.tiny(config_class.model_type))
    output = model(**native(name, input_ids=CHOICES, labels=CHOICES, mc_labels=np.array([1])))
    assert list(output)[:4] == ["loss", "mc_loss", "logits", "mc_logits"]
    assert output[0] is output.loss
    assert output.loss.shape == output.mc_loss.shape == ()


@doubles
def test_double_heads_take_choices_in_every_argument(name: str) -> None:
    config_class, _ = parse_class_name(name)
    model = getattr(gptzoo, name)(matrix.tiny(config_class.model_type))
    if prefix_of(name) == "":
        model.eval()
    family = "wte" if config_class is GPT2Config else "tokens_embed"
    table = matrix.stored(matrix.runner_of(FRAMEWORKS[prefix_of(name)], model), f"transformer.{family}.weight")
    arrays = {
        "attention_mask": np.array([[[1, 1, 1, 0], [0, 1, 1, 1]]]),
        "position_ids": np.array([[[3, 4, 5, 6]] * 2]),
    }
    arrays["mc_token_ids"] = MC_TOKENS
    by_ids = model(**native(name, input_ids=CHOICES, **arrays))
    by_embeds = model(**native(name, inputs_embeds=table[CHOICES], **arrays))
    assert agrees(by_embeds.logits, numpy(by_ids.logits))
    assert agrees(by_embeds.mc_logits, numpy(by_ids.mc_logits))


@pytest.mark.parametrize("name", with_tested("OpenAIGPTModel", "TFOpenAIGPTModel"))
def test_gpt_has_a_cache_before_its_hidden_states(name: str) -> None:
    model = getattr(gptzoo, name)(matrix.tiny("openai-gpt"))
    inputs = native(name, input_ids=IDS)
    output = model(**inputs, output_hidden_states=True, return_dict=False)
    assert (len(output[1]), len(output[1][0]), tuple(output[1][0][0].shape)) == (2, 2, (1, 3, 5, 8))
    assert len(model(**inputs, output_hidden_states=True, return_dict=False, use_cache=False)[1]) == 3


@pytest.mark.parametrize("name", with_tested("GPT2LMHeadModel", "TFGPT2LMHeadModel", "FlaxGPT2LMHeadModel"))
def test_cache_objects_of_transformers_are_refused(name: str) -> None:
    from transformers import DynamicCache

    with pytest.raises(InputError, match="past_key_values: a DynamicCache, expected 2 pairs"):
        getattr(gptzoo, name)(matrix.tiny("gpt2"))(**native(name, input_ids=IDS), past_key_values=DynamicCache())


def test_initial_weights_are_the_same_numbers_everywhere() -> None:
    config = matrix.tiny("gpt2")
    models = {prefix: getattr(gptzoo, f"{prefix}GPT2LMHeadModel")(config, seed=9) for prefix in with_prefixes()}
    for weight in matrix.random_weights(config, "LMHeadModel"):
        found = [matrix.stored(matrix.runner_of(FRAMEWORKS[prefix], model), weight) for prefix, model in models.items()]
        assert all((value == found[0]).all() for value in found)


def with_prefixes() -> list[str]:
    return [prefix for prefix, framework in FRAMEWORKS.items() if framework in TESTED]


@pytest.mark.parametrize("prefix", with_prefixes())
def test_weights_keep_their_dtype(prefix: str, tmp_path: Path) -> None:
    config = matrix.tiny("gpt2", dtype="bfloat16")
    getattr(gptzoo, f"{prefix}GPT2Model")(config).save_pretrained(tmp_path)
    cls = getattr(gptzoo, f"{prefix}GPT2Model")
    assert "bfloat16" in str(cls.from_pretrained(tmp_path).get_weight("wte.weight").dtype)
    if prefix != "Flax":  # where dtype is that of the computation
        assert "float32" in str(cls.from_pretrained(tmp_path, dtype="float32").get_weight("wte.weight").dtype)


def test_guide_names_what_is_there() -> None:
    text = (Path(__file__).parent.parent / "docs" / "migration.md").read_text()
    plain = [name for name in gptzoo._MODELS if name.startswith("GPT2")]
    outputs = [name for name in gptzoo._NAMES["gptzoo.outputs"] if prefix_of(name) == "" and name != "ModelOutput"]
    for name in (*plain, *gptzoo._AUTO, *gptzoo._BASES, *outputs, "TFGPT2MainLayer", "TFOpenAIGPTMainLayer"):
        assert f"`{name}`" in text, name
