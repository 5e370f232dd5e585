"""Ids, tokens and offsets: ours, Transformers 5's and OpenAI's algorithm agree on every text."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptzoo.errors import InputError
from tests.tokenizers_matrix import (
    BEST,
    CORPORA,
    END,
    GPT2_VOCABULARIES,
    VOCABULARIES,
    corpus,
    examples,
    golden,
    pair,
    texts,
    texts_with_specials,
    witness,
)

any_character = st.characters(exclude_categories=("Cs",))  # unassigned ones too


# Whole texts


WHOLE = [(vocabulary, name) for vocabulary in ("gpt2", "gpt1") for name in CORPORA]
WHOLE += [(vocabulary, CORPORA[0]) for vocabulary in ("gpt2 bundled", "gpt1 small")]


@pytest.mark.parametrize(("vocabulary", "name"), WHOLE)
def test_corpora_whole_and_by_lines(vocabulary: str, name: str) -> None:
    text, (ours, theirs) = corpus(name), pair(vocabulary)
    lines = text.splitlines(keepends=True) if name == CORPORA[0] else text.splitlines(keepends=True)[:2000]
    ids, of_lines = ours(text)["input_ids"], ours(lines)["input_ids"]
    assert ids == theirs(text)["input_ids"]
    if vocabulary in GPT2_VOCABULARIES:
        openai = witness(vocabulary)
        assert ids == openai.encode(text)
        assert of_lines == [openai.encode(line) for line in lines]
        assert ours.decode(ids) == text == openai.decode(ids)
    else:
        assert of_lines == theirs(lines)["input_ids"]
        joined = [number for line in of_lines for number in line]
        assert ids[: len(joined)] == joined  # no word of GPT goes over the end of a line


def test_the_witness_knows_the_published_ids() -> None:
    """From the paper's own code: what it makes of its files is printed in its users' manuals."""
    openai = witness("gpt2")
    assert openai.encode("Hello world") == [15496, 995]
    assert openai.encode(" Hello world") == [18435, 995]
    assert openai.decode([15496, 11, 616, 3290, 318, 13779]) == "Hello, my dog is cute"


# Characters


def lines_of_characters() -> Iterator[str]:
    """Yields every assigned character outside the private planes beside letters, digits and spaces."""
    for start in range(0, 0xF0000, 0x400):
        known = [
            chr(code) for code in range(start, start + 0x400) if unicodedata.category(chr(code)) not in ("Cn", "Cs")
        ]
        if known:
            yield "\n".join(f"a{character} {character}1" for character in known)


def test_every_character_as_openai_encodes_it() -> None:
    lines, openai = list(lines_of_characters()), witness(BEST["gpt2"])
    ours = pair(BEST["gpt2"]).ours
    found = ours(lines)["input_ids"]
    for line, ids in zip(lines, found, strict=True):
        assert ids == openai.encode(line), f"U+{ord(line[1]):04X} and on"
    assert ours.batch_decode(found) == lines


@pytest.mark.parametrize("vocabulary", BEST.values())
def test_code_points_of_all_planes_as_transformers(vocabulary: str) -> None:
    """Every one of the first two planes, unassigned or not, and some of each of the others."""
    ours, theirs = pair(vocabulary)
    codes = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, sys.maxunicode + 1, 0x41)]
    lines = [
        "".join(f"a{chr(code)}b " for code in codes[start : start + 0x100]) for start in range(0, len(codes), 0x100)
    ]
    assert ours(lines)["input_ids"] == theirs(lines)["input_ids"]


# Texts nobody thought of


@pytest.mark.parametrize("vocabulary", GPT2_VOCABULARIES)
def test_any_text_as_openai_encodes_it(vocabulary: str) -> None:
    ours, openai = pair(vocabulary).ours, witness(vocabulary)

    @examples(300)
    @given(texts())
    def check(text: str) -> None:
        ids = ours(text)["input_ids"]
        assert ids == openai.encode(text)
        assert ours.tokenize(text) == openai.tokenize(text) == ours.convert_ids_to_tokens(ids)
        assert ours.decode(ids) == text

    check()


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_any_text_as_transformers(vocabulary: str) -> None:
    ours, theirs = pair(vocabulary)

    @examples(300)
    @given(st.one_of(texts(any_character), texts_with_specials()))
    def check(text: str) -> None:
        found, wanted = (tokenizer(text, return_offsets_mapping=True) for tokenizer in (ours, theirs))
        assert dict(found) == dict(wanted)
        assert ours.encode(text) == found["input_ids"]
        assert ours.tokenize(text) == theirs.tokenize(text) == found.tokens()
        assert ours.decode(found["input_ids"]) == theirs.decode(found["input_ids"])
        kept = ours.decode(found["input_ids"], skip_special_tokens=True)
        assert kept == theirs.decode(found["input_ids"], skip_special_tokens=True)

    check()


@pytest.mark.parametrize("vocabulary", GPT2_VOCABULARIES)
def test_any_text_comes_back(vocabulary: str) -> None:
    ours = pair(vocabulary).ours

    @examples(200)
    @given(st.one_of(texts(any_character), texts_with_specials()))
    def check(text: str) -> None:
        assert ours.decode(ours.encode(text)) == text

    check()


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_any_ids_are_decoded_as_transformers_does(vocabulary: str) -> None:
    """Also ids that no text has: halves of characters, whose bytes become U+FFFD."""
    ours, theirs = pair(vocabulary)

    @examples(200)
    @given(st.lists(st.integers(0, len(theirs) - 1), max_size=30), st.booleans())
    def check(ids: list[int], skip: bool) -> None:
        found = ours.decode(ids, skip_special_tokens=skip)
        assert found == theirs.decode(ids, skip_special_tokens=skip)
        assert ours.batch_decode([ids, ids], skip_special_tokens=skip) == [found, found]
        tokens = ours.convert_ids_to_tokens(ids, skip_special_tokens=skip)
        assert tokens == theirs.convert_ids_to_tokens(ids, skip_special_tokens=skip)
        assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
        assert ours.convert_tokens_to_string(tokens) == theirs.convert_tokens_to_string(tokens)

    check()


@pytest.mark.parametrize("vocabulary", GPT2_VOCABULARIES)
def test_half_characters_are_decoded_as_openai_does(vocabulary: str) -> None:
    ours, openai = pair(vocabulary).ours, witness(vocabulary)

    @examples(200)
    @given(st.lists(st.integers(0, len(openai.ids) - 1), max_size=30))
    def check(ids: list[int]) -> None:
        if END not in openai.ids or openai.ids[END] not in ids:  # which is no spelling of bytes
            assert ours.decode(ids) == openai.decode(ids)

    check()


# Special tokens inside of texts


@pytest.mark.parametrize("vocabulary", GPT2_VOCABULARIES)
def test_special_tokens_split_the_text_first(vocabulary: str) -> None:
    """No space beside one is lost, and what is not quite one is text."""
    ours, openai = pair(vocabulary).ours, witness(vocabulary)
    end = ours.convert_tokens_to_ids(END)
    assert end == ours.eos_token_id == len(ours) - 1

    @examples(100)
    @given(st.lists(texts(), min_size=1, max_size=4))
    def check(parts: list[str]) -> None:
        wanted = [openai.encode(part) for part in parts]
        assert ours.encode(END.join(parts)) == [number for part in wanted for number in (*part, end)][:-1]

    check()
    assert end not in ours.encode("<|ENDOFTEXT|> <|endoftext| > <|endoftext|")


@pytest.mark.parametrize("vocabulary", GPT2_VOCABULARIES)
def test_special_tokens_as_text(vocabulary: str) -> None:
    ours, openai = pair(vocabulary).ours, witness(vocabulary)
    assert ours(f"a {END}", split_special_tokens=True)["input_ids"] == openai.encode(f"a {END}")
    assert ours(f"a {END}")["input_ids"][-1] == ours.eos_token_id  # the call before has left nothing behind


# Offsets


@pytest.mark.parametrize("vocabulary", GPT2_VOCABULARIES)
def test_offsets_of_gpt2(vocabulary: str) -> None:
    """Every character is in some token, in order; a token's characters are those of its text, without its space."""
    ours, openai = pair(vocabulary).ours, witness(vocabulary)

    @examples(200)
    @given(texts())
    def check(text: str) -> None:
        found = ours(text, return_offsets_mapping=True)
        offsets = found["offset_mapping"]
        starts, ends = zip(*offsets, strict=True) if offsets else ((), ())
        assert list(starts) == sorted(starts)
        assert list(ends) == sorted(ends)
        covered = {place for start, end in offsets for place in range(start, end)}
        assert not [place for place in set(range(len(text))) - covered if not text[place].isspace()]
        for number, (start, end) in zip(found["input_ids"], offsets, strict=True):
            spelled = openai.decode([number])
            if "\ufffd" not in spelled:  # whole characters
                assert spelled.strip() == text[start:end].strip()

    check()


