"""PyTorch's checkpoints, `torch.save` and `torch.load`, without PyTorch and without running what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gptzoo import limits
from gptzoo._files import naming, open_regular, write_synced
from gptzoo._tensors import Read, TensorFile, TensorInfo, contiguous_bytes, shown, stamp_of
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers._pickle import PickleError, described, unpickle
from gptzoo_conversion.containers._pickling import Call, Name, Ordered, Persistent, pickled
from gptzoo_conversion.containers._torch_legacy import read_legacy
from gptzoo_conversion.containers._torch_values import (
    STORAGES,
    SYMBOLS,
    Flattened,
    Storages,
    Tensor,
    contiguous_strides,
)
from gptzoo_conversion.containers._zip import Member, ZipWriter, pieces, read_member, read_members

_CHUNK = 2**20
_ALIGNMENT = 64  # of storages, as PyTorch's own
_ROOT = "archive"
_TYPES = {dtype: name for name, dtype in STORAGES.items()}


@dataclass(frozen=True)
class PyTorchFile(TensorFile):
    """A checkpoint whose tensors are views of storages, each a member of a zip archive or a range of an old file.

    Attributes:
        views: name -> which elements of which storage.
        members: storage's key -> where it lies.
    """

    views: dict[str, Tensor]
    members: dict[str, Member]
    _checked: set[str] = field(default_factory=set)  # storages whose checksum was found right

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor: a fresh, writable array in C order.

        Raises:
            CheckpointError: the file has changed, or the checksum of the tensor's storage is wrong.
        """
        info, view = self.tensors[name], self.views[name]
        array = np.empty(info.shape, np.dtype(info.dtype))
        if view.is_contiguous:
            left = array.reshape(-1).view(np.uint8).data
            for piece in self.chunks(name):
                left[: len(piece)] = piece
                left = left[len(piece) :]
        else:
            with self.opened() as file:
                member = self.members[view.storage.key]
                self._check(file, member)
                self._gather(file, array, member.start + view.offset * view.itemsize, view.strides)
        return array

    def chunks(self, name: str) -> Iterator[bytearray]:
        """Yields a tensor's bytes piece by piece; a checksum that is wrong may be found only after the last."""
        view = self.views[name]
        if view.is_contiguous:
            with self.opened() as file:
                yield from self._pieces(file, view)
        else:
            data = contiguous_bytes(self.read(name))
            for begin in range(0, data.size, _CHUNK):
                yield bytearray(data[begin : begin + _CHUNK].data)

    def _pieces(self, file: FileIO, view: Tensor) -> Iterator[bytearray]:
        member, begin = self.members[view.storage.key], view.offset * view.itemsize
        nbytes = view.size * view.itemsize
        if nbytes < member.size and not member.deflated:
            self._check(file, member)
            member, begin = Member(member.name, member.start + begin, nbytes, nbytes), 0
        place, end = 0, begin + nbytes
        for piece in pieces(self.path, file, member):
            if part := piece[max(begin - place, 0) : max(end - place, 0)]:
                yield bytearray(part)
            place += len(piece)

    def _check(self, file: FileIO, member: Member) -> None:
        if member.crc is not None and member.name not in self._checked:
            for _ in pieces(self.path, file, member):
                pass
            self._checked.add(member.name)

    def _gather(self, file: FileIO, target: np.ndarray, start: int, strides: tuple[int, ...]) -> None:
        """Fills an array with elements that lie apart; what lies close together is read at once."""
        steps = [stride if n > 1 else 0 for n, stride in zip(target.shape, strides, strict=True)]
        extent = 1 + sum((n - 1) * step for n, step in zip(target.shape, steps, strict=True))
        if extent <= max(target.size, _CHUNK // target.itemsize):
            data = np.empty(extent, target.dtype)
            file.seek(start)
            self.fill(file, data.view(np.uint8).data)
            distances = [step * target.itemsize for step in steps]
            target[...] = np.lib.stride_tricks.as_strided(data, target.shape, distances, writeable=False)
        else:
            axis = int(np.argmax(steps))
            rest = strides[:axis] + strides[axis + 1 :]
            for index, part in enumerate(np.moveaxis(target, axis, 0)):
                self._gather(file, part, start + index * steps[axis] * target.itemsize, rest)


def read_pytorch(path: Path) -> PyTorchFile:
    """Reads all of a checkpoint but its numbers: a zip archive, or the file that PyTorch wrote before 1.6.

    Tensors in nested dicts and lists are named by their path, `model/transformer.wte.weight`, integers as text; the
    other values are `metadata`, nested as they were. Names that share a storage are all there.

    Raises:
        CheckpointError: it is damaged, or holds something else than tensors and plain values.
    """
    try:
        with naming(path), open_regular(path) as file:
            stamp = stamp_of(file)
            is_zip = file.read(4) == b"PK\x03\x04"
            value, members = _read_zip(path, file) if is_zip else read_legacy(path, file, stamp[2])
        if type(value) is not dict:
            raise CheckpointError(f"{path}: holds {described(value)}, expected a dict of tensors")
        flattened = Flattened().add(value)
    except PickleError as problem:
        raise CheckpointError(f"{path}: {problem}") from None
    views = flattened.tensors
    faults = {name: _fault(view, members.get(view.storage.key)) for name, view in views.items()}
    if problems := [f"{shown(name)}: {fault}" for name, fault in faults.items() if fault]:
        raise CheckpointError.listing(str(path), problems)
    infos = {name: _info(path, view, members[view.storage.key]) for name, view in views.items()}
    return PyTorchFile(path, infos, flattened.plain, stamp, views, members)


def _read_zip(path: Path, file: FileIO) -> tuple[Any, dict[str, Member]]:
    archive = read_members(path, file)
    pickles = [name for name in archive if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(f"{path}: {len(pickles)} members data.pkl, expected one (is it no PyTorch checkpoint?)")
    root = pickles[0].removesuffix("data.pkl")
    if strangers := [name for name in archive if not name.startswith(root)]:
        raise CheckpointError(f"{path}: member {shown(strangers[0])}, expected only those in {shown(root)}")
    if f"{root}byteorder" in archive:
        order = read_member(path, file, archive[f"{root}byteorder"], 16)
        if order != b"little":
            raise CheckpointError(
                f"{path}: byteorder: {shown(order.decode(errors='replace'))}, expected little; refused"
            )
    data = read_member(path, file, archive[pickles[0]], limits.MAX_PICKLE_BYTES)
    value, end = unpickle(data, SYMBOLS, Storages())
    if end != len(data):
        raise CheckpointError(f"{path}: data.pkl: {len(data) - end} bytes after the pickle's end, expected none")
    prefix = f"{root}data/"
    return value, {name.removeprefix(prefix): archive[name] for name in archive if name.startswith(prefix)}


def _fault(view: Tensor, member: Member | None) -> str | None:
    """Says what is wrong with a tensor, given where its storage lies."""
    if member is None:
        return f"storage {shown(view.storage.key)} is not in the file"
    if member.size != view.storage.nbytes:
        return f"storage {shown(view.storage.key)} of {member.size} bytes, expected {view.storage.nbytes}"
    if (fault := view.fault()) or view.is_contiguous or not member.deflated:
        return fault
    return "a transposed or strided tensor in a deflated storage; refused"


def _info(path: Path, view: Tensor, member: Member) -> TensorInfo:
    return TensorInfo(path.name, view.dtype, view.shape, member.start + view.offset * view.itemsize)


def write_pytorch(
    path: Path,
    infos: Mapping[str, TensorInfo],
    read: Read,
    metadata: Mapping[str, Any],
    aliases: Mapping[str, str] | None = None,
    nest: str = "",
) -> None:
    """Writes a new checkpoint that `torch.load` reads, also with `weights_only` and with `mmap`.

    Args:
        infos: name -> dtype and shape of the tensor that `read` returns for it; of these, one at a time is in memory.
        metadata: plain values that stand beside the tensors; only with `nest`.
        aliases: further name -> the one of `infos` whose numbers it shares.
        nest: the key that the tensors stand under; "": they are the checkpoint itself.

    Raises:
        CheckpointError: the container cannot hold a dtype or a value, or the file cannot be written.
    """
    names = {name: name for name in infos} | dict(aliases or {})
    problems = [
        f"{shown(name)}: dtype {infos[name].dtype}, expected one of {', '.join(_TYPES)}"
        for name in infos
        if infos[name].dtype not in _TYPES
    ]
    if problems := problems + _argument_faults(infos, metadata, aliases or {}, nest):
        raise CheckpointError.listing(str(path), problems)
    keys = {name: str(number) for number, name in enumerate(infos)}
    state = Ordered({name: _tensor(infos[source], keys[source]) for name, source in names.items()})
    try:
        data = pickled({nest: state, **metadata} if nest else state)
    except PickleError as problem:
        raise CheckpointError(f"{path}: metadata: {problem}") from None
    with naming(path):
        write_synced(path, lambda file: _write_archive(path, file, data, infos, read))


def _argument_faults(
    infos: Mapping[str, TensorInfo], metadata: Mapping[str, Any], aliases: Mapping[str, str], nest: str
) -> list[str]:
    faults = [f"{shown(name)}: a tensor and the other name of one" for name in aliases if name in infos]
    faults += [
        f"{shown(name)}: other name of {shown(source)}, which is not there"
        for name, source in aliases.items()
        if source not in infos
    ]
    if metadata and (not nest or nest in metadata):
        faults.append(f"metadata {shown(', '.join(metadata))}, expected none beside the tensors")
    return faults


def _tensor(info: TensorInfo, key: str) -> Call:
    storage = Persistent(("storage", Name("torch", _TYPES[info.dtype]), key, "cpu", info.size))
    strides, hooks = contiguous_strides(info.shape), Ordered({})
    return Call("torch._utils", "_rebuild_tensor_v2", (storage, 0, info.shape, strides, False, hooks))


def _write_archive(path: Path, file: BinaryIO, data: bytes, infos: Mapping[str, TensorInfo], read: Read) -> None:
    archive = ZipWriter(file, _ALIGNMENT)
    archive.add(f"{_ROOT}/data.pkl", len(data), [data])
    archive.add(f"{_ROOT}/byteorder", 6, [b"little"])
    for number, (name, info) in enumerate(infos.items()):
        archive.add(f"{_ROOT}/data/{number}", info.nbytes, _numbers(path, name, info, read))
    archive.add(f"{_ROOT}/version", 2, [b"3\n"])
    archive.close()


def _numbers(path: Path, name: str, info: TensorInfo, read: Read) -> Iterator[memoryview]:
    array = read(name)
    if (array.dtype.name, array.shape) != (info.dtype, info.shape):
        found = f"{array.dtype.name} {list(array.shape)}"
        raise CheckpointError(f"{path}: {shown(name)}: {found}, expected {info.dtype} {list(info.shape)}")
    yield contiguous_bytes(array).data
