"""What a tokenizer returns: a dict whose values are attributes too, and which knows where each token came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Encoding

from gptzoo._settings import short
from gptzoo.errors import InputError
from gptzoo.tokenization._tensors import to_tensor


class CharSpan(NamedTuple):
    """Characters of a text, from `start` to before `end`."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """Tokens of a row, from `start` to before `end`."""

    start: int
    end: int


class BatchEncoding(dict[str, Any]):
    """The arrays of a call: `input_ids`, `attention_mask` and what else was asked for, by key and by attribute.

    An integer as key gives the `tokenizers.Encoding` of that row, a slice gives the same rows of every array.

    Args:
        data: name -> one list a row; or, of a single text, the row itself.
        encodings: of each row, in which tokens, words and characters are looked up; None if the text was changed before
            it was split, so that its characters cannot be found again.
        tensor_type: as of `convert_to_tensors`.
        prepend_batch_axis: whether the lists are of a single text.
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        encodings: Encoding | Sequence[Encoding] | None = None,
        tensor_type: Any = None,
        prepend_batch_axis: bool = False,
    ):
        super().__init__(data or {})
        rows = [encodings] if isinstance(encodings, Encoding) else encodings
        self.__dict__["_encodings"] = None if rows is None else list(rows)
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.items()}
        return self._rows("a row")[key]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getitem__(name)
        except KeyError:
            raise AttributeError(f"BatchEncoding has no {name!r}; it has {', '.join(self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __reduce__(self) -> Any:
        return BatchEncoding, (dict(self), self.encodings)

    def copy(self) -> BatchEncoding:
        return BatchEncoding(dict(self), self.encodings)

    @property
    def data(self) -> dict[str, Any]:
        """The same without what it knows of the text."""
        return dict(self)

    @property
    def encodings(self) -> list[Encoding] | None:
        """Of each row; None if tokens cannot be found in the text."""
        found: list[Encoding] | None = self.__dict__["_encodings"]
        return found

    @property
    def is_fast(self) -> bool:
        """Whether tokens, words and characters can be looked up."""
        return self.encodings is not None

    @property
    def n_sequences(self) -> int | None:
        """1 for texts, 2 for pairs of texts; None if it is not known."""
        return self.encodings[0].n_sequences if self.encodings else None

    def convert_to_tensors(self, tensor_type: Any = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Makes arrays of the lists, in place.

        Args:
            tensor_type: "pt", "tf", "jax" or "np"; None leaves them.
            prepend_batch_axis: whether the lists are of a single text.

        Raises:
            InputError: rows of different lengths; or there is no such framework.
        """
        if tensor_type is not None:
            for name, value in self.items():
                self[name] = to_tensor(name, [value] if prepend_batch_axis else value, tensor_type)
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Brings PyTorch's tensors to a device, in place; what is no tensor stays."""
        for name, value in self.items():
            if callable(getattr(value, "to", None)):
                self[name] = value.to(device=device, non_blocking=non_blocking)
        return self

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Returns the tokens of a row."""
        return list(self._rows("tokens()")[batch_index].tokens)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """Returns for each token of a row whether it is of the first text (0), the second (1) or none (None)."""
        return list(self._rows("sequence_ids()")[batch_index].sequence_ids)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Returns the number of the word that each token of a row is of; None for special tokens."""
        return list(self._rows("word_ids()")[batch_index].word_ids)

    def words(self, batch_index: int = 0) -> list[int | None]:
        """The older name of `word_ids`."""
        return self.word_ids(batch_index)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Returns the text (0 or 1) that a token is of: of `(row, token)`, or of a token of the only row."""
        return self._look_up("token_to_sequence", batch_or_token_index, token_index)

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Returns the number of the word that a token is of."""
        return self._look_up("token_to_word", batch_or_token_index, token_index)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """Returns the characters of its text that a token stands for; None for special tokens."""
        span = self._look_up("token_to_chars", batch_or_token_index, token_index)
        return None if span is None else CharSpan(*span)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """Returns the tokens of a word; None if it has none."""
        span = self._look_up("word_to_tokens", batch_or_word_index, word_index, sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """Returns the characters of a word in its text."""
        span = self._look_up("word_to_chars", batch_or_word_index, word_index, sequence_index)
        return None if span is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Returns the token that a character of a text is in; None if it is in none."""
        return self._look_up("char_to_token", batch_or_char_index, char_index, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """Returns the word that a character of a text is in."""
        return self._look_up("char_to_word", batch_or_char_index, char_index, sequence_index)

    def _look_up(self, method: str, first: int, second: int | None, *sequence: int) -> Any:
        rows = self._rows(f"{method}()")
        row, index = (0, first) if second is None else (first, second)
        if not -len(rows) <= row < len(rows):
            raise InputError(f"{method}: row {short(row)}, expected one of {len(rows)}")
        if index < 0 and method.startswith("token"):  # from the end, as of a list
            index += len(rows[row])
        find: Callable[..., Any] = getattr(rows[row], method)
        try:
            return find(index, *sequence)
        except OverflowError:
            raise InputError(f"{method}: {short(index)}, expected a number from 0") from None

    def _rows(self, wanted: str) -> list[Encoding]:
        if self.encodings is None:
            raise InputError(
                f"{wanted}: this BatchEncoding does not know its text, which was changed before it was split; "
                "or it was put together by hand"
            )
        return self.encodings


def as_lists(value: Any) -> Any:
    """Returns an array of any framework as nested lists; anything else as it is."""
    if callable(getattr(value, "detach", None)):  # PyTorch's, on any device
        return value.detach().cpu().tolist()
    if hasattr(value, "__array__") and not isinstance(value, list | tuple):
        return np.asarray(value).tolist()
    return value
