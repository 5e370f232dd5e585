"""Configs of GPT and GPT-2: the fields of Hugging Face's config.json, each one consumed or refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from gptzoo import limits
from gptzoo._json import read_json_object
from gptzoo._settings import (
    FLAG,
    NAMES,
    NOT_NEGATIVE,
    POSITIVE,
    RATE,
    TOKEN,
    TOKENS,
    Rule,
    count,
    is_int,
    labels_of,
    one_of,
    only,
    optional,
    setting,
    short,
)
from gptzoo.errors import ConfigError

CONFIG_FILE = "config.json"

DTYPES = ("float16", "bfloat16", "float32", "float64")

# Every name under which Hugging Face knows an activation -> the function meant.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_10": "gelu_10",
    "gelu_new": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "laplace": "laplace",
    "leaky_relu": "leaky_relu",
    "linear": "linear",
    "mish": "mish",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "relu6": "relu6",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}

# Those that have trainable weights in each MLP -> the names of these.
TRAINED_ACTIVATIONS = {"prelu": ("weight",), "xielu": ("alpha_p", "alpha_n")}

MLP_ACTIVATIONS = (*ACTIVATIONS, *TRAINED_ACTIVATIONS)

ATTENTIONS = ("eager", "sdpa", "flash_attention_2")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
SUMMARY_TYPES = ("cls_index", "last", "first", "mean")
LABELS = frozenset({"num_labels", "id2label", "label2id"})
LABEL_IDS = labels_of(str, int)
HEAD_LISTS = Rule(
    "a map from block to a list of heads",
    lambda value: (
        isinstance(value, dict)
        and all(is_int(key) and isinstance(heads, list) and all(map(is_int, heads)) for key, heads in value.items())
    ),
)

# Foreign fields that would change the computation -> the values at which they do not.
INERT: dict[str, tuple[Any, ...]] = {
    "alibi": (False, None),
    "attn_logit_softcapping": (None,),
    "bias": (True, None),
    "chunk_size_feed_forward": (0, None),
    "cross_attention_hidden_size": (None,),
    "embedding_scale": (1, None),
    "final_logit_softcapping": (None,),
    "is_encoder_decoder": (False, None),
    "layer_norm_type": ("layer_norm", None),
    "logit_scale": (1, None),
    "multi_query": (False, None),
    "n_special": (0, None),
    "num_key_value_heads": (None,),
    "parallel_attn": (False, None),
    "position_embedding_type": ("absolute", None),
    "quantization_config": (None,),
    "residual_scale": (1, None),
    "rope_parameters": (None,),
    "rope_scaling": (None,),
    "rope_theta": (None,),
    "rotary_dim": (None,),
    "sliding_window": (None,),
    "tf_legacy_loss": (False, None),
    "tie_encoder_decoder": (False, None),
    "torchscript": (False, None),
    "use_bfloat16": (False, None),
    "use_rms_norm": (False, None),
}

# What other libraries call our fields: kept quietly, they would be believed to have an effect.
MISNAMED = {
    "activation": "activation_function",
    "attention_dropout": "attn_pdrop",
    "attn_dropout": "attn_pdrop",
    "block_size": "n_positions",
    "context_length": "n_positions",
    "embd_dropout": "embd_pdrop",
    "embedding_dropout": "embd_pdrop",
    "hidden_act": "activation_function",
    "hidden_dim": "n_embd",
    "intermediate_size": "n_inner",
    "layer_norm_eps": "layer_norm_epsilon",
    "layer_norm_epsilson": "layer_norm_epsilon",
    "n_heads": "n_head",
    "n_layers": "n_layer",
    "num_heads": "n_head",
    "num_layers": "n_layer",
    "resid_dropout": "resid_pdrop",
    "tie_embeddings": "tie_word_embeddings",
    "tied_embeddings": "tie_word_embeddings",
    "vocabulary_size": "vocab_size",
}


def _alias(target: str) -> Any:
    """A second name of a field, for reading and writing."""
    return property(lambda self: getattr(self, target), lambda self, value: setattr(self, target, value))


def dtype_name(dtype: Any) -> str:
    """Returns "float32" for "float32", numpy.float32, torch.float32, jax.numpy.float32 and the like."""
    name = getattr(dtype, "__name__", None) or getattr(dtype, "name", None) or str(dtype)
    return name.removeprefix("torch.")


Config = TypeVar("Config", bound="GPTConfig")


@dataclass(init=False, repr=False, eq=False)
class GPTConfig:
    """Fields and behaviour that the configs of both families share.

    The fields named in `documented` may be given by position, in that order, and every field by keyword or alias.
    Foreign fields are kept as attributes and written back, unless they would change the computation.

    Raises:
        ConfigError: lists every field with a wrong value and every foreign field that would change the computation.
    """

    model_type: ClassVar[str]
    class_prefix: ClassVar[str]  # GPT2LMHeadModel = class_prefix + head
    documented: ClassVar[tuple[str, ...]]  # the original constructor's order; always written to config.json
    misnamed: ClassVar[dict[str, str]] = MISNAMED
    aliases: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
        "torch_dtype": "dtype",
        "_attn_implementation": "attn_implementation",
    }
    unwritten: ClassVar[tuple[str, ...]] = ("attn_implementation",)  # how to compute, not what
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    vocab_size: int = setting(50257, count(limits.MAX_VOCAB))
    n_positions: int = setting(1024, count(limits.MAX_POSITIONS))
    n_embd: int = setting(768, count(limits.MAX_EMBED))
    n_layer: int = setting(12, count(limits.MAX_LAYERS))
    n_head: int = setting(12, count(limits.MAX_HEADS))
    n_inner: int | None = setting(None, optional(count(limits.MAX_INNER)))
    resid_pdrop: float = setting(0.1, RATE)
    embd_pdrop: float = setting(0.1, RATE)
    attn_pdrop: float = setting(0.1, RATE)
    layer_norm_epsilon: float = setting(1e-5, POSITIVE)
    initializer_range: float = setting(0.02, NOT_NEGATIVE)
    summary_type: str = setting("cls_index", one_of(*SUMMARY_TYPES))
    summary_use_proj: bool = setting(True, FLAG)
    summary_activation: str | None = setting(None, optional(one_of(*ACTIVATIONS)))
    summary_proj_to_labels: bool = setting(True, FLAG)
    summary_first_dropout: float = setting(0.1, RATE)
    summary_last_dropout: float | None = setting(None, optional(RATE))
    classifier_dropout: float | None = setting(None, optional(RATE))
    hidden_dropout: float | None = setting(None, optional(RATE))
    scale_attn_weights: bool = setting(True, FLAG)
    scale_attn_by_inverse_layer_idx: bool = setting(False, FLAG)
    reorder_and_upcast_attn: bool = setting(False, FLAG)
    add_cross_attention: bool = setting(False, FLAG)
    use_cache: bool = setting(True, FLAG)
    tie_word_embeddings: bool = setting(True, FLAG)
    bos_token_id: int | None = setting(None, TOKEN)
    eos_token_id: int | list[int] | None = setting(None, TOKENS)
    pad_token_id: int | None = setting(None, TOKEN)
    id2label: dict[int, str] = setting({0: "LABEL_0", 1: "LABEL_1"}, labels_of(int, str))
    label2id: dict[str, int] = setting({"LABEL_0": 0, "LABEL_1": 1}, LABEL_IDS)
    problem_type: str | None = setting(None, optional(one_of(*PROBLEM_TYPES)))
    return_dict: bool = setting(True, FLAG)
    output_hidden_states: bool = setting(False, FLAG)
    output_attentions: bool = setting(False, FLAG)
    pruned_heads: dict[int, list[int]] = setting({}, HEAD_LISTS)
    architectures: list[str] | None = setting(None, NAMES)
    dtype: str | None = setting(None, optional(one_of(*DTYPES)))
    attn_implementation: str | None = setting(None, optional(one_of(*ATTENTIONS)))

    hidden_size = _alias("n_embd")
    max_position_embeddings = _alias("n_positions")
    num_attention_heads = _alias("n_head")
    num_hidden_layers = _alias("n_layer")
    torch_dtype = _alias("dtype")

    def __init__(self, *args: Any, **kwargs: Any):
        if len(args) > len(self.documented):
            raise TypeError(f"{type(self).__name__} takes at most {len(self.documented)} positional arguments")
        given = dict(zip(self.documented, args, strict=False))
        problems = []
        for name, value in kwargs.items():
            target = self.aliases.get(name, name)
            if target in given and given[target] != value:
                problems.append(f"{target}: given twice, as {given[target]!r} and as {name}={value!r}")
            given[target] = value
        if given.get("model_type") == self.model_type:
            del given["model_type"]
        for name in [name for name in given if self._is_taken(name)]:
            value = given.pop(name)
            problems.append(self._refusal(name, value) or f"{name}: a name that this config uses itself")
        self._given = frozenset(given)
        self._assign(given)
        problems += self._problems()
        if problems:
            raise ConfigError.listing(type(self).__name__, problems)

    def _is_taken(self, name: str) -> bool:
        """Whether a foreign name would hide one of our own attributes."""
        known = {entry.name for entry in fields(self)} | {"num_labels"}
        return name not in known and (hasattr(type(self), name) or name in _PRIVATE)

    def _assign(self, given: dict[str, Any]) -> None:
        given = deepcopy(given)
        if given.get("dtype") is not None:
            given["dtype"] = dtype_name(given["dtype"])
        labels, ids, num_labels = given.get("id2label"), given.get("label2id"), given.pop("num_labels", None)
        if labels is None and LABEL_IDS.accepts(ids):
            labels = _inverse(ids)
        given["id2label"] = _whole_keys(labels) if labels is not None else _default_labels(num_labels)
        if ids is None:
            given["label2id"] = _inverse(given["id2label"])
        given["pruned_heads"] = _head_lists(given.get("pruned_heads"))
        for entry in fields(self):
            setattr(self, entry.name, given.pop(entry.name, _default(entry)))
        self._wanted_labels = num_labels
        for name, value in given.items():
            setattr(self, name, value)

    def validate(self) -> None:
        """Raises ConfigError if a field was set to a wrong value since construction."""
        if problems := self._problems():
            raise ConfigError.listing(type(self).__name__, problems)

    def _problems(self) -> list[str]:
        problems = []
        for entry in fields(self):
            value, rule = getattr(self, entry.name), entry.metadata["rule"]
            if not rule.accepts(value):
                problems.append(f"{entry.name}: {short(value)}, expected {rule.expected}")
        problems += [refusal for name, value in self.foreign.items() if (refusal := self._refusal(name, value))]
        return problems or self._contradictions()

    def _refusal(self, name: str, value: Any) -> str | None:
        """Says why a foreign field may not be kept; None if it is harmless."""
        if name in self.misnamed:
            return f"{name}: not a field of this config; it is called {self.misnamed[name]} here"
        if name in INERT and value not in INERT[name]:
            return f"{name}: {short(value)} is not implemented in gptzoo"
        return None

    def _contradictions(self) -> list[str]:
        """Fields that are each fine and do not fit together; looked at only once each is fine."""
        problems = []
        if self.n_embd % self.n_head:
            problems.append(f"n_embd: {self.n_embd} is not divisible by n_head {self.n_head}")
        if self._wanted_labels is not None and not _is_label_count(self._wanted_labels):
            found = short(self._wanted_labels)
            problems.append(f"num_labels: {found}, expected an integer from 0 to {limits.MAX_LABELS}")
        elif self._wanted_labels not in (None, self.num_labels):
            problems.append(f"num_labels: {short(self._wanted_labels)}, but id2label has {self.num_labels} entries")
        if sorted(self.id2label) != list(range(self.num_labels)):
            problems.append(f"id2label: keys {short(sorted(self.id2label))}, expected 0 to {self.num_labels - 1}")
        for block, heads in self.pruned_heads.items():
            if not 0 <= block < self.n_layer:
                problems.append(f"pruned_heads: block {block}, expected 0 to {self.n_layer - 1} (n_layer)")
            elif outside := sorted(set(heads) - set(range(self.n_head))):
                problems.append(
                    f"pruned_heads: heads {outside} of block {block}, expected 0 to {self.n_head - 1} (n_head)"
                )
            elif not self.kept_heads(block):
                problems.append(f"pruned_heads: all heads of block {block}, of which one at least has to stay")
        return problems

    @property
    def foreign(self) -> dict[str, Any]:
        """Attributes that are no fields of this config: kept, written back, without effect."""
        known = {entry.name for entry in fields(self)}
        return {name: value for name, value in vars(self).items() if name not in known and name not in _PRIVATE}

    @property
    def num_labels(self) -> int:
        """Number of classes: the length of `id2label`. Setting another number makes new default labels."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        if value != self.num_labels:
            self.id2label = _default_labels(value)
            self.label2id = _inverse(self.id2label)
            self._wanted_labels = None

    @property
    def activation(self) -> str:
        """Canonical name of the MLP's activation: a value of `ACTIVATIONS` or a key of `TRAINED_ACTIVATIONS`."""
        raise NotImplementedError

    @property
    def has_prelu(self) -> bool:
        return self.activation == "prelu"

    @property
    def has_xielu(self) -> bool:
        return self.activation == "xielu"

    # Symbolic dimensions of the weight table, beside the fields themselves.

    @property
    def n_mlp(self) -> int:
        return self.n_inner or 4 * self.n_embd

    def n_attn(self, block: int) -> int:
        """Width of what the attention heads of a block compute together."""
        return len(self.kept_heads(block)) * self.head_dim

    def n_qkv(self, block: int) -> int:
        return 3 * self.n_attn(block)

    @property
    def n_kv(self) -> int:
        return 2 * self.n_embd

    @property
    def n_summary(self) -> int:
        """Width of the double heads' summary: one score a choice, whatever `num_labels` says."""
        return 1 if self.summary_proj_to_labels else self.n_embd

    @property
    def summary_act(self) -> str:
        """Canonical name of the activation behind the double heads' summary: a value of `ACTIVATIONS`."""
        return ACTIVATIONS[self.summary_activation or "linear"]

    @property
    def classifier_rate(self) -> float:
        """Dropout rate before the token classifier, by the first of the two fields that is set."""
        rates = (self.classifier_dropout, self.hidden_dropout, 0.1)
        return next(rate for rate in rates if rate is not None)

    @property
    def has_choice_scores(self) -> bool:
        """Whether the double heads' summary is one score a choice, and not a vector."""
        return self.summary_use_proj and self.summary_proj_to_labels

    @property
    def n_span(self) -> int:
        """Width of the question answering head: a start and an end score, whatever `num_labels` says."""
        return 2

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def residual_initializer_range(self) -> float:
        """Standard deviation of the projections that write into the residual stream."""
        return self.initializer_range

    def kept_heads(self, block: int) -> tuple[int, ...]:
        """Returns the numbers of the attention heads that a block still has, as they were before any was pruned."""
        return tuple(head for head in range(self.n_head) if head not in self.pruned_heads.get(block, ()))

    def attention_scale(self, layer: int) -> float:
        """Factor on the attention scores of block `layer`, counted from 0."""
        scale = 1 / math.sqrt(self.head_dim) if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale

    def to_dict(self) -> dict[str, Any]:
        """Returns config.json's content: documented fields always, the rest where given or not the default."""
        result: dict[str, Any] = {"model_type": self.model_type}
        for entry in fields(self):
            value = getattr(self, entry.name)
            wanted = entry.name in self.documented or entry.name in self._given or value != _default(entry)
            if wanted and entry.name not in self.unwritten:
                result[entry.name] = deepcopy(value)
        return result | deepcopy(self.foreign)

    def to_json_string(self) -> str:
        """Returns config.json's text.

        Raises:
            ConfigError: a foreign field cannot be written as JSON.
        """
        try:
            return json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"
        except (TypeError, ValueError) as problem:
            raise ConfigError(f"{type(self).__name__}: not to be written as JSON ({problem})") from None

    @classmethod
    def from_dict(cls: type[Config], values: Mapping[str, Any], **overrides: Any) -> Config:
        """Builds a config from config.json's content; `overrides` win over it."""
        values = dict(values)
        model_type = values.pop("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ConfigError(f"model_type: {short(model_type)}, expected {cls.model_type} for {cls.__name__}")
        if not LABELS.isdisjoint(overrides):  # the three say one thing: what is stored of the others is stale
            kept = overrides.keys() == {"num_labels"} and _label_count(values) == overrides["num_labels"]
            values = {name: value for name, value in values.items() if kept or name not in LABELS}
        for alias, name in cls.aliases.items():
            if name in overrides or alias in overrides:
                values = {key: value for key, value in values.items() if key not in (alias, name)}
        return cls(**(values | overrides))

    @classmethod
    def from_json_file(cls: type[Config], path: str | Path, **overrides: Any) -> Config:
        """Reads one config.json; its errors name the file."""
        return _naming_file(Path(path), lambda values: cls.from_dict(values, **overrides))

    @classmethod
    def from_pretrained(cls: type[Config], pretrained_model_name_or_path: str | Path, **overrides: Any) -> Config:
        """Reads the config of a checkpoint directory, of a config.json, or of a model by its name.

        Args:
            pretrained_model_name_or_path: such a path; or the name of a model, bundled or on the Hugging Face hub.
            overrides: config fields that win over those read; and `gptzoo.hub.HubOptions` by their names.
        """
        from gptzoo.hub import resolve, take_options

        options, overrides = take_options(overrides)
        local = resolve(pretrained_model_name_or_path, "config", options)
        return cls.from_json_file(local / CONFIG_FILE if local.is_dir() else local, **overrides)

    @classmethod
    def judges(cls, name: str) -> bool:
        """Whether a name means anything to this config: a field, another name of one, or one refused for a reason."""
        known = {entry.name for entry in fields(cls)} | LABELS | cls.aliases.keys()
        return name in known or name in cls.misnamed or name in INERT

    @classmethod
    def derive(cls: type[Config], other: GPTConfig, **overrides: Any) -> Config:
        """Returns a copy of a config of this family with some fields replaced."""
        kept = {name: getattr(other, name) for name in cls.unwritten}
        return cls.from_dict(other.to_dict() | kept, **overrides)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes config.json into `directory`, which is made if absent."""
        from gptzoo.checkpoint import write_file

        write_file(Path(directory) / CONFIG_FILE, self.to_json_string().encode())

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_dict() == other.to_dict()  # type: ignore[attr-defined]

    __hash__ = None  # type: ignore[assignment]  # mutable, as users of these classes expect

    def __repr__(self) -> str:
        return f"{type(self).__name__} {json.dumps(self.to_dict(), indent=2, sort_keys=True, default=repr)}"


_PRIVATE = frozenset({"_given", "_wanted_labels"})


@dataclass(init=False, repr=False, eq=False)
class GPT2Config(GPTConfig):
    """Config of GPT-2 (Radford et al. 2019); the defaults are those of the 124M model.

    Attributes:
        vocab_size: number of token ids.
        n_positions: longest sequence, in tokens.
        n_embd: width of embeddings and hidden states; a multiple of `n_head`.
        n_layer, n_head: number of blocks, and of attention heads in each.
        n_inner: width of the MLP; 4 * n_embd if None.
        activation_function: any of `MLP_ACTIVATIONS`; "gelu" is the exact form, "gelu_new" OpenAI's tanh form.
        resid_pdrop, embd_pdrop, attn_pdrop: dropout rates in training.
        layer_norm_epsilon: added to the variance inside the square root.
        initializer_range: standard deviation of initial weights.
        summary_type, summary_use_proj, summary_activation, summary_proj_to_labels, summary_first_dropout: the
            multiple choice head of the double heads model.
        scale_attn_weights: whether scores are divided by the square root of the head size.
        scale_attn_by_inverse_layer_idx: whether scores are also divided by the block's number, counted from 1.
        reorder_and_upcast_attn: whether scores are computed in float32 whatever the dtype.
        use_cache: whether calls return `past_key_values`.
        add_cross_attention: whether each block attends to `encoder_hidden_states` too.
        tie_word_embeddings: whether the language model head is the token embedding.
        pruned_heads: block -> attention heads of its self-attention that are not there, by their first numbers.
        attn_implementation: "eager", "sdpa" (the default) or "flash_attention_2".
    """

    model_type = "gpt2"
    class_prefix = "GPT2"
    documented = (
        "vocab_size",
        "n_positions",
        "n_embd",
        "n_layer",
        "n_head",
        "n_inner",
        "activation_function",
        "resid_pdrop",
        "embd_pdrop",
        "attn_pdrop",
        "layer_norm_epsilon",
        "initializer_range",
        "summary_type",
        "summary_use_proj",
        "summary_activation",
        "summary_proj_to_labels",
        "summary_first_dropout",
        "scale_attn_weights",
        "use_cache",
        "bos_token_id",
        "eos_token_id",
        "scale_attn_by_inverse_layer_idx",
        "reorder_and_upcast_attn",
    )
    misnamed = MISNAMED | {"afn": "activation_function"}

    activation_function: str = setting("gelu_new", one_of(*MLP_ACTIVATIONS))
    bos_token_id: int | None = setting(50256, TOKEN)
    eos_token_id: int | list[int] | None = setting(50256, TOKENS)

    @property
    def activation(self) -> str:
        return ACTIVATIONS.get(self.activation_function, self.activation_function)

    @property
    def residual_initializer_range(self) -> float:
        return self.initializer_range / math.sqrt(2 * self.n_layer)  # one attention and one MLP a block


@dataclass(init=False, repr=False, eq=False)
class OpenAIGPTConfig(GPTConfig):
    """Config of GPT (Radford et al. 2018). Attributes as in GPT2Config, but for these.

    Attributes:
        afn: activation; "gelu" is the tanh form, as in OpenAI's code and weights. "gelu_python" is the exact form.
    """

    model_type = "openai-gpt"
    class_prefix = "OpenAIGPT"
    documented = (
        "vocab_size",
        "n_positions",
        "n_embd",
        "n_layer",
        "n_head",
        "afn",
        "resid_pdrop",
        "embd_pdrop",
        "attn_pdrop",
        "layer_norm_epsilon",
        "initializer_range",
        "summary_type",
        "summary_use_proj",
        "summary_activation",
        "summary_proj_to_labels",
        "summary_first_dropout",
    )
    misnamed = MISNAMED | dict.fromkeys(("activation", "activation_function", "hidden_act"), "afn")
    # GPT-2's fields, each at the value that GPT has by construction.
    n_inner: int | None = setting(None, only(None))
    scale_attn_weights: bool = setting(True, only(True))
    scale_attn_by_inverse_layer_idx: bool = setting(False, only(False))
    reorder_and_upcast_attn: bool = setting(False, only(False))
    add_cross_attention: bool = setting(False, only(False))
    vocab_size: int = setting(40478, count(limits.MAX_VOCAB))
    n_positions: int = setting(512, count(limits.MAX_POSITIONS))
    afn: str = setting("gelu", one_of(*MLP_ACTIVATIONS))

    @property
    def activation(self) -> str:
        return "gelu_tanh" if self.afn == "gelu" else ACTIVATIONS.get(self.afn, self.afn)


CONFIGS: dict[str, type[GPTConfig]] = {config.model_type: config for config in (GPT2Config, OpenAIGPTConfig)}


class AutoConfig:
    """Reads a config.json of either family, told apart by its `model_type`."""

    @staticmethod
    def from_pretrained(pretrained_model_name_or_path: str | Path, **overrides: Any) -> GPTConfig:
        """Reads the config of a checkpoint directory, of a config.json, or of a model by its name.

        Args:
            pretrained_model_name_or_path, overrides: as of `GPT2Config.from_pretrained`.
        """
        from gptzoo.hub import resolve, take_options

        options, overrides = take_options(overrides)
        local = resolve(pretrained_model_name_or_path, "config", options)
        file = local / CONFIG_FILE if local.is_dir() else local
        return _naming_file(file, lambda values: config_class(values.get("model_type")).from_dict(values, **overrides))

    @staticmethod
    def for_model(model_type: Any, **fields: Any) -> GPTConfig:
        """Returns a config of a `model_type`."""
        return config_class(model_type)(**fields)


def config_class(model_type: Any) -> type[GPTConfig]:
    """Returns the config class of a `model_type`.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(model_type, str) or model_type not in CONFIGS:
        raise ConfigError(f"model_type: {short(model_type)}, expected one of {', '.join(CONFIGS)}")
    return CONFIGS[model_type]


def _naming_file(path: Path, build: Callable[[dict[str, Any]], Config]) -> Config:
    values = read_json_object(path, ConfigError, limits.MAX_CONFIG_BYTES)
    try:
        return build(values)
    except ConfigError as problem:
        raise ConfigError(f"{path}: {problem}") from None


def _default(entry: Any) -> Any:
    return entry.default_factory() if callable(entry.default_factory) else entry.default


def _is_label_count(value: Any) -> bool:
    return is_int(value) and 0 <= value <= limits.MAX_LABELS


def _default_labels(num_labels: Any) -> Any:
    wanted = 2 if num_labels is None else num_labels
    if not _is_label_count(wanted):
        return {}  # reported as a wrong num_labels
    return {i: f"LABEL_{i}" for i in range(wanted)}


def _label_count(values: Mapping[str, Any]) -> int | None:
    """Number of labels of a config.json's content; None if it says none."""
    labels = values.get("id2label")
    return len(labels) if isinstance(labels, dict) else values.get("num_labels")


def _whole_keys(labels: Any) -> Any:
    """JSON keys are strings; label ids are integers. What is neither is left for the rule to report."""
    if not isinstance(labels, dict):
        return labels
    return {int(key) if isinstance(key, str) and key.isdecimal() else key: name for key, name in labels.items()}


def _head_lists(pruned: Any) -> Any:
    """Brings heads by block to sorted lists, and leaves out blocks without any; what is neither is left to the rule."""
    if pruned is None or pruned == {}:
        return {}
    lists = _whole_keys(pruned)
    if isinstance(lists, dict):
        lists = {key: list(heads) if isinstance(heads, set | tuple) else heads for key, heads in lists.items()}
    if not HEAD_LISTS.accepts(lists):
        return pruned
    return {block: sorted(set(heads)) for block, heads in sorted(lists.items()) if heads}


def _inverse(labels: Any) -> Any:
    return {name: key for key, name in labels.items()} if isinstance(labels, dict) else labels
