"""A foreign checkpoint seen through its column of the weight table: canonical names, shapes and arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gptzoo import limits, weights
from gptzoo._tensors import TensorFile, TensorInfo, shown
from gptzoo.errors import CheckpointError
from gptzoo_conversion.cells import CANONICAL, Cell, Column

Place = tuple[TensorFile, str]  # a container, and the name of a tensor in it


@dataclass
class View:
    """The weights that are found in some containers.

    Attributes:
        tensors: canonical name, backbone names without a prefix -> dtype and shape; foreign tensors that are in no cell
            stand under names of their own.
        places: canonical name -> where its parts lie; none: it is all zeros.
        cells: canonical name -> its cell.
        problems: what is there twice, in part, or in a shape that no weight has.
    """

    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    places: dict[str, list[Place]] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def read(self, name: str) -> np.ndarray:
        """Returns one weight, maybe as a transposed view of the foreign array."""
        if not self.places[name]:
            return np.zeros(self.tensors[name].shape, np.dtype(self.tensors[name].dtype))
        parts = [file.read(foreign) for file, foreign in self.places[name]]
        return self.cells[name].join(parts) if name in self.cells else parts[0]

    def misfits(self, n_head: int) -> list[str]:
        """Lists the foreign arrays whose axes of heads are not those of a model of so many heads."""
        problems = []
        for name, cell in self.cells.items():
            try:
                wanted = cell.split_shapes(self.tensors[name].shape, n_head)
            except ValueError:  # these axes cannot be split into so many heads
                wanted = [()] * len(self.places[name])
            for (file, foreign), shape in zip(self.places[name], wanted, strict=True):
                found = file.tensors[foreign].shape
                if found != shape:
                    where = f"{file.path.name}: {shown(foreign)}"
                    problems.append(f"{where}: shape {found}, expected that of {n_head} heads {shape or ''}".rstrip())
        return problems

    def where(self, name: str) -> str:
        """Returns the file and the foreign name of a weight, for messages."""
        names = ", ".join(shown(foreign) for _, foreign in self.places[name])
        return f"{self.tensors[name].file}: {names or name}"


def view(files: Mapping[str, TensorFile], layout: Column, bare: Callable[[str], str | None] = str) -> View:
    """Finds each weight of the table in some containers, by names and shapes alone.

    Args:
        bare: from a name in a container to the one in the column, or to None if it is not of the model.
    """
    found = View()
    places = _places(files, bare, found.problems)
    for name, cell, names in _expected(layout, places):
        parts = [places.pop(part) for part in names if part in places]
        if len(parts) < len(names):
            held = {bare(foreign) for _, foreign in parts}
            found.problems += [f"{parts[0][0].path.name}: missing {part}" for part in names if part not in held]
            continue
        _add(found, name, cell, parts)
    for name, (file, foreign) in places.items():
        known = layout is CANONICAL or weights.is_buffer(name)  # else it might be taken for a weight that it is not
        key = name if known else f"{foreign} (no name of this layout)"
        found.tensors[key], found.places[key] = file.tensors[foreign], [(file, foreign)]
    return found


def _places(
    files: Mapping[str, TensorFile], bare: Callable[[str], str | None], problems: list[str]
) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for label, file in files.items():
        for foreign in file.tensors:
            name = bare(foreign)
            if name in places:
                problems.append(f"{label}: {shown(foreign)}: stored twice, also as {shown(places[name][1])}")
            elif name is not None:
                places[name] = (file, foreign)
    return places


def _expected(layout: Column, held: Mapping[str, Place]) -> list[tuple[str, Cell, tuple[str, ...]]]:
    """Returns the canonical name, the cell and the foreign names of each weight of which at least a part is held."""
    result = []
    for row in dict.fromkeys(row.name for row in weights.TABLE if row.name in layout):
        blocks = range(block_count(layout, held)) if "{i}" in row else [None]
        for block in blocks:
            names = layout[row].named(block)
            if any(name in held for name in names):
                result.append((row.replace("{i}", str(block)), layout[row], names))
    return result


def block_count(layout: Column, held: Mapping[str, object]) -> int:
    """Returns how many blocks there are: up to the first of which there is nothing."""
    cells = [cell for row, cell in layout.items() if "{i}" in row]
    for block in range(limits.MAX_LAYERS + 1):
        if not any(name in held for cell in cells for name in cell.named(block)):
            return block
    raise CheckpointError(f"more than {limits.MAX_LAYERS} blocks")


def _add(found: View, name: str, cell: Cell, parts: list[Place]) -> None:
    infos = [file.tensors[foreign] for file, foreign in parts]
    shape = cell.join_shapes([info.shape for info in infos])
    if shape is None or len({info.dtype for info in infos}) > 1:
        listed = ", ".join(f"{shown(foreign)} {file.tensors[foreign].shape}" for file, foreign in parts)
        found.problems.append(f"{infos[0].file}: {listed}: no shape of {name}")
        shape = infos[0].shape
    found.tensors[name] = TensorInfo(infos[0].file, infos[0].dtype, shape)
    found.places[name] = parts
    found.cells[name] = cell
