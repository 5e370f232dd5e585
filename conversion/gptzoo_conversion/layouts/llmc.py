"""llm.c's model files: 256 integers, then the weights kind by kind, each for all blocks, linear ones as (out, in)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from gptzoo import limits
from gptzoo._tensors import TensorInfo
from gptzoo.config import GPTConfig
from gptzoo.errors import CheckpointError
from gptzoo_conversion.cells import TRANSPOSED, cell, column
from gptzoo_conversion.containers.flat import read_flat, write_flat
from gptzoo_conversion.format import Format, Source, Target
from gptzoo_conversion.layouts.openai_gpt2 import GRANTED, narrow_mlp

MAGIC = 20240326
HEADER_BYTES = 256 * 4
VERSIONS = {3: "float32", 5: "bfloat16"}
FIELDS = ("n_positions", "vocab_size", "n_layer", "n_head", "n_embd")  # of the header, from its third number on
PADDED = 128  # the rows of the vocabulary are a multiple of this; those added are zero

# In the order of the file.
COLUMN = column(
    {
        "wte.weight": "wte",
        "wpe.weight": "wpe",
        "h.{i}.ln_1.weight": "ln1w.{i}",
        "h.{i}.ln_1.bias": "ln1b.{i}",
        "h.{i}.attn.c_attn.weight": cell("qkvw.{i}", TRANSPOSED),
        "h.{i}.attn.c_attn.bias": "qkvb.{i}",
        "h.{i}.attn.c_proj.weight": cell("attprojw.{i}", TRANSPOSED),
        "h.{i}.attn.c_proj.bias": "attprojb.{i}",
        "h.{i}.ln_2.weight": "ln2w.{i}",
        "h.{i}.ln_2.bias": "ln2b.{i}",
        "h.{i}.mlp.c_fc.weight": cell("fcw.{i}", TRANSPOSED),
        "h.{i}.mlp.c_fc.bias": "fcb.{i}",
        "h.{i}.mlp.c_proj.weight": cell("fcprojw.{i}", TRANSPOSED),
        "h.{i}.mlp.c_proj.bias": "fcprojb.{i}",
        "ln_f.weight": "lnfw",
        "ln_f.bias": "lnfb",
    }
)
PADDING = "wte.padding"


class LlmC(Format):
    """Rows that pad the vocabulary are checked to be zero and left out, and written again."""

    name = "llmc"
    file = "model.bin"
    suffixes = (".bin",)
    column = COLUMN
    families = ("gpt2",)
    dtypes = tuple(VERSIONS.values())
    fixed = GRANTED

    def matches(self, path: Path, start: bytes) -> bool:
        return start.startswith(struct.pack("<i", MAGIC))

    def says_config(self, file: str) -> bool:
        return True

    def open(self, path: Path) -> Source:
        file = read_flat(path, HEADER_BYTES, lambda header: _describe(path, header))
        padding = file.read(PADDING) if PADDING in file.tensors else np.zeros(0)
        if padding.any():
            raise CheckpointError(f"{path}: wte: rows that pad the vocabulary, expected zeros")
        config = GRANTED | _header_fields(file.metadata["header"])
        config |= {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
        return Source({path.name: file}, self.column, lambda name: None if name == PADDING else name, config)

    def problems(self, config: Any, head: str) -> list[str]:
        return super().problems(config, head) + narrow_mlp(self, config)

    def write(self, target: Target) -> None:
        config = target.config
        dtypes = {info.dtype for info in target.infos.values()}
        if len(dtypes) > 1:
            raise CheckpointError(f"{target.file}: {' and '.join(sorted(dtypes))}, expected one dtype (--dtype)")
        dtype = dtypes.pop()
        infos = _order(config, dtype)
        numbers = [MAGIC, {name: number for number, name in VERSIONS.items()}[dtype]]
        numbers += [*(getattr(config, name) for name in FIELDS), _padded(config.vocab_size)]
        header = struct.pack("<256i", *numbers, *[0] * (256 - len(numbers)))

        def read(name: str) -> np.ndarray:
            return np.zeros(infos[name].shape, np.dtype(dtype)) if name == PADDING else target.read(name)

        write_flat(target.directory / target.file, infos, read, {"header": header})
        self.finish(target)


def _describe(path: Path, header: bytes) -> list[tuple[str, TensorInfo]]:
    """Returns the tensors of a file, in its order."""
    magic, version, *_ = struct.unpack("<256i", header)
    if magic != MAGIC or version not in VERSIONS:
        raise CheckpointError(f"{path}: version {version}, expected {' or '.join(map(str, VERSIONS))}")
    values = _header_fields(header)
    bounds = (limits.MAX_POSITIONS, limits.MAX_VOCAB, limits.MAX_LAYERS, limits.MAX_HEADS, limits.MAX_EMBED)
    problems = [
        f"{name}: {values[name]}, expected 1 to {bound}"
        for name, bound in zip(FIELDS, bounds, strict=True)
        if not 1 <= values[name] <= bound
    ]
    padded = struct.unpack_from("<i", header, 4 * (2 + len(FIELDS)))[0]
    if not problems and not values["vocab_size"] <= padded <= limits.MAX_VOCAB + PADDED:
        problems.append(f"padded vocabulary: {padded}, expected at least {values['vocab_size']}")
    if problems:
        raise CheckpointError.listing(str(path), problems)
    return list(_tensors(values, padded, VERSIONS[version]).items())


def _header_fields(header: bytes) -> dict[str, int]:
    return dict(zip(FIELDS, struct.unpack_from(f"<{len(FIELDS)}i", header, 8), strict=True))


def _padded(vocab_size: int) -> int:
    return -(-vocab_size // PADDED) * PADDED


def _order(config: GPTConfig, dtype: str) -> dict[str, TensorInfo]:
    return _tensors({name: getattr(config, name) for name in FIELDS}, _padded(config.vocab_size), dtype)


def _tensors(values: dict[str, int], padded: int, dtype: str) -> dict[str, TensorInfo]:
    vocab, width, blocks = values["vocab_size"], values["n_embd"], range(values["n_layer"])
    shapes: dict[str, tuple[int, ...]] = {"wte": (vocab, width)}
    shapes |= {PADDING: (padded - vocab, width)} if padded > vocab else {}
    shapes["wpe"] = (values["n_positions"], width)
    sides = {"qkvw": (3, 1), "attprojw": (1, 1), "fcw": (4, 1), "fcprojw": (1, 4), "qkvb": (3,), "fcb": (4,)}
    for row in COLUMN.values():
        kind = row.names[0].removesuffix(".{i}")
        if row.names[0] != kind:
            shape = tuple(side * width for side in sides.get(kind, (1,)))
            shapes |= {f"{kind}.{block}": shape for block in blocks}
    shapes |= {"lnfw": (width,), "lnfb": (width,)}
    return {name: TensorInfo("", dtype, shape) for name, shape in shapes.items()}
