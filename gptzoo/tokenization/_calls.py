"""From texts to ids: the call of a tokenizer, its truncation and padding. Nothing of a call outlives it."""

from __future__ import annotations

from typing import Any

from tokenizers import Encoding, Tokenizer
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from gptzoo._settings import unknown_argument
from gptzoo.errors import InputError
from gptzoo.tokenization._arguments import (
    Call,
    arranged,
    columns_of,
    require_characters,
    require_rows,
    require_tokens,
    split_inputs,
)
from gptzoo.tokenization._encoding import BatchEncoding, as_lists
from gptzoo.tokenization._rows import FILLS, READ, filled, padded_length, shares
from gptzoo.tokenization._special import SpecialTokens


class EncodingMixin(SpecialTokens):
    """What a tokenizer does with texts."""

    padding_side: str
    truncation_side: str
    model_max_length: int
    model_input_names: list[str]
    add_prefix_space: bool
    finds_characters = True  # whether tokens can be traced back to the text
    preparation = "bert"  # of texts before they are split, where there is a choice

    def __call__(
        self,
        text: Any = None,
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
        if unknown:
            known = [name for name in EncodingMixin.__call__.__annotations__ if name not in ("unknown", "return")]
            raise InputError.listing("tokenizer", [unknown_argument(name, known) for name in unknown])
        call = arranged(self,
            padding, truncation, max_length, stride, pad_to_multiple_of, padding_side,
            special=add_special_tokens, prefix=add_prefix_space, words=is_split_into_words, plain=split_special_tokens,
        )  # fmt: skip
        firsts, seconds, batched = split_inputs(text, text_pair, is_split_into_words)
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
            change = f"texts are prepared as {self.preparation!r}, which changes them before they are split"
            raise InputError(f'return_offsets_mapping: {change}; preparation="bert" does not')
        data = {name: [READ[name](row) for row in samples] for name, asked in wanted.items() if asked}
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = [i for i, rows in enumerate(parts) for _ in rows]
        if not (batched or return_overflowing_tokens or return_tensors is not None):
            data = {name: rows[0] for name, rows in data.items()}
        return BatchEncoding(data, samples if self.finds_characters else None, return_tensors)

    def encode(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        **options: Any,
    ) -> Any:
        """Returns the ids of one text, or pair of texts; the arguments are those of a call."""
        options |= {"padding": padding, "truncation": truncation, "max_length": max_length}
        return self(text, text_pair, add_special_tokens=add_special_tokens, **options)["input_ids"]

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
        call = arranged(self, padding, False, max_length, 0, pad_to_multiple_of, padding_side)
        columns = columns_of(encoded_inputs)
        single = bool(columns["input_ids"]) and not isinstance(columns["input_ids"][0], list | tuple)
        if single:
            columns = {name: [value] for name, value in columns.items()}
        rows = columns["input_ids"]
        require_rows(columns, [name for name in columns if name in FILLS or name == "input_ids"])
        if return_attention_mask or (return_attention_mask is None and "attention_mask" in self.model_input_names):
            columns.setdefault("attention_mask", [[1] * len(row) for row in rows])
        length = padded_length([len(row) for row in rows], call)
        fills = FILLS | {"input_ids": self.pad_token_id}
        for name in columns.keys() & fills.keys():
            columns[name] = [filled(list(row), length, fills[name], call.padding_side) for row in columns[name]]
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
        first, second = shares(len(row), None if pair is None else len(pair), room, call.truncation)
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
        length = padded_length([len(row) for row in rows], call)
        for row in rows:
            if not joined:
                row.set_sequence_id(0)  # so that padding is of no text
            row.pad(length, direction=call.padding_side, pad_id=self.pad_token_id, pad_token=self.pad_token)
