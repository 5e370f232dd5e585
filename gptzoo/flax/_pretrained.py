"""What every model in Flax NNX can do: be made from a config or a checkpoint, be saved, make a cache."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util
from jax import Array

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
from gptzoo.config import GPTConfig, dtype_name
from gptzoo.errors import ConfigError, InputError
from gptzoo.flax._attention import require_flash
from gptzoo.flax._generation import GenerationMixin
from gptzoo.flax._nnx import Static, initial_value, place, seed_of, to_dtype
from gptzoo.flax._surgery import SurgeryMixin
from gptzoo.generation import GenerationConfig
from gptzoo.generation._config import generation_config_of, saved_files, stored_generation_config
from gptzoo.heads import class_name
from gptzoo.hub import take_options
from gptzoo.outputs import ModelOutput


class PreTrainedModel(nnx.Module, GenerationMixin, SurgeryMixin):
    """Base of all models.

    Args:
        config: of the model's family.
        seed: of the initial values, which are the same numbers in every framework; None leaves the weights unfilled.
        rngs: the key of its `params` stream is the seed instead, nnx.Rngs(0) being seed 0; its `dropout` stream
            serves calls with `train=True` and without `dropout_rng`.
        dtype: of the computation; None: that of the weights.
        param_dtype: of the weights; None: the config's, or float32.

    Attributes:
        config: the config that the model was made from; not changed by the model, which has a copy after surgery.
            What a compiled function saw of it stays compiled.
        load_report: what `from_pretrained` found in the checkpoint.
        generation_config: options of `generate`, of a model that has it; others None.
    """

    config_class: ClassVar[type[GPTConfig]]
    head: ClassVar[str]
    in_head = False  # whether it is the backbone of a model with a head
    rngs: nnx.RngStream | None = None
    transformer: Any  # the backbone, under a head

    def __init__(
        self,
        config: GPTConfig,
        seed: int | None = 0,
        *,
        rngs: nnx.Rngs | None = None,
        dtype: Any = None,
        param_dtype: Any = None,
    ):
        if not isinstance(config, self.config_class):
            raise ConfigError(f"{type(self).__name__} needs a {self.config_class.__name__}, got {config!r:.80}")
        config.validate()
        if config.attn_implementation == "flash_attention_2":
            require_flash()
        self._config, self._load_report = Static(config), Static(None)
        # Here, as NNX notes each name when it is first set.
        self.generation_config = generation_config_of(getattr(self, "head", None), config)
        self._dtype = None if dtype is None else to_dtype(dtype)
        if stream := getattr(rngs, "dropout", None):
            self.rngs = stream.fork()

    def init_weights(self, seed: int | None = 0, rngs: nnx.Rngs | None = None, param_dtype: Any = None) -> None:
        """Fills every weight with its initial value from the weight table; None leaves the weights as they are."""
        stream = getattr(rngs, "params", None)
        param_dtype = self.config.dtype if param_dtype is None else param_dtype
        start = seed if seed is None or stream is None else seed_of(stream.key.get_value())
        for name, spec in weights.specs(self.config, self.head).items():
            if spec.tied:
                continue
            if param_dtype is not None:
                shape: Any = jax.ShapeDtypeStruct(spec.shape, to_dtype(param_dtype))
                self.get_weight(name).set_value(shape)
            if start is not None:
                self.set_weight(name, initial_value(spec, start))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: GPTConfig | str | Path | None = None,
        dtype: Any = None,
        param_dtype: Any = None,
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
            dtype: of the weights and the computation; None or "auto": that of `config`, or as stored.
            param_dtype: of the weights, where they are to have another one.
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
        dtype = None if dtype == "auto" else dtype
        param_dtype = to_dtype(plan.chosen_dtype(dtype, given) if param_dtype is None else param_dtype)
        config.dtype = dtype_name(param_dtype)
        model = cls(config, seed=None, dtype=dtype, param_dtype=param_dtype)  # shapes only: nothing is filled twice
        for name, array in plan.values(seed):
            model.set_weight(name, array)
        model._load_report, model._generation_config = Static(plan.report), Static(generation)
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
        self.require_values()
        specs = weights.specs(self.config, self.head)
        tensors = {name: lambda name=name: to_array(self.get_weight(name)) for name in specs}
        extra = saved_files(self.generation_config, self.config)
        save_checkpoint(save_directory, self.config, self.head, tensors, max_shard_size=max_shard_size, extra=extra)

    def get_weight(self, name: str) -> nnx.Param[Array]:
        """Returns a weight by its canonical name."""
        module, leaf = weights.follow(self, name)
        return getattr(module, leaf)

    def set_weight(self, name: str, value: np.ndarray) -> None:
        """Changes the value of a weight, named canonically, in place."""
        weight = self.get_weight(name)
        if tuple(value.shape) != tuple(weight.shape):
            raise InputError(f"{name}: shape {tuple(value.shape)}, expected {tuple(weight.shape)}")
        weight.set_value(to_tensor(value, weight.dtype))

    def read_weight(self, name: str) -> np.ndarray:
        """Returns the value of a weight, named canonically."""
        self.require_values()
        return to_array(self.get_weight(name))

    def replace_weight(self, name: str, value: np.ndarray) -> None:
        """Gives a weight, named canonically, a value of another shape."""
        weight = self.get_weight(name)
        weight.set_value(to_tensor(value, weight.dtype))

    def tie_weights(self) -> None:
        """Makes each tied weight the same object as the one it is tied to, which here it always is: see `Tied`."""

    @property
    def params(self) -> dict[str, Any]:
        """Every weight that is not tied, in nested dicts: `params["transformer"]["h"]["0"]["ln_1"]["bias"]`."""
        specs = weights.specs(self.config, self.head)
        values = {name: self.get_weight(name).get_value() for name, spec in specs.items() if not spec.tied}
        return traverse_util.unflatten_dict(values, sep=".")

    def with_params(self, params: Any) -> Self:
        """Returns a model with other weights, nested as in `params`, or an `nnx.State`; this one keeps its own.

        Args:
            params: None: the model itself, once it is seen to have weights.

        Raises:
            InputError: lists every missing, unknown and misshapen weight.
        """
        if params is None:
            self.require_values()
            return self
        specs = {name: spec for name, spec in weights.specs(self.config, self.head).items() if not spec.tied}
        plain = nnx.to_pure_dict(params) if isinstance(params, nnx.State) else params
        given = {".".join(map(str, path)): value for path, value in traverse_util.flatten_dict(plain).items()}
        problems = [f"{name}: absent" for name in specs if name not in given]
        problems += [f"{name}: not a weight of this model" for name in given if name not in specs]
        for name, spec in specs.items():
            if name in given and jnp.shape(given[name]) != spec.shape:
                problems.append(f"{name}: shape {jnp.shape(given[name])}, expected {spec.shape}")
        if problems:
            raise InputError.listing("params", problems)
        model = nnx.clone(self)
        for name in specs:
            model.get_weight(name).set_value(jnp.asarray(given[name]))
        if self.rngs is not None:
            model.rngs = self.rngs  # not a clone's: it has to move on from call to call
        return model

    def require_values(self) -> None:
        """Raises an error if the weights are shapes only."""
        if isinstance(self.first_weight.get_value(), jax.ShapeDtypeStruct):
            raise InputError(f"{type(self).__name__}: weights without values (seed=None): fill them, or give params")

    def dropout_rngs(self, dropout_rng: Any, train: bool) -> nnx.RngStream | None:
        """Returns a source of keys for one call in training; None: no dropout."""
        if not train:
            return None
        if dropout_rng is None:
            dropout_rng = self.rngs
        if dropout_rng is None:
            raise InputError("train=True needs dropout_rng, a JAX key, or a model made with rngs=nnx.Rngs(...)")
        return dropout_rng if isinstance(dropout_rng, nnx.RngStream) else nnx.RngStream(dropout_rng, tag="dropout")

    def init_cache(self, batch_size: int, max_length: int) -> StaticCache:
        """Returns an empty cache of fixed capacity, for `past_key_values`.

        Raises:
            InputError: the config has fewer positions.
        """
        shapes = cache_shapes(self.config, batch_size, max_length)
        layers = tuple((self.zeros(shape), self.zeros(shape)) for shape in shapes)
        return StaticCache(layers, jnp.zeros((), jnp.int32))

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

    def result(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """Returns an output as it is, or as a tuple, as the call or else the config asks."""
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def zeros(self, shape: tuple[int, ...]) -> Array:
        return jnp.zeros(shape, self.dtype)

    def cast(self, x: Array) -> Array:
        """Brings a floating input, or an embedding, to the dtype of the computation."""
        return jnp.asarray(x, self.dtype)

    @property
    def config(self) -> GPTConfig:
        return self._config.value

    @property
    def load_report(self) -> LoadReport | None:
        return self._load_report.value

    @property
    def generation_config(self) -> GenerationConfig | None:
        return self._generation_config.value

    @generation_config.setter
    def generation_config(self, value: GenerationConfig | None) -> None:
        self._generation_config = Static(value)

    @property
    def dtype(self) -> np.dtype:
        return self.param_dtype if self._dtype is None else self._dtype

    @property
    def param_dtype(self) -> np.dtype:
        return self.first_weight.dtype

    @property
    def first_weight(self) -> nnx.Param[Array]:
        row = next(iter(weights.rows(self.config, self.head)))
        return self.get_weight(row.name if self.head == "Model" else weights.PREFIX + row.name)

    def num_parameters(self) -> int:
        """Returns the number of trainable numbers; a tied weight counts once."""
        return sum(math.prod(weight.shape) for weight in jax.tree.leaves(nnx.state(self, nnx.Param)))

    def __repr__(self) -> str:
        name = class_name(self.config, self.head)
        return f"{name}({self.num_parameters():,} parameters, {dtype_name(self.dtype)}, {place(self.first_weight)})"

    __str__ = __repr__  # NNX has one of its own, which lists every array


def to_tensor(array: np.ndarray, dtype: np.dtype) -> Array:
    """Copies a NumPy array, bfloat16 included."""
    return jnp.array(array, dtype)


def to_array(tensor: nnx.Param[Array]) -> np.ndarray:
    """Copies a tensor to NumPy, bfloat16 included."""
    return np.asarray(tensor.get_value())
