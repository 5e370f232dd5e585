"""What every model in Keras can do: be made from a config or a checkpoint, be saved, make a cache."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from gptzoo import weights
from gptzoo.cache import StaticCache, cache_shapes
from gptzoo.checkpoint import (
    LoadReport,
    config_overrides,
    given_config,
    open_checkpoint,
    plan_load,
    refuse_foreign,
    save_checkpoint,
)
from gptzoo.config import DTYPES, GPTConfig, dtype_name
from gptzoo.errors import ConfigError, InputError
from gptzoo.generation import GenerationConfig
from gptzoo.generation._config import generation_config_of, saved_files, stored_generation_config
from gptzoo.heads import class_name
from gptzoo.hub import take_options
from gptzoo.keras._attention import require_flash
from gptzoo.keras._calls import KerasModel, to_array
from gptzoo.keras._generation import GenerationMixin
from gptzoo.keras._layers import Tensor
from gptzoo.keras._surgery import SurgeryMixin
from gptzoo.outputs import ModelOutput


class PreTrainedModel(KerasModel, GenerationMixin, SurgeryMixin):
    """Base of all models.

    Args:
        config: of the model's family.
        seed: of the initial values, which are the same numbers in every framework; None leaves the weights zero.
        dtype: of the weights and the computation, or a Keras policy such as "mixed_float16"; None: the config's, or
            Keras' own.
        kwargs: `name` and `trainable`, as of every Keras layer.

    Attributes:
        config: the config that the model was made from; not changed by the model, which has a copy after surgery.
        load_report: what `from_pretrained` found in the checkpoint.
        generation_config: options of `generate`, of a model that has it; others None.
    """

    config_class: ClassVar[type[GPTConfig]]
    head: ClassVar[str]
    in_head = False  # whether it is the backbone of a model with a head
    config: GPTConfig
    generation_config: GenerationConfig | None
    load_report: LoadReport | None = None

    def __init__(self, config: GPTConfig, seed: int | None = 0, dtype: Any = None, **kwargs: Any):
        if not isinstance(config, self.config_class):
            raise ConfigError(f"{type(self).__name__} needs a {self.config_class.__name__}, got {config!r:.80}")
        config.validate()
        policy = to_policy(next(one for one in (dtype, config.dtype, keras.config.dtype_policy()) if one is not None))
        super().__init__(dtype=policy, autocast=False, **kwargs)  # labels and masks come as they are; see `cast`
        if config.attn_implementation == "flash_attention_2":
            require_flash(config, self.compute_dtype)
        self.config = config
        self.generation_config = generation_config_of(getattr(self, "head", None), config)
        self.seed = seed

    def init_weights(self, seed: int | None = 0) -> None:
        """Fills every weight with its initial value from the weight table; None leaves the weights as they are."""
        if seed is None:
            return
        for name, spec in weights.specs(self.config, self.head).items():
            if not spec.tied:
                self.set_weight(name, weights.initial_value(spec, seed))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: GPTConfig | str | Path | None = None,
        dtype: Any = None,
        device: Any = None,
        seed: int = 0,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **overrides: Any,
    ) -> Self:
        """Loads a checkpoint.

        Args:
            pretrained_model_name_or_path: a checkpoint directory; or the name of a model, bundled or on the
                Hugging Face hub.
            config: to be used in place of the checkpoint's own; or the path or name of one.
            dtype: of the weights and the computation, or a Keras policy such as "mixed_float16"; None or "auto": that
                of `config`, or as stored.
            device: where the weights go, as `keras.device` names it.
            seed: for a head that the checkpoint does not have.
            ignore_mismatched_sizes: whether weights that are stored in another shape get initial values; they are
                named in `load_report.mismatched`.
            output_loading_info: whether to return (model, `load_report.loading_info()`).
            overrides: config fields that win over the checkpoint's, such as `num_labels=3`; and
                `gptzoo.hub.HubOptions` by their names, such as `revision="v1"`. Arguments of other libraries that
                change nothing here are passed over: `gptzoo._load.FOREIGN_ARGUMENTS`.

        Raises:
            CheckpointError: lists everything in the checkpoint that does not fit.
            ConfigError: lists every override with a wrong value, or of a name that means nothing; or what is wrong with
                generation_config.json.
        """
        dtype = overrides.pop("torch_dtype", dtype)  # its older name
        hub, overrides = take_options(overrides)
        given = given_config(cls.config_class, config, hub)
        checkpoint = open_checkpoint(pretrained_model_name_or_path, given, hub)
        overrides = config_overrides(checkpoint.config, cls.config_class, overrides)
        config = cls.config_class.derive(given or checkpoint.config, **overrides)
        plan = plan_load(checkpoint, config, cls.head, ignore_mismatched_sizes)
        generation = stored_generation_config(cls.head, checkpoint.path, config, overrides)
        policy = to_policy(plan.chosen_dtype(dtype, given))
        config.dtype = policy.variable_dtype
        with on_device(device):
            model = cls(config, seed=None, dtype=policy)  # zeros: Keras has no weights without values
            for name, array in plan.values(seed):
                model.set_weight(name, array)
        model.seed = seed
        model.load_report, model.generation_config = plan.report, generation
        return (model, plan.report.loading_info()) if output_loading_info else model  # type: ignore[return-value]

    def save_pretrained(self, save_directory: str | Path, *, max_shard_size: int | str = "5GB", **foreign: Any) -> None:
        """Writes config.json and safetensors, which Transformers and the other frameworks here load as they are.

        Also generation_config.json, of a model that generates.

        Args:
            foreign: arguments of Transformers that change nothing here.

        Raises:
            InputError: lists every foreign argument that would.
        """
        refuse_foreign("save_pretrained", foreign)
        specs = weights.specs(self.config, self.head)
        tensors = {name: lambda name=name: to_array(self.get_weight(name)) for name in specs}
        extra = saved_files(self.generation_config, self.config)
        save_checkpoint(save_directory, self.config, self.head, tensors, max_shard_size=max_shard_size, extra=extra)

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` takes, for Keras' own files."""
        return {**super().get_config(), "config": self.config.to_dict(), "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Makes a model from its `get_config`."""
        return cls(**{**config, "config": cls.config_class.from_dict(config["config"])})

    def get_weight(self, name: str) -> keras.Variable:
        """Returns a weight by its canonical name."""
        layer, leaf = weights.follow(self, name)
        return getattr(layer, leaf)

    def set_weight(self, name: str, value: np.ndarray) -> None:
        """Changes the value of a weight, named canonically, in place."""
        self.get_weight(name).assign(value)

    def read_weight(self, name: str) -> np.ndarray:
        """Returns the value of a weight, named canonically."""
        return to_array(self.get_weight(name))

    def replace_weight(self, name: str, value: np.ndarray) -> None:
        """Gives a weight, named canonically, a value of another shape."""
        layer, leaf = weights.follow(self, name)
        held = {key: variable for key, variable in vars(layer).items() if isinstance(variable, keras.Variable)}
        for key, variable in held.items():  # all of the layer's, as Keras' files count them in order
            layer._untrack_variable(variable)  # what `delattr` does, but for a garbage collection each time
            del vars(layer)[key]
        for key, variable in held.items():
            setattr(layer, key, new_variable(layer, variable, value) if key == leaf else variable)

    def tie_weights(self) -> None:
        """Makes each tied weight the same object as the one it is tied to."""
        for name, spec in weights.specs(self.config, self.head).items():
            if spec.tied:
                layer, leaf = weights.follow(self, name)
                vars(layer)[leaf] = self.get_weight(spec.tied)  # unseen by Keras, whose files would hold it twice

    def init_cache(self, batch_size: int, max_length: int) -> StaticCache:
        """Returns an empty cache of fixed capacity, for `past_key_values`.

        Raises:
            InputError: the config has fewer positions.
        """
        shapes = cache_shapes(self.config, batch_size, max_length)
        layers = tuple((self.zeros(shape), self.zeros(shape)) for shape in shapes)
        return StaticCache(layers, ops.zeros((), dtype="int32"))

    def gradient_checkpointing_enable(self) -> None:
        """Saves memory in training: each block's inner values are computed again for the gradient, and not kept."""
        self.base_model.gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Trains the usual way again."""
        self.base_model.gradient_checkpointing = False

    @property
    def is_gradient_checkpointing(self) -> bool:
        return bool(self.base_model.gradient_checkpointing)

    @property
    def base_model(self) -> Any:
        """The model without its head."""
        return self if self.head == "Model" else self.transformer

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name != "base_model"]  # Keras' files would hold it twice

    def result(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """Returns an output as it is, or as a tuple, as the call or else the config asks."""
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def zeros(self, shape: tuple[int, ...]) -> Tensor:
        return ops.zeros(shape, dtype=self.compute_dtype)

    def cast(self, x: Tensor) -> Tensor:
        """Brings a floating input to the dtype of the computation."""
        return ops.cast(x, self.compute_dtype)

    def num_parameters(self) -> int:
        """Returns the number of trainable numbers; a tied weight counts once."""
        return sum(math.prod(variable.shape) for variable in self.weights)

    def __repr__(self) -> str:
        name = class_name(self.config, self.head)
        return f"{name}({self.num_parameters():,} parameters, {self.dtype_policy.name})"


def on_device(device: Any) -> Any:
    """Returns a scope in which arrays go to a device.

    Raises:
        InputError: there is none of this name.
    """
    if device is None:
        return nullcontext()
    try:
        with keras.device(device):
            ops.zeros(())
    except (RuntimeError, TypeError, ValueError) as problem:
        raise InputError(f"device: {device!r}: {str(problem).splitlines()[0]}") from None
    return keras.device(device)


def to_policy(dtype: Any) -> keras.DTypePolicy:
    """Returns the Keras policy of a name, or of a dtype of NumPy or any framework.

    Raises:
        ConfigError: there is none, or the backend does not have the dtype switched on.
    """
    try:
        known = isinstance(dtype, str | dict | keras.DTypePolicy)
        policy = keras.dtype_policies.get(dtype if known else dtype_name(dtype))
    except ValueError:
        raise ConfigError(f"dtype: {dtype!r}, expected one of {', '.join(DTYPES)}, or a Keras policy") from None
    with warnings.catch_warnings(action="ignore"):
        found = keras.backend.standardize_dtype(ops.zeros((), policy.variable_dtype).dtype)
    if found != policy.variable_dtype:  # JAX would go on in float32
        raise ConfigError(f"dtype: {dtype}, which JAX has only after jax.config.update('jax_enable_x64', True)")
    return policy


def new_variable(layer: keras.Layer, old: keras.Variable, value: np.ndarray) -> keras.Variable:
    """Returns a variable of a layer in place of another one: a variable has one shape."""
    *parents, scope, _ = old.path.split("/")
    with keras.name_scope(scope, caller=layer, override_parent="/".join(parents)):  # so that the path stays
        new = layer.add_weight(shape=value.shape, initializer="zeros", trainable=old.trainable, name=old.name)
    new.assign(value)
    return new
