"""From texts to scores: windows over them go through a model in batches, each token's log probability is kept once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gptzoo._runners import Runner, power_of_two
from gptzoo.errors import GPTZooError
from gptzoo.scoring._score import Score
from gptzoo.scoring._texts import Text, check, find_tokenizer, read, split

PIECE = 256  # tokens whose logits are in memory together: 51 MB for the vocabulary of GPT-2


@dataclass(frozen=True)
class Steps:
    """The two steps of scoring in one framework; their arrays are its own.

    Attributes:
        last_states: ids (B, W), padded on the right -> last hidden states (B, W, E).
        log_probs: these; places (N,) in their (B * W) tokens; the ids (N,) that stand behind them -> (N,) log
            probabilities of these ids, in float32 at least.
    """

    last_states: Callable[[Any], Any]
    log_probs: Callable[[Any, Any, Any], Any]


class Window(NamedTuple):
    """Tokens of a text that go through the model together: from `begin` to before `end`, scored from `first` on."""

    text: int
    begin: int
    first: int
    end: int


def score(
    runner: Runner,
    steps: Steps,
    texts: Any,
    tokenizer: Any = None,
    *,
    stride: int | None = None,
    max_length: int | None = None,
    batch_size: int = 1,
    add_bos: bool = False,
) -> Score | list[Score]:
    """Scores texts as the models' own `score` does, of which the arguments are.

    Raises:
        InputError: lists the arguments that are wrong.
        TextError: lists the texts that are.
        GPTZooError: a log probability is infinite or not a number.
    """
    config, tokenizer = runner.model.config, find_tokenizer(tokenizer)
    chosen = check(config, tokenizer, stride, max_length, batch_size, add_bos)
    entries, only = split(texts)
    found = read(entries, only, tokenizer, config, chosen.bos)
    scores = [Score(text.token_ids, np.empty(len(text.token_ids) - 1), text.tokens, text.n_bytes) for text in found]
    lengths = enumerate(len(text.token_ids) for text in found)
    todo = [one for i, length in lengths for one in windows(i, length, chosen.max_length, chosen.stride)]
    todo.sort(key=lambda one: one.begin - one.end)  # rows of one length together
    with runner.scope(), runner.evaluating():
        for window, values in _values(runner, steps, found, todo, chosen.batch_size, chosen.max_length):
            scores[window.text].log_probs[window.first - 1 : window.end - 1] = values
    return scores[0] if only else scores


def windows(text: int, length: int, max_length: int, stride: int) -> Iterator[Window]:
    """Yields the windows of a text: each begins `stride` tokens after the one before, the last ends with the text.

    A window scores what those before it have not. So every token but the first is scored once, given all tokens before
    it, or at least `max_length - stride` of them.
    """
    begin, first, end = 0, 1, min(max_length, length)
    yield Window(text, begin, first, end)
    while end < length:
        begin, first, end = begin + stride, end, min(end + stride, length)
        yield Window(text, begin, first, end)


def _values(
    runner: Runner, steps: Steps, texts: Sequence[Text], todo: Sequence[Window], size: int, limit: int
) -> Iterator[tuple[Window, np.ndarray]]:
    """Yields windows with the log probabilities of what they score."""
    for start in range(0, len(todo), size):
        batch = todo[start : start + size]
        ids = _padded(texts, batch, min(size, len(todo)), limit, runner.compiles)  # (B, W)
        spans = [np.arange(one.first, one.end) for one in batch]
        rows = zip(batch, spans, strict=True)
        places = np.concatenate([i * ids.shape[1] + span - one.begin - 1 for i, (one, span) in enumerate(rows)])
        targets = np.concatenate([texts[one.text].token_ids[one.first : one.end] for one in batch])
        states = steps.last_states(runner.to_native(ids))
        pieces = [
            _piece(runner, steps, states, places[i : i + PIECE], targets[i : i + PIECE])
            for i in range(0, len(places), PIECE)
        ]
        ends = np.cumsum([len(span) for span in spans])
        yield from zip(batch, np.split(np.concatenate(pieces), ends[:-1]), strict=True)


def _padded(texts: Sequence[Text], batch: Sequence[Window], size: int, limit: int, compiles: bool) -> np.ndarray:
    """Returns ids (B, W) with zeros behind them, which no token sees; of few shapes where each is compiled for."""
    width = max(one.end - one.begin for one in batch)
    shape = (size, min(power_of_two(width), limit)) if compiles else (len(batch), width)
    ids = np.zeros(shape, np.int64)
    for row, one in zip(ids, batch, strict=False):
        row[: one.end - one.begin] = texts[one.text].token_ids[one.begin : one.end]
    return ids


def _piece(runner: Runner, steps: Steps, states: Any, places: np.ndarray, targets: np.ndarray) -> np.ndarray:
    count = len(places)
    added = power_of_two(count) - count if runner.compiles else 0
    arrays = [runner.to_native(np.pad(array, (0, added))) for array in (places, targets)]
    values = runner.numpy(steps.log_probs(states, *arrays))[:count]
    if not np.isfinite(values).all():
        raise GPTZooError("score: log probabilities that are infinite or not numbers, expected finite logits")
    return np.asarray(values, np.float64)
