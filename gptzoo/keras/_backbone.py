"""The backbone in Keras: embeddings, blocks, final norm, and the call contract that both families share.

Shapes: B batch, T new tokens, S cached and new tokens, X encoder tokens, N heads, E n_embd.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
from keras import ops

from gptzoo.cache import Layers, StaticCache, normalise_past
from gptzoo.config import GPTConfig
from gptzoo.keras._attention import Context
from gptzoo.keras._layers import Tensor
from gptzoo.keras._pretrained import PreTrainedModel
from gptzoo.outputs import BaseModelOutput


class Backbone(PreTrainedModel):
    """A decoder without a head. A family adds its embeddings, its blocks `h` and its final norm."""

    head = "Model"
    gradient_checkpointing = False
    drop: keras.layers.Dropout
    h: list[keras.Layer]

    def embed_tokens(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        raise NotImplementedError

    def embed_positions(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        raise NotImplementedError

    def final_norm(self, x: Tensor) -> Tensor:  # (B, T, E) -> (B, T, E)
        return x

    def call(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Computes the hidden states of tokens.

        Args:
            input_ids: (B, T), or with further leading axes, such as (B, C, T). In its place, a dict of arguments by
                their names, or a list of input_ids, attention_mask, token_type_ids and position_ids, in this order.
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
            training: whether to drop out.

        Raises:
            InputError: lists every argument of a wrong shape.
        """
        config = self.config
        past = read_past(config, past_key_values)
        self.check_inputs(
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
        # Sizes that are known only at run time are in ops.shape, not in the static shape.
        shape = ops.shape(input_ids) if input_ids is not None else ops.shape(inputs_embeds)[:-1]
        x = self.embed(input_ids, inputs_embeds)  # (B, T, E)
        mask = None if attention_mask is None else full_mask(attention_mask, past)
        queries = past_length(past) + ops.arange(shape[-1], dtype="int32")
        x = x + self.embed_positions(token_positions(mask, queries) if position_ids is None else flat(position_ids))
        if token_type_ids is not None:
            x = x + self.embed_tokens(flat(token_type_ids))
        if isinstance(past, StaticCache):
            # Compiled code cannot raise: tokens beyond the capacity give NaN.
            x = ops.where((queries < past.capacity)[:, None], x, float("nan"))
        twice = self.gradient_checkpointing and bool(training)
        ctx = Context(
            implementation=config.attn_implementation or "sdpa",
            queries=queries,
            visible=visible_keys(mask, queries, past),
            past=past,
            head_mask=None if head_mask is None else ops.broadcast_to(head_mask, (config.n_layer, config.n_head)),
            encoder=None if encoder_hidden_states is None else self.cast(encoder_hidden_states),
            encoder_visible=encoder_keys(encoder_attention_mask),
            use_cache=(config.use_cache if use_cache is None else use_cache) and not twice,
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            training=bool(training),
        )
        x, states = self.run_blocks(self.drop(x, training=ctx.training), ctx, twice)
        wanted = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        x = ops.reshape(x, (*shape, config.n_embd))
        output = BaseModelOutput(
            last_hidden_state=x,
            past_key_values=ctx.cache(shape[-1]),
            hidden_states=(*states, x) if wanted else None,
            attentions=tuple(ctx.attentions) if ctx.output_attentions else None,
            cross_attentions=tuple(ctx.cross_attentions) if ctx.cross_attentions else None,
        )
        return self.result(output, return_dict)

    def embed(self, ids: Tensor | None, embeds: Tensor | None) -> Tensor:  # (..., T) or (..., T, E) -> (B, T, E)
        if ids is not None:
            return self.embed_tokens(flat(ids))
        assert embeds is not None  # check_inputs has seen to it
        return ops.reshape(self.cast(embeds), (-1, *ops.shape(embeds)[-2:]))

    def run_blocks(self, x: Tensor, ctx: Context, twice: bool) -> tuple[Tensor, list[Tensor]]:
        """Returns the last hidden state and the input of each block."""
        states = []
        for block in self.h:
            states.append(x)
            # Keras tells the layers inside that it is training.
            x = recompute(block, x, ctx) if twice else block(x, ctx=ctx, training=ctx.training)
        return self.final_norm(x), states


def recompute(block: keras.Layer, x: Tensor, ctx: Context) -> Tensor:  # (B, T, E) -> (B, T, E)
    """Runs a block that keeps nothing for its gradient but what goes in: the rest is computed again, dropout as before.

    It runs twice, so it reports to lists of its own, and only the first run's reports are passed on; and both runs
    begin with the same states of its dropouts, which move on once. For what is no argument and no weight, TensorFlow
    would have no gradient.
    """
    weights = [(weight, weight.value) for weight in block.weights]
    states = [variable for variable in block.variables if all(variable is not weight for weight, _ in weights)]
    starts = [(state, ops.copy(state)) for state in states]
    given = {name: getattr(ctx, name) for name in ("encoder", "head_mask", "past") if getattr(ctx, name) is not None}

    @keras.remat
    def run(x: Tensor, given: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        own = replace(ctx, attentions=[], cross_attentions=[], **given)
        with keras.StatelessScope(weights + starts) as scope:
            x = block(x, ctx=own, training=True)
        return [x, *own.attentions, *own.cross_attentions], [scope.get_current_value(state) for state in states]

    (x, *reports), ends = run(x, given)
    for state, end in zip(states, ends, strict=True):
        state.assign(end)
    ctx.attentions += reports[:1]
    ctx.cross_attentions += reports[1:]
    return x


def read_past(config: GPTConfig, past_key_values: Any) -> Layers | StaticCache | None:
    """Brings any layout of `past_key_values` to one of ours."""
    return normalise_past(past_key_values, config.n_layer, lambda x: ops.swapaxes(x, 1, 2))


def flat(ids: Tensor) -> Tensor:  # (..., T) -> (B, T)
    return ops.reshape(ids, (-1, ops.shape(ids)[-1]))


def full_mask(mask: Tensor, past: Layers | StaticCache | None) -> Tensor:  # (..., S) -> (B, S)
    """Flattens the mask, and lengthens it to a static cache's capacity: causality hides what is not yet filled."""
    missing = past.capacity - ops.shape(mask)[-1] if isinstance(past, StaticCache) else 0
    return ops.pad(ops.cast(flat(mask), "bool"), ((0, 0), (0, missing)), constant_values=True)


def past_length(past: Layers | StaticCache | None) -> Any:
    """Returns how many tokens a cache holds; as the one of `gptzoo.cache`, but from `ops.shape`."""
    if isinstance(past, StaticCache):
        return ops.cast(past.length, "int32")
    return ops.shape(past[0][0])[2] if past else 0


def token_positions(mask: Tensor | None, queries: Tensor) -> Tensor:  # (B, S), (T,) -> (B or 1, T)
    """Counts real tokens from 0; padding gets position 0."""
    if mask is None:
        return queries[None]
    positions = ops.where(mask, ops.cumsum(ops.cast(mask, "int32"), axis=-1) - 1, 0)
    return ops.take(positions, queries, axis=1)


def visible_keys(
    mask: Tensor | None, queries: Tensor, past: Layers | StaticCache | None
) -> Tensor | None:  # (B, S), (T,) -> (B or 1, 1, T, S)
    """A query sees the real tokens before it, and always itself, so that no row is empty.

    None stands for the plain causal mask, which fused attention knows without being told.
    """
    if mask is None and past is None:
        return None
    n_keys = past.capacity if isinstance(past, StaticCache) else past_length(past) + ops.shape(queries)[0]
    keys = ops.arange(n_keys, dtype="int32")
    causal = keys <= queries[:, None]  # (T, S)
    if mask is None:
        return causal[None, None]
    return causal & mask[:, None, None, :] | (keys == queries[:, None])


def encoder_keys(mask: Tensor | None) -> Tensor | None:  # (B, X) or (B, 1, X) -> (B, 1, 1, X)
    """Every token sees the real encoder tokens; where there is none, it sees all, so that no row is empty."""
    if mask is None:
        return None
    mask = ops.cast(ops.reshape(mask, (ops.shape(mask)[0], 1, 1, ops.shape(mask)[-1])), "bool")
    return mask | ~ops.any(mask, axis=-1, keepdims=True)
