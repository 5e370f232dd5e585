"""The names of the original's TensorFlow models: those of `gptzoo.keras`, called and exported as TensorFlow's were.

They differ from the plain classes in the order of positional arguments, in what `input_signature`, `serving` and
`export` give, and in the further arguments of `save_pretrained`.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Self

import keras
from keras import ops

from gptzoo._auto import Auto
from gptzoo.config import GPT2Config, OpenAIGPTConfig
from gptzoo.errors import InputError, MissingExtraError
from gptzoo.heads import HEADS
from gptzoo.keras._auto import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from gptzoo.keras._gpt import OpenAIGPTModel
from gptzoo.keras._gpt2 import GPT2Model
from gptzoo.keras._heads import (
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
from gptzoo.keras._layers import Tensor
from gptzoo.keras._pretrained import PreTrainedModel
from gptzoo.keras._tokenizer import GPT2Tokenizer

# Positional arguments of TensorFlow's calls, of which each model takes those that it has. Unlike in the plain classes,
# labels come last.
ORDER = (
    "input_ids",
    "past_key_values",
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "head_mask",
    "inputs_embeds",
    "encoder_hidden_states",
    "encoder_attention_mask",
    "mc_token_ids",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "labels",
    "mc_labels",
    "start_positions",
    "end_positions",
    "training",
)
NOT_IN_GPT = ("past_key_values", "encoder_hidden_states", "encoder_attention_mask", "use_cache")


class TFPreTrainedModel(PreTrainedModel):
    """Base of the models with TensorFlow's old names."""

    def name_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Returns a call's arguments by name, positional ones being in TensorFlow's order.

        Raises:
            InputError: there are too many, or one is given twice.
        """
        order = self.call_order
        if len(args) > len(order):
            raise InputError(f"{len(args)} positional arguments, expected at most {len(order)}: {', '.join(order)}")
        named = dict(zip(order, args, strict=False))
        if twice := [name for name in named if name in kwargs]:
            raise InputError(f"call of {type(self).__name__}: given twice: {', '.join(twice)}")
        given = super().name_inputs((), named | kwargs)
        labels: Any = given.get("labels")
        if labels is not None and len(labels.shape) == 0:  # the documentation's `labels = tf.constant(1)`
            given["labels"] = ops.reshape(labels, (1,))
        return given

    @property
    def call_order(self) -> tuple[str, ...]:
        """The positional arguments of TensorFlow's model; what GPT gained here is taken by name only."""
        absent = NOT_IN_GPT if self.config_class is OpenAIGPTConfig else ()
        return tuple(name for name in ORDER if name in inspect.signature(self.call).parameters and name not in absent)

    @property
    def input_signature(self) -> dict[str, Any]:
        """What an exported model takes: a `tf.TensorSpec` of each array by its name, of any batch size and length."""
        return self._signature("int32")

    @property
    def serving(self) -> Any:
        """A `tf.function` from a dict of arrays, as `input_signature` says, to a dict of arrays.

        Made anew at each use: one that was traced before would not see that the model's weights were resized since.
        """
        return self._serving("int32")

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        saved_model: bool = False,
        version: int = 1,
        push_to_hub: bool = False,
        signatures: Any = None,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
    ) -> None:
        """Writes config.json and safetensors, and on demand a SavedModel.

        Args:
            saved_model: whether to write a SavedModel into `saved_model/<version>` too.
            push_to_hub: must be false.
            signatures: of the SavedModel; None: `serving_default`, and `int64_serving` for int64 arrays.
            safe_serialization: without effect: tf_model.h5 is not written.
        """
        if push_to_hub:
            raise InputError("push_to_hub: True, expected False: gptzoo does not upload")
        super().save_pretrained(save_directory, max_shard_size=max_shard_size)
        if saved_model:
            if signatures is None:
                signatures = {"serving_default": self.serving, "int64_serving": self._serving("int64")}
            tensorflow().saved_model.save(self, str(Path(save_directory, "saved_model", str(version))), signatures)

    def export(
        self,
        filepath: str | Path,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """As Keras' `export`; without a given signature a SavedModel takes arrays by name: `input_signature`."""
        if format != "tf_saved_model" or input_signature is not None:
            super().export(filepath, format, verbose, input_signature, **kwargs)
            return
        archive = keras.export.ExportArchive()
        archive.track(self)
        archive.add_endpoint("serve", self._serve, [self.input_signature])
        archive.write_out(filepath, verbose=verbose)

    def _signature(self, dtype: str) -> dict[str, Any]:
        tokens = [None, None, None] if self.head == "DoubleHeadsModel" else [None, None]
        shapes = {"input_ids": tokens, "attention_mask": tokens}
        if "mc_token_ids" in HEADS[self.head].arguments:
            shapes["mc_token_ids"] = tokens[:-1]
        spec = tensorflow().TensorSpec
        return {name: spec(shape, dtype, name=name) for name, shape in shapes.items()}

    def _serving(self, dtype: str) -> Any:
        return tensorflow().function(self._serve, input_signature=[self._signature(dtype)])

    def _serve(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Calls the model; several arrays under one name, which a signature cannot return, become one."""
        output = self(inputs, return_dict=True, training=False)
        return {name: stacked(value) for name, value in output.items()}


def stacked(value: Any) -> Tensor:
    """Returns an array as it is, and a tuple of arrays, or of pairs of arrays, as one with an axis for each level."""
    return ops.stack([stacked(entry) for entry in value]) if isinstance(value, tuple | list) else value


def tensorflow() -> Any:
    """Returns the module of TensorFlow, which SavedModels are made with.

    Raises:
        MissingExtraError: Keras runs on another backend.
    """
    if keras.backend.backend() != "tensorflow":
        raise MissingExtraError(
            f"a SavedModel needs Keras on TensorFlow, found {keras.backend.backend()}: set KERAS_BACKEND=tensorflow"
        )
    import tensorflow

    return tensorflow


class TFGPT2PreTrainedModel(TFPreTrainedModel):
    """Base of the GPT-2 models here."""

    config_class = GPT2Config


class TFOpenAIGPTPreTrainedModel(TFPreTrainedModel):
    """Base of the GPT models here."""

    config_class = OpenAIGPTConfig


@keras.saving.register_keras_serializable("gptzoo")
class TFGPT2Model(TFGPT2PreTrainedModel, GPT2Model):
    """GPT-2 without a head."""


@keras.saving.register_keras_serializable("gptzoo")
class TFOpenAIGPTModel(TFOpenAIGPTPreTrainedModel, OpenAIGPTModel):
    """GPT without a head."""


@keras.saving.register_keras_serializable("gptzoo")
class TFGPT2LMHeadModel(TFGPT2PreTrainedModel, GPT2LMHeadModel):
    """GPT-2 with a language model head."""


@keras.saving.register_keras_serializable("gptzoo")
class TFOpenAIGPTLMHeadModel(TFOpenAIGPTPreTrainedModel, OpenAIGPTLMHeadModel):
    """GPT with a language model head."""


@keras.saving.register_keras_serializable("gptzoo")
class TFGPT2DoubleHeadsModel(TFGPT2PreTrainedModel, GPT2DoubleHeadsModel):
    """GPT-2 with a language model head and a multiple choice head."""


@keras.saving.register_keras_serializable("gptzoo")
class TFOpenAIGPTDoubleHeadsModel(TFOpenAIGPTPreTrainedModel, OpenAIGPTDoubleHeadsModel):
    """GPT with a language model head and a multiple choice head."""


@keras.saving.register_keras_serializable("gptzoo")
class TFGPT2ForSequenceClassification(TFGPT2PreTrainedModel, GPT2ForSequenceClassification):
    """GPT-2 with a classifier of sequences."""


@keras.saving.register_keras_serializable("gptzoo")
class TFOpenAIGPTForSequenceClassification(TFOpenAIGPTPreTrainedModel, OpenAIGPTForSequenceClassification):
    """GPT with a classifier of sequences."""


@keras.saving.register_keras_serializable("gptzoo")
class TFGPT2ForTokenClassification(TFGPT2PreTrainedModel, GPT2ForTokenClassification):
    """GPT-2 with a classifier of tokens."""


@keras.saving.register_keras_serializable("gptzoo")
class TFOpenAIGPTForTokenClassification(TFOpenAIGPTPreTrainedModel, OpenAIGPTForTokenClassification):
    """GPT with a classifier of tokens."""


@keras.saving.register_keras_serializable("gptzoo")
class TFGPT2ForQuestionAnswering(TFGPT2PreTrainedModel, GPT2ForQuestionAnswering):
    """GPT-2 with a finder of answers in a text."""


@keras.saving.register_keras_serializable("gptzoo")
class TFOpenAIGPTForQuestionAnswering(TFOpenAIGPTPreTrainedModel, OpenAIGPTForQuestionAnswering):
    """GPT with a finder of answers in a text."""


@keras.saving.register_keras_serializable("gptzoo")
class TFGPT2Tokenizer(GPT2Tokenizer):
    """GPT-2's tokenizer as a layer; ids are ragged unless there are both a `max_length` and a `pad_token_id`.

    Args:
        vocab, merges, max_length, pad_token_id, options: as of `gptzoo.keras.GPT2Tokenizer`.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: list[str],
        max_length: int | None = None,
        pad_token_id: int | None = None,
        **options: Any,
    ):
        options["ragged"] = True  # where it can be, see below
        super().__init__(vocab, merges, max_length=max_length, pad_token_id=pad_token_id, **options)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, *args: Any, **options: Any) -> Self:
        """As `gptzoo.keras.GPT2Tokenizer.from_tokenizer`; `args` are `max_length` and `pad_token_id`."""
        return super().from_tokenizer(
            tokenizer, **dict(zip(("max_length", "pad_token_id"), args, strict=False)), **options
        )

    def _is_ragged(self, length: int | None) -> bool:
        return length is None or self.pad_token_id is None


