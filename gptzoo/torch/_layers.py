"""Layers of both families in PyTorch.

Shapes: B batch, T tokens, E n_embd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptzoo.config import TRAINED_ACTIVATIONS, GPTConfig
from gptzoo.inputs import ArrayKind
from gptzoo.weights import XIELU

# Canonical name (a value of gptzoo.config.ACTIVATIONS) -> function.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_10": lambda x: F.gelu(x).clamp(-10, 10),
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "laplace": lambda x: 0.5 * (1 + torch.erf((x - 0.707107) / (0.282095 * 2**0.5))),
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.01),
    "linear": lambda x: x,
    "mish": F.mish,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x) ** 2,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
}


# oneDNN's product, which reads the weights with all cores and where they are; MKL's reads them with one for one row.
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # (..., n_in), (n_out, n_in) -> (..., n_out)
    """As `F.linear`; without gradients, on a CPU and in float32, by oneDNN."""
    fits = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if ONEDNN is None or not in_inference() or not fits:
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling():
        return by_onednn(x, weight, bias)
    y: Tensor = ONEDNN(x, weight, bias, "none", [], "")
    return y


def in_inference() -> bool:
    """Whether no gradient will be asked for; compilers see no inference mode, and exported programs run elsewhere."""
    if torch.compiler.is_compiling():
        return not torch.is_grad_enabled() and not torch.compiler.is_exporting()
    return torch.is_inference_mode_enabled()


@torch.library.custom_op("gptzoo::linear", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
def by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same for PyTorch's compilers, which do not take the bare function."""
    assert ONEDNN is not None
    y: Tensor = ONEDNN(x, weight, bias, "none", [], "")
    return y


@by_onednn.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


class Embedding(nn.Module):
    """A table of vectors, looked up by id."""

    def __init__(self, n_rows: int, n_embd: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_rows, n_embd))

    def forward(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, E)
        return F.embedding(ids.long(), self.weight)


class Linear(nn.Module):
    """x @ weight.T (+ bias), the weight stored (n_out, n_in): the layout of heads."""

    def __init__(self, n_in: int, n_out: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.empty(n_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:  # (..., n_in) -> (..., n_out)
        return linear(x, self.weight, self.bias)


class Conv1D(nn.Module):
    """x @ weight + bias, the weight stored (n_in, n_out): OpenAI's convolution of width 1."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        self.bias = nn.Parameter(torch.empty(n_out))

    def forward(self, x: Tensor) -> Tensor:  # (..., n_in) -> (..., n_out)
        return linear(x, self.weight.T, self.bias)


class LayerNorm(nn.Module):
    """Zero mean and unit variance over the last axis, then scale and shift; float32 inside (Ba et al. 2016)."""

    def __init__(self, n_embd: int, epsilon: float):
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(n_embd))
        self.bias = nn.Parameter(torch.empty(n_embd))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, E) -> (B, T, E)
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class Activation(nn.Module):
    """The function between the maps of an MLP, with weights of its own where it has some."""

    weight: Tensor
    alpha_p: Tensor
    alpha_n: Tensor

    def __init__(self, function: str):
        super().__init__()
        self.function = function  # its name: a function in a module could not be pickled
        for name in TRAINED_ACTIVATIONS.get(function, ()):
            setattr(self, name, nn.Parameter(torch.empty(1)))

    def forward(self, x: Tensor) -> Tensor:
        if self.function == "prelu":  # He et al. 2015
            return torch.where(x > 0, x, self.weight * x)
        if self.function == "xielu":
            return xielu(x, F.softplus(self.alpha_p), F.softplus(self.alpha_n))
        return ACTIVATIONS[self.function](x)


def xielu(x: Tensor, p: Tensor, n: Tensor) -> Tensor:
    """Quadratic above 0, an exponential below, with trainable slopes (Huang and Schlag 2024)."""
    below = (torch.expm1(x.clamp(max=XIELU["eps"])) - x) * (XIELU["beta"] + n)
    return torch.where(x > 0, p * x * x, below) + XIELU["beta"] * x


class MLP(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.c_fc = Conv1D(config.n_embd, config.n_mlp)
        self.c_proj = Conv1D(config.n_mlp, config.n_embd)
        self.act = Activation(config.activation)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, E) -> (B, T, E)
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


def host_values(x: Tensor) -> np.ndarray | None:
    """Returns the values of a tensor that is in host memory; None where it is traced, or where looking would wait."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if traced or type(x) is not Tensor or x.device.type != "cpu":
        return None
    try:
        return x.detach().numpy()
    except RuntimeError:  # inside torch.func.vmap
        return None


ARRAYS = ArrayKind(lambda x: isinstance(x, Tensor), "a torch.Tensor", host_values)


def at_least_float32(x: Tensor) -> Tensor:
    """Where half precision would lose too much: scores and losses."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextmanager
def evaluating(*models: Any) -> Iterator[None]:
    """In it nothing of the models drops out, whatever mode each part is in; what is no model is left alone."""
    parts = [part for model in models if isinstance(model, nn.Module) for part in model.modules() if part.training]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in parts:
            part.training = True
