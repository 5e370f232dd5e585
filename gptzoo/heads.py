"""The head table: what each of the six heads takes, returns and is trained with, for both families.

Shapes are symbolic: fields and properties of the config, and

    B batch    T new tokens    S cached and new tokens    X encoder tokens    C choices: before T, where given
"""

from __future__ import annotations

from dataclasses import dataclass

from gptzoo.config import CONFIGS, GPTConfig


@dataclass(frozen=True)
class Output:
    """One field of a head's output.

    Attributes:
        shape: symbolic, such as "B T n_embd"; of each array where there are several.
        count: how many arrays: None for a bare array, "n_layer" or "n_layer + 1" for a tuple, "n_layer x 2" for pairs.
    """

    name: str
    shape: str
    count: str | None = None


@dataclass(frozen=True)
class Head:
    """One head over a backbone.

    Attributes:
        name: class name without its family: "LMHeadModel".
        arguments: names of the arrays that a call takes, in order.
        outputs: fields of the output, in order; absent ones (no labels, not asked for) are skipped.
        losses: output field -> (its labels argument, kind of loss).
    """

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[Output, ...]
    losses: dict[str, tuple[str, str]]


_UNCACHED = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "head_mask", "inputs_embeds")
_INPUTS = ("input_ids", "past_key_values", *_UNCACHED[1:])
_ENCODER = ("encoder_hidden_states", "encoder_attention_mask")

_LOSS = Output("loss", "")
_LOGITS = Output("logits", "B T vocab_size")
_CACHE = Output("past_key_values", "B n_head S head_dim", "n_layer x 2")
_STATES = (Output("hidden_states", "B T n_embd", "n_layer + 1"), Output("attentions", "B n_head T S", "n_layer"))
_CROSS = Output("cross_attentions", "B n_head T X", "n_layer")

HEADS = {
    head.name: head
    for head in (
        Head(
            "Model",
            arguments=(*_INPUTS, *_ENCODER),
            outputs=(Output("last_hidden_state", "B T n_embd"), _CACHE, *_STATES, _CROSS),
            losses={},
        ),
        Head(
            "LMHeadModel",
            arguments=(*_INPUTS, *_ENCODER, "labels"),
            outputs=(_LOSS, _LOGITS, _CACHE, *_STATES, _CROSS),
            losses={"loss": ("labels", "next_token")},
        ),
        Head(
            "DoubleHeadsModel",
            arguments=(*_INPUTS, "mc_token_ids", "labels", "mc_labels"),
            outputs=(_LOSS, Output("mc_loss", ""), _LOGITS, Output("mc_logits", "B C"), _CACHE, *_STATES),
            losses={"loss": ("labels", "next_token"), "mc_loss": ("mc_labels", "choice")},
        ),
        Head(
            "ForSequenceClassification",
            arguments=(*_INPUTS, "labels"),
            outputs=(_LOSS, Output("logits", "B num_labels"), _CACHE, *_STATES),
            losses={"loss": ("labels", "problem_type")},
        ),
        Head(
            "ForTokenClassification",
            arguments=(*_INPUTS, "labels"),
            outputs=(_LOSS, Output("logits", "B T num_labels"), *_STATES),
            losses={"loss": ("labels", "token")},
        ),
        Head(
            "ForQuestionAnswering",
            arguments=(*_UNCACHED, "start_positions", "end_positions"),
            outputs=(_LOSS, Output("start_logits", "B T"), Output("end_logits", "B T"), *_STATES),
            losses={"loss": ("start_positions end_positions", "span")},
        ),
    )
}

# Auto class -> the head of the models that it makes.
AUTO_HEADS = {
    "AutoModel": "Model",
    "AutoModelForCausalLM": "LMHeadModel",
    "AutoModelForSequenceClassification": "ForSequenceClassification",
    "AutoModelForTokenClassification": "ForTokenClassification",
    "AutoModelForQuestionAnswering": "ForQuestionAnswering",
}


def class_name(config: type[GPTConfig] | GPTConfig, head: str) -> str:
    """Returns "GPT2LMHeadModel" for a GPT-2 config (or its class) and "LMHeadModel"."""
    return config.class_prefix + head


def parse_class_name(name: str) -> tuple[type[GPTConfig], str]:
    """Returns the config class and the head of a class name; TF and Flax prefixes of old checkpoints are ignored.

    Raises:
        KeyError: no family and head have this name.
    """
    bare = name.removeprefix("TF").removeprefix("Flax")
    for config in CONFIGS.values():
        head = bare.removeprefix(config.class_prefix)
        if head != bare and head in HEADS:
            return config, head
    raise KeyError(name)
