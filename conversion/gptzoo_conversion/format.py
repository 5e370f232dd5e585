"""What a format is: a container, a column of the weight table, and how it says what stands in config.json."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptzoo import weights
from gptzoo._files import write_synced
from gptzoo._tensors import Read, TensorFile, TensorInfo
from gptzoo._vocabulary import FILES, bpe_files
from gptzoo.config import ACTIVATIONS, CONFIG_FILE, DTYPES, GPTConfig
from gptzoo_conversion.cells import Column


@dataclass(frozen=True)
class Source:
    """A checkpoint as its containers hold it.

    Attributes:
        files: name -> container.
        column: of the weight table.
        bare: from a name in a container to the one in the column, or to None if it is not of the model.
        config: fields of config.json that the format itself says.
        zeros: end of the names of weights that are absent because they are zero.
        notes: what the user should know of how it was read.
        vocabulary: tokenizer files by their usual names, where the format holds them within.
        has_config_file: whether a config.json beside it is one of Transformers'.
        said_in: the file that says the fields in `config`, if it is another than the weights'.
    """

    files: dict[str, TensorFile]
    column: Column
    bare: Callable[[str], str | None] = str
    config: dict[str, Any] = field(default_factory=dict)
    zeros: str | None = None
    notes: list[str] = field(default_factory=list)
    vocabulary: dict[str, bytes] = field(default_factory=dict)
    has_config_file: bool = True
    said_in: Path | None = None


@dataclass(frozen=True)
class Target:
    """What is to be written.

    Attributes:
        directory: empty, and there.
        file: name of the weight file in it.
        infos: foreign name -> dtype and shape, in the order of the table, block after block.
        read: returns a foreign array.
        vocabulary: tokenizer files by their usual names.
    """

    directory: Path
    file: str
    config: GPTConfig
    head: str
    infos: dict[str, TensorInfo]
    read: Read
    vocabulary: Mapping[str, bytes]
    max_shard_size: int

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file."""
        path = self.directory / name
        path.parent.mkdir(exist_ok=True, parents=True)
        write_synced(path, lambda out: out.write(content))


class Format:
    """One format of checkpoints.

    Attributes:
        name: as on the command line.
        file: what its weight file is called in a directory.
        suffixes: ends of names of single files.
        column: of the weight table, in which it is written.
        families: of models that it can hold.
        dtypes: of the numbers.
        fixed: config attributes that its software takes for granted -> the only value.
        vocabulary_names: tokenizer files' usual names -> what they are called here.
        vocabulary_files: those that lie in the directory, by their usual names.
        writes_config: whether config.json goes beside it.
        prunes: whether blocks may have other numbers of attention heads.
    """

    name: str
    file: str
    suffixes: tuple[str, ...] = ()
    column: Column
    families: tuple[str, ...] = ("gpt2", "openai-gpt")
    dtypes: tuple[str, ...] = DTYPES
    fixed: Mapping[str, Any] = {}
    vocabulary_names: Mapping[str, str] = {}
    vocabulary_files: tuple[str, ...] = FILES
    writes_config = True
    prunes = False

    def matches(self, path: Path, start: bytes) -> bool:
        """Whether a file is of this format, by its content."""
        raise NotImplementedError

    def find(self, directory: Path) -> Path | None:
        """Returns what is to be opened in a directory, by its usual name."""
        path = directory / self.file
        return path if os.path.lexists(path) else None

    def open(self, path: Path) -> Source:
        """Reads headers.

        Raises:
            CheckpointError: the file is broken.
        """
        raise NotImplementedError

    def full_name(self, name: str, in_backbone: bool, config: GPTConfig, head: str) -> str:
        """Returns what a name of the column is called in a file of a model."""
        return name

    def uncovered(self, config: GPTConfig, head: str) -> list[str]:
        """Returns the weights of a model, by their rows, that have no place here; tied ones need none."""
        rows = weights.rows(config, head)
        return [
            row.name for row in rows if row.name not in self.column and not (row.tied and config.tie_word_embeddings)
        ]

    def says_config(self, file: str) -> bool:
        """Whether a single file of this name says all that a reader needs to know of the config."""
        return False

    def problems(self, config: GPTConfig, head: str) -> list[str]:
        """Lists what of a model cannot be held and not be dropped either."""
        if config.model_type not in self.families:
            return [f"model_type {config.model_type}: {self.name} holds {' and '.join(self.families)}"]
        problems = [f"{name}: {self.name} has no place for it" for name in self.uncovered(config, "Model")]
        if config.pruned_heads and not self.prunes:
            problems.append(f"pruned_heads: {self.name} has the same heads in every block")
        return problems

    def losses(self, config: GPTConfig, head: str) -> list[str]:
        """Lists what of a model cannot be held and may be dropped: a head, and fields that are taken for granted."""
        problems = [
            f"{name}: {self.name} has no place for it"
            for name in self.uncovered(config, head)
            if name not in self.uncovered(config, "Model")
        ]
        for name, value in self.fixed.items():
            found = getattr(config, name, value)
            if ACTIVATIONS.get(found, found) != ACTIVATIONS.get(value, value):
                problems.append(f"{name} {found!r}: {self.name} means {value!r} always")
        return problems

    def constants(self, config: GPTConfig, head: str) -> dict[str, np.ndarray]:
        """Returns what other software needs beside the weights, and we compute."""
        return {}

    def write(self, target: Target) -> None:
        """Writes the files of a model into a directory.

        Raises:
            CheckpointError: it cannot be written.
        """
        raise NotImplementedError

    def finish(self, target: Target) -> None:
        """Writes what goes beside the weights in a directory: the config and the tokenizer."""
        if self.writes_config and target.file == self.file:
            target.write(CONFIG_FILE, target.config.to_json_string().encode())
        files = dict(target.vocabulary)
        if self.vocabulary_names:  # software that knows no tokenizer.json
            files |= bpe_files(files)
        for name in sorted(files.keys() & set(self.vocabulary_files)):
            content = files[name]
            target.write(self.vocabulary_names.get(name, name), content)
