"""Parity: the same seeded inputs through every framework, each output held against the float64 reference."""

from gptzoo._runners import Runner, load_runner
from gptzoo.parity._cases import Case, cases
from gptzoo.parity._compare import TOLERANCES, Comparison, compare, default_tolerance
from gptzoo.parity._report import Report
from gptzoo.parity._run import check, require_same_outputs

__all__ = [
    "TOLERANCES",
    "Case",
    "Comparison",
    "Report",
    "Runner",
    "cases",
    "check",
    "compare",
    "default_tolerance",
    "load_runner",
    "require_same_outputs",
]
