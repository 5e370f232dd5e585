"""PyTorch's layout of Transformers, which is the table's own: model.safetensors and pytorch_model.bin."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from gptzoo import weights
from gptzoo._files import write_synced
from gptzoo._safetensors import read_header, write_tensors
from gptzoo._tensors import Read, TensorFile, TensorInfo, shown
from gptzoo.config import GPTConfig
from gptzoo.errors import CheckpointError
from gptzoo_conversion.cells import CANONICAL, Column
from gptzoo_conversion.containers.pytorch import read_pytorch, write_pytorch
from gptzoo_conversion.format import Target
from gptzoo_conversion.layouts import hf_flax, hf_tf
from gptzoo_conversion.layouts.huggingface import HuggingFaceFormat

NESTS = ("state_dict", "model")  # what training scripts call the weights beside their own state
TRAINING = ("optimizer", "optimizers", "optimizer_states", "lr_scheduler", "lr_schedulers", "scheduler", "scaler")
WRAPPERS = ("_orig_mod.", "module.")  # of torch.compile and DistributedDataParallel


def unwrapped(name: str) -> str:
    """Returns the name of a weight without what wrappers and heads put before it."""
    for prefix in WRAPPERS * 2:
        name = name.removeprefix(prefix)
    return name.removeprefix(weights.PREFIX)


class TorchLayout(HuggingFaceFormat):
    """Names and shapes of the table."""

    column = CANONICAL
    prunes = True

    def bare(self, name: str) -> str | None:
        return unwrapped(name)

    def full_name(self, name: str, in_backbone: bool, config: GPTConfig, head: str) -> str:
        return weights.PREFIX + name if in_backbone and head != "Model" else name

    def constants(self, config: GPTConfig, head: str) -> dict[str, np.ndarray]:
        return weights.constants(config, head, config.dtype or "float32")


class Safetensors(TorchLayout):
    """Also those that TensorFlow's and Flax's classes wrote under the same file name, in layouts of their own."""

    name = "safetensors"
    file = "model.safetensors"
    suffixes = (".safetensors",)

    def matches(self, path: Path, start: bytes) -> bool:
        return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32

    def read_file(self, path: Path) -> TensorFile:
        return read_header(path)

    def layout(self, file: TensorFile) -> tuple[Column, Callable[[str], str | None]]:
        software = file.metadata.get("format")
        if software == "tf":
            return hf_tf.COLUMN, hf_tf.without_scope
        if software == "flax":
            return hf_flax.COLUMN, lambda name: hf_flax.without_prefix(name.replace(".", "/"))
        return self.column, self.bare

    def notes(self, file: TensorFile) -> list[str]:
        return hf_tf.notes(file) if file.metadata.get("format") == "tf" else []

    def write_file(self, path: Path, infos: Mapping[str, TensorInfo], read: Read, target: Target) -> None:
        write_synced(path, lambda out: write_tensors(out, infos, read, {"format": "pt"}))


class PyTorchBin(TorchLayout):
    """A tied head is in the file, as a second name of the embedding's numbers."""

    name = "pytorch_bin"
    file = "pytorch_model.bin"
    suffixes = (".bin", ".pt", ".pth")

    def matches(self, path: Path, start: bytes) -> bool:
        return is_pytorch(start)

    def bare(self, name: str) -> str | None:
        outer, *inner = name.split("/", 1)
        if inner and outer in TRAINING:
            return None
        return unwrapped(inner[0] if inner and outer in NESTS else name)

    def read_file(self, path: Path) -> TensorFile:
        file = read_pytorch(path)
        names = {name for name in file.metadata if unwrapped(name) in _ROWS or _BLOCK.match(unwrapped(name))}
        if problems := [f"{shown(name)}: {shown(file.metadata[name])}, expected a tensor" for name in sorted(names)]:
            raise CheckpointError.listing(str(path), problems)
        return file

    def write_file(self, path: Path, infos: Mapping[str, TensorInfo], read: Read, target: Target) -> None:
        write_pytorch(path, infos, read, {}, self.aliases(infos, target))

    def aliases(self, infos: Mapping[str, TensorInfo], target: Target) -> dict[str, str]:
        specs = weights.specs(target.config, target.head)
        return {name: spec.tied for name, spec in specs.items() if spec.tied and spec.tied in infos}


_ROWS = frozenset(row.name for row in weights.TABLE)
_BLOCK = re.compile(r"h\.\d+\.")


def is_pytorch(start: bytes) -> bool:
    """Whether a file is a pickle, or a zip archive that begins with one."""
    if start.startswith(b"PK\x03\x04"):
        return b"/data.pkl" in start
    return start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
