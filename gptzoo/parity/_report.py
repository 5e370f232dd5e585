"""What a parity run found: a table for people, JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from gptzoo.errors import ParityError
from gptzoo.parity._compare import Comparison


@dataclass
class Report:
    """Every comparison of a run.

    Attributes:
        skipped: framework -> why it was not run.
        precision: framework -> the setting of matrix products that was in force.
    """

    checkpoint: str
    model: str
    dtype: str
    tolerance: float
    seed: int
    skipped: dict[str, str] = field(default_factory=dict)
    precision: dict[str, str] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return bool(self.comparisons) and all(comparison.passed for comparison in self.comparisons)

    def raise_if_failed(self) -> None:
        """Raises ParityError naming the worst comparison of each framework and output that failed."""
        if not self.passed:
            failed = [worst for worst in self.worst() if not worst.passed]
            raise ParityError.listing(f"{self.model} of {self.checkpoint}", [_sentence(one) for one in failed])

    def worst(self) -> list[Comparison]:
        """Returns the worst comparison of each output and framework, in the order of first appearance."""
        groups: dict[tuple[str, str], list[Comparison]] = {}
        for comparison in self.comparisons:
            groups.setdefault((comparison.output, comparison.framework), []).append(comparison)
        order = list(dict.fromkeys(output for output, _ in groups))
        ranked = sorted(groups, key=lambda key: order.index(key[0]))  # stable: frameworks stay in their order
        return [max(groups[key], key=_badness) for key in ranked]

    def to_json(self) -> dict[str, Any]:
        rows = [asdict(comparison) | {"passed": comparison.passed} for comparison in self.comparisons]
        return asdict(self) | {"passed": self.passed, "comparisons": rows}

    def __str__(self) -> str:
        head = ("output", "framework", "max abs", "max rel", "top-1", "mean KL", "tolerance", "result", "worst case")
        lines = [
            f"{self.model} of {self.checkpoint}, {self.dtype}, against the NumPy float64 reference",
            *(f"  {name}: {setting}" for name, setting in self.precision.items()),
            *(f"  {name}: skipped, {reason}" for name, reason in self.skipped.items()),
            "",
            *table([head, *(_row(one) for one in self.worst())]),
            "",
            f"{'pass' if self.passed else 'FAIL'}: {len(self.comparisons)} arrays compared, "
            f"{sum(not one.passed for one in self.comparisons)} beyond the tolerance of {self.tolerance:.1e} "
            "(max |error| / max |reference|)",
        ]
        return "\n".join(lines)


def table(rows: Iterable[Iterable[str]]) -> list[str]:
    """Lays out rows of cells in columns, the first row as a heading."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _badness(comparison: Comparison) -> tuple[bool, bool, float]:
    return comparison.problem is not None, not comparison.passed, comparison.max_rel


def _row(one: Comparison) -> tuple[str, ...]:
    if one.problem:
        return (
            one.output,
            one.framework,
            "-",
            "-",
            "-",
            "-",
            f"{one.tolerance:.1e}",
            "FAIL",
            f"{one.case}: {one.problem}",
        )
    top1 = "-" if one.top1 is None else f"{one.top1:.0%}"
    kl = "-" if one.mean_kl is None else f"{one.mean_kl:.1e}"
    result = "pass" if one.passed else "FAIL"
    return (
        one.output,
        one.framework,
        f"{one.max_abs:.1e}",
        f"{one.max_rel:.1e}",
        top1,
        kl,
        f"{one.tolerance:.1e}",
        result,
        one.case,
    )


def _sentence(one: Comparison) -> str:
    found = one.problem or f"error {one.max_rel:.1e} of the largest value, tolerance {one.tolerance:.1e}"
    return f"{one.framework}, {one.case}, {one.output}: {found}"
