"""The heads over both backbones in NumPy float64: their outputs and losses.

Shapes: B batch, C choices (where given, before T), T tokens, E n_embd, V vocabulary, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gptzoo.config import ACTIVATIONS, GPTConfig
from gptzoo.errors import InputError
from gptzoo.heads import HEADS
from gptzoo.outputs import OUTPUTS, ModelOutput
from gptzoo.reference._backbone import TABLES, Inputs, Shape, backbone, expect, expect_indices
from gptzoo.reference._layers import ACTIVATIONS as FUNCTIONS
from gptzoo.reference._layers import Array, Weights, under
from gptzoo.reference._losses import choice_loss, cross_entropy, position_loss, problem_loss


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
        fields["loss"] = cross_entropy("labels", logits[..., :-1, :], inputs["labels"][..., 1:])
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


def compute_double(config: GPTConfig, weights: Weights, states: Array, inputs: Inputs) -> dict[str, Any]:
    """The language model, and a score of each choice; the two losses are not added."""
    fields = compute_lm(config, weights, states, inputs)
    summaries = summarize(config, weights, states, inputs)  # (B, C, 1) or (B, C, E)
    one_score = config.summary_use_proj and config.summary_proj_to_labels
    fields["mc_logits"] = summaries[..., 0] if one_score else summaries
    if "mc_labels" in inputs:
        if not one_score:
            wanted = "summary_use_proj and summary_proj_to_labels"
            raise InputError(f"mc_labels: given, but choices have no single score without the config's {wanted}")
        fields["mc_loss"] = choice_loss(fields["mc_logits"], inputs["mc_labels"])
    return fields


def compute_sequence(config: GPTConfig, weights: Weights, states: Array, inputs: Inputs) -> dict[str, Any]:
    """Scores of each row's classes, from the last real token, which alone has seen all the others."""
    shape = states.shape[:-1]
    if math.prod(shape[:-1]) > 1 and config.pad_token_id is None and "attention_mask" not in inputs:
        raise InputError("several rows: set config.pad_token_id or give attention_mask, to tell where each one ends")
    pooled = pick(states, last_real(real_tokens(config, inputs, shape)))  # (B, E)
    fields = {"logits": pooled @ weights["score.weight"].T}  # (B, K)
    if "labels" in inputs:
        fields["loss"] = problem_loss(config, fields["logits"], inputs["labels"])
    return fields


def compute_token(config: GPTConfig, weights: Weights, states: Array, inputs: Inputs) -> dict[str, Any]:
    """Scores of each token's own classes."""
    fields = {"logits": linear(states, under(weights, "classifier."))}  # (B, T, K)
    if "labels" in inputs:
        expect("labels", inputs["labels"], states.shape[:-1])
        fields["loss"] = cross_entropy("labels", fields["logits"], inputs["labels"])
    return fields


def compute_span(config: GPTConfig, weights: Weights, states: Array, inputs: Inputs) -> dict[str, Any]:
    """Scores of each token as the first and as the last one of the answer."""
    scores = linear(states, under(weights, "qa_outputs."))  # (B, T, 2)
    fields = {"start_logits": scores[..., 0], "end_logits": scores[..., 1]}
    given = [name for name in ("start_positions", "end_positions") if name in inputs]
    if len(given) == 1:
        raise InputError(f"give both of start_positions and end_positions, or neither; only {given[0]} given")
    if given:
        start = position_loss("start_positions", fields["start_logits"], inputs["start_positions"])
        end = position_loss("end_positions", fields["end_logits"], inputs["end_positions"])
        fields["loss"] = (start + end) / 2.0
    return fields


def linear(x: Array, weights: Weights) -> Array:  # (..., n_in) -> (..., n_out)
    """PyTorch's Linear, whose weight is (n_out, n_in)."""
    return x @ weights["weight"].T + weights["bias"]


def summarize(config: GPTConfig, weights: Weights, states: Array, inputs: Inputs) -> Array:  # (B, T, E) -> (B, ...)
    """Transformers' SequenceSummary without dropout, along the axis of tokens whatever stands before it."""
    shape = states.shape[:-1]
    if "mc_token_ids" in inputs:
        expect("mc_token_ids", inputs["mc_token_ids"], shape[:-1])
        expect_indices("mc_token_ids", inputs["mc_token_ids"], shape[-1])
    real = real_tokens(config, inputs, shape)
    if config.summary_type == "mean":
        x = mean(states, real)
    elif config.summary_type == "first":
        x = pick(states, real.argmax(axis=-1))  # the first that is true; 0 if none is
    elif config.summary_type == "cls_index" and "mc_token_ids" in inputs:
        x = pick(states, inputs["mc_token_ids"])
    else:
        x = pick(states, last_real(real))
    if config.summary_use_proj:
        x = linear(x, under(weights, "multiple_choice_head.summary."))
    if config.summary_activation is not None:
        x = FUNCTIONS[ACTIVATIONS[config.summary_activation]](x)
    return x


def real_tokens(config: GPTConfig, inputs: Inputs, shape: Shape) -> Array:  # bool, like the tokens
    """Which of the new tokens are no padding, by their ids if those can tell, else by the mask; else all."""
    if "input_ids" in inputs and config.pad_token_id is not None:
        return inputs["input_ids"] != config.pad_token_id
    if "attention_mask" in inputs:
        return inputs["attention_mask"][..., -shape[-1] :] != 0  # the columns before are those of cached tokens
    return np.ones(shape, bool)


def last_real(real: Array) -> Array:  # (B, T) -> (B,)
    """Position of the rightmost real token; 0 in a row without any."""
    return (real * np.arange(real.shape[-1])).max(axis=-1)


def pick(states: Array, positions: Array) -> Array:  # (B, T, E), (B,) -> (B, E)
    return np.take_along_axis(states, positions[..., None, None], axis=-2)[..., 0, :]


def mean(states: Array, real: Array) -> Array:  # (B, T, E), (B, T) -> (B, E)
    """Mean over the real tokens; zeros in a row without any."""
    count = np.maximum(real.sum(axis=-1, keepdims=True), 1)  # (B, 1)
    return (states * real[..., None]).sum(axis=-2) / count


# Head -> function from (config, weights, last hidden states, inputs) to the fields that this head adds.
COMPUTE: dict[str, Callable[[GPTConfig, Weights, Array, Inputs], dict[str, Any]]] = {
    "Model": compute_model,
    "LMHeadModel": compute_lm,
    "DoubleHeadsModel": compute_double,
    "ForSequenceClassification": compute_sequence,
    "ForTokenClassification": compute_token,
    "ForQuestionAnswering": compute_span,
}

# Head -> what it takes beside the arrays of the head table.
OPTIONS = {"LMHeadModel": {"logits_to_keep"}, "DoubleHeadsModel": {"logits_to_keep"}}
