"""The arguments of score, all checked before any work starts: texts become ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptzoo._settings import short, whole
from gptzoo.config import GPTConfig
from gptzoo.errors import InputError

NO_TOKENIZER = (
    "tokenizer: none given, expected the model's beside texts: AutoTokenizer.from_pretrained(path), or the path; "
    "or token ids in place of texts"
)


class TextError(InputError):
    """Some of the texts cannot be scored.

    Attributes:
        problems: the number of each such text, from 0 -> what is wrong with it.
    """

    def __init__(self, problems: dict[int, str], only: bool):
        listed = [f"text: {problem}" if only else f"text {i}: {problem}" for i, problem in problems.items()]
        super().__init__(*InputError.listing("score", listed).args)
        self.problems = problems


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call beside its texts.

    Attributes:
        max_length: tokens of a window.
        stride: tokens by which each window begins later than the one before.
        batch_size: windows that go through the model together.
        bos: the id that is put before each text, or None.
    """

    max_length: int
    stride: int
    batch_size: int
    bos: int | None


@dataclass(frozen=True)
class Text:
    """A text to be scored; the attributes are those of its `Score`."""

    token_ids: np.ndarray
    tokens: list[str] | None
    n_bytes: int | None


def check(config: GPTConfig, tokenizer: Any, stride: Any, max_length: Any, batch_size: Any, add_bos: Any) -> Arguments:
    """Returns the arguments with their defaults.

    Raises:
        InputError: lists every one that is wrong.
    """
    problems = []
    longest = config.n_positions if max_length is None else whole(max_length) or 0
    if not 2 <= longest <= config.n_positions:
        found = f"max_length: {short(longest if max_length is None else max_length)}"
        problems.append(f"{found}, expected 2 to {config.n_positions} (n_positions)")
    step = max(longest // 2, 1) if stride is None else whole(stride) or 0
    if not problems and not 1 <= step < longest:
        problems.append(f"stride: {short(stride)}, expected 1 to {longest - 1}, less than max_length")
    size = whole(batch_size) or 0
    if size < 1:
        problems.append(f"batch_size: {short(batch_size)}, expected an integer of at least 1")
    if not isinstance(add_bos, bool):
        problems.append(f"add_bos: {short(add_bos)}, expected True or False")
    named = (getattr(tokenizer, "bos_token_id", None), config.bos_token_id)
    bos = next((one for one in named if one is not None), None) if add_bos is True else None
    if add_bos is True and bos is None:
        problems.append("add_bos: True, expected False: neither tokenizer nor config has a bos token")
    if problems:
        raise InputError.listing("score", problems)
    return Arguments(longest, step, size, bos)


def find_tokenizer(tokenizer: Any) -> Any:
    """Returns the tokenizer that an argument stands for, or None.

    Raises:
        InputError: it is no tokenizer.
        CheckpointError: there is none under that path or name.
    """
    if isinstance(tokenizer, str | Path):
        from gptzoo.tokenization import AutoTokenizer  # models alone need no tokenizers

        return AutoTokenizer.from_pretrained(tokenizer)
    if tokenizer is not None and not callable(tokenizer):
        raise InputError(f"score: tokenizer: {short(tokenizer)}, expected a tokenizer, a path or a name")
    return tokenizer


def split(texts: Any) -> tuple[list[Any], bool]:
    """Returns texts one by one, and whether there is only one, not a list of them.

    Raises:
        InputError: it is neither a text, nor token ids, nor a list of these.
    """
    from gptzoo.tokenization._encoding import as_lists

    texts = as_lists(texts)
    if isinstance(texts, str):
        return [texts], True
    if not isinstance(texts, list | tuple):
        raise InputError(f"score: texts: {short(texts)}, expected a text, token ids, or a list of texts or rows of ids")
    entries = [as_lists(entry) for entry in texts]
    if entries and all(whole(entry) is not None for entry in entries):
        return [entries], True
    return entries, False


def read(texts: Sequence[Any], only: bool, tokenizer: Any, config: GPTConfig, bos: int | None) -> list[Text]:
    """Returns texts with their ids.

    Raises:
        TextError: lists every text that is none, has unknown ids, or fewer than two.
        InputError: there are texts, and no tokenizer.
    """
    if tokenizer is None and any(isinstance(text, str) for text in texts):
        raise InputError(f"score: {NO_TOKENIZER}")
    found, problems = [], {}
    for i, text in enumerate(texts):
        try:
            found.append(_read(text, tokenizer, config, bos))
        except InputError as problem:
            problems[i] = str(problem)
    if problems:
        raise TextError(problems, only)
    return found


def _read(text: Any, tokenizer: Any, config: GPTConfig, bos: int | None) -> Text:
    is_text = isinstance(text, str)
    if is_text:
        ids = tokenizer(text, **({} if bos is None else {"add_special_tokens": False}))["input_ids"]
    else:
        ids = _whole(text)
    if not ids:
        raise InputError("empty, expected tokens")
    ids = ids if bos is None else [bos, *ids]
    if outside := [one for one in (min(ids), max(ids)) if not 0 <= one < config.vocab_size]:
        hint = ": a tokenizer of this model" if is_text else ""
        raise InputError(f"token id {outside[-1]}, expected 0 to {config.vocab_size - 1} (vocab_size){hint}")
    if len(ids) < 2:
        raise InputError("1 token, expected at least 2: the first is not scored, unless a bos token is put before it")
    tokens = None if tokenizer is None else tokenizer.convert_ids_to_tokens(ids)
    return Text(np.array(ids, np.int64), tokens, len(text.encode()) if is_text and bos is not None else None)


def _whole(ids: Any) -> list[int]:
    numbers = [whole(one) for one in ids] if isinstance(ids, list | tuple) else [None]
    if None in numbers:
        raise InputError(f"{short(ids)}, expected a text or token ids")
    return [one for one in numbers if one is not None]
