"""Checkpoints in several files: an index says which tensor is in which of them, whatever the container."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from gptzoo import limits
from gptzoo._json import read_json_object
from gptzoo._tensors import TensorFile, TensorInfo, shown
from gptzoo.errors import CheckpointError

PLAIN_NAME = re.compile(r"(?!\.+$)[A-Za-z0-9._-]+")

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([KMGT]?)B")


def read_shards(
    index: Path, read: Callable[[Path], TensorFile], key: Callable[[str], str] = str
) -> dict[str, TensorFile]:
    """Reads the headers of all files that an index names, which must hold what it says, and nothing else.

    Args:
        read: opens one file.
        key: from the name of a tensor, in the index or in a file, to what must be the same in both.

    Raises:
        CheckpointError: lists every wrong entry of the index and every file that it does not describe.
    """
    files: dict[str, TensorFile] = {}
    problems: list[str] = []
    count = 0
    for name, wanted in sorted(read_index(index, key).items()):
        try:
            files[name] = read(index.parent / name)
        except CheckpointError as problem:
            problems.append(str(problem))
            continue
        if (count := count + len(files[name].tensors)) > limits.MAX_TENSORS:
            raise CheckpointError(f"{index}: more than {limits.MAX_TENSORS} tensors")
        held = {key(tensor): tensor for tensor in files[name].tensors}
        problems += [f"{name}: no {shown(one)}, which the index says is there" for one in _absent(wanted, held)]
        problems += [f"{name}: holds {shown(one)}, which the index does not say" for one in _absent(held, wanted)]
    if problems:
        raise CheckpointError.listing(str(index), problems)
    return files


def _absent(names: Mapping[str, str], others: Mapping[str, str]) -> list[str]:
    """Returns the names whose keys are not among those of `others`."""
    return sorted(name for key, name in names.items() if key not in others)


def read_index(path: Path, key: Callable[[str], str] = str) -> dict[str, dict[str, str]]:
    """Returns the tensors that each file should hold, by what is the same in both.

    Raises:
        CheckpointError: lists every entry that names no plain file.
    """
    weight_map = read_json_object(path, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: weight_map: {shown(weight_map)}, expected a map from tensor to file")
    problems, shards = [], dict[str, dict[str, str]]()
    for name, file in weight_map.items():
        if isinstance(file, str) and PLAIN_NAME.fullmatch(file):
            shards.setdefault(file, {})[key(name)] = name
        else:
            problems.append(f"weight_map[{shown(name)}]: {shown(file)} is not a plain file name")
    if problems:
        raise CheckpointError.listing(str(path), problems)
    return shards


def split(infos: Mapping[str, TensorInfo], limit: int, file: str) -> dict[str, dict[str, TensorInfo]]:
    """Returns the tensors of each file, which are filled in order up to `limit` bytes.

    Args:
        file: its name if one is enough: "model.safetensors". Shards are called "model-00001-of-00002.safetensors".
    """
    parts: list[dict[str, TensorInfo]] = [{}]
    size = 0
    for name, info in infos.items():
        if parts[-1] and size + info.nbytes > limit:
            parts.append({})
            size = 0
        parts[-1][name] = info
        size += info.nbytes
    if len(parts) == 1:
        return {file: parts[0]}
    stem, suffix = file.rsplit(".", 1)
    return {f"{stem}-{i:05d}-of-{len(parts):05d}.{suffix}": part for i, part in enumerate(parts, 1)}


def index_text(shards: Mapping[str, Mapping[str, TensorInfo]], aliases: Mapping[str, str] | None = None) -> bytes:
    """Returns the content of an index.

    Args:
        aliases: further name of a tensor -> its name in `shards`.
    """
    infos = [info for part in shards.values() for info in part.values()]
    metadata = {"total_parameters": sum(i.size for i in infos), "total_size": sum(i.nbytes for i in infos)}
    weight_map = {name: file for file, part in shards.items() for name in part}
    weight_map |= {alias: weight_map[name] for alias, name in (aliases or {}).items()}
    return (json.dumps({"metadata": metadata, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n").encode()


def byte_count(size: int | str) -> int:
    """Returns the number that "200KB", "5GB" or a number stand for.

    Raises:
        CheckpointError: it is none of these.
    """
    size = int(size) if isinstance(size, str) and size.isascii() and size.isdecimal() and len(size) < 20 else size
    match = _SIZE.fullmatch(size.strip().upper()) if isinstance(size, str) else None
    count = int(float(match[1]) * _UNITS[match[2]]) if match else size
    if type(count) is not int or count < 1:
        raise CheckpointError(f"max_shard_size: {size!r}, expected a number of bytes, or text such as 200KB or 5GB")
    return count
