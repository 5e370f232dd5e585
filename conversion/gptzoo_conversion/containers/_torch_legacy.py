"""The file that PyTorch wrote before 1.6: five pickles, then the storages, each behind its number of elements."""

from __future__ import annotations

from io import FileIO
from pathlib import Path
from typing import Any

from gptzoo import limits
from gptzoo._files import stand_in
from gptzoo._tensors import shown
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers._pickle import PickleError, described, unpickle
from gptzoo_conversion.containers._torch_values import SYMBOLS, Storages
from gptzoo_conversion.containers._zip import Member, bytes_at

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_TAR = "a tar archive (PyTorch before 0.2), expected a file that torch.save of 0.4 or later wrote"
_IMPOSTORS = {
    b"{": "this is JSON text, not the weights",
    b"\x89HDF": "this is an HDF5 file, not a PyTorch checkpoint",
    b"GGUF": "this is a GGUF file, not a PyTorch checkpoint",
}


def read_legacy(path: Path, file: FileIO, size: int) -> tuple[Any, dict[str, Member]]:
    """Reads the pickles and finds the storages.

    Returns:
        What was saved, and where each storage lies, by its key.

    Raises:
        CheckpointError: this is another kind of file, or the storages are not what the pickles say.
        PickleError: a pickle is damaged or wants what is refused.
    """
    data = bytes_at(path, file, 0, min(size, limits.MAX_PICKLE_BYTES))
    _require_no_impostor(path, data)
    place = _read_header(path, data)
    storages = Storages()
    value, place = unpickle(data, SYMBOLS, storages, place)
    keys, place = unpickle(data, {}, start=place)
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages.known):
        raise CheckpointError(f"{path}: list of storages: {described(keys)}, expected those that the tensors lie in")
    return value, _members(path, file, storages, keys, place, size)


def _require_no_impostor(path: Path, data: bytes) -> None:
    if not data:
        raise CheckpointError(f"{path}: empty file")
    if data[257:262] == b"ustar":
        raise CheckpointError(f"{path}: {_TAR}")
    if diagnosis := stand_in(data[:64]):
        raise CheckpointError(f"{path}: {diagnosis}")
    for magic, diagnosis in _IMPOSTORS.items():
        if data[:64].lstrip().startswith(magic):
            raise CheckpointError(f"{path}: {diagnosis}")


def _read_header(path: Path, data: bytes) -> int:
    """Checks the magic number, the version and the writer's byte order; returns where they end."""
    try:
        magic, place = unpickle(data, {})
    except PickleError as problem:
        raise CheckpointError(f"{path}: not a PyTorch checkpoint, or damaged ({problem})") from None
    if type(magic) is not int or magic != _MAGIC:
        raise CheckpointError(f"{path}: begins with a pickle of {described(magic)}, expected PyTorch's magic number")
    version, place = unpickle(data, {}, start=place)
    if type(version) is not int or version != _VERSION:
        raise CheckpointError(f"{path}: protocol version {described(version)}, expected {_VERSION}")
    system, place = unpickle(data, {}, start=place)
    if type(system) is not dict or system.get("little_endian") is not True:
        raise CheckpointError(f"{path}: numbers are not little-endian; refused")
    return place


def _members(path: Path, file: FileIO, storages: Storages, keys: list[str], place: int, size: int) -> dict[str, Member]:
    members = {}
    for key in keys:
        storage, start = storages.known[key], place + 8
        place = start + storage.nbytes
        if place > size:
            raise CheckpointError(f"{path}: storage {shown(key)}: cut off, {size} bytes, expected {place}")
        found = int.from_bytes(bytes_at(path, file, start - 8, 8), "little")
        if found != storage.count:
            raise CheckpointError(f"{path}: storage {shown(key)}: {found} elements, expected {storage.count}")
        members[key] = Member(f"storage {key}", start, storage.nbytes, storage.nbytes)
    if place != size:
        raise CheckpointError(f"{path}: {size} bytes, expected {place} by its storages")
    return members
