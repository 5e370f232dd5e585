"""A tokenizer's files: whichever a directory has, read strictly into one form; and written for all who read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from gptzoo import limits
from gptzoo._files import naming, require_possible, save_files, write_synced
from gptzoo._json import read_json_object
from gptzoo._settings import is_int, short
from gptzoo._shards import PLAIN_NAME
from gptzoo._tensors import shown
from gptzoo._vocabulary import (
    ADDED,
    CONFIG,
    KERASHUB,
    MERGES,
    OPENAI_GPT,
    OPENAI_GPT2,
    SPECIAL,
    TOKENIZER,
    VOCAB,
    file_faults,
    id_faults,
    is_text,
    merge_faults,
    merge_pairs,
    merge_text,
    read_file,
    read_vocabulary,
)
from gptzoo.config import CONFIG_FILE
from gptzoo.errors import CheckpointError, GPTZooError, InputError

WRITTEN = (VOCAB, MERGES, TOKENIZER, CONFIG, SPECIAL, ADDED)

# Where the two files of a byte pair encoding lie, by who wrote them: Transformers, OpenAI (GPT-2, GPT), KerasHub.
PLACES = ({VOCAB: VOCAB, MERGES: MERGES}, OPENAI_GPT2, OPENAI_GPT, KERASHUB)

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass
class Stored:
    """What the files of a tokenizer say.

    Attributes:
        place: the directory, for errors.
        vocab: token -> id, without holes.
        merges: pairs of tokens, the first being merged first.
        added: id -> token, of those that are kept whole.
        settings: of tokenizer_config.json and special_tokens_map.json.
        model: of tokenizer.json, all of it; empty if there is none.
        config: of the config.json beside; empty if there is none that can be read.
    """

    place: str
    vocab: dict[str, int]
    merges: list[tuple[str, str]]
    added: dict[int, AddedToken] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def read_tokenizer(directory: Path) -> Stored:
    """Reads a tokenizer of either family.

    Args:
        directory: with vocab.json and merges.txt, the same under the names that OpenAI or KerasHub gave them, or
            tokenizer.json; and with settings beside.

    Raises:
        CheckpointError: a file is missing, or lists every wrong entry.
    """
    names = next((names for names in PLACES if all((directory / name).exists() for name in names.values())), PLACES[0])
    # KerasHub's tokenizer.json is another thing; elsewhere that file has the other two in it.
    beside = [TOKENIZER] if (directory / TOKENIZER).exists() else [VOCAB, MERGES]
    wanted = [VOCAB, MERGES] if names is KERASHUB else [*beside, CONFIG, SPECIAL, ADDED]
    files = read_vocabulary(directory, wanted, names, {})
    if TOKENIZER not in files and not {VOCAB, MERGES} <= files.keys():
        absent = [name for name in (VOCAB, MERGES) if name not in files]
        raise CheckpointError(f"{directory}: no {' and no '.join(absent)}, and no {TOKENIZER} in their place")
    parsed = {name: json.loads(content) for name, content in files.items() if name != MERGES}
    model = parsed.get(TOKENIZER, {})
    settings = parsed.get(SPECIAL, {}) | parsed.get(CONFIG, {})
    if model:
        vocab, merges = _of_model(model)
    else:
        vocab, merges = parsed[VOCAB], merge_pairs(files[MERGES].decode())
    added = _added(directory, model, settings, parsed.get(ADDED, {}))
    stored = Stored(str(directory), vocab, merges, added, settings, model, _config(directory))
    _fill_holes(stored)
    settings.setdefault("model_max_length", _positions(stored.config))
    return stored


def read_tokenizer_file(path: Any) -> Stored:
    """Reads a tokenizer.json by itself.

    Raises:
        CheckpointError: it cannot be read, or lists every wrong entry.
    """
    file = _path("tokenizer_file", path)
    content = read_file(file)
    if problems := file_faults(str(file), TOKENIZER, content):
        raise CheckpointError.listing("tokenizer", problems)
    model = json.loads(content)
    stored = Stored(str(file), *_of_model(model), _added(file, model, {}, {}), {}, model)
    _fill_holes(stored)
    return stored


def read_pair(vocab: Any, merges: Any) -> Stored:
    """Reads a vocabulary and its merges, each from a file, or given as they are.

    Args:
        vocab: path of vocab.json, or token -> id.
        merges: path of merges.txt, or a list of pairs, each a tuple or a text with a space.

    Raises:
        CheckpointError: a file cannot be read; or lists every wrong entry.
    """
    ids: Any = vocab
    if not isinstance(vocab, Mapping):
        content = read_file(_path("vocab_file", vocab))
        problems = file_faults(str(vocab), VOCAB, content)
        ids = {} if problems else json.loads(content)
    else:
        problems = [f"vocab: {problem}" for problem in id_faults(vocab)]
    if isinstance(merges, list | tuple):
        text = merge_text(merges)
        label = "merges"
    else:
        text, label = read_file(_path("merges_file", merges)), str(merges)
    problems = problems or file_faults(label, MERGES, text) or merge_faults(label, text, ids)
    if problems:
        raise CheckpointError.listing("tokenizer", problems)
    stored = Stored("vocabulary" if isinstance(vocab, Mapping) else str(vocab), dict(ids), merge_pairs(text.decode()))
    _fill_holes(stored)
    return stored


def _of_model(model: Mapping[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Returns vocabulary and merges of a tokenizer.json, in which older ones have merges as texts."""
    vocab, merges = model["model"]["vocab"], model["model"]["merges"]
    return dict(vocab), [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in merges]


