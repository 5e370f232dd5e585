"""What the tokenizers of both families share: made from files or by hand, saved, and turning ids back into text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Self

from tokenizers import AddedToken, Tokenizer

from gptzoo._settings import Rule, is_number, one_of, short, unknown_argument
from gptzoo._tensors import shown
from gptzoo._vocabulary import ADDED, CONFIG, MERGES, SPECIAL, TOKENIZER, VOCAB, is_text, merge_text
from gptzoo.errors import CheckpointError, InputError
from gptzoo.hub import resolve, take_options
from gptzoo.tokenization._arguments import NO_LIMIT, SIDES, require_tokens
from gptzoo.tokenization._calls import EncodingMixin
from gptzoo.tokenization._decoding import CLEANED, DecodeStream
from gptzoo.tokenization._encoding import as_lists
from gptzoo.tokenization._files import (
    FLAGS,
    Stored,
    added_token,
    json_bytes,
    read_pair,
    read_tokenizer,
    write_tokenizer,
)
from gptzoo.tokenization._special import EXTRA, ROLES, tell

# Arguments of `from_pretrained` in other libraries that change nothing here.
_HARMLESS = ("use_fast", "trust_remote_code", "legacy", "_from_auto", "tokenizer_type", "backend",
             "config", "clean_up_tokenization_spaces", "verbose")  # fmt: skip


def _is_token(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.get("content")
    return (is_text(value) and bool(value)) or isinstance(value, AddedToken)


TOKEN = Rule("a token, or null", lambda value: value is None or _is_token(value))
TOKENS = Rule(
    "a list of tokens, or null",
    lambda value: value is None or (isinstance(value, list | tuple) and all(map(_is_token, value))),
)
LIMIT = Rule("a number above 0, or null", lambda value: value is None or (is_number(value) and value > 0))
NAMES = Rule("a list of names", lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value))


class PreTrainedTokenizer(EncodingMixin):
    """Base of the tokenizers.

    Attributes:
        settings: names of the constructor's settings -> what each accepts.
        defaults: of the settings that have another default than None.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {
        "vocab_file": VOCAB,
        "merges_file": MERGES,
        "tokenizer_file": TOKENIZER,
    }
    settings: ClassVar[dict[str, Rule]] = {
        **dict.fromkeys(ROLES, TOKEN),
        **dict.fromkeys(EXTRA, TOKENS),
        "model_max_length": LIMIT,
        "padding_side": one_of(*SIDES),
        "truncation_side": one_of(*SIDES),
        "model_input_names": NAMES,
    }
    defaults: ClassVar[dict[str, Any]] = {
        "padding_side": "right",
        "truncation_side": "right",
        "model_input_names": ["input_ids", "attention_mask"],
    }

    name_or_path = ""
    add_prefix_space = False
    errors = "strict"  # what decoding does with bytes that are no UTF-8
    clean_up_tokenization_spaces = False
    init_kwargs: dict[str, Any]

    def _build(self, stored: Stored, given: Mapping[str, Any]) -> None:
        """Fills a new tokenizer.

        Raises:
            InputError: lists every setting with a wrong value, or of a name that means nothing.
        """
        self._require_settings(given)
        self._require_model(stored)
        self._place = stored.place
        values = self.defaults | {name: value for name, value in given.items() if name in self.settings}
        self._vocab, self._merges, self._added = stored.vocab, stored.merges, {}
        self._roles, self._extra, self._backends = {}, [], {}
        limit = values.get("model_max_length")
        self.model_max_length = NO_LIMIT if limit is None else int(limit)
        self.init_kwargs = dict(values)
        for name in ("padding_side", "truncation_side"):
            setattr(self, name, values[name])
        self.model_input_names = list(values["model_input_names"])
        self._configure(values)
        for _, token in sorted(stored.added.items()):
            self.add_tokens(token)
        roles = {role: _described(values[role]) for role in ROLES if values.get(role) is not None}
        extra = [_described(token) for name in EXTRA for token in values.get(name) or ()]
        self.add_special_tokens(roles | ({EXTRA[0]: extra} if extra else {}))
        self._backends[False, False] = self._finished(False, False)

    def _configure(self, values: Mapping[str, Any]) -> None:
        """Takes the settings that only this family has."""

    def _require_model(self, stored: Stored) -> None:
        """Checks that a vocabulary, and tokenizer.json if there is one, are of this family."""

    def _bare(self, prefixed: bool) -> Tokenizer:
        """Returns a Rust tokenizer without added tokens."""
        raise NotImplementedError

    def _text_of(self, ids: list[int]) -> str:
        """Returns the text that ids stand for."""
        raise NotImplementedError

    def _piece(self, number: int, last: bool) -> bytes:
        """Returns the bytes that an id adds to a text, as its last one or before others."""
        raise NotImplementedError

    @classmethod
    def _require_settings(cls, given: Mapping[str, Any]) -> None:
        problems = []
        for name, value in given.items():
            if name not in cls.settings:
                problems.append(unknown_argument(name, cls.settings))
            elif not cls.settings[name].accepts(value):
                problems.append(f"{name}: {short(value)}, expected {cls.settings[name].expected}")
        if problems:
            raise InputError.listing(cls.__name__, problems)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **settings: Any) -> Self:
        """Loads a tokenizer.

        Args:
            pretrained_model_name_or_path: a directory with vocab.json and merges.txt, encoder.json and vocab.bpe,
                tokenizer.json or a KerasHub preset; or the name of a model, bundled or on the hub.
            settings: of the constructor, which win over the stored ones, such as `pad_token="<pad>"`; and those of
                `gptzoo.hub.HubOptions`.

        Raises:
            CheckpointError: a file is missing, or lists every wrong entry.
            InputError: lists every setting with a wrong value, or of a name that means nothing.
        """
        stored, given = read_pretrained(pretrained_model_name_or_path, settings)
        return cls.from_stored(stored, given, str(pretrained_model_name_or_path))

    @classmethod
    def from_stored(cls, stored: Stored, given: Mapping[str, Any], name: str) -> Self:
        """Makes a tokenizer of what its files say, and of settings that win over them; `name` is `name_or_path`."""
        known = cls._stored_settings(stored)
        try:
            cls._require_settings(known)
        except InputError as problem:
            raise CheckpointError(f"{stored.place}: {CONFIG}: {problem}") from None
        tokenizer = cls.__new__(cls)
        tokenizer._build(stored, {**known, **given})
        tokenizer.name_or_path = name
        return tokenizer

    @classmethod
    def _stored_settings(cls, stored: Stored) -> dict[str, Any]:
        """Returns the settings that the files have and this class knows."""
        found = {name: value for name, value in stored.settings.items() if name in cls.settings}
        if isinstance(extra := found.get(EXTRA[1]), dict):  # names for them, in Transformers 5
            found[EXTRA[1]] = list(extra.values())
        return found

    def save_pretrained(
        self, save_directory: str | Path, filename_prefix: str | None = None, **ignored: Any
    ) -> tuple[str, ...]:
        """Writes the files that this library, and Transformers 4 and 5, read to the same ids.

        An earlier tokenizer in the directory is replaced, other files stay.

        Args:
            save_directory: made if absent.
            filename_prefix: of the files' names, with a hyphen after it.
            ignored: options of other libraries.

        Returns:
            The paths of the files.
        """
        outside = {token: n for token, n in self.added_tokens_encoder.items() if token not in self._vocab}
        contents = self._model_files() | {
            TOKENIZER: self.backend_tokenizer.to_str(pretty=True).encode(),
            SPECIAL: json_bytes(self.special_tokens_map),
        }
        if outside:
            contents[ADDED] = json_bytes(outside)
        contents[CONFIG] = json_bytes(self._written_settings())
        return write_tokenizer(save_directory, filename_prefix or "", contents)

    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes vocab.json and merges.txt only; returns their paths."""
        return write_tokenizer(save_directory, filename_prefix or "", self._model_files())

    def _model_files(self) -> dict[str, bytes]:
        vocab = dict(sorted(self._vocab.items(), key=lambda item: item[1]))
        return {VOCAB: json_bytes(vocab), MERGES: merge_text(self._merges)}

    def _written_settings(self) -> dict[str, Any]:
        return {
            "tokenizer_class": type(self).__name__,
            **self.special_tokens_map,
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "clean_up_tokenization_spaces": False,
            "added_tokens_decoder": {
                str(number): {"content": token.content, **{flag: getattr(token, flag) for flag in FLAGS}}
                for number, token in self.added_tokens_decoder.items()
            },
        }

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool = False,
    ) -> Any:
        """Returns the text that ids stand for, or the texts of many rows.

        Args:
            token_ids: one id, a list or array of them, or rows of these, in any framework.
            skip_special_tokens: whether special tokens are left out.
            clean_up_tokenization_spaces: whether spaces before English punctuation go; None: no.
            spaces_between_special_tokens: False is what there is: a text is the same after `encode` and `decode`.

        Raises:
            InputError: an id is none.
        """
        if spaces_between_special_tokens:
            raise InputError("spaces_between_special_tokens: True, expected False")
        ids = as_lists(token_ids.get("input_ids") if isinstance(token_ids, Mapping) else token_ids)
        if isinstance(ids, list | tuple) and ids and all(isinstance(as_lists(row), list | tuple) for row in ids):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        row = list(ids) if isinstance(ids, list | tuple) else [ids]
        numbers = [self._known(as_lists(number)) for number in row]
        skipped = self._skipped() if skip_special_tokens else frozenset()
        text = self._text_of([number for number in numbers if number not in skipped])
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def decode_stream(
        self, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> DecodeStream:
        """Returns a decoder for ids that come one by one; the arguments are those of `decode`."""
        skipped = self._skipped() if skip_special_tokens else frozenset()
        return DecodeStream(self, skipped, bool(clean_up_tokenization_spaces))

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **options: Any) -> list[str]:
        """Returns the text of each row."""
        if as_lists(sequences) in ([], ()):
            return []
        texts = self.decode(sequences, skip_special_tokens, **options)
        return [texts] if isinstance(texts, str) else texts

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Returns the text that tokens stand for."""
        require_tokens(tokens)
        return self._text_of([self._known(number) for number in self.convert_tokens_to_ids(tokens)])

    @staticmethod
    def clean_up_tokenization(text: str) -> str:
        """Returns a text without the spaces that English does not have."""
        for spaced, closed in CLEANED.items():
            text = text.replace(spaced, closed)
        return text

    def _known(self, number: Any) -> int:
        if type(number) is not int or not 0 <= number < len(self):
            self._token_of(number)  # says what is wrong
            return int(number)
        return number

    @property
    def max_len_single_sentence(self) -> int:
        """How many tokens a text can have beside the special ones."""
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        """How many tokens two texts can have together beside the special ones."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    @property
    def merges(self) -> list[tuple[str, str]]:
        """Pairs of tokens that are merged, the first of them first."""
        return list(self._merges)

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """All of it as one Rust tokenizer."""
        key = "whole", self.add_prefix_space
        if key not in self._backends:
            self._backends[key] = self._finished(self.add_prefix_space, False)
        self._backends[key].post_processor = self._template()
        return self._backends[key]

    @property
    def is_fast(self) -> bool:
        """Whether tokens can be traced back to the characters of the text."""
        return self.finds_characters

    def _backend(self, prefixed: bool, plain: bool) -> Tokenizer:
        if (prefixed, plain) not in self._backends:
            self._backends[prefixed, plain] = self._finished(prefixed, plain)
        return self._backends[prefixed, plain]

    def _finished(self, prefixed: bool, plain: bool) -> Tokenizer:
        backend = self._bare(prefixed)
        for token in self.added_tokens_decoder.values():
            tell(backend, token)
        backend.encode_special_tokens = plain
        return backend

    def __getstate__(self) -> dict[str, Any]:
        """A copy shares nothing that changes; the Rust tokenizers are made again when they are needed."""
        return {name: copy(value) for name, value in self.__dict__.items()} | {"_backends": {}}

    def __repr__(self) -> str:
        kind = f"{type(self).__name__}({len(self)} tokens, {len(self._added)} of them added"
        return f"{kind}, special: {', '.join(map(repr, self.all_special_tokens)) or 'none'})"


def _described(token: Any) -> Any:
    return added_token(token["content"], token) if isinstance(token, dict) else token


def read_pretrained(path: str | Path, settings: Mapping[str, Any]) -> tuple[Stored, dict[str, Any]]:
    """Reads the files that a name or path stands for.

    Returns:
        What they say, and the settings without those that say where they are.
    """
    options, given = take_options(settings)
    directory = resolve(path, "tokenizer", options)
    if not directory.is_dir():
        expected = f"a directory with {VOCAB} and {MERGES}, or {TOKENIZER}"
        raise CheckpointError(f"{directory}: a file, expected {expected}")
    return read_tokenizer(directory), {name: value for name, value in given.items() if name not in _HARMLESS}


def stored_pair(vocab: Any, merges: Any) -> Stored:
    """Reads what a constructor is given; the other of the two files is named if it is missing."""
    if vocab is None or merges is None:
        absent = "vocab_file" if vocab is None else "merges_file"
        raise InputError(f"{absent}: None, expected a path, or what such a file holds")
    return read_pair(vocab, merges)


def require_parts(stored: Stored, checks: Mapping[str, Callable[[Any], bool]], family: str) -> None:
    """Checks the parts of a tokenizer.json.

    Raises:
        CheckpointError: lists every part that `family` does not have.
    """
    problems = [
        f"{TOKENIZER}: {name}: {shown(stored.model.get(name), 120)}, which {family} does not have"
        for name, accepts in checks.items()
        if not accepts(stored.model.get(name))
    ]
    if problems and stored.model:
        raise CheckpointError.listing(stored.place, problems)
