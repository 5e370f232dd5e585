"""GPT's tokenizer: byte pair encoding of lower-case words, prepared as the paper did or as BERT does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from tokenizers import Encoding, Tokenizer
from tokenizers.decoders import BPEDecoder
from tokenizers.models import BPE
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from gptzoo._settings import Rule, one_of, optional
from gptzoo._vocabulary import END_OF_WORD
from gptzoo.errors import CheckpointError
from gptzoo.tokenization._arguments import Call, require_characters
from gptzoo.tokenization._base import PreTrainedTokenizer, require_parts, stored_pair
from gptzoo.tokenization._files import Stored, read_tokenizer_file
from gptzoo.tokenization._preparation import announce, available, require, words

UNKNOWN = "<unk>"

# Preparations by ftfy and spaCy -> their options.
VARIANTS: dict[str, dict[str, bool]] = {
    "paper": {},
    "transformers": {"pad_backslashes": True, "lower_first": True},
}


class OpenAIGPTTokenizer(PreTrainedTokenizer):
    """GPT's tokenizer. It makes everything lower-case, and does not tell one kind of white space from another.

    Args:
        vocab_file: path of vocab.json, or token -> id.
        merges_file: path of merges.txt, or a list of pairs.
        unk_token: stands for what the vocabulary has no token for.
        preparation: how a text becomes words. "paper": mended by ftfy and split by spaCy, which `gptzoo[gpt1-paper]`
            brings, as OpenAI did. "transformers": the same as Transformers 4's OpenAIGPTTokenizer had it, which made
            texts lower-case first and put spaces around backslashes. "bert": accents go and punctuation is split, as
            Transformers 5 does. None: "paper" if ftfy and spaCy are installed, else "bert"; a line in the log says so.
        settings: as of `GPT2Tokenizer`: other special tokens, `model_max_length`, sides, names of inputs.

    Raises:
        CheckpointError: a file cannot be read; or lists every wrong entry.
        InputError: lists every setting with a wrong value, or of a name that means nothing.
        MissingExtraError: "paper" is asked for, and ftfy or spaCy is not installed.
    """

    settings: ClassVar[dict[str, Rule]] = PreTrainedTokenizer.settings | {
        "preparation": optional(one_of("bert", *VARIANTS)),
    }
    defaults: ClassVar[dict[str, Any]] = PreTrainedTokenizer.defaults | {
        "unk_token": UNKNOWN,
        "preparation": None,
    }

    def __init__(
        self,
        vocab_file: Any = None,
        merges_file: Any = None,
        unk_token: Any = UNKNOWN,
        *,
        preparation: str | None = None,
        **settings: Any,
    ):
        vocab, merges = settings.pop("vocab", vocab_file), settings.pop("merges", merges_file)  # Transformers 5's names
        settings |= {"unk_token": unk_token, "preparation": preparation}
        self._build(stored_pair(vocab, merges), settings)

    def _configure(self, values: Mapping[str, Any]) -> None:
        self.preparation: str = values["preparation"] or ("paper" if available() else "bert")
        if self.preparation != "bert":
            require()
        if values["preparation"] is None:
            announce(self.preparation)

    @property
    def finds_characters(self) -> bool:  # type: ignore[override]
        """Whether tokens can be traced back to the text, which the paper's preparation changes."""
        return self.preparation == "bert"

    @property
    def do_lower_case(self) -> bool:
        """True: GPT has no upper case."""
        return True

    def _require_model(self, stored: Stored) -> None:
        if not any(token.endswith(END_OF_WORD) for token in stored.vocab):
            what = f"no token ends in {END_OF_WORD}, as those of GPT do"
            raise CheckpointError(f"{stored.place}: {what}; GPT-2's vocabulary is for GPT2Tokenizer")
        require_parts(stored, _PARTS, "GPT")

    def _bare(self, prefixed: bool) -> Tokenizer:
        model = BPE(self._vocab, self._merges, continuing_subword_prefix="", end_of_word_suffix=END_OF_WORD)
        if self.unk_token not in self._vocab:
            raise CheckpointError(f"{self._place}: unk_token {self.unk_token!r} is not in the vocabulary")
        model.unk_token = self.unk_token
        backend = Tokenizer(model)
        backend.normalizer = BertNormalizer(lowercase=True)
        backend.pre_tokenizer = BertPreTokenizer()
        backend.decoder = BPEDecoder(suffix=END_OF_WORD)
        return backend

    def _text_of(self, ids: list[int]) -> str:
        text: str = self._backend(False, False).decode(ids, skip_special_tokens=False)
        return text

    def _piece(self, number: int, last: bool) -> bytes:
        return self._tokens[number].replace(END_OF_WORD, "" if last else " ").encode()

    def _split(self, texts: list[Any], call: Call, in_words: bool) -> list[Encoding]:
        if self.preparation == "bert":
            return super()._split(texts, call, in_words)
        require_characters(texts)
        parts = [text if in_words else [text] for text in texts]
        prepared = [[word for part in text for word in self._words(part, call)] for text in parts]
        return self._backend_of_words(call.plain).encode_batch(prepared, is_pretokenized=True, add_special_tokens=False)

    def _words(self, text: str, call: Call) -> list[str]:
        """Returns the words of a text as the paper prepared it, and its added tokens as they are."""
        if call.plain or not self._added:
            return words(text, **VARIANTS[self.preparation])
        added, found = self.added_tokens_encoder, list[str]()
        for part in self._pattern().split(text):
            found += [part] if part in added else words(part, **VARIANTS[self.preparation])
        return found

    def _pattern(self) -> re.Pattern[str]:
        """Finds added tokens, the longest of those that begin at a place."""
        contents = sorted(self.added_tokens_encoder, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, contents))})")

    def _backend_of_words(self, plain: bool) -> Tokenizer:
        """The Rust tokenizer for words that are prepared already."""
        if ("words", plain) not in self._backends:
            backend = self._finished(False, plain)
            backend.normalizer, backend.pre_tokenizer = None, None
            self._backends["words", plain] = backend
        return self._backends["words", plain]

    def _written_settings(self) -> dict[str, Any]:
        return super()._written_settings() | {"preparation": self.preparation}


