"""Teaches PyTorch's trees to take outputs apart, so that `torch.export` and `torch.func` can pass them on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from torch.utils import _pytree as trees  # PyTorch has no public name for it; Transformers registers here too

from gptzoo.outputs import OUTPUTS, ModelOutput


def unflatten(leaves: Iterable[Any], names: Iterable[str], cls: type[ModelOutput]) -> ModelOutput:
    return cls.unflatten(names, leaves)


for cls in OUTPUTS.values():
    with suppress(ValueError):  # known already: Keras' twin on PyTorch needs the same
        name = f"{cls.__module__}.{cls.__name__}"
        trees.register_pytree_node(cls, cls.flatten, partial(unflatten, cls=cls), serialized_type_name=name)
