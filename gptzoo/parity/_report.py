"""What a parity run found: a table for people, JSON for machines."""

from __future__ import annotations

import math
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

    @property
    def not_finite(self) -> int:
        """Number of values that are the same NaN or infinity on both sides: they pass, and were not measured."""
        return sum(one.not_finite for one in self.comparisons)

    def worst(self) -> list[Comparison]:
        """Returns the worst comparison of each output and framework, in the order of first appearance."""
        return [max(group, key=_badness) for group in self._groups()]

    def _groups(self) -> list[list[Comparison]]:
        groups: dict[tuple[str, str], list[Comparison]] = {}
        for comparison in self.comparisons:
            groups.setdefault((comparison.output, comparison.framework), []).append(comparison)
        order = list(dict.fromkeys(output for output, _ in groups))
        ranked = sorted(groups, key=lambda key: order.index(key[0]))  # stable: frameworks stay in their order
        return [groups[key] for key in ranked]

    def to_json(self) -> dict[str, Any]:
        """Returns the same as plain dicts, lists, texts and numbers; a number that is not finite is None."""
        rows = [_finite_only(asdict(one)) | {"passed": one.passed} for one in self.comparisons]
        totals = {"passed": self.passed, "not_finite": self.not_finite, "comparisons": rows}
        return _finite_only(asdict(self)) | totals

    def __str__(self) -> str:
        head = (
            *("output", "framework", "max abs", "max rel", "top-1", "mean KL", "tolerance", "result", "not finite"),
            "worst case",
        )
        lines = [
            f"{self.model} of {self.checkpoint}, {self.dtype}, against the NumPy float64 reference",
            *(f"  {name}: {setting}" for name, setting in self.precision.items()),
            *(f"  {name}: skipped, {reason}" for name, reason in self.skipped.items()),
            "",
            *table([head, *map(_row, self._groups())]),
            "",
            f"{'pass' if self.passed else 'FAIL'}: {len(self.comparisons)} arrays compared, "
            f"{sum(not one.passed for one in self.comparisons)} beyond the tolerance of {self.tolerance:.1e} "
            "(max |error| / max |reference|)",
        ]
        if self.not_finite:
            lines.append(f"{self.not_finite} values are NaN or infinite on both sides: counted as equal, not measured")
        return "\n".join(lines)


def table(rows: Iterable[Iterable[str]]) -> list[str]:
    """Lays out rows of cells in columns, the first row as a heading."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _badness(comparison: Comparison) -> tuple[bool, bool, float]:
    return comparison.problem is not None, not comparison.passed, comparison.max_rel


def _finite_only(fields: dict[str, Any]) -> dict[str, Any]:
    """NaN and infinity have no form in JSON."""
    return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in fields.items()}


def _row(group: list[Comparison]) -> tuple[str, ...]:
    """Cells of one output of one framework: its worst comparison, and the values that no comparison measured."""
    one = max(group, key=_badness)
    measured = (f"{one.max_abs:.1e}", f"{one.max_rel:.1e}")
    top1 = "-" if one.top1 is None else f"{one.top1:.0%}"
    kl = "-" if one.mean_kl is None else f"{one.mean_kl:.1e}"
    return (
        one.output,
        one.framework,
        *(("-", "-") if one.problem else measured),
        top1,
        kl,
        f"{one.tolerance:.1e}",
        "pass" if one.passed else "FAIL",
        str(sum(each.not_finite for each in group)),
        f"{one.case}: {one.problem}" if one.problem else one.case,
    )


def _sentence(one: Comparison) -> str:
    found = one.problem or f"error {one.max_rel:.1e} of the largest value, tolerance {one.tolerance:.1e}"
    return f"{one.framework}, {one.case}, {one.output}: {found}"
