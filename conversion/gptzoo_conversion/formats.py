"""The formats that there are, and which of them a path is in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gptzoo._files import naming, open_regular, stand_in
from gptzoo._safetensors import IMPOSTORS
from gptzoo._vocabulary import FILES
from gptzoo.config import CONFIG_FILE
from gptzoo.errors import CheckpointError
from gptzoo_conversion.format import Format
from gptzoo_conversion.layouts.gguf import Gguf
from gptzoo_conversion.layouts.hf_flax import FlaxMsgpack
from gptzoo_conversion.layouts.hf_tf import TfH5
from gptzoo_conversion.layouts.hf_torch import PyTorchBin, Safetensors
from gptzoo_conversion.layouts.keras_own import Keras
from gptzoo_conversion.layouts.kerashub import KerasHub
from gptzoo_conversion.layouts.llmc import LlmC
from gptzoo_conversion.layouts.nanogpt import NanoGpt
from gptzoo_conversion.layouts.nnx_orbax import NnxOrbax
from gptzoo_conversion.layouts.openai_gpt import Gpt1Npy
from gptzoo_conversion.layouts.openai_gpt2 import Gpt2Tf1

# In a directory that holds several, the first of these is read. A file is of the first that its content matches.
FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Safetensors(),
        NanoGpt(),
        PyTorchBin(),
        KerasHub(),
        Keras(),
        TfH5(),
        FlaxMsgpack(),
        Gpt2Tf1(),
        Gpt1Npy(),
        LlmC(),
        NnxOrbax(),
        Gguf(),
    )
}


# What lies in a directory beside the weights: no file of a checkpoint is called otherwise.
_BESIDE = {CONFIG_FILE, "metadata.json", "task.json", "preprocessor.json", "assets", "hparams.json", "checkpoint"}
_SHARD = re.compile(r"(model|pytorch_model|tf_model|flax_model)-\d{5}-of-\d{5}\.\w+")
_PARTS = re.compile(
    r"params_\d+\.npy|model\.ckpt\.(data-\d{5}-of-\d{5}|meta)|model_\d{5}\.weights\.h5|model\.weights\.json"
)


def is_ours(name: str) -> bool:
    """Whether a file of this name in a directory is a part of a checkpoint in some format."""
    usual = {name for format in FORMATS.values() for name in (format.file, f"{format.file}.index.json")}
    translated = {name for format in FORMATS.values() for name in format.vocabulary_names.values()}
    if name in usual | translated | _BESIDE | set(FILES):
        return True
    return _SHARD.fullmatch(name) is not None or _PARTS.fullmatch(name) is not None


def format_named(name: str) -> Format:
    """Returns the format of a name on the command line.

    Raises:
        CheckpointError: there is none.
    """
    if name not in FORMATS:
        raise CheckpointError(f"format: {name!r:.80}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def locate(path: Path, wanted: Format | None = None) -> tuple[Format, Path, list[str]]:
    """Finds what is to be opened.

    Args:
        path: a directory, a file, or the prefix of a TensorFlow checkpoint.
        wanted: the format that it is to be read in; by default it is told from the content.

    Returns:
        The format, the file or directory to open, and notes for the user.

    Raises:
        CheckpointError: there is nothing in a known format, or several things and no order between them.
    """
    with naming(path):
        if path.is_dir():
            return _in_directory(path, wanted)
        index = path.with_name(path.name + ".index")
        if not os.path.lexists(path) and index.is_file():
            path = index
        return wanted or _of_file(path), path, []


def _in_directory(directory: Path, wanted: Format | None) -> tuple[Format, Path, list[str]]:
    candidates = [wanted] if wanted else list(FORMATS.values())
    found: list[tuple[Format, Path]] = []
    for candidate in candidates:
        try:
            place = candidate.find(directory)
        except CheckpointError:
            if not found:
                raise
            continue  # broken, but not what is read
        found += [(candidate, place)] if place else []
    if found:
        others = ", ".join(f"{path.name} ({format.name})" for format, path in found[1:])
        return *found[0], [f"read {found[0][1].name}; also there: {others}"] if others else []
    matches = [(format, path) for path in sorted(directory.iterdir()) if (format := _match(path, candidates))]
    if len(matches) > 1:
        names = ", ".join(f"{path.name} ({format.name})" for format, path in matches)
        raise CheckpointError(f"{directory}: {names}: give the path of the one that is meant")
    if matches:
        return *matches[0], []
    looked = ", ".join(dict.fromkeys(format.file for format in candidates))
    raise CheckpointError(
        f"{directory}: no weights in a known format (looked for {looked}, and at every file's content)"
    )


def _match(path: Path, candidates: list[Format]) -> Format | None:
    if not path.is_file():
        return None
    start = _start(path)
    return next((format for format in candidates if format.matches(path, start)), None)


def _of_file(path: Path) -> Format:
    for format in FORMATS.values():
        if path.name == getattr(format, "index", None):
            return format
    start = _start(path)
    for format in FORMATS.values():
        if format.matches(path, start):
            return format
    if diagnosis := stand_in(start):
        raise CheckpointError(f"{path}: {diagnosis}")
    for magic, diagnosis in IMPOSTORS.items():
        if start.lstrip().startswith(magic):
            raise CheckpointError(f"{path}: {diagnosis.split(', not safetensors')[0]}")
    found = f"begins with {start[:8]!r}" if start else "empty file"
    raise CheckpointError(f"{path}: {found}, expected a checkpoint in one of the formats {', '.join(FORMATS)}")


def _start(path: Path) -> bytes:
    with naming(path), open_regular(path) as file:
        return file.read(512)
