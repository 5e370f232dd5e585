"""The steps of tokenizing on TensorFlow's own operations: exact, and at home in `tf.data` and SavedModels.

Each step works on flat vectors, whatever the number of texts: the characters, the pieces, the tokens of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from gptzoo.keras._tokenizer_bert import BLANK, WORD, Preparation, Replacements, Symbols
from gptzoo.keras._tokenizer_tables import LETTER, NEVER, NOTHING, NUMBER, OTHER, SPACE, Merges, Ranges

Tensor = Any
MARK = b"\xff"  # a byte that UTF-8 does not have
VECTOR = tf.TensorSpec([None], tf.int32)
TABLE = Merges(
    base=tf.TensorSpec([], tf.int64),
    keys=tf.TensorSpec([None], tf.int64),
    ranks=VECTOR,
    products=VECTOR,
    alone=tf.TensorSpec([None], tf.bool),
)


class Segments(NamedTuple):
    """Stretches of text between tokens that are kept whole, and these tokens.

    Attributes:
        text: (K,) strings.
        row: (K,), the text of the batch that each is from.
        token: (K,), the place of a token among those kept whole; -1 is text.
    """

    text: Tensor
    row: Tensor
    token: Tensor


def segments(texts: Tensor) -> Segments:
    """Returns whole texts (B,) as segments."""
    row = tf.range(tf.size(texts))
    return Segments(texts, row, tf.fill(tf.shape(row), -1))


def split_out(parts: Segments, contents: Sequence[str], first: int) -> Segments:
    """Splits tokens out of the text: the one that starts first, and of those the longest.

    Args:
        contents: the tokens.
        first: the place of the first of them among all that are kept whole.
    """
    if not contents:
        return parts
    pattern = "|".join(literal(content) for content in sorted(contents, key=len, reverse=True))
    marked = tf.strings.regex_replace(parts.text, pattern, MARK + rb"\0" + MARK)
    split = tf.strings.split(tf.where(parts.token < 0, marked, parts.text), MARK)
    # A text of its own between tokens never equals a token: what does, is one.
    known = tf.constant([content.encode() for content in contents])
    place = tf.unique(tf.concat([known, split.values], 0)).idx[len(contents) :]
    parent = rows_of(split.row_splits)
    token = tf.where(place < len(contents), place + first, tf.gather(parts.token, parent))
    found = Segments(split.values, tf.gather(parts.row, parent), token)
    return Segments(*(tf.boolean_mask(column, found.text != b"") for column in found))


def literal(text: str) -> str:
    """Returns a regular expression of a text and nothing else."""
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)


def prefix_space(parts: Segments) -> Segments:
    """Puts a space before the text of every segment that does not begin with one."""
    bare = (parts.token < 0) & (parts.text != b"") & (tf.strings.substr(parts.text, 0, 1) != b" ")
    return parts._replace(text=tf.where(bare, b" " + parts.text, parts.text))


def gpt2_pieces(parts: Segments, classes: Ranges) -> tuple[Tensor, Tensor]:
    """Splits text as GPT-2's regular expression does, by what stands beside each character.

    The expression takes, in this order: a contraction; letters, numbers or others, with a space before them; white
    space, but for the last character if something follows.

    Returns:
        Pieces (P,), and the segment of each; a token is one piece, of no meaning.
    """
    code, segment = characters_of(parts)
    first = before(segment, -1) != segment
    last = after(segment, -1) != segment
    kind = class_of(code, classes)
    previous = tf.where(first, NOTHING, before(kind, NOTHING))
    following = tf.where(last, NOTHING, after(kind, NOTHING))
    spaced = ~first & (before(code, 0) == ord(" "))

    is_space = kind == SPACE
    starts_space = (previous != SPACE) | one_of(following, (LETTER, NUMBER, OTHER))
    starts = tf.where(is_space, starts_space, (previous != kind) & ~spaced)

    next_code = tf.where(last, 0, after(code, 0))
    next_but_one = after(next_code, 0)
    short = one_of(next_code, b"stmd")
    long = tf.zeros_like(short)
    for a, b in (b"re", b"ve", b"ll"):
        long |= (next_code == a) & (next_but_one == b)
    contracts = (code == ord("'")) & (previous != OTHER) & ~spaced & (short | long)
    short &= contracts
    long &= contracts
    ends = before(before(short, False), False) | before(before(before(long, False), False), False)
    starts = (starts & ~before(contracts, False)) | ends

    at = tf.where(starts)[:, 0]
    return cut_at(code, at), tf.gather(segment, at)


def characters_of(parts: Segments) -> tuple[Tensor, Tensor]:
    """Returns the code points of segments, and the segment of each; a token that is kept whole is one character."""
    characters = tf.strings.unicode_decode(tf.where(parts.token < 0, parts.text, b"!"), "UTF-8", errors="strict")
    return characters.values, rows_of(characters.row_splits)


def class_of(code: Tensor, classes: Ranges) -> Tensor:
    """Returns the class of each code point."""
    return tf.gather(classes.classes, tf.searchsorted(classes.starts, code, side="right") - 1)


def cut_at(code: Tensor, at: Tensor) -> Tensor:
    """Returns the pieces, as strings, that start in these places."""
    pieces = tf.RaggedTensor.from_row_splits(code, tf.concat([at, [tf.size(code, tf.int64)]], 0), validate=False)
    return tf.strings.unicode_encode(pieces, "UTF-8", errors="strict")


def rows_of(splits: Tensor) -> Tensor:
    """Returns the row of each value between splits, without the square matrix of `RaggedTensor.value_rowids`."""
    return tf.searchsorted(splits, tf.range(splits[-1]), side="right") - 1


def bert_prepared(parts: Segments, how: Preparation) -> Segments:
    """Returns the text of segments as GPT's is prepared; see `Preparation`."""
    characters = tf.strings.unicode_decode(tf.where(parts.token < 0, parts.text, b""), "UTF-8", errors="strict")
    code, segment = replaced(characters.values, rows_of(characters.row_splits), how.cleaned)
    order = class_of(code, how.order)
    group = tf.cumsum(tf.cast((order == 0) | (before(segment, -1) != segment), tf.int64))
    code = tf.gather(code, tf.argsort(group * 256 + tf.cast(order, tf.int64), stable=True))
    code, segment = replaced(code, segment, how.lowered)
    texts = tf.strings.unicode_encode(ragged(code, segment, tf.size(parts.text)), "UTF-8", errors="strict")
    return parts._replace(text=tf.where(parts.token < 0, texts, parts.text))


