"""Which tensor of a checkpoint is which weight of a model: found by names, shapes and dtypes alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptzoo import weights
from gptzoo._settings import short
from gptzoo._tensors import TensorInfo, shown
from gptzoo.config import CONFIG_FILE, DTYPES, LABELS, AutoConfig, GPTConfig
from gptzoo.errors import CheckpointError, ConfigError, InputError
from gptzoo.heads import class_name, parse_class_name
from gptzoo.hub import HubOptions, resolve
from gptzoo.inputs import Shape

if TYPE_CHECKING:
    from gptzoo.checkpoint import Checkpoint

ANY = None

# Arguments of `from_pretrained` in other libraries that are neither ours nor fields of a config -> the values that
# change nothing here, and why. At another value they are refused, so that none is believed to have an effect.
_ONE_READER = "what a file is, is told from the file"
_LEAN = "one tensor at a time is in memory beside the model, and no weight is filled twice"
FOREIGN_ARGUMENTS: dict[str, tuple[tuple[Any, ...] | None, str]] = {
    "variant": ((None,), "files are read by their plain names"),
    "from_flax": (ANY, _ONE_READER),
    "from_pt": (ANY, _ONE_READER),
    "from_tf": (ANY, _ONE_READER),
    "use_safetensors": ((None, True), "safetensors are read"),
    "weights_only": (ANY, "nothing but tensors is read from a file"),
    "is_decoder": (ANY, "every GPT is one"),
    "trust_remote_code": (ANY, "no code is read from a checkpoint"),
    "disable_mmap": (ANY, _LEAN),
    "low_cpu_mem_usage": (ANY, _LEAN),
    "offload_state_dict": (ANY, _LEAN),
    "_fast_init": (ANY, _LEAN),
    "_do_init": ((True,), "a Flax model holds its weights, which are `model.params` too"),
    "device_map": ((None, "auto"), "a model is where its framework puts it"),
    "load_in_4bit": ((None, False), "weights are not quantized"),
    "load_in_8bit": ((None, False), "weights are not quantized"),
}

_BLOCK = re.compile(r"h\.(0|[1-9][0-9]*)\.")


@dataclass
class LoadReport:
    """What became of each weight of a model, and of each tensor of a checkpoint.

    Attributes:
        loaded: weights that were read.
        tied: weights that are identical to another one, whether stored or not.
        ignored: tensors, named as stored, that the model does not use: old buffers, weights of other heads.
        fresh: weights of a head that the checkpoint does not have; they get initial values. With
            `ignore_mismatched_sizes`, also weights that it has in another shape.
        mismatched: weights that the checkpoint has in another shape -> that shape, and the model's.
    """

    loaded: list[str] = field(default_factory=list)
    tied: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)

    def loading_info(self) -> dict[str, list[Any]]:
        """Returns the same in the words of Transformers' `output_loading_info`, sorted."""
        return {
            "missing_keys": sorted(set(self.fresh) - set(self.mismatched)),
            "unexpected_keys": sorted(name for name in self.ignored if not weights.is_buffer(name)),
            "mismatched_keys": sorted((name, *shapes) for name, shapes in self.mismatched.items()),
            "error_msgs": [],  # what would stand here is an exception
        }

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} loaded"]
        for word, names in (("tied", self.tied), ("ignored", self.ignored), ("fresh", self.fresh)):
            if names:
                parts.append(f"{len(names)} {word} ({', '.join(map(shown, names[:3]))}{', ...' * (len(names) > 3)})")
        parts += [f"{name} of shape {found}, not {wanted}" for name, (found, wanted) in self.mismatched.items()]
        return ", ".join(parts)


