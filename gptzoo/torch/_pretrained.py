"""What every model in PyTorch can do: be made from a config or a checkpoint, be saved, make a cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn

import gptzoo.torch._trees  # noqa: F401  (lets outputs pass through torch.export and torch.func)
from gptzoo import weights
from gptzoo._devices import device_of_map, find_device
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
from gptzoo.generation import GenerationConfig
from gptzoo.generation._config import generation_config_of, saved_files, stored_generation_config
from gptzoo.heads import class_name
from gptzoo.hub import take_options
from gptzoo.outputs import ModelOutput
from gptzoo.torch._attention import require_flash
from gptzoo.torch._generation import GenerationMixin
from gptzoo.torch._layers import Embedding
from gptzoo.torch._surgery import SurgeryMixin


class PreTrainedModel(nn.Module, GenerationMixin, SurgeryMixin):
    """Base of all models.

    Args:
        config: of the model's family; its `dtype` is that of the weights and the computation, float32 if None.
        seed: of the initial values, which are the same numbers in every framework; None leaves the weights unfilled.

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

    def __init__(self, config: GPTConfig, seed: int | None = 0):
        super().__init__()
        if not isinstance(config, self.config_class):
            raise ConfigError(f"{type(self).__name__} needs a {self.config_class.__name__}, got {config!r:.80}")
        config.validate()
        if config.attn_implementation == "flash_attention_2":
            require_flash()
        self.config = config
        self.generation_config = generation_config_of(getattr(self, "head", None), config)

    def init_weights(self, seed: int | None = 0) -> None:
        """Fills every weight with its initial value from the weight table; None leaves the weights as they are."""
        if self.config.dtype is not None:
            self.to(getattr(torch, self.config.dtype))
        if seed is None or self.device.type == "meta":
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
        """Loads a checkpoint, in evaluation mode.

        Args:
            pretrained_model_name_or_path: a checkpoint directory; or the name of a model, bundled or on the
                Hugging Face hub.
            config: to be used in place of the checkpoint's own; or the path or name of one.
            dtype: of the weights and the computation; None or "auto": that of `config`, or as stored.
            device: where the weights go.
            seed: for a head that the checkpoint does not have.
            ignore_mismatched_sizes: whether weights that are stored in another shape get initial values; they are
                named in `load_report.mismatched`.
            output_loading_info: whether to return (model, `load_report.loading_info()`).
            overrides: config fields that win over the checkpoint's, such as `num_labels=3`; and
                `gptzoo.hub.HubOptions` by their names, such as `revision="v1"`. `device_map="auto"` is the first
                accelerator, or else the CPU. Arguments of other libraries that change nothing here are passed over:
                `gptzoo._load.FOREIGN_ARGUMENTS`.

        Raises:
            CheckpointError: lists everything in the checkpoint that does not fit.
            ConfigError: lists every override with a wrong value, or of a name that means nothing; or what is wrong with
                generation_config.json.
        """
        dtype = overrides.pop("torch_dtype", dtype)  # its older name
        hub, overrides = take_options(overrides)
        given = given_config(cls.config_class, config, hub)
        checkpoint = open_checkpoint(pretrained_model_name_or_path, given, hub)
        device = to_device(device, overrides.pop("device_map", None))
        overrides = config_overrides(checkpoint.config, cls.config_class, overrides)
        config = cls.config_class.derive(given or checkpoint.config, **overrides)
        plan = plan_load(checkpoint, config, cls.head, ignore_mismatched_sizes)
        generation = stored_generation_config(cls.head, checkpoint.path, config, overrides)
        config.dtype = dtype_name(plan.chosen_dtype(dtype, given))
        with torch.device("meta"):  # shapes only: nothing is filled twice
            model = cls(config, seed=None)
        for name, array in plan.values(seed):
            module, leaf = weights.follow(model, name)
            value = to_tensor(array).to(device=device, dtype=getattr(torch, config.dtype))
            setattr(module, leaf, nn.Parameter(value))
        model.tie_weights()
        model.load_report, model.generation_config = plan.report, generation
        model.eval()
        return (model, plan.report.loading_info()) if output_loading_info else model  # type: ignore[return-value]

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        *,
        max_shard_size: int | str = "5GB",
        **foreign: Any,
    ) -> None:
        """Writes config.json and safetensors, which Transformers and the other frameworks here load as they are.

        Also generation_config.json, of a model that generates.

        Args:
            is_main_process: whether to write at all: of several processes one should.
            state_dict: values in place of the model's own, as training over several processes gathers them.
            foreign: arguments of Transformers that change nothing here.

        Raises:
            InputError: lists every foreign argument that would, and every weight that `state_dict` lacks.
        """
        refuse_foreign("save_pretrained", foreign)
        if not is_main_process:
            return
        specs = weights.specs(self.config, self.head)
        values = dict(state_dict) if state_dict is not None else {name: self.get_weight(name) for name in specs}
        if absent := [f"{name}: absent" for name, spec in specs.items() if name not in values and not spec.tied]:
            raise InputError.listing("state_dict", absent)
        tensors = {name: lambda name=name: to_array(values[name]) for name in specs if name in values}
        extra = saved_files(self.generation_config, self.config)
        save_checkpoint(save_directory, self.config, self.head, tensors, max_shard_size=max_shard_size, extra=extra)

    def get_weight(self, name: str) -> Tensor:
        """Returns a weight by its canonical name."""
        module, leaf = weights.follow(self, name)
        return getattr(module, leaf)

    def set_weight(self, name: str, value: np.ndarray) -> None:
        """Changes the value of a weight, named canonically, in place."""
        weight = self.get_weight(name)
        if tuple(value.shape) != tuple(weight.shape):
            raise InputError(f"{name}: shape {tuple(value.shape)}, expected {tuple(weight.shape)}")
        with torch.no_grad():
            weight.copy_(to_tensor(value))

    def read_weight(self, name: str) -> np.ndarray:
        """Returns the value of a weight, named canonically."""
        return to_array(self.get_weight(name))

    def replace_weight(self, name: str, value: np.ndarray) -> None:
        """Gives a weight, named canonically, a value of another shape."""
        module, leaf = weights.follow(self, name)
        old = getattr(module, leaf)
        new = to_tensor(value).to(old.device, old.dtype)
        setattr(module, leaf, nn.Parameter(new, requires_grad=old.requires_grad))

    def tie_weights(self) -> None:
        """Makes each tied weight the same object as the one it is tied to."""
        for name, spec in weights.specs(self.config, self.head).items():
            if spec.tied:
                module, leaf = weights.follow(self, name)
                setattr(module, leaf, self.get_weight(spec.tied))

    def init_cache(self, batch_size: int, max_length: int) -> StaticCache:
        """Returns an empty cache of fixed capacity, for `past_key_values`.

        Raises:
            InputError: the config has fewer positions.
        """
        shapes = cache_shapes(self.config, batch_size, max_length)
        layers = tuple((self.zeros(shape), self.zeros(shape)) for shape in shapes)
        return StaticCache(layers, torch.zeros((), dtype=torch.long, device=self.device))

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Saves memory in training: each block's inner values are computed again for the gradient, and not kept.

        Raises:
            InputError: an option other than `use_reentrant=False`, the form of PyTorch's checkpoint that is used.
        """
        if gradient_checkpointing_kwargs not in (None, {}, {"use_reentrant": False}):
            given = f"gradient_checkpointing_kwargs: {gradient_checkpointing_kwargs}"
            raise InputError(f"{given}, expected use_reentrant=False")
        self.base_model.gradient_checkpointing = True

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Any = None, every_n_layers: int = 1, offload: bool = False
    ) -> None:
        """What Transformers' Trainer calls."""
        if every_n_layers != 1 or offload:
            raise InputError(f"every_n_layers={every_n_layers}, offload={offload}, expected 1 and False")
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs)

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

    def zeros(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def cast(self, x: Tensor) -> Tensor:
        """Brings a floating input to the dtype of the computation."""
        return x.to(self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Returns the number of trainable numbers; a tied weight counts once. Transformers' Trainer asks it so."""
        left_out = {id(layer.weight) for layer in self.modules() if isinstance(layer, Embedding) and exclude_embeddings}
        counted = [x for x in self.parameters() if id(x) not in left_out and (x.requires_grad or not only_trainable)]
        return sum(parameter.numel() for parameter in counted)

    def __repr__(self) -> str:
        name = class_name(self.config, self.head)
        return f"{name}({self.num_parameters():,} parameters, {dtype_name(self.dtype)}, {self.device})"


def to_device(device: Any, device_map: Any = None) -> torch.device | None:
    """Returns a device by its name.

    Args:
        device_map: "auto": the first accelerator, or else the CPU; a device's name is `device`.

    Raises:
        InputError: there is none of this name, or both are given.
    """
    if device_map is not None:
        return find_device("torch", device_of_map(device, device_map), "device_map")[1]
    try:
        return None if device is None else torch.device(device)
    except RuntimeError as problem:
        raise InputError(f"device: {device!r}: {str(problem).splitlines()[0]}") from None


def to_tensor(array: np.ndarray) -> Tensor:
    """Shares the memory of a NumPy array, bfloat16 included."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: Tensor) -> np.ndarray:
    """Copies a tensor to NumPy, bfloat16 included."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
