"""What stands in a column of the weight table: another software's name of a weight, and how its array lies there.

The way back is never written down: every change of axes knows its own inverse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gptzoo import weights
from gptzoo.inputs import Shape


@dataclass(frozen=True)
class Change:
    """A change of axes that loses nothing.

    Attributes:
        forward: canonical array and number of heads -> foreign array.
        back: foreign array -> canonical array.
        rank: fewest axes that a foreign array must have.
    """

    forward: Callable[[np.ndarray, int], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]
    rank: int


def _merge(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])


TRANSPOSED = Change(lambda a, _: a.T, lambda a: a.T, 2)
LEADING_ONE = Change(lambda a, _: a[None], lambda a: a.reshape(a.shape[1:]), 2)
HEADS_FIRST = Change(lambda a, n: a.reshape(n, -1, *a.shape[1:]), lambda a: a.reshape(_merge(a.shape, 0)), 3)
HEADS_LAST = Change(lambda a, n: a.reshape(*a.shape[:-1], n, -1), lambda a: a.reshape(_merge(a.shape, a.ndim - 2)), 2)


@dataclass(frozen=True)
class Cell:
    """One weight in one column.

    Attributes:
        names: of the foreign arrays: one, or several into which the last axis is split. In them, "{i}" is the number of
            the block, "{_i}" too but nothing for the first ("", "_1", "_2"), and "{12i+3}" a number made from it.
        changes: of each foreign array against its part of the canonical one.
    """

    names: tuple[str, ...]
    changes: tuple[Change, ...] = ()

    def named(self, block: int | None) -> tuple[str, ...]:
        """Returns the foreign names of this weight in a block."""
        return self.names if block is None else tuple(_numbered(name, block) for name in self.names)

    def split(self, array: np.ndarray, n_head: int) -> list[np.ndarray]:
        """Returns the foreign arrays: views of the canonical one where possible."""
        parts = np.split(array, len(self.names), axis=-1) if len(self.names) > 1 else [array]
        for change in self.changes:
            parts = [change.forward(part, n_head) for part in parts]
        return parts

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the canonical array: a view if there is one part."""
        for change in reversed(self.changes):
            parts = [change.back(part) for part in parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def split_shapes(self, shape: Shape, n_head: int) -> list[Shape]:
        """Returns the shapes of the foreign arrays of a canonical one.

        Raises:
            ValueError: there can be none.
        """
        return [part.shape for part in self.split(_hollow(shape), n_head)]

    def join_shapes(self, shapes: Sequence[Shape]) -> Shape | None:
        """Returns the shape of the canonical array; None if arrays of these shapes do not make one."""
        needed = max((change.rank for change in self.changes), default=0)
        if min(map(len, shapes)) < needed or len(set(shapes)) > 1:
            return None
        if LEADING_ONE in self.changes and shapes[0][0] != 1:
            return None
        part = self.join([_hollow(shapes[0])]).shape
        return part if len(shapes) == 1 else (*part[:-1], part[-1] * len(shapes))


Column = Mapping[str, Cell]  # canonical name, as in the table -> its cell


def column(cells: Mapping[str, str | Cell]) -> dict[str, Cell]:
    """Returns a column; a bare name is a weight that lies as in the table."""
    return {name: Cell((cell,)) if isinstance(cell, str) else cell for name, cell in cells.items()}


def cell(names: str, *changes: Change) -> Cell:
    """Returns a cell whose names are separated by blanks."""
    return Cell(tuple(names.split()), changes)


CANONICAL = column({row.name: row.name for row in weights.TABLE})


def _hollow(shape: Shape) -> np.ndarray:
    """Returns an array of this shape that takes no memory."""
    return np.broadcast_to(np.int8(0), shape)


def _numbered(name: str, block: int) -> str:
    name = name.replace("{i}", str(block)).replace("{_i}", f"_{block}" if block else "")
    return _LINEAR.sub(lambda match: str(int(match[1]) * block + int(match[2])), name)


_LINEAR = re.compile(r"\{(\d+)i\+(\d+)\}")
