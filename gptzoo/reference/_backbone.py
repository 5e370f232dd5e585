"""The backbones of GPT (Radford et al. 2018) and GPT-2 (Radford et al. 2019) in NumPy float64.

Shapes: B batch, T new tokens, S cached and new tokens, X encoder tokens, N heads, D head size, E n_embd. Choices
(B, C, T) are rows like others, and B below is the number of rows, B * C; an encoder has its own states for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptzoo.config import GPT2Config, GPTConfig
from gptzoo.errors import InputError
from gptzoo.reference._layers import Array, Call, Weights, cross_attention, layer_norm, mlp, self_attention, under

Inputs = Mapping[str, Any]
Shape = tuple[int, ...]

TABLES = {"gpt2": ("wte.weight", "wpe.weight"), "openai-gpt": ("tokens_embed.weight", "positions_embed.weight")}


def backbone(config: GPTConfig, weights: Weights, inputs: Inputs) -> tuple[list[Array], Call]:
    """Runs every block.

    Args:
        weights: by canonical name, without a prefix.
        inputs: arrays by argument name, absent where not given.

    Returns:
        n_layer + 1 hidden states, each (B, T, E), but the last as the tokens came: (B, T, E) or (B, C, T, E); and the
        call with what the blocks recorded.
    """
    shape = token_shape(config, inputs)
    call = describe(config, inputs, shape)
    x = embed(config, weights, inputs, shape)
    states = [x]
    for layer in range(config.n_layer):
        own = under(weights, f"h.{layer}.")
        if isinstance(config, GPT2Config):
            x = gpt2_block(x, own, config, layer, call)
        else:
            x = gpt_block(x, own, config, layer, call)
        states.append(x)
    if isinstance(config, GPT2Config):
        states[-1] = layer_norm(x, under(weights, "ln_f."), config.layer_norm_epsilon)
    states[-1] = states[-1].reshape(*shape, config.n_embd)
    return states, call


def gpt_block(x: Array, weights: Weights, config: GPTConfig, layer: int, call: Call) -> Array:  # (B, T, E) -> same
    """Post-norm block: train.py's `block`."""
    head_dim = config.n_embd / config.n_head
    a = self_attention(x, under(weights, "attn."), layer, 1.0 / np.sqrt(head_dim), call)
    n = layer_norm(x + a, under(weights, "ln_1."), config.layer_norm_epsilon)
    m = mlp(n, under(weights, "mlp."), config.activation)
    return layer_norm(n + m, under(weights, "ln_2."), config.layer_norm_epsilon)


def gpt2_block(x: Array, weights: Weights, config: GPT2Config, layer: int, call: Call) -> Array:  # (B, T, E) -> same
    """Pre-norm block: model.py's `block`, with Hugging Face's cross-attention between its halves."""
    scale = 1.0
    if config.scale_attn_weights:
        scale = scale / np.sqrt(config.n_embd / config.n_head)
    if config.scale_attn_by_inverse_layer_idx:
        scale = scale / (layer + 1)
    epsilon = config.layer_norm_epsilon
    x = x + self_attention(layer_norm(x, under(weights, "ln_1."), epsilon), under(weights, "attn."), layer, scale, call)
    if call.encoder is not None:
        normed = layer_norm(x, under(weights, "ln_cross_attn."), epsilon)
        x = x + cross_attention(normed, under(weights, "crossattention."), layer, scale, call)
    return x + mlp(layer_norm(x, under(weights, "ln_2."), epsilon), under(weights, "mlp."), config.activation)


def token_shape(config: GPTConfig, inputs: Inputs) -> Shape:
    """Returns (B, T) or (B, C, T)."""
    if ("input_ids" in inputs) == ("inputs_embeds" in inputs):
        raise InputError("give one of input_ids and inputs_embeds")
    if "input_ids" in inputs:
        shape: Shape = inputs["input_ids"].shape
    else:
        shape = inputs["inputs_embeds"].shape[:-1]
        expect("inputs_embeds", inputs["inputs_embeds"], (*shape, config.n_embd))
    if len(shape) < 2:
        raise InputError(f"tokens: shape {shape}, expected (batch, tokens)")
    return shape


def embed(config: GPTConfig, weights: Weights, inputs: Inputs, shape: Shape) -> Array:  # -> (B, T, E)
    """Token vectors plus position vectors, plus the vectors of token types, which are looked up as tokens."""
    tokens, positions = (weights[name] for name in TABLES[config.model_type])
    if "input_ids" in inputs:
        x = look_up("input_ids", tokens, inputs["input_ids"].reshape(-1, shape[-1]))
    else:
        x = inputs["inputs_embeds"].astype(np.float64).reshape(-1, shape[-1], config.n_embd)
    x = x + look_up("position_ids", positions, position_ids(inputs, shape))
    if "token_type_ids" in inputs:
        expect("token_type_ids", inputs["token_type_ids"], shape)
        x = x + look_up("token_type_ids", tokens, inputs["token_type_ids"].reshape(-1, shape[-1]))
    return x


