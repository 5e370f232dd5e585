"""The four containers of Hugging Face Transformers, each single or sharded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from gptzoo._shards import index_text, read_shards, split
from gptzoo._tensors import Read, TensorFile, TensorInfo
from gptzoo.errors import CheckpointError
from gptzoo_conversion.cells import Column
from gptzoo_conversion.format import Format, Source, Target


class HuggingFaceFormat(Format):
    """A weight file, or several and an index, beside config.json."""

    def read_file(self, path: Path) -> TensorFile:
        """Opens one container."""
        raise NotImplementedError

    def write_file(self, path: Path, infos: Mapping[str, TensorInfo], read: Read, target: Target) -> None:
        """Writes one container."""
        raise NotImplementedError

    def layout(self, file: TensorFile) -> tuple[Column, Callable[[str], str | None]]:
        """Returns the column that a container is in, and what its names are called there."""
        return self.column, self.bare

    def notes(self, file: TensorFile) -> list[str]:
        """Returns what is to be known of the software that wrote a container."""
        return []

    def bare(self, name: str) -> str | None:
        """Returns the name in the column of a name in a file or in an index."""
        return name

    def index_name(self, name: str) -> str:
        """Returns what the index calls a tensor."""
        return name

    def aliases(self, infos: Mapping[str, TensorInfo], target: Target) -> dict[str, str]:
        """Returns further names under which tensors are stored -> those tensors."""
        return {}

    def find(self, directory: Path) -> Path | None:
        found = [path for path in (directory / self.file, directory / self.index) if os.path.lexists(path)]
        if len(found) == 2:
            both = f"holds both {self.file} and {self.index}"
            raise CheckpointError(f"{directory}: {both}; remove the one that is not meant")
        return found[0] if found else None

    @property
    def index(self) -> str:
        return f"{self.file}.index.json"

    def open(self, path: Path) -> Source:
        if path.name.endswith(".index.json"):
            files = read_shards(path, self.read_file, lambda name: self.bare(name) or name)
        else:
            files = {path.name: self.read_file(path)}
        layout, bare = self.layout(next(iter(files.values())))
        return Source(files, layout, bare, notes=[note for file in files.values() for note in self.notes(file)])

    def write(self, target: Target) -> None:
        shards = split(target.infos, target.max_shard_size, target.file)
        for file, part in shards.items():
            self.write_file(target.directory / file, part, target.read, target)
        if target.file not in shards:
            named = {
                file: {self.index_name(name): info for name, info in part.items()} for file, part in shards.items()
            }
            target.write(self.index, index_text(named, self.aliases(target.infos, target)))
        self.finish(target)
