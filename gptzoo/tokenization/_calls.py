"""From texts to ids: the call of a tokenizer, its truncation and padding. Nothing of a call outlives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from tokenizers import Encoding, Tokenizer
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from gptzoo._settings import short, whole
from gptzoo.errors import InputError
from gptzoo.tokenization._encoding import BatchEncoding, as_lists
from gptzoo.tokenization._special import SpecialTokens

PADDINGS = ("longest", "max_length", "do_not_pad")
TRUNCATIONS = ("longest_first", "only_first", "only_second", "do_not_truncate")
SIDES = ("right", "left")

# What pads each array of an encoding, beside `input_ids`.
FILLS = {"attention_mask": 0, "token_type_ids": 0, "special_tokens_mask": 1}


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


class EncodingMixin(SpecialTokens):
    """What a tokenizer does with texts."""

    padding_side: str
    truncation_side: str
    model_max_length: int | None
    model_input_names: list[str]
    add_prefix_space: bool
    finds_characters = True  # whether tokens can be traced back to the text

    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: Any = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        add_prefix_space: bool | None = None,
        split_special_tokens: bool = False,
        verbose: bool = True,
        **unknown: Any,
    ) -> BatchEncoding:
        """Turns texts into ids.

        Args:
            text: a text, or a list of texts; with `is_split_into_words` a list of words, or a list of such lists.
            text_pair: second texts, as many as there are first ones.
            add_special_tokens: whether `bos_token` comes before each text, if the tokenizer has `add_bos_token`.
            padding: True or "longest": to the longest row; "max_length": to `max_length`.
            truncation: True or "longest_first": tokens go from the longer text of a pair; "only_first", "only_second".
                None: True if `max_length` is given and nothing is padded.
            max_length: of a row in tokens, special ones included; None: the tokenizer's `model_max_length`.
            stride: tokens that a row of overflowing ones repeats of the row before.
            is_split_into_words: whether texts come as words; GPT-2 gets a space before each of them.
            pad_to_multiple_of: makes padded rows longer, to a multiple of this.
            padding_side: "right" or "left"; None: the tokenizer's.
            return_tensors: "pt", "tf", "jax" or "np"; None: lists.
            return_token_type_ids: adds `token_type_ids`, 0 for the first text and 1 for the second.
            return_attention_mask: adds `attention_mask`, 0 on padding; None: yes, as the models take it.
            return_overflowing_tokens: what was cut off becomes rows of its own; `overflow_to_sample_mapping` says of
                which text each row is.
            return_special_tokens_mask: adds `special_tokens_mask`, 1 on special tokens that were added, and on padding.
            return_offsets_mapping: adds `offset_mapping`, the characters (start, end) of each token in its text.
            return_length: adds `length`.
            add_prefix_space: whether a text that begins without a space gets one; None: as the tokenizer does.
            split_special_tokens: whether special tokens in the text are text like any other.
            verbose: changes nothing.

        Returns:
            `input_ids` and the rest: a list for a single text, otherwise, and with `return_tensors`, rows.

        Raises:
            InputError: an argument is wrong, or there is no token to pad with; or what `return_tensors` does.
        """
        self._refuse(unknown)
        call = self._arranged(
            padding, truncation, max_length, stride, pad_to_multiple_of, padding_side,
            special=add_special_tokens, prefix=add_prefix_space, words=is_split_into_words, plain=split_special_tokens,
        )  # fmt: skip
        firsts, seconds, batched = _inputs(text, text_pair, is_split_into_words)
        rows = self._encode(firsts, seconds, call, is_split_into_words)
        parts = [(row, *row.overflowing) if return_overflowing_tokens else (row,) for row in rows]
        samples = [row for rows in parts for row in rows]
        self._pad_rows(samples, call, joined=self._joins(seconds, call))
        names = self.model_input_names
        wanted = {
            "input_ids": True,
            "token_type_ids": "token_type_ids" in names if return_token_type_ids is None else return_token_type_ids,
            "attention_mask": "attention_mask" in names if return_attention_mask is None else return_attention_mask,
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
            "length": return_length,
        }
        if return_offsets_mapping and not self.finds_characters:
            raise InputError("return_offsets_mapping: this tokenizer changes the text before it splits it")
        data = {name: [_READ[name](row) for row in samples] for name, asked in wanted.items() if asked}
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = [i for i, rows in enumerate(parts) for _ in rows]
        if not (batched or return_overflowing_tokens or return_tensors is not None):
            data = {name: rows[0] for name, rows in data.items()}
        return BatchEncoding(data, samples if self.finds_characters else None, return_tensors)

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """Returns the ids of one text, or pair of texts; `options` are those of a call."""
        return self(text, text_pair, **options)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:
        """The older name of a call."""
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **options: Any) -> BatchEncoding:
        """The older name of a call with a list."""
        return self(batch_text_or_text_pairs, **options)

    def tokenize(self, text: Any, pair: Any = None, add_special_tokens: bool = False, **options: Any) -> list[str]:
        """Returns the tokens of a text, as the vocabulary has them."""
        return self.convert_ids_to_tokens(self.encode(text, pair, add_special_tokens=add_special_tokens, **options))

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Returns the token of an id, or the tokens of many."""
        ids = as_lists(ids)
        if not isinstance(ids, list | tuple):
            return self._token_of(ids)
        tokens = [self._token_of(number) for number in ids]
        skipped = self._skipped() if skip_special_tokens else frozenset()
        return [token for number, token in zip(ids, tokens, strict=True) if number not in skipped]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """Returns the id of a token, or the ids of many; that of the unknown token for one that there is not."""
        if tokens is None:
            return None
        if isinstance(tokens, str):
            return self._ids.get(tokens, self.unk_token_id)
        require_tokens(tokens)
        return [self._ids.get(token, self.unk_token_id) for token in tokens]

    def _skipped(self) -> frozenset[int]:
        return frozenset(number for number, token in self._added.items() if token.special)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Returns how many tokens a call adds to a text, or to a pair of texts."""
        return len(self._start()) * (2 if pair else 1)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Returns the ids of a text, or of two, with the special tokens that a call adds."""
        start = self._start()
        return [*start, *token_ids_0] if token_ids_1 is None else [*start, *token_ids_0, *start, *token_ids_1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Returns 0 for each token of the first text, 1 for each of the second, special tokens included."""
        first = len(self.build_inputs_with_special_tokens(token_ids_0))
        second = 0 if token_ids_1 is None else len(self.build_inputs_with_special_tokens(token_ids_1))
        return [0] * first + [1] * second

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Returns 1 for each special token of a row, 0 for each other one.

        Args:
            token_ids_0, token_ids_1: the ids of a text, or of two.
            already_has_special_tokens: whether `token_ids_0` is a whole row, in which special tokens are looked for.
        """
        if already_has_special_tokens:
            special = frozenset(self.all_special_ids)
            return [int(number in special) for number in as_lists(token_ids_0)]
        start = [1] * len(self._start())
        second = [] if token_ids_1 is None else [*start, *[0] * len(token_ids_1)]
        return [*start, *[0] * len(token_ids_0), *second]

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: Any = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Brings rows that were encoded earlier to one length.

        Args:
            encoded_inputs: a map of lists as a call returns it, of one row or many; or a list of such maps. What has no
                value for padding, such as `labels`, stays as it is.
            padding, max_length, pad_to_multiple_of, padding_side, return_tensors, verbose: as of a call.
            return_attention_mask: whether one is made if there is none; None: yes.

        Raises:
            InputError: there is no `input_ids`, or no token to pad with.
        """
        call = self._arranged(padding, False, max_length, 0, pad_to_multiple_of, padding_side)
        columns = _columns(encoded_inputs)
        single = bool(columns["input_ids"]) and not isinstance(columns["input_ids"][0], list | tuple)
        if single:
            columns = {name: [value] for name, value in columns.items()}
        rows = columns["input_ids"]
        _require_rows(columns, [name for name in columns if name in FILLS or name == "input_ids"])
        if return_attention_mask or (return_attention_mask is None and "attention_mask" in self.model_input_names):
            columns.setdefault("attention_mask", [[1] * len(row) for row in rows])
        length = _padded_length([len(row) for row in rows], call)
        fills = FILLS | {"input_ids": self.pad_token_id}
        for name in columns.keys() & fills.keys():
            columns[name] = [_filled(list(row), length, fills[name], call.padding_side) for row in columns[name]]
        if single and return_tensors is None:
            columns = {name: value[0] for name, value in columns.items()}
        return BatchEncoding(columns, None, return_tensors)

    def _backend(self, prefixed: bool, plain: bool) -> Tokenizer:
        """Returns the Rust tokenizer that puts a space before a text, or takes special tokens for plain text.

        It has no post-processor: what that notes in an encoding would be wrong in the second one of a pair.
        """
        raise NotImplementedError

    def _joiner(self) -> Tokenizer:
        """Returns a Rust tokenizer that only joins the encodings of a pair, and puts special tokens in."""
        joiner = Tokenizer(BPE())
        joiner.post_processor = self._template()
        return joiner

    def _template(self) -> TemplateProcessing:
        start = [self._token_of(number) for number in self._start()]
        return TemplateProcessing(
            single=[*start, "$A:0"],
            pair=[*start, "$A:0", *(f"{token}:1" for token in start), "$B:1"],
            special_tokens=list(zip(start, self._start(), strict=True)),
        )

    def _start(self) -> list[int]:
        """The ids before each text."""
        return []

    def _split(self, texts: list[Any], call: Call, in_words: bool) -> list[Encoding]:
        backend = self._backend(call.prefixed, call.plain)
        try:
            return backend.encode_batch(texts, is_pretokenized=in_words, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):
            require_characters(texts)
            raise

    def _encode(self, firsts: list[Any], seconds: list[Any] | None, call: Call, in_words: bool) -> list[Encoding]:
        rows = self._split(firsts, call, in_words)
        pairs = [None] * len(rows) if seconds is None else self._split(seconds, call, in_words)
        if call.truncation != "do_not_truncate" and call.max_length is not None:
            room = call.max_length - (self.num_special_tokens_to_add(seconds is not None) if call.special else 0)
            if 0 < room <= call.stride:
                raise InputError(f"stride: {call.stride}, expected less than the {room} tokens max_length leaves texts")
            for row, pair in zip(rows, pairs, strict=True):
                self._truncate(row, pair, room, call)
        if not self._joins(seconds, call):
            return rows
        joiner = self._joiner()
        return [joiner.post_process(row, pair, call.special) for row, pair in zip(rows, pairs, strict=True)]

    def _truncate(self, row: Encoding, pair: Encoding | None, room: int, call: Call) -> None:
        first, second = _shares(len(row), None if pair is None else len(pair), room, call.truncation)
        for encoding, length in ((row, first), (pair, second)):
            if encoding is not None and length < len(encoding):
                if call.stride >= length and call.stride:
                    raise InputError(f"stride: {call.stride}, expected less than the {length} tokens of a row's text")
                encoding.truncate(length, stride=call.stride, direction=self.truncation_side)

    def _joins(self, seconds: list[Any] | None, call: Call) -> bool:
        """Whether rows are more than the tokens of one text."""
        return seconds is not None or bool(call.special and self._start())

    def _pad_rows(self, rows: list[Encoding], call: Call, joined: bool) -> None:
        if call.padding == "do_not_pad" or not rows:
            return
        length = _padded_length([len(row) for row in rows], call)
        for row in rows:
            if not joined:
                row.set_sequence_id(0)  # so that padding is of no text
            row.pad(length, direction=call.padding_side, pad_id=self.pad_token_id, pad_token=self.pad_token)

    def _arranged(
        self,
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
        limit = self.model_max_length if limits else max_length
        given = (("padding", padding, PADDINGS), ("truncation", truncation, TRUNCATIONS))
        problems = [f"{name}: {short(value)}, expected True, False or one of {', '.join(names)}"
                    for name, value, names in given if not isinstance(value, str) or value not in names]  # fmt: skip
        side = self.padding_side if side is None else getattr(side, "value", side)
        if not isinstance(side, str) or side not in SIDES:
            problems.append(f"padding_side: {short(side)}, expected right or left")
        counts = (("max_length", limit, 0), ("stride", stride, 0), ("pad_to_multiple_of", multiple, 1))
        problems += [
            f"{name}: {short(value)}, expected a whole number from {low}"
            for name, value, low in counts
            if value is not None and ((number := whole(value)) is None or number < low)
        ]
        if padding == "max_length" and limit is None:
            problems.append("padding: 'max_length' needs max_length, as the tokenizer has no model_max_length")
        if padding != "do_not_pad" and self.pad_token is None:
            advice = "tokenizer.pad_token = tokenizer.eos_token, or add_special_tokens({'pad_token': '<pad>'})"
            problems.append(f"padding: the tokenizer has no pad_token ({advice})")
        cuts_and_pads = truncation != "do_not_truncate" and padding != "do_not_pad"
        if cuts_and_pads and multiple and not problems and (limit or 0) % multiple:
            problems.append(f"max_length: {limit}, expected a multiple of pad_to_multiple_of: {multiple}")
        if problems:
            raise InputError.listing("tokenizer", problems)
        prefixed = words or (self.add_prefix_space if prefix is None else prefix)
        return Call(
            padding, truncation, whole(limit), whole(stride) or 0, whole(multiple) or 1, side, special, prefixed, plain
        )  # fmt: skip

    def _refuse(self, unknown: Mapping[str, Any]) -> None:
        known = [name for name in EncodingMixin.__call__.__annotations__ if name not in ("unknown", "return")]
        problems = []
        for name in unknown:
            near = get_close_matches(name, known, n=1)
            problems.append(f"unknown argument {short(name)}" + (f", did you mean {near[0]}?" if near else ""))
        if problems:
            raise InputError.listing("tokenizer", problems)


# How each array of a call is read from a row.
_READ: dict[str, Any] = {
    "input_ids": lambda row: row.ids,
    "token_type_ids": lambda row: _types(row),
    "attention_mask": lambda row: row.attention_mask,
    "special_tokens_mask": lambda row: row.special_tokens_mask,
    "offset_mapping": lambda row: row.offsets,
    "length": len,
}


def _types(row: Encoding) -> list[int]:
    """The type of each token; overflowing ones of a second text have that of the first in `type_ids`."""
    return [1 if text == 1 else kind for text, kind in zip(row.sequence_ids, row.type_ids, strict=True)]


def _named(choice: Any, yes: str, no: str) -> Any:
    return yes if choice is True else no if choice is False or choice is None else choice


def _inputs(text: Any, pair: Any, in_words: bool) -> tuple[list[Any], list[Any] | None, bool]:
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


def _shares(first: int, second: int | None, room: int, strategy: str) -> tuple[int, int]:
    """Returns how many tokens of each text stay.

    Raises:
        InputError: the text that is to be cut is too short.
    """
    if room < 0:
        raise InputError(f"max_length: {-room} tokens too few for the special tokens alone")
    excess = first + (second or 0) - room
    if excess <= 0:
        return first, second or 0
    if strategy == "longest_first":
        return _evened(first, second or 0, room)
    lengths = {"only_first": first, "only_second": second}
    cut = lengths[strategy]
    if cut is None:
        raise InputError("truncation: 'only_second', but there is no second text")
    if cut <= excess:
        raise InputError(f"truncation: {strategy!r}, but its text has {cut} tokens, and {excess} have to go")
    return (first - excess, second or 0) if strategy == "only_first" else (first, cut - excess)


def _evened(first: int, second: int, room: int) -> tuple[int, int]:
    """Takes from the longer text until both are as long, then from both."""
    short_one, long_one = sorted((first, second))
    if 2 * short_one <= room:
        long_one = room - short_one
    else:
        short_one, long_one = room // 2, room - room // 2
    return (short_one, long_one) if first <= second else (long_one, short_one)


def _padded_length(lengths: Sequence[int], call: Call) -> int:
    """Returns the length that rows are padded to; longer ones stay as they are."""
    if call.padding == "do_not_pad":
        return 0
    length = call.max_length if call.padding == "max_length" else max(lengths, default=0)
    return -(-(length or 0) // call.multiple) * call.multiple


def _filled(row: list[int], length: int, fill: Any, side: str) -> list[int]:
    padding = [fill] * (length - len(row))
    return row + padding if side == "right" else padding + row


def require_tokens(tokens: Any) -> None:
    """Checks that something is a list of texts.

    Raises:
        InputError: it is not.
    """
    if not isinstance(tokens, list | tuple) or not all(isinstance(token, str) for token in tokens):
        raise InputError(f"tokens: {short(tokens)}, expected a list of texts")


def _require_rows(columns: Mapping[str, Any], names: Sequence[str]) -> None:
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


def _columns(encoded: Any) -> dict[str, Any]:
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
