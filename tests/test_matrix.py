"""Class x framework x case against the float64 reference, and proof that the tolerance bites."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo import reference, weights
from gptzoo.config import CONFIGS, GPTConfig
from gptzoo.heads import HEADS, class_name
from gptzoo.outputs import OUTPUTS
from tests import matrix
from tests.matrix import ATTENTIONS, CASES, CLASS_IDS, CLASSES, CORE, TESTED

frameworks = pytest.mark.parametrize("framework", TESTED)
classes = pytest.mark.parametrize(("family", "head"), CLASSES, ids=CLASS_IDS)


def _calls(call: Any, case: matrix.Case, config: GPTConfig) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    past = {}
    if case.before:
        past = {"past_key_values": call(**case.before(config, rng), use_cache=True)["past_key_values"]}
    return dict(call(**case.make(config, rng), **past))


_expected: dict[Any, tuple[GPTConfig, dict[str, np.ndarray], dict[str, Any]]] = {}


def _reference(family: str, head: str, name: str) -> tuple[GPTConfig, dict[str, np.ndarray], dict[str, Any]]:
    """Config, weights and the reference's outputs of a case, computed once for all frameworks."""
    if (family, head, name) not in _expected:
        config = matrix.tiny(family, **CASES[name].config)
        values = matrix.random_weights(config, head)
        outputs = _calls(lambda **inputs: reference.forward(head, config, values, **inputs), CASES[name], config)
        _expected[family, head, name] = config, values, outputs
    return _expected[family, head, name]


MATRIX = [
    pytest.param(family, head, name, attention, id=f"{class_name(CONFIGS[family], head)}-{name}-{attention}")
    for family, head in CLASSES
    for name, case in CASES.items()
    for attention in (ATTENTIONS if head in CORE else ATTENTIONS[-1:])
    if family in case.families and head in case.heads
]


@frameworks
@pytest.mark.parametrize(("family", "head", "name", "attention"), MATRIX)
def test_outputs_match_reference(family: str, head: str, name: str, framework: str, attention: str) -> None:
    config, values, wanted = _reference(family, head, name)
    config = type(config).derive(config, attn_implementation=attention)
    runner = matrix.build(framework, config, head, values)
    outputs = _calls(runner, CASES[name], config)
    assert list(outputs) == list(wanted)
    for output, value in outputs.items():
        found, expected = matrix.leaves(runner.numpy(value)), matrix.leaves(wanted[output])
        assert len(found) == len(expected), output
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert matrix.error(a, b) <= matrix.tolerance(name), f"{output}[{i}]: {matrix.error(a, b):.1e}"


def _exact_gelu(config: GPTConfig, values: dict[str, np.ndarray]) -> dict[str, Any]:
    return {"activation_function" if config.model_type == "gpt2" else "afn": "gelu_python"}


def _wrong_epsilon(config: GPTConfig, values: dict[str, np.ndarray]) -> dict[str, Any]:
    return {"layer_norm_epsilon": 1e-6}


def _scale_missing(config: GPTConfig, values: dict[str, np.ndarray]) -> dict[str, Any]:
    for name in values:
        if "attn.c_attn" in name:  # the missing factor, put on the queries
            values[name][..., : config.n_embd] *= config.head_dim**0.5
    return {}


def _swapped_qk(config: GPTConfig, values: dict[str, np.ndarray]) -> dict[str, Any]:
    for name, value in values.items():
        if "attn.c_attn" in name:
            q, k, v = np.split(value, 3, axis=-1)
            values[name] = np.concatenate((k, q, v), axis=-1)
    return {}


def _transposed_c_proj(config: GPTConfig, values: dict[str, np.ndarray]) -> dict[str, Any]:
    for name, value in values.items():
        if name.endswith("attn.c_proj.weight"):
            values[name] = np.ascontiguousarray(value.T)
    return {}


def _swapped_norms(config: GPTConfig, values: dict[str, np.ndarray]) -> dict[str, Any]:
    for name in [name for name in values if ".ln_1." in name]:
        other = name.replace("ln_1", "ln_2")
        values[name], values[other] = values[other], values[name]
    return {}


MUTATIONS = {
    mutate.__name__.strip("_"): mutate
    for mutate in (_wrong_epsilon, _exact_gelu, _swapped_qk, _transposed_c_proj, _swapped_norms, _scale_missing)
}


