"""Orbax checkpoints of a Flax NNX model's state: the table's names and shapes, as nested keys."""

from __future__ import annotations

import re
from pathlib import Path

from gptzoo import weights
from gptzoo.config import GPTConfig
from gptzoo.errors import CheckpointError
from gptzoo_conversion.cells import CANONICAL
from gptzoo_conversion.containers.orbax import read_orbax, write_orbax
from gptzoo_conversion.format import Format, Source, Target

MARK = "_METADATA"  # the file by which Orbax knows its directories
UNFINISHED = ".orbax-checkpoint-tmp"  # in names of directories that Orbax is still writing
PLACES = ("", "state", "default")  # the checkpoint itself, ours within a directory, that of Orbax' manager

# What is saved beside a model's parameters: states of optimizers and of random numbers.
_TRAINING = re.compile(r"(opt_state|optimizer|opt|step)(\..*)?|(.*\.)?rngs?(\..*)?")


class NnxOrbax(Format):
    """The checkpoint is the folder `state`; what describes the model lies beside it."""

    name = "orbax"
    file = "state"
    column = CANONICAL
    prunes = True

    def matches(self, path: Path, start: bytes) -> bool:
        return path.name == MARK

    def find(self, directory: Path) -> Path | None:
        found = [directory / place / MARK for place in PLACES]
        if path := next((path for path in found if path.is_file()), None):
            return path
        if unfinished := sorted(directory.glob(f"*{UNFINISHED}*")):
            raise CheckpointError(f"{unfinished[0]}: an Orbax checkpoint that was not finished")
        return None

    def open(self, path: Path) -> Source:
        file = read_orbax(path.parent)
        return Source({file.path.name: file}, self.column, _bare)

    def full_name(self, name: str, in_backbone: bool, config: GPTConfig, head: str) -> str:
        return weights.PREFIX + name if in_backbone and head != "Model" else name

    def write(self, target: Target) -> None:
        write_orbax(target.directory / self.file, target.infos, target.read, {})
        self.finish(target)


def _bare(name: str) -> str | None:
    name = name.removeprefix("model.").removeprefix("params.")
    return None if _TRAINING.fullmatch(name) else name.removeprefix(weights.PREFIX)
