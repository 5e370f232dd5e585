"""From any format to any other: planned from headers, written one tensor at a time, read back, then put in place."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptzoo._files import naming, publish, require_possible
from gptzoo._load import plan_load
from gptzoo._shards import byte_count
from gptzoo._tensors import TensorInfo, shown
from gptzoo.config import CONFIG_FILE, DTYPES, GPTConfig
from gptzoo.errors import CheckpointError, ConversionError, GPTZooError
from gptzoo.heads import class_name
from gptzoo_conversion._numbers import Digests, cast, first_nonfinite
from gptzoo_conversion.format import Target
from gptzoo_conversion.formats import format_named, is_ours, locate
from gptzoo_conversion.opening import ForeignCheckpoint, open_foreign
from gptzoo_conversion.plan import Plan, plan_conversion

Progress = Callable[[str, int, int], None]  # what is done, how many bytes of how many
Verify = Callable[[ForeignCheckpoint, ForeignCheckpoint, str], None]

# Attributes of a config that a format says in its own words, and that must come back as they were.
_SAID = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "n_mlp", "activation", "layer_norm_epsilon")


@dataclass
class Conversion:
    """What was converted.

    Attributes:
        model: class of the model that was written.
        source, target: "path" and "format" of each.
        config: fields of config.json of the "source" and of the "target".
        tensors: canonical name -> "dtype", "shape", "source_dtype", and SHA-256 of the bytes in "source" and "target".
        dropped: what the target does not hold.
        verified: whether `verify` was asked for, and found nothing wrong.
        notes: what was assumed or left aside.
    """

    model: str
    source: dict[str, str]
    target: dict[str, str]
    config: dict[str, dict[str, Any]] = field(default_factory=dict)
    tensors: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    verified: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers that were written."""
        infos = (TensorInfo("", tensor["dtype"], tuple(tensor["shape"])) for tensor in self.tensors.values())
        return sum(info.nbytes for info in infos)

    def to_json(self) -> dict[str, Any]:
        """Returns the same as plain dicts, lists and texts."""
        return asdict(self)

    def __str__(self) -> str:
        same = sum(tensor["source"] == tensor["target"] for tensor in self.tensors.values())
        lines = [
            f"{self.source['path']} ({self.source['format']}) -> {self.target['path']} ({self.target['format']})",
            f"{self.model}, {self.nbytes:,} bytes; {same} of {len(self.tensors)} tensors the same bit for bit",
        ]
        lines += ["parity: the float64 reference computes the same from both"] * self.verified
        lines += [f"dropped: {thing}" for thing in self.dropped]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def convert(
    source: str | Path,
    target: str | Path,
    to: str,
    *,
    from_: str | None = None,
    config: GPTConfig | str | Path | None = None,
    dtype: str | None = None,
    drop: bool = False,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
    max_shard_size: int | str = "5GB",
    progress: Progress | None = None,
    verify: Verify | None = None,
) -> Conversion:
    """Converts a checkpoint; afterwards `target` is there, whole and read back, or as it was before.

    Args:
        source: a directory, a file, or the name of a model: bundled, or on the Hugging Face hub.
        target: a directory that is made; or a file, if its name ends as single files of the format do.
        to: key of `FORMATS`.
        from_: key of `FORMATS`; by default told from the content of `source`.
        config: in place of what the source says.
        dtype: of the numbers written; by default they stay as they are, bit for bit.
        drop: whether to leave behind what the format cannot hold.
        overwrite: whether a checkpoint that is at `target` may be replaced.
        allow_nonfinite: whether numbers may be infinite, or not a number.
        max_shard_size: of formats that can be sharded; in bytes, or as "5GB".
        progress: is told what is done.
        verify: is given both checkpoints and the head before the new one is put in place, and raises if it is wrong.

    Raises:
        ConversionError: the format cannot hold the model; lists why.
        CheckpointError: the source is broken, or the target cannot be written, or was read back other than written.
        ConfigError: a config is wrong.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConversionError(f"dtype: {dtype!r:.80}, expected one of {', '.join(DTYPES)}")
    format, place, limit = format_named(to), Path(target), byte_count(max_shard_size)
    _require_place(place, overwrite)
    checkpoint = open_foreign(source, from_, config)
    _require_apart(checkpoint, place)
    plan = plan_conversion(checkpoint, format, dtype, drop)
    is_file = place.name.endswith(format.suffixes or "/")
    result = Conversion(
        class_name(plan.config, plan.head),
        {"path": str(source), "format": checkpoint.format},
        {"path": str(target), "format": format.name},
        config={"source": checkpoint.config.to_dict(), "target": plan.config.to_dict()},
        dropped=plan.dropped,
        notes=list(checkpoint.notes),
    )
    if is_file and not format.says_config(place.name):
        result.notes.append(
            f"a single file was asked for: no {CONFIG_FILE} and no tokenizer beside it (to read it: --config)"
        )
    job = _Job(plan, result, dtype, allow_nonfinite, progress)
    file = place.name if is_file else None

    def write(stage: Path) -> None:
        job.write(stage, file, 2**63 if is_file else limit)
        back = job.read_back(stage, file)
        if verify:
            job.verify(verify, back)

    publish(place, write, file, overwrite)
    return result


class _Job:
    """Writes what was planned, and notes what each tensor was."""

    def __init__(
        self, plan: Plan, result: Conversion, dtype: str | None, allow_nonfinite: bool, progress: Progress | None
    ):
        self.plan, self.result, self.dtype = plan, result, dtype
        self.allow_nonfinite, self.progress = allow_nonfinite, progress
        self.weights = plan.weights()
        self.digests, self.noted = Digests(), dict[str, tuple[Future[str], Future[str]]]()
        self.done, self.total = 0, sum(info.nbytes for info in plan.infos.values())
        self.split: tuple[str, list[np.ndarray]] = ("", [])  # the weight whose parts are being written

    def write(self, stage: Path, file: str | None, max_shard_size: int) -> None:
        """Writes all files of the target."""
        plan, format = self.plan, self.plan.format
        constants = format.constants(plan.config, plan.head)
        infos = plan.infos | {name: TensorInfo("", a.dtype.name, a.shape) for name, a in constants.items()}
        format.write(
            Target(
                directory=stage,
                file=file or format.file,
                config=plan.config,
                head=plan.head,
                infos=infos,
                read=lambda name: constants[name] if name in constants else self.read(name),
                vocabulary=plan.source.vocabulary,
                max_shard_size=max_shard_size,
            )
        )
        for name, (before, after) in self.noted.items():
            self.result.tensors[name] |= {"source": before.result(), "target": after.result()}

    def read(self, foreign: str) -> np.ndarray:
        """Returns one foreign tensor."""
        part = self.plan.origin[foreign]
        if self.split[0] != part.name:
            self.split = ("", [])  # lets go of the last one before the next is read
            cell = self.plan.format.column[self.weights[part.name].row.name]
            self.split = (part.name, cell.split(self.value(part.name), self.plan.config.n_head))
        array = self.split[1][part.number]
        if part.number + 1 == len(self.split[1]):
            self.split = ("", [])
        return array

    def value(self, name: str) -> np.ndarray:
        """Returns one weight of the target, its numbers looked at and noted."""
        source, stored = self.plan.source, self.plan.stored(name)
        array = source.peek(stored)
        if not self.allow_nonfinite and (bad := first_nonfinite(array)):
            where = f"{source.path}: {source.where(stored)}{bad}"
            raise CheckpointError(f"{where}, expected finite numbers (--allow-nonfinite takes them as they are)")
        before = after = self.digests.begin(array)
        if self.dtype and array.dtype.name != self.dtype:
            array = cast(array, self.dtype, source.where(stored))
            after = self.digests.begin(array)
        self.noted[name] = before, after
        shape, dtype = list(array.shape), source.tensors[stored].dtype
        self.result.tensors[name] = {"dtype": array.dtype.name, "shape": shape, "source_dtype": dtype}
        self.tell("converting", array)
        return array

    def read_back(self, stage: Path, file: str | None) -> ForeignCheckpoint:
        """Opens what was written as any reader would, and compares every tensor with what was meant.

        Raises:
            CheckpointError: lists every difference.
        """
        plan = self.plan
        try:
            given = plan.config if file and not plan.format.says_config(file) else None
            back = open_foreign(stage / file if file else stage, plan.format.name, given)
            load = plan_load(back, back.config, plan.head)
            load.require_tied_equal()
        except GPTZooError as problem:
            raise CheckpointError(f"{self.result.target['path']}: not read back ({problem})") from None
        wrong = [
            f"{name}: {getattr(back.config, name)!r} when read back, expected {getattr(plan.config, name)!r}"
            for name in _SAID
            if getattr(back.config, name) != getattr(plan.config, name)
        ]
        if not given:
            self.note_lost_fields(back.config)
        self.done = 0
        found = {}
        for name in self.result.tensors:
            array = back.peek(load.stored[name])
            found[name] = array.dtype.name, list(array.shape), self.digests.begin(array)
            self.tell("reading back", array)
        for name, (dtype, shape, sha) in found.items():
            tensor = self.result.tensors[name]
            if (dtype, shape, sha.result()) != (tensor["dtype"], tensor["shape"], tensor["target"]):
                wrong.append(f"{name}: read back other than written")
        wrong += [f"{name}: not written" for name in self.weights if name not in self.result.tensors]
        if wrong:
            raise CheckpointError.listing(self.result.target["path"], wrong)
        return back

    def note_lost_fields(self, found: GPTConfig) -> None:
        """Says which fields of the config a reader will take other values for."""
        config = self.plan.config
        fields = [f"{name} {getattr(config, name)!r}" for name in config.documented if self.differs(name, found)]
        if fields:
            self.result.notes.append(f"{self.plan.format.name} does not say {', '.join(fields)}")

    def differs(self, name: str, found: GPTConfig) -> bool:
        """Whether a field was read back with another meaning."""
        wanted, value = getattr(self.plan.config, name), getattr(found, name)
        return value != wanted and name not in ("activation_function", "afn", "n_inner")  # compared by their meaning

    def verify(self, verify: Verify, back: ForeignCheckpoint) -> None:
        """Lets the caller compare both checkpoints; an error names the target, and not where it is being made."""
        try:
            verify(self.plan.source, back, self.plan.head)
        except GPTZooError as problem:
            raise type(problem)(str(problem).replace(str(back.path), self.result.target["path"])) from None
        self.result.verified = True

    def tell(self, what: str, array: np.ndarray) -> None:
        """Reports progress: bytes whose work is done."""
        self.done += array.nbytes
        if self.progress:
            self.progress(what, self.done, self.total)


def _require_place(place: Path, overwrite: bool) -> None:
    """Checks that something may be put where it is wanted, before anything is read."""
    require_possible(place)
    with naming(place):
        if place.name in ("", "..") or os.path.realpath(place) == os.getcwd():
            raise CheckpointError(f"{place}: expected the path of something new")
        if not os.path.lexists(place):
            parent = next(parent for parent in place.absolute().parents if parent.exists())
            if not os.access(parent, os.W_OK | os.X_OK) or not parent.is_dir():
                raise CheckpointError(f"{place}: {parent} cannot be written to")
        elif not overwrite:
            raise CheckpointError(f"{place}: exists (--overwrite replaces it)")
        elif place.exists():
            _require_checkpoint(place)


def _require_checkpoint(place: Path) -> None:
    """Checks that what would be replaced is a checkpoint and nothing else, or empty."""
    if place.is_dir():
        names = sorted(os.listdir(place))
        if not names:
            return
        if others := [shown(name) for name in names if not is_ours(name)]:
            raise CheckpointError(f"{place}: not overwritten: it also holds {', '.join(others[:5])}, no checkpoint's")
    elif not place.is_file():
        raise CheckpointError(f"{place}: a pipe or device, expected a checkpoint or nothing")
    elif not place.stat().st_size:
        return
    try:
        locate(place)
    except CheckpointError:
        raise CheckpointError(f"{place}: holds no checkpoint, and is not overwritten") from None


def _require_apart(source: ForeignCheckpoint, place: Path) -> None:
    """Checks that neither of source and target lies in the other."""
    files = [source.path / name for name in source.files]
    theirs, ours = source.path.resolve(), Path(os.path.realpath(place))  # Path's own fails where a link leads to itself
    inside = ours.is_relative_to(theirs) and not source.single
    if ours == theirs or inside or theirs.is_relative_to(ours) or ours in [file.resolve() for file in files]:
        raise CheckpointError(f"{place}: {source.path} is read there; expected a place apart from it")
