"""BatchEncoding: a map of rows that knows which characters and words each token came from."""

from __future__ import annotations

import copy
import importlib
import pickle
from typing import Any

import numpy as np
import pytest

from gptzoo.errors import InputError
from gptzoo.tokenization import BatchEncoding
from tests.matrix import TESTED
from tests.tokenizers_matrix import BEST, CLASSES, Pair, fresh, pair

TEXT = "Héllo  world, it's\nthe\t<|endoftext|> 東京!"
KINDS = {"pt": "torch", "tf": "keras", "jax": "flax"}
CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "a text": ((TEXT,), {}),
    "texts": (([TEXT, "ab", ""],), {}),
    "pairs": (([TEXT, "ab"], ["cd e", TEXT]), {}),
    "words": ((["Héllo", "world,", "it's"],), {"is_split_into_words": True}),
    "pairs of words": (([["Héllo", "world,"]], [["it's", "so"]]), {"is_split_into_words": True}),
    "padded": (([TEXT, "ab"],), {"padding": True}),
    "padded on the left": (([TEXT, "ab"],), {"padding": True, "padding_side": "left"}),
    "cut": (([TEXT, "ab"],), {"truncation": True, "max_length": 5}),
    "overflowing": (
        ([TEXT, "ab"],),
        {"truncation": True, "max_length": 5, "stride": 2, "return_overflowing_tokens": True},
    ),
    "an array": (([TEXT, "ab"],), {"padding": True, "return_tensors": "np"}),
}


def encoded(family: str, call: str, **arguments: Any) -> Pair:
    texts, options = CALLS[call]
    both = fresh(BEST[family], **arguments)
    for tokenizer in both:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    return Pair(*(tokenizer(*texts, **options) for tokenizer in both))


def answers(encoding: Any) -> dict[str, Any]:
    """What every method says of every token, word and character."""
    found: dict[str, Any] = {}
    for row in range(len(encoding.encodings)):
        found[f"{row} tokens"] = encoding.tokens(row)
        found[f"{row} words"] = encoding.word_ids(row)
        found[f"{row} sequences"] = encoding.sequence_ids(row)
        for token in range(len(encoding.tokens(row))):
            for name in ("token_to_chars", "token_to_word", "token_to_sequence"):
                found[f"{row} {name} {token}"] = getattr(encoding, name)(row, token)
        for sequence in range(max(encoding.n_sequences or 1, 1)):
            for number in range(50):  # beyond the end too
                for name in ("char_to_token", "char_to_word", "word_to_tokens"):
                    found[f"{row} {name} {number} of {sequence}"] = getattr(encoding, name)(row, number, sequence)
    return found


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("family", CLASSES)
def test_every_method_as_of_transformers(family: str, call: str) -> None:
    arguments = {"add_prefix_space": True, "add_bos_token": True} if family == "gpt2" else {}
    ours, theirs = encoded(family, call, **arguments)
    assert answers(ours) == answers(theirs)
    assert ours.keys() == theirs.keys()
    assert ours.is_fast
    assert ours.n_sequences == theirs.n_sequences


@pytest.mark.parametrize("family", CLASSES)
def test_spans(family: str) -> None:
    """Against the text itself: one row may leave out which it is."""
    ours = encoded(family, "a text").ours
    words = [number for number in dict.fromkeys(ours.word_ids()) if number is not None]
    for word in words:
        start, end = ours.word_to_tokens(word)
        assert [index for index, number in enumerate(ours.word_ids()) if number == word] == list(range(start, end))
        span = ours.word_to_chars(word)
        assert (span.start, span.end) == (ours.token_to_chars(start).start, ours.token_to_chars(end - 1).end)
    place = TEXT.index("world")
    token = ours.char_to_token(place)
    assert ours.token_to_chars(token).start <= place < ours.token_to_chars(token).end
    assert ours.char_to_word(place) == ours.token_to_word(token)
    assert ours.token_to_sequence(token) == 0


def test_as_a_map() -> None:
    ours = encoded("gpt2", "padded").ours
    assert isinstance(ours, dict | BatchEncoding)
    assert list(ours) == ["input_ids", "attention_mask"] == list(ours.keys())
    assert ours.input_ids is ours["input_ids"]
    assert dict(**ours) == dict(ours.items()) == {name: ours[name] for name in ours}
    assert "input_ids" in ours
    assert len(ours) == 2
    assert ours.get("labels") is None
    ours["labels"] = [[1], [2]]
    assert ours.labels == [[1], [2]]
    assert ours.pop("labels") == [[1], [2]]
    with pytest.raises(KeyError):
        ours["nothing"]
    with pytest.raises(AttributeError, match="nothing"):
        ours.nothing  # noqa: B018
    assert not hasattr(ours, "nothing")


