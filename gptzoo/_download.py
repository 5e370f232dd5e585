"""Models on the Hugging Face hub: what of them is wanted, brought into huggingface_hub's cache and checked there."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from gptzoo import limits
from gptzoo._files import naming, open_regular, write_file
from gptzoo._json import read_json_object
from gptzoo._settings import short
from gptzoo._shards import read_index
from gptzoo._vocabulary import FILES, GENERATION_FILE, KERASHUB, OPENAI_GPT2
from gptzoo.config import CONFIG_FILE, config_class
from gptzoo.errors import CheckpointError, ConfigError, MissingExtraError
from gptzoo.hub import BUNDLED, HubOptions, Kind, absence

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# One set of weights is downloaded: the first that there is, whole or in shards. Of KerasHub's, whole only.
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.weights.h5", "tf_model.h5", "flax_model.msgpack")

TOKENIZER_FILES = tuple(name for name in (*FILES, *OPENAI_GPT2.values()) if name != GENERATION_FILE)
MODEL_FILES = (GENERATION_FILE, *KERASHUB.values())  # whose vocabulary says how its model ends a text

NO_HUB = "what answers is no hub, but perhaps a proxy with a web page"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LOG = logging.getLogger(__name__)


def download(name: str, kind: Kind, options: HubOptions) -> Path:
    """Returns the directory of a model in the cache, with what is wanted of it.

    Args:
        name: as the hub has it.

    Raises:
        CheckpointError: there is no such model or file, the hub cannot be asked, or what it sent is damaged.
        ConfigError: the model is of another family than GPT and GPT-2; nothing else of it was downloaded.
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import constants
    except ImportError:
        needed = "models on the hub need huggingface_hub: pip install huggingface_hub"
        raise MissingExtraError(f"{_nowhere(name)}; {needed}") from None
    cache = os.path.abspath(os.path.expanduser(options.cache_dir or constants.HF_HUB_CACHE))
    storage = Path(cache, f"models--{name.replace('/', '--')}")
    if options.local_files_only or constants.HF_HUB_OFFLINE:
        reason = "local_files_only=True" if options.local_files_only else "HF_HUB_OFFLINE is set"
        snapshot = _cached(name, options, storage, f"nothing was downloaded: {reason}")
    else:
        snapshot = _listed(name, kind, options, storage)
    _collect(snapshot, kind)
    snapshot.keep_ref()
    return snapshot.directory


@dataclass(frozen=True)
class Snapshot:
    """The files of a model at one commit, in the layout of huggingface_hub's cache.

    Attributes:
        name: of the model.
        storage: the model's directory in the cache.
        commit: of its repository.
        where: the place where files are looked for, in words.
        files: those of the repository -> their hash as the hub says it; None: those in the cache.
        api: downloads; None: nothing is downloaded.
    """

    name: str
    options: HubOptions
    storage: Path
    commit: str
    where: str
    files: Mapping[str, str | None] | None = None
    api: HfApi | None = None

    @property
    def directory(self) -> Path:
        return self.storage / "snapshots" / self.commit / (self.options.subfolder or "")

    def has(self, file: str) -> bool:
        """Whether there is a file, by its name below the subfolder."""
        return (self.directory / file).is_file() if self.files is None else self.full_name(file) in self.files

    def get(self, file: str) -> Path:
        """Returns a file that was downloaded and found right, now or before.

        A file is marked before its download, until it was found right: if the process dies in between, the next one
        looks at it again.

        Raises:
            CheckpointError: it is not there, or not what the hub says.
        """
        if not self.has(file):
            raise CheckpointError(f"{self.name}: no {self.full_name(file)} {self.where}")
        place = self.directory / file
        mark = self.storage / f".unchecked-{self.commit}-{self.full_name(file).replace('/', '--')}"
        if self.files is not None and (self.options.force_download or not place.exists()):
            if wanted := self.files[self.full_name(file)]:
                self.mark(mark, wanted)
            self.download(file)
        with suppress(FileNotFoundError):  # the usual case; or another process was faster
            self.check(place, mark.read_text(), mark)
        return place

    def mark(self, mark: Path, wanted: str) -> None:
        try:
            write_file(mark, wanted.encode())
        except CheckpointError as problem:  # the first that is written into a cache
            reason = str(problem).rpartition(": ")[2]
            raise CheckpointError(f"{self.name}: the cache {self.storage.parent}: {reason}") from None

    def download(self, file: str) -> None:
        """Brings a file into the cache; huggingface_hub does, and goes on where a connection was cut."""
        assert self.api
        name, cache, again = self.full_name(file), self.storage.parent, self.options.force_download
        try:
            self.api.hf_hub_download(self.name, name, revision=self.commit, cache_dir=cache, force_download=again)
        except Exception as problem:  # of several libraries: which, depends on the version of huggingface_hub
            raise CheckpointError(f"{self.name}: {name}: {_reason(problem, self.name)}") from None

    def check(self, place: Path, wanted: str, mark: Path) -> None:
        """Compares a file with its hash; one that is wrong is removed from the cache."""
        found = _hash(place, len(wanted))
        if found != wanted:
            for path in (Path(os.path.realpath(place)), place):  # the content, and the link to it
                path.unlink(missing_ok=True)
        mark.unlink(missing_ok=True)
        if found != wanted:
            wrong = f"hash {found}, expected {wanted}; it was removed from the cache"
            raise CheckpointError(f"{self.name}: {place.name}: {wrong}: try again")

    def keep_ref(self) -> None:
        """Notes which commit a branch or tag is, for when the hub cannot be asked."""
        ref = self.storage / "refs" / (self.options.revision or "main")
        if self.options.revision != self.commit and _commit(ref) != self.commit:
            with suppress(CheckpointError):  # a cache that is only read
                write_file(ref, self.commit.encode())

    def full_name(self, file: str) -> str:
        """Returns the name of a file in the repository."""
        return f"{self.options.subfolder.strip('/')}/{file}" if self.options.subfolder else file


