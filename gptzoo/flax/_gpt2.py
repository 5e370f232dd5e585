"""GPT-2 in Flax NNX (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners")."""

from __future__ import annotations

from typing import Any

from flax import nnx
from jax import Array

from gptzoo.config import GPT2Config
from gptzoo.flax._attention import Attention, Context, CrossAttention
from gptzoo.flax._backbone import Backbone
from gptzoo.flax._layers import MLP, Dropout, Embedding, LayerNorm


class GPT2Block(nnx.Module):
    """Pre-norm transformer block (sec. 2.3), with cross-attention where the config asks for it."""

    def __init__(self, config: GPT2Config, layer: int):
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        if config.add_cross_attention:
            self.ln_cross_attn = LayerNorm(config.n_embd, config.layer_norm_epsilon)
            self.crossattention = CrossAttention(config, layer)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def __call__(self, x: Array, ctx: Context) -> Array:  # (B, T, E) -> (B, T, E)
        x = x + self.attn(self.ln_1(x), ctx)
        if ctx.encoder is not None:
            x = x + self.crossattention(self.ln_cross_attn(x), ctx)
        x = x + self.mlp(self.ln_2(x), ctx.rngs)
        return x


class GPT2Model(Backbone):
    """GPT-2 without a head: token ids in, hidden states out."""

    config_class = GPT2Config

    def __init__(
        self,
        config: GPT2Config,
        seed: int | None = 0,
        *,
        rngs: nnx.Rngs | None = None,
        dtype: Any = None,
        param_dtype: Any = None,
    ):
        super().__init__(config, seed, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.n_positions, config.n_embd)
        self.drop = Dropout(config.embd_pdrop)
        self.h = nnx.List([GPT2Block(config, layer) for layer in range(config.n_layer)])
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.init_weights(seed, rngs, param_dtype)

    def embed_tokens(self, ids: Array) -> Array:  # (B, T) -> (B, T, E)
        return self.cast(self.wte(ids))

    def embed_positions(self, ids: Array) -> Array:  # (B, T) -> (B, T, E)
        return self.cast(self.wpe(ids))

    def final_norm(self, x: Array) -> Array:  # (B, T, E) -> (B, T, E)
        return self.ln_f(x)
