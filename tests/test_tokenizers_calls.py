"""The calling contract: every combination of arguments gives what Transformers 5 gives, or both refuse."""

from __future__ import annotations

import itertools
import sys
import threading
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gptzoo.errors import InputError
from tests.tokenizers_matrix import BEST, CLASSES, FRAGMENTS, Pair, examples, fresh, pair

REFUSED = "refused"

# What is different on purpose, and why.
INTENDED = {
    "words": "is_split_into_words: GPT-2 gets a space before each word, as with add_prefix_space, without which "
    "Transformers 5 runs words together ([3, 3] for ['ab', 'ab'])",
    "prefix": "add_prefix_space: taken in a call too, where Transformers 5 ignores it silently",
    "ragged": "return_tensors of rows of different lengths: refused; Transformers 5 makes arrays of lists",
    "no limit": "padding='max_length' without one: refused; Transformers 5 pads nothing",
    "no room": "max_length that leaves texts no token, or none but the stride: refused if there is something to cut; "
    "Transformers 5 lets rows be longer, and has one rest of everything",
    "length": "return_length for one text: a number; Transformers 5 gives a list of one",
    "empty pair": "text_pair='': a pair, whose second text is empty; Transformers 5 takes it for none",
    "no texts": "[]: no rows; Transformers 5 raises IndexError",
    "errors": "InputError in one line; Transformers 5 raises what Rust raises, and panics",
}


FAMILIES = [("gpt2", False), ("gpt2", True), ("openai-gpt", False)]  # and whether there is a token before texts


@cache
def padded(family: str, bos: bool = False, prefix: bool = False) -> Pair:
    """Both tokenizers with a token to pad with."""
    arguments: dict[str, Any] = {"add_bos_token": bos, "add_prefix_space": prefix} if family == "gpt2" else {}
    both = fresh(BEST[family], **arguments)
    for tokenizer in both:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return both


def outcome(tokenizer: Any, *texts: Any, **options: Any) -> Any:
    """Returns what a call returns, as lists, or that it refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Transformers 5 tells of arguments that it ignores
            found = tokenizer(*texts, **options)
    except InputError:
        return REFUSED
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of Rust is not an Exception
        if is_ours(tokenizer):
            raise
        return REFUSED
    return {name: plain(value) for name, value in found.items()}


def is_ours(tokenizer: Any) -> bool:
    owner = getattr(tokenizer, "__self__", tokenizer)  # of a method
    return type(owner).__module__.startswith("gptzoo")


def plain(value: Any) -> Any:
    """An array's lists, with tuples inside of them as lists too."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


# Every combination


short_text = st.lists(st.sampled_from([*FRAGMENTS, " a", " token", "<|endoftext|>"]), max_size=8).map("".join)
word = st.sampled_from(["Hello", "world", "!", "don't", "東京", "a", " b", "x y", "naïve", "<|endoftext|>"])
words = st.lists(word, min_size=1, max_size=5)


