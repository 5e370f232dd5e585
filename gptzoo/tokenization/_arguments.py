"""What a call of a tokenizer is given, found right: its options, its texts, and rows that were encoded before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gptzoo._settings import short, whole
from gptzoo.errors import InputError
from gptzoo.tokenization._encoding import as_lists

PADDINGS = ("longest", "max_length", "do_not_pad")
TRUNCATIONS = ("longest_first", "only_first", "only_second", "do_not_truncate")
SIDES = ("right", "left")


NO_LIMIT = int(1e30)  # what Transformers takes for none


@dataclass(frozen=True)
class Call:
    """The arguments of one call, found right.

    Attributes:
        padding, truncation: one of PADDINGS, of TRUNCATIONS.
        max_length: of a row, in tokens; None: as long as it is.
        multiple: that the length of padded rows is of.
    """

    padding: str
    truncation: str
    max_length: int | None
    stride: int
    multiple: int
    padding_side: str
    special: bool
    prefixed: bool
    plain: bool


def arranged(
    tokenizer: Any,
    padding: Any,
    truncation: Any,
    max_length: Any,
    stride: Any,
    multiple: Any,
    side: Any,
    special: bool = True,
    prefix: bool | None = None,
    words: bool = False,
    plain: bool = False,
) -> Call:
    """Finds the arguments of a call right, and puts defaults in place.

    Raises:
        InputError: lists everything that is wrong with them.
    """
    padding, truncation = getattr(padding, "value", padding), getattr(truncation, "value", truncation)
    if truncation is None:
        truncation = max_length is not None and padding is False
    padding = _named(padding, "longest", "do_not_pad")
    truncation = _named(truncation, "longest_first", "do_not_truncate")
    limits = max_length is None and (padding == "max_length" or truncation != "do_not_truncate")
    own = None if tokenizer.model_max_length >= NO_LIMIT // 10 else tokenizer.model_max_length
    limit = own if limits else max_length
    side = tokenizer.padding_side if side is None else getattr(side, "value", side)
    names = (("padding", padding, PADDINGS), ("truncation", truncation, TRUNCATIONS), ("padding_side", side, SIDES))
    counts = (("max_length", limit, 0), ("stride", stride, 0), ("pad_to_multiple_of", multiple, 1))
    problems = [*_wrong_names(names), *_wrong_counts(counts)]
    if not problems:
        problems = [*_contradictions(tokenizer, padding, truncation, limit, multiple)]
    if problems:
        raise InputError.listing("tokenizer", problems)
    prefixed = words or (tokenizer.add_prefix_space if prefix is None else prefix)
    return Call(
        padding, truncation, whole(limit), whole(stride) or 0, whole(multiple) or 1, side, special, prefixed, plain
    )  # fmt: skip


def _wrong_names(given: Sequence[tuple[str, Any, Sequence[str]]]) -> Iterator[str]:
    for name, value, names in given:
        if not isinstance(value, str) or value not in names:
            expected = "right or left" if names is SIDES else f"True, False or one of {', '.join(names)}"
            yield f"{name}: {short(value)}, expected {expected}"


def _wrong_counts(given: Sequence[tuple[str, Any, int]]) -> Iterator[str]:
    for name, value, low in given:
        if value is not None and ((number := whole(value)) is None or number < low):
            yield f"{name}: {short(value)}, expected a whole number from {low}"


def _contradictions(tokenizer: Any, padding: str, truncation: str, limit: Any, multiple: Any) -> Iterator[str]:
    """Yields what is wrong with arguments that are right by themselves."""
    if padding == "max_length" and limit is None:
        yield "padding: 'max_length' needs max_length, as the tokenizer has no model_max_length"
    if padding != "do_not_pad" and tokenizer.pad_token is None:
        borrowed = "" if tokenizer.eos_token is None else "tokenizer.pad_token = tokenizer.eos_token, or "
        advice = f"{borrowed}tokenizer.add_special_tokens({{'pad_token': '<pad>'}})"
        yield f"padding: the tokenizer has no pad_token ({advice})"
    cuts_and_pads = truncation != "do_not_truncate" and padding != "do_not_pad"
    if cuts_and_pads and multiple and (limit or 0) % multiple:
        yield f"max_length: {limit}, expected a multiple of pad_to_multiple_of: {multiple}"


def _named(choice: Any, yes: str, no: str) -> Any:
    return yes if choice is True else no if choice is False or choice is None else choice


def split_inputs(text: Any, pair: Any, in_words: bool) -> tuple[list[Any], list[Any] | None, bool]:
    """Returns first texts, second texts if there are any, and whether they came as a batch.

    Raises:
        InputError: names the first that is no text.
    """
    listed = isinstance(text, list | tuple)
    batched = listed and (not in_words or not text or isinstance(text[0], list | tuple))
    if batched and not in_words and pair is None and text and all(_is_pair(item) for item in text):
        text, pair = [first for first, _ in text], [second for _, second in text]
    firsts, seconds = (list(text), pair) if batched else ([text], None if pair is None else [pair])
    if batched and pair is not None:
        if not isinstance(pair, list | tuple) or len(pair) != len(firsts):
            raise InputError(f"text_pair: {short(pair)}, expected as many texts as there are in text: {len(firsts)}")
        seconds = list(pair)
    for name, texts in (("text", firsts), ("text_pair", seconds or [])):
        for i, item in enumerate(texts):
            _require_text(f"{name}[{i}]" if batched else name, item, in_words)
    return firsts, seconds, batched


def _is_pair(item: Any) -> bool:
    return isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(text, str) for text in item)


def _require_text(where: str, item: Any, in_words: bool) -> None:
    if in_words:
        if not isinstance(item, list | tuple) or not all(isinstance(word, str) for word in item):
            raise InputError(f"{where}: {short(item)}, expected a list of words (is_split_into_words)")
    elif not isinstance(item, str):
        advice = "; is_split_into_words=True takes words" if isinstance(item, list | tuple) else ""
        raise InputError(f"{where}: {short(item)}, expected a text{advice}")


def require_characters(texts: list[Any]) -> None:
    """Raises an error that says where a text, or a list of words, has half a character."""
    for i, text in enumerate(texts):
        try:
            "".join(text).encode()
        except UnicodeEncodeError as problem:
            what = f"character {problem.start} is the lone surrogate U+{ord(problem.object[problem.start]):04X}"
            raise InputError(f"text {i}: {what}, which no text in UTF-8 can hold") from None


def require_tokens(tokens: Any) -> None:
    """Checks that something is a list of texts.

    Raises:
        InputError: it is not.
    """
    if not isinstance(tokens, list | tuple) or not all(isinstance(token, str) for token in tokens):
        raise InputError(f"tokens: {short(tokens)}, expected a list of texts")


def require_rows(columns: Mapping[str, Any], names: Sequence[str]) -> None:
    """Checks that arrays which are padded have rows, as long as those of the ids.

    Raises:
        InputError: names the first that has not.
    """
    rows = columns["input_ids"]
    for name in names:
        found = columns[name]
        right = isinstance(found, list | tuple) and len(found) == len(rows)
        for i, row in enumerate(found if right else ()):
            if not isinstance(row, list | tuple) or len(row) != len(rows[i]):
                raise InputError(f"{name}[{i}]: {short(row)}, expected a list of as many numbers as there are ids")
        if not right:
            raise InputError(f"{name}: {short(found)}, expected as many rows as there are of ids")


def columns_of(encoded: Any) -> dict[str, Any]:
    """Returns a map of lists, of a map or of a list of maps.

    Raises:
        InputError: it is neither, or has no `input_ids`.
    """
    if isinstance(encoded, list | tuple) and encoded and all(isinstance(row, Mapping) for row in encoded):
        if any(row.keys() != encoded[0].keys() for row in encoded):
            raise InputError(f"encoded_inputs: {short(encoded)}, expected maps with the same names")
        encoded = {name: [row[name] for row in encoded] for name in encoded[0]}
    if not isinstance(encoded, Mapping) or "input_ids" not in encoded:
        raise InputError(f"encoded_inputs: {short(encoded)}, expected a map with input_ids, or a list of such maps")
    columns = {name: as_lists(value) for name, value in encoded.items()}
    if not isinstance(columns["input_ids"], list | tuple):
        raise InputError(f"encoded_inputs: input_ids: {short(columns['input_ids'])}, expected a list of ids or rows")
    return {
        name: [as_lists(row) for row in value] if isinstance(value, list) else value for name, value in columns.items()
    }