@pytest.mark.parametrize("vocabulary", [name for name in VOCABULARIES if name not in GPT2_VOCABULARIES])
def test_offsets_of_gpt1(vocabulary: str) -> None:
    """They point into the text as it was given, before its letters were made small and its accents went."""
    ours = pair(vocabulary).ours
    text = "  Héllo,\tWORLD! na\u0308ive İs\n 東京x\u0000y  "
    found = ours(text, return_offsets_mapping=True)
    at = {text[start:end].lower() for start, end in found["offset_mapping"]}
    assert {",", "!", "東", "京"} <= at
    words = ["Héllo", ",", "WORLD", "!", "na\u0308ive", "İs", "東", "京", "x\u0000y"]
    spans = {}
    for word, span in zip(found.word_ids(), found["offset_mapping"], strict=True):
        spans[word] = (spans.get(word, span)[0], span[1])
    assert [text[start:end] for start, end in spans.values()] == words


# Texts that are none


@pytest.mark.parametrize("vocabulary", BEST.values())
@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "x" * 100 + "\udc80", "\udc00\ud800", END + "\ud83d"])
def test_lone_surrogates_are_refused(text: str, vocabulary: str) -> None:
    ours = pair(vocabulary).ours
    for call in (
        lambda: ours(text),
        lambda: ours(["fine", text]),
        lambda: ours("fine", text),
        lambda: ours([["fine", text]], is_split_into_words=True),
        lambda: ours.encode(text),
        lambda: ours.tokenize(text),
    ):
        with pytest.raises(InputError, match="surrogate") as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("vocabulary", BEST.values())
def test_very_long_words(vocabulary: str) -> None:
    ours, theirs = pair(vocabulary)
    for text in ("a" * 20_000, "ab" * 10_000, " " * 20_000 + "x", "\n" * 20_000, "é" * 10_000, "東" * 10_000):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]


# What Transformers 4.57.6 encoded


@pytest.mark.parametrize("vocabulary", ["gpt2-fast-plain", "gpt1-fast-plain"])
def test_the_texts_of_the_golden_file_are_not_trivial(vocabulary: str) -> None:
    assert sum(map(len, golden()["tokenizers"][vocabulary]["ids"])) > 100