def some(item: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(item, min_size=1, max_size=4)


inputs = {
    "a text": st.tuples(short_text),
    "texts": st.tuples(some(short_text)),
    "a pair": st.tuples(short_text, short_text.filter(bool)),
    "pairs": some(st.tuples(short_text, short_text)).map(lambda both: tuple(map(list, zip(*both, strict=True)))),
    "pairs as tuples": st.tuples(some(st.tuples(short_text, short_text))),
    "words": st.tuples(words),
    "lists of words": st.tuples(some(words)),
    "a pair of words": st.tuples(words, words),
    "pairs of words": some(st.tuples(words, words)).map(lambda both: tuple(map(list, zip(*both, strict=True)))),
}
flag = st.booleans()
options = st.fixed_dictionaries(
    {},
    optional={
        "padding": st.sampled_from([True, True, False, "longest", "max_length", "do_not_pad"]),
        "truncation": st.sampled_from(
            [True, True, False, None, "longest_first", "only_first", "only_second", "do_not_truncate"]
        ),
        "max_length": st.none() | st.integers(0, 12),
        "stride": st.integers(0, 4),
        "pad_to_multiple_of": st.sampled_from([None, 1, 4]),
        "padding_side": st.sampled_from(["left", "right", None]),
        "add_special_tokens": flag,
        "return_tensors": st.sampled_from([None, "np"]),
        "return_token_type_ids": flag,
        "return_attention_mask": flag,
        "return_overflowing_tokens": flag,
        "return_special_tokens_mask": flag,
        "return_offsets_mapping": flag,
        "return_length": flag,
        "split_special_tokens": flag,
    },
)


@pytest.mark.parametrize("kind", inputs)
@pytest.mark.parametrize(("family", "bos"), FAMILIES)
def test_any_call_is_answered_as_by_transformers(family: str, bos: bool, kind: str) -> None:
    in_words = "words" in kind
    ours, _ = padded(family, bos)
    _, theirs = padded(family, bos, prefix=in_words and family == "gpt2")  # INTENDED["words"]

    @examples(120)
    @given(inputs[kind], options, st.sampled_from(["right", "left"]), st.sampled_from(["right", "left"]))
    def check(texts: tuple[Any, ...], chosen: dict[str, Any], padding_side: str, truncation_side: str) -> None:
        for tokenizer in (ours, theirs):
            tokenizer.padding_side, tokenizer.truncation_side = padding_side, truncation_side
        chosen = {**chosen, "is_split_into_words": True} if in_words else chosen
        found, room = outcome(ours, *texts, **chosen), room_of(kind, bos, chosen)
        if room is None or room > chosen.get("stride", 0):
            assert found == as_intended(outcome(theirs, *texts, **chosen), chosen)
        elif room > 0:
            assert found == REFUSED

    check()


@pytest.mark.parametrize("truncation_side", ["right", "left"])
@pytest.mark.parametrize("truncation", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize(("family", "bos"), FAMILIES)
def test_pairs_are_cut_as_by_transformers(family: str, bos: bool, truncation: str, truncation_side: str) -> None:
    both = padded(family, bos)
    flags = ("token_type_ids", "special_tokens_mask", "offsets_mapping", "overflowing_tokens")
    options = {f"return_{flag}": True for flag in flags} | {"truncation": truncation, "padding": True}
    cut = 0
    for first, second, stride in itertools.product(
        ("one two", "one two three four five"), ("six", "six seven eight nine"), (0, 1)
    ):
        for length in range(4 + stride, 12):
            found, wanted = Pair(
                *[answer(tokenizer, truncation_side, first, second, length, stride, options) for tokenizer in both]
            )
            assert found == wanted
            cut += found != REFUSED and len(found["input_ids"]) > 1
    assert cut > 5


def answer(
    tokenizer: Any, side: str, first: str, second: str, length: int, stride: int, options: dict[str, Any]
) -> Any:
    tokenizer.padding_side, tokenizer.truncation_side = "right", side
    return outcome(tokenizer, first, second, max_length=length, stride=stride, **options)


def room_of(kind: str, bos: bool, chosen: dict[str, Any]) -> int | None:
    """The tokens that max_length leaves the texts; None if nothing is cut."""
    default = True if chosen.get("padding", False) is False else None  # then max_length alone cuts
    truncation = chosen.get("truncation")
    truncation = default if truncation is None else truncation
    if truncation in (None, False, "do_not_truncate") or chosen.get("max_length") is None:
        return None
    special = (2 if "pair" in kind else 1) if bos and chosen.get("add_special_tokens", True) else 0
    length: int = chosen["max_length"]
    return length - special


def as_intended(expected: Any, chosen: dict[str, Any]) -> Any:
    """What Transformers 5 answers, with INTENDED differences."""
    if chosen.get("padding") == "max_length" and chosen.get("max_length") is None:
        return REFUSED
    if expected == REFUSED:
        return REFUSED
    rows = [value for value in expected.values() if value and isinstance(value[0], list)]
    if chosen.get("return_tensors") and any(len(set(map(len, value))) > 1 for value in rows):
        return REFUSED
    if "length" in expected and not isinstance((expected["input_ids"] or [0])[0], list):
        return expected | {"length": expected["length"][0]}
    return expected


@pytest.mark.parametrize("family", CLASSES)
def test_the_model_s_length_is_the_default(family: str) -> None:
    for length in (3, 7):
        both = fresh(BEST[family], model_max_length=length)
        for tokenizer in both:
            tokenizer.add_special_tokens({"pad_token": "<pad>"})
        for arguments in (
            {"truncation": True},
            {"padding": "max_length"},
            {"padding": "max_length", "truncation": True},
        ):
            found, wanted = (
                outcome(tokenizer, ["one two three four five six seven eight", "nine"], **arguments)
                for tokenizer in both
            )
            assert found == wanted
            assert length in map(len, found["input_ids"])


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("stride", "max_length"), [(0, 4), (1, 4), (3, 5), (2, 3)])
def test_overflowing_rows_hold_the_whole_text(stride: int, max_length: int, side: str) -> None:
    """Without Transformers: each row goes on where the one before ended, less the stride."""
    ours = fresh(BEST["gpt2"]).ours
    ours.truncation_side = side
    text = "Now is the winter of our discontent made glorious summer"
    whole = ours(text)["input_ids"]
    found = ours(text, truncation=True, max_length=max_length, stride=stride, return_overflowing_tokens=True)
    rows = found["input_ids"] if side == "right" else [row[::-1] for row in found["input_ids"]]
    joined = [*rows[0], *itertools.chain.from_iterable(row[stride:] for row in rows[1:])]
    assert joined == (whole if side == "right" else whole[::-1])
    assert found["overflow_to_sample_mapping"] == [0] * len(rows)
    assert len(rows) > 2


# What is different on purpose


def test_words_get_a_space_each() -> None:
    ours = pair(BEST["gpt2"]).ours
    wanted = ours(" ab ab, c")["input_ids"]
    assert ours(["ab", "ab,", "c"], is_split_into_words=True)["input_ids"] == wanted
    assert ours([["ab", "ab,", "c"], ["ab"]], is_split_into_words=True)["input_ids"] == [wanted, ours.encode(" ab")]


def test_a_space_before_the_text_is_asked_for_in_a_call() -> None:
    ours, _ = pair(BEST["gpt2"])
    with_prefix = fresh(BEST["gpt2"], add_prefix_space=True)
    for text in ("Hello world", " Hello", "", "\nHello", "'s", "a <|endoftext|>b"):
        assert ours(text, add_prefix_space=True)["input_ids"] == with_prefix.theirs(text)["input_ids"]
        assert with_prefix.ours(text)["input_ids"] == with_prefix.theirs(text)["input_ids"]
        assert with_prefix.ours(text, add_prefix_space=False)["input_ids"] == ours(text)["input_ids"]


@pytest.mark.parametrize("family", CLASSES)
def test_an_empty_second_text_is_a_text(family: str) -> None:
    ours = padded(family, bos=family == "gpt2").ours
    found = ours("a", "", return_token_type_ids=True)
    assert dict(found) == {name: rows[0] for name, rows in ours(["a"], [""], return_token_type_ids=True).items()}
    if family == "gpt2":
        assert found["token_type_ids"] == [0, 0, 1]


@pytest.mark.parametrize("family", CLASSES)
def test_no_texts_are_no_rows(family: str) -> None:
    found = padded(family).ours([], padding=True)
    assert dict(found) == {"input_ids": [], "attention_mask": []}


# Padding afterwards


@pytest.mark.parametrize("family", CLASSES)
def test_padding_afterwards_is_as_by_transformers(family: str) -> None:
    ours, theirs = padded(family)
    for tokenizer in (ours, theirs):
        tokenizer.padding_side = "right"

    @examples(150)
    @given(
        some(short_text),
        st.fixed_dictionaries(
            {},
            optional={
                "padding": st.sampled_from([True, False, "longest", "max_length"]),
                "max_length": st.none() | st.integers(1, 20),
                "pad_to_multiple_of": st.sampled_from([None, 4]),
                "padding_side": st.sampled_from([None, "left", "right"]),
                "return_attention_mask": st.sampled_from([None, True, False]),
            },
        ),
        st.sampled_from(["a map", "maps", "one row", "without a mask"]),
    )
    @example(["a b c", ""], {"padding": "max_length", "max_length": 2}, "a map")
    def check(batch: list[str], arguments: dict[str, Any], form: str) -> None:
        rows = theirs(batch, return_token_type_ids=True, return_special_tokens_mask=True)
        given_rows: Any = dict(rows)
        if form == "maps":
            given_rows = [theirs(text) for text in batch]
        elif form == "one row":
            given_rows = dict(theirs(batch[0]))
        elif form == "without a mask":
            given_rows = {"input_ids": rows["input_ids"]}
        copies = [[dict(row) for row in given_rows] if form == "maps" else dict(given_rows) for _ in range(2)]
        found, wanted = (
            outcome(tokenizer.pad, rows, **arguments) for tokenizer, rows in zip((ours, theirs), copies, strict=True)
        )
        wanted = as_intended(wanted, arguments)
        if arguments.get("return_attention_mask") is False and REFUSED not in (found, wanted):
            for result in (found, wanted):
                result.pop("attention_mask", None)  # Transformers 5 leaves one that is there as long as it was
        assert found == wanted

    check()


@pytest.mark.parametrize("family", CLASSES)
def test_padding_afterwards_is_padding_at_once(family: str) -> None:
    ours = padded(family).ours
    texts = ["one two three", "four", ""]
    for side, kind in itertools.product(("left", "right"), (None, "np")):
        arguments = {"padding": True, "padding_side": side, "pad_to_multiple_of": 4, "return_tensors": kind}
        at_once, later = ours(texts, **arguments), ours.pad(ours(texts), **arguments)
        assert at_once.keys() == later.keys()
        for name in at_once:
            np.testing.assert_array_equal(at_once[name], later[name])


# Nothing of a call outlives it


@pytest.mark.parametrize("family", CLASSES)
def test_no_call_changes_the_next(family: str) -> None:
    ours = padded(family).ours
    text, batch = "one two three four five", ["one two", "three"]
    before = dict(ours(text)), dict(ours(batch)), ours.encode(f"{text}<|endoftext|>")
    ours(batch, padding="max_length", max_length=9, truncation=True, stride=1, return_overflowing_tokens=True)
    ours(text, split_special_tokens=True)
    ours([batch, batch], is_split_into_words=True)
    assert (dict(ours(text)), dict(ours(batch)), ours.encode(f"{text}<|endoftext|>")) == before


@pytest.mark.parametrize("family", CLASSES)
def test_threads_share_a_tokenizer(family: str) -> None:
    """Each with padding, truncation and special tokens of its own, all at once."""
    ours = padded(family).ours
    batch = ["one two three four five six", "seven <|endoftext|> eight", ""]
    calls: list[dict[str, Any]] = [
        {"padding": True},
        {"truncation": True, "max_length": 2},
        {"padding": "max_length", "max_length": 11, "padding_side": "left"},
        {"split_special_tokens": True},
        {"truncation": True, "max_length": 4, "stride": 1, "return_overflowing_tokens": True},
        {},
    ]
    wanted = [dict(ours(batch, **arguments)) for arguments in calls]
    wrong: list[Any] = []
    start = threading.Barrier(len(calls))

    def work(arguments: dict[str, Any], right: dict[str, Any]) -> None:
        start.wait()
        for _ in range(150):
            try:
                found = dict(ours(batch, **arguments))
            except BaseException as problem:
                found = {"problem": repr(problem)}
            if found != right:
                wrong.append((arguments, found))
                return

    threads = [threading.Thread(target=work, args=both) for both in zip(calls, wanted, strict=True)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