def replaced(code: Tensor, segment: Tensor, table: Replacements) -> tuple[Tensor, Tensor]:
    """Returns characters with some of them replaced by any number of others, and the segment of each."""
    spot = tf.searchsorted(table.keys, code)
    known = tf.gather(table.keys, spot) == code
    start = tf.gather(table.splits, spot)
    lengths = tf.where(known, tf.gather(table.splits, spot + 1) - start, 1)
    splits = tf.concat([[0], tf.cumsum(lengths)], 0)
    source = rows_of(splits)
    place = tf.gather(start, source) + tf.range(tf.size(source)) - tf.gather(splits, source)
    new = tf.where(tf.gather(known, source), tf.gather(table.values, place), tf.gather(code, source))
    return new, tf.gather(segment, source)


def bert_pieces(parts: Segments, kinds: Ranges) -> tuple[Tensor, Tensor]:
    """Splits text into words and marks; see `gpt2_pieces` for what is returned."""
    code, segment = characters_of(parts)
    kind = class_of(code, kinds)
    starts = (before(segment, -1) != segment) | (kind != WORD) | (before(kind, WORD) != WORD)
    at = tf.where(starts)[:, 0]
    words = tf.gather(kind, at) != BLANK
    return tf.boolean_mask(cut_at(code, at), words), tf.gather(segment, tf.boolean_mask(at, words))


