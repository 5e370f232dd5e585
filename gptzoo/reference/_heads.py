"""The heads over both backbones in NumPy float64: their outputs and losses.

Shapes: B batch, C choices (where given, before T), T tokens, E n_embd, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.errors import InputError
from gptzoo.heads import HEADS
from gptzoo.outputs import OUTPUTS, ModelOutput
from gptzoo.reference._backbone import TABLES, Inputs, backbone, expect
from gptzoo.reference._layers import Array, Weights, log_softmax, under

IGNORED = -100  # a label that is not scored


def forward(
    head: str,
    config: GPTConfig,
    weights: Mapping[str, Any],
    *,
    use_cache: bool | None = None,
    output_hidden_states: bool | None = None,
    output_attentions: bool | None = None,
    **inputs: Any,
) -> ModelOutput:
    """Computes what a model must return, without dropout.

    Args:
        head: a key of `gptzoo.heads.HEADS`.
        weights: canonical name -> array, as in `gptzoo.weights.specs(config, head)`; tied ones may be absent.
        use_cache, output_hidden_states, output_attentions: whether the output has these; None: as the config says.
        inputs: the head's arguments by name, and its options (`logits_to_keep`); None counts as not given.

    Returns:
        The head's output; all arrays float64.

    Raises:
        InputError: an argument that the head does not have, or that does not fit the others or the config.
    """
    given = read_inputs(head, inputs)
    exact = {name: np.asarray(weight, np.float64) for name, weight in weights.items()}
    states, call = backbone(config, exact if head == "Model" else under(exact, "transformer."), given)
    fields = COMPUTE[head](config, exact, states[-1], given)
    recorded = {
        "past_key_values": tuple(call.present) if chosen(use_cache, config.use_cache) else None,
        "hidden_states": tuple(states) if chosen(output_hidden_states, config.output_hidden_states) else None,
        "attentions": tuple(call.attentions) if chosen(output_attentions, config.output_attentions) else None,
    }
    if call.encoder is not None and recorded["attentions"] is not None:
        recorded["cross_attentions"] = tuple(call.cross_attentions)
    wanted = OUTPUTS[head].names()
    return OUTPUTS[head](fields | {name: value for name, value in recorded.items() if name in wanted})


def read_inputs(head: str, inputs: Inputs) -> dict[str, Any]:
    """Returns the inputs that are given, as arrays."""
    if unknown := set(inputs) - set(HEADS[head].arguments) - OPTIONS.get(head, set()):
        raise InputError(f"{head} takes no {', '.join(sorted(unknown))}")
    given = {name: value for name, value in inputs.items() if value is not None}
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in given.items() if name != "past_key_values"}
    if "past_key_values" in given:
        pairs = given["past_key_values"]
        arrays["past_key_values"] = tuple((np.asarray(k, np.float64), np.asarray(v, np.float64)) for k, v in pairs)
    return arrays


def chosen(option: bool | None, default: bool) -> bool:
    return default if option is None else option


def compute_model(config: GPTConfig, weights: Weights, states: Array, inputs: Inputs) -> dict[str, Any]:
    return {"last_hidden_state": states}


def compute_lm(config: GPTConfig, weights: Weights, states: Array, inputs: Inputs) -> dict[str, Any]:
    """Logits of the next token at each position that is kept; the loss is over all of them."""
    logits = lm_logits(config, weights, states)  # (B, T, V)
    fields = {"logits": logits[..., kept(inputs.get("logits_to_keep"), logits.shape[-2]), :]}
    if "labels" in inputs:
        expect("labels", inputs["labels"], states.shape[:-1])
        fields["loss"] = cross_entropy(logits[..., :-1, :], inputs["labels"][..., 1:])
    return fields


def lm_logits(config: GPTConfig, weights: Weights, states: Array) -> Array:  # (B, T, E) -> (B, T, V)
    """Scores of the next token: products with the token embedding, or with a table of their own if untied."""
    tied = f"transformer.{TABLES[config.model_type][0]}"
    return states @ weights[tied if config.tie_word_embeddings else "lm_head.weight"].T


def kept(logits_to_keep: Array | None, n_tokens: int) -> Array:
    """Returns the positions that are kept: those given, or the last k; all for 0."""
    if logits_to_keep is None:
        return np.arange(n_tokens)
    if logits_to_keep.ndim == 1:
        return logits_to_keep
    k = int(logits_to_keep)
    return np.arange(n_tokens)[-k:]  # -0 is 0: all


def cross_entropy(logits: Array, labels: Array) -> Any:
    """Mean of -log p(label) over the labels that are scored; 0 if none is.

    Args:
        logits: (..., V).
        labels: (...), each 0 to V - 1, or IGNORED.
    """
    logits, labels = logits[labels != IGNORED], labels[labels != IGNORED]  # (M, V), (M,)
    if not labels.size:
        return np.float64(0.0)
    if not (labels.min() >= 0 and labels.max() < logits.shape[-1]):
        found = f"{labels.min()} to {labels.max()}"
        raise InputError(f"labels: {found}, expected 0 to {logits.shape[-1] - 1}, or {IGNORED} for none")
    return -log_softmax(logits)[np.arange(len(labels)), labels].mean()


# Head -> function from (config, weights, last hidden states, inputs) to the fields that this head adds.
COMPUTE: dict[str, Callable[[GPTConfig, Weights, Array, Inputs], dict[str, Any]]] = {
    "Model": compute_model,
    "LMHeadModel": compute_lm,
}

# Head -> what it takes beside the arrays of the head table.
OPTIONS = {"LMHeadModel": {"logits_to_keep"}}
