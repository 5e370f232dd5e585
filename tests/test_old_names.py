"""Code written for the original runs on its names: every documented class, called as its documentation shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gptzoo
from gptzoo import reference
from gptzoo.config import CONFIGS, GPT2Config, GPTConfig, OpenAIGPTConfig
from gptzoo.errors import ConfigError, InputError
from gptzoo.heads import HEADS, class_name, parse_class_name
from gptzoo.outputs import ModelOutput
from tests import matrix
from tests.matrix import TESTED

FRAMEWORKS = {"": "torch", "TF": "keras", "Flax": "flax"}
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

IDS = np.array([[7, 30, 2, 11, 5]])
MASK = np.ones_like(IDS)
PADDED = np.array([[0, 0, 1, 1, 1]])
CHOICES = np.array([[[7, 30, 2, 39], [7, 11, 2, 39]]])
MC_TOKENS = np.array([[3, 3]])


def prefix_of(name: str) -> str:
    return next(prefix for prefix in ("TF", "Flax", "") if name.startswith(prefix))


def with_tested(*names: str) -> list[Any]:
    """Those of some names whose framework is tested."""
    return [name for name in names if FRAMEWORKS[prefix_of(name)] in TESTED]


def old_names(framework: str) -> list[Any]:
    names = [PREFIXES[framework] + class_name(config, head) for config in CONFIGS.values() for head in HEADS]
    return names if framework in TESTED else []


def saved(name: str, path: Path, **changes: Any) -> tuple[GPTConfig, str, dict[str, np.ndarray]]:
    """Writes a tiny checkpoint for a class; returns what the reference needs."""
    config_class, head = parse_class_name(name)
    config = matrix.tiny(config_class.model_type, **changes)
    values = matrix.random_weights(config, head)
    matrix.build(FRAMEWORKS[prefix_of(name)], config, head, values).model.save_pretrained(path)
    return config, head, values


def native(name: str, **arrays: Any) -> dict[str, Any]:
    """Arrays as the framework's users have them: Flax' tokenizers return NumPy's."""
    framework = FRAMEWORKS[prefix_of(name)]
    if framework == "torch":
        import torch

        return {key: torch.tensor(array) for key, array in arrays.items()}
    if framework == "keras":
        from keras import ops

        return {key: ops.convert_to_tensor(array) for key, array in arrays.items()}
    return arrays


def numpy(value: Any) -> np.ndarray:
    return value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)


def agrees(found: Any, wanted: Any) -> bool:
    return matrix.error(numpy(found), wanted) <= matrix.TOLERANCE


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


tensorflow = pytest.mark.skipif(
    "keras" not in TESTED or os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow",
    reason="Keras on TensorFlow is not tested",
)

# Positional arguments as TensorFlow's calls had them, up to the last that a test can tell apart.
TF_ORDERS = {
    "TFGPT2Model": ("input_ids", "past_key_values", "attention_mask", "token_type_ids", "position_ids"),
    "TFOpenAIGPTModel": ("input_ids", "attention_mask", "token_type_ids", "position_ids"),
    "TFOpenAIGPTDoubleHeadsModel": ("input_ids", "attention_mask", "token_type_ids", "position_ids"),
    "TFOpenAIGPTForTokenClassification": ("input_ids", "attention_mask", "token_type_ids", "position_ids"),
}
FLAGS = ("output_attentions", "output_hidden_states", "return_dict")
TF_ENDS = {
    "TFGPT2LMHeadModel": ("encoder_attention_mask", "use_cache", *FLAGS, "labels", "training"),
    "TFGPT2DoubleHeadsModel": ("inputs_embeds", "mc_token_ids", "use_cache", *FLAGS, "labels", "mc_labels", "training"),
    "TFGPT2ForSequenceClassification": ("inputs_embeds", "use_cache", *FLAGS, "labels", "training"),
    "TFOpenAIGPTModel": ("inputs_embeds", *FLAGS, "training"),
    "TFOpenAIGPTLMHeadModel": ("inputs_embeds", *FLAGS, "labels", "training"),
    "TFOpenAIGPTDoubleHeadsModel": ("inputs_embeds", "mc_token_ids", *FLAGS, "labels", "mc_labels", "training"),
}


@pytest.mark.parametrize("name", with_tested(*TF_ORDERS))
def test_tf_positional_arguments(name: str) -> None:
    config_class, _ = parse_class_name(name)
    model = getattr(gptzoo, name)(matrix.tiny(config_class.model_type))
    arrays = {"input_ids": IDS, "attention_mask": PADDED, "token_type_ids": IDS % 2, "position_ids": IDS % 7}
    for count in range(2, len(TF_ORDERS[name]) + 1):
        given = {key: arrays.get(key) for key in TF_ORDERS[name][:count]}
        assert agrees(model(*given.values())[0], numpy(model(**given)[0]))


