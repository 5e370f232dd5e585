"""What the tests of the original's names share: which framework a name is of, and inputs as its users have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.heads import parse_class_name
from tests import matrix
from tests.matrix import TESTED

FRAMEWORKS = {"": "torch", "TF": "keras", "Flax": "flax"}

IDS = np.array([[7, 30, 2, 11, 5]])
MASK = np.ones_like(IDS)
PADDED = np.array([[0, 0, 1, 1, 1]])
CHOICES = np.array([[[7, 30, 2, 39], [7, 11, 2, 39]]])


def prefix_of(name: str) -> str:
    return next(prefix for prefix in ("TF", "Flax", "") if name.startswith(prefix))


def with_tested(*names: str) -> list[Any]:
    """Those of some names whose framework is tested."""
    return [name for name in names if FRAMEWORKS[prefix_of(name)] in TESTED]


def saved(name: str, path: Path, **changes: Any) -> tuple[GPTConfig, str, dict[str, np.ndarray]]:
    """Writes a tiny checkpoint for a class; returns what the reference needs."""
    config_class, head = parse_class_name(name)
    config = matrix.tiny(config_class.model_type, **changes)
    values = matrix.random_weights(config, head)
    matrix.build(FRAMEWORKS[prefix_of(name)], config, head, values).model.save_pretrained(path)
    return config, head, values


def native(name: str, **arrays: Any) -> dict[str, Any]:
    """Arrays as the framework's users have them: Flax' tokenizers return NumPy's."""
    framework = FRAMEWORKS[prefix_of(name)]
    if framework == "torch":
        import torch

        return {key: torch.tensor(array) for key, array in arrays.items()}
    if framework == "keras":
        from keras import ops

        return {key: ops.convert_to_tensor(array) for key, array in arrays.items()}
    return arrays


def numpy(value: Any) -> np.ndarray:
    return value.detach().numpy() if hasattr(value, "detach") else np.asarray(value)


def agrees(found: Any, wanted: Any) -> bool:
    return matrix.error(numpy(found), wanted) <= matrix.TOLERANCE
