"""Gradients and optimizer steps: the same in every framework, and those of the reference's loss.

PyTorch's twin in float64 stands for the truth, after its own gradients are checked against differences of the
reference's losses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo import reference, weights
from gptzoo.config import CONFIGS, GPTConfig
from gptzoo.heads import HEADS, class_name
from tests import matrix
from tests.matrix import TESTED

B, C, T = 2, 2, 6
TOLERANCE = 1e-5  # of float32, as part of the largest value of each weight's gradient
ZERO = 1e-12  # what float64 leaves of it
# Head -> weights that raise all scores of a softmax alike, which changes no loss.
NO_SLOPE = {
    "DoubleHeadsModel": {"multiple_choice_head.summary.bias"},
    "ForQuestionAnswering": {"qa_outputs.bias", "transformer.ln_f.bias", "transformer.h.1.ln_2.bias"},
}

# Name of a model -> its family, its head, and what its config has beside the tiny one's.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    class_name(CONFIGS[family], head): (family, head, {}) for family in CONFIGS for head in HEADS
} | {
    "untied": ("gpt2", "LMHeadModel", {"tie_word_embeddings": False}),
    "cross_attention": ("gpt2", "LMHeadModel", {"add_cross_attention": True}),
    "eager": ("gpt2", "LMHeadModel", {"attn_implementation": "eager"}),
    "scales": ("gpt2", "Model", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    "prelu": ("gpt2", "LMHeadModel", {"activation_function": "prelu"}),
    "xielu": ("openai-gpt", "LMHeadModel", {"afn": "xielu"}),
    "regression": ("gpt2", "ForSequenceClassification", {"problem_type": "regression"}),
    "summary": ("openai-gpt", "DoubleHeadsModel", {"summary_type": "mean", "summary_activation": "tanh"}),
}
TRAINED = [name for name, (_, head, _) in MODELS.items() if head != "Model"]  # which has no loss

frameworks = pytest.mark.parametrize("framework", TESTED)
models = pytest.mark.parametrize("name", MODELS)
needs_judge = pytest.mark.skipif("torch" not in TESTED, reason="the judge is PyTorch in float64")

OFF = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop", "summary_first_dropout", "classifier_dropout"), 0.0)
# Epsilon is large: a small one makes steps of the full learning rate of gradients that are rounding errors, such as
# those of the biases of keys, which are 0 in exact arithmetic.
ADAMW = {"learning_rate": 1e-2, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-2, "weight_decay": 0.1}


def setting(name: str, **more: Any) -> tuple[str, GPTConfig, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The head of a model, its config, weights and inputs, labels among them."""
    family, head, fields = MODELS[name]
    given = {"vocab_size": 20, "n_positions": 8, "n_embd": 12, **OFF, **fields, **more}
    if head not in ("ForTokenClassification",):
        given.pop("classifier_dropout")
    config = matrix.tiny(family, **given)
    return head, config, matrix.random_weights(config, head), inputs_of(head, config)


def inputs_of(head: str, config: GPTConfig) -> dict[str, np.ndarray]:
    """Padded rows; some labels are not counted."""
    rng = np.random.default_rng(3)
    shape = (B, C, T) if head == "DoubleHeadsModel" else (B, T)
    mask = np.ones(shape, int)
    mask[0, ..., -2:] = 0
    ids = rng.integers(0, config.vocab_size, shape)
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": rng.integers(0, 2, shape)}
    if config.add_cross_attention:
        inputs["encoder_hidden_states"] = rng.standard_normal((B, 3, config.n_embd)).astype(np.float32)
    if head in weights.LM:
        inputs["labels"] = np.where(mask == 1, ids, -100)
    if head == "DoubleHeadsModel":
        inputs |= {"mc_labels": np.array([1, 0]), "mc_token_ids": np.array([[3, 2], [5, 1]])}
    if head == "ForTokenClassification":
        inputs["labels"] = np.where(mask == 1, rng.integers(0, config.num_labels, shape), -100)
    if head == "ForSequenceClassification":
        regression = config.problem_type == "regression"
        inputs["labels"] = rng.standard_normal((B, 2)).astype(np.float32) if regression else np.array([1, 0])
    if head == "ForQuestionAnswering":
        inputs |= {"start_positions": np.array([1, 2]), "end_positions": np.array([3, 9])}  # 9 is not counted
    return inputs