def position_ids(inputs: Inputs, shape: Shape) -> Array:  # (B, T) or (1, T)
    """The positions given; else each real token's number among the real ones, and 0 on padding."""
    n_new = shape[-1]
    if "position_ids" in inputs:
        given = inputs["position_ids"]
        expect("position_ids", given, shape, (1, *shape[1:]), (1, n_new), (n_new,))
        return np.broadcast_to(given, shape).reshape(-1, n_new)
    n_past = past_length(inputs)
    if "attention_mask" not in inputs:
        return np.arange(n_past, n_past + n_new)[None]
    real = inputs["attention_mask"].reshape(-1, n_past + n_new) != 0
    return np.where(real, np.cumsum(real, axis=-1) - 1, 0)[:, n_past:]


def describe(config: GPTConfig, inputs: Inputs, shape: Shape) -> Call:
    """Says what each query sees, and of which heads."""
    n_past = past_length(inputs)
    head_mask = inputs.get("head_mask", np.ones(config.n_head))
    expect("head_mask", head_mask, (config.n_head,), (config.n_layer, config.n_head))
    head_mask = np.broadcast_to(head_mask.astype(np.float64), (config.n_layer, config.n_head))
    pruned = [config.pruned_heads.get(layer, []) for layer in range(config.n_layer)]
    kept = [[head for head in range(config.n_head) if head not in gone] for gone in pruned]
    call = Call(visible_keys(inputs, shape, n_past), head_mask, kept, inputs.get("past_key_values"))
    if "encoder_hidden_states" in inputs:
        if not config.add_cross_attention:
            raise InputError("encoder_hidden_states: given, but the config has no add_cross_attention")
        states = inputs["encoder_hidden_states"]
        expect("encoder_hidden_states", states, (math.prod(shape[:-1]), *states.shape[1:2], config.n_embd))
        call.encoder = states.astype(np.float64)
        call.encoder_visible = visible_encoder(inputs)
    return call


def visible_keys(inputs: Inputs, shape: Shape, n_past: int) -> Array:  # (B, 1, T, S)
    """A query sees the real tokens up to its own, and always its own, so that padding too sees something."""
    n_new = shape[-1]
    query = n_past + np.arange(n_new)[:, None]  # (T, 1)
    key = np.arange(n_past + n_new)[None, :]  # (1, S)
    mask = inputs.get("attention_mask", np.ones((*shape[:-1], n_past + n_new)))
    expect("attention_mask", mask, (*shape[:-1], n_past + n_new))
    real = mask.reshape(-1, 1, 1, n_past + n_new) != 0  # (B, 1, 1, S)
    return ((key <= query) & real) | (key == query)


def visible_encoder(inputs: Inputs) -> Array:  # (B, 1, 1, X)
    """Every encoder token that is not masked; all of them in a row that masks all."""
    batch, n_encoder, _ = inputs["encoder_hidden_states"].shape
    mask = inputs.get("encoder_attention_mask", np.ones((batch, n_encoder)))
    expect("encoder_attention_mask", mask, (batch, n_encoder), (batch, 1, n_encoder))
    visible = mask.reshape(batch, 1, 1, n_encoder) != 0
    return visible | ~visible.any(axis=-1, keepdims=True)


def past_length(inputs: Inputs) -> int:
    return int(inputs["past_key_values"][0][0].shape[2]) if "past_key_values" in inputs else 0


def look_up(name: str, table: Array, ids: Array) -> Array:  # (B, T) -> (B, T, E)
    """Rows of a table; NumPy alone would count a negative id from the end."""
    expect_indices(name, ids, len(table))
    return table[ids]


def expect(name: str, array: Array, *shapes: Shape) -> None:
    if array.shape not in shapes:
        raise InputError(f"{name}: shape {array.shape}, expected {' or '.join(map(str, shapes))}")


def expect_indices(name: str, array: Array, size: int, also: str = "") -> None:
    """Refuses what is not an integer from 0 to size - 1; `also` tells what else an argument may hold."""
    expect_integers(name, array)
    if array.size and not (array.min() >= 0 and array.max() < size):
        raise InputError(f"{name}: {array.min()} to {array.max()}, expected 0 to {size - 1}{also}")


def expect_integers(name: str, array: Array) -> None:
    """Refuses floats, which NumPy would not look up, and bools, which it would take for a mask."""
    if array.size and not np.issubdtype(array.dtype, np.integer):  # NumPy makes an empty list a float array
        raise InputError(f"{name}: {array.dtype}, expected integers")
