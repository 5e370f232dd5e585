"""GPT's and GPT-2's tokenizers as layers: strings in, token ids out, in a `tf.data` pipeline or a saved model."""

from __future__ import annotations

from typing import Any

import keras

from gptzoo._settings import FLAG, short
from gptzoo._vocabulary import END_OF_WORD
from gptzoo.errors import InputError
from gptzoo.keras._tokenizer_bert import normalized, preparation, symbols
from gptzoo.keras._tokenizer_layer import OPTIONS, TextLayer
from gptzoo.keras._tokenizer_tables import character_classes


@keras.saving.register_keras_serializable("gptzoo")
class GPT2Tokenizer(TextLayer):
    """GPT-2's tokenizer as a layer: the ids are those of `gptzoo.GPT2Tokenizer`, for every text.

    Args:
        vocab, merges, options: as of `TextLayer`.
        add_prefix_space: whether text that does not begin with a space gets one; so does text after a token that is
            kept whole.

    Raises:
        InputError: lists what is wrong with the arguments.
    """

    suffix = ""
    expected = {  # noqa: RUF012
        "normalizer": (None,),
        "pre_tokenizer.type": ("ByteLevel",),
        "pre_tokenizer.use_regex": (None, True),
        "model.end_of_word_suffix": (None, ""),
    }
    copied = {"add_prefix_space": "pre_tokenizer.add_prefix_space"}  # noqa: RUF012
    options = (*OPTIONS, "add_prefix_space")

    def __init__(self, vocab: Any, merges: Any, *, add_prefix_space: bool = False, **options: Any):
        super().__init__(vocab, merges, **options)
        if not FLAG.accepts(add_prefix_space):
            raise InputError(f"add_prefix_space: {short(add_prefix_space)}, expected true or false")
        self.add_prefix_space = add_prefix_space

    @classmethod
    def _original(cls) -> Any:
        from gptzoo.tokenization import GPT2Tokenizer as Original

        return Original

    def _segments(self, parts: Any) -> Any:
        from gptzoo.keras import _tokenizer_graph as graph

        parts = graph.split_out(parts, self.vocabulary.late, len(self.vocabulary.first))
        return graph.prefix_space(parts) if self.add_prefix_space else parts

    def _pieces(self, parts: Any) -> tuple[Any, Any]:
        from gptzoo.keras import _tokenizer_graph as graph

        return graph.gpt2_pieces(parts, character_classes())

    def _symbols(self, pieces: Any) -> tuple[Any, Any]:
        from gptzoo.keras import _tokenizer_graph as graph

        return graph.byte_ids(pieces, self.vocabulary.byte_ids(self.unk_token_id))


@keras.saving.register_keras_serializable("gptzoo")
class OpenAIGPTTokenizer(TextLayer):
    """GPT's tokenizer as a layer: the ids are those of `gptzoo.OpenAIGPTTokenizerFast`, for every text.

    Texts are prepared as BERT does. The paper's own preparation, by ftfy and spaCy, has no place in a graph.

    Args:
        vocab, merges, options: as of `TextLayer`.

    Raises:
        InputError: lists what is wrong with the arguments.
    """

    suffix = END_OF_WORD
    expected = {  # noqa: RUF012
        "normalizer.type": ("BertNormalizer",),
        "normalizer.clean_text": (True,),
        "normalizer.handle_chinese_chars": (True,),
        "normalizer.strip_accents": (None, True),
        "normalizer.lowercase": (True,),
        "pre_tokenizer.type": ("BertPreTokenizer",),
        "model.end_of_word_suffix": (END_OF_WORD,),
    }

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, **options: Any) -> OpenAIGPTTokenizer:
        if getattr(tokenizer, "preparation", "bert") != "bert":
            raise InputError(f"preparation: {tokenizer.preparation}, expected bert, as of OpenAIGPTTokenizerFast")
        return super().from_tokenizer(tokenizer, **options)

    @classmethod
    def _original(cls) -> Any:
        from gptzoo.tokenization import OpenAIGPTTokenizerFast

        return OpenAIGPTTokenizerFast

    def _segments(self, parts: Any) -> Any:
        from gptzoo.keras import _tokenizer_graph as graph

        known = self.vocabulary
        parts = graph.bert_prepared(parts, preparation())
        return graph.split_out(parts, [normalized(content) for content in known.late], len(known.first))

    def _pieces(self, parts: Any) -> tuple[Any, Any]:
        from gptzoo.keras import _tokenizer_graph as graph

        return graph.bert_pieces(parts, preparation().kinds)

    def _symbols(self, pieces: Any) -> tuple[Any, Any]:
        from gptzoo.keras import _tokenizer_graph as graph

        ids, unknown = self.vocabulary.ids, -1 if self.unk_token_id is None else self.unk_token_id
        return graph.character_ids(pieces, symbols(ids, ""), symbols(ids, END_OF_WORD), unknown)