def _listed(name: str, kind: Kind, options: HubOptions, storage: Path) -> Snapshot:
    """Asks the hub for the files of a model; if it does not answer, those in the cache have to do.

    Raises:
        CheckpointError: says why it does not answer.
    """
    from huggingface_hub import errors

    try:
        return _ask(name, options, storage)
    except Exception as problem:  # of several libraries: which, depends on the version of huggingface_hub
        reason = _why_not_listed(problem, name, options)
        is_known = isinstance(problem, errors.RevisionNotFoundError | errors.GatedRepoError)
        is_final = isinstance(problem, errors.RevisionNotFoundError | errors.LocalTokenNotFoundError)
    refusal = CheckpointError(f"{name}: {reason}" if is_known else f"{_nowhere(name)}, and {reason}")
    if is_final or options.force_download:
        raise refusal
    try:
        snapshot = _cached(name, options, storage, "")
        _collect(snapshot, kind)
    except CheckpointError:
        raise refusal from None
    _LOG.warning("%s: %s; the files in the cache are read", name, reason)
    return snapshot


def _ask(name: str, options: HubOptions, storage: Path) -> Snapshot:
    from huggingface_hub import HfApi, constants

    from gptzoo import __version__

    api = HfApi(token=options.token, library_name="gptzoo", library_version=__version__)
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    info = api.model_info(name, revision=options.revision, files_metadata=True, timeout=timeout)
    if not _COMMIT.fullmatch(str(info.sha)):
        raise ValueError("no commit")
    files = {file.rfilename: file.lfs["sha256"] if file.lfs else file.blob_id for file in info.siblings or ()}
    return Snapshot(name, options, storage, str(info.sha), f"at {constants.ENDPOINT}", files, api)


def _cached(name: str, options: HubOptions, storage: Path, why: str) -> Snapshot:
    """Returns what the cache has of a model.

    Raises:
        CheckpointError: nothing, and why that is not downloaded.
    """
    revision = options.revision or "main"
    commit = revision if _COMMIT.fullmatch(revision) else _commit(storage / "refs" / revision)
    where = f"in the cache {storage.parent} ({why})"
    if not storage.is_dir():
        raise CheckpointError(f"{_nowhere(name)}, and not {where}")
    if not commit or not (storage / "snapshots" / commit).is_dir():
        raise CheckpointError(f"{name}: no revision {short(revision)} {where}")
    return Snapshot(name, options, storage, commit, where)


