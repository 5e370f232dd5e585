"""HDF5 files, read strictly and without the HDF5 library, and written by it one tensor at a time.

They are read as ranges of bytes: the library opens other files if a file says so, and does not survive all broken ones.
"""

from __future__ import annotations

import itertools
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptzoo._files import naming, open_regular, stand_in
from gptzoo._tensors import Read, TensorFile, TensorInfo, shown, stamp_of
from gptzoo.errors import CheckpointError, MissingExtraError
from gptzoo_conversion.containers._hdf5_format import INTEGERS, SIGNATURE
from gptzoo_conversion.containers._hdf5_scan import GZIP, SHUFFLE, Place, Scan

_WRITABLE = {np.dtype(code).name for code in (*INTEGERS, "f2", "f4", "f8", "b1")}
_ATTRIBUTE_BYTES = 64512  # Keras' own bound, below HDF5's 64 KiB


@dataclass(frozen=True)
class Hdf5File(TensorFile):
    """An HDF5 file whose every object was looked at; its tensors are read without the HDF5 library."""

    places: dict[str, Place] = field(default_factory=dict)

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor: a fresh, writable array in this machine's byte order."""
        info, place = self.tensors[name], self.places[name]
        if place.inline is not None:
            array = np.frombuffer(bytearray(place.inline), place.stored).reshape(info.shape)
        elif place.chunk:
            array = self._read_pieces(name)
        else:
            array = super().read(name).view(place.stored)
        if not array.dtype.isnative:
            array = array.byteswap(inplace=True)
        return array.view(info.dtype)

    def chunks(self, name: str) -> Iterator[bytearray]:
        """Yields a tensor's bytes piece by piece; one that is not stored as such is read whole first."""
        place = self.places[name]
        if place.inline is None and not place.chunk and np.dtype(place.stored).isnative:
            yield from super().chunks(name)
        elif self.tensors[name].nbytes:
            yield bytearray(self.read(name).reshape(-1).view(np.uint8).data)

    def _read_pieces(self, name: str) -> np.ndarray:
        info, place = self.tensors[name], self.places[name]
        array = np.empty(info.shape, place.stored)
        with self.opened() as file:
            for piece in place.pieces:
                data = bytearray(piece.size)
                file.seek(piece.start)
                self.fill(file, memoryview(data))
                block = np.frombuffer(self._unfiltered(name, data, piece.skipped), place.stored).reshape(place.chunk)
                array[tuple(slice(at, at + n) for at, n in zip(piece.corner, place.chunk, strict=True))] = block[
                    tuple(slice(size - at) for at, size in zip(piece.corner, info.shape, strict=True))
                ]
        return array

    def _unfiltered(self, name: str, data: bytes | bytearray, skipped: int) -> bytes | bytearray:
        place = self.places[name]
        item = np.dtype(place.stored).itemsize
        size = math.prod(place.chunk) * item
        for number, code in reversed(list(enumerate(place.filters))):
            if skipped >> number & 1:
                continue
            if code == SHUFFLE and len(data) == size:
                data = np.frombuffer(data, np.uint8).reshape(item, -1).T.tobytes()
            elif code == GZIP:
                data = self._inflated(name, data, size)
        if len(data) != size:
            raise CheckpointError(f"{self.path}: {shown(name)}: a chunk of {len(data)} bytes, expected {size}")
        return data

    def _inflated(self, name: str, data: bytes | bytearray, size: int) -> bytes:
        stream = zlib.decompressobj()
        try:
            result = stream.decompress(data, size + 1)
        except zlib.error as problem:
            raise CheckpointError(f"{self.path}: {shown(name)}: compressed data is broken ({problem})") from None
        if len(result) != size or not stream.eof or stream.unused_data:
            raise CheckpointError(f"{self.path}: {shown(name)}: compressed data is not of {size} bytes")
        return result


def read_hdf5(path: Path, window: tuple[int, int] | None = None) -> Hdf5File:
    """Reads the headers of a file: every group, dataset and attribute in it.

    Args:
        window: start and size of the HDF5 file where it is a part of `path`.

    Returns:
        Tensors by the paths of the datasets, without leading slash; `metadata` has "attributes", {path of an object
        ("" of the root): {name: text, number, truth value or list of these}}, attributes of other kinds left out, and
        "groups", the paths of those with nothing in them.

    Raises:
        CheckpointError: names what is broken, or what of it would be read from elsewhere or not be there at all.
    """
    with naming(path), open_regular(path) as file:
        stamp = stamp_of(file)
        start, size = window or (0, stamp[2])
        file.seek(start)
        _require_signature(path, file.read(min(size, 64)))
        scan = Scan(path, file, start, size)
    metadata = {"attributes": {name: values for name, values in scan.attributes.items() if values}}
    return Hdf5File(path, scan.tensors, metadata | {"groups": scan.empty_groups}, stamp, scan.places)


