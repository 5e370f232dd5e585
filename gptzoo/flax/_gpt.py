"""GPT in Flax NNX (Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training")."""

from __future__ import annotations

from typing import Any

from flax import nnx
from jax import Array

from gptzoo.config import OpenAIGPTConfig
from gptzoo.flax._attention import Attention, Context
from gptzoo.flax._backbone import Backbone
from gptzoo.flax._layers import MLP, Dropout, Embedding, LayerNorm


class OpenAIGPTBlock(nnx.Module):
    """Post-norm transformer block (sec. 3.1)."""

    def __init__(self, config: OpenAIGPTConfig, layer: int):
        self.attn = Attention(config, layer)
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)

    def __call__(self, x: Array, ctx: Context) -> Array:  # (B, T, E) -> (B, T, E)
        x = self.ln_1(x + self.attn(x, ctx))
        x = self.ln_2(x + self.mlp(x, ctx.rngs))
        return x


class OpenAIGPTModel(Backbone):
    """GPT without a head: token ids in, hidden states out."""

    config_class = OpenAIGPTConfig

    def __init__(
        self,
        config: OpenAIGPTConfig,
        seed: int | None = 0,
        *,
        rngs: nnx.Rngs | None = None,
        dtype: Any = None,
        param_dtype: Any = None,
    ):
        super().__init__(config, seed, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.tokens_embed = Embedding(config.vocab_size, config.n_embd)
        self.positions_embed = Embedding(config.n_positions, config.n_embd)
        self.drop = Dropout(config.embd_pdrop)
        self.h = nnx.List([OpenAIGPTBlock(config, layer) for layer in range(config.n_layer)])
        self.init_weights(seed, rngs, param_dtype)

    def embed_tokens(self, ids: Array) -> Array:  # (B, T) -> (B, T, E)
        return self.cast(self.tokens_embed(ids))

    def embed_positions(self, ids: Array) -> Array:  # (B, T) -> (B, T, E)
        return self.cast(self.positions_embed(ids))
