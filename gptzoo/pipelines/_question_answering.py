"""Answers to questions, as parts of a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptzoo._settings import setting, short
from gptzoo.errors import InputError
from gptzoo.pipelines._base import FLAG, Item, Options, Pipeline, at_least, or_none, softmax

MAX_ROW, MAX_STRIDE = 384, 128  # where the call does not say, as in Transformers
CONTEXT = 1  # number of the second text of a pair
NO_ANSWER = 0  # the token at which training points where a text has no answer


@dataclass(frozen=True)
class AnswerOptions(Options):
    """Options of question answering.

    Attributes:
        top_k: how many answers, the best first.
        max_seq_len: tokens of question and context in one window; None: as many as the model can have, up to 384.
        doc_stride: tokens that windows of a long context have in common; None: half a window, up to 128.
        max_answer_len: tokens of an answer.
        handle_impossible_answer: whether "" may be the answer.
        align_to_words: whether an answer begins and ends with whole words.
    """

    top_k: int = setting(1, at_least(1))
    max_seq_len: int | None = setting(None, or_none(at_least(1)))
    doc_stride: int | None = setting(None, or_none(at_least(0)))
    max_answer_len: int = setting(15, at_least(1))
    handle_impossible_answer: bool = setting(False, FLAG)
    align_to_words: bool = setting(True, FLAG)


class QuestionAnsweringPipeline(Pipeline):
    """Finds the answer to a question in a context: {"score", "start", "end", "answer"}, or a list with `top_k` above 1.

    Takes {"question": ..., "context": ...}, and lists of such; or `question` and `context`, by name or in this order,
    both texts, or lists, or a list of questions and one context. "answer" is `context[start:end]`.
    """

    task = "question-answering"
    heads = ("ForQuestionAnswering",)
    options_class = AnswerOptions
    outputs = ("start_logits", "end_logits")
    needs_characters = True

    def __call__(
        self,
        inputs: Any = None,
        context: Any = None,
        *,
        question: Any = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> Any:
        if context is not None and question is None:
            inputs, question = None, inputs
        if inputs is None:
            inputs = paired(question, context)
        elif question is not None or context is not None:
            raise InputError("inputs: given, expected without question and context")
        return super().__call__(inputs, batch_size=batch_size, **options)

    def expected(self) -> str:
        return '{"question": ..., "context": ...}, two texts'

    def prepare(self, source: Any, index: int, options: AnswerOptions) -> Item:
        if not isinstance(source, dict) or set(source) != {"question", "context"}:
            raise InputError(f"{short(source)}, expected {self.expected()}")
        for name, text in source.items():
            if not isinstance(text, str) or not text:
                raise InputError(f"{name}: {short(text)}, expected a text that is not empty")
        asked = len(self.tokenizer(source["question"])["input_ids"])
        size = min(options.max_seq_len or MAX_ROW, self.limit)
        room = size - asked
        stride = min(size // 2, MAX_STRIDE, room - 1) if options.doc_stride is None else options.doc_stride
        if not 0 <= stride < room:
            expected = f"windows of {size} tokens to hold it and more than {max(stride, 0)} (doc_stride) of the context"
            raise InputError(f"question: {asked} tokens, expected {expected}")
        found = self.encode(
            source["question"],
            source["context"],
            size,
            truncation="only_second",
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        return Item(source, found["input_ids"], found, index)

    def finish(self, item: Item, outputs: list[dict[str, Any]], options: AnswerOptions) -> Any:
        found: dict[str, dict[str, Any]] = {}
        for row, output in enumerate(outputs):
            for answer in self.answers(item, row, output, options):
                text = answer["answer"].lower()
                if text not in found:
                    found[text] = answer
                elif text:
                    found[text]["score"] += answer["score"]
                else:  # there is no answer only if no window has one
                    found[text]["score"] = min(found[text]["score"], answer["score"])
        answers = sorted(found.values(), key=lambda answer: -answer["score"])
        return answers[0] if options.top_k == 1 else answers[: options.top_k]

    def answers(self, item: Item, row: int, output: dict[str, Any], options: AnswerOptions) -> Iterator[dict[str, Any]]:
        """Yields the most likely answers in one window; with `handle_impossible_answer` "" first."""
        places = [i for i, text in enumerate(item.notes.sequence_ids(row)) if text == CONTEXT]
        if options.handle_impossible_answer:
            places = [NO_ANSWER, *places]
        start, end = (softmax(output[name][places]) for name in self.outputs)
        if options.handle_impossible_answer:
            yield {"score": float(start[0] * end[0]), "start": 0, "end": 0, "answer": ""}
            start[0] = end[0] = 0
        spans = np.tril(np.triu(np.outer(start, end)), options.max_answer_len - 1)
        count = 2 * options.top_k + 10 if options.align_to_words else options.top_k  # some become equal by alignment
        for place in np.argsort(-spans, axis=None, kind="stable")[:count]:
            first, last = divmod(int(place), len(places))
            if spans[first, last] > 0:
                begin, stop = characters(item.notes, row, places[first], places[last], options.align_to_words)
                text = item.source["context"][begin:stop]
                yield {"score": float(spans[first, last]), "start": begin, "end": stop, "answer": text}


def characters(encoding: Any, row: int, first: int, last: int, whole_words: bool) -> tuple[int, int]:
    """Returns where tokens, or the words that they are parts of, begin and end in their text."""
    words, texts = encoding.word_ids(row), encoding.sequence_ids(row)
    if whole_words:
        while first > 0 and (words[first - 1], texts[first - 1]) == (words[first], CONTEXT):
            first -= 1
        while last + 1 < len(words) and (words[last + 1], texts[last + 1]) == (words[last], CONTEXT):
            last += 1
    offsets = encoding["offset_mapping"][row]
    return offsets[first][0], offsets[last][1]


def paired(question: Any, context: Any) -> Any:
    """Returns questions and contexts as the inputs that they stand for."""
    if isinstance(question, str) and isinstance(context, str):
        return {"question": question, "context": context}
    questions, contexts = (list(given) if isinstance(given, list | tuple) else None for given in (question, context))
    if questions is not None and isinstance(context, str):
        contexts = [context] * len(questions)
    if questions is None or contexts is None:
        given = f"question={short(question)} and context={short(context)}"
        raise InputError(f"{given}, expected two texts, two lists of texts, or a list of questions and one context")
    if len(questions) != len(contexts):
        raise InputError(f"{len(questions)} questions and {len(contexts)} contexts, expected as many")
    return [{"question": one, "context": other} for one, other in zip(questions, contexts, strict=True)]