def before(x: Tensor, start: Any) -> Tensor:
    """Returns what stands before each entry of a vector."""
    return tf.concat([tf.fill([1], tf.cast(start, x.dtype)), x], 0)[:-1]


def after(x: Tensor, end: Any) -> Tensor:
    """Returns what stands after each entry of a vector."""
    return tf.concat([x, tf.fill([1], tf.cast(end, x.dtype))], 0)[1:]


def one_of(x: Tensor, values: Sequence[int]) -> Tensor:
    """Says which entries are among a few values."""
    return tf.reduce_any([x == value for value in values], 0)


def byte_ids(pieces: Tensor, ids: np.ndarray) -> tuple[Tensor, Tensor]:
    """Returns the bytes of pieces (P,) as tokens, and the piece of each; bytes with a negative id are left out."""
    values = tf.cast(tf.io.decode_raw(tf.strings.reduce_join(pieces), tf.uint8), tf.int32)
    lengths = tf.strings.length(pieces)
    found, rows = tf.gather(ids, values), rows_of(tf.concat([[0], tf.cumsum(lengths)], 0))
    return tf.boolean_mask(found, found >= 0), tf.boolean_mask(rows, found >= 0)


def character_ids(pieces: Tensor, inner: Symbols, last: Symbols, unknown: int) -> tuple[Tensor, Tensor]:
    """Returns the characters of pieces (P,) as tokens, and the piece of each; the last one has its own ids.

    Args:
        unknown: in place of the id of a character without one; negative: it is left out.
    """
    characters = tf.strings.unicode_decode(pieces, "UTF-8", errors="strict")
    code, rows = characters.values, rows_of(characters.row_splits)
    found = tf.where(after(rows, -1) != rows, id_of(code, last, unknown), id_of(code, inner, unknown))
    return tf.boolean_mask(found, found >= 0), tf.boolean_mask(tf.cast(rows, tf.int32), found >= 0)


def id_of(code: Tensor, symbols: Symbols, unknown: int) -> Tensor:
    """Returns the id of each code point."""
    spot = tf.searchsorted(symbols.codes, code)
    return tf.where(tf.gather(symbols.codes, spot) == code, tf.gather(symbols.ids, spot), unknown)


@tf.function(input_signature=(VECTOR, VECTOR, tf.TensorSpec([], tf.int32), TABLE), autograph=False)
def merge(ids: Tensor, rows: Tensor, n_rows: Tensor, table: Merges) -> Tensor:
    """Merges tokens: in each piece, again and again, the pair of the lowest rank wherever it is.

    Args:
        ids: (M,).
        rows: (M,), the piece of each, in order.
        n_rows: P.

    Returns:
        Ids, ragged (P, n).
    """

    def step(ids: Tensor, rows: Tensor, done: Tensor, done_rows: Tensor) -> tuple[Tensor, ...]:
        left, right, row = ids[:-1], ids[1:], rows[:-1]
        key = tf.cast(left, tf.int64) * table.base + tf.cast(right, tf.int64)
        spot = tf.searchsorted(table.keys, key)
        rank = tf.where((tf.gather(table.keys, spot) == key) & (row == rows[1:]), tf.gather(table.ranks, spot), NEVER)
        lowest = tf.math.unsorted_segment_min(rank, row, n_rows)
        chosen = (rank < NEVER) & (rank == tf.gather(lowest, row))
        index = tf.range(tf.size(row))

        # Of pairs that overlap, which are those of one token again and again, every other one.
        begins = chosen & ~before(chosen, False)
        run = tf.concat([[0], tf.boolean_mask(index, begins)], 0)
        chosen &= (index - tf.gather(run, tf.cumsum(tf.cast(begins, tf.int32)))) % 2 == 0

        leftmost = tf.math.unsorted_segment_min(tf.where(chosen, index, NEVER), row, n_rows)
        chosen &= ~tf.gather(table.alone, spot) | (index == tf.gather(leftmost, row))

        merged = tf.concat([tf.where(chosen, tf.gather(table.products, spot), left), ids[-1:]], 0)
        keep = tf.concat([[True], ~chosen], 0)[: tf.size(ids)]  # not the right one of a pair; none of no tokens
        goes_on = tf.gather(lowest < NEVER, rows)
        stays, leaves = keep & goes_on, ~goes_on
        done = tf.concat([done, tf.boolean_mask(ids, leaves)], 0)
        done_rows = tf.concat([done_rows, tf.boolean_mask(rows, leaves)], 0)
        return tf.boolean_mask(merged, stays), tf.boolean_mask(rows, stays), done, done_rows

    vector = tf.TensorShape([None])
    *_, done, done_rows = tf.while_loop(
        lambda ids, *_: tf.size(ids) > 0, step, (ids, rows, ids[:0], rows[:0]), shape_invariants=(vector,) * 4
    )
    order = tf.argsort(done_rows, stable=True)
    return ragged(tf.gather(done, order), tf.gather(done_rows, order), n_rows)


