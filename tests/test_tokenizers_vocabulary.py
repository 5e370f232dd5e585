"""Tokens, special tokens and added ones: what there is, what it is for, and how more come in."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from gptzoo.errors import InputError
from tests.tokenizers_matrix import BEST, CLASSES, END, VOCABULARIES, Pair, examples, fresh, pair, texts

TEXT = "some <new> thing<new>else  ababab [x] <s1>and\n<pad> THINE thine thinest <|endoftext|> <s1>"
ADDED = {
    "a word": ["abab"],
    "words that begin alike": ["ab", "abab", "aba"],
    "with the space before": [AddedToken("<new>", lstrip=True)],
    "with the space behind": [AddedToken("<new>", rstrip=True), AddedToken("<s1>", rstrip=True, lstrip=True)],
    "a single word only": [AddedToken("thine", single_word=True)],
    "not as it is normalized": [AddedToken("THINE", normalized=False), AddedToken("[X]", normalized=True)],
    "special ones": [AddedToken("<s1>", special=True), AddedToken("<pad>", special=True, normalized=True)],
    "of the vocabulary": ["the", "thing"],
    "twice": ["abab", "abab"],
    "with a space inside": ["thing else", " thine "],
    "not of ASCII": ["東京", "é", "\n"],
}


def described(tokenizer: Any) -> dict[str, Any]:
    roles = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
    found = {name: getattr(tokenizer, name) for role in roles for name in (role, f"{role}_id")}
    return found | {
        "len": len(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "vocab": tokenizer.get_vocab(),
        "added": tokenizer.get_added_vocab(),
        "special": set(tokenizer.all_special_tokens),
        "special ids": set(tokenizer.all_special_ids),
        "kept whole": {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()},
    }


def assert_equal(both: Pair, text: str = TEXT) -> None:
    ours, theirs = both
    assert described(ours) == described(theirs)
    ids = theirs(text)["input_ids"]
    assert ours(text)["input_ids"] == ids
    assert (
        ours(text, return_offsets_mapping=True)["offset_mapping"]
        == theirs(text, return_offsets_mapping=True)["offset_mapping"]
    )
    names = {number: token for token, number in theirs.get_vocab().items()}
    tokens = [names[number] for number in ids]
    assert (
        ours.convert_ids_to_tokens(ids) == tokens
    )  # theirs are not always of the vocabulary: " <new>", "[x]" for "[X]"
    assert ours.tokenize(text) == tokens
    for skip in (False, True):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    special = {number for number, token in theirs.added_tokens_decoder.items() if token.special}
    kept = [token for number, token in zip(ids, tokens, strict=True) if number not in special]
    assert ours.convert_ids_to_tokens(ids, skip_special_tokens=True) == kept


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_vocabulary_as_it_comes(vocabulary: str) -> None:
    assert_equal(pair(vocabulary))
    ours = pair(vocabulary).ours
    assert dict(ours.vocab) == ours.get_vocab()
    assert sorted(ours.vocab.values()) == list(range(len(ours)))


@pytest.mark.parametrize("vocabulary", ["gpt2", "gpt1"])
def test_the_merges_are_those_of_the_file(vocabulary: str) -> None:
    ours = pair(vocabulary).ours
    folder = VOCABULARIES[vocabulary][1]
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert [" ".join(merge) for merge in ours.merges] == lines
    assert len(ours.merges) == (50_000 if vocabulary == "gpt2" else 40_000)
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    assert ours.vocab == ids


def test_published_numbers() -> None:
    ours = pair("gpt2").ours
    assert (len(ours), ours.vocab_size, ours.eos_token_id, ours.pad_token) == (50257, 50257, 50256, None)
    ours = pair("gpt1").ours
    assert (len(ours), ours.unk_token, ours.unk_token_id, ours.bos_token, ours.eos_token) == (
        40478,
        "<unk>",
        0,
        None,
        None,
    )


def test_special_tokens_for_nothing_usual() -> None:
    """Under both names, set as one and by a call, in place of those before or beside them."""
    ours = fresh("gpt2 bundled").ours
    ours.additional_special_tokens = ["<a>"]
    ours.extra_special_tokens = ["<b>"]
    assert (ours.additional_special_tokens, ours.extra_special_tokens_ids) == (["<b>"], [ours.vocab["<b>"]])
    ours.add_special_tokens({"additional_special_tokens": ["<c>"]}, replace_extra_special_tokens=False)
    assert ours.extra_special_tokens == ["<b>", "<c>"]
    ours.add_special_tokens({"extra_special_tokens": ["<d>"]})
    assert ours.additional_special_tokens == ["<d>"]
    assert [ours.encode(token) for token in ("<a>", "<b>", "<c>", "<d>")] == [[1024], [1025], [1026], [1027]]


def test_lengths_can_be_compared() -> None:
    """A tokenizer that knows no limit has a large number, as in Transformers, and nothing is cut to it."""
    both = fresh("gpt2 bundled", add_bos_token=True)
    for name in ("model_max_length", "max_len_single_sentence", "max_len_sentences_pair"):
        assert getattr(both.ours, name) == getattr(both.theirs, name) > 10**29
    assert len(both.ours("a b" * 3000, truncation=True).input_ids) > 3000
    both.ours.model_max_length = 7
    assert (both.ours.max_len_single_sentence, both.ours.max_len_sentences_pair) == (6, 5)
    assert len(both.ours("a b" * 3000, truncation=True).input_ids) == 7


@pytest.mark.parametrize("tokens", ADDED)
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_added_tokens_as_in_transformers(vocabulary: str, tokens: str) -> None:
    both = fresh(vocabulary)
    size = len(both.ours)
    counts = [tokenizer.add_tokens(ADDED[tokens]) for tokenizer in both]
    assert counts[0] == len(both.ours) - size <= counts[1]  # which are also those that were there already
    assert_equal(both)


@pytest.mark.parametrize("vocabulary", BEST.values())
def test_any_text_with_added_tokens(vocabulary: str) -> None:
    both = fresh(vocabulary)
    names = ["abab", "<new>", "<s1>"]
    for tokenizer in both:
        tokenizer.add_tokens(["abab", AddedToken("<new>", lstrip=True, rstrip=True)])
        tokenizer.add_tokens(["<s1>"], special_tokens=True)

    @examples(150)
    @given(st.lists(st.one_of(texts(), st.sampled_from(names)), max_size=6).map("".join))
    def check(text: str) -> None:
        found, wanted = (tokenizer(text, return_offsets_mapping=True) for tokenizer in both)
        assert dict(found) == dict(wanted)
        for skip in (False, True):
            decoded = [tokenizer.decode(wanted["input_ids"], skip_special_tokens=skip) for tokenizer in both]
            assert decoded[0] == decoded[1]

    check()


@pytest.mark.parametrize("family", CLASSES)
def test_special_tokens_by_what_they_are_for(family: str) -> None:
    both = fresh(BEST[family])
    steps: list[dict[str, Any]] = [
        {"pad_token": "<pad>"},
        {"additional_special_tokens": ["<s1>", AddedToken("[x]", lstrip=True)]},
        {"bos_token": "<bos>", "eos_token": AddedToken("thing")},
        {"pad_token": "<other>"},
    ]
    for step in steps:
        size = len(both.ours)
        counts = [tokenizer.add_special_tokens(step) for tokenizer in both]
        assert counts[0] == len(both.ours) - size <= counts[1]
        assert_equal(both)


@pytest.mark.parametrize("family", CLASSES)
def test_special_tokens_by_assignment(family: str) -> None:
    ours = fresh(BEST[family]).ours
    size = len(ours)
    ours.pad_token = ours.unk_token
    assert ours.pad_token_id == ours.unk_token_id
    assert ours("a b", padding="max_length", max_length=9)["input_ids"][-1] == ours.unk_token_id
    ours.add_tokens("<pad>")
    ours.pad_token = "<pad>"
    assert ours.pad_token_id == size
    ours.pad_token_id = 5
    assert ours.pad_token == ours.convert_ids_to_tokens(5)
    ours.pad_token = None
    assert ours.pad_token is ours.pad_token_id is None
    with pytest.raises(InputError, match=r"^pad_token: '<nothing>' is not in the vocabulary"):
        ours.pad_token = "<nothing>"
    assert ours.pad_token is None


@pytest.mark.parametrize("family", CLASSES)
def test_tokens_and_ids(family: str) -> None:
    ours, theirs = pair(BEST[family])
    for token in ("the", "nothing of the vocabulary", END, "<unk>", ""):
        assert ours.convert_tokens_to_ids(token) == theirs.convert_tokens_to_ids(token)
    assert ours.convert_tokens_to_ids([]) == ours.convert_ids_to_tokens([]) == []
    tokens = ours.tokenize("the of")
    assert ours.convert_tokens_to_ids(tokens) == ours.encode("the of")
    assert ours.convert_ids_to_tokens(5) == theirs.convert_ids_to_tokens(5)
    assert ours.convert_tokens_to_string([]) == ours.decode([]) == ""


@pytest.mark.parametrize(
    "form", ["a list", "a tuple", "NumPy", "numbers of NumPy", "one number", "PyTorch", "an encoding"]
)
def test_ids_in_every_form(form: str) -> None:
    ours = pair(BEST["gpt2"]).ours
    text = " the" if form == "one number" else "the of and"
    found = ours(text)
    ids = found["input_ids"]
    forms: dict[str, Any] = {
        "a list": ids,
        "a tuple": tuple(ids),
        "NumPy": np.array(ids, np.int32),
        "numbers of NumPy": [np.int64(number) for number in ids],
        "one number": ids[0],
        "an encoding": found,
    }
    if form == "PyTorch":
        forms[form] = pytest.importorskip("torch").tensor(ids)
    assert ours.decode(forms[form]) == text
    if form != "an encoding":
        assert ours.convert_ids_to_tokens(forms[form]) == (
            ours.tokenize(text)[0] if form == "one number" else ours.tokenize(text)
        )


def test_rows_are_decoded_alike_by_both_methods() -> None:
    ours, theirs = pair(BEST["gpt2"])
    rows = ours(["one", "two three", ""])["input_ids"]
    assert ours.batch_decode(rows) == theirs.batch_decode(rows) == ["one", "two three", ""]
    assert ours.decode(rows) == theirs.decode(rows)
    assert ours.batch_decode(np.array([[1, 2], [3, 4]])) == theirs.batch_decode(np.array([[1, 2], [3, 4]]))
    assert ours.batch_decode([]) == []


@pytest.mark.parametrize("errors", ["replace", "ignore", "backslashreplace"])
def test_half_characters(errors: str) -> None:
    ours = fresh(BEST["gpt2"], errors=errors).ours
    ids = ours.encode("é")
    halves = [
        number for number in ids if number in ours.convert_tokens_to_ids(["Ã", "©"])
    ] or ours.convert_tokens_to_ids(["Ã"])
    assert ours.decode(halves[:1]) == b"\xc3".decode(errors=errors)


def test_half_characters_are_an_error_if_asked_for() -> None:
    ours = fresh(BEST["gpt2"], errors="strict").ours
    assert ours.decode(ours.encode("é")) == "é"
    with pytest.raises(InputError) as caught:
        ours.decode(ours.convert_tokens_to_ids(["Ã"]))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("vocabulary", BEST.values())
def test_special_tokens_around_ids(vocabulary: str) -> None:
    arguments = {"add_bos_token": True} if vocabulary.startswith("gpt2") else {}
    ours = fresh(vocabulary, **arguments).ours
    first, second = ours("one two", add_special_tokens=False), ours("three", add_special_tokens=False)
    single, both = (
        ours("one two", return_special_tokens_mask=True),
        ours("one two", "three", return_token_type_ids=True),
    )
    assert ours.build_inputs_with_special_tokens(first["input_ids"]) == single["input_ids"]
    assert ours.build_inputs_with_special_tokens(first["input_ids"], second["input_ids"]) == both["input_ids"]
    assert ours.num_special_tokens_to_add() == len(single["input_ids"]) - len(first["input_ids"])
    assert ours.num_special_tokens_to_add(pair=True) == len(both["input_ids"]) - len(
        first["input_ids"] + second["input_ids"]
    )
    assert ours.get_special_tokens_mask(first["input_ids"]) == single["special_tokens_mask"]
    types = ours.create_token_type_ids_from_sequences(first["input_ids"], second["input_ids"])
    assert types == both["token_type_ids"]


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda tokenizer: pickle.loads(pickle.dumps(tokenizer))])
@pytest.mark.parametrize("family", CLASSES)
def test_copies_go_their_own_ways(family: str, how: Any) -> None:
    ours = fresh(BEST[family]).ours
    ours.add_tokens("abab")
    before = described(ours), ours.encode(TEXT)
    made = how(ours)
    assert (described(made), made.encode(TEXT)) == before
    made.add_tokens(["<new>", "<s1>"])
    made.add_special_tokens({"pad_token": "<pad>"})
    assert made.encode(TEXT) != before[1]
    assert (described(ours), ours.encode(TEXT)) == before


def test_what_a_method_returns_is_the_caller_s() -> None:
    ours = fresh(BEST["gpt2"]).ours
    before = described(ours), ours.encode(TEXT), ours.merges
    for found in (ours.vocab, ours.get_vocab(), ours.get_added_vocab(), ours.special_tokens_map):
        found.clear()
    for found in (ours.merges, ours.all_special_tokens, ours.all_special_ids):
        found.clear()
    assert (described(ours), ours.encode(TEXT), ours.merges) == before