class OldNames(Auto):
    """Makes the Auto classes here choose from the models here."""

    home = __name__
    prefix = "TF"


class TFAutoModel(OldNames, AutoModel):
    """Makes a model without a head."""


class TFAutoModelForCausalLM(OldNames, AutoModelForCausalLM):
    """Makes a model with a language model head."""


class TFAutoModelForSequenceClassification(OldNames, AutoModelForSequenceClassification):
    """Makes a model with a classifier of sequences."""


class TFAutoModelForTokenClassification(OldNames, AutoModelForTokenClassification):
    """Makes a model with a classifier of tokens."""


class TFAutoModelForQuestionAnswering(OldNames, AutoModelForQuestionAnswering):
    """Makes a model with a finder of answers in a text."""


# What a model with a head has as its `transformer`.
TFGPT2MainLayer = GPT2Model
TFOpenAIGPTMainLayer = OpenAIGPTModel

__all__ = [
    "TFAutoModel",
    "TFAutoModelForCausalLM",
    "TFAutoModelForQuestionAnswering",
    "TFAutoModelForSequenceClassification",
    "TFAutoModelForTokenClassification",
    "TFGPT2DoubleHeadsModel",
    "TFGPT2ForQuestionAnswering",
    "TFGPT2ForSequenceClassification",
    "TFGPT2ForTokenClassification",
    "TFGPT2LMHeadModel",
    "TFGPT2MainLayer",
    "TFGPT2Model",
    "TFGPT2PreTrainedModel",
    "TFGPT2Tokenizer",
    "TFOpenAIGPTDoubleHeadsModel",
    "TFOpenAIGPTForQuestionAnswering",
    "TFOpenAIGPTForSequenceClassification",
    "TFOpenAIGPTForTokenClassification",
    "TFOpenAIGPTLMHeadModel",
    "TFOpenAIGPTMainLayer",
    "TFOpenAIGPTModel",
    "TFOpenAIGPTPreTrainedModel",
    "TFPreTrainedModel",
]