def write_tokenizer(save_directory: str | Path, prefix: str, contents: dict[str, bytes]) -> tuple[str, ...]:
    """Writes a tokenizer's files, all or none, and removes those of an earlier one; returns their paths.

    Raises:
        InputError: the prefix is none of a file's name.
        CheckpointError: it is no path, or something could not be written.
    """
    directory = _path("save_directory", save_directory)
    if not isinstance(prefix, str) or not PLAIN_NAME.fullmatch(prefix or "x"):
        raise InputError(f"filename_prefix: {short(prefix)}, expected the beginning of a file's name")
    start = f"{prefix}-" if prefix else ""
    ours = re.compile("|".join(re.escape(start + name) for name in WRITTEN))

    def write(stage: Path) -> None:
        for name, content in contents.items():
            write_synced(stage / f"{start}{name}", partial(_put, content=content))

    save_files(directory, write, ours, last=start + next(reversed(contents)))
    return tuple(str(directory / f"{start}{name}") for name in contents)


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def added_token(content: Any, flags: Mapping[str, Any]) -> AddedToken:
    """Returns a token as JSON files describe it."""
    return AddedToken(content, **{name: bool(flags[name]) for name in FLAGS if name in flags})


def _put(file: Any, content: bytes) -> None:
    file.write(content)


def _path(name: str, value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise CheckpointError(f"{name}: {shown(value)}, expected a path")
    require_possible(Path(value))
    return Path(value)


def _added(directory: Path, model: Any, settings: Mapping[str, Any], plain: Mapping[str, int]) -> dict[int, AddedToken]:
    """Returns added tokens by ids: as tokenizer.json has them, or else the settings, or else added_tokens.json."""
    described = settings.get("added_tokens_decoder")
    if model:
        file = directory if directory.name == TOKENIZER else directory / TOKENIZER
        found = [(token["id"], added_token(token["content"], token)) for token in model.get("added_tokens") or ()]
    elif described is None:
        file = directory / ADDED
        found = [(number, AddedToken(token, normalized=False)) for token, number in plain.items()]
    elif isinstance(described, dict):
        file = directory / CONFIG
        found = [*_described(file, described)]
    else:
        raise CheckpointError(f"{directory / CONFIG}: added_tokens_decoder: {shown(described)}, expected an object")
    return _without_doubles(file, found)


def _without_doubles(file: Path, found: list[tuple[int, AddedToken]]) -> dict[int, AddedToken]:
    """Returns added tokens by ids.

    Raises:
        CheckpointError: two have one id, or one has two.
    """
    tokens: dict[int, AddedToken] = {}
    ids: dict[str, int] = {}
    for number, token in found:
        name = shown(token.content)
        if number in tokens and tokens[number].content != token.content:
            raise CheckpointError(f"{file}: added token {name}: id {number}, which {shown(tokens[number].content)} has")
        if ids.setdefault(token.content, number) != number:
            raise CheckpointError(f"{file}: added token {name}: id {number}, and id {ids[token.content]} too")
        tokens[number] = token
    return tokens


def _described(path: Path, entries: Mapping[str, Any]) -> Iterator[tuple[int, AddedToken]]:
    for key, entry in entries.items():
        content = entry.get("content") if isinstance(entry, dict) else None
        if not (key.isascii() and key.isdecimal() and len(key) < 10 and content and is_text(content)):
            raise CheckpointError(
                f"{path}: added_tokens_decoder: {shown(key)}: {shown(entry)}, expected a token's id and content"
            )
        yield int(key), added_token(content, entry)


def _fill_holes(stored: Stored) -> None:
    """Takes added tokens for the ids that the vocabulary lacks; requires that no id is left out then.

    Raises:
        CheckpointError: names the ids that are missing; or an added token that the vocabulary has under another id.
    """
    for number, token in stored.added.items():
        other = stored.vocab.get(token.content)
        if other is not None and other != number:
            raise CheckpointError(
                f"{stored.place}: added token {shown(token.content)}: id {number}, in the vocabulary {other}"
            )
    taken = set(stored.vocab.values())
    if twice := [n for n, token in stored.added.items() if n in taken and token.content not in stored.vocab]:
        what = shown(stored.added[twice[0]].content)
        raise CheckpointError(f"{stored.place}: added token {what}: id {twice[0]}, which a token of the vocabulary has")
    last = max(taken, default=-1)
    stored.vocab |= {token.content: n for n, token in stored.added.items() if n < last and n not in taken}
    present = taken | stored.added.keys()
    holes = [n for n in range(min(max(present, default=-1), 2 * len(present) + 10)) if n not in present]
    if holes or (present and max(present) >= len(present)) or not present:
        what = f"no token has the id {', '.join(map(str, holes[:5]))}" if present else "no token"
        raise CheckpointError(f"{stored.place}: {what}, expected every id from 0 to {max(present, default=0)}")


def _config(directory: Path) -> dict[str, Any]:
    """Returns what the config beside says; nothing if there is none, or it is wrong: that is told where it is used."""
    path = directory / CONFIG_FILE
    if not path.exists():
        return {}
    try:
        with naming(path):
            return read_json_object(path, CheckpointError, limits.MAX_CONFIG_BYTES)
    except GPTZooError:
        return {}


def _positions(config: Mapping[str, Any]) -> int | None:
    number: Any = config.get("n_positions")
    return number if is_int(number) and number > 0 else None
