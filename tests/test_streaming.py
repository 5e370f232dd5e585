"""Text while it is generated: exact, at once, in any framework; and ended cleanly from either side."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from functools import cache
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from gptzoo.errors import InputError
from gptzoo.generation import (
    AsyncTextIteratorStreamer,
    StreamClosed,
    TextIteratorStreamer,
    TextStreamer,
    astream,
    stream,
    streaming,
)
from gptzoo.pipelines import pipeline
from gptzoo.tokenization import GPT2Tokenizer, OpenAIGPTTokenizerFast
from tests import matrix
from tests.matrix import TESTED
from tests.tokenizers_matrix import BEST, VOCABULARIES, examples, pair, texts

FIRST = TESTED[0]
GPT1 = "gpt1 small"
PROMPT = "Now is the winter"
NEW, MANY = 8, 200


class Collected(TextStreamer):
    """Keeps what a `TextStreamer` prints."""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.__dict__.setdefault("texts", []).append((text, stream_end))


@cache
def bundled(framework: str) -> tuple[Any, Any]:
    """Returns the bundled model and its tokenizer."""
    pipe = pipeline("text-generation", framework=framework, dtype="float32")
    return pipe.runner, pipe.tokenizer


def generated(framework: str, **options: Any) -> str:
    """Returns the text that the bundled model adds to the prompt."""
    runner, tokenizer = bundled(framework)
    ids = np.array([tokenizer(PROMPT)["input_ids"]])
    text: str = tokenizer.decode(runner.generate(ids, **options)[0], skip_special_tokens=True)
    return text[len(PROMPT) :]


@st.composite
def rows(draw: st.DrawFn, vocabulary: str) -> list[int]:
    """Ids of any tokens, and of texts: characters of several tokens, and parts of such."""
    tokenizer = pair(vocabulary).ours
    number = st.integers(0, len(tokenizer) - 1)
    few = st.integers(0, min(255, len(tokenizer) - 1))  # single bytes in GPT-2
    part = st.one_of(number.map(lambda one: [one]), few.map(lambda one: [one]), texts().map(tokenizer.encode))
    return [one for some in draw(st.lists(part, max_size=6)) for one in some]


@pytest.mark.parametrize("clean", [False, True], ids=["as it is", "cleaned up"])
@pytest.mark.parametrize("skip", [False, True], ids=["all tokens", "without special ones"])
@pytest.mark.parametrize("vocabulary", sorted(VOCABULARIES))
def test_the_pieces_together_are_the_decoded_text(vocabulary: str, skip: bool, clean: bool) -> None:
    tokenizer = pair(vocabulary).ours

    @given(rows(vocabulary))
    @examples(25)
    def check(ids: list[int]) -> None:
        decoder = tokenizer.decode_stream(skip, clean)
        for _ in range(2):  # it can be used again
            pieces = [*map(decoder.step, ids), decoder.end()]
            assert "".join(pieces) == tokenizer.decode(ids, skip, clean)

    check()


@pytest.mark.parametrize("errors", ["replace", "ignore", "backslashreplace", "surrogateescape"])
def test_bytes_that_are_no_text(errors: str) -> None:
    tokenizer = GPT2Tokenizer.from_pretrained(VOCABULARIES["gpt2 bundled"][1], errors=errors)

    @given(st.lists(st.integers(94, 255), max_size=9))
    @examples(200)
    def check(ids: list[int]) -> None:
        decoder = tokenizer.decode_stream()
        assert "".join([*map(decoder.step, ids), decoder.end()]) == tokenizer.decode(ids)

    check()


def test_bytes_that_are_no_text_where_that_is_an_error() -> None:
    tokenizer = GPT2Tokenizer.from_pretrained(VOCABULARIES["gpt2 bundled"][1], errors="strict")
    half = tokenizer("é")["input_ids"][:1]
    decoder = tokenizer.decode_stream()
    assert decoder.step(half[0]) == ""
    with pytest.raises(InputError, match="not UTF-8 text"):
        decoder.end()


@pytest.mark.parametrize(
    ("text", "told"),
    [("wait .", ["wait", "", "."]), ("do n't", ["do", "", "n't"]), ("do not", ["do", "", " no", "t"])],
    ids=["full stop", "n't", "no n't"],
)
def test_cleaning_up_holds_back_only_what_may_change(text: str, told: list[str]) -> None:
    """Pieces " .", " n't" and the like in tokens of a character each."""
    tokenizer = pair("gpt2 bundled").ours
    cuts = {"wait .": ["wait", " ", "."], "do n't": ["do", " n", "'t"], "do not": ["do", " ", "no", "t"]}[text]
    decoder = tokenizer.decode_stream(clean_up_tokenization_spaces=True)
    assert [decoder.steps(tokenizer.encode(part)) for part in cuts] == told


@pytest.mark.parametrize("vocabulary", sorted(VOCABULARIES))
def test_a_character_is_told_with_its_last_token(vocabulary: str) -> None:
    """Of a text that has no U+FFFD, that stands for incomplete bytes at the end."""
    tokenizer = pair(vocabulary).ours

    @given(texts().filter(lambda text: "\ufffd" not in text))
    @examples(40)
    def check(text: str) -> None:
        ids = tokenizer.encode(text)
        decoder, told = tokenizer.decode_stream(), ""
        for i, number in enumerate(ids, 1):
            told += decoder.step(number)
            assert told == tokenizer.decode(ids[:i]).rstrip("\ufffd")

    check()


def test_a_step_costs_the_same_however_long_the_row() -> None:
    class Counted(GPT2Tokenizer):
        read = 0

        def _piece(self, number: int, last: bool) -> bytes:
            self.read += 1
            return super()._piece(number, last)

    tokenizer = Counted.from_pretrained(VOCABULARIES["gpt2 bundled"][1])
    streamer = Collected(tokenizer)
    for number in range(1000):
        streamer.put(np.array([number]))
    assert tokenizer.read == 2 * 1000


@pytest.mark.parametrize("skip_prompt", [False, True], ids=["with the prompt", "without the prompt"])
@pytest.mark.parametrize("family", sorted(BEST))
def test_prints_what_transformers_prints(family: str, skip_prompt: bool, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = pair(BEST[family])
    ids = ours.encode("the winter of our discontent, été\nmade glorious summer 東京 by")
    for streamer in (
        TextStreamer(ours, skip_prompt),
        transformers.TextStreamer(theirs, skip_prompt, clean_up_tokenization_spaces=False),
    ):
        for _ in range(2):  # one generation after the other
            with streaming(streamer) as put:
                put(np.array([ids[:4]]))
                for number in ids[4:]:
                    put(np.array([number]))
    expected = ours.decode(ids[4:] if skip_prompt else ids)
    assert capsys.readouterr().out == f"{expected}\n" * 4


@pytest.mark.parametrize("framework", TESTED)
def test_takes_ids_of_any_kind(framework: str) -> None:
    tokenizer = pair("gpt2 bundled").ours
    native = bundled(framework)[0].to_native
    streamer = Collected(tokenizer)
    for ids in ([[40]], np.array([41]), native(np.array([[42]])), native(np.array([43])), [44, 45]):
        streamer.put(ids)
    streamer.end()
    assert "".join(text for text, _ in streamer.texts) == tokenizer.decode([*range(40, 46)])
    assert [last for _, last in streamer.texts] == [False] * 5 + [True]


@pytest.mark.parametrize("rows", [2, 0])
def test_other_than_one_row_is_refused(rows: int) -> None:
    with pytest.raises(InputError, match="expected one row"):
        TextStreamer(pair("gpt2 bundled").ours).put(np.zeros((rows, 3), int) if rows else np.zeros((2, 0, 0), int))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda tokenizer: TextStreamer(None), "tokenizer: a builtins.NoneType, expected one of gptzoo.tokenization"),
        (lambda tokenizer: TextStreamer(tokenizer, skip_special_token=True), "did you mean skip_special_tokens"),
        (lambda tokenizer: TextIteratorStreamer(tokenizer, timeout=-1), "timeout: -1, expected a number of seconds"),
        (lambda tokenizer: AsyncTextIteratorStreamer(tokenizer), "no running event loop"),
        (lambda tokenizer: next(stream(object(), tokenizer, "")), "model: a builtins.object, expected a model of"),
        (lambda tokenizer: next(stream(bundled(FIRST)[0].model, tokenizer, 3)), "prompt: 3, expected a text"),
        (lambda tokenizer: next(stream(bundled(FIRST)[0].model, tokenizer, "", streamer=1)), "streamer: given"),
        (lambda tokenizer: next(stream(bundled(FIRST)[0].model, tokenizer, "", top_q=1)), "did you mean top_"),
        (lambda tokenizer: streaming(3).__enter__(), "streamer: 3, expected one with put and end"),
    ],
    ids=[
        "tokenizer",
        "option",
        "timeout",
        "no loop",
        "model",
        "prompt",
        "streamer",
        "option of generate",
        "no streamer",
    ],
)
def test_wrong_arguments_are_named(make: Callable[[Any], Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        make(pair("gpt2 bundled").ours)


def fail(streamer: Any) -> None:
    """A generation that comes no further than its prompt."""
    with streaming(streamer) as put:
        put(np.array([pair("gpt2 bundled").ours.encode("King")]))
        raise ZeroDivisionError


def iterator(**options: Any) -> TextIteratorStreamer:
    return TextIteratorStreamer(pair("gpt2 bundled").ours, **options)


def test_an_iterator_ends_with_the_generation_and_serves_another_one() -> None:
    streamer = iterator()
    for text in ("King", "Queen"):
        with streaming(streamer) as put:
            put(np.array([streamer.tokenizer.encode(text)]))
        assert "".join(streamer) == text
        with pytest.raises(StopIteration):
            next(streamer)


def test_an_iterator_raises_what_the_generation_has_raised() -> None:
    streamer = iterator()

    def run() -> None:
        with pytest.raises(ZeroDivisionError):
            fail(streamer)

    thread = threading.Thread(target=run)
    thread.start()
    assert next(streamer) == "King"
    with pytest.raises(ZeroDivisionError):
        next(streamer)
    assert next(streamer, None) is None
    thread.join()


def test_text_that_does_not_come_is_a_timeout_and_may_come_later() -> None:
    streamer = iterator(timeout=0.01)
    with pytest.raises(TimeoutError, match=r"no text within 0\.01 seconds"):
        next(streamer)
    streamer.put(streamer.tokenizer.encode("King"))
    assert next(streamer) == "King"


def test_closing_wakes_the_reader_and_ends_the_generation() -> None:
    streamer = iterator()
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(streamer))
    reader.start()
    streamer.close()
    reader.join()
    assert found == []
    with pytest.raises(StreamClosed):
        streamer.put([1])


def test_a_streamer_of_another_library_is_ended_whatever_happens(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        fail(transformers.TextStreamer(pair("gpt2 bundled").theirs))
    assert capsys.readouterr().out == "King\n"


@pytest.mark.parametrize("framework", TESTED)
def test_generate_tells_a_streamer_each_token(framework: str) -> None:
    runner, tokenizer = bundled(framework)
    streamer = Collected(tokenizer)
    ids = runner.generate(np.array([tokenizer.encode(PROMPT)]), max_new_tokens=NEW, streamer=streamer)
    assert "".join(text for text, _ in streamer.texts) == tokenizer.decode(ids[0])
    assert streamer.texts[0] == (PROMPT, False)
    assert len(streamer.texts) == 1 + NEW + 1
    assert streamer.texts[-1][1]


@pytest.mark.parametrize("framework", TESTED)
def test_a_stream_is_the_text_that_is_added(framework: str) -> None:
    runner, tokenizer = bundled(framework)
    options = {"max_new_tokens": NEW, "do_sample": True, "seed": 3}
    pieces = [*stream(runner.model, tokenizer, PROMPT, **options)]
    assert "".join(pieces) == generated(framework, **options)
    assert len(pieces) == NEW
    assert [*asyncio.run(collect(runner.model, tokenizer, PROMPT, **options))] == pieces


async def collect(*arguments: Any, **options: Any) -> list[str]:
    return [piece async for piece in astream(*arguments, **options)]


def test_a_stream_of_gpt_begins_with_the_space_behind_the_prompt() -> None:
    tokenizer = OpenAIGPTTokenizerFast.from_pretrained(VOCABULARIES[GPT1][1])
    config = matrix.tiny("openai-gpt", vocab_size=len(tokenizer))
    runner = matrix.build(FIRST, config, "LMHeadModel", matrix.random_weights(config, "LMHeadModel"))
    prompt = next(word for word in ("the", "a", "of") if len(tokenizer.encode(word)) < 4)
    ids = runner.generate(np.array([tokenizer.encode(prompt)]), max_new_tokens=4)[0].tolist()
    pieces = [*stream(runner.model, tokenizer, prompt, max_new_tokens=4, skip_special_tokens=False)]
    assert prompt + "".join(pieces) == tokenizer.decode(ids)
    assert pieces[0].startswith(" ")


class Steps(list[int]):
    """A stopping criterion that notes the length of each step, and stops nothing."""

    def __call__(self, ids: Any, scores: Any) -> bool:
        self.append(ids.shape[1])
        return False


@pytest.mark.parametrize("how", ["close", "break", "error"])
def test_leaving_a_stream_ends_the_generation(how: str) -> None:
    runner, tokenizer = bundled(FIRST)
    steps, before = Steps(), threading.active_count()
    options = {"max_new_tokens": MANY, "stopping_criteria": [steps]}

    def read() -> None:
        pieces = stream(runner.model, tokenizer, PROMPT, **options)
        with closing(pieces) if how == "error" else streaming(None):
            for _ in pieces:
                if how == "error":
                    raise ZeroDivisionError
                break
        if how == "close":
            pieces.close()

    if how == "error":
        with pytest.raises(ZeroDivisionError):
            read()
    else:
        read()
    assert threading.active_count() == before
    assert 1 <= len(steps) < MANY


@pytest.mark.parametrize("how", ["aclose", "cancelled", "loop ends"])
def test_leaving_an_async_stream_ends_the_generation(how: str) -> None:
    runner, tokenizer = bundled(FIRST)
    steps = Steps()

    async def read() -> None:
        pieces = astream(runner.model, tokenizer, PROMPT, max_new_tokens=MANY, stopping_criteria=[steps])
        async for _ in pieces:
            break
        if how == "aclose":
            await pieces.aclose()  # type: ignore[attr-defined]
        elif how == "cancelled":
            task = asyncio.create_task(pieces.__anext__())  # type: ignore[arg-type]
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(read())
    assert 1 <= len(steps) < MANY


def test_a_reader_meets_what_goes_wrong_in_the_middle() -> None:
    """Also in the async one; and nobody waits for ever."""
    runner, tokenizer = bundled(FIRST)

    def third(ids: Any, scores: Any) -> bool:
        return 1 / (ids.shape[1] - len(tokenizer.encode(PROMPT)) - 3) > 1

    criteria = {"max_new_tokens": NEW, "stopping_criteria": [third]}
    with pytest.raises(ZeroDivisionError):
        [*stream(runner.model, tokenizer, PROMPT, **criteria)]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(collect(runner.model, tokenizer, PROMPT, **criteria))


def test_wrong_arguments_of_generate_do_not_leave_a_reader_waiting() -> None:
    """Who starts a thread as Transformers' documentation does, without the help of `stream`."""
    runner, tokenizer = bundled(FIRST)
    streamer = TextIteratorStreamer(tokenizer, timeout=60)

    def run() -> None:
        with pytest.raises(InputError, match="max_new_tokens"):
            runner.generate(np.array([[1]]), max_new_tokens=-1, streamer=streamer)

    thread = threading.Thread(target=run)
    thread.start()
    with pytest.raises(InputError, match="max_new_tokens"):
        next(streamer)
    thread.join()