def _require_signature(path: Path, begin: bytes) -> None:
    if diagnosis := stand_in(begin):
        raise CheckpointError(f"{path}: {diagnosis}")
    if not begin:
        raise CheckpointError(f"{path}: empty file")
    if not begin.startswith(SIGNATURE):
        raise CheckpointError(f"{path}: begins with {begin[:8]!r}, expected an HDF5 file")


def text_list(attributes: Mapping[str, Any], key: str) -> list[str] | None:
    """Returns a list of texts, which Keras stores in parts `key0`, `key1`... where it is long; None if absent."""
    numbered = itertools.takewhile(attributes.__contains__, (f"{key}{number}" for number in itertools.count()))
    parts = [attributes[part] for part in ([key] if key in attributes else numbered)]
    return [text for part in parts for text in part] if parts and all(map(_is_texts, parts)) else None


def write_hdf5(path: Path, infos: Mapping[str, TensorInfo], read: Read, metadata: Mapping[str, Any]) -> None:
    """Writes a new file, all datasets contiguous.

    Args:
        metadata: "attributes", {path of an object ("" of the root): {name: value}}, as h5py writes them: a str is a
            UTF-8 text, bytes are an ASCII text; a list of texts is one of ASCII texts, and where it is too long for
            an attribute is split as Keras does; "groups", paths of groups with nothing in them.

    Raises:
        CheckpointError: a tensor, group or attribute cannot be written; the file is then left incomplete.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py  # not at the top: reading does without it
    except ImportError:
        raise MissingExtraError("HDF5 is written by h5py: pip install 'gptzoo[conversion]'") from None

    with naming(path), open(path, "x+b") as file:
        with _writing(path, ""), h5py.File(file, "w") as h5:
            for name, info in infos.items():
                _write_dataset(path, h5, name, info, read)
            for name in metadata.get("groups", ()):
                with _writing(path, name):
                    h5.require_group(name or "/")
            for name, values in metadata.get("attributes", {}).items():
                with _writing(path, name):
                    _write_attributes((h5[name] if name in h5 else h5.require_group(name)) if name else h5, values)
        file.flush()
        os.fsync(file.fileno())


def _write_dataset(path: Path, h5: Any, name: str, info: TensorInfo, read: Read) -> None:
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise CheckpointError(f"{path}: {shown(name)}: not a name that HDF5 can hold")
    stored = "V2" if info.dtype == "bfloat16" else np.dtype(info.dtype).newbyteorder("<")
    if stored != "V2" and info.dtype not in _WRITABLE:
        raise CheckpointError(f"{path}: {shown(name)}: dtype {info.dtype}, which HDF5 does not hold")
    array = np.ascontiguousarray(read(name))
    with _writing(path, name):
        dataset = h5.create_dataset(name, info.shape, stored, fill_time="never", track_times=False)
        dataset[...] = array.reshape(info.shape).view("V2") if stored == "V2" else array
        if stored == "V2":
            dataset.attrs["dtype"] = "bfloat16"


def _write_attributes(thing: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        parts = _parts([text.encode() for text in value]) if _is_texts(value) else [value]
        keys = [key] if len(parts) == 1 else [f"{key}{number}" for number in range(len(parts))]
        for part_key, part in zip(keys, parts, strict=True):
            thing.attrs[part_key] = part


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _parts(texts: list[bytes]) -> Sequence[list[bytes] | np.ndarray]:
    """Returns a list of texts as it is, or if it is long in as few equal parts as fit into attributes."""
    array, count = np.asarray(texts), 1
    while count < len(array) and any(part.nbytes > _ATTRIBUTE_BYTES for part in np.array_split(array, count)):
        count += 1
    return np.array_split(array, count) if count > 1 else [texts]


@contextmanager
def _writing(path: Path, name: str) -> Iterator[None]:
    """Names the tensor, group or attribute that HDF5 does not take, and the faults of the disk."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as problem:
        where = f"{path}: {shown(name)}" if name else path
        raise CheckpointError(f"{where}: cannot be written ({shown(str(problem), 200)})") from None
