"""Generation in Keras as compiled programs: how often they are compiled, what they see, and how long they are kept."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from tests import matrix

pytestmark = pytest.mark.skipif("keras" not in matrix.TESTED, reason="keras is not in GPTZOO_FRAMEWORKS")

BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
CONFIG = matrix.tiny("gpt2", n_positions=64, n_layer=1)
VALUES = matrix.random_weights(CONFIG, "LMHeadModel")
IDS = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (2, 6))
DRAWN = {"do_sample": True, "top_k": 7, "temperature": 0.8, "top_p": 0.9}

# What runs on the other backends, in a process of its own.
PARTS = {"jax": "compilation or steps or forgotten or changed", "torch": "compilation or steps or dtype or saved"}
MASK = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])


def build(values: Any = VALUES) -> Any:
    return matrix.build("keras", CONFIG, "LMHeadModel", values).model


@pytest.fixture(scope="module")
def model() -> Any:
    return build()


@pytest.fixture(scope="module")
def count(model: Any) -> Callable[[], int]:
    """How often something was compiled for the model; on JAX at all, single operations included."""
    if BACKEND == "tensorflow":
        from gptzoo.keras._programs import programs_of

        return lambda: sum(one.experimental_get_tracing_count() for one in programs_of(model).compiled.values())
    if BACKEND != "jax":
        return lambda: 0
    import jax

    seen: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **_: seen.append(event))
    return lambda: seen.count("/jax/core/compile/backend_compile_duration")


def numpy(x: Any) -> np.ndarray:
    from gptzoo.keras._calls import to_array

    return to_array(x)


def same(found: Any, wanted: Any) -> bool:
    return np.array_equal(numpy(found), wanted)


def test_one_compilation_for_a_bucket(model: Any, count: Callable[[], int]) -> None:
    def check(ids: np.ndarray, new: int, mask: np.ndarray | None, **options: Any) -> None:
        options = DRAWN | options
        found = model.generate(ids, attention_mask=mask, max_new_tokens=new, **options)
        del options["do_sample"]
        assert same(found, reference.sample(CONFIG, VALUES, ids, new, mask, **options))

    start = count()
    check(IDS, 8, None, seed=3)
    before = count()
    assert (before > start) == (BACKEND != "torch")
    check(IDS[:, 2:], 9, MASK[:, 2:], temperature=1.5, top_p=0.7, seed=2**64 - 1)
    check(IDS, 26, MASK, temperature=0.9, top_p=0.8, seed=4)  # all 32 columns
    assert count() == before


def test_loop_equals_steps(model: Any) -> None:
    """Also in dtypes, which are those that there are outside of the call."""
    from keras import ops

    options = {"max_new_tokens": 8, "attention_mask": MASK, **DRAWN, "seed": 5}
    wanted = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    whole, steps = model.generate(IDS, **options), model.generate(IDS, **options, **wanted)
    assert same(whole, numpy(steps.sequences))
    assert whole.dtype == steps.sequences.dtype
    assert len(steps.scores) == 8
    for x in (steps.scores[0], steps.logits[-1]):
        assert (x + ops.zeros((), x.dtype)).dtype == x.dtype


@pytest.mark.parametrize("kind", ["uint8", "int32", "int64", "list"])
def test_ids_keep_their_dtype(model: Any, kind: str) -> None:
    """But where it might not hold the new ones; on JAX there are 32 bits by default."""
    given = IDS.tolist() if kind == "list" else IDS.astype(kind)
    found = model.generate(given, max_new_tokens=8)
    wide = kind in ("int64", "list") and BACKEND != "jax"
    assert numpy(found).dtype == ("int64" if wide else "int32")
    assert same(found, reference.greedy(CONFIG, VALUES, IDS, 8))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of how Keras calls NumPy
def test_saved_and_copied(tmp_path: Path) -> None:
    """What was compiled is no part of a model, and says the same as what is not compiled."""
    import keras

    own = build()
    wanted = reference.greedy(CONFIG, VALUES, IDS, 8, MASK)
    assert same(own.generate(IDS, max_new_tokens=8, attention_mask=MASK, use_cache=False), wanted)
    own.save(tmp_path / "model.keras")
    copies = [keras.models.load_model(tmp_path / "model.keras"), copy.deepcopy(own), pickle.loads(pickle.dumps(own))]
    for one in copies:
        one.run_eagerly = True
        assert same(one.generate(IDS, max_new_tokens=8, attention_mask=MASK), wanted)


def test_forgotten() -> None:
    """What was compiled does not keep the model."""
    own = build()
    own.generate(IDS, max_new_tokens=1)
    gone = weakref.ref(own)
    del own
    gc.collect()
    assert gone() is None


def test_bfloat16() -> None:
    """Each token is the most likely one, but for the rounding, to a call that is given all before it."""
    half = matrix.build("keras", CONFIG, "LMHeadModel", VALUES, dtype="bfloat16").model
    found = numpy(half.generate(IDS, max_new_tokens=8, attention_mask=MASK))
    mask = np.concatenate((MASK, np.ones((2, 8), int)), axis=1)
    logits = numpy(half(found, attention_mask=mask).logits).astype(np.float64)[:, 5:-1]  # (2, 8, V)
    taken = np.take_along_axis(logits, found[:, 6:, None], axis=-1)[..., 0]
    assert (logits.max(axis=-1) - taken).max() <= 2**-6 * np.abs(logits).max()


def test_changed_weights_are_seen(model: Any, count: Callable[[], int]) -> None:
    """New values without compiling anew, and new variables in place of others."""
    model.generate(IDS, max_new_tokens=8)
    others = matrix.random_weights(CONFIG, "LMHeadModel", seed=7)
    before = count()
    for key in VALUES:
        model.set_weight(key, others[key])
    assert same(model.generate(IDS, max_new_tokens=8), reference.greedy(CONFIG, others, IDS, 8))
    assert count() == before
    for key in VALUES:
        model.replace_weight(key, VALUES[key])
    model.tie_weights()
    assert same(model.generate(IDS, max_new_tokens=8), reference.greedy(CONFIG, VALUES, IDS, 8))


@pytest.mark.parametrize("backend", PARTS)
def test_on_backend(backend: str) -> None:
    env = os.environ | {"KERAS_BACKEND": backend, "GPTZOO_FRAMEWORKS": "keras"}
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", PARTS[backend]]
    command = [sys.executable, "-m", "pytest", *options, str(Path(__file__))]
    root = Path(__file__).parent.parent
    result = subprocess.run(command, capture_output=True, text=True, env=env, cwd=root, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
    assert int(result.stdout.split(" passed")[0].split()[-1]) >= 4
