"""Training as each ecosystem does it, each way until the loss of a tiny task falls."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo.errors import InputError
from gptzoo.heads import HEADS
from tests import matrix
from tests.matrix import TESTED
from tests.test_gradients import loss_of
from tests.training import DOUBLE, LM, SEQUENCE, SPAN, TOKEN, arrays, assert_falls, families, fit, made, only

TRAINED = [head for head in HEADS if head != "Model"]
heads = pytest.mark.parametrize("head", TRAINED)
three_heads = pytest.mark.parametrize("head", [LM, DOUBLE, SEQUENCE])


@only("torch")
@heads
@families
def test_torch_loop(family: str, head: str) -> None:
    import torch

    torch.manual_seed(0)
    model, batch = made("torch", family, head)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    model.train()
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = loss_of(head, model(**batch), None)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert_falls(losses)


@only("torch")
@pytest.mark.skipif(not importlib.util.find_spec("accelerate"), reason="Transformers' Trainer needs accelerate")
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("head", [LM, SEQUENCE])
def test_transformers_trainer(head: str, checkpointing: bool, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    model, batch = made("torch", "gpt2", head)
    rows = [{name: x[i] for name, x in batch.items()} for i in range(2)]
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=25,
        learning_rate=3e-2,
        logging_steps=1,
        save_strategy="no",  # it would save the state dict only; save_pretrained writes what can be loaded
        activation_checkpointing=checkpointing,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=rows * 4, eval_dataset=rows)
    trainer.train()
    assert model.is_gradient_checkpointing == checkpointing
    assert_falls([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    model.save_pretrained(tmp_path / "end")
    assert type(model).from_pretrained(tmp_path / "end").load_report


@only("keras")
@pytest.mark.parametrize(("family", "head"), [*(("gpt2", head) for head in TRAINED), ("openai-gpt", DOUBLE)])
def test_keras_own_loss(family: str, head: str) -> None:
    """Labels among the inputs; the losses of a double head are added."""
    import keras

    keras.utils.set_random_seed(0)
    model, batch = made("keras", family, head)
    model.compile(keras.optimizers.AdamW(3e-2), jit_compile=False)
    assert_falls(fit(model, arrays(batch)))
    assert np.isclose(model.evaluate(arrays(batch), verbose=0), float(loss_of(head, model(**batch), None)), rtol=1e-4)


@only("keras")
@pytest.mark.parametrize(("way", "jit"), [("y", True), ("tf.data", False), ("dict of y", False), ("tuple of y", False)])
def test_keras_labels_as_y(way: str, jit: bool) -> None:
    import keras
    import tensorflow as tf

    head = SPAN if way == "tuple of y" else DOUBLE if way == "dict of y" else SEQUENCE
    keras.utils.set_random_seed(0)
    model, native = made("keras", "gpt2", head)
    model.compile(keras.optimizers.AdamW(3e-2), jit_compile=jit)
    x = arrays(native)
    y: Any = {name: x.pop(name) for name in list(x) if "labels" in name or "_positions" in name}
    wanted = float(loss_of(head, model(**native), None))
    if way == "tuple of y":
        y = tuple(y.values())
    elif way != "dict of y":
        y = y["labels"]
    data = (tf.data.Dataset.from_tensor_slices((x, y)).batch(2),) if way == "tf.data" else (x, y)
    assert np.isclose(model.evaluate(*data, verbose=0), wanted, rtol=1e-4)
    assert_falls(fit(model, *data))


@only("keras")
def test_keras_array_as_x() -> None:
    import keras

    keras.utils.set_random_seed(0)
    model, batch = made("keras", "gpt2", LM)
    ids = arrays(batch)["input_ids"]
    model.compile(keras.optimizers.AdamW(3e-2), metrics=["accuracy"], jit_compile=False)
    assert_falls(fit(model, ids, ids))
    with pytest.raises(InputError, match="sample_weight"):
        model.fit(ids, ids, sample_weight=np.ones(2), verbose=0)


@only("keras")
@pytest.mark.parametrize("head", [LM, SEQUENCE, TOKEN])
def test_keras_loss_of_logits(head: str) -> None:
    """As users of TensorFlow know it: y against the logits, in the same place; metrics, evaluate and predict too."""
    import keras

    keras.utils.set_random_seed(0)
    model, batch = made("keras", "gpt2", head)
    x = arrays(batch)
    y = x.pop("labels").clip(0)  # -100 is no label to Keras' losses
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(3e-2), loss, metrics=["accuracy"], jit_compile=False)
    before = model.evaluate(x, y, verbose=0)
    logits = arrays(model(**x))["logits"]
    exact = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, y[..., None], -1)[..., 0]
    assert np.isclose(before[0], exact.mean(), rtol=1e-4)
    assert np.isclose(before[1], (logits.argmax(-1) == y).mean())
    assert_falls(fit(model, x, y))
    assert model.evaluate(x, y, verbose=0)[1] > before[1]
    predicted = model.predict(x, verbose=0)
    assert matrix.error(predicted["logits"], arrays(model(**x))["logits"]) < 1e-5


@only("keras")
def test_keras_losses_of_several_logits() -> None:
    import keras

    keras.utils.set_random_seed(0)
    model, batch = made("keras", "openai-gpt", SPAN)
    x = arrays(batch)
    y = {"start_positions": x.pop("start_positions"), "end_positions": x.pop("end_positions").clip(0, 5)}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for labels in (y, tuple(y.values()), {name.replace("positions", "logits"): value for name, value in y.items()}):
        losses = dict.fromkeys(labels, loss) if isinstance(labels, dict) else [loss, loss]
        model.compile(keras.optimizers.AdamW(3e-2), losses, run_eagerly=True)
        total = np.ravel(model.evaluate(x, labels, verbose=0))[0]
        assert np.isclose(total, 2 * float(model(**x, **y)["loss"]), rtol=1e-3)
    metrics = {name: ["accuracy"] for name in y}
    model.compile(keras.optimizers.AdamW(3e-2), dict.fromkeys(y, loss), metrics=metrics, jit_compile=False)
    assert_falls(fit(model, x, y))


@only("keras")
def test_keras_metrics_of_the_own_loss() -> None:
    """Tokens are labels of the token before: an accuracy is of these pairs."""
    import keras

    model, batch = made("keras", "gpt2", LM)
    ids = arrays(batch)["input_ids"]
    model.compile("adam", metrics=["accuracy"], run_eagerly=True)
    logits = arrays(model(ids))["logits"]
    wanted = (logits[:, :-1].argmax(-1) == ids[:, 1:]).mean()
    for data in ((ids, ids), ({"input_ids": ids, "labels": ids},)):
        assert np.isclose(model.evaluate(*data, verbose=0)[1], wanted)
    assert isinstance(model.optimizer, keras.optimizers.Adam)


@only("keras")
def test_keras_model_without_a_head() -> None:
    import keras

    model, batch = made("keras", "gpt2", "Model")
    x = arrays(batch)
    model.compile(keras.optimizers.AdamW(3e-2), "mse", jit_compile=False)
    assert_falls(fit(model, x, np.zeros((2, 6, 12), np.float32)))


@only("keras")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("head", [LM, SEQUENCE])
def test_keras_mixed_precision(head: str, policy: str) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model, batch = made("keras", "gpt2", head, policy=policy)
    optimizer = keras.optimizers.AdamW(3e-2)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, jit_compile=False)
    assert_falls(fit(model, arrays(batch)))
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in model.trainable_weights} == {"float32"}
    assert policy.removeprefix("mixed_") in str(model(**batch)["logits"].dtype)


@only("flax")
@heads
@families
def test_nnx_optimizer(family: str, head: str) -> None:
    import optax
    from flax import nnx

    model, batch = made("flax", family, head)
    rngs = nnx.Rngs(dropout=0)
    optimizer = nnx.Optimizer(model, optax.adamw(3e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any, rngs: Any, batch: Any) -> Any:
        key = rngs.dropout()  # not in the function: NNX has a gradient of no function that changes its surroundings

        def loss_fn(model: Any) -> Any:
            return loss_of(head, model(**batch, train=True, dropout_rng=key), None)

        loss, gradients = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, gradients)
        return loss

    assert_falls([float(step(model, optimizer, rngs, batch)) for _ in range(25)])


@only("flax")
@three_heads
@families
def test_flax_functional(family: str, head: str) -> None:
    """Weights go in and out as a tree; the model itself stays as it was."""
    import jax
    import optax

    model, batch = made("flax", family, head)
    params = start = model.params
    optimizer = optax.adamw(3e-2)
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any, batch: Any, rng: Any) -> Any:
        def loss_fn(params: Any) -> Any:
            return loss_of(head, model(**batch, params=params, dropout_rng=rng, train=True), None)

        loss, gradients = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for rng in jax.random.split(jax.random.key(0), 25):
        params, state, loss = step(params, state, batch, rng)
        losses.append(float(loss))
    assert_falls(losses)
    assert all(map(np.array_equal, jax.tree.leaves(model.params), jax.tree.leaves(start)))
    assert jax.tree.structure(params) == jax.tree.structure(start)


@only("flax")
def test_flax_weights_are_made_apart() -> None:
    """A model of shapes only computes with weights that come from elsewhere, into a cache too."""
    import jax

    from gptzoo.flax import GPT2LMHeadModel

    full, batch = made("flax", "gpt2", LM)
    shapes = GPT2LMHeadModel(full.config, seed=None)
    ids = batch["input_ids"]
    wanted = full(ids).logits
    assert matrix.error(shapes(ids, params=full.params).logits, wanted) == 0
    cached = shapes(ids, params=full.params, past_key_values=full.init_cache(2, 8))
    assert matrix.error(cached.logits, wanted) < 1e-6
    shapes.init_weights(0)
    assert all(map(np.array_equal, jax.tree.leaves(shapes.params), jax.tree.leaves(full.params)))


def test_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block of docs/training.md, those of one framework in a row."""
    text = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    monkeypatch.chdir(tmp_path)
    for framework, title, n_blocks in (("torch", "PyTorch", 2), ("keras", "Keras", 2), ("flax", "Flax", 1)):
        section = text.split(f"## {title}\n")[1].split("\n## ")[0]
        blocks = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
        assert len(blocks) == n_blocks
        if framework not in TESTED:
            continue
        space: dict[str, Any] = {"__name__": "training"}
        for block in blocks:
            if "Trainer" not in block or importlib.util.find_spec("accelerate"):
                exec(block, space)
        assert_falls(space["losses"])
