"""Keras' `.keras` archives: a zip of the weights, in HDF5, and of two JSON texts that are data here and no program.

Reading makes no model: what `config.json` names is neither imported nor called.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from gptzoo import limits
from gptzoo._files import naming, open_regular, write_synced
from gptzoo._json import parse_json
from gptzoo._tensors import Read, TensorInfo, shown, stamp_of
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers._zip import Member, ZipWriter, pieces, read_member, read_members
from gptzoo_conversion.containers.hdf5 import Hdf5File, read_hdf5, write_hdf5

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

_CHUNK = 2**20


def read_keras_archive(path: Path) -> Hdf5File:
    """Reads an archive's directory, its JSON texts and the headers of its weights, whose checksum is checked.

    Returns:
        The HDF5 file in it; `metadata` has, beside its "attributes" and "groups", "config" and "metadata".

    Raises:
        CheckpointError: names the member, key or tensor that is broken, absent or too much.
    """
    with naming(path), open_regular(path) as file:
        stamp = stamp_of(file)
        members = read_members(path, file)
        _require_members(path, members)
        config = _json(path, file, members[CONFIG])
        metadata = _json(path, file, members[METADATA])
        weights = members[WEIGHTS]
        for _ in pieces(path, file, weights):
            pass
    found = read_hdf5(path, (weights.start, weights.stored))
    if found.stamp != stamp:
        raise CheckpointError(f"{path}: changed while it was read")
    return replace(found, metadata=found.metadata | {"config": config, "metadata": metadata})


def _require_members(path: Path, members: Mapping[str, Member]) -> None:
    ours = (CONFIG, METADATA, WEIGHTS)
    problems = [f"{name}: missing" for name in ours if name not in members]
    problems += [f"{shown(name)}: not known" for name in members if name not in ours and not name.startswith("assets/")]
    if WEIGHTS in members and members[WEIGHTS].deflated:
        problems.append(f"{WEIGHTS}: deflated, expected stored, as Keras does")
    if problems:
        raise CheckpointError.listing(str(path), problems)


def _json(path: Path, file: FileIO, member: Member) -> dict[str, Any]:
    text = read_member(path, file, member, limits.MAX_CONFIG_BYTES)
    try:
        value = parse_json(text.decode())
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{path}: {member.name}: not UTF-8 text (at byte {problem.start})") from None
    except ValueError as problem:
        raise CheckpointError(f"{path}: {member.name}: {shown(str(problem), 200)}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: {member.name}: holds a JSON {type(value).__name__}, expected an object")
    return value


def write_keras_archive(path: Path, infos: Mapping[str, TensorInfo], read: Read, metadata: Mapping[str, Any]) -> None:
    """Writes a new archive; the weights are written to a file beside it first, since a zip must know their checksum.

    Args:
        metadata: "config" and "metadata", which become the JSON texts; "attributes" and "groups" as of `write_hdf5`.

    Raises:
        CheckpointError: something cannot be written.
    """
    weights = path.with_name(f".{path.name}.{secrets.token_hex(4)}.h5")
    try:
        write_hdf5(weights, infos, read, metadata)
        with naming(path), open_regular(weights) as source:
            write_synced(path, lambda file: _write_members(file, source, metadata))
    finally:
        weights.unlink(missing_ok=True)


def _write_members(file: BinaryIO, weights: FileIO, metadata: Mapping[str, Any]) -> None:
    archive = ZipWriter(file)
    for name, value in ((METADATA, metadata["metadata"]), (CONFIG, metadata["config"])):
        text = json.dumps(value).encode()
        archive.add(name, len(text), [text])
    archive.add(WEIGHTS, stamp_of(weights)[2], _pieces(weights))
    archive.close()


def _pieces(file: FileIO) -> Iterator[bytes]:
    while piece := file.read(_CHUNK):
        yield piece
