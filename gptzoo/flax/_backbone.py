"""The backbone in Flax NNX: embeddings, blocks, final norm, and the call contract that both families share.

Shapes: B batch, T new tokens, S cached and new tokens, X encoder tokens, N heads, E n_embd.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from gptzoo.cache import Layers, StaticCache, normalise_past, past_length
from gptzoo.config import GPTConfig
from gptzoo.flax._attention import Context
from gptzoo.flax._layers import ARRAYS, Dropout
from gptzoo.flax._nnx import functional
from gptzoo.flax._pretrained import PreTrainedModel
from gptzoo.inputs import check_inputs
from gptzoo.outputs import BaseModelOutput


class Backbone(PreTrainedModel):
    """A decoder without a head. A family adds its embeddings, its blocks `h` and its final norm."""

    head = "Model"
    gradient_checkpointing = False
    drop: Dropout
    h: nnx.List[Any]

    def embed_tokens(self, ids: Array) -> Array:  # (B, T) -> (B, T, E)
        raise NotImplementedError

    def embed_positions(self, ids: Array) -> Array:  # (B, T) -> (B, T, E)
        raise NotImplementedError

    def final_norm(self, x: Array) -> Array:  # (B, T, E) -> (B, T, E)
        return x

    @functional
    def __call__(
        self,
        input_ids: Array | None = None,
        past_key_values: Any = None,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        head_mask: Array | None = None,
        inputs_embeds: Array | None = None,
        encoder_hidden_states: Array | None = None,
        encoder_attention_mask: Array | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        params: Any = None,
        dropout_rng: Any = None,
        train: bool = False,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Computes the hidden states of tokens.

        Args:
            input_ids: (B, T), or with further leading axes, such as (B, C, T).
            past_key_values: what an earlier call returned, or `init_cache`.
            attention_mask: (B, S), 0 on padding; covers cached and new tokens.
            token_type_ids: as `input_ids`; looked up in the token embedding and added.
            position_ids: as `input_ids`; by default counted from the attention mask, 0 on padding.
            head_mask: (N,) or (n_layer, N), a factor on the output of each head.
            inputs_embeds: (B, T, E), instead of `input_ids`.
            encoder_hidden_states: (B, X, E), for a config with `add_cross_attention`.
            encoder_attention_mask: (B, X), 0 on padding.
            use_cache, output_attentions, output_hidden_states, return_dict: the config's value if None. No cache is
                returned where gradient checkpointing computes the blocks twice.
            params: weights to compute with in place of the model's own, nested like `model.params`.
            dropout_rng: JAX key for dropout; None: a key from the `rngs` that the model was made with.
            train: whether to drop out.

        Raises:
            InputError: lists every argument of a wrong shape.
        """
        config = self.config
        past = read_past(config, past_key_values)
        shape = check_inputs(
            config,
            ARRAYS,
            past,
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
        )
        x = self.embed(input_ids, inputs_embeds)  # (B, T, E)
        mask = None if attention_mask is None else full_mask(attention_mask, past)
        queries = past_length(past) + jnp.arange(shape[-1], dtype=jnp.int32)
        x = x + self.embed_positions(token_positions(mask, queries) if position_ids is None else flat(position_ids))
        if token_type_ids is not None:
            x = x + self.embed_tokens(flat(token_type_ids))
        if isinstance(past, StaticCache):
            # Compiled code cannot raise: tokens beyond the capacity give NaN.
            x = jnp.where((queries < past.capacity)[:, None], x, jnp.nan)
        twice = self.gradient_checkpointing and train
        ctx = Context(
            implementation=config.attn_implementation or "sdpa",
            queries=queries,
            visible=visible_keys(mask, queries, past),
            past=past,
            head_mask=None if head_mask is None else jnp.broadcast_to(head_mask, (config.n_layer, config.n_head)),
            encoder=None if encoder_hidden_states is None else self.cast(encoder_hidden_states),
            encoder_visible=encoder_keys(encoder_attention_mask),
            use_cache=(config.use_cache if use_cache is None else use_cache) and not twice,
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            rngs=self.dropout_rngs(dropout_rng, train),
        )
        x, states = self.run_blocks(self.drop(x, ctx.rngs), ctx, twice)
        wanted = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        x = x.reshape(*shape, x.shape[-1])
        output = BaseModelOutput(
            last_hidden_state=x,
            past_key_values=ctx.cache(shape[-1]),
            hidden_states=(*states, x) if wanted else None,
            attentions=tuple(ctx.attentions) if ctx.output_attentions else None,
            cross_attentions=tuple(ctx.cross_attentions) if ctx.cross_attentions else None,
        )
        return self.result(output, return_dict)

    def embed(self, ids: Array | None, embeds: Array | None) -> Array:  # (..., T) or (..., T, E) -> (B, T, E)
        if ids is not None:
            return self.embed_tokens(flat(ids))
        assert embeds is not None  # check_inputs has seen to it
        return self.cast(embeds).reshape(-1, *embeds.shape[-2:])

    def run_blocks(self, x: Array, ctx: Context, twice: bool) -> tuple[Array, list[Array]]:
        """Returns the last hidden state and the input of each block."""
        states = []
        for block in self.h:
            states.append(x)
            x = recompute(block, x, ctx) if twice else block(x, ctx)
        return self.final_norm(x), states


