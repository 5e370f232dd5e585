"""Which frameworks are tested: GPTZOO_FRAMEWORKS, comma-separated; all three by default, and none may be missing."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no name that a test makes up is ever asked for
# The models here are tiny: threads would cost more than they bring, and the tests run beside each other.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")

# Programs of one test serve the others: workers, the processes that tests start, and what `forget` has cleared.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="gptzoo-jax-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# A shell without job control starts what runs in its background deaf to Ctrl-C; so would be all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# PyTorch's CUDA builds bring triton: loaded behind TensorFlow, it ends the process.
with suppress(ModuleNotFoundError):
    import triton  # noqa: F401

import pytest  # noqa: E402

# So that a failing assert in a helper shows its values too.
pytest.register_assert_rewrite(*(f"tests.{name}" for name in ("models", "old", "reference_heads", "reference_witness")))
pytest.register_assert_rewrite("tests.training")

from gptzoo._extras import FRAMEWORKS, missing  # noqa: E402
from tests.matrix import TESTED  # noqa: E402

if TYPE_CHECKING:
    from tests.hub_server import Client, Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    from tests.hub_server import serving

    with serving() as server:
        yield server


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    from tests.hub_server import client_of

    return client_of(hub, tmp_path)


# What is tested here is not how XLA rounds; compiling is most of its time.
UNOPTIMISED = ("calls", "checkpointing", "pipelines_calls", "pipelines_generation", "pruning", "resizing", "training")


@pytest.fixture(autouse=True, scope="module")
def compiled_quickly(request: pytest.FixtureRequest) -> Iterator[None]:
    if "jax" not in sys.modules or request.module.__name__.rpartition("test_")[2] not in UNOPTIMISED:
        yield
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True, scope="module")
def forget() -> Iterator[None]:
    """Compiled programs of thousands of tiny models would fill the memory, and slow the collector of garbage down."""
    yield
    if resident_bytes() < 2e9:
        return
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    if "torch" in sys.modules:
        sys.modules["torch"].compiler.reset()
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
    gc.collect()


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def pytest_collection_finish() -> None:
    """The frameworks that are imported by now are no garbage: the collector need not look at them again and again."""
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    if unknown := [name for name in TESTED if name not in FRAMEWORKS]:
        raise pytest.UsageError(f"GPTZOO_FRAMEWORKS: {unknown}, expected {list(FRAMEWORKS)}")
    if absent := {name: missing(name) for name in TESTED if missing(name)}:
        raise pytest.UsageError(f"not installed: {absent} (or set GPTZOO_FRAMEWORKS to those that are)")