@pytest.mark.parametrize("name", with_tested(*TF_ENDS))
def test_tf_order_to_its_end(name: str) -> None:
    config_class, _ = parse_class_name(name)
    model = getattr(gptzoo, name)(matrix.tiny(config_class.model_type))
    assert model.call_order[-len(TF_ENDS[name]) :] == TF_ENDS[name]
    with pytest.raises(InputError, match=f"{len(model.call_order) + 1} positional arguments, expected at most"):
        model(*[None] * (len(model.call_order) + 1))
    with pytest.raises(InputError, match="given twice: input_ids"):
        model(IDS, input_ids=IDS)


@pytest.mark.parametrize("name", with_tested("TFGPT2LMHeadModel", "TFOpenAIGPTLMHeadModel"))
def test_tf_packed_inputs(name: str) -> None:
    """A dict, and a list whose second entry is the mask in both families, as the documentation says."""
    config_class, _ = parse_class_name(name)
    model = getattr(gptzoo, name)(matrix.tiny(config_class.model_type))
    wanted = numpy(model(input_ids=IDS, attention_mask=PADDED).logits)
    unmasked = numpy(model(IDS).logits)
    assert matrix.error(unmasked, wanted) > 1e-3
    for packed in ({"input_ids": IDS, "attention_mask": PADDED}, [IDS, PADDED], (IDS, PADDED)):
        assert agrees(model(packed).logits, wanted)
    with pytest.raises(gptzoo.InputError, match="None in a list of arrays"):
        model([IDS, None, PADDED])  # a mask or token types, by whose order?


@tensorflow
def test_tf_scalar_label_of_the_documentation() -> None:
    import tensorflow as tf

    model = gptzoo.TFGPT2ForSequenceClassification(matrix.tiny("gpt2"))
    assert agrees(model(IDS, labels=tf.constant(1)).loss, numpy(model(IDS, labels=tf.constant([1])).loss))


LOADER = """
import sys
import numpy as np
import tensorflow as tf

inputs = dict(np.load("inputs.npz"))
for path in sys.argv[1:]:
    loaded = tf.saved_model.load(path)
    for name, signature in loaded.signatures.items():
        specs = signature.structured_input_signature[1]
        prefix = "choices_" if "mc_token_ids" in specs else ""
        arrays = {key: tf.constant(inputs[prefix + key], spec.dtype) for key, spec in specs.items()}
        outputs = signature(**arrays)
        np.savez(f"{path}-{name}.npz", **{key: value.numpy() for key, value in outputs.items()})
assert "gptzoo" not in sys.modules
"""


@tensorflow
def test_tf_models_are_served_without_gptzoo(tmp_path: Path) -> None:
    """Every way to a SavedModel gives one that takes and returns arrays by name, of any size, like the reference."""
    import tensorflow as tf

    lm, gpt = "TFGPT2LMHeadModel", "TFOpenAIGPTDoubleHeadsModel"
    wanted: dict[str, dict[str, np.ndarray]] = {}
    masks = {"input_ids": np.concatenate((IDS, IDS[:, ::-1])), "attention_mask": np.concatenate((PADDED, MASK))}
    choices = {"input_ids": CHOICES, "mc_token_ids": np.array([[3, 1]])}
    choices["attention_mask"] = np.array([[[0, 1, 1, 1], [1, 1, 1, 0]]])
    models: dict[str, Any] = {}
    for name, arrays in ((lm, masks), (gpt, choices)):
        config, head, values = saved(name, tmp_path / name)
        models[name] = getattr(gptzoo, name).from_pretrained(tmp_path / name)
        wanted[name] = reference.forward(head, config, values, **arrays)
    model = models[lm]
    model.save_pretrained(tmp_path / "saved", saved_model=True, version=2)
    model.export(tmp_path / "exported", verbose=False)
    tf.saved_model.save(model, str(tmp_path / "served"), signatures=model.serving)
    concrete = model.serving.get_concrete_function(model.input_signature)
    tf.saved_model.save(model, str(tmp_path / "concrete"), signatures={"serving_default": concrete})
    models[gpt].export(tmp_path / "choices", verbose=False)
    np.savez(tmp_path / "inputs.npz", **masks, **{f"choices_{key}": array for key, array in choices.items()})
    paths = {"saved/saved_model/2": lm, "exported": lm, "served": lm, "concrete": lm, "choices": gpt}
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", LOADER, *paths], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    for path, name in paths.items():
        outputs = np.load(tmp_path / f"{path}-serving_default.npz")
        assert set(outputs) == set(wanted[name])
        for key in set(outputs) - {"past_key_values"}:
            assert agrees(outputs[key], wanted[name][key])
        assert agrees(outputs["past_key_values"], np.asarray(wanted[name]["past_key_values"]))
    wide = np.load(tmp_path / "saved/saved_model/2-int64_serving.npz")
    assert agrees(wide["logits"], wanted[lm]["logits"])


