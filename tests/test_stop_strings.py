"""Stop strings: found with the token that completes them, as in the whole text, but from the last few tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.stopping_criteria import StopStringCriteria

from gptzoo.errors import InputError
from gptzoo.generation import StopStrings
from gptzoo.pipelines import pipeline
from gptzoo.tokenization import GPT2Tokenizer
from tests.matrix import TESTED
from tests.tokenizers_matrix import END, VOCABULARIES, examples, pair, texts

BUNDLED = "gpt2 bundled"
PROMPT = "Now is the winter"


def first(strings: list[str], tokenizer: Any, ids: list[int]) -> int | None:
    """Returns the number of tokens after which a row stops."""
    stop = StopStrings(strings, tokenizer)
    return next((n for n in range(1, len(ids) + 1) if stop(np.array([ids[:n]]))[0]), None)


def naive(strings: list[str], tokenizer: Any, ids: list[int]) -> int | None:
    """The same, from the text of all tokens."""
    lengths = range(1, len(ids) + 1)
    return next((n for n in lengths if any(one in tokenizer.decode(ids[:n]) for one in strings)), None)


@st.composite
def cases(draw: st.DrawFn, vocabulary: str) -> tuple[list[str], list[int]]:
    """Rows of any tokens and of texts, and strings cut out of their text and of others."""
    tokenizer = pair(vocabulary).ours
    number = st.integers(0, len(tokenizer) - 1)
    parts = st.one_of(st.lists(number, max_size=3), texts().map(tokenizer.encode))
    ids = [one for part in draw(st.lists(parts, min_size=1, max_size=4)) for one in part]
    text = tokenizer.decode(ids).replace("\ufffd", "")
    start, length = draw(st.integers(0, len(text))), draw(st.integers(1, 12))
    other = draw(st.sampled_from([" the", "a", "e", END]))
    return [one for one in (text[start : start + length], other) if one], ids


@pytest.mark.parametrize("vocabulary", sorted(VOCABULARIES))
def test_stops_where_the_whole_text_first_has_one(vocabulary: str) -> None:
    tokenizer = pair(vocabulary).ours
    found = set()

    @given(cases(vocabulary))
    @examples(80)
    def check(case: tuple[list[str], list[int]]) -> None:
        strings, ids = case
        possible = [one for one in strings if is_possible(one, vocabulary)]
        if possible:
            expected = naive(possible, tokenizer, ids)
            assert first(possible, tokenizer, ids) == expected
            found.add(expected is not None)

    check()
    assert found == {True, False}


@cache
def is_possible(string: str, vocabulary: str) -> bool:
    try:
        StopStrings(string, pair(vocabulary).ours)
    except InputError:
        return False
    return True


def test_finds_what_transformers_finds() -> None:
    ours, theirs = pair(BUNDLED)
    ids = ours.encode("Now is the winter of our discontent, été\nmade glorious summer 東京 by this sun of York;\n" * 2)
    for strings in (["ter"], [" of our dis", "xyz"], ["été\nm"], ["京"], ["\n"], ["sun of York;\nNow is"], ["e", " "]):
        peer, stop = StopStringCriteria(theirs, strings), StopStrings(strings, ours)
        found = [stop(np.array([ids[:n]]))[0] for n in range(1, len(ids) + 1)]
        assert found == [bool(peer(torch.tensor([ids[:n]]), None)[0]) for n in range(1, len(ids) + 1)]
        assert any(found)


def test_of_gpt_a_word_ends_with_its_token_and_the_space_comes_with_the_next() -> None:
    """Where Transformers 5 has a space before each token, those inside of words too."""
    tokenizer = pair("gpt1 small").ours
    ids = tokenizer.encode("the cat, the cat")
    assert [tokenizer.decode(ids[: first([one], tokenizer, ids)]) for one in ("the", "the ", "cat", "e c")] == [
        "the",
        tokenizer.decode(ids[: len(tokenizer.encode("the")) + 1]),
        tokenizer.decode(ids[: len(tokenizer.encode("the cat"))]),
        tokenizer.decode(ids[: len(tokenizer.encode("the")) + 1]),
    ]


def test_special_tokens_are_text() -> None:
    tokenizer = pair(BUNDLED).ours
    ids = [*tokenizer.encode("King"), tokenizer.eos_token_id, *tokenizer.encode("Queen")]
    assert first([END], tokenizer, ids) == len(tokenizer.encode("King")) + 1
    assert first([f"{END}Q"], tokenizer, ids) == len(tokenizer.encode("King")) + 2


def test_a_string_may_begin_in_the_prompt_but_not_lie_in_it() -> None:
    tokenizer = pair(BUNDLED).ours
    prompt, new = tokenizer.encode("the winter of"), tokenizer.encode(" our")
    stop = StopStrings(["winter", "of our"], tokenizer)
    assert not stop(np.array([prompt]))[0]
    assert stop(np.array([prompt + new]))[0]


def test_each_row_by_itself_and_without_its_padding() -> None:
    tokenizer = pair(BUNDLED).ours
    (king,), pad = tokenizer.encode("A"), tokenizer.eos_token_id
    ids = np.array([[pad, pad, king], [king, king, king], [king, pad, king], [king, king, pad]])
    stop = StopStrings([f"{END}A", "AAA"], tokenizer)
    assert stop(ids).tolist() == [True, True, True, False]
    assert stop(ids, ids != pad).tolist() == [False, True, False, False]


def test_an_id_that_the_tokenizer_does_not_have_is_in_no_string() -> None:
    """A model may have more rows than its tokenizer has tokens."""
    tokenizer = pair(BUNDLED).ours
    (a,) = tokenizer.encode("A")
    stop = StopStrings(["AA"], tokenizer)
    assert [stop(np.array([row]))[0] for row in ([a, 10**6, a], [10**6, a, a], [a, -1])] == [False, True, False]


def test_a_step_costs_the_same_however_long_the_row() -> None:
    class Counted(GPT2Tokenizer):
        read = 0

        def _piece(self, number: int, last: bool) -> bytes:
            self.read += 1
            return super()._piece(number, last)

    tokenizer = Counted.from_pretrained(VOCABULARIES[BUNDLED][1])
    stop, read = StopStrings(["winter", "é"], tokenizer), []
    for length in (20, 2000):
        tokenizer.read = 0
        stop(np.zeros((1, length), int))
        read.append(tokenizer.read)
    assert read[0] == read[1] <= 2 * (len("winter") + 1)


@pytest.mark.parametrize("strings", [None, "", [], [""], ["a", 3], [b"a"], 5, {"a": 1}, ["\ud800"]], ids=repr)
def test_what_is_no_text_is_refused(strings: Any) -> None:
    with pytest.raises(InputError, match=r"stop_strings: .*expected a text, or a list of them"):
        StopStrings(strings, pair(BUNDLED).ours)


def test_what_no_text_can_have_is_refused() -> None:
    """GPT has no upper case: who asks for END would wait in vain."""
    with pytest.raises(
        InputError, match="stop_strings: 'the END', expected a text that the tokenizer's tokens can make"
    ):
        StopStrings(["the end", "the END"], pair("gpt1 small").ours)


@pytest.mark.parametrize("tokenizer", [None, object()], ids=["none", "another thing"])
def test_a_tokenizer_is_needed(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"tokenizer: .*, expected one of gptzoo.tokenization"):
        StopStrings(["a"], tokenizer)


@pytest.mark.parametrize("framework", TESTED)
def test_generate_ends_a_row_with_the_token_that_completes_a_string(framework: str) -> None:
    """Each row by itself; the token stays whole."""
    pipe = pipeline("text-generation", framework=framework, dtype="float32")
    tokenizer, pad = pipe.tokenizer, 7
    prompts = np.array([row[:4] for row in tokenizer([PROMPT, "What is the matter now"])["input_ids"]])
    options = {"max_new_tokens": 12, "pad_token_id": pad}
    free = pipe.runner.generate(prompts, **options)
    string = tokenizer.decode(free[0, 7:10])[1:]
    found = pipe.runner.generate(prompts, stop_strings=[string], tokenizer=tokenizer, **options)
    ends = [naive([string], tokenizer, row) or 16 for row in free.tolist()]
    assert 4 < ends[0] <= 10 < ends[1]
    assert (found == np.where(np.arange(16) < np.array(ends)[:, None], free, pad)).all()
