"""From a name or path to a local path: one that is there, a bundled model, or a model on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from gptzoo._settings import short
from gptzoo.errors import CheckpointError, InputError

# Models that ship with the package -> their folder in it.
BUNDLED = {"gptzoo/shakespeare": "shakespeare"}
DEFAULT_MODEL = "gptzoo/shakespeare"

# What is wanted of a model: config.json; that and the options of generate, the tokenizer, or the weights; all of these.
Kind = Literal["config", "generation", "tokenizer", "model", "whole"]

# Arguments of older libraries that change nothing here: a cut download is always resumed, and nobody has mirrors now.
OBSOLETE = ("resume_download", "mirror", "_commit_hash")

_PART = r"\w(?:[\w.-]{0,94}\w)?"
_HUB_ID = re.compile(rf"(?!.*(?:--|\.\.))(?:{_PART}/)?{_PART}", re.ASCII)
_FILE_NAME = re.compile(r".*\.(bin|ckpt|gguf|git|h5|index|json|keras|msgpack|npy|npz|pt|pth|safetensors|txt|zip)", re.I)
_REVISION = re.compile(r"(?!/)(?!.*(?:\.\.|//|/$))[^\s\x00-\x1f\\~^:?*\[]+")
_SUBFOLDER = re.compile(r"(?!/)(?!.*(?:^|/)\.\.(?:/|$))[^\x00-\x1f\\:]*")
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class HubOptions:
    """Arguments of every `from_pretrained` that say which files a name stands for, and where they are kept.

    Attributes:
        revision: branch, tag or commit; None: the main branch.
        cache_dir: where files are kept; None: the cache of all software that uses huggingface_hub.
        token: a text; True: the one stored at login; False: none; None: the stored one if there is one.
        local_files_only: whether nothing is asked from the network.
        force_download: whether files are downloaded that are in the cache already.
        subfolder: of the repository, or of a local directory.

    Raises:
        InputError: lists every one of the wrong type or form; a token is never shown.
    """

    revision: str | None = None
    cache_dir: str | PathLike[str] | None = None
    token: str | bool | None = field(default=None, repr=False)
    local_files_only: bool = False
    force_download: bool = False
    subfolder: str | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {short(value)}, expected {wanted}"
            for name, value, pattern, wanted in (
                ("revision", self.revision, _REVISION, "a branch, tag or commit"),
                ("subfolder", self.subfolder, _SUBFOLDER, "a folder below the model's own, as in a/b"),
            )
            if value is not None and not (isinstance(value, str) and pattern.fullmatch(value))
        ]
        if not isinstance(self.cache_dir, str | PathLike | None) or self.cache_dir == "":
            problems.append(f"cache_dir: {short(self.cache_dir)}, expected the path of a directory")
        if not isinstance(self.token, bool | None) and not (
            isinstance(self.token, str) and _TOKEN.fullmatch(self.token)
        ):
            problems.append("token: not a token's text, expected one, True, False or None")
        for name in ("local_files_only", "force_download"):
            if not isinstance(getattr(self, name), bool):
                problems.append(f"{name}: {short(getattr(self, name))}, expected True or False")
        if self.local_files_only is True and self.force_download is True:
            problems.append("force_download: True, expected False beside local_files_only=True")
        if problems:
            raise InputError.listing("from_pretrained", problems)


def take_options(arguments: Mapping[str, Any]) -> tuple[HubOptions, dict[str, Any]]:
    """Splits the arguments of a `from_pretrained` into those of the hub, and the others.

    Names of older libraries are among the former: `use_auth_token`, and those without effect.

    Raises:
        InputError: lists those that have a wrong value.
    """
    rest = {name: value for name, value in arguments.items() if name not in OBSOLETE}
    if rest.pop("proxies", None):
        raise InputError("proxies: not None, expected the environment's: HTTPS_PROXY is what is used")
    if "use_auth_token" in rest:  # the older name of `token`
        rest.setdefault("token", rest.pop("use_auth_token"))
    given = {entry.name: rest.pop(entry.name) for entry in fields(HubOptions) if entry.name in rest}
    return HubOptions(**given), rest


def resolve(name_or_path: str | PathLike[str], kind: Kind = "model", options: HubOptions | None = None) -> Path:
    """Returns the local path of a checkpoint; what is not there yet is downloaded.

    A path that is there wins over the name of a bundled model, and that over a name on the hub.

    Args:
        name_or_path: a directory, a file, or a model's name, such as "gptzoo/shakespeare" or "openai-community/gpt2".
        kind: what is wanted of it; of a path all is there.
        options: which files the name stands for, and where they are kept; None: the defaults.

    Raises:
        CheckpointError: it is no path and no model's name, or the model could not be downloaded.
        ConfigError: the model is of another family than GPT and GPT-2; nothing else of it was downloaded.
        MissingExtraError: it is a name on the hub, and huggingface_hub is not installed.
    """
    options = options or HubOptions()
    if not isinstance(name_or_path, str | PathLike) or not str(name_or_path):
        raise CheckpointError(f"checkpoint: {name_or_path!r:.200}, expected a path or a model's name")
    name = str(name_or_path)
    try:
        path = Path(os.path.expanduser(name))  # Path's own takes ./~name for a user's home
        is_there, is_free = path.exists(), not os.path.lexists(path)  # a link may lead nowhere
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{name!r}: not a usable path ({problem})") from None
    if is_there:
        return _inside(path, options)
    if name in BUNDLED:
        return _inside(Path(__file__).parent / "_bundled" / BUNDLED[name], options)
    if isinstance(name_or_path, str) and is_free and is_hub_id(name):
        from gptzoo._download import download  # what it needs is not imported for a path

        return download(name, kind, options)
    raise CheckpointError(f"{absence(name)}, and no bundled model ({', '.join(BUNDLED)})")


def is_hub_id(name: str) -> bool:
    """Whether a text can be a model's name on the hub, and is not rather that of a file."""
    return bool(_HUB_ID.fullmatch(name)) and not _FILE_NAME.fullmatch(name)


def absence(name: str) -> str:
    """Returns how a message begins about something that may be a mistyped path."""
    return f"{name!r:.200}: no such file or directory"


def _inside(path: Path, options: HubOptions) -> Path:
    """Returns a local path, or the subfolder of it that is meant."""
    if options.revision not in (None, "main"):  # believed to be read, it would be another model
        raise CheckpointError(f"{path}: a local path, which has no revision {short(options.revision)}")
    if not options.subfolder:
        return path
    if not (path / options.subfolder).is_dir():
        raise CheckpointError(f"{path}: no folder {short(options.subfolder)} in it (subfolder)")
    return path / options.subfolder
