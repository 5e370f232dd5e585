"""From ids to text one by one: each character as soon as nothing that follows can change it."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterable
from typing import Any

from gptzoo.errors import InputError

# What English looks better without, after a tokenizer that puts spaces between all tokens.
CLEANED = {" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't", " 'm": "'m", " 's": "'s",
           " 've": "'ve", " 're": "'re"}  # fmt: skip


class DecodeStream:
    """Turns ids into text as they come, at a cost that does not depend on how many there were.

    The texts of all steps and of the end, put together, are `tokenizer.decode` of all ids. Held back are only the bytes
    of a character that is not complete, and what cleaning up may change: a space at the end, or " n".

    Args:
        tokenizer: whose ids they are; see its `decode_stream`.
        skipped: ids that are left out.
        clean_up: whether spaces before English punctuation go.
    """

    def __init__(self, tokenizer: Any, skipped: frozenset[int], clean_up: bool):
        self._tokenizer, self._skipped = tokenizer, skipped
        self._bytes = getincrementaldecoder("utf-8")(tokenizer.errors)
        self._replacers = [_Replacer(*pair) for pair in CLEANED.items()] if clean_up else []
        self._inside = self._at_end = b""  # what the newest token still adds: before another one, or as the last

    def step(self, number: int) -> str:
        """Returns the text that is complete with one more id.

        Raises:
            InputError: it is none; or the text is no UTF-8, and `errors` is "strict".
        """
        known = self._tokenizer._known(number)
        if known in self._skipped:
            return ""
        inside, at_end = (self._tokenizer._piece(known, last) for last in (False, True))
        sure = at_end if inside.startswith(at_end) else b""
        found = self._inside + sure
        self._inside, self._at_end = inside[len(sure) :], at_end[len(sure) :]
        return self._text(found, final=False)

    def steps(self, ids: Iterable[int]) -> str:
        """Returns the text that is complete with several more ids."""
        return "".join([self.step(number) for number in ids])

    def end(self) -> str:
        """Returns what was held back; the next step begins a new text."""
        found, self._inside, self._at_end = self._at_end, b"", b""
        return self._text(found, final=True)

    def _text(self, found: bytes, final: bool) -> str:
        try:
            text = self._bytes.decode(found, final)
        except UnicodeDecodeError as problem:  # if `errors` is "strict"
            raise InputError(f"ids: not UTF-8 text ({problem.reason})") from None
        for replacer in self._replacers:
            text = replacer(text, final)
        return text


class _Replacer:
    """`str.replace` of a text that comes in parts."""

    def __init__(self, old: str, new: str):
        self._old, self._new, self._held = old, new, ""

    def __call__(self, part: str, final: bool) -> str:
        *done, tail = (self._held + part).split(self._old)
        begun = (n for n in range(len(self._old) - 1, 0, -1) if tail.endswith(self._old[:n]))
        cut = len(tail) - (0 if final else next(begun, 0))
        self._held = tail[cut:]
        return self._new.join([*done, tail[:cut]])