def loss_of(head: str, output: Any, probe: Any) -> Any:
    """The sum of the losses; of the bare model, the product of its states with a fixed array."""
    if head == "Model":
        return (output["last_hidden_state"] * probe).sum()
    return sum(output[name] for name in HEADS[head].losses)


def probe_of(config: GPTConfig) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((B, T, config.n_embd)).astype(np.float32)


def gradients(framework: str, name: str, **more: Any) -> dict[str, np.ndarray]:
    """The gradient of the loss in every weight that is not tied, by canonical name."""
    head, config, values, inputs = setting(name, **more)
    runner = matrix.build(framework, config, head, values)
    native = {key: runner.to_native(x) for key, x in inputs.items()}
    names = [key for key, spec in weights.specs(config, head).items() if not spec.tied]
    found = globals()[f"_{framework}"](runner, head, native, names, runner.to_native(probe_of(config)))
    return {key: np.asarray(x, np.float64) for key, x in zip(names, found, strict=True)}


def _torch(runner: Any, head: str, inputs: dict[str, Any], names: list[str], probe: Any) -> list[Any]:
    import torch

    loss = loss_of(head, runner.model(**inputs), probe)
    found = torch.autograd.grad(loss, [runner.model.get_weight(name) for name in names])
    return [runner.numpy(x) for x in found]


def _keras(runner: Any, head: str, inputs: dict[str, Any], names: list[str], probe: Any) -> list[Any]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        output = runner.model(**inputs)
        loss = tf.reduce_sum(output[0] * probe) if head == "Model" else loss_of(head, output, probe)
    found = tape.gradient(loss, [runner.model.get_weight(name).value for name in names])
    return [tf.convert_to_tensor(x).numpy() for x in found]  # of an embedding it is sparse


def _flax(runner: Any, head: str, inputs: dict[str, Any], names: list[str], probe: Any) -> list[Any]:
    import jax

    with runner.scope():
        found = jax.grad(lambda params: loss_of(head, runner.model(**inputs, params=params), probe))(
            runner.model.params
        )
    flat = {".".join(key.key for key in path): x for path, x in jax.tree_util.tree_leaves_with_path(found)}
    return [flat[name] for name in names]


def judge(name: str, **more: Any) -> dict[str, np.ndarray]:
    return gradients("torch", name, dtype="float64", **more)