@pytest.mark.parametrize("mutation", [*MUTATIONS, "mask_shifted_by_one"])
@frameworks
@classes
def test_tolerance_catches(family: str, head: str, framework: str, mutation: str) -> None:
    """The right model is within the tolerance, and each wrong one is beyond it."""
    config, values, _ = _reference(family, head, "left_padding")
    wanted = reference.forward(head, config, values, **_padded(config))
    wrong_values, wrong_inputs, overrides = {k: v.copy() for k, v in values.items()}, _padded(config), {}
    if mutation in MUTATIONS:
        overrides = MUTATIONS[mutation](config, wrong_values)
    else:
        wrong_inputs["attention_mask"] = np.roll(wrong_inputs["attention_mask"], 1, axis=1)
    right = matrix.build(framework, config, head, values)
    wrong = matrix.build(framework, type(config).derive(config, **overrides), head, wrong_values)
    assert _worst(right, right(**_padded(config)), wanted) <= matrix.TOLERANCE
    assert _worst(wrong, wrong(**wrong_inputs), wanted) > 10 * matrix.TOLERANCE


def _pooled_one_before(values: dict[str, np.ndarray], inputs: dict[str, Any]) -> None:
    inputs["attention_mask"] = inputs["attention_mask"].copy()
    inputs["attention_mask"][:, -1] = 0


def _chosen_one_before(values: dict[str, np.ndarray], inputs: dict[str, Any]) -> None:
    inputs["mc_token_ids"] = inputs["mc_token_ids"] - 1


def _without(name: str) -> Any:
    def mutate(values: dict[str, np.ndarray], inputs: dict[str, Any]) -> None:
        values[name] = np.zeros_like(values[name])

    return mutate


def _swapped_rows(name: str) -> Any:
    def mutate(values: dict[str, np.ndarray], inputs: dict[str, Any]) -> None:
        values[name] = values[name][::-1].copy()

    return mutate


def _labels_one_later(values: dict[str, np.ndarray], inputs: dict[str, Any]) -> None:
    inputs["labels"] = np.roll(inputs["labels"], 1, axis=-1)


# What can go wrong in a head alone.
HEAD_MUTATIONS = [
    ("LMHeadModel", _labels_one_later),
    ("DoubleHeadsModel", _labels_one_later),
    ("DoubleHeadsModel", _chosen_one_before),
    ("DoubleHeadsModel", _without("multiple_choice_head.summary.bias")),
    ("ForSequenceClassification", _pooled_one_before),
    ("ForSequenceClassification", _swapped_rows("score.weight")),
    ("ForSequenceClassification", _labels_one_later),
    ("ForTokenClassification", _labels_one_later),
    ("ForTokenClassification", _without("classifier.bias")),
    ("ForTokenClassification", _swapped_rows("classifier.weight")),
    ("ForQuestionAnswering", _swapped_rows("qa_outputs.weight")),
    ("ForQuestionAnswering", _without("qa_outputs.bias")),
]


@pytest.mark.parametrize(("head", "mutate"), HEAD_MUTATIONS)
@pytest.mark.parametrize("family", CONFIGS)
@frameworks
def test_tolerance_catches_in_heads(framework: str, family: str, head: str, mutate: Any) -> None:
    config = matrix.tiny(family)
    values, inputs = matrix.random_weights(config, head), _padded(config) | matrix.labels(head)
    if head == "DoubleHeadsModel":
        inputs["mc_token_ids"] = np.array([5, 6, 7])
    wanted = reference.forward(head, config, values, **inputs)
    right = matrix.build(framework, config, head, values)
    assert _worst(right, right(**inputs), wanted) <= matrix.TOLERANCE
    mutate(values, inputs)
    wrong = matrix.build(framework, config, head, values)
    assert _worst(wrong, wrong(**inputs), wanted) > 10 * matrix.TOLERANCE


def _worst(runner: Any, outputs: dict[str, Any], wanted: dict[str, Any]) -> float:
    pairs = (
        pair
        for name in wanted
        for pair in zip(matrix.leaves(runner.numpy(outputs[name])), matrix.leaves(wanted[name]), strict=True)
    )
    return max(matrix.error(found, expected) for found, expected in pairs)


def _padded(config: GPTConfig) -> dict[str, Any]:
    ids = matrix.ids(config, np.random.default_rng(0))
    positions = np.tile(np.arange(matrix.TOKENS), (matrix.BATCH, 1))  # given, so that only visibility is at stake
    inputs = {"input_ids": ids, "attention_mask": matrix.mask("left"), "position_ids": positions}
    return inputs | {"output_hidden_states": True}


