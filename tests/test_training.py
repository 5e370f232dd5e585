"""Training as each ecosystem does it, each way until the loss of a tiny task falls; and gradient checkpointing."""

from __future__ import annotations

import importlib.util
import math
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo.errors import InputError
from gptzoo.heads import HEADS
from tests import matrix
from tests.matrix import TESTED
from tests.test_gradients import inputs_of, loss_of

TRAINED = [head for head in HEADS if head != "Model"]
LM, DOUBLE, SEQUENCE = "LMHeadModel", "DoubleHeadsModel", "ForSequenceClassification"
TOKEN, SPAN = "ForTokenClassification", "ForQuestionAnswering"

families = pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])
heads = pytest.mark.parametrize("head", TRAINED)
three_heads = pytest.mark.parametrize("head", [LM, DOUBLE, SEQUENCE])


def only(*frameworks: str) -> pytest.MarkDecorator:
    absent = [name for name in frameworks if name not in TESTED]
    return pytest.mark.skipif(bool(absent), reason=f"{absent} not in GPTZOO_FRAMEWORKS")


def made(framework: str, family: str, head: str, **more: Any) -> tuple[Any, dict[str, Any]]:
    """A fresh model with its own initial weights and usual dropout, and one batch, labels among it."""
    policy = {"dtype": more.pop("policy")} if "policy" in more else {}
    # Keras takes seconds to make a graph of one block.
    small = {"vocab_size": 20, "n_embd": 12, "n_layer": 1 if framework == "keras" else 2}
    config = matrix.tiny(family, **(small | more))
    runner = matrix.build(framework, config, head, **policy)
    return runner.model, {name: runner.to_native(x) for name, x in inputs_of(head, config).items()}


def assert_falls(losses: list[float]) -> None:
    assert np.isfinite(losses).all()
    assert min(losses[-3:]) < 0.7 * losses[0], losses


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


def fit(model: Any, *data: Any, epochs: int = 25, **options: Any) -> list[float]:
    history: list[float] = model.fit(*data, epochs=epochs, verbose=0, shuffle=False, **options).history["loss"]
    return history


def arrays(batch: dict[str, Any]) -> dict[str, np.ndarray]:
    import keras

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of how Keras calls NumPy
        return {name: keras.ops.convert_to_numpy(x) for name, x in batch.items() if not isinstance(x, tuple)}


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


BLOCK = 2 * 6 * 12 * 4  # bytes of what goes into a block: B T E float32

# Gradient checkpointing. `slopes(model, batch, head)` returns an output in training, and gradients by some name.
Slopes = Callable[[Any, dict[str, Any], str], tuple[dict[str, Any], dict[str, Any]]]


