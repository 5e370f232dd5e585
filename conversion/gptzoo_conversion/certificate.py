"""What a conversion did to each tensor, written down so that anybody can check it later."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gptzoo import __version__
from gptzoo._files import require_writable, write_file
from gptzoo._json import read_json_object
from gptzoo._tensors import shown
from gptzoo.config import GPTConfig, config_class
from gptzoo.errors import CheckpointError
from gptzoo.weights import PREFIX, is_buffer
from gptzoo_conversion._numbers import digest
from gptzoo_conversion.convert import Conversion
from gptzoo_conversion.opening import ForeignCheckpoint, open_foreign

KIND = "gptzoo conversion certificate"
SIDES = ("target", "source")

# Modules whose versions are noted where they were used -> the packages that bring them.
TOOLS = {
    "numpy": "numpy",
    "ml_dtypes": "ml_dtypes",
    "h5py": "h5py",
    "google_crc32c": "google-crc32c",
    "tensorstore": "tensorstore",
}

# Fields of a config that change what a model computes.
COMPUTED = (
    "n_layer",
    "n_head",
    "n_embd",
    "n_positions",
    "vocab_size",
    "n_mlp",
    "activation",
    "layer_norm_epsilon",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "add_cross_attention",
    "tie_word_embeddings",
    "pruned_heads",
)


def require_certificate_place(path: Path, source: str, target: str, overwrite: bool) -> None:
    """Checks that a certificate may be written somewhere, before anything is converted.

    Raises:
        CheckpointError: there is a file that may not be replaced, or a checkpoint is or will be there.
    """
    require_writable(path)
    for other in (source, target):
        place = Path(os.path.realpath(other))
        if Path(os.path.realpath(path)).is_relative_to(place):
            raise CheckpointError(f"{path}: {other} is there; expected a place apart from it")
    if os.path.lexists(path):
        if not overwrite:
            raise CheckpointError(f"{path}: exists (--overwrite replaces a certificate)")
        _require_certificate(path, read_json_object(path, CheckpointError))


def write_certificate(path: Path, conversion: Conversion) -> None:
    """Writes SHA-256 of every tensor's bytes in source and target, in C order and little-endian, by canonical names."""
    content = {"kind": KIND, "version": 1, "tools": _tools()} | conversion.to_json()
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())


def verify_certificate(path: str | Path, checkpoint: str | Path | None = None) -> list[str]:
    """Reads the checkpoints of a certificate; compares every tensor, and what their configs compute.

    Args:
        checkpoint: which must be the target or the source; None: both are looked for where they were.

    Returns:
        A sentence for each side that was found as certified.

    Raises:
        CheckpointError: a certificate or checkpoint cannot be read; or lists what differs.
    """
    content = read_json_object(Path(path), CheckpointError)
    _require_certificate(Path(path), content)
    if checkpoint is None:
        return [_compare(path, content, side, open_foreign(content[side]["path"])) for side in SIDES]
    found = open_foreign(checkpoint)
    problems = []
    for side in SIDES:
        if content[side].get("format") != found.format:
            problems.append(f"the {side} is {shown(content[side].get('format'))}, found {found.format}")
            continue
        try:
            return [_compare(path, content, side, found)]
        except CheckpointError as problem:
            problems.append(str(problem))
    raise CheckpointError.listing(f"{path}: {checkpoint} is neither the target nor the source", problems)


def _compare(path: str | Path, content: dict[str, Any], side: str, found: ForeignCheckpoint) -> str:
    tensors, place = content["tensors"], content[side]["path"]
    bare = {name.removeprefix(PREFIX): name for name in found.tensors}
    problems = _config_faults(content, side, found.config)
    for name, entry in tensors.items():
        stored = bare.pop(name.removeprefix(PREFIX), None)
        dtype = entry["dtype" if side == "target" else "source_dtype"]
        if stored is None:
            problems.append(f"{shown(name)}: absent")
            continue
        info = found.tensors[stored]
        if (info.dtype, list(info.shape)) != (dtype, entry["shape"]):
            problems.append(f"{shown(name)}: {info.dtype} {list(info.shape)}, expected {shown(dtype)} {entry['shape']}")
        elif (sha := digest(found.peek(stored))) != entry[side]:
            problems.append(f"{shown(name)}: SHA-256 {sha}, expected {shown(entry[side])}")
    tied = {"lm_head.weight"} if found.config.tie_word_embeddings else set()
    whole = side == "target" or not content.get("dropped")
    extra = [name for name in bare if not is_buffer(name) and name not in tied] if whole else []
    problems += [f"{shown(name)}: not in the certificate" for name in extra]
    if problems:
        raise CheckpointError.listing(f"{path}: {found.path} is not the {side} ({shown(place)})", problems)
    return f"{found.path}: the {side} as certified, {len(tensors)} tensors"


def _config_faults(content: dict[str, Any], side: str, found: GPTConfig) -> list[str]:
    wanted = config_class(content["config"][side].get("model_type")).from_dict(content["config"][side])
    return [
        f"{name}: {getattr(found, name)!r}, expected {getattr(wanted, name)!r}"
        for name in ("model_type", *COMPUTED)
        if getattr(found, name) != getattr(wanted, name)
    ]


def _require_certificate(path: Path, content: dict[str, Any]) -> None:
    """Checks that a file is a certificate of a version that is known."""
    maps = [content.get(key) for key in (*SIDES, "config", "tensors")]
    if content.get("kind") != KIND or content.get("version") != 1 or not all(isinstance(one, dict) for one in maps):
        raise CheckpointError(f"{path}: not a {KIND} of version 1")
    for side in SIDES:
        if not isinstance(content[side].get("path"), str) or not isinstance(content["config"].get(side), dict):
            raise CheckpointError(f"{path}: {side}: expected a path and a config")
    for name, entry in content["tensors"].items():
        if not isinstance(entry, dict) or not {"shape", "dtype", "source_dtype", *SIDES} <= entry.keys():
            raise CheckpointError(f"{path}: tensors: {shown(name)}: expected dtypes, shape, source and target")


def _tools() -> dict[str, str]:
    used = {package: version(package) for module, package in TOOLS.items() if module in sys.modules}
    return {"gptzoo": __version__, "python": platform.python_version()} | used
