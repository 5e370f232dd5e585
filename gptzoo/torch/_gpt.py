"""GPT in PyTorch (Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training")."""

from __future__ import annotations

from torch import Tensor, nn

from gptzoo.config import OpenAIGPTConfig
from gptzoo.torch._attention import Attention, Context
from gptzoo.torch._backbone import Backbone
from gptzoo.torch._layers import MLP, Embedding, LayerNorm


class OpenAIGPTBlock(nn.Module):
    """Post-norm transformer block (sec. 3.1)."""

    def __init__(self, config: OpenAIGPTConfig, layer: int):
        super().__init__()
        self.attn = Attention(config, layer)
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:  # (B, T, E) -> (B, T, E)
        x = self.ln_1(x + self.attn(x, ctx))
        x = self.ln_2(x + self.mlp(x))
        return x


class OpenAIGPTModel(Backbone):
    """GPT without a head: token ids in, hidden states out."""

    config_class = OpenAIGPTConfig

    def __init__(self, config: OpenAIGPTConfig, seed: int | None = 0):
        super().__init__(config, seed)
        self.tokens_embed = Embedding(config.vocab_size, config.n_embd)
        self.positions_embed = Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList([OpenAIGPTBlock(config, layer) for layer in range(config.n_layer)])
        self.init_weights(seed)

    def embed_tokens(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        return self.tokens_embed(ids)

    def embed_positions(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        return self.positions_embed(ids)
