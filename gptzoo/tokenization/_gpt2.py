"""GPT-2's tokenizer: byte pair encoding of the bytes of a text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from gptzoo._settings import FLAG, Rule
from gptzoo._tensors import shown
from gptzoo._vocabulary import END_OF_TEXT, END_OF_WORD, KNOWN_PATTERNS
from gptzoo.errors import CheckpointError, InputError
from gptzoo.tokenization._base import PreTrainedTokenizer, require_parts, stored_pair
from gptzoo.tokenization._files import Stored, read_tokenizer_file


def byte_characters() -> dict[int, str]:
    """Returns the character that stands for each byte in GPT-2's vocabulary: its own if that can be seen."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {byte: chr(byte) for byte in seen} | {byte: chr(256 + n) for n, byte in enumerate(hidden)}


BYTES = {character: byte for byte, character in byte_characters().items()}


def _is_handler(value: Any) -> bool:
    """Whether it can be the `errors` of a decoding, which is tried: some are for encoding only."""
    try:
        return isinstance(value, str) and bool(b"\xffa".decode("utf-8", value))
    except UnicodeDecodeError:  # "strict"
        return True
    except (LookupError, TypeError, ValueError):
        return False


class GPT2Tokenizer(PreTrainedTokenizer):
    """GPT-2's tokenizer.

    A text is the same after `encode` and `decode`. A space belongs to the word that follows it.

    Args:
        vocab_file: path of vocab.json, or token -> id.
        merges_file: path of merges.txt, or a list of pairs.
        errors: what `decode` does with bytes that are no UTF-8, as of `bytes.decode`.
        unk_token, bos_token, eos_token, pad_token: are added to the vocabulary if it does not have them.
        add_prefix_space: whether a text that begins without a space gets one.
        add_bos_token: whether `bos_token` comes before each text.
        settings: `sep_token`, `cls_token`, `mask_token`, `additional_special_tokens`, `model_max_length`,
            `padding_side`, `truncation_side`, `model_input_names`.

    Raises:
        CheckpointError: a file cannot be read; or lists every wrong entry.
        InputError: lists every setting with a wrong value, or of a name that means nothing.
    """

    settings: ClassVar[dict[str, Rule]] = PreTrainedTokenizer.settings | {
        "errors": Rule("the name of an error handler of Python's codecs", _is_handler),
        "add_prefix_space": FLAG,
        "add_bos_token": FLAG,
    }
    defaults: ClassVar[dict[str, Any]] = PreTrainedTokenizer.defaults | {
        **dict.fromkeys(("unk_token", "bos_token", "eos_token"), END_OF_TEXT),
        "errors": "replace",
        "add_prefix_space": False,
        "add_bos_token": False,
    }

    def __init__(
        self,
        vocab_file: Any = None,
        merges_file: Any = None,
        errors: str = "replace",
        unk_token: Any = END_OF_TEXT,
        bos_token: Any = END_OF_TEXT,
        eos_token: Any = END_OF_TEXT,
        pad_token: Any = None,
        add_prefix_space: bool = False,
        add_bos_token: bool = False,
        **settings: Any,
    ):
        vocab, merges = settings.pop("vocab", vocab_file), settings.pop("merges", merges_file)  # Transformers 5's names
        settings |= {
            "errors": errors,
            "unk_token": unk_token,
            "bos_token": bos_token,
            "eos_token": eos_token,
            "pad_token": pad_token,
            "add_prefix_space": add_prefix_space,
            "add_bos_token": add_bos_token,
        }
        self._build(stored_pair(vocab, merges), settings)

    def _configure(self, values: Mapping[str, Any]) -> None:
        self.errors, self.add_prefix_space = values["errors"], values["add_prefix_space"]
        self.add_bos_token = values["add_bos_token"]

    def _require_model(self, stored: Stored) -> None:
        if any(token.endswith(END_OF_WORD) and token != END_OF_WORD for token in stored.vocab):
            raise CheckpointError(
                f"{stored.place}: a vocabulary of GPT (its tokens end in </w>): use OpenAIGPTTokenizer"
            )
        require_parts(stored, _PARTS, "GPT-2")

    def _bare(self, prefixed: bool) -> Tokenizer:
        model = BPE(self._vocab, self._merges, continuing_subword_prefix="", end_of_word_suffix="")
        if absent := [character for character in BYTES if character not in self._vocab]:
            if self.unk_token not in self._vocab:
                what = f"no token for {len(absent)} of the 256 bytes, such as {shown(absent[0])}"
                raise CheckpointError(f"{self._place}: {what}, and no unk_token in the vocabulary in their place")
            model.unk_token = self.unk_token
        backend = Tokenizer(model)
        backend.pre_tokenizer = ByteLevel(add_prefix_space=prefixed)
        backend.decoder = ByteLevelDecoder()
        return backend

    def _start(self) -> list[int]:
        return [self.bos_token_id] if self.add_bos_token and self.bos_token is not None else []

    def _text_of(self, ids: list[int]) -> str:
        try:
            return b"".join([self._bytes[number] for number in ids]).decode("utf-8", self.errors)
        except UnicodeDecodeError as problem:  # if `errors` is "strict"
            raise InputError(f"ids: not UTF-8 text ({problem.reason} at byte {problem.start})") from None

    def _piece(self, number: int, last: bool) -> bytes:
        return self._bytes[number]

    @cached_property
    def _bytes(self) -> list[bytes]:
        """The bytes of each token; those of an added one are its own, whatever its characters stand for elsewhere."""
        return [
            bytes(map(BYTES.__getitem__, token))
            if number not in self._added and BYTES.keys() >= set(token)
            else token.encode()
            for number, token in enumerate(self._tokens)
        ]

    def _forget(self) -> None:
        super()._forget()
        self.__dict__.pop("_bytes", None)

    def _written_settings(self) -> dict[str, Any]:
        own = ("errors", "add_prefix_space", "add_bos_token")
        return super()._written_settings() | {name: getattr(self, name) for name in own}

    @classmethod
    def _stored_settings(cls, stored: Stored) -> dict[str, Any]:
        """Also what only tokenizer.json says: the space before a text, and the token before it."""
        model = {}
        for part in _leaves(stored.model.get("pre_tokenizer")):
            if part.get("type") == "ByteLevel" and part.get("add_prefix_space"):
                model["add_prefix_space"] = True
        if any(
            part.get("type") == "TemplateProcessing" and part.get("special_tokens")
            for part in _leaves(stored.model.get("post_processor"))
        ):
            model["add_bos_token"] = True
        return super()._stored_settings(stored) | model


