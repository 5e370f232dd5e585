"""Texts that end a row, found where its newest token completes one."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptzoo._settings import class_of, short
from gptzoo._vocabulary import is_text
from gptzoo.errors import InputError

NO_TEXT = b"\xff"  # is in no text, of an id that the tokenizer does not have


class StopStrings:
    """Says which rows end with a stop string, or in a token that goes on behind one.

    The text is that of all tokens, special ones too; a string may begin in the prompt. It is looked for in the bytes of
    the newest tokens, as many as it can be made of: no more work for a longer row. A string that has U+FFFD is only
    found where a token has this character, not where bytes are no UTF-8.

    Args:
        strings: a text, or a list of them.
        tokenizer: of `gptzoo.tokenization`.

    Raises:
        InputError: they are something else; or no text of this tokenizer can have one of them, as GPT's none with
            capital letters.
    """

    def __init__(self, strings: Any, tokenizer: Any):
        self._strings = [text.encode() for text in stop_texts(strings)]
        if not callable(getattr(tokenizer, "_piece", None)):
            found = "None" if tokenizer is None else f"a {class_of(tokenizer)}"
            raise InputError(f"tokenizer: {found}, expected one of gptzoo.tokenization beside stop_strings")
        self._tokenizer = tokenizer
        self._require_possible()
        self._window = max(map(len, self._strings)) + 1  # each token has a byte at least, but GPT's last </w>

    def __call__(self, ids: np.ndarray, real: np.ndarray | None = None) -> np.ndarray:
        """Looks at the newest token of each row.

        Args:
            ids: (R, t), with t at least 1, the prompt and the tokens so far.
            real: (R, t) bool, False on padding; None: there is none.

        Returns:
            (R,) bool, whether that token completes a stop string.
        """
        newest = ids[:, -self._window :]
        mask = np.ones_like(newest, bool) if real is None else real[:, -self._window :]
        return np.array([self._ends(row[kept].tolist()) for row, kept in zip(newest, mask, strict=True)], bool)

    def _ends(self, ids: list[int]) -> bool:
        text, before = self._bytes(ids), len(self._bytes(ids[:-1]))
        return any(string in text[max(0, before - len(string) + 1) :] for string in self._strings)

    def _bytes(self, ids: list[int]) -> bytes:
        return b"".join([self._piece(number, i == len(ids) - 1) for i, number in enumerate(ids)])

    def _piece(self, number: int, last: bool) -> bytes:
        if not 0 <= number < len(self._tokenizer):
            return NO_TEXT
        piece: bytes = self._tokenizer._piece(number, last)
        return piece

    def _require_possible(self) -> None:
        missing = set(b"".join(self._strings))
        for number in range(len(self._tokenizer)):
            if not missing:
                return
            missing.difference_update(self._piece(number, False))
        problems = [
            f"{short(string.decode())}, expected a text that the tokenizer's tokens can make"
            for string in self._strings
            if missing.intersection(string)
        ]
        if problems:
            raise InputError.listing("stop_strings", problems)


def stop_texts(strings: Any) -> list[str]:
    """Returns stop strings as a list.

    Raises:
        InputError: they are no texts, or there are none.
    """
    texts = [strings] if isinstance(strings, str) else strings
    if not isinstance(texts, list | tuple) or not texts or not all(map(is_text, texts)) or "" in texts:
        raise InputError(f"stop_strings: {short(strings)}, expected a text, or a list of them, none of them empty")
    return list(texts)
