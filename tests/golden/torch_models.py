"""Transformers' PyTorch models that hold the golden weights: what other formats are made from, and computed with."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import GPT2Config, OpenAIGPTConfig, PretrainedConfig

from tests.golden.common import CONFIGS, NUM_LABELS, Arrays, inputs, truth

HEADS = {
    "model": "Model",
    "lm": "LMHeadModel",
    "double": "DoubleHeadsModel",
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
    "qa": "ForQuestionAnswering",
}
OUTPUTS = ("last_hidden_state", "logits", "mc_logits", "start_logits", "end_logits")


def class_name(key: str, head: str) -> str:
    return ("OpenAIGPT" if key == "gpt" else "GPT2") + HEADS[head]


def make_config(key: str, head: str) -> PretrainedConfig:
    """A config as a user of one class would make it."""
    fields = {name: value for name, value in CONFIGS[key].items() if name != "model_type"}
    if head in ("sequence", "token"):
        fields["num_labels"] = NUM_LABELS
    return (OpenAIGPTConfig if key == "gpt" else GPT2Config)(**fields)


def make(key: str, head: str, weights: Arrays | None = None) -> Any:
    """A model in evaluation mode that holds the truth of a config (or other weights under the canonical names)."""
    weights = truth(key) if weights is None else weights
    config = make_config(key, head)
    config._attn_implementation = "eager"
    model = getattr(transformers, class_name(key, head))(config)
    prefix = "transformer." if head == "model" else ""
    state = {}
    for name in model.state_dict():
        canonical = prefix + name
        if name == "lm_head.weight" and name not in weights:
            canonical = "transformer.tokens_embed.weight" if key == "gpt" else "transformer.wte.weight"
        state[name] = torch.from_numpy(weights[canonical].copy())
    model.load_state_dict(state)
    return model.eval()


def given_for(key: str, head: str) -> Arrays:
    return inputs("choices" if head == "double" else "cross" if key == "gpt2_cross" else "padded")


@torch.no_grad()
def run(model: Any, given: Arrays) -> Arrays:
    """The outputs of the heads as arrays, computed in float32."""
    result = model.float()(**{name: torch.from_numpy(array) for name, array in given.items()})
    return {name: result[name].numpy() for name in OUTPUTS if name in result}