@dataclass(frozen=True)
class LoadPlan:
    """Where each weight of a model comes from.

    Attributes:
        specs: the model's weights.
        stored: canonical name -> name in the checkpoint, of those that it has.
    """

    checkpoint: Checkpoint
    specs: dict[str, weights.Spec]
    stored: dict[str, str]
    report: LoadReport

    @property
    def dtype(self) -> str:
        """The dtype of the stored weights; if they are mixed, the narrowest that holds them all exactly."""
        return common_dtype(self.checkpoint.tensors[self.stored[name]].dtype for name in self.report.loaded)

    def chosen_dtype(self, dtype: Any, given: GPTConfig | None) -> Any:
        """Returns the dtype asked for, else that of a config given in place of the checkpoint's, else as stored."""
        if dtype is not None and dtype != "auto":
            return dtype
        return self.dtype if given is None or given.dtype is None else given.dtype

    def values(self, seed: int = 0) -> Iterator[tuple[str, np.ndarray]]:
        """Yields each weight that is not tied, by its canonical name, once; only the one yielded is in memory.

        Args:
            seed: of the initial values of fresh weights.

        Raises:
            CheckpointError: a weight differs from the one that it is tied to, or a file changed meanwhile.
        """
        self.require_tied_equal()
        for name, spec in self.specs.items():
            if name in self.stored and not spec.tied:
                yield name, self.checkpoint.read(self.stored[name])
            elif not spec.tied:
                yield name, weights.initial_value(spec, seed)

    def require_tied_equal(self) -> None:
        """Raises an error if a stored weight differs from the one that it is tied to."""
        for name, spec in self.specs.items():
            if not spec.tied or name not in self.stored:
                continue
            one, other = self.stored[name], self.stored.get(spec.tied, spec.tied)  # that of another shape is not kept
            if spec.tied not in self.stored or not self.checkpoint.is_equal(one, other):
                file = self.checkpoint.path / self.checkpoint.tensors[one].file
                raise CheckpointError(f"{file}: {one}: differs from {other}, expected equal (tie_word_embeddings)")


# Arguments of `save_pretrained` in other libraries -> the values that change nothing here, and why.
FOREIGN_SAVING: dict[str, tuple[tuple[Any, ...] | None, str]] = {
    "params": ((None,), "the model has its weights"),
    "push_to_hub": ((None, False), "nothing is uploaded"),
    "safe_serialization": ((None, True), "safetensors is the only format that is written"),
    "save_function": (ANY, "files are written whole or not at all"),
    "save_original_format": (ANY, "there is one format"),
    "save_peft_format": (ANY, "there are no adapters"),
    "token": (ANY, "nothing is uploaded"),
    "variant": ((None,), "the file's name is what every library looks for"),
}


def refuse_foreign(caller: str, given: dict[str, Any]) -> None:
    """Checks that arguments of other libraries change nothing here.

    Raises:
        InputError: lists those that would, and those that nobody knows.
    """
    problems: list[str] = []
    for name, value in given.items():
        if name not in FOREIGN_SAVING:
            problems.append(f"{name}: no such argument")
        else:
            problems += _foreign_problems(name, value, *FOREIGN_SAVING[name])
    if problems:
        raise InputError.listing(caller, problems)


def _foreign_problems(name: str, value: Any, harmless: tuple[Any, ...] | None, reason: str) -> Iterator[str]:
    if harmless is not ANY and value not in harmless:
        yield f"{name}: {short(value)} is not implemented in gptzoo ({reason})"


def given_config(
    cls: type[GPTConfig] | type[AutoConfig], config: GPTConfig | str | Path | None, options: HubOptions
) -> GPTConfig | None:
    """Returns a config that was given in place of the checkpoint's: as such, or by the path or name of one.

    Args:
        options: as for the checkpoint, whose revision and subfolder are its own.
    """
    if config is None or isinstance(config, GPTConfig):
        return config
    return cls.from_pretrained(resolve(config, "config", replace(options, revision=None, subfolder=None)))