def ragged(values: Tensor, rows: Tensor, n_rows: Tensor) -> Tensor:
    """Returns values, with the row of each, as a ragged tensor."""
    lengths = tf.math.bincount(rows, minlength=n_rows, dtype=tf.int64)
    return tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)


def assemble(tokens: Tensor, piece: Tensor, rows: Tensor, kept: Sequence[int], token: Tensor) -> tuple[Tensor, Tensor]:
    """Puts the tokens of pieces in the places where they stand in the texts.

    Args:
        tokens: ragged (U, n), of pieces that are all different.
        piece: (P,), which of these each piece is.
        rows: (P,), the text of each.
        kept: ids of the tokens that are kept whole.
        token: (P,), which of these a piece is; -1 is none.

    Returns:
        Ids (N,), and the text of each.
    """
    single = tf.RaggedTensor.from_row_splits(tf.constant(kept, tf.int32), np.arange(len(kept) + 1))
    choices = tf.concat([tokens, single], 0)
    found = tf.gather(choices, tf.where(token < 0, piece, token + tf.cast(tokens.nrows(), tf.int32)))
    return found.values, tf.gather(rows, rows_of(found.row_splits))


def cut(ids: Tensor, rows: Tensor, n_rows: Tensor, room: int, side: str) -> tuple[Tensor, Tensor]:
    """Leaves at most `room` tokens in each text, without those on one side."""
    splits = ragged(ids, rows, n_rows).row_splits
    index = tf.range(tf.size(ids, tf.int64))
    stays = index < tf.gather(splits, rows) + room if side == "right" else index >= tf.gather(splits, rows + 1) - room
    return tf.boolean_mask(ids, stays), tf.boolean_mask(rows, stays)


def start_with(token: int, ids: Tensor, rows: Tensor, n_rows: Tensor) -> tuple[Tensor, Tensor]:
    """Puts a token before every text."""
    place = (tf.range(tf.size(ids)) + rows + 1)[:, None]  # each text before, and its own, moves the others by one
    starts = tf.fill([tf.size(ids) + n_rows], token)
    longer = tf.RaggedTensor.from_row_lengths(starts, ragged(ids, rows, n_rows).row_lengths() + 1, validate=False)
    return tf.tensor_scatter_nd_update(starts, place, ids), rows_of(longer.row_splits)


def filled(ids: Tensor, lengths: Tensor, width: Any, pad: Any, side: str) -> tuple[Tensor, Tensor]:
    """Returns ids of texts of these lengths as an array (B, width), and its mask."""
    column = tf.range(tf.cast(width, lengths.dtype))
    mask = column < lengths[:, None] if side == "right" else column >= tf.cast(width, lengths.dtype) - lengths[:, None]
    rows = tf.fill(tf.shape(mask), tf.cast(pad, ids.dtype))
    return tf.tensor_scatter_nd_update(rows, tf.where(mask), ids), tf.cast(mask, ids.dtype)
