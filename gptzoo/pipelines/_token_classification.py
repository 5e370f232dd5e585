"""Labels of tokens, and of what they are parts of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptzoo._settings import Rule, one_of, setting
from gptzoo.errors import InputError
from gptzoo.pipelines._base import FLAG, Item, Options, Pipeline, at_least, or_none, softmax

LABELS = Rule("a list of labels", lambda value: isinstance(value, list | tuple | set | frozenset))


@dataclass(frozen=True)
class TokenOptions(Options):
    """Options of token classification.

    Attributes:
        aggregation_strategy: "none": a result for each token. "simple": one for each run of tokens with the same label,
            B- and I- before it apart. The others too, over words, whose label is that of the "first" token, or of the
            "average" of the tokens' scores, or of the token with the "max" score.
        ignore_labels: results with these labels are left out.
        stride: how many tokens windows of a long text have in common; None: there are no windows.
        truncation: whether texts that are too long are cut.
    """

    aggregation_strategy: str = setting("none", one_of("none", "simple", "first", "average", "max"))
    ignore_labels: Sequence[str] | None = setting(("O",), or_none(LABELS))
    stride: int | None = setting(None, or_none(at_least(0)))
    truncation: bool = setting(False, FLAG)

    def problems(self) -> Iterable[str]:
        yield from super().problems()
        if self.stride is not None and self.aggregation_strategy == "none":
            yield "stride: given, expected an aggregation_strategy other than none beside it"


@dataclass(frozen=True)
class Piece:
    """A token, or the tokens of a word.

    Attributes:
        tokens: as the vocabulary has them.
        scores: of each label.
        start, end: characters of the text.
        index: of the first token.
    """

    tokens: list[str]
    scores: np.ndarray
    start: int
    end: int
    index: int

    @property
    def label(self) -> int:
        return int(self.scores.argmax())

    @property
    def score(self) -> float:
        return float(self.scores.max())


class TokenClassificationPipeline(Pipeline):
    """Says which label each token of a text has, or each group of tokens: a list of dicts for each text.

    For a token: "entity" (its label), "score", "index", "word", and its characters from "start" to before "end". For a
    group: "entity_group" (the label without B- and I-), "score", "word", "start", "end".
    """

    task = "token-classification"
    heads = ("ForTokenClassification",)
    options_class = TokenOptions
    needs_characters = True
    remedy = ", or truncation=True, or stride for windows"

    def prepare(self, source: Any, index: int, options: TokenOptions) -> Item:
        wanted: dict[str, Any] = {"return_offsets_mapping": True, "return_special_tokens_mask": True}
        if options.stride is not None:
            if options.stride >= self.limit:
                raise InputError(f"stride: {options.stride}, expected fewer than the {self.limit} tokens of a window")
            wanted |= {"return_overflowing_tokens": True, "stride": options.stride}
        cut = options.truncation or options.stride is not None
        found = self.encode(source, limit=self.limit if cut else None, **wanted)
        return Item(source, found["input_ids"], found, index)

    def finish(self, item: Item, outputs: list[dict[str, Any]], options: TokenOptions) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for row, output in enumerate(outputs):
            pieces = [*self.pieces(item, row, softmax(output["logits"]))]
            if options.aggregation_strategy == "none":
                found += map(self.token_result, pieces)
            else:
                if join := STRATEGIES.get(options.aggregation_strategy):
                    pieces = [join(word) for word in self.words(item.source, pieces)]
                found += map(self.group_result, self.groups(pieces))
        ignored = set(options.ignore_labels or ())
        found = [one for one in found if ignored.isdisjoint((one.get("entity"), one.get("entity_group")))]
        return without_overlaps(found) if len(outputs) > 1 else found

    def pieces(self, item: Item, row: int, scores: np.ndarray) -> Iterator[Piece]:
        """Yields the tokens of a row, without special ones."""
        names = self.tokenizer.convert_ids_to_tokens(item.rows[row])
        for i, name in enumerate(names):
            if not item.notes["special_tokens_mask"][row][i]:
                start, end = item.notes["offset_mapping"][row][i]
                yield Piece([name], scores[i], start, end, i)

    def words(self, text: str, pieces: Iterable[Piece]) -> list[list[Piece]]:
        """Puts tokens together that have no space between them, or parts of one character."""
        words: list[list[Piece]] = []
        for piece in pieces:
            around = text[max(piece.start - 1, 0) : piece.start + 1]
            if words and (piece.start < words[-1][-1].end or not any(map(str.isspace, around))):
                words[-1].append(piece)
            else:
                words.append([piece])
        return words

    def groups(self, pieces: Iterable[Piece]) -> list[list[Piece]]:
        """Puts neighbours together that have the same label; B- begins another group."""
        groups: list[list[Piece]] = []
        for piece in pieces:
            begins, tag = split_label(self.config.id2label[piece.label])
            if groups and not begins and split_label(self.config.id2label[groups[-1][-1].label])[1] == tag:
                groups[-1].append(piece)
            else:
                groups.append([piece])
        return groups

    def token_result(self, piece: Piece) -> dict[str, Any]:
        return {
            "entity": self.config.id2label[piece.label],
            "score": piece.score,
            "index": piece.index,
            "word": piece.tokens[0],
            "start": piece.start,
            "end": piece.end,
        }

    def group_result(self, group: list[Piece]) -> dict[str, Any]:
        return {
            "entity_group": self.config.id2label[group[0].label].split("-", 1)[-1],
            "score": float(np.mean([piece.score for piece in group])),
            "word": self.tokenizer.convert_tokens_to_string([token for piece in group for token in piece.tokens]),
            "start": group[0].start,
            "end": group[-1].end,
        }


def split_label(label: str) -> tuple[bool, str]:
    """Returns whether a label begins a group, and what it says without B- and I-."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def joined(word: list[Piece], scores: np.ndarray) -> Piece:
    """Returns the tokens of a word as one piece."""
    return Piece(
        [token for piece in word for token in piece.tokens], scores, word[0].start, word[-1].end, word[0].index
    )


def _first(word: list[Piece]) -> Piece:
    return joined(word, word[0].scores)


def _average(word: list[Piece]) -> Piece:
    return joined(word, np.mean([piece.scores for piece in word], axis=0))


def _max(word: list[Piece]) -> Piece:
    return joined(word, max(word, key=lambda piece: piece.score).scores)


# Name -> what makes one piece of the tokens of a word; the other strategies leave tokens what they are.
STRATEGIES: dict[str, Callable[[list[Piece]], Piece]] = {"first": _first, "average": _average, "max": _max}


def without_overlaps(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keeps the longer of two results that overlap, or else the one with the higher score."""
    kept: list[dict[str, Any]] = []
    for one in sorted(results, key=lambda result: result["start"]):
        if not kept or one["start"] >= kept[-1]["end"]:
            kept.append(one)
        elif _strength(one) > _strength(kept[-1]):
            kept[-1] = one
    return kept


def _strength(result: dict[str, Any]) -> tuple[int, float]:
    return result["end"] - result["start"], result["score"]
