"""The same Keras files on Keras' other backends: the matrix again, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gptzoo._extras import FRAMEWORKS, missing
from tests.matrix import TESTED

ROOT = Path(__file__).parent.parent
NEEDS = {"jax": "flax", "torch": "torch"}  # whose extra brings the backend


# What runs on each backend: tests by their names, in which files. It is a part of what runs on TensorFlow, with each
# head, each family and each kind of test in it: eager Keras is slow on the others.
PARTS = {
    "models": ("LMHead and sdpa and not activation and not afn or generation and greedy", "matrix", "generation"),
    "heads": ("(GPT2DoubleHeads or GPT2For) and sdpa", "matrix"),
    "calls": ("bad_call and GPT2LMHeadModel or static or cache or dtype", "bad_calls"),
    "training": ("own_loss and gpt2-LMHead or several_logits or fit and graph", "training", "checkpointing"),
    "surgery": ("(resized or heads_are) and GPT2LMHeadModel and not eager or keras_files", "resizing", "pruning"),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("backend", NEEDS)
def test_on_backend(backend: str, part: str) -> None:
    if not {"keras", NEEDS[backend]} <= set(TESTED):
        pytest.skip(f"needs keras and {NEEDS[backend]} in GPTZOO_FRAMEWORKS")
    assert not missing(NEEDS[backend])
    assert "keras" in FRAMEWORKS
    env = os.environ | {"KERAS_BACKEND": backend, "GPTZOO_FRAMEWORKS": "keras", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    which, *names = PARTS[part]
    files = [f"tests/test_{name}.py" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", which, *files]
    if part == "training":  # Keras' own trainers warn: of a loss made a number, and of PyTorch's compiler
        command += ["-W", "ignore::UserWarning", "-W", "ignore::DeprecationWarning"]
    result = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed
    assert int(passed[1]) >= 3