@tensorflow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of how Keras calls NumPy
def test_tf_models_are_trained_on_labels_in_a_dict() -> None:
    """`compile` without a loss, and `fit` on a dict with labels in it."""
    import keras

    model = gptzoo.TFOpenAIGPTLMHeadModel(matrix.tiny("openai-gpt"))
    model.compile(keras.optimizers.Adam(1e-2))
    ids = np.repeat(IDS, 4, axis=0)
    history = model.fit({"input_ids": ids, "labels": ids}, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]


@tensorflow
def test_tf_signatures_name_their_arrays() -> None:
    import tensorflow as tf

    for config in (matrix.tiny("gpt2"), matrix.tiny("openai-gpt")):
        for head in HEADS:
            signature = getattr(gptzoo, "TF" + class_name(config, head))(config, seed=None).input_signature
            axes = 3 if head == "DoubleHeadsModel" else 2
            names = {"input_ids": axes, "attention_mask": axes} | ({"mc_token_ids": 2} if axes == 3 else {})
            assert signature == {key: tf.TensorSpec([None] * n, "int32", key) for key, n in names.items()}


@tensorflow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of how Keras calls NumPy
def test_tf_models_in_keras_own_files(tmp_path: Path) -> None:
    import keras

    model = gptzoo.TFOpenAIGPTForQuestionAnswering(matrix.tiny("openai-gpt"), seed=5)
    wanted = numpy(model(IDS).start_logits)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is gptzoo.TFOpenAIGPTForQuestionAnswering
    assert agrees(loaded(IDS).start_logits, wanted)


@tensorflow
def test_tf_main_layer_is_what_a_head_stands_on() -> None:
    for config, layer in (
        (matrix.tiny("gpt2"), gptzoo.TFGPT2MainLayer),
        (matrix.tiny("openai-gpt"), gptzoo.TFOpenAIGPTMainLayer),
    ):
        model = getattr(gptzoo, "TF" + class_name(config, "LMHeadModel"))(config)
        assert isinstance(model.transformer, layer)
        assert agrees(layer(config)(IDS)[0], numpy(model.transformer(IDS)[0]))


@pytest.mark.parametrize("name", with_tested("TFGPT2Model", "FlaxGPT2Model"))
def test_nothing_is_uploaded(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="push_to_hub"):
        getattr(gptzoo, name)(matrix.tiny("gpt2")).save_pretrained(tmp_path, push_to_hub=True)


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
    assert gptzoo.AutoConfig.for_model("gpt2") is GPT2Config


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


@pytest.mark.parametrize("name", with_tested("TFGPT2LMHeadModel", "TFOpenAIGPTLMHeadModel"))
def test_tf_honours_untied_heads_and_the_activation(name: str, tmp_path: Path) -> None:
    config_class, head = parse_class_name(name)
    activation = "activation_function" if config_class is GPT2Config else "afn"
    config, head, values = saved(name, tmp_path, tie_word_embeddings=False, **{activation: "relu"})
    model = getattr(gptzoo, name).from_pretrained(tmp_path)
    found = model(IDS, head_mask=np.array([1.0, 0.0, 1.0], np.float32)).logits
    heads = np.array([1.0, 0.0, 1.0])
    assert agrees(found, reference.forward(head, config, values, input_ids=IDS, head_mask=heads)["logits"])


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


def test_guide_names_what_is_there() -> None:
    text = (Path(__file__).parent.parent / "docs" / "migration.md").read_text()
    plain = [name for name in gptzoo._MODELS if name.startswith("GPT2")]
    outputs = [name for name in gptzoo._NAMES["gptzoo.outputs"] if prefix_of(name) == "" and name != "ModelOutput"]
    for name in (*plain, *gptzoo._AUTO, *gptzoo._BASES, *outputs, "TFGPT2MainLayer", "TFOpenAIGPTMainLayer"):
        assert f"`{name}`" in text, name
