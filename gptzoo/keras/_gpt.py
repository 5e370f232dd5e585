"""GPT in Keras (Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training")."""

from __future__ import annotations

from typing import Any

import keras

from gptzoo.config import OpenAIGPTConfig
from gptzoo.keras._attention import Attention, Context
from gptzoo.keras._backbone import Backbone
from gptzoo.keras._layers import MLP, Embedding, LayerNorm, Tensor, inside


class OpenAIGPTBlock(keras.Layer):
    """Post-norm transformer block (sec. 3.1)."""

    def __init__(self, config: OpenAIGPTConfig, layer: int, **kwargs: Any):
        super().__init__(**kwargs)
        with inside(self):
            self.attn = Attention(config, layer, name="attn")
            self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon, name="ln_1")
            self.mlp = MLP(config, name="mlp")
            self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon, name="ln_2")

    def call(self, x: Tensor, ctx: Context) -> Tensor:  # (B, T, E) -> (B, T, E)
        x = self.ln_1(x + self.attn(x, ctx=ctx))
        x = self.ln_2(x + self.mlp(x))
        return x


@keras.saving.register_keras_serializable("gptzoo")
class OpenAIGPTModel(Backbone):
    """GPT without a head: token ids in, hidden states out."""

    config_class = OpenAIGPTConfig

    def __init__(self, config: OpenAIGPTConfig, seed: int | None = 0, **kwargs: Any):
        super().__init__(config, seed, **kwargs)
        with inside(self):
            self.tokens_embed = Embedding(config.vocab_size, config.n_embd, name="tokens_embed")
            self.positions_embed = Embedding(config.n_positions, config.n_embd, name="positions_embed")
            self.drop = keras.layers.Dropout(config.embd_pdrop, name="drop")
            self.h = [OpenAIGPTBlock(config, layer, name=f"h_{layer}") for layer in range(config.n_layer)]
        self.init_weights(seed)

    def embed_tokens(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        return self.tokens_embed(ids)

    def embed_positions(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        return self.positions_embed(ids)
