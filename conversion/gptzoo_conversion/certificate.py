"""What a conversion did to each tensor, written down so that anybody can check it later."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gptzoo._files import write_file
from gptzoo._json import read_json_object
from gptzoo._tensors import shown
from gptzoo.errors import CheckpointError
from gptzoo.weights import PREFIX
from gptzoo_conversion._numbers import digest
from gptzoo_conversion.convert import Conversion
from gptzoo_conversion.opening import open_foreign

KIND = "gptzoo conversion certificate"
TOOLS = ("gptzoo", "numpy", "ml_dtypes", "safetensors", "h5py", "orbax-checkpoint")
SIDES = ("source", "target")


def write_certificate(path: Path, conversion: Conversion) -> None:
    """Writes SHA-256 of every tensor's bytes in source and target, in C order and little-endian, by canonical names."""
    content = {"kind": KIND, "version": 1, "tools": _tools()} | conversion.to_json()
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())


def verify_certificate(path: str | Path, checkpoint: str | Path | None = None) -> list[str]:
    """Reads the checkpoints of a certificate and compares every tensor.

    Args:
        checkpoint: which must be the source or the target; None: both are looked for where they were.

    Returns:
        A sentence for each side that was found as certified.

    Raises:
        CheckpointError: a certificate or checkpoint cannot be read; or lists what differs.
    """
    content = read_json_object(Path(path), CheckpointError)
    tensors = _tensors(Path(path), content)
    if checkpoint is None:
        return [_compare(path, tensors, side, content[side]["path"]) for side in SIDES]
    problems = []
    for side in reversed(SIDES):
        try:
            return [_compare(path, tensors, side, checkpoint)]
        except CheckpointError as problem:
            problems.append(str(problem))
    raise CheckpointError.listing(f"{path}: {checkpoint} is neither the target nor the source", problems)


def _compare(path: str | Path, tensors: dict[str, Any], side: str, checkpoint: str | Path) -> str:
    found = open_foreign(checkpoint)
    bare = {name.removeprefix(PREFIX): name for name in found.tensors}
    problems = []
    for name, entry in tensors.items():
        stored = bare.get(name.removeprefix(PREFIX))
        if stored is None:
            problems.append(f"{shown(name)}: absent")
        elif list(found.tensors[stored].shape) != entry["shape"]:
            problems.append(f"{shown(name)}: shape {found.tensors[stored].shape}, expected {entry['shape']}")
        elif (sha := digest(found.peek(stored))) != entry[side]:
            problems.append(f"{shown(name)}: SHA-256 {sha}, expected {shown(entry[side])}")
    if problems:
        raise CheckpointError.listing(f"{path}: {checkpoint} is not the {side}", problems)
    return f"{checkpoint}: the {side} as certified, {len(tensors)} tensors"


def _tensors(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Returns what a certificate says of each tensor, if it is one."""
    tensors = content.get("tensors")
    sides = [content.get(side) for side in SIDES]
    is_one = content.get("kind") == KIND and isinstance(tensors, dict) and bool(tensors)
    if not is_one or not all(isinstance(side, dict) and isinstance(side.get("path"), str) for side in sides):
        raise CheckpointError(f"{path}: not a {KIND}")
    assert isinstance(tensors, dict)
    for name, entry in tensors.items():
        if not isinstance(entry, dict) or not {"shape", *SIDES} <= entry.keys():
            raise CheckpointError(f"{path}: tensors: {shown(name)}: expected shape, source and target")
    return tensors


def _tools() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