def config_overrides(
    stored: GPTConfig, config: type[GPTConfig], given: dict[str, Any], caller: str = "from_pretrained"
) -> dict[str, Any]:
    """Returns what `from_pretrained` was given for the config, less the arguments of other libraries.

    Args:
        stored: the checkpoint's config.
        config: class of the model's config.
        given: arguments that are not `from_pretrained`'s own, by name.
        caller: the method's name, for the message.

    Raises:
        ConfigError: lists what is neither a field of the config, nor a foreign field that the checkpoint holds, nor a
            foreign argument without effect.
    """
    known = {name for name in given if config.judges(name) or name in stored.foreign}
    problems: list[str] = []
    for name, value in given.items():
        if name in FOREIGN_ARGUMENTS:
            problems += _foreign_problems(name, value, *FOREIGN_ARGUMENTS[name])
        elif name not in known:
            like = get_close_matches(name, {entry.name for entry in fields(config)} | LABELS, 1)
            hint = f" ({like[0]}?)" if like else ""
            problems.append(f"{name}: neither an argument nor a field of the config{hint}")
    if problems:
        raise ConfigError.listing(caller, problems)
    return {name: given[name] for name in known}


def plan_load(checkpoint: Checkpoint, config: GPTConfig, head: str, ignore_mismatched_sizes: bool = False) -> LoadPlan:
    """Finds each weight of a model in a checkpoint, from the headers alone.

    Backbone names with and without "transformer." are the same. Buffers of old versions and weights of other heads
    are ignored. Weights of the model's own head may be absent if the checkpoint is not one of a model that has them;
    all others must be there.

    Args:
        config: of the model; the checkpoint's own, or a variation of it.
        head: key of `gptzoo.heads.HEADS`.
        ignore_mismatched_sizes: whether weights of another shape, of a head or not, get initial values.

    Raises:
        CheckpointError: lists every missing, unexpected, repeated and misshapen tensor.
    """
    subject = f"{checkpoint.path} does not fit {class_name(config, head)}"
    if config.model_type != checkpoint.config.model_type:
        found = f"{checkpoint.config.model_type}, expected {config.model_type}"
        raise CheckpointError(f"{subject}: {CONFIG_FILE}: model_type: {found}")
    match = Match(checkpoint, config, head, ignore_mismatched_sizes)
    if problems := match.problems():
        raise CheckpointError.listing(subject, problems)
    return LoadPlan(checkpoint, match.specs, match.stored, match.report)


class Match:
    """Weights of a model on one side, tensors of a checkpoint on the other.

    Attributes:
        stored: canonical name -> name in the checkpoint.
        unexpected: tensors that no model with this config has.
        missing: weights that should be in the checkpoint.
        faults: what is wrong with the tensors that were found.
    """

    def __init__(self, checkpoint: Checkpoint, config: GPTConfig, head: str, ignore_mismatched_sizes: bool = False):
        self.checkpoint, self.config = checkpoint, config
        self.ignores_sizes = ignore_mismatched_sizes
        self.specs = weights.specs(config, head)
        self.stored: dict[str, str] = {}
        self.report = LoadReport()
        self.unexpected: list[str] = []
        self.missing: list[str] = []
        self.faults: list[str] = []
        self._match_tensors({name for name, heads in _head_weights(config).items() if head not in heads})
        self._match_weights()

    def _match_tensors(self, other_heads: set[str]) -> None:
        canonical = self._canonical_names()
        for name, info in self.checkpoint.tensors.items():
            spec = canonical.get(name.removeprefix(weights.PREFIX))
            if spec and (spec.in_backbone or spec.name == name):
                self._match_tensor(name, info, spec)
            elif weights.is_buffer(name) or name in other_heads:
                self.report.ignored.append(name)
            else:
                self.unexpected.append(name)

    def _canonical_names(self) -> dict[str, weights.Spec]:
        """Returns the weight that each name, without a prefix, stands for.

        Transformers 5 stores GPT's double heads with a tied head, and without the embedding that it is tied to.
        """
        names = {spec.backbone_name: spec for spec in self.specs.values()}
        if not (self.config.tie_word_embeddings and self.checkpoint.config.tie_word_embeddings):
            return names
        for row in weights.TABLE:
            if row.tied in names and not {row.tied, weights.PREFIX + row.tied} & set(self.checkpoint.tensors):
                names[row.name] = names[row.tied]
        return names

    def _match_tensor(self, name: str, info: TensorInfo, spec: weights.Spec) -> None:
        where = self.checkpoint.where(name)
        if spec.name in self.stored:
            self.faults.append(f"{where}: stored twice, also as {self.stored[spec.name]}")
            return
        self.stored[spec.name] = name
        if info.dtype not in DTYPES:
            self.faults.append(f"{where}: dtype {info.dtype}, expected one of {', '.join(DTYPES)}")
        if info.shape != spec.shape and self.ignores_sizes:
            self.report.mismatched[spec.name] = (info.shape, spec.shape)
        elif info.shape != spec.shape:
            hint = ", looks transposed" if info.shape[::-1] == spec.shape else ""
            self.faults.append(f"{where}: shape {info.shape}, expected {spec.shape} ({spec.row.shape}){hint}")

    def _match_weights(self) -> None:
        claimed = set(claimed_heads(self.checkpoint))
        for name in self.report.mismatched:
            del self.stored[name]
        for name, spec in self.specs.items():
            if spec.tied:
                self.report.tied.append(name)
            elif name in self.stored:
                self.report.loaded.append(name)
            elif name in self.report.mismatched or (spec.row.heads and claimed.isdisjoint(spec.row.heads)):
                self.report.fresh.append(name)
            else:
                self.missing.append(name)

    def problems(self) -> list[str]:
        """Lists everything that does not fit; blocks that are missing or unexpected as a whole are one problem."""
        tensors, n_layer = self.checkpoint.tensors, self.config.n_layer
        held = {block for name in tensors if (block := _block(name)) is not None and not weights.is_buffer(name)}
        absent, extra = set(range(n_layer)) - held, held - set(range(n_layer))
        problems = [f"n_layer: {n_layer}, but missing all of block {_ranges(absent)}"] if held and absent else []
        problems += [f"n_layer: {n_layer}, but there are tensors of block {_ranges(extra)}"] if extra else []
        whole = absent | extra if held else set()
        for name in self.unexpected:
            if _block(name) not in whole:
                problems.append(f"{tensors[name].file}: unexpected {shown(name)}{_reason(name, self.config)}")
        file = next(iter(self.checkpoint.files)) if len(self.checkpoint.files) == 1 else "all shards"
        problems += [f"{file}: missing {name}" for name in self.missing if _block(name) not in whole]
        return problems + self.faults


