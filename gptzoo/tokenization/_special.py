"""Special and added tokens: which there are, what each is for, and how new ones come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer

from gptzoo._settings import short, whole
from gptzoo._vocabulary import is_text
from gptzoo.errors import InputError

# What a token can be for, in the order in which Transformers adds them.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA = ("additional_special_tokens", "extra_special_tokens")  # any number, under its older and its newer name


def _token(role: str) -> Any:
    def get(self: SpecialTokens) -> str | None:
        return self._roles.get(role)

    def put(self: SpecialTokens, token: str | AddedToken | None) -> None:
        self._assign(role, token)

    return property(get, put, doc=f"The {role.replace('_', ' ')}, or None. It has to be in the vocabulary.")


def _id(role: str) -> Any:
    def get(self: SpecialTokens) -> int | None:
        token = self._roles.get(role)
        return None if token is None else self._id_of(token)

    def put(self: SpecialTokens, number: int | None) -> None:
        self._assign(role, None if number is None else self._token_of(number))

    return property(get, put, doc=f"The id of the {role.replace('_', ' ')}, or None.")


class SpecialTokens:
    """The vocabulary of a tokenizer: that of its model, and the tokens that were added to it.

    Added tokens, special ones among them, are found in a text before it is split, and kept whole.
    """

    _vocab: dict[str, int]
    _added: dict[int, AddedToken]
    _roles: dict[str, str]
    _extra: list[str]
    _backends: dict[Any, Tokenizer]

    bos_token, bos_token_id = _token("bos_token"), _id("bos_token")
    eos_token, eos_token_id = _token("eos_token"), _id("eos_token")
    unk_token, unk_token_id = _token("unk_token"), _id("unk_token")
    sep_token, sep_token_id = _token("sep_token"), _id("sep_token")
    pad_token, pad_token_id = _token("pad_token"), _id("pad_token")
    cls_token, cls_token_id = _token("cls_token"), _id("cls_token")
    mask_token, mask_token_id = _token("mask_token"), _id("mask_token")
    pad_token_type_id = 0

    def __len__(self) -> int:
        """The number of all tokens, those added included: the `vocab_size` that a model needs."""
        return len(self._vocab) + sum(number >= len(self._vocab) for number in self._added)

    def __bool__(self) -> bool:
        return True  # whatever its length

    @property
    def vocab_size(self) -> int:
        """The number of tokens without those added to the vocabulary."""
        return len(self._vocab)

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id, those added included."""
        return dict(self._ids)

    def get_vocab(self) -> dict[str, int]:
        """Returns token -> id, those added included."""
        return self.vocab

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Id -> token, of those that are kept whole; special tokens of the vocabulary are among them."""
        return dict(sorted(self._added.items()))

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Token -> id, of those that are kept whole."""
        return {token.content: number for number, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self) -> dict[str, int]:
        """Returns token -> id, of those that are kept whole."""
        return self.added_tokens_encoder

    @property
    def special_tokens_map(self) -> dict[str, str | list[str]]:
        """What for -> token."""
        roles: dict[str, str | list[str]] = {role: self._roles[role] for role in ROLES if role in self._roles}
        return roles | ({EXTRA[0]: list(self._extra)} if self._extra else {})

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens that are for none of the usual things; those that are new join the vocabulary."""
        return list(self._extra)

    @additional_special_tokens.setter
    def additional_special_tokens(self, tokens: list[str | AddedToken]) -> None:
        self.add_special_tokens({EXTRA[0]: tokens})

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        """The ids of `additional_special_tokens`."""
        return [self._id_of(token) for token in self._extra]

    extra_special_tokens = additional_special_tokens  # its newer name
    extra_special_tokens_ids = additional_special_tokens_ids

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once."""
        return list(dict.fromkeys([*(self._roles[role] for role in ROLES if role in self._roles), *self._extra]))

    @property
    def all_special_ids(self) -> list[int]:
        """The id of every special token."""
        return [self._id_of(token) for token in self.all_special_tokens]

    def add_tokens(
        self, new_tokens: str | AddedToken | Iterable[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Adds tokens that are from now on found in a text before it is split; those that are there already stay.

        A model needs `resize_token_embeddings(len(tokenizer))` afterwards.

        Args:
            new_tokens: one or many.
            special_tokens: whether `skip_special_tokens` leaves them out.

        Returns:
            How many the vocabulary did not have.
        """
        tokens = [new_tokens] if isinstance(new_tokens, str | AddedToken) else new_tokens
        if not isinstance(tokens, Iterable):
            raise InputError(f"new_tokens: {short(tokens)}, expected a token or a list of them")
        checked = [_checked(token, special_tokens) for token in tokens]  # all of them before any comes in
        known = {token.content for token in self._added.values()}
        return sum([self._add(token, known) for token in checked])

    def _add(self, token: AddedToken, known: set[str]) -> bool:
        number = self._vocab.get(token.content)
        is_new = number is None and token.content not in known
        if token.content not in known:
            known.add(token.content)
            self._register(len(self) if number is None else number, token)
        return is_new

    def _register(self, number: int, token: AddedToken) -> None:
        self._added[number] = token
        for backend in self._backends.values():
            tell(backend, token)
        self._forget()

    def _forget(self) -> None:
        """Drops what was computed from the vocabulary."""
        for name in ("_ids", "_tokens"):
            self.__dict__.pop(name, None)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return self._vocab | self.added_tokens_encoder

    @cached_property
    def _tokens(self) -> list[str]:
        return sorted(self._ids, key=self._ids.__getitem__)

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """Adds special tokens, and says what each is for.

        Args:
            special_tokens_dict: `bos_token`, `eos_token`, `unk_token`, `sep_token`, `pad_token`, `cls_token` or
                `mask_token` -> a token; `additional_special_tokens` -> a list of them.
            replace_extra_special_tokens: whether that list takes the place of the one before, or joins it.

        Returns:
            How many the vocabulary did not have.

        Raises:
            InputError: an unknown key, or a value that is no token.
        """
        if not isinstance(special_tokens_dict, Mapping):
            raise InputError(f"special_tokens_dict: {short(special_tokens_dict)}, expected a map")
        if unknown := [key for key in special_tokens_dict if key not in (*ROLES, *EXTRA)]:
            raise InputError(
                f"special_tokens_dict: {short(unknown[0])}, expected one of {', '.join((*ROLES, EXTRA[0]))}"
            )
        given = {key: _listed(key, value) if key in EXTRA else [value] for key, value in special_tokens_dict.items()}
        tokens = {key: [_checked(token, special=True) for token in values] for key, values in given.items()}
        added = 0
        for key, values in tokens.items():
            added += self.add_tokens(values, special_tokens=True)
            names = [token.content for token in values]
            if key in ROLES:
                self._roles[key] = names[0]
            else:
                self._extra = list(dict.fromkeys([*([] if replace_extra_special_tokens else self._extra), *names]))
        return added

    def _assign(self, role: str, token: str | AddedToken | None) -> None:
        if token is None:
            self._roles.pop(role, None)
            return
        name = token.content if isinstance(token, AddedToken) else token
        if not isinstance(name, str) or name not in self._ids:
            advice = f"add_special_tokens({{{role!r}: {name!r:.60}}}) adds it"
            raise InputError(f"{role}: {short(name)} is not in the vocabulary; {advice}")
        self._roles[role] = name

    def _id_of(self, token: str) -> int:
        return self._ids[token]

    def _token_of(self, number: Any) -> str:
        index = whole(number)
        if index is None or not 0 <= index < len(self):
            raise InputError(f"ids: {short(number)}, expected whole numbers from 0 below {len(self)}")
        return self._tokens[index]


def tell(backend: Tokenizer, token: AddedToken) -> None:
    (backend.add_special_tokens if token.special else backend.add_tokens)([token])


def _listed(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{key}: {short(value)}, expected a list of tokens")
    return list(value)


def _checked(token: Any, special: bool) -> AddedToken:
    """Returns a token with its settings; a special one is looked for in the text before that is normalized."""
    if isinstance(token, AddedToken):
        content, special = token.content, special or token.special
        flags = {name: getattr(token, name) for name in ("lstrip", "rstrip", "single_word", "normalized")}
    else:
        content, flags = token, {"normalized": not special}
    if not content or not is_text(content):
        raise InputError(f"token: {short(content)}, expected a text of at least one character")
    return AddedToken(content, special=special, **flags)
