"""Outputs of the models, made from the head table: read by attribute, key, index or slice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self

from gptzoo.heads import HEADS


class ModelOutput(dict[str, Any]):
    """Named outputs in the order of the head table; those that are None are left out.

    `out.logits`, `out["logits"]`, `out[0]` and `out[:2]` all work; an attribute of the head that is absent is None.
    A dict underneath, so that every framework's tree utilities take it apart and put it together again.

    Raises:
        KeyError: an output that the head does not have.
    """

    head: ClassVar[str]

    def __init__(self, *args: Any, **kwargs: Any):
        given = dict(*args, **kwargs)
        for name in self.names():
            if given.get(name) is not None:
                super().__setitem__(name, given[name])
        if unknown := set(given) - set(self.names()):
            raise KeyError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return tuple(output.name for output in HEADS[cls.head].outputs)

    def to_tuple(self) -> tuple[Any, ...]:
        """Returns the outputs that are there, in the order of the head table."""
        return tuple(self[name] for name in self.names() if name in self)

    def flatten(self) -> tuple[list[Any], tuple[str, ...]]:
        """Takes the output apart for a framework's trees: into what it holds, and the names of that."""
        names = tuple(name for name in self.names() if name in self)
        return [self[name] for name in names], names

    @classmethod
    def unflatten(cls, names: Iterable[str], leaves: Iterable[Any]) -> Self:
        """Puts an output together again; leaves are as they come, also None, which the constructor would leave out."""
        output = cls()
        dict.update(output, zip(names, leaves, strict=True))
        return output

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self.names():
            raise KeyError(f"{type(self).__name__} has no {key}")
        super().__setitem__(key, value)

    def __getattr__(self, name: str) -> Any:
        if name in self.names():
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


class BaseModelOutput(ModelOutput):
    """last_hidden_state, past_key_values, hidden_states, attentions, cross_attentions."""

    head = "Model"


class CausalLMOutput(ModelOutput):
    """loss, logits, past_key_values, hidden_states, attentions, cross_attentions."""

    head = "LMHeadModel"


class DoubleHeadsModelOutput(ModelOutput):
    """loss, mc_loss, logits, mc_logits, past_key_values, hidden_states, attentions."""

    head = "DoubleHeadsModel"


class SequenceClassifierOutput(ModelOutput):
    """loss, logits, past_key_values, hidden_states, attentions."""

    head = "ForSequenceClassification"


class TokenClassifierOutput(ModelOutput):
    """loss, logits, hidden_states, attentions."""

    head = "ForTokenClassification"


class QuestionAnsweringOutput(ModelOutput):
    """loss, start_logits, end_logits, hidden_states, attentions."""

    head = "ForQuestionAnswering"


OUTPUTS: dict[str, type[ModelOutput]] = {output.head: output for output in ModelOutput.__subclasses__()}

# What the original documentation calls these classes. Where a family or a head had fewer fields there, such as no
# past_key_values in GPT and no losses in TensorFlow's double heads, those fields are None here unless asked for.
BaseModelOutputWithPastAndCrossAttentions = BaseModelOutput
CausalLMOutputWithCrossAttentions = CausalLMOutput
GPT2DoubleHeadsModelOutput = DoubleHeadsModelOutput
OpenAIGPTDoubleHeadsModelOutput = DoubleHeadsModelOutput
SequenceClassifierOutputWithPast = SequenceClassifierOutput
QuestionAnsweringModelOutput = QuestionAnsweringOutput

TFBaseModelOutput = BaseModelOutput
TFBaseModelOutputWithPastAndCrossAttentions = BaseModelOutput
TFCausalLMOutput = CausalLMOutput
TFCausalLMOutputWithCrossAttentions = CausalLMOutput
TFGPT2DoubleHeadsModelOutput = DoubleHeadsModelOutput
TFOpenAIGPTDoubleHeadsModelOutput = DoubleHeadsModelOutput
TFQuestionAnsweringModelOutput = QuestionAnsweringOutput
TFSequenceClassifierOutput = SequenceClassifierOutput
TFSequenceClassifierOutputWithPast = SequenceClassifierOutput
TFTokenClassifierOutput = TokenClassifierOutput

FlaxBaseModelOutputWithPastAndCrossAttentions = BaseModelOutput
FlaxCausalLMOutputWithCrossAttentions = CausalLMOutput

__all__ = [
    "BaseModelOutput",
    "BaseModelOutputWithPastAndCrossAttentions",
    "CausalLMOutput",
    "CausalLMOutputWithCrossAttentions",
    "FlaxBaseModelOutputWithPastAndCrossAttentions",
    "FlaxCausalLMOutputWithCrossAttentions",
    "GPT2DoubleHeadsModelOutput",
    "ModelOutput",
    "OpenAIGPTDoubleHeadsModelOutput",
    "QuestionAnsweringModelOutput",
    "SequenceClassifierOutput",
    "SequenceClassifierOutputWithPast",
    "TFBaseModelOutput",
    "TFBaseModelOutputWithPastAndCrossAttentions",
    "TFCausalLMOutput",
    "TFCausalLMOutputWithCrossAttentions",
    "TFGPT2DoubleHeadsModelOutput",
    "TFOpenAIGPTDoubleHeadsModelOutput",
    "TFQuestionAnsweringModelOutput",
    "TFSequenceClassifierOutput",
    "TFSequenceClassifierOutputWithPast",
    "TFTokenClassifierOutput",
    "TokenClassifierOutput",
]