def _collect(snapshot: Snapshot, kind: Kind) -> None:
    """Gets every file that is wanted, the config first."""
    if kind == "config" or snapshot.has(CONFIG_FILE):
        config = snapshot.get(CONFIG_FILE)
        if kind in ("model", "whole"):
            _require_family(config)
    if kind == "generation" and (snapshot.has(GENERATION_FILE) or not snapshot.has(CONFIG_FILE)):
        snapshot.get(GENERATION_FILE)
    if kind in ("tokenizer", "whole"):
        found = [snapshot.get(file) for file in TOKENIZER_FILES if snapshot.has(file)]
        if kind == "tokenizer" and not found:
            looked = f"looked for {', '.join(TOKENIZER_FILES)}"
            raise CheckpointError(f"{snapshot.name}: no tokenizer {snapshot.where}; {looked}")
    if kind in ("model", "whole"):
        for file in filter(snapshot.has, MODEL_FILES):
            snapshot.get(file)
        _collect_weights(snapshot)


def _collect_weights(snapshot: Snapshot) -> None:
    for file in WEIGHTS:
        index = f"{file}.index.json"
        if snapshot.has(file):
            snapshot.get(file)
            return
        if snapshot.has(index):
            for shard in sorted(read_index(snapshot.get(index))):
                snapshot.get(shard)
            return
    looked = f"looked for {', '.join(WEIGHTS)}, and at the index of each"
    raise CheckpointError(f"{snapshot.name}: no {snapshot.full_name('')}weights {snapshot.where}; {looked}")


def _require_family(file: Path) -> None:
    """Checks what a config is of, if it says so: the weights of others need not be downloaded."""
    family = read_json_object(file, ConfigError, limits.MAX_CONFIG_BYTES).get("model_type")
    try:
        if family is not None:
            config_class(family)
    except ConfigError as problem:
        raise ConfigError(f"{file}: {problem}") from None


def _commit(ref: Path) -> str | None:
    """Returns the commit that a branch or tag was when it was last downloaded."""
    try:
        text = ref.read_text().strip()
    except (OSError, ValueError):
        return None
    return text if _COMMIT.fullmatch(text) else None


def _hash(path: Path, length: int) -> str:
    """Returns the hash that the hub says: SHA-256 of a large file, Git's of others."""
    with naming(path), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        return hashlib.file_digest(file, hashlib.sha256 if length == 64 else lambda: git).hexdigest()


def _nowhere(name: str) -> str:
    return f"{absence(name)}, no bundled model ({', '.join(BUNDLED)})"


def _why_not_listed(problem: Exception, name: str, options: HubOptions) -> str:
    """Says in a line why the hub did not tell the files of a model."""
    from huggingface_hub import constants, errors

    if isinstance(problem, errors.RevisionNotFoundError):
        return f"no revision {short(options.revision)} at {constants.ENDPOINT}"
    if isinstance(problem, errors.GatedRepoError):
        return _reason(problem, name)
    if isinstance(problem, errors.RepositoryNotFoundError):
        unless = "unless it is a private one, which needs a token (token=, or: hf auth login)"
        return f"no model of this name at {constants.ENDPOINT}, {unless}"
    if isinstance(problem, UnicodeError):  # of a request's headers; it is a ValueError too
        reason = "the token that is stored here is none: hf auth login"
    elif isinstance(problem, ValueError | TypeError | KeyError | AttributeError):  # of the listing's content
        reason = NO_HUB
    else:
        reason = _reason(problem, name)
    return f"{constants.ENDPOINT} cannot be asked for a model of this name ({reason})"


def _reason(problem: BaseException, name: str) -> str:
    """Says in a line why a request failed; never what was sent in it."""
    from huggingface_hub import constants, errors

    response = getattr(problem, "response", None)
    if response is None and problem.__cause__:  # the message is about what else was tried
        problem = problem.__cause__
        response = getattr(problem, "response", None)
    if isinstance(problem, errors.GatedRepoError):
        place = f"{constants.ENDPOINT}/{name}"
        return f"access is restricted: ask for it at {place}, and give a token (token=, or: hf auth login)"
    if isinstance(problem, errors.LocalTokenNotFoundError):
        return "token=True, but none is stored here: hf auth login"
    if response is not None:
        hint = ": check the token" if response.status_code in (401, 403) else ""
        return f"{_status(response.status_code)}{hint}"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    if isinstance(problem, errors.FileMetadataError):
        return NO_HUB
    first = next(iter(str(problem).splitlines()), "")
    return type(problem).__name__ if "Bearer" in first else f"{type(problem).__name__}: {short(first)}"


def _status(code: int) -> str:
    return f"{code} {HTTPStatus(code).phrase}" if code in set(HTTPStatus) else str(code)