@frameworks
@classes
def test_parameters_are_those_of_the_table(family: str, head: str, framework: str) -> None:
    config = matrix.tiny(family, **({"add_cross_attention": True} if family == "gpt2" else {}))
    model = matrix.build(framework, config, head).model
    specs = weights.specs(config, head)
    shapes = {name: tuple(model.get_weight(name).shape) for name in specs}
    assert shapes == {name: spec.shape for name, spec in specs.items()}
    held = {id(model.get_weight(name)) for name, spec in specs.items() if not spec.tied}
    assert held == {id(parameter) for parameter in _trainable(framework, model)}
    assert model.num_parameters() == weights.parameter_count(config, head)


def _trainable(framework: str, model: Any) -> list[Any]:
    if framework == "torch":
        return list(model.parameters())
    if framework == "keras":
        return list(model.trainable_variables)
    from flax import nnx

    return [node for _, node in nnx.iter_graph(model) if isinstance(node, nnx.Param)]


@frameworks
@classes
def test_initial_values_are_those_of_the_table(family: str, head: str, framework: str) -> None:
    config = matrix.tiny(family, tie_word_embeddings=False)
    for seed in (0, 7):
        runner = matrix.build(framework, config, head, seed=seed)
        for name, spec in weights.specs(config, head).items():
            assert np.array_equal(matrix.stored(runner, name), weights.initial_value(spec, seed)), name


@frameworks
@classes
def test_outputs_are_those_of_the_head_table(family: str, head: str, framework: str) -> None:
    """Names, order, counts and shapes; attribute, key, index and slice access; tuples; the config's own defaults."""
    has_encoder = family == "gpt2" and "encoder_hidden_states" in HEADS[head].arguments
    config = matrix.tiny(family, pad_token_id=39, **matrix.ENCODER if has_encoder else {})
    runner = matrix.build(framework, config, head)
    inputs = CASES["everything"].make(config, np.random.default_rng(0)) | matrix.labels(head)
    if has_encoder:
        inputs["encoder_hidden_states"] = np.zeros((matrix.BATCH, 4, config.n_embd), np.float32)
    native = {k: runner.to_native(v) if isinstance(v, np.ndarray) else v for k, v in inputs.items()}
    with runner.scope():
        output = runner.model(**native)
        as_tuple = runner.model(**native, return_dict=False)
    assert type(output) is OUTPUTS[head]
    expected = [one for one in HEADS[head].outputs if one.name != "cross_attentions" or has_encoder]
    assert list(output) == [one.name for one in expected]
    sizes = {"B": matrix.BATCH, "T": matrix.TOKENS, "S": matrix.TOKENS, "X": 4}
    for i, one in enumerate(expected):
        assert output[i] is output[one.name] is getattr(output, one.name)
        arrays = matrix.leaves(output[one.name])
        count = eval((one.count or "1").replace(" x ", "*"), {"n_layer": config.n_layer})
        assert len(arrays) == count, one.name
        shape = tuple(sizes.get(dim) or getattr(config, dim) for dim in one.shape.split() if dim != "C")
        assert all(tuple(array.shape) == shape for array in arrays), one.name
    assert isinstance(as_tuple, tuple)
    assert len(as_tuple) == len(expected)
    assert output[:2] == output.to_tuple()[:2]
    assert [a is b for a, b in zip(output[:2], output.to_tuple()[:2], strict=True)] == [True, True]


@frameworks
@classes
def test_config_sets_the_defaults_of_a_call(family: str, head: str, framework: str) -> None:
    every = {"use_cache": False, "output_hidden_states": True, "output_attentions": True, "return_dict": False}
    config = matrix.tiny(family, pad_token_id=39, **every)
    runner = matrix.build(framework, config, head)
    ids = runner.to_native(matrix.ids(config, np.random.default_rng(0)))
    with runner.scope():
        output = runner.model(ids)
        assert isinstance(output, tuple)
        states, attentions = output[-2:]
        assert (len(states), len(attentions)) == (config.n_layer + 1, config.n_layer)
        assert not any(isinstance(item, tuple) for item in output[:-2])
        caching = {"use_cache": True} if "past_key_values" in HEADS[head].arguments else {}
        named = runner.model(ids, **caching, output_hidden_states=False, output_attentions=False, return_dict=True)
    own = ("loss", "mc_loss", "hidden_states", "attentions", "cross_attentions")
    assert list(named) == [one.name for one in HEADS[head].outputs if one.name not in own]
