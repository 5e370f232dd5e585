"""Which frameworks are tested: GPTZOO_FRAMEWORKS, comma-separated; all three by default, and none may be missing."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The models here are tiny: threads would cost more than they bring, and the tests run beside each other.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402

from gptzoo._extras import FRAMEWORKS, missing  # noqa: E402
from tests.matrix import TESTED  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    if unknown := [name for name in TESTED if name not in FRAMEWORKS]:
        raise pytest.UsageError(f"GPTZOO_FRAMEWORKS: {unknown}, expected {list(FRAMEWORKS)}")
    if absent := {name: missing(name) for name in TESTED if missing(name)}:
        raise pytest.UsageError(f"not installed: {absent} (or set GPTZOO_FRAMEWORKS to those that are)")