def _head_weights(config: GPTConfig) -> dict[str, tuple[str, ...]]:
    """Returns the weights that are not of the backbone, and the heads that have each."""
    rows = (row for row in weights.TABLE if row.family in (None, config.model_type))
    return {row.name: row.heads for row in rows if row.heads}


def claimed_heads(checkpoint: Checkpoint) -> list[str]:
    """Returns the heads that a checkpoint has by its `architectures`, then those by weights that only one head has."""
    claimed = []
    for name in checkpoint.config.architectures or ():
        with suppress(KeyError):
            claimed.append(parse_class_name(name)[1])
    for name, heads in _head_weights(checkpoint.config).items():
        if name in checkpoint.tensors and len(heads) == 1:
            claimed.append(heads[0])
    return claimed


def _block(name: str) -> int | None:
    match = _BLOCK.match(name.removeprefix(weights.PREFIX))
    return int(match[1]) if match else None


def _ranges(numbers: set[int]) -> str:
    first, last = min(numbers), max(numbers)
    whole = last - first + 1 == len(numbers) > 1
    return f"{first} to {last}" if whole else shown(", ".join(map(str, sorted(numbers))))


def _reason(name: str, config: GPTConfig) -> str:
    """Says why the table's row of this name is not one of the model's, if it has such a row."""
    bare = _BLOCK.sub("h.{i}.", name.removeprefix(weights.PREFIX), count=1)
    for row in weights.TABLE:
        if row.name == bare and row.family not in (None, config.model_type):
            return f" (a weight of {row.family})"
        if row.name == bare and row.when and not getattr(config, row.when):
            return f" ({row.when} is false)"
    return ""


def common_dtype(dtypes: Iterable[str]) -> str:
    """Returns the narrowest dtype that holds all of these exactly; that of float16 and bfloat16 is float32."""
    found = set(dtypes)
    if len(found) == 1:
        return found.pop()
    return "float64" if "float64" in found else "float32"