class GPT2TokenizerFast(GPT2Tokenizer):
    """The same under its older name, with its order of arguments.

    Args:
        vocab_file, merges_file: as of `GPT2Tokenizer`.
        tokenizer_file: path of a tokenizer.json in their place.
        unk_token, bos_token, eos_token, add_prefix_space, settings: as of `GPT2Tokenizer`.
    """

    def __init__(
        self,
        vocab_file: Any = None,
        merges_file: Any = None,
        tokenizer_file: Any = None,
        unk_token: Any = END_OF_TEXT,
        bos_token: Any = END_OF_TEXT,
        eos_token: Any = END_OF_TEXT,
        add_prefix_space: bool = False,
        **settings: Any,
    ):
        settings |= {
            "unk_token": unk_token,
            "bos_token": bos_token,
            "eos_token": eos_token,
            "add_prefix_space": add_prefix_space,
        }
        if tokenizer_file is None:
            super().__init__(vocab_file, merges_file, **settings)
        else:
            self._build(read_tokenizer_file(tokenizer_file), settings)


def _leaves(part: Any) -> list[dict[str, Any]]:
    """Returns the parts of a sequence of parts, or the only one."""
    if not isinstance(part, dict):
        return []
    inner = part.get("pretokenizers") or part.get("processors")
    return [leaf for one in inner for leaf in _leaves(one)] if isinstance(inner, list) else [part]


def _splits_like_gpt2(part: Any) -> bool:
    leaves = _leaves(part)
    if [leaf.get("type") for leaf in leaves] == ["ByteLevel"]:
        return leaves[0].get("use_regex", True) is True
    if [leaf.get("type") for leaf in leaves] != ["Split", "ByteLevel"] or leaves[1].get("use_regex") is not False:
        return False
    split = leaves[0]
    known = isinstance(split.get("pattern"), dict) and split["pattern"].get("Regex") in KNOWN_PATTERNS
    return known and split.get("behavior") == "Isolated" and not split.get("invert")


def _adds_at_most_bos(part: Any) -> bool:
    leaves = _leaves(part)
    if part is not None and not leaves:
        return False
    return all(leaf.get("type") == "ByteLevel" or _is_bos_template(leaf) for leaf in leaves)


def _is_bos_template(leaf: Any) -> bool:
    single = leaf.get("single")
    if leaf.get("type") != "TemplateProcessing" or not isinstance(single, list):
        return False
    kinds = [next(iter(piece), None) if isinstance(piece, dict) else None for piece in single]
    return kinds in (["Sequence"], ["SpecialToken", "Sequence"])


def _is_plain_bpe(model: Any) -> bool:
    empty = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges", "fuse_unk")
    return isinstance(model, dict) and not any(model.get(name) for name in empty)


# Part of a tokenizer.json -> whether it does what GPT-2's tokenizer does.
_PARTS = {
    "normalizer": lambda part: part is None,
    "pre_tokenizer": _splits_like_gpt2,
    "post_processor": _adds_at_most_bos,
    "decoder": lambda part: isinstance(part, dict) and part.get("type") == "ByteLevel",
    "model": _is_plain_bpe,
}
