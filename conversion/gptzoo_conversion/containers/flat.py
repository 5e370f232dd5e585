"""llm.c's files: a header, then the numbers of the tensors in an order that whoever reads them knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from gptzoo._files import naming, stand_in, write_synced
from gptzoo._tensors import Read, TensorFile, TensorInfo, shown
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers._parts import pieces, shape_fault, stamp_at

Describe = Callable[[bytes], list[tuple[str, TensorInfo]]]


def read_flat(path: Path, header_bytes: int, describe: Describe) -> TensorFile:
    """Reads the header of a file, and checks that the tensors that it speaks of fill the file.

    Args:
        describe: header -> names, dtypes and shapes in the order of the file; whatever header it does not
            understand, it refuses by a `CheckpointError` that names the file.

    Returns:
        The tensors, and `metadata["header"]`: the header's bytes.

    Raises:
        CheckpointError: the file is absent, no regular one, or of another size.
    """
    whole = TensorFile(path, {}, {}, stamp_at(path))
    header = bytearray(min(header_bytes, whole.nbytes))
    with whole.opened() as file:
        whole.fill(file, memoryview(header))
    if diagnosis := stand_in(bytes(header[:64])):
        raise CheckpointError(f"{path}: {diagnosis}")
    if len(header) < header_bytes:
        raise CheckpointError(f"{path}: {whole.nbytes} bytes, expected a header of {header_bytes} (cut off)")
    end, tensors = header_bytes, {}
    for name, info in describe(bytes(header)):
        if fault := shape_fault(info.shape, info.dtype):
            raise CheckpointError(f"{path}: {shown(name)}: {fault}")
        assert name not in tensors, name
        tensors[name] = replace(info, file=path.name, start=end)
        end += info.nbytes
    if end != whole.nbytes:
        hint = " (cut off)" if whole.nbytes < end else ""
        raise CheckpointError(f"{path}: {whole.nbytes} bytes, expected {end} by its header{hint}")
    return TensorFile(path, tensors, {"header": bytes(header)}, whole.stamp)


def write_flat(path: Path, infos: Mapping[str, TensorInfo], read: Read, metadata: Mapping[str, Any]) -> None:
    """Writes `metadata["header"]` and the tensors behind it; of these, one at a time is in memory.

    Raises:
        CheckpointError: the file cannot be written.
    """

    def write(file: BinaryIO) -> None:
        file.write(metadata["header"])
        for name, info in infos.items():
            for piece in pieces(name, info, read):
                file.write(piece)

    with naming(path):
        write_synced(path, write)
