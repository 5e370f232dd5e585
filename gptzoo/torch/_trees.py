"""Teaches PyTorch's trees to take outputs apart, so that `torch.export` and `torch.func` can pass them on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from torch.utils import _pytree as trees  # PyTorch has no public name for it; Transformers registers here too

from gptzoo.outputs import OUTPUTS, ModelOutput


def flatten(output: ModelOutput) -> tuple[list[Any], list[str]]:
    names = [name for name in output.names() if name in output]
    return [output[name] for name in names], names


def unflatten(leaves: Iterable[Any], names: list[str], cls: type[ModelOutput]) -> ModelOutput:
    output = cls()
    dict.update(output, zip(names, leaves, strict=True))  # as they come, None too
    return output


for cls in OUTPUTS.values():
    with suppress(ValueError):  # known already: Keras' twin on PyTorch needs the same
        name = f"{cls.__module__}.{cls.__name__}"
        trees.register_pytree_node(cls, flatten, partial(unflatten, cls=cls), serialized_type_name=name)
