"""What a checkpoint holds, which models can load it, and what is wrong with it: told from its headers alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gptzoo._load import LoadReport, Match, claimed_heads
from gptzoo.checkpoint import Checkpoint, open_checkpoint
from gptzoo.heads import HEADS, class_name
from gptzoo.weights import parameter_count

_SUMMARY = ("n_layer", "n_head", "n_embd", "n_mlp", "n_positions", "vocab_size", "activation", "tie_word_embeddings")


@dataclass(frozen=True)
class Description:
    """What was found in a checkpoint.

    Attributes:
        path: the directory.
        config: the fields that say most, by name.
        architecture: class of the model that the checkpoint is of, as far as it tells.
        parameters: trainable numbers of that model; a tied weight counts once.
        format: of the files, as `gptzoo convert` names it.
        files: name -> bytes.
        dtypes: dtype -> number of tensors stored in it.
        heads: heads whose weights are all there.
        loads: class name -> what it would find; classes that cannot load the checkpoint are not in it.
        problems: why `architecture` cannot load it; empty if it can.
    """

    path: str
    model_type: str
    config: dict[str, Any]
    architecture: str
    parameters: int
    format: str
    files: dict[str, int]
    dtypes: dict[str, int]
    heads: list[str] = field(default_factory=list)
    loads: dict[str, LoadReport] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Returns the same as plain dicts, lists, texts and numbers."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [
            ("checkpoint", self.path),
            ("model", f"{self.architecture} ({self.model_type}), {self.parameters:,} parameters"),
            ("config", ", ".join(f"{name} {value}" for name, value in self.config.items())),
            ("tensors", ", ".join(f"{count} {dtype}" for dtype, count in self.dtypes.items())),
            ("files", f"{_several(list(self.files))} ({self.format}, {sum(self.files.values()):,} bytes)"),
            ("heads held", ", ".join(self.heads) or "none"),
        ]
        rows += [(name, str(report)) for name, report in self.loads.items()]
        rows += [("problem", problem) for problem in self.problems]
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} from {names[0]} to {names[-1]}"


def describe(path: str | Path) -> Description:
    """Describes a checkpoint, or a model by its name.

    Raises:
        CheckpointError: it cannot be read at all; weights that do not fit are told as `problems` instead.
        ConfigError: its config.json is absent or wrong.
    """
    checkpoint = open_checkpoint(path)
    config = checkpoint.config
    head = own_head(checkpoint)
    loads, problems = _try_heads(checkpoint, head)
    held = [name for name in HEADS if (report := loads.get(class_name(config, name))) and not report.fresh]
    return Description(
        path=str(checkpoint.path),
        model_type=config.model_type,
        config={name: getattr(config, name) for name in _SUMMARY},
        architecture=class_name(config, head),
        parameters=parameter_count(config, head),
        format=checkpoint.format,
        files={name: file.nbytes for name, file in checkpoint.files.items()},
        dtypes=dict(Counter(info.dtype for info in checkpoint.tensors.values()).most_common()),
        heads=held,
        loads=loads,
        problems=problems,
    )


def own_head(checkpoint: Checkpoint) -> str:
    """Returns the head that a checkpoint was saved from, as far as it tells."""
    claimed = claimed_heads(checkpoint)
    if "lm_head.weight" in checkpoint.tensors:
        claimed.append("LMHeadModel")
    return claimed[0] if claimed else "Model"


def _try_heads(checkpoint: Checkpoint, own: str) -> tuple[dict[str, LoadReport], list[str]]:
    """Returns what the class of each head would load, and why the checkpoint's own class could not."""
    matches = {head: Match(checkpoint, checkpoint.config, head) for head in HEADS}
    problems = {head: match.problems() for head, match in matches.items()}
    loads = {class_name(checkpoint.config, head): match.report for head, match in matches.items() if not problems[head]}
    return loads, problems[own]
