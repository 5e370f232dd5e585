"""What the tokenizers in a graph share: how they are made and saved, cut and fill up; steps are left to each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import keras

from gptzoo._settings import FLAG, is_int, short
from gptzoo.errors import InputError, MissingExtraError
from gptzoo.keras._tokenizer_vocabulary import Vocabulary, read_tokenizer

SIDES = ("right", "left")
UTF8_ERRORS = ("strict", "replace", "ignore")
OPTIONS = (
    "max_length",
    "pad_token_id",
    "padding_side",
    "truncation_side",
    "ragged",
    "bos_token_id",
    "unk_token_id",
    "errors",
)
OTHERS = ("added_tokens", "name", "dtype", "trainable")
OUTPUTS = ("input_ids", "attention_mask")


class TextLayer(keras.layers.Layer):
    """Base of the tokenizers in a graph, on TensorFlow's operations, whatever Keras' backend.

    They hold no file and no table that has to be initialised: a SavedModel with one needs TensorFlow alone.

    Args:
        vocab: token -> id, as in vocab.json.
        merges: pairs of tokens, or texts of two with a space between, in their order.
        added_tokens: tokens that are kept whole, as `added_tokens` of a tokenizer.json has them: `id`, `content`, and
            `normalized`, which if true are looked for after the others. None: the tokens that no text can become, which
            are `<|endoftext|>` and `<unk>`.
        max_length: longer texts are cut to it, and shorter ones filled up; None: nothing is cut, and the longest text
            of a batch says how long the others get.
        pad_token_id: what shorter texts are filled up with; the mask is 0 there, and 1 at every token of a text, of
            whatever id.
        padding_side: "right" or "left".
        truncation_side: from which side a text is cut.
        ragged: whether to return a `tf.RaggedTensor` of ids and of masks, where nothing is filled up.
        bos_token_id: put before every text, and never cut; None: nothing is.
        unk_token_id: of what the vocabulary lacks; None: it is left out.
        errors: what becomes of bytes that are not UTF-8, as of `bytes.decode`: "strict" (an InputError, or in a graph
            TensorFlow's InvalidArgumentError), "replace" (by U+FFFD) or "ignore".
        kwargs: `name` and `dtype`, int32 or int64, as of every Keras layer.

    Raises:
        InputError: lists what is wrong with the arguments.
    """

    suffix: ClassVar[str]  # of tokens that end a word
    expected: ClassVar[dict[str, tuple[Any, ...]]]  # this and the next as of `read_tokenizer`
    copied: ClassVar[dict[str, str]] = {}
    options: ClassVar[tuple[str, ...]] = OPTIONS

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]] | Sequence[str],
        *,
        added_tokens: Iterable[Mapping[str, Any]] | None = None,
        max_length: int | None = None,
        pad_token_id: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        ragged: bool = False,
        bos_token_id: int | None = None,
        unk_token_id: int | None = None,
        errors: str = "strict",
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "int32", **kwargs})
        self.vocabulary = Vocabulary(vocab, merges, added_tokens, self.suffix)
        self.max_length = max_length
        self.pad_token_id = pad_token_id
        self.padding_side = padding_side
        self.truncation_side = truncation_side
        self.ragged = ragged
        self.bos_token_id = bos_token_id
        self.unk_token_id = unk_token_id
        self.errors = errors
        if problems := self._faults():
            raise InputError.listing(type(self).__name__, problems)
        # As of Keras' own layers of strings: inputs stay TensorFlow's on every backend, and XLA knows no strings.
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self.supports_jit = False
        self.built = True

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, **options: Any) -> Self:
        """Makes a layer that does what a tokenizer does.

        Args:
            tokenizer: of gptzoo or Transformers, or a `tokenizers.Tokenizer`.
            options: arguments of the class that win over what the tokenizer says.

        Raises:
            InputError: lists what the tokenizer does and the layer cannot.
        """
        return cls(**{**cls._read(tokenizer), **options})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Makes a layer from the tokenizer of a checkpoint.

        Args:
            pretrained_model_name_or_path: as of `gptzoo.AutoTokenizer.from_pretrained`.
            options: arguments of the class, which win over the files; the others go to the tokenizer, such as
                `pad_token="<pad>"` or `revision`.

        Raises:
            CheckpointError: the files are missing or wrong.
            InputError: lists what the tokenizer does and the layer cannot, or options that mean nothing.
        """
        own = {name: options.pop(name) for name in (*cls.options, *OTHERS) if name in options}
        return cls.from_tokenizer(cls._original().from_pretrained(pretrained_model_name_or_path, **options), **own)

    @classmethod
    def _original(cls) -> Any:
        """Returns the class of the tokenizer, which needs `tokenizers` where models do not."""
        raise NotImplementedError

    @classmethod
    def _read(cls, tokenizer: Any) -> dict[str, Any]:
        """Returns a tokenizer as arguments of the class."""
        return read_tokenizer(tokenizer, cls.expected, cls.copied)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Tokenizes texts: see `call`."""
        try:
            return super().__call__(*args, **kwargs)
        except InputError as problem:  # which Keras has wrapped in a page on the call's arguments
            cause = problem.__context__
            error = cause if isinstance(cause, InputError) else problem
        raise error

    @property
    def vocab(self) -> dict[str, int]:
        """Token -> id."""
        return self.vocabulary.ids

    @property
    def merges(self) -> list[tuple[str, str]]:
        """Pairs of tokens, in their order."""
        return self.vocabulary.merges

    def call(self, x: Any, max_length: int | None = None) -> dict[str, Any]:
        """Tokenizes texts.

        Args:
            x: strings, (B,) or one; they are UTF-8.
            max_length: in place of the layer's.

        Returns:
            `input_ids` and `attention_mask`, (B, T) or (T,), dense or ragged as the layer's `ragged` says.
        """
        tf = tensorflow()
        texts, length = self._strings(x), self._length(max_length)
        with tf.device("CPU:0"):  # no other device has strings
            ids, rows = self.tokenize(tf.reshape(texts, (-1,)))
            found = self._shaped(ids, rows, tf.size(texts), length)
        return {name: array if texts.shape.rank else array[0] for name, array in found.items()}

    def tokenize(self, texts: Any) -> tuple[Any, Any]:
        """Returns the ids of texts (B,), one after another, neither cut nor filled up, and the text of each."""
        from gptzoo.keras import _tokenizer_graph as graph

        tf = tensorflow()
        known = self.vocabulary
        try:
            texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors=self.errors)
        except tf.errors.InvalidArgumentError:  # in a graph it comes later, and as it is
            raise InputError(f"x: {short(texts.numpy())}, expected UTF-8, or errors='replace'") from None
        parts = self._segments(graph.split_out(graph.segments(texts), known.first, 0))
        pieces, segment = self._pieces(parts)
        different, piece = tf.unique(pieces)
        tokens = graph.merge(*self._symbols(different), tf.size(different), known.table)
        rows, whole = (tf.gather(column, segment) for column in (parts.row, parts.token))
        return graph.assemble(tokens, piece, rows, known.kept, whole)

    def _segments(self, parts: Any) -> Any:
        """Returns segments with the text prepared, and with the last tokens split out."""
        raise NotImplementedError

    def _pieces(self, parts: Any) -> tuple[Any, Any]:
        """Returns the pieces that are merged each for itself, and the segment of each."""
        raise NotImplementedError

    def _symbols(self, pieces: Any) -> tuple[Any, Any]:
        """Returns the tokens that merging begins with, and the piece of each."""
        raise NotImplementedError

    def compute_output_spec(self, x: Any, max_length: int | None = None) -> dict[str, Any]:
        """Returns shapes and dtypes of a symbolic call."""
        length = self._length(max_length)
        ragged = self._is_ragged(length)
        shape = (*x.shape, None if ragged else length)
        return {name: keras.KerasTensor(shape, self.compute_dtype, ragged=ragged) for name in OUTPUTS}

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` takes: all of the arguments."""
        known = self.vocabulary
        made_of = {"vocab": known.ids, "merges": [list(pair) for pair in known.merges], "added_tokens": known.added}
        return {**super().get_config(), **made_of, **{name: getattr(self, name) for name in self.options}}

    def _shaped(self, ids: Any, rows: Any, batch: Any, length: int | None) -> dict[str, Any]:
        """Cuts and fills up the ids of texts, and returns them with their masks."""
        from gptzoo.keras import _tokenizer_graph as graph

        tf = tensorflow()
        start = self.bos_token_id
        if length is not None:
            ids, rows = graph.cut(ids, rows, batch, length - (start is not None), self.truncation_side)
        if start is not None:
            ids, rows = graph.start_with(start, ids, rows, batch)
        found = graph.ragged(tf.cast(ids, self.compute_dtype), rows, batch)
        if self._is_ragged(length):
            return dict(zip(OUTPUTS, (found, tf.ones_like(found)), strict=True))
        width = found.bounding_shape(axis=1) if length is None else length
        dense = graph.filled(found.values, found.row_lengths(), width, self.pad_token_id, self.padding_side)
        return dict(zip(OUTPUTS, dense, strict=True))

    def _is_ragged(self, length: int | None) -> bool:
        return self.ragged

    def _strings(self, x: Any) -> Any:
        """Returns texts as a tensor."""
        tf = tensorflow()
        try:
            texts = tf.convert_to_tensor(x, tf.string)
        except (TypeError, ValueError, UnicodeError, tf.errors.InvalidArgumentError):
            raise InputError(f"x: {short(x)}, expected strings") from None
        if texts.shape.rank not in (0, 1):
            raise InputError(f"x: shape {tuple(texts.shape)}, expected (B,), or one string")
        return texts

    def _length(self, given: int | None) -> int | None:
        length = self.max_length if given is None else given
        if fault := length_fault(length):
            raise InputError(fault)
        return length

    def _faults(self) -> list[str]:
        """Lists what is wrong with the options."""
        problems = [fault] if (fault := length_fault(self.max_length)) else []
        for name, known in (("padding_side", SIDES), ("truncation_side", SIDES), ("errors", UTF8_ERRORS)):
            if getattr(self, name) not in known:
                problems.append(f"{name}: {short(getattr(self, name))}, expected one of {', '.join(known)}")
        if not FLAG.accepts(self.ragged):
            problems.append(f"ragged: {short(self.ragged)}, expected true or false")
        for name in ("pad_token_id", "bos_token_id", "unk_token_id"):
            value = getattr(self, name)
            if value is not None and not (is_int(value) and self.vocabulary.has(value)):
                problems.append(
                    f"{name}: {short(value)}, expected an id of the vocabulary or the added tokens, or None"
                )
        if self.pad_token_id is None and not self.ragged:
            problems.append("pad_token_id: None, expected an id to fill up shorter texts with, or ragged=True")
        if self.compute_dtype not in ("int32", "int64"):
            problems.append(f"dtype: {self.compute_dtype}, expected int32 or int64")
        return problems


def length_fault(length: Any) -> str | None:
    return (
        None
        if length is None or (is_int(length) and length > 0)
        else f"max_length: {short(length)}, expected 1 or more, or None"
    )


def tensorflow() -> Any:
    """Returns the module of TensorFlow, which is loaded when a tokenizer is first called.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import tensorflow
    except ModuleNotFoundError:
        raise MissingExtraError("GPT2Tokenizer needs tensorflow: pip install 'gptzoo[keras]'") from None
    return tensorflow
