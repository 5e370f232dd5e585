"""The seeds of calls that are given none."""

from __future__ import annotations

import random
import sys
from operator import attrgetter
from typing import Any

import numpy as np

from gptzoo._settings import short, whole
from gptzoo.errors import InputError

# Module -> its function that seeds it; Keras' also seeds its backend.
SEEDING = {"torch": "manual_seed", "tensorflow": "random.set_seed", "keras": "utils.set_random_seed"}
LIMIT = 2**32  # of NumPy's seeds

_source: random.Random = random.SystemRandom()


def set_seed(seed: int) -> None:
    """Makes what is drawn from now on the same in every run.

    Calls of `generate`, and of pipelines, with `do_sample=True` and without a seed of their own take their seeds from a
    sequence, which begins anew here: the first such call draws what the first one drew after the last
    `set_seed(seed)`, the second what the second drew, in every framework. Threads share the sequence: no two calls get
    the same place of it, but which one is first is up to them.

    Also seeds Python's `random`, NumPy's global generator, and those of PyTorch, TensorFlow and Keras, if they have
    been imported.

    Args:
        seed: from 0 to 2**32 - 1.

    Raises:
        InputError: it is something else.
    """
    global _source
    number = whole(seed)
    if number is None or not 0 <= number < LIMIT:
        raise InputError(f"seed: {short(seed)}, expected an integer from 0 to 2**32 - 1")
    _source = random.Random(number)
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - for users' own code
    for name, function in SEEDING.items():
        module: Any = sys.modules.get(name)
        if module is not None:
            attrgetter(function)(module)(number)


def next_seed() -> int:
    """Returns a seed for one call, from 0 to 2**64 - 1; by chance, or after `set_seed` the next of its sequence."""
    return _source.getrandbits(64)  # one call into C: two threads never get the same
