"""GPT-2 in Keras (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners")."""

from __future__ import annotations

from typing import Any

import keras

from gptzoo.config import GPT2Config
from gptzoo.keras._attention import Attention, Context, CrossAttention
from gptzoo.keras._backbone import Backbone
from gptzoo.keras._layers import MLP, Embedding, LayerNorm, Tensor, inside


class GPT2Block(keras.Layer):
    """Pre-norm transformer block (sec. 2.3), with cross-attention where the config asks for it."""

    def __init__(self, config: GPT2Config, layer: int, **kwargs: Any):
        super().__init__(**kwargs)
        with inside(self):
            self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon, name="ln_1")
            self.attn = Attention(config, layer, name="attn")
            if config.add_cross_attention:
                self.ln_cross_attn = LayerNorm(config.n_embd, config.layer_norm_epsilon, name="ln_cross_attn")
                self.crossattention = CrossAttention(config, layer, name="crossattention")
            self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon, name="ln_2")
            self.mlp = MLP(config, name="mlp")

    def call(self, x: Tensor, ctx: Context) -> Tensor:  # (B, T, E) -> (B, T, E)
        x = x + self.attn(self.ln_1(x), ctx=ctx)
        if ctx.encoder is not None:
            x = x + self.crossattention(self.ln_cross_attn(x), ctx=ctx)
        x = x + self.mlp(self.ln_2(x))
        return x


@keras.saving.register_keras_serializable("gptzoo")
class GPT2Model(Backbone):
    """GPT-2 without a head: token ids in, hidden states out."""

    config_class = GPT2Config

    def __init__(self, config: GPT2Config, seed: int | None = 0, **kwargs: Any):
        super().__init__(config, seed, **kwargs)
        with inside(self):
            self.wte = Embedding(config.vocab_size, config.n_embd, name="wte")
            self.wpe = Embedding(config.n_positions, config.n_embd, name="wpe")
            self.drop = keras.layers.Dropout(config.embd_pdrop, name="drop")
            self.h = [GPT2Block(config, layer, name=f"h_{layer}") for layer in range(config.n_layer)]
            self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon, name="ln_f")
        self.init_weights(seed)

    def embed_tokens(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        return self.wte(ids)

    def embed_positions(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        return self.wpe(ids)

    def final_norm(self, x: Tensor) -> Tensor:  # (B, T, E) -> (B, T, E)
        return self.ln_f(x)