def _slopes_torch(model: Any, batch: dict[str, Any], head: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import torch

    torch.manual_seed(0)
    watched = {name: x.requires_grad_() for name, x in batch.items() if x.is_floating_point()}
    output = model.train()(**batch)
    watched |= dict(model.named_parameters())
    found = torch.autograd.grad(loss_of(head, output, None), list(watched.values()), allow_unused=True)
    return output, dict(zip(watched, found, strict=True))


def _slopes_keras(model: Any, batch: dict[str, Any], head: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import tensorflow as tf

    for variable in model.non_trainable_variables:  # the states of its dropouts
        variable.assign(tf.ones_like(variable.value))
    watched = {name: x for name, x in batch.items() if hasattr(x, "dtype") and x.dtype.is_floating}
    with tf.GradientTape() as tape:
        tape.watch(watched)
        output = model(**batch, training=True)
        loss = loss_of(head, output, None)
    watched |= {variable.path: variable.value for variable in model.trainable_variables}
    found = tape.gradient(loss, watched)
    states = {variable.path: tf.cast(variable.value, "float32") for variable in model.non_trainable_variables}
    return output, found | states


def _slopes_flax(model: Any, batch: dict[str, Any], head: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import jax

    floats = {name: x for name, x in batch.items() if hasattr(x, "dtype") and x.dtype.kind == "f"}

    def loss_fn(params: Any, floats: Any) -> Any:
        output = model(**(batch | floats), params=params, train=True, dropout_rng=jax.random.key(0))
        return loss_of(head, output, None), output

    found, output = jax.grad(loss_fn, argnums=(0, 1), has_aux=True)(model.params, floats)
    return output, {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(found)}


def close(framework: str, found: Any, wanted: Any) -> bool:
    if found is None or wanted is None:
        return found is wanted
    if isinstance(found, tuple):
        return len(found) == len(wanted) and all(close(framework, *two) for two in zip(found, wanted, strict=True))
    if framework == "torch":
        found, wanted = found.detach(), wanted.detach()
    # JAX compiles a checkpointed block, and an operation alone is rounded in another way.
    return matrix.error(found, wanted) <= (1e-5 if framework == "flax" else 1e-6)


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("head", [LM, DOUBLE, TOKEN])
@families
def test_checkpointing_changes_nothing(family: str, head: str, framework: str) -> None:
    """Outputs, gradients (of inputs too) and random numbers, with dropout; but there is no cache."""
    crossed = head == LM and family == "gpt2"
    fields = {"attn_pdrop": 0.3, "resid_pdrop": 0.2, "add_cross_attention": crossed}
    model, batch = made(framework, family, head, n_layer=2, **fields)
    runner = matrix.runner_of(framework, model)
    batch |= {"head_mask": runner.to_native(np.full((2, 3), 0.9, np.float32))}
    batch |= {"output_hidden_states": True, "output_attentions": True} if head != TOKEN else {}
    slopes: Slopes = globals()[f"_slopes_{framework}"]
    if framework == "torch":
        flags = {name: x for name, x in batch.items() if isinstance(x, bool)}
        batch = {name: x for name, x in batch.items() if name not in flags}
        model.config.output_hidden_states = model.config.output_attentions = bool(flags)
    wanted, wanted_slopes = slopes(model, batch, head)
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    found, found_slopes = slopes(model, batch, head)
    assert set(wanted) - set(found) == ({"past_key_values"} if head != TOKEN else set())
    assert all(close(framework, found[name], wanted[name]) for name in found)
    if head != TOKEN:
        assert len(found["attentions"]) == 2
        assert len(found["hidden_states"]) == 3
    assert found_slopes.keys() == wanted_slopes.keys()
    bad = [name for name in found_slopes if not close(framework, found_slopes[name], wanted_slopes[name])]
    assert not bad
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    assert "past_key_values" in slopes(model, batch, head)[0] or head == TOKEN


@pytest.mark.parametrize("framework", TESTED)
def test_checkpointing_is_for_training_only(framework: str) -> None:
    model, batch = made(framework, "gpt2", LM)
    model.gradient_checkpointing_enable()
    assert model(batch["input_ids"])["past_key_values"] is not None


@only("torch")
def test_torch_checkpointing_options() -> None:
    model, _ = made("torch", "gpt2", LM)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for options in ({"use_reentrant": True}, {"preserve_rng_state": False}):
        with pytest.raises(InputError, match="use_reentrant=False"):
            model.gradient_checkpointing_enable(options)
    with pytest.raises(InputError, match="every_n_layers=2"):
        model.activation_checkpointing_enable(every_n_layers=2)


@only("torch")
@families
def test_torch_checkpointing_saves_memory(family: str) -> None:
    """What is kept for the gradient grows by one array a block, and not by all that is computed in it."""
    import torch

    def kept(n_layer: int, checkpointing: bool) -> int:
        model, batch = made("torch", family, LM, n_layer=n_layer)
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        seen: dict[int, int] = {}
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

        def pack(x: Any) -> Any:
            if x.untyped_storage().data_ptr() not in weights:
                seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            output = model(**batch)
        assert output.loss.requires_grad
        return sum(seen.values())

    plain, saving = (kept(6, on) - kept(2, on) for on in (False, True))
    assert plain > 10 * 4 * BLOCK
    assert saving <= 2 * 4 * BLOCK


@only("flax")
@families
def test_flax_checkpointing_saves_memory(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    import jax
    from jax.ad_checkpoint import print_saved_residuals

    def kept(n_layer: int, checkpointing: bool) -> int:
        model, batch = made("flax", family, LM, n_layer=n_layer)
        if checkpointing:
            model.gradient_checkpointing_enable()

        def loss_fn(params: Any) -> Any:
            return model(**batch, params=params, train=True, dropout_rng=jax.random.key(0)).loss

        print_saved_residuals(loss_fn, model.params)
        lines = [line for line in capsys.readouterr().out.splitlines() if "argument" not in line]  # the weights
        shapes = [re.findall(r"\d+", match[1]) for line in lines if (match := re.match(r"\w+\[(.*?)\]", line))]
        return sum(4 * math.prod(map(int, shape)) for shape in shapes)

    plain, saving = (kept(6, on) - kept(2, on) for on in (False, True))
    assert plain > 10 * 4 * BLOCK
    assert saving <= 2 * 4 * BLOCK


@only("torch")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of the compiler about itself
def test_torch_checkpointing_compiled() -> None:
    import torch

    model, batch = made("torch", "gpt2", LM, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    _, wanted = _slopes_torch(model, batch, LM)
    model.gradient_checkpointing_enable()
    torch.compiler.reset()
    compiled = torch.compile(
        lambda batch: model(**batch, output_hidden_states=True).loss, fullgraph=True, backend="aot_eager"
    )
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(compiled(batch), parameters)
    assert all(close("torch", x, wanted[name]) for name, x in zip(names, found, strict=True))


@only("keras")
@pytest.mark.parametrize(("family", "jit"), [("gpt2", False), ("openai-gpt", True)], ids=["graph", "xla"])
def test_keras_checkpointing_in_fit(family: str, jit: bool) -> None:
    """The same losses step by step, so the same dropout."""
    import keras

    found = []
    for checkpointing in (False, True):
        keras.utils.set_random_seed(0)
        model, batch = made("keras", family, LM, n_layer=2)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.compile(keras.optimizers.AdamW(3e-2), jit_compile=jit)
        found.append(fit(model, arrays(batch), epochs=15))
    assert_falls(found[0])
    assert np.allclose(*found, rtol=1e-3)


@only("flax")
@families
def test_nnx_checkpointing_compiled(family: str) -> None:
    import jax
    from flax import nnx

    model, batch = made("flax", family, LM)

    @nnx.jit
    def slopes(model: Any, rngs: Any) -> Any:
        key = rngs.dropout()
        return nnx.grad(lambda model: model(**batch, train=True, dropout_rng=key).loss)(model)

    wanted = jax.tree.leaves(slopes(model, nnx.Rngs(dropout=0)))
    model.gradient_checkpointing_enable()
    found = jax.tree.leaves(slopes(model, nnx.Rngs(dropout=0)))
    assert all(matrix.error(*two) <= 1e-5 for two in zip(found, wanted, strict=True))


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
