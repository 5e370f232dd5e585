"""What Keras needs around a call and the other frameworks do not: packed inputs, symbolic calls, trees of outputs."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, ClassVar

import keras
import numpy as np
import optree
from keras import ops

from gptzoo.cache import normalise_past
from gptzoo.config import GPTConfig
from gptzoo.errors import GPTZooError, InputError
from gptzoo.generation import GenerateOutput
from gptzoo.heads import HEADS
from gptzoo.inputs import check_inputs
from gptzoo.keras._layers import ARRAYS, Tensor, from_host
from gptzoo.labels import check_call
from gptzoo.outputs import OUTPUTS, ModelOutput

# What the entries of a list are that stands in place of `input_ids`.
LISTED = ("input_ids", "attention_mask", "token_type_ids", "position_ids")

# Head -> its labels, each with the output that it is for.
LABELS = {
    head.name: dict(
        zip(
            " ".join(labels for labels, _ in head.losses.values()).split(),
            [output.name for output in head.outputs if output.name.endswith("logits")],
            strict=True,
        )
    )
    for head in HEADS.values()
}

# Whether Keras is trying a call on made-up sizes, to see the shapes of its outputs.
_trial: ContextVar[bool] = ContextVar("trial", default=False)


class KerasModel(keras.Model):
    """A model whose calls take packed arguments, arrays of any kind, and Keras' symbolic tensors."""

    head: ClassVar[str]
    config: GPTConfig

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model: see `call`. Arrays may be NumPy's, the backend's, or lists of integers."""
        try:
            return super().__call__(**self.name_inputs(args, kwargs))
        except GPTZooError as problem:  # which Keras has wrapped in a page on the call's arguments
            cause = problem.__context__
            error = cause if isinstance(cause, GPTZooError) else problem
        raise error

    def stateless_call(self, trainable_variables: Any, non_trainable_variables: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the model with other values of its variables: what Keras does in training on JAX."""
        losses = {"return_losses": kwargs.pop("return_losses", False)}
        inputs = self.name_inputs(args, kwargs)
        return super().stateless_call(trainable_variables, non_trainable_variables, **losses, **inputs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Returns shapes and dtypes of the outputs of a symbolic call."""
        inputs = self.name_inputs(args, kwargs)
        past = normalise_past(inputs.get("past_key_values"), self.config.n_layer, lambda x: ops.swapaxes(x, 1, 2))
        names = [name for name in HEADS["Model"].arguments if name in inputs and name != "past_key_values"]
        check_inputs(self.config, ARRAYS, past, **{name: inputs[name] for name in names})
        token = _trial.set(True)
        try:
            return super().compute_output_spec(**inputs)
        finally:
            _trial.reset(token)

    def train_step(self, *args: Any) -> Any:
        """Trains on one batch: the last argument, after the state that Keras passes on JAX."""
        return super().train_step(*args[:-1], self.with_labels(args[-1]))

    def test_step(self, *args: Any) -> Any:
        """Evaluates one batch; see `train_step`."""
        return super().test_step(*args[:-1], self.with_labels(args[-1]))

    def with_labels(self, batch: Any) -> Any:
        """Puts `y` among the call's arguments where `compile` names no loss, so that the model's own is of it.

        Raises:
            InputError: weights of rows, which the model's own loss has not.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        if self.loss is not None or not LABELS[self.head]:
            return batch
        if sample_weight is not None:
            raise InputError("sample_weight: the model's own loss takes none; name a loss in compile")
        given = unpack(x) or {"input_ids": x}
        return (given if y is None else {**name_labels(self.head, y), **given}), y, None

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Returns what `fit` minimises: the loss that `compile` names, of the logits; or that of the call."""
        own = [y_pred[name] for name in HEADS[self.head].losses if isinstance(y_pred, ModelOutput) and name in y_pred]
        if self.loss is None and own:
            return sum([*own, *self.losses])
        return super().compute_loss(x, *self.pair(y, y_pred), sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Returns the metrics that `compile` names, of the logits."""
        labels = {name: x[name] for name in LABELS[self.head] if isinstance(x, Mapping) and name in x}
        if y is None and labels:
            y = labels if len(labels) > 1 else next(iter(labels.values()))
        return super().compute_metrics(x, *self.pair(y, y_pred), sample_weight)

    def pair(self, y: Any, y_pred: Any) -> tuple[Any, Any]:
        """Returns labels, and the logits that they are for, in the structure of the labels.

        Labels of the model's own loss are the tokens themselves, and shifted here; a loss that `compile` names is of
        the token in the same place.
        """
        if y is None or not isinstance(y_pred, ModelOutput):
            return y, y_pred
        pairs = {}
        for name, labels in name_labels(self.head, y).items():
            logits = y_pred[LABELS[self.head].get(name, name)]
            shifted = self.loss is None and (name, "next_token") in HEADS[self.head].losses.values()
            pairs[name] = (labels[..., 1:], logits[..., :-1, :]) if shifted else (labels, logits)
        ours, theirs = ({name: two[i] for name, two in pairs.items()} for i in range(2))
        if isinstance(y, Mapping):
            return ours, theirs
        if isinstance(y, list | tuple):
            return type(y)(ours.values()), type(y)(theirs.values())
        return next(iter(ours.values())), next(iter(theirs.values()))

    def check_inputs(self, past: Any, **arrays: Any) -> None:
        """As `gptzoo.inputs.check_inputs`; a trial's sizes mean nothing."""
        if not _trial.get():
            check_inputs(self.config, ARRAYS, past, **arrays)

    def check_call(self, inputs: dict[str, Any], **own: Any) -> None:
        """As `gptzoo.labels.check_call`; a trial's sizes mean nothing."""
        if not _trial.get():
            check_call(self.head, self.config, ARRAYS, inputs, **own)

    def name_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Returns a call's arguments by name, arrays as tensors.

        Raises:
            InputError: lists what is packed in place of `input_ids` and is no argument, or is given twice.
        """
        signature = inspect.signature(self.call)
        given = dict(signature.bind_partial(*args, **kwargs).arguments)
        packed = unpack(given.get("input_ids"))
        problems = [f"{name}: no argument of this model" for name in packed if name not in signature.parameters]
        problems += [f"{name}: given twice" for name in packed if name != "input_ids" and given.get(name) is not None]
        if problems:
            raise InputError.listing(f"call of {type(self).__name__}", problems)
        given |= packed
        if isinstance(given.get("logits_to_keep"), np.integer):  # Keras would make a tensor of it
            given["logits_to_keep"] = int(given["logits_to_keep"])
        for name in HEADS[self.head].arguments:
            if name == "past_key_values":
                given[name] = keras.tree.map_structure(to_tensor, given.get(name))
            elif name in given:
                given[name] = to_tensor(given[name], name)
        return given


def unpack(first: Any) -> dict[str, Any]:
    """Returns the arguments by name that a dict or a list holds in place of `input_ids`; none if it is an array."""
    if isinstance(first, Mapping):
        return {"input_ids": None, **first}
    # A list of lists of integers is an array; of arrays, a list of arguments.
    if not isinstance(first, list | tuple) or not any(entry is None or hasattr(entry, "shape") for entry in first):
        return {}
    if any(entry is None for entry in first):  # TensorFlow's models had another order, with past_key_values second
        raise InputError("None in a list of arrays: give the others by their names, as orders differed")
    if len(first) > len(LISTED):
        raise InputError(f"a list of {len(first)} arrays, expected at most {', '.join(LISTED)}; others by their names")
    return dict(zip(LISTED, first, strict=False))


def name_labels(head: str, y: Any) -> dict[str, Any]:
    """Returns labels by name: of a dict as they are, of a list in the order of the head table, an array is the first.

    The bare model has none: its last hidden state is what a loss is of.
    """
    if isinstance(y, Mapping):
        return dict(y)
    names = [*LABELS[head]] or ["last_hidden_state"]
    return dict(zip(names, y if isinstance(y, list | tuple) else [y], strict=False))


def to_array(x: Tensor) -> np.ndarray:
    """Copies a tensor or a variable to NumPy, bfloat16 included."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of how Keras calls NumPy
        array: np.ndarray = ops.convert_to_numpy(x)
    return array


def to_tensor(x: Any, name: str = "") -> Tensor:
    """Brings an array, a number or nested lists of numbers to the backend, as they are; other things pass."""
    if isinstance(x, int | list | tuple):
        try:
            x = np.asarray(x)
        except ValueError:
            raise InputError(f"{name}: rows of different lengths; pad them, and mask the padding") from None
    if isinstance(x, np.ndarray):
        return from_host(x)
    return ops.convert_to_tensor(x) if hasattr(x, "shape") and not isinstance(x, keras.KerasTensor) else x


def register_outputs() -> None:
    """Teaches trees to take outputs apart: Keras' own trees, and those of JAX or PyTorch below it.

    Keras has no public function for it, so its parts are told; they are there, as Keras has imported its backend.
    """
    backend = keras.backend.backend()
    outputs: list[type[ModelOutput]] = [*OUTPUTS.values(), GenerateOutput]
    for cls in outputs:
        flatten: Any = cls.flatten
        unflatten: Any = cls.unflatten
        with suppress(ValueError):  # known already: Flax' twin needs JAX' trees too
            optree.register_pytree_node(cls, flatten, unflatten, namespace="keras")
        with suppress(ValueError):
            if backend == "jax":
                sys.modules["jax"].tree_util.register_pytree_node(cls, flatten, unflatten)
            if backend == "torch":
                sys.modules["torch.utils._pytree"].register_pytree_node(
                    cls,
                    flatten,
                    lambda leaves, names, unflatten=unflatten: unflatten(names, leaves),
                    serialized_type_name=f"{cls.__module__}.{cls.__name__}",
                )


register_outputs()
