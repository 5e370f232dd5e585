"""The names of the original's Flax models: those of `gptzoo.flax`, made and called as the linen models were.

They differ from the plain classes in the constructor, the order of positional arguments, `_do_init`, the dtype of the
computation, which is float32 whatever the weights are stored in, and in the methods that make or cast weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util
from jax import Array

from gptzoo import weights
from gptzoo._auto import Auto
from gptzoo.cache import StaticCache
from gptzoo.config import GPT2Config, GPTConfig, OpenAIGPTConfig
from gptzoo.errors import InputError
from gptzoo.flax._auto import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from gptzoo.flax._gpt import OpenAIGPTModel
from gptzoo.flax._gpt2 import GPT2Model
from gptzoo.flax._heads import (
    GPT2DoubleHeadsModel,
    GPT2ForQuestionAnswering,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    OpenAIGPTDoubleHeadsModel,
    OpenAIGPTForQuestionAnswering,
    OpenAIGPTForSequenceClassification,
    OpenAIGPTForTokenClassification,
    OpenAIGPTLMHeadModel,
)
from gptzoo.flax._nnx import initial_value, seed_of, to_dtype
from gptzoo.flax._pretrained import PreTrainedModel
from gptzoo.heads import HEADS


class FlaxPreTrainedModel(PreTrainedModel):
    """Base of the models with Flax's old names.

    Args:
        input_shape: without effect: weights do not depend on it.
        seed: of the initial weights.
        dtype: of the computation; None: that of the weights.
        _do_init: whether the model holds weights; if not, each call needs `params`.
        param_dtype: of the weights; None: the config's, or float32.
    """

    def __init__(
        self,
        config: GPTConfig,
        input_shape: tuple[int, ...] = (1, 1),
        seed: int | None = 0,
        dtype: Any = jnp.float32,
        _do_init: bool = True,
        *,
        param_dtype: Any = None,
    ):
        super().__init__(config, seed if _do_init else None, dtype=dtype, param_dtype=param_dtype)

    def __call__(
        self,
        input_ids: Array | None = None,
        attention_mask: Array | None = None,
        position_ids: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        params: Any = None,
        past_key_values: Any = None,
        dropout_rng: Any = None,
        train: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> Any:
        """Calls the model: as the plain class, but for the order of arguments.

        Args:
            past_key_values: the cache is returned where one is given, unless `use_cache` says otherwise.
            others: arguments of the plain class that Flax's models did not have, by their names.
        """
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
            "past_key_values": past_key_values,
        }
        if "past_key_values" in HEADS[self.head].arguments:
            others.setdefault("use_cache", past_key_values is not None)
        return super().__call__(  # type: ignore[misc]  # of the plain class, which each model here also is
            **{name: value for name, value in given.items() if value is not None},
            params=params,
            dropout_rng=dropout_rng,
            train=train,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=return_dict,
            **others,
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        dtype: Any = jnp.float32,
        *,
        _do_init: bool = True,
        **options: Any,
    ) -> Any:
        """Loads a checkpoint, its weights in the dtype they are stored in.

        Args:
            dtype: of the computation; None: that of the weights.
            _do_init: whether the model holds the weights.
            options: as of the plain class.

        Returns:
            The model; without `_do_init` a model without weights, and the weights.
        """
        with_info = options.pop("output_loading_info", False)
        model = super().from_pretrained(pretrained_model_name_or_path, **options)
        for part in {model, model.base_model}:
            part._dtype = None if dtype is None else to_dtype(dtype)
        result = (model,) if _do_init else (model, model.take_params())
        if with_info and model.load_report:
            result = (*result, model.load_report.loading_info())
        return model if len(result) == 1 else result

    def take_params(self) -> dict[str, Any]:
        """Returns the weights; the model forgets them, and knows their shapes only."""
        params = self.params
        for name in self._flat(params):
            weight = self.get_weight(name)
            shape: Any = jax.ShapeDtypeStruct(weight.shape, weight.dtype)
            weight.set_value(shape)
        return params

    def init_weights(  # type: ignore[override]
        self, rng: Any = 0, input_shape: Any = None, params: Any = None
    ) -> dict[str, Any] | None:
        """Returns initial weights, nested as in `params`; the model keeps its own.

        Args:
            rng: JAX key. (The plain classes' constructors come by here with a seed, for the model's own weights.)
            input_shape: without effect: weights do not depend on it.
            params: weights to be taken as they are, where there are some already.
        """
        if not isinstance(rng, Array):
            super().init_weights(rng, input_shape, params)
            return None
        specs = {name: spec for name, spec in weights.specs(self.config, self.head).items() if not spec.tied}
        values = {name: jnp.asarray(initial_value(spec, seed_of(rng))) for name, spec in specs.items()}
        return traverse_util.unflatten_dict(values | self._flat(params or {}), sep=".")

    @property
    def params(self) -> dict[str, Any]:
        """Every weight that is not tied, in nested dicts; to be replaced as a whole.

        Raises:
            InputError: the model was made with `_do_init=False`, or the new ones do not fit.
        """
        self.require_values()
        return super().params

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "params":  # NNX refuses arrays in nested dicts before a property's setter could have them
            self.set_params(value)
        else:
            super().__setattr__(name, value)

    def set_params(self, params: Any) -> None:
        """Replaces the model's weights: what `model.params = params` does."""
        self.require_values()
        nnx.update(self, nnx.state(self.with_params(params), nnx.Param))

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        params: Any = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
    ) -> None:
        """Writes config.json and safetensors.

        Args:
            params: weights in place of the model's own.
            push_to_hub: must be false.
            safe_serialization: without effect: flax_model.msgpack is not written.
        """
        if push_to_hub:
            raise InputError("push_to_hub: True, expected False: gptzoo does not upload")
        PreTrainedModel.save_pretrained(self.with_params(params), save_directory, max_shard_size=max_shard_size)

    def to_bf16(self, params: Any, mask: Any = None) -> Any:
        """Returns params in bfloat16, but for those whose entry in `mask`, a tree of the same form, is false."""
        return cast_floating(params, jnp.bfloat16, mask)

    def to_fp16(self, params: Any, mask: Any = None) -> Any:
        """As `to_bf16`, in float16."""
        return cast_floating(params, jnp.float16, mask)

    def to_fp32(self, params: Any, mask: Any = None) -> Any:
        """As `to_bf16`, in float32."""
        return cast_floating(params, jnp.float32, mask)

    def prepare_inputs_for_generation(
        self, input_ids: Array, max_length: int, attention_mask: Array | None = None
    ) -> dict[str, Any]:
        """Returns the arguments of the first call of a completion: a cache, a mask as long as it, and positions.

        Padding gets position 0, where Flax had -1, which is no position.
        """
        rows, n_tokens = input_ids.shape
        mask = jnp.ones((rows, n_tokens), jnp.int32) if attention_mask is None else jnp.asarray(attention_mask)
        return {
            "past_key_values": self.init_cache(rows, max_length),
            "attention_mask": jnp.pad(mask, ((0, 0), (0, max_length - n_tokens)), constant_values=1),
            "position_ids": jnp.maximum(mask.cumsum(-1) - 1, 0),
        }

    def update_inputs_for_generation(self, model_outputs: Any, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments of the next call, for one new token, from those of a call and its output."""
        past: StaticCache = model_outputs.past_key_values
        return model_kwargs | {"past_key_values": past, "position_ids": model_kwargs["position_ids"][:, -1:] + 1}

    @staticmethod
    def _flat(params: Any) -> dict[str, Any]:
        return {".".join(path): value for path, value in traverse_util.flatten_dict(params).items()}


def cast_floating(params: Any, dtype: Any, mask: Any = None) -> Any:
    """Casts the floating arrays of a tree, or those of them that a tree of truth values names."""

    def cast(x: Array, wanted: Any = True) -> Array:
        return x.astype(dtype) if wanted and jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, params) if mask is None else jax.tree.map(cast, params, mask)


class FlaxGPT2PreTrainedModel(FlaxPreTrainedModel):
    """Base of the GPT-2 models here."""

    config_class = GPT2Config


class FlaxOpenAIGPTPreTrainedModel(FlaxPreTrainedModel):
    """Base of the GPT models here."""

    config_class = OpenAIGPTConfig


class FlaxGPT2Model(FlaxGPT2PreTrainedModel, GPT2Model):
    """GPT-2 without a head."""


class FlaxOpenAIGPTModel(FlaxOpenAIGPTPreTrainedModel, OpenAIGPTModel):
    """GPT without a head."""


class FlaxGPT2LMHeadModel(FlaxGPT2PreTrainedModel, GPT2LMHeadModel):
    """GPT-2 with a language model head."""


class FlaxOpenAIGPTLMHeadModel(FlaxOpenAIGPTPreTrainedModel, OpenAIGPTLMHeadModel):
    """GPT with a language model head."""


class FlaxGPT2DoubleHeadsModel(FlaxGPT2PreTrainedModel, GPT2DoubleHeadsModel):
    """GPT-2 with a language model head and a multiple choice head."""


class FlaxOpenAIGPTDoubleHeadsModel(FlaxOpenAIGPTPreTrainedModel, OpenAIGPTDoubleHeadsModel):
    """GPT with a language model head and a multiple choice head."""


class FlaxGPT2ForSequenceClassification(FlaxGPT2PreTrainedModel, GPT2ForSequenceClassification):
    """GPT-2 with a classifier of sequences."""


class FlaxOpenAIGPTForSequenceClassification(FlaxOpenAIGPTPreTrainedModel, OpenAIGPTForSequenceClassification):
    """GPT with a classifier of sequences."""


class FlaxGPT2ForTokenClassification(FlaxGPT2PreTrainedModel, GPT2ForTokenClassification):
    """GPT-2 with a classifier of tokens."""


class FlaxOpenAIGPTForTokenClassification(FlaxOpenAIGPTPreTrainedModel, OpenAIGPTForTokenClassification):
    """GPT with a classifier of tokens."""


class FlaxGPT2ForQuestionAnswering(FlaxGPT2PreTrainedModel, GPT2ForQuestionAnswering):
    """GPT-2 with a finder of answers in a text."""


class FlaxOpenAIGPTForQuestionAnswering(FlaxOpenAIGPTPreTrainedModel, OpenAIGPTForQuestionAnswering):
    """GPT with a finder of answers in a text."""


class OldNames(Auto):
    """Makes the Auto classes here choose from the models here."""

    home = __name__
    prefix = "Flax"
    options = ("dtype", "input_shape", "_do_init")  # which the constructors of `gptzoo.flax` lack, or mean otherwise


class FlaxAutoModel(OldNames, AutoModel):
    """Makes a model without a head."""


class FlaxAutoModelForCausalLM(OldNames, AutoModelForCausalLM):
    """Makes a model with a language model head."""


class FlaxAutoModelForSequenceClassification(OldNames, AutoModelForSequenceClassification):
    """Makes a model with a classifier of sequences."""


class FlaxAutoModelForTokenClassification(OldNames, AutoModelForTokenClassification):
    """Makes a model with a classifier of tokens."""


class FlaxAutoModelForQuestionAnswering(OldNames, AutoModelForQuestionAnswering):
    """Makes a model with a finder of answers in a text."""


__all__ = [
    "FlaxAutoModel",
    "FlaxAutoModelForCausalLM",
    "FlaxAutoModelForQuestionAnswering",
    "FlaxAutoModelForSequenceClassification",
    "FlaxAutoModelForTokenClassification",
    "FlaxGPT2DoubleHeadsModel",
    "FlaxGPT2ForQuestionAnswering",
    "FlaxGPT2ForSequenceClassification",
    "FlaxGPT2ForTokenClassification",
    "FlaxGPT2LMHeadModel",
    "FlaxGPT2Model",
    "FlaxGPT2PreTrainedModel",
    "FlaxOpenAIGPTDoubleHeadsModel",
    "FlaxOpenAIGPTForQuestionAnswering",
    "FlaxOpenAIGPTForSequenceClassification",
    "FlaxOpenAIGPTForTokenClassification",
    "FlaxOpenAIGPTLMHeadModel",
    "FlaxOpenAIGPTModel",
    "FlaxOpenAIGPTPreTrainedModel",
    "FlaxPreTrainedModel",
]
