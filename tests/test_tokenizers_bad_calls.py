"""Calls that cannot be answered: one InputError in one line, which names the argument."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptzoo.errors import InputError
from tests.tokenizers_matrix import BEST, CLASSES, examples, fresh

LONE = "a\ud800"
Call = Callable[[Any], object]


@cache
def tokenizer(family: str, padded: bool = True) -> Any:
    ours = fresh(BEST[family]).ours
    if padded:
        ours.pad_token = ours.unk_token
    return ours


def refusal(call: Call, family: str, words: str, padded: bool = True) -> None:
    with pytest.raises(InputError, match=words) as caught:
        call(tokenizer(family, padded))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 1000
    assert message.isprintable()


CALLS: dict[str, tuple[Call, str]] = {
    # texts
    "no text": (lambda t: t(None), "^text: None, expected a text"),
    "a number": (lambda t: t(5), "^text: 5, expected a text"),
    "bytes": (lambda t: t(b"abc"), "^text: .*expected a text"),
    "a map": (lambda t: t({"a": 1}), "^text: .*expected a text"),
    "a set": (lambda t: t({"a"}), "^text: .*expected a text"),
    "numbers": (lambda t: t([1, 2]), r"^text\[0\]: 1, expected a text"),
    "a number among texts": (lambda t: t(["a", 5]), r"^text\[1\]: 5, expected a text"),
    "None among texts": (lambda t: t(["a", None]), r"^text\[1\]: None, expected a text"),
    "bytes among texts": (lambda t: t(["a", b"b"]), r"^text\[1\]: .*expected a text"),
    "lists among texts": (lambda t: t(["a", ["b"]]), r"^text\[1\]: .*expected a text; is_split_into_words"),
    "words unsaid": (lambda t: t([["a"], ["b"]]), r"^text\[0\]: .*is_split_into_words"),
    "lists of lists of lists": (lambda t: t([[["a"]]]), r"^text\[0\]: "),
    "lists of lists of words": (
        lambda t: t([[["a"]]], is_split_into_words=True),
        r"^text\[0\]: .*expected a list of words",
    ),
    "a text as words": (lambda t: t("a b", is_split_into_words=True), "^text: .*expected a list of words"),
    "numbers as words": (lambda t: t([1, 2], is_split_into_words=True), "^text: .*expected a list of words"),
    "words and lists": (lambda t: t([["a"], "b"], is_split_into_words=True), r"^text\[1\]: .*expected a list of words"),
    "an array of numbers": (lambda t: t(np.arange(3)), "^text: .*expected a text"),
    # pairs
    "more second texts": (lambda t: t(["a"], ["b", "c"]), "^text_pair: .*expected as many texts .* 1"),
    "fewer second texts": (lambda t: t(["a", "b"], ["c"]), "^text_pair: .*expected as many texts .* 2"),
    "one second text": (lambda t: t(["a", "b"], "c"), "^text_pair: .*expected as many texts .* 2"),
    "many second texts": (lambda t: t("a", ["b"]), "^text_pair: .*expected a text"),
    "a number as second": (lambda t: t("a", 5), "^text_pair: 5, expected a text"),
    "a number among seconds": (lambda t: t(["a"], [5]), r"^text_pair\[0\]: 5, expected a text"),
    # lone surrogates
    "lone": (lambda t: t(LONE), "surrogate U.D800"),
    "lone among texts": (lambda t: t(["a", LONE]), "surrogate U.D800"),
    "lone as second": (lambda t: t("a", LONE), "surrogate U.D800"),
    "lone as a word": (lambda t: t(["a", LONE], is_split_into_words=True), "surrogate U.D800"),
    "lone in encode": (lambda t: t.encode(LONE), "surrogate U.D800"),
    "lone in tokenize": (lambda t: t.tokenize(LONE), "surrogate U.D800"),
    "lone in a token": (lambda t: t.add_tokens(LONE), r"^token: .*ud800"),
    "lone in a special token": (lambda t: t.add_special_tokens({"pad_token": LONE}), r"ud800"),
    "lone as pad_token": (lambda t: setattr(t, "pad_token", LONE), r"^pad_token: .*ud800"),
    # arguments
    "a misspelt argument": (lambda t: t("a", max_lenght=5), "max_lenght.?, did you mean max_length"),
    "a misspelt argument of encode": (
        lambda t: t.encode("a", trunctation=True),
        "trunctation.?, did you mean truncation",
    ),
    "an unknown argument": (lambda t: t("a", xyzzy=True), "unknown argument .?xyzzy"),
    "padding": (
        lambda t: t("a", padding="left"),
        "padding: .?left.?, expected True, False or one of longest, max_length",
    ),
    "padding a number": (lambda t: t("a", padding=5), "padding: 5, expected True, False"),
    "truncation": (lambda t: t("a", truncation="right"), "truncation: .?right.?, expected True, False or one of"),
    "truncation a list": (lambda t: t("a", truncation=[]), r"truncation: \[\], expected True, False"),
    "max_length below 0": (lambda t: t("a", max_length=-1), "max_length: -1, expected a whole number from 0"),
    "max_length a fraction": (lambda t: t("a", max_length=2.5), "max_length: 2.5, expected a whole number"),
    "max_length a text": (lambda t: t("a", max_length="5"), "max_length: .?5.?, expected a whole number"),
    "max_length NaN": (lambda t: t("a", max_length=float("nan")), "max_length: nan, expected a whole number"),
    "max_length infinite": (lambda t: t("a", max_length=float("inf")), "max_length: inf, expected a whole number"),
    "stride below 0": (lambda t: t("a", stride=-1), "stride: -1, expected a whole number"),
    "stride a text": (lambda t: t("a", stride="x"), "stride: .?x.?, expected a whole number"),
    "stride of max_length": (
        lambda t: t("a b c d", truncation=True, max_length=2, stride=2),
        "^stride: 2, expected less than",
    ),
    "stride above max_length": (
        lambda t: t("a", truncation=True, max_length=2, stride=5),
        "^stride: 5, expected less than",
    ),
    "multiple of 0": (
        lambda t: t("a", padding=True, pad_to_multiple_of=0),
        "pad_to_multiple_of: 0, expected a whole number from 1",
    ),
    "multiple below 0": (lambda t: t("a", padding=True, pad_to_multiple_of=-8), "pad_to_multiple_of: -8, expected"),
    "length that is no multiple": (
        lambda t: t("a", padding=True, truncation=True, max_length=5, pad_to_multiple_of=4),
        "max_length: 5, expected a multiple of pad_to_multiple_of: 4",
    ),
    "side": (lambda t: t("a", padding=True, padding_side="top"), "padding_side: .?top.?, expected right or left"),
    "side a number": (lambda t: t("a", padding=True, padding_side=1), "padding_side: 1, expected right or left"),
    "no length to pad to": (lambda t: t("a", padding="max_length"), "padding: .*needs max_length"),
    "only the second": (
        lambda t: t("a b c", truncation="only_second", max_length=1),
        "truncation: .?only_second.?, but",
    ),
    "the second too short": (
        lambda t: t("a b c", "d", truncation="only_second", max_length=2),
        "truncation: .?only_second.?, but",
    ),
    "the first too short": (
        lambda t: t("a", "b c d", truncation="only_first", max_length=2),
        "truncation: .?only_first.?, but",
    ),
    "several at once": (lambda t: t("a", padding="x", stride=-1), "problems"),
    "another framework": (
        lambda t: t("a", return_tensors="mxnet"),
        "return_tensors: .?mxnet.?, expected one of pt, tf, jax",
    ),
    "tensors a flag": (lambda t: t("a", return_tensors=True), "return_tensors: True, expected one of"),
    "rows of two lengths": (
        lambda t: t(["a b c", "a"], return_tensors="np"),
        "input_ids: rows of .* make no array: padding=True",
    ),
    # padding afterwards
    "nothing to pad": (lambda t: t.pad({}), "^encoded_inputs: .*expected a map with input_ids"),
    "a list to pad": (lambda t: t.pad([[1, 2]]), "^encoded_inputs: .*expected a map with input_ids"),
    "maps without ids": (lambda t: t.pad([{"a": [1]}]), "^encoded_inputs: .*expected a map with input_ids"),
    "maps that differ": (lambda t: t.pad([{"input_ids": [1], "x": [1]}, {"input_ids": [2]}]), "^encoded_inputs: "),
    "ids a number": (lambda t: t.pad({"input_ids": 5}), "^encoded_inputs: "),
    "ids of a text": (lambda t: t.pad({"input_ids": "abc"}), "^encoded_inputs: "),
    "a mask of another length": (
        lambda t: t.pad({"input_ids": [[1, 2], [3]], "attention_mask": [[1], [1]]}, return_tensors="np"),
        "attention_mask",
    ),
    "labels that are not padded": (
        lambda t: t.pad({"input_ids": [[1, 2], [3]], "labels": [[1, 2], [3]]}, return_tensors="np"),
        "labels: rows of .* make no array",
    ),
    # ids
    "id too large": (lambda t: t.decode([10**6]), "^ids: 1000000, expected whole numbers from 0 below"),
    "id far too large": (lambda t: t.decode([2**70]), "^ids: 1180591620717411303424, expected whole numbers"),
    "id below 0": (lambda t: t.decode([-1]), "^ids: -1, expected whole numbers from 0 below"),
    "id a fraction": (lambda t: t.decode([1.5]), "^ids: 1.5, expected whole numbers"),
    "id a text": (lambda t: t.decode(["a"]), "^ids: .?a.?, expected whole numbers"),
    "id None": (lambda t: t.decode([1, None]), "^ids: None, expected whole numbers"),
    "ids None": (lambda t: t.decode(None), "^ids: None, expected whole numbers"),
    "ids a text": (lambda t: t.decode("abc"), "^ids: .?abc.?, expected whole numbers"),
    "ids of fractions": (lambda t: t.decode(np.array([0.5])), "^ids: 0.5, expected whole numbers"),
    "ids in lists in lists": (lambda t: t.batch_decode([[[[1.5]]]]), "^ids: "),
    "rows and ids": (lambda t: t.batch_decode([[1], 2]), "^ids: "),
    "a map without ids": (lambda t: t.decode({"a": 1}), "^ids: None, expected whole numbers"),
    "token of an id too large": (lambda t: t.convert_ids_to_tokens(10**6), "^ids: 1000000, expected"),
    "tokens of ids below 0": (lambda t: t.convert_ids_to_tokens([-1]), "^ids: -1, expected"),
    "token of a text": (lambda t: t.convert_ids_to_tokens("a"), "^ids: .?a.?, expected"),
    "id of a number": (lambda t: t.convert_tokens_to_ids(5), "^tokens: 5, expected"),
    "ids of numbers": (lambda t: t.convert_tokens_to_ids([5]), "^tokens: .*expected"),
    "text of numbers": (lambda t: t.convert_tokens_to_string([5]), "^tokens: .*expected"),
    "pad_token_id too large": (lambda t: setattr(t, "pad_token_id", 10**6), "^ids: 1000000, expected|^pad_token_id"),
    "pad_token that is none": (
        lambda t: setattr(t, "pad_token", "<none>"),
        "^pad_token: .?<none>.? is not in the vocabulary",
    ),
    "pad_token a number": (lambda t: setattr(t, "pad_token", 5), "^pad_token: 5"),
    # added tokens
    "token a number": (lambda t: t.add_tokens(5), "^new_tokens: 5, expected"),
    "tokens of numbers": (lambda t: t.add_tokens([5]), "^token: 5, expected a text"),
    "token empty": (lambda t: t.add_tokens([""]), "^token: .*expected a text of at least one character"),
    "an unknown purpose": (
        lambda t: t.add_special_tokens({"padding": "x"}),
        "special_tokens_dict: .?padding.?, expected one of",
    ),
    "a purpose without a token": (lambda t: t.add_special_tokens({"pad_token": None}), "^token: None|^pad_token: None"),
    "special tokens a list": (lambda t: t.add_special_tokens(["<x>"]), "^special_tokens_dict: .*expected a map"),
    "others a text": (
        lambda t: t.add_special_tokens({"additional_special_tokens": "<x>"}),
        "^additional_special_tokens: .*expected a list",
    ),
}


@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("family", CLASSES)
def test_bad_calls(family: str, case: str) -> None:
    call, words = CALLS[case]
    ours = tokenizer(family)
    before = (len(ours), ours.special_tokens_map, ours.encode("a b"))
    if case == "several at once":
        with pytest.raises(InputError, match=words) as caught:
            call(ours)
        assert len(str(caught.value).splitlines()) == 3
    else:
        refusal(call, family, words)
    assert (len(ours), ours.special_tokens_map, ours.encode("a b")) == before


@pytest.mark.parametrize("family", CLASSES)
def test_padding_without_a_token_to_pad_with(family: str) -> None:
    advice = r"padding: the tokenizer has no pad_token \(.*pad_token"
    for call in (
        lambda t: t(["a", "b c"], padding=True),
        lambda t: t(["a", "b c"], padding="max_length", max_length=5),
        lambda t: t.pad({"input_ids": [[1], [2, 3]]}),
    ):
        refusal(call, family, advice, padded=False)


@pytest.mark.parametrize("family", CLASSES)
def test_half_of_a_batch_is_not_added(family: str) -> None:
    """One wrong token among right ones: none of them comes in."""
    ours = fresh(BEST[family]).ours
    size = len(ours)
    with pytest.raises(InputError):
        ours.add_tokens(["<a>", 5])
    with pytest.raises(InputError):
        ours.add_special_tokens({"pad_token": "<a>", "bos_token": 5})
    assert (len(ours), ours.pad_token) == (size, None)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(LONE),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
NAMES = ["padding", "truncation", "max_length", "stride", "pad_to_multiple_of", "padding_side", "return_tensors"]


@pytest.mark.parametrize("family", CLASSES)
def test_anything_at_all(family: str) -> None:
    """Whatever is given, a call answers or raises InputError."""
    ours = tokenizer(family)

    @examples(300)
    @given(anything, anything, st.dictionaries(st.sampled_from(NAMES), anything, max_size=2), st.booleans())
    def check(text: Any, pair: Any, options: dict[str, Any], in_words: bool) -> None:
        options = {
            name: value for name, value in options.items() if not (isinstance(value, int | float) and value > 1e4)
        }
        for call in (
            lambda: ours(text, pair, is_split_into_words=in_words, **options),
            lambda: ours("a b c d", **options),
            lambda: ours(text),
            lambda: ours.decode(text),
            lambda: ours.batch_decode(text),
            lambda: ours.convert_ids_to_tokens(text),
            lambda: ours.convert_tokens_to_ids(text),
            lambda: ours.convert_tokens_to_string(text),
            lambda: ours.pad(text),
            lambda: ours.pad({"input_ids": text}),
        ):
            try:
                call()
            except InputError as problem:
                assert len(str(problem).splitlines()) == 1 or "problems):" in str(problem)  # noqa: PT017

    check()
