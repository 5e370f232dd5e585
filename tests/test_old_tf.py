"""The original's TensorFlow names: argument orders, packed inputs, SavedModels and Keras' own files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gptzoo
from gptzoo import reference
from gptzoo.config import GPT2Config
from gptzoo.errors import InputError
from gptzoo.heads import HEADS, class_name, parse_class_name
from tests import matrix
from tests.matrix import TESTED
from tests.old import CHOICES, IDS, MASK, PADDED, agrees, numpy, saved, with_tested

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


# What docs/migration.md says of the old names, where no other test has looked.


@pytest.mark.parametrize("name", with_tested("TFGPT2LMHeadModel", "TFOpenAIGPTLMHeadModel"))
def test_tf_honours_untied_heads_and_the_activation(name: str, tmp_path: Path) -> None:
    config_class, head = parse_class_name(name)
    activation = "activation_function" if config_class is GPT2Config else "afn"
    config, head, values = saved(name, tmp_path, tie_word_embeddings=False, **{activation: "relu"})
    model = getattr(gptzoo, name).from_pretrained(tmp_path)
    found = model(IDS, head_mask=np.array([1.0, 0.0, 1.0], np.float32)).logits
    heads = np.array([1.0, 0.0, 1.0])
    assert agrees(found, reference.forward(head, config, values, input_ids=IDS, head_mask=heads)["logits"])
