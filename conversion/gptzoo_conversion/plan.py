"""What will be written, decided from headers alone: the model, what is left behind, and every foreign tensor."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

from gptzoo import weights
from gptzoo._load import LoadPlan, common_dtype, plan_load
from gptzoo._tensors import TensorInfo
from gptzoo.config import CONFIG_FILE, GPTConfig
from gptzoo.errors import ConversionError
from gptzoo.heads import class_name
from gptzoo.inspect import own_head
from gptzoo_conversion.format import Format
from gptzoo_conversion.opening import ForeignCheckpoint


@dataclass(frozen=True)
class Part:
    """Where a foreign tensor comes from: a part of a canonical weight."""

    name: str
    number: int


@dataclass(frozen=True)
class Plan:
    """One conversion before its first tensor is read.

    Attributes:
        load: which tensor of the source is which weight.
        config, head: of the model that is written.
        infos: foreign name -> dtype and shape, block after block.
        origin: foreign name -> where it comes from.
        dropped: what the source has and the target will not.
    """

    source: ForeignCheckpoint
    format: Format
    load: LoadPlan
    config: GPTConfig
    head: str
    infos: dict[str, TensorInfo] = field(repr=False)
    origin: dict[str, Part] = field(repr=False)
    dropped: list[str]

    def stored(self, name: str) -> str:
        """Returns the name in the source of a weight of the target."""
        return _stored(self.load, name)

    def weights(self) -> dict[str, weights.Spec]:
        """Returns the weights that are written: those that are not tied to others."""
        specs = weights.specs(self.config, self.head)
        return {name: spec for name, spec in specs.items() if not spec.tied}


def plan_conversion(source: ForeignCheckpoint, format: Format, dtype: str | None, drop: bool) -> Plan:
    """Decides what a checkpoint will be in another format.

    Args:
        dtype: of the numbers written; None: as they are.
        drop: whether to leave behind what the format cannot hold.

    Raises:
        ConversionError: lists what the format cannot hold.
        CheckpointError: lists what is wrong with the source.
    """
    head = own_head(source)
    load = plan_load(source, source.config, head)
    load.require_tied_equal()
    if problems := _refusals(source, format, load, head, dtype):
        raise ConversionError.listing(f"{source.path} as {format.name}", problems)
    config, rest = _fit(format, source.config, head)
    dropped = _other_heads(source, load, head) + format.losses(source.config, head)
    dropped += _lost_with_head(source, format, head, config, rest)
    if dropped and not drop:
        hints = [f"{loss} (--drop goes on without it)" for loss in dropped]
        raise ConversionError.listing(f"{source.path} as {format.name}", hints)
    infos, origin = _lay_out(source, format, load, config, rest, dtype)
    config.dtype = common_dtype(info.dtype for info in infos.values())
    return Plan(source, format, load, config, rest, infos, origin, dropped)


def _refusals(source: ForeignCheckpoint, format: Format, load: LoadPlan, head: str, dtype: str | None) -> list[str]:
    """Lists what stands in the way whatever may be dropped."""
    problems = format.problems(source.config, head)
    if "auto_map" in source.config.foreign:
        problems.append(f"{CONFIG_FILE}: auto_map: names code to be run; refused")
    dtypes = {dtype or source.tensors[name].dtype for name in load.stored.values()}
    held = " or ".join(format.dtypes)
    return problems + [
        f"{found}: {format.name} holds {held} (--dtype converts the numbers)"
        for found in sorted(dtypes - set(format.dtypes))
    ]


def _other_heads(source: ForeignCheckpoint, load: LoadPlan, head: str) -> list[str]:
    names = [name for name in load.report.ignored if not weights.is_buffer(name) and not _is_tied_copy(source, name)]
    return [f"{source.where(name)}: not of {class_name(source.config, head)}" for name in names]


def _is_tied_copy(source: ForeignCheckpoint, name: str) -> bool:
    """Whether nothing is lost with a head: it is the embedding once more, as the config says."""
    tied = {row.name: row.tied for row in weights.rows(source.config, "LMHeadModel")}.get(name)
    return bool(tied and source.config.tie_word_embeddings and tied in source.tensors and source.is_equal(name, tied))


def _lost_with_head(source: ForeignCheckpoint, format: Format, head: str, config: GPTConfig, rest: str) -> list[str]:
    """Lists the weights that a format could hold, but not in the model that is left without others of their head."""
    named = format.uncovered(source.config, head)
    kept = _own_rows(config, rest)
    names = [name for name in _own_rows(source.config, head) if name not in kept and name not in named]
    return [f"{name}: no weight of the {class_name(config, rest)} that is left" for name in names]


def _own_rows(config: GPTConfig, head: str) -> list[str]:
    rows = weights.rows(config, head)
    return [row.name for row in rows if not (row.tied and config.tie_word_embeddings)]


def _fit(format: Format, config: GPTConfig, head: str) -> tuple[GPTConfig, str]:
    """Returns the config and the head of what is left of a model in a format."""
    config = deepcopy(config)
    if format.losses(config, head):
        config = type(config).derive(config, **{k: v for k, v in format.fixed.items() if hasattr(config, k)})
        if format.uncovered(config, head):
            head = "LMHeadModel" if config.tie_word_embeddings else "Model"
    config.architectures = [class_name(config, head)]
    return config, head


def _lay_out(
    source: ForeignCheckpoint, format: Format, load: LoadPlan, config: GPTConfig, head: str, dtype: str | None
) -> tuple[dict[str, TensorInfo], dict[str, Part]]:
    infos: dict[str, TensorInfo] = {}
    origin: dict[str, Part] = {}
    for name, spec in _block_after_block(weights.specs(config, head)):
        if spec.tied:
            continue
        cell = format.column[spec.row.name]
        shapes = cell.split_shapes(spec.shape, config.n_head)
        for number, (bare, shape) in enumerate(zip(cell.named(spec.block), shapes, strict=True)):
            foreign = format.full_name(bare, spec.in_backbone, config, head)
            infos[foreign] = TensorInfo("", dtype or source.tensors[_stored(load, name)].dtype, shape)
            origin[foreign] = Part(name, number)
    return infos, origin


def _block_after_block(specs: dict[str, weights.Spec]) -> list[tuple[str, weights.Spec]]:
    """Returns weights in the order in which a model computes: embeddings, blocks, what follows them."""
    in_blocks = [spec.block is not None for spec in specs.values()]
    first = in_blocks.index(True)

    def place(number: int, spec: weights.Spec) -> tuple[int, int, int]:
        if spec.block is not None:
            return 1, spec.block, number
        return (0 if number < first else 2), 0, number

    numbered = sorted(enumerate(specs.items()), key=lambda item: place(item[0], item[1][1]))
    return [item for _, item in numbered]


def _stored(load: LoadPlan, name: str) -> str:
    """Returns the name in a checkpoint of a weight, of which another head may be over the backbone now."""
    bare = name.removeprefix(weights.PREFIX)
    return next(load.stored[key] for key in (name, bare, weights.PREFIX + bare) if key in load.stored)
