"""The functions of generation in PyTorch; what they mean stands in `gptzoo.generation.Namespace`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptzoo.generation import _namespace
from gptzoo.generation._namespace import kinds


class Namespace(_namespace.Namespace):
    """Functions on tensors of a device."""

    def __init__(self, device: torch.device | str = "cpu"):
        self.device = torch.device(device)

    def array(self, x: Any) -> Tensor:
        return torch.as_tensor(kinds(x, np.int64), device=self.device)

    def full(self, shape: Sequence[int], value: float) -> Tensor:
        dtype = {bool: torch.bool, float: torch.float64}.get(type(value), torch.int64)
        return torch.full(tuple(shape), value, dtype=dtype, device=self.device)

    def arange(self, n: int) -> Tensor:
        return torch.arange(n, device=self.device)

    def float64(self, x: Any) -> Tensor:
        return torch.as_tensor(x, dtype=torch.float64, device=self.device)

    def integer(self, x: Any) -> Tensor:
        return torch.as_tensor(x, dtype=torch.int64, device=self.device)

    def where(self, condition: Tensor, x: Any, y: Any) -> Tensor:
        return torch.where(condition, x, y)

    def exp(self, x: Tensor) -> Tensor:
        return x.exp()

    def log(self, x: Tensor) -> Tensor:
        return x.log()

    def isfinite(self, x: Tensor) -> Tensor:
        return x.isfinite()

    def maximum(self, x: Tensor, y: Any) -> Tensor:
        return x.clamp(min=y)

    def minimum(self, x: Tensor, y: Any) -> Tensor:
        return x.clamp(max=y)

    def any(self, x: Tensor, keepdims: bool = False) -> Tensor:
        return x.any(dim=-1, keepdim=keepdims)

    def all(self, x: Tensor, keepdims: bool = False) -> Tensor:
        return x.all(dim=-1, keepdim=keepdims)

    def sum(self, x: Tensor, keepdims: bool = False) -> Tensor:
        return x.sum(dim=-1, keepdim=keepdims)

    def max(self, x: Tensor, keepdims: bool = False) -> Tensor:
        return x.amax(dim=-1, keepdim=keepdims)

    def min(self, x: Tensor, keepdims: bool = False) -> Tensor:
        return x.amin(dim=-1, keepdim=keepdims)

    def cumsum(self, x: Tensor) -> Tensor:
        return x.cumsum(dim=-1)

    def sort(self, x: Tensor) -> Tensor:
        return x.sort(dim=-1).values

    def argsort(self, x: Tensor) -> Tensor:
        return x.argsort(dim=-1, stable=True)

    def take_along(self, x: Tensor, index: Tensor) -> Tensor:
        return x.take_along_dim(index, dim=-1)

    def rows(self, x: Tensor, index: Tensor) -> Tensor:
        return x.index_select(0, index)

    def columns(self, x: Tensor, index: Tensor) -> Tensor:
        return x.index_select(1, index)

    def leading(self, x: Tensor, n: Any) -> Tensor:
        return x[:, : int(n)].clone()  # which a call's own function may write into

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape(tuple(shape))

    def concatenate(self, parts: Sequence[Tensor], axis: int = -1) -> Tensor:
        return torch.cat(tuple(parts), dim=axis)

    def mark(self, ids: Tensor, size: int) -> Tensor:
        return self.full((ids.shape[0], size + 1), False).scatter_(1, ids, True)[:, :size]

    def add_at(self, values: Tensor, index: Tensor, size: int) -> Tensor:
        return self.full((values.shape[0], size), 0.0).index_add_(1, index, values)

    # Those that PyTorch has, in one pass over the values.

    def argmax(self, x: Tensor) -> Tensor:
        return x.argmax(dim=-1)

    def sound(self, x: Tensor) -> Tensor:
        return x.amax(dim=-1).isfinite()  # NaN if one is