def test_slices_and_rows() -> None:
    ours, theirs = encoded("gpt2", "padded")
    assert ours[0].tokens == theirs[0].tokens == ours.tokens(0)
    assert ours[-1].ids == theirs[-1].ids
    assert ours[:1] == {name: rows[:1] for name, rows in ours.items()}  # theirs are of `encodings`, if there are any
    with pytest.raises(IndexError):
        ours[2]
    bare, wanted = (type(found)({"input_ids": [[1], [2], [3]]}) for found in (ours, theirs))
    assert bare[1:] == wanted[1:] == {"input_ids": [[2], [3]]}


@pytest.mark.parametrize("call", ["a text", "an array"])
def test_copies(call: str) -> None:
    ours = encoded("gpt2", call).ours
    for made in (copy.copy(ours), copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(made) is type(ours)
        assert made.keys() == ours.keys()
        np.testing.assert_array_equal(made["input_ids"], ours["input_ids"])
        assert answers(made) == answers(ours)
        made["labels"] = 1
        assert "labels" not in ours


def test_without_encodings() -> None:
    """A map that was made by hand, or padded afterwards, has no characters to tell of."""
    for bare in (BatchEncoding({"input_ids": [1, 2]}), BatchEncoding()):
        assert not bare.is_fast
        assert bare.encodings is None
        for call in (bare.tokens, bare.word_ids, bare.sequence_ids, lambda bare=bare: bare.char_to_token(0)):
            with pytest.raises(InputError) as caught:
                call()
            assert len(str(caught.value).splitlines()) == 1


def test_places_that_there_are_not() -> None:
    ours = encoded("gpt2", "a text").ours
    assert ours.char_to_token(10_000) is None
    assert ours.word_to_tokens(10_000) is None
    for call in (lambda: ours.tokens(1), lambda: ours.word_ids(-2), lambda: ours.char_to_token(3, 0)):
        with pytest.raises((InputError, IndexError)) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1


# Arrays


@pytest.mark.parametrize("kind", ["np", *KINDS])
def test_arrays_of_each_framework(kind: str) -> None:
    if kind != "np" and KINDS[kind] not in TESTED:
        pytest.skip(f"GPTZOO_FRAMEWORKS has no {KINDS[kind]}")
    both = fresh(BEST["gpt2"])
    both.ours.pad_token = both.ours.eos_token
    texts = ["one two three", "four"]
    lists = both.ours(texts, padding=True, return_special_tokens_mask=True)
    arrays = both.ours(texts, padding=True, return_special_tokens_mask=True, return_tensors=kind)
    later = both.ours(texts, padding=True, return_special_tokens_mask=True).convert_to_tensors(kind)
    padded = both.ours.pad(both.ours(texts, return_special_tokens_mask=True), return_tensors=kind)
    base = np.ndarray if kind == "np" else array_class(kind)
    for found in (arrays, later, padded):
        for name, value in lists.items():
            assert isinstance(found[name], base), name
            assert np.asarray(found[name]).tolist() == value
            assert np.issubdtype(np.asarray(found[name]).dtype, np.integer)
    single = both.ours("one", return_tensors=kind)["input_ids"]
    assert tuple(single.shape) == (1, 1)
    assert tuple(both.ours([""], return_tensors=kind)["input_ids"].shape) == (1, 0)
    assert np.issubdtype(np.asarray(both.ours([""], return_tensors=kind)["input_ids"]).dtype, np.integer)


def array_class(kind: str) -> type:
    name = {"pt": "torch.Tensor", "tf": "tensorflow.Tensor", "jax": "jax.Array"}[kind]
    module, attribute = name.split(".")
    found: type = getattr(importlib.import_module(module), attribute)
    return found


def test_arrays_with_a_batch_axis() -> None:
    ours = pair(BEST["gpt2"]).ours
    found = ours("one two").convert_to_tensors("np", prepend_batch_axis=True)
    assert found["input_ids"].shape == (1, len(ours.encode("one two")))


@pytest.mark.skipif("torch" not in TESTED, reason="GPTZOO_FRAMEWORKS has no torch")
def test_to_a_device() -> None:
    import torch

    ours = pair(BEST["gpt2"]).ours
    found = ours("one two", return_tensors="pt")
    moved = found.to("meta")
    assert isinstance(moved, BatchEncoding)
    assert all(value.device == torch.device("meta") for value in moved.values())
    lists = ours("one two").to("cpu")  # lists have no device
    assert lists["input_ids"] == ours.encode("one two")