def recompute(block: Any, x: Array, ctx: Context) -> Array:  # (B, T, E) -> (B, T, E)
    """Runs a block that keeps nothing for its gradient but what goes in: the rest is computed again, dropout as before.

    It runs twice, so it reports to lists of its own, and only the first run's reports are passed on.
    """

    @nnx.remat
    def run(block: Any, x: Array, rngs: nnx.RngStream | None) -> tuple[Array, ...]:
        own = replace(ctx, rngs=rngs, attentions=[], cross_attentions=[])
        x = block(x, own)
        return x, *own.attentions, *own.cross_attentions

    x, *reports = run(block, x, ctx.rngs)
    ctx.attentions += reports[:1]
    ctx.cross_attentions += reports[1:]
    return x


def read_past(config: GPTConfig, past_key_values: Any) -> Layers | StaticCache | None:
    """Brings any layout of `past_key_values` to one of ours."""
    return normalise_past(past_key_values, config.n_layer, lambda x: x.swapaxes(1, 2))


def flat(ids: Array) -> Array:  # (..., T) -> (B, T)
    return ids.reshape(-1, ids.shape[-1])


def full_mask(mask: Array, past: Layers | StaticCache | None) -> Array:  # (..., S) -> (B, S)
    """Flattens the mask, and lengthens it to a static cache's capacity: causality hides what is not yet filled."""
    missing = past.capacity - mask.shape[-1] if isinstance(past, StaticCache) else 0
    return jnp.pad(flat(mask) != 0, ((0, 0), (0, missing)), constant_values=True)


def token_positions(mask: Array | None, queries: Array) -> Array:  # (B, S), (T,) -> (B or 1, T)
    """Counts real tokens from 0; padding gets position 0."""
    if mask is None:
        return queries[None]
    positions = jnp.where(mask, mask.cumsum(-1, dtype=jnp.int32) - 1, 0)
    return positions.take(queries, axis=1)


def visible_keys(
    mask: Array | None, queries: Array, past: Layers | StaticCache | None
) -> Array | None:  # (B, S), (T,) -> (B or 1, 1, T, S)
    """A query sees the real tokens before it, and always itself, so that no row is empty.

    None stands for the plain causal mask, which fused attention knows without being told.
    """
    if mask is None and past is None:
        return None
    n_keys = past.capacity if isinstance(past, StaticCache) else past_length(past) + queries.shape[0]
    keys = jnp.arange(n_keys, dtype=jnp.int32)
    causal = keys <= queries[:, None]  # (T, S)
    if mask is None:
        return causal[None, None]
    return causal & mask[:, None, None, :] | (keys == queries[:, None])


def encoder_keys(mask: Array | None) -> Array | None:  # (B, X) or (B, 1, X) -> (B, 1, 1, X)
    """Every token sees the real encoder tokens; where there is none, it sees all, so that no row is empty."""
    if mask is None:
        return None
    mask = mask.reshape(mask.shape[0], 1, 1, mask.shape[-1]) != 0
    return mask | ~mask.any(-1, keepdims=True)