def worst(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> tuple[float, str]:
    assert found.keys() == wanted.keys()
    return max((error(found[key], wanted[key]), key) for key in wanted)


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of the largest value; as it is where the true values are zeros and only rounding is left of them."""
    return matrix.error(found, wanted) if np.abs(wanted).max() > ZERO else float(np.abs(found - wanted).max())


@needs_judge
@models
def test_judge_is_the_slope_of_the_reference(name: str) -> None:
    """Central differences of the reference's loss along random directions in the space of all weights."""
    head, config, values, inputs = setting(name)
    exact = {key: value.astype(np.float64) for key, value in values.items()}
    slopes, rng, step = judge(name), np.random.default_rng(7), 1e-6
    length = np.sqrt(sum((x**2).sum() for x in slopes.values()))

    def loss(shift: float, along: dict[str, np.ndarray]) -> float:
        moved = {key: value + shift * along[key] for key, value in exact.items()}
        return float(loss_of(head, reference.forward(head, config, moved, **inputs), probe_of(config)))

    for _ in range(3):
        along = {key: rng.standard_normal(value.shape) for key, value in exact.items()}
        difference = (loss(step, along) - loss(-step, along)) / (2 * step)
        assert abs(difference - sum((slopes[key] * along[key]).sum() for key in exact)) < 1e-7 * length


@needs_judge
@frameworks
@models
def test_gradients_agree(name: str, framework: str) -> None:
    wanted = judge(name)
    assert {key for key, x in wanted.items() if np.abs(x).max() < ZERO} <= NO_SLOPE.get(MODELS[name][1], set())
    largest, where = worst(gradients(framework, name), wanted)
    assert largest <= TOLERANCE, where


MISTAKES: dict[str, dict[str, Any]] = {
    "epsilon_of_layer_norm": {"layer_norm_epsilon": 1e-4},
    "exact_gelu": {"activation_function": "gelu"},
    "scale_by_layer": {"scale_attn_by_inverse_layer_idx": True},
    "half_precision": {"dtype": "bfloat16"},
}


@needs_judge
@pytest.mark.parametrize("mistake", MISTAKES)
def test_comparison_detects(mistake: str) -> None:
    """The tolerance is small enough to show small mistakes: each is ten times above it, at least."""
    wanted = judge("GPT2LMHeadModel")
    right, _ = worst(gradients("torch", "GPT2LMHeadModel"), wanted)
    wrong, _ = worst(gradients("torch", "GPT2LMHeadModel", **MISTAKES[mistake]), wanted)
    assert wrong > 10 * TOLERANCE > 10 * right


@needs_judge
def test_comparison_detects_half_a_gradient_of_a_tied_weight() -> None:
    """As it was where the head's copy of the embedding had a gradient of its own."""
    tied, untied = judge("GPT2LMHeadModel"), judge("untied")
    name = "transformer.wte.weight"
    assert error(untied[name], tied[name]) > 1e-2


def train(framework: str, name: str, same_epsilon: bool = True, **more: Any) -> dict[str, np.ndarray]:
    """The weights after three steps of AdamW, as the framework has it."""
    head, config, values, inputs = setting(name, **more)
    runner = matrix.build(framework, config, head, values)
    native = {key: runner.to_native(x) for key, x in inputs.items()}
    globals()[f"_train_{framework}"](runner, head, native, same_epsilon)
    return {key: matrix.stored(runner, key).astype(np.float64) for key in values}


def _train_torch(runner: Any, head: str, inputs: dict[str, Any], same_epsilon: bool) -> None:
    import torch

    optimizer = torch.optim.AdamW(
        runner.model.parameters(),
        lr=ADAMW["learning_rate"],
        betas=(ADAMW["beta_1"], ADAMW["beta_2"]),
        eps=ADAMW["epsilon"],
        weight_decay=ADAMW["weight_decay"],
    )
    runner.model.train()
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(head, runner.model(**inputs), None).backward()
        optimizer.step()


def _train_keras(runner: Any, head: str, inputs: dict[str, Any], same_epsilon: bool) -> None:
    """Keras adds epsilon before the second moment is corrected for its start from 0, the others after."""
    import keras

    optimizer = keras.optimizers.AdamW(**ADAMW)
    runner.model.compile(optimizer, run_eagerly=True)
    for step in range(1, 4):
        if same_epsilon:
            optimizer.epsilon = ADAMW["epsilon"] * (1 - ADAMW["beta_2"] ** step) ** 0.5
        runner.model.train_on_batch(inputs)


def _train_flax(runner: Any, head: str, inputs: dict[str, Any], same_epsilon: bool) -> None:
    import jax
    import optax
    from flax import nnx

    names = {"learning_rate": "learning_rate", "b1": "beta_1", "b2": "beta_2", "eps": "epsilon"}
    adamw = optax.adamw(**{ours: ADAMW[theirs] for ours, theirs in names.items()}, weight_decay=ADAMW["weight_decay"])
    optimizer = nnx.Optimizer(runner.model, adamw, wrt=nnx.Param)

    def loss(model: Any) -> Any:
        return loss_of(head, model(**inputs, train=True, dropout_rng=jax.random.key(0)), None)

    with runner.scope():
        for _ in range(3):
            optimizer.update(runner.model, nnx.grad(loss)(runner.model))


@needs_judge
@frameworks
@pytest.mark.parametrize("name", TRAINED)
def test_three_steps_of_adamw_agree(name: str, framework: str) -> None:
    _, _, values, _ = setting(name)
    wanted = train("torch", name, dtype="float64")
    assert all(np.abs(wanted[key] - values[key]).max() > 1e-6 for key in values)
    largest, where = worst(train(framework, name), wanted)
    assert largest <= TOLERANCE, where


@needs_judge
@pytest.mark.skipif("keras" not in TESTED, reason="of Keras")
def test_comparison_detects_the_place_of_epsilon() -> None:
    wanted = train("torch", "GPT2LMHeadModel", dtype="float64")
    largest, _ = worst(train("keras", "GPT2LMHeadModel", same_epsilon=False), wanted)
    assert largest > 10 * TOLERANCE
