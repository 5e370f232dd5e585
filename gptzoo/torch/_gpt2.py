"""GPT-2 in PyTorch (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners")."""

from __future__ import annotations

from torch import Tensor, nn

from gptzoo.config import GPT2Config
from gptzoo.torch._attention import Attention, Context, CrossAttention
from gptzoo.torch._backbone import Backbone
from gptzoo.torch._layers import MLP, Embedding, LayerNorm


class GPT2Block(nn.Module):
    """Pre-norm transformer block (sec. 2.3), with cross-attention where the config asks for it."""

    def __init__(self, config: GPT2Config, layer: int):
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        if config.add_cross_attention:
            self.ln_cross_attn = LayerNorm(config.n_embd, config.layer_norm_epsilon)
            self.crossattention = CrossAttention(config, layer)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, ctx: Context) -> Tensor:  # (B, T, E) -> (B, T, E)
        x = x + self.attn(self.ln_1(x), ctx)
        if ctx.encoder is not None:
            x = x + self.crossattention(self.ln_cross_attn(x), ctx)
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT2Model(Backbone):
    """GPT-2 without a head: token ids in, hidden states out."""

    config_class = GPT2Config

    def __init__(self, config: GPT2Config, seed: int | None = 0):
        super().__init__(config, seed)
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList([GPT2Block(config, layer) for layer in range(config.n_layer)])
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.init_weights(seed)

    def embed_tokens(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        return self.wte(ids)

    def embed_positions(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        return self.wpe(ids)

    def final_norm(self, x: Tensor) -> Tensor:  # (B, T, E) -> (B, T, E)
        return self.ln_f(x)