class OpenAIGPTTokenizerFast(OpenAIGPTTokenizer):
    """The same under its older name, with its order of arguments; texts are always prepared as BERT does.

    Args:
        vocab_file, merges_file, unk_token, settings: as of `OpenAIGPTTokenizer`.
        tokenizer_file: path of a tokenizer.json in place of the first two.
    """

    defaults: ClassVar[dict[str, Any]] = OpenAIGPTTokenizer.defaults | {"preparation": "bert"}

    def __init__(
        self,
        vocab_file: Any = None,
        merges_file: Any = None,
        tokenizer_file: Any = None,
        unk_token: Any = UNKNOWN,
        **settings: Any,
    ):
        settings |= {"unk_token": unk_token, "preparation": "bert"}
        if tokenizer_file is None:
            super().__init__(vocab_file, merges_file, **settings)
        else:
            self._build(read_tokenizer_file(tokenizer_file), settings)


def _prepares_like_bert(part: Any) -> bool:
    if not isinstance(part, dict) or part.get("type") != "BertNormalizer":
        return False
    wanted = all(part.get(name, True) is True for name in ("clean_text", "handle_chinese_chars", "lowercase"))
    return wanted and part.get("strip_accents") is not False


def _is_bpe_of_words(model: Any) -> bool:
    if not isinstance(model, dict) or model.get("end_of_word_suffix") != END_OF_WORD:
        return False
    return not any(
        model.get(name)
        for name in ("dropout", "continuing_subword_prefix", "byte_fallback", "ignore_merges", "fuse_unk")
    )


def _adds_nothing(part: Any) -> bool:
    return part is None or (
        isinstance(part, dict) and part.get("type") == "TemplateProcessing" and not part.get("special_tokens")
    )


# Part of a tokenizer.json -> whether it does what GPT's tokenizer does.
_PARTS = {
    "normalizer": _prepares_like_bert,
    "pre_tokenizer": lambda part: isinstance(part, dict) and part.get("type") == "BertPreTokenizer",
    "post_processor": _adds_nothing,
    "decoder": lambda part: isinstance(part, dict) and part.get("type") == "BPEDecoder",
    "model": _is_bpe_of_words,
}
