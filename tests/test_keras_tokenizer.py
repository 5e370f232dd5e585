"""The tokenizers in a graph: ids are those of the Rust tokenizer, for every text, wherever the layer runs."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.matrix import TESTED

if "keras" not in TESTED:
    pytest.skip("needs keras in GPTZOO_FRAMEWORKS", allow_module_level=True)

import keras
import numpy as np
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

import gptzoo
from gptzoo import TFGPT2Tokenizer
from gptzoo.errors import InputError
from gptzoo.keras import GPT2LMHeadModel, GPT2Tokenizer, OpenAIGPTTokenizer
from gptzoo.keras import _tokenizer_graph as graph
from gptzoo.keras._tokenizer_bert import preparation
from gptzoo.keras._tokenizer_tables import character_classes
from gptzoo.tokenization import GPT2Tokenizer as Original
from gptzoo.tokenization import OpenAIGPTTokenizerFast

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
BUNDLED = "gptzoo/shakespeare"
END = "<|endoftext|>"
TEXTS = ["To be, or  not\n\n to be", "", f"a {END}b{END}{END} 's", "\u1680'll\u00a0'S 12\u00b2", "\u4e2d\u6587e\u0301"]


def original(name: str, **options: Any) -> Original:
    if name == "gpt2" and not (DATA / "gpt2").exists():
        pytest.skip(f"{DATA / 'gpt2'} is not there")
    return Original.from_pretrained(DATA / "gpt2" if name == "gpt2" else BUNDLED, **options)


def graph_of(layer: Any) -> Callable[[Any], list[Any]]:
    """Returns the layer as one graph for all batches, from texts to lists of ids."""
    run = tf.function(layer, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    return lambda texts: run(tf.constant(texts, tf.string))["input_ids"].to_list()


@cache
def pair(name: str, prefix: bool) -> tuple[Original, Callable[[Any], list[Any]]]:
    tokenizer = original(name, add_prefix_space=prefix)
    return tokenizer, graph_of(GPT2Tokenizer.from_tokenizer(tokenizer, ragged=True))


def every_character() -> list[str]:
    """Texts in which each code point stands among others by chance."""
    rng = random.Random(0)
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    rng.shuffle(codes)
    others = ["", " ", "  ", "a", "1", "!", "\n", "'", "'s", " 've", "\u00a0", "\u3000 "]
    parts = [chr(code) + rng.choice(others) for code in codes]
    return ["".join(parts[i : i + 1000]) for i in range(0, len(parts), 1000)]


def words_of(texts: list[str], pieces: Any, segments: Any) -> list[list[str]]:
    words: list[list[str]] = [[] for _ in texts]
    for piece, segment in zip(pieces.numpy().tolist(), segments.numpy().tolist(), strict=True):
        words[segment].append(piece.decode())
    return words


def split_as_gpt2(texts: list[str]) -> list[list[str]]:
    """Returns the pieces of texts that the layer merges."""
    return words_of(texts, *graph.gpt2_pieces(graph.segments(tf.constant(texts)), character_classes()))


def split_by_byte_level(texts: list[str]) -> list[list[str]]:
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    return [[text[start:end] for _, (start, end) in split(text)] for text in texts]


def test_every_character_is_split_as_in_rust() -> None:
    """Fails with TensorFlow's own classes of letters and spaces, which are of another version of Unicode or ASCII's."""
    texts = every_character()
    assert split_as_gpt2(texts) == split_by_byte_level(texts)


@pytest.mark.parametrize("name", ["tinyshakespeare", "wikitext2-test", "wikitext2-valid"])
def test_files_have_the_same_ids(name: str) -> None:
    tokenizer, ids = pair("gpt2", False)
    text = (DATA / "text" / f"{name}.txt").read_bytes().decode()
    texts = [text, *text.split("\n")[::4]]
    assert ids(texts) == tokenizer(texts)["input_ids"]


SPACES = "\t\n\v\f\r  \x1c\x1f\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000\u180e\u200b\ufeff"
ODD = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'", "'S", END, "<|endof", "\0", "\u0301", "\u200d", "\U0001f469"]
WRITTEN = st.lists(
    st.sampled_from([*SPACES, *ODD, "a", "Z", "\u00df", "7", "\u00bd", "!", "\u4e2d", "\ufffd"]), max_size=20
).map("".join)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(texts=st.lists(WRITTEN | ANY, min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_any_text_is_split_as_in_rust(texts: list[str]) -> None:
    """Fails if one of the rules on white space, contractions or the space before a word goes."""
    assert split_as_gpt2(texts) == split_by_byte_level(texts)


@pytest.mark.parametrize("prefix", [False, True], ids=["", "prefix_space"])
@pytest.mark.parametrize("name", ["shakespeare", "gpt2"])
@given(texts=st.lists(WRITTEN | ANY, max_size=8))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_has_the_same_ids(name: str, prefix: bool, texts: list[str]) -> None:
    tokenizer, ids = pair(name, prefix)
    assert ids(texts) == (tokenizer(texts)["input_ids"] if texts else [])


def split_as_bert(texts: list[str]) -> list[list[str]]:
    """Returns the words of texts that the layer merges."""
    parts = graph.bert_prepared(graph.segments(tf.constant(texts)), preparation())
    return words_of(texts, *graph.bert_pieces(parts, preparation().kinds))


def split_by_bert(texts: list[str]) -> list[list[str]]:
    normalize, split = normalizers.BertNormalizer().normalize_str, pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    return [[word for word, _ in split(normalize(text))] for text in texts]


def test_every_character_is_prepared_as_in_rust() -> None:
    """Fails with Python's lower case and categories, which are of another version of Unicode."""
    texts = every_character()
    assert split_as_bert(texts) == split_by_bert(texts)


# Accents that stay, and others; letters with one; a final sigma; Hangul in one and in three; ideographs.
ACCENTS = "\u302e\u302f\u0334\u0345\u0301\u0323\u08d6\U0001d165\U0001d16d\U0001e000\U0001e944\ua953\u1b44\u0941"
LETTERS = "a\u00c9\u1e69\u03a3\u03c3\u0130\u00df\u1e9e\uac01\u1100\u1161\u11a8\u4e2d\uf900\U0002f800 \t.\0\ufffd\u00ad"


@given(texts=st.lists(st.text(ACCENTS + LETTERS, max_size=12) | ANY, min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_any_text_is_prepared_as_in_rust(texts: list[str]) -> None:
    """Fails if accents that stay are not sorted by their classes, or are over the end of a text."""
    assert split_as_bert(texts) == split_by_bert(texts)


def test_file_has_the_same_ids_in_gpt() -> None:
    if not (DATA / "openai-gpt").exists():
        pytest.skip(f"{DATA / 'openai-gpt'} is not there")
    tokenizer = OpenAIGPTTokenizerFast.from_pretrained(DATA / "openai-gpt")
    text = (DATA / "text" / "wikitext2-test.txt").read_bytes().decode()
    texts = [text, *text.split("\n"), "h\u00c9llo <unk>x \u4e2d\u6587 don't ..."]
    layer = OpenAIGPTTokenizer.from_pretrained(DATA / "openai-gpt", ragged=True)
    assert layer(texts)["input_ids"].to_list() == tokenizer(texts)["input_ids"]
    again = OpenAIGPTTokenizer(layer.vocab, layer.merges, ragged=True)
    assert [token["content"] for token in again.get_config()["added_tokens"]] == ["<unk>"]


def small_gpt(**options: Any) -> OpenAIGPTTokenizerFast:
    tokens = ["<unk>", "h", "e", "y", "y</w>", "e</w>", ".</w>", "he", "hey</w>", "ey</w>", "e\u0334"]
    return OpenAIGPTTokenizerFast(dict(zip(tokens, range(99), strict=False)), [("h", "e"), ("e", "y</w>")], **options)


def test_gpt_keeps_tokens_whole_and_is_saved(tmp_path: Path) -> None:
    """Fails if the tokens of a normalizer are looked for before the text is prepared, or as they are written."""
    tokenizer = small_gpt(pad_token="<PAD>")
    tokenizer.add_tokens(["\u00c9Y", AddedToken("HE", normalized=False), "h."])
    texts = ["h\u00c9y HEy, \u00e9y. <PAD>hey", "", "<unk>hE\u0301Y h\u00ad.", "e\u4e2d\u0301y"]
    layer = OpenAIGPTTokenizer.from_tokenizer(tokenizer)
    expected = tokenizer(texts, padding=True)["input_ids"]
    assert layer(texts)["input_ids"].numpy().tolist() == expected
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(layer))))
    assert again(texts)["input_ids"].numpy().tolist() == expected
    module = tf.Module()
    module.ids = tf.function(
        lambda texts: layer(texts)["input_ids"], input_signature=[tf.TensorSpec([None], tf.string)]
    )
    tf.saved_model.save(module, str(tmp_path))
    code = f"import tensorflow as tf; saved = tf.saved_model.load({str(tmp_path)!r})"
    assert json.loads(run(f"{code}; print(saved.ids({texts!r}).numpy().tolist())", "-I")) == expected


def test_gpt_of_the_paper_is_refused() -> None:
    tokenizer = small_gpt()
    tokenizer.preparation = "paper"
    with pytest.raises(InputError, match=r"^preparation: paper, expected bert"):
        OpenAIGPTTokenizer.from_tokenizer(tokenizer, ragged=True)
    with pytest.raises(InputError, match=r"normalizer.type"):
        OpenAIGPTTokenizer.from_tokenizer(original("shakespeare"), ragged=True)
    with pytest.raises(InputError, match=r"end_of_word_suffix"):
        GPT2Tokenizer.from_tokenizer(small_gpt(), ragged=True)


def rust(vocab: dict[str, int], merges: list[tuple[str, str]], unknown: str | None = None) -> Tokenizer:
    tokenizer = Tokenizer(BPE(vocab, merges, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


@given(seed=st.integers(0, 10**6), texts=st.lists(st.text("abc", max_size=30), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_merges_in_any_order(seed: int, texts: list[str]) -> None:
    """Fails if overlapping pairs are not merged from the left, or pairs are merged in another order."""
    rng = random.Random(seed)
    tokens, merges = ["a", "b", "c"], []
    for _ in range(rng.randrange(12)):
        merges.append((rng.choice(tokens), rng.choice(tokens)))
        tokens.append("".join(merges[-1]))
    rng.shuffle(merges)
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    layer = GPT2Tokenizer(vocab, merges, added_tokens=[], ragged=True)
    expected = [row.ids for row in rust(vocab, merges).encode_batch(texts)]
    assert layer(texts)["input_ids"].to_list() == expected


def test_merge_that_makes_a_lower_one_possible() -> None:
    """Fails if it does not wait in other places: all of them merged at once give abc abc in place of abca bc."""
    merges = [("b", "c"), ("abc", "a"), ("a", "bc")]
    vocab = {token: number for number, token in enumerate(["a", "b", "c", "bc", "abc", "abca"])}
    layer = GPT2Tokenizer(vocab, merges, added_tokens=[], ragged=True)
    assert layer(["abcabc"])["input_ids"].to_list() == [rust(vocab, merges).encode("abcabc").ids] == [[5, 3]]


@pytest.mark.parametrize("unknown", [None, "a"], ids=["left_out", "unk"])
def test_bytes_that_the_vocabulary_lacks(unknown: str | None) -> None:
    vocab, merges, texts = {"a": 0, "b": 1, "ab": 2}, [("a", "b")], ["a\u00e9b", "xyz", "", "ab \u4e2d"]
    tokenizer = rust(vocab, merges, unknown)
    layer = GPT2Tokenizer.from_tokenizer(tokenizer, ragged=True)
    assert layer(texts)["input_ids"].to_list() == [row.ids for row in tokenizer.encode_batch(texts)]


def test_long_pieces() -> None:
    """Fails where a step has memory for each text times the longest piece: of the last batch more than 16 GB."""
    tokenizer, ids = pair("shakespeare", False)
    letters = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=10_000))
    for texts in ([letters], ["a" * 10_001, "\n" * 10_001 + "x", " " * 10_001], ["\u00e9" * 10**6, *["a b"] * 2000]):
        assert ids(texts) == tokenizer(texts)["input_ids"]


def test_tokens_are_kept_whole() -> None:
    """Fails if a shorter token wins, if those of a normalizer come first, or if a token is read as an expression."""
    tokenizer = original("shakespeare")
    tokenizer.add_tokens(
        ["ab", "abc", AddedToken("b c", normalized=False), ".*", "\\E|(", "\n\n", " x", "\u00e9\U0001f600"]
    )
    tokenizer.add_tokens([f"<{number}>" for number in range(500)])
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    texts = [
        "xabcabab c",
        "ab cabc",
        "a.*b\\E|((",
        "a\n\n\nb x  xy",
        "\u00e9\U0001f600e\u0301",
        "<499><49><5000>",
        "<pad>a",
    ]
    for prefix in (False, True):
        tokenizer.add_prefix_space = prefix
        layer = GPT2Tokenizer.from_tokenizer(tokenizer)
        rows = layer(texts)["input_ids"].numpy()
        assert rows.tolist() == tokenizer(texts, padding=True)["input_ids"]


@pytest.mark.parametrize("bos", [False, True], ids=["", "bos"])
@pytest.mark.parametrize("cut", ["right", "left"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_and_masks_are_the_tokenizers(side: str, cut: str, bos: bool) -> None:
    """Fails if the mask comes from ids, which are those of the padding in the texts too, or the first token is cut."""
    tokenizer = original("shakespeare", padding_side=side, truncation_side=cut, add_bos_token=bos, pad_token=END)
    layer = GPT2Tokenizer.from_tokenizer(tokenizer)
    for length in (None, 1, 2, 4, 50):
        options = {"padding": True} if length is None else {"padding": "max_length", "truncation": True}
        expected = tokenizer(TEXTS, max_length=length, return_tensors="np", **options)
        got = layer(TEXTS, max_length=length)
        assert got.keys() == expected.keys()
        for name, array in got.items():
            np.testing.assert_array_equal(array.numpy(), expected[name], strict=False)
            assert array.dtype == tf.int32
        ragged = GPT2Tokenizer.from_tokenizer(tokenizer, ragged=True, max_length=length)(TEXTS)
        plain = tokenizer(TEXTS, max_length=length, truncation=length is not None)
        assert {name: rows.to_list() for name, rows in ragged.items()} == dict(plain)


def test_shapes_of_inputs() -> None:
    layer = GPT2Tokenizer.from_pretrained(BUNDLED, pad_token_id=0, dtype="int64")
    ragged = GPT2Tokenizer.from_pretrained(BUNDLED, ragged=True)
    row = original("shakespeare")("To be")["input_ids"]
    for one in ("To be", b"To be", np.array("To be"), tf.constant("To be")):
        assert layer(one)["input_ids"].numpy().tolist() == row
    assert ragged("To be")["input_ids"].numpy().tolist() == row
    assert ragged("To be")["attention_mask"].numpy().tolist() == [1] * len(row)
    assert layer(np.array(["To be"]))["attention_mask"].dtype == tf.int64
    assert layer("", max_length=2)["attention_mask"].numpy().tolist() == [0, 0]
    assert layer([])["input_ids"].shape == (0, 0)
    assert layer([], max_length=3)["input_ids"].shape == (0, 3)
    assert ragged([])["input_ids"].to_list() == []


@given(texts=st.lists(st.binary(max_size=12), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_bytes_that_are_not_utf8(texts: list[bytes]) -> None:
    tokenizer = pair("shakespeare", False)[0]
    for errors in ("strict", "replace", "ignore"):
        layer, ids = bytes_layer(errors)
        try:
            read = [text.decode(errors=errors) for text in texts]
        except UnicodeDecodeError:
            with pytest.raises(InputError, match="expected UTF-8"):
                layer(texts)
            with pytest.raises(tf.errors.InvalidArgumentError):
                ids(texts)
        else:
            assert ids(texts) == tokenizer(read)["input_ids"]


@cache
def bytes_layer(errors: str) -> tuple[GPT2Tokenizer, Callable[[Any], list[Any]]]:
    layer = GPT2Tokenizer.from_pretrained(BUNDLED, ragged=True, errors=errors)
    return layer, graph_of(layer)


def test_in_a_pipeline() -> None:
    layer = GPT2Tokenizer.from_pretrained(BUNDLED, pad_token_id=0, max_length=8)
    data = tf.data.Dataset.from_tensor_slices(TEXTS)
    whole = layer(TEXTS)
    batches = [*data.batch(2).map(layer)]
    single = [*data.map(layer)]
    for name, rows in whole.items():
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), rows)
        np.testing.assert_array_equal(np.stack([one[name] for one in single]), rows)
    assert batches[0]["input_ids"].shape == (2, 8)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on_another_backend(backend: str) -> None:
    """`tf.data` feeds any backend; and the models there need neither TensorFlow nor `tokenizers`."""
    code = (
        "import sys, gptzoo.keras\n"
        "assert not {'tensorflow', 'tensorflow_text', 'tokenizers'} & sys.modules.keys()\n"
        f"layer = gptzoo.keras.GPT2Tokenizer.from_pretrained({BUNDLED!r}, pad_token_id=0)\n"
        "import tensorflow as tf\n"
        f"data = tf.data.Dataset.from_tensors({TEXTS!r}).map(layer)\n"
        f"rows = next(iter(data.as_numpy_iterator()))['input_ids'].tolist()\n"
        f"assert layer({TEXTS!r})['input_ids'].numpy().tolist() == rows\n"
        "print(rows)"
    )
    done = run(code, KERAS_BACKEND=backend, PYTHONPATH=str(ROOT))
    assert (
        json.loads(done) == GPT2Tokenizer.from_pretrained(BUNDLED, pad_token_id=0)(TEXTS)["input_ids"].numpy().tolist()
    )


def run(code: str, *options: str, **env: str) -> str:
    """Runs a program in a fresh interpreter and returns the last line that it prints."""
    command = [sys.executable, *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def text_model(layer: Any) -> keras.Model:
    """Returns a model from strings to logits."""
    texts = keras.Input((), dtype="string")
    return keras.Model(texts, GPT2LMHeadModel.from_pretrained(BUNDLED, dtype="float32")(layer(texts))["logits"])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of how Keras calls NumPy
def test_saved_as_keras_file(tmp_path: Path) -> None:
    layer = GPT2Tokenizer.from_pretrained(BUNDLED, pad_token_id=3, max_length=9, padding_side="left", bos_token_id=5)
    model = text_model(layer)
    assert model.output_shape == (None, 9, 1024)
    expected = model(tf.constant(TEXTS))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(tf.constant(TEXTS)), expected)
    np.testing.assert_allclose(again.predict(tf.constant(TEXTS), verbose=0), expected, rtol=1e-5, atol=1e-4)


def test_saved_model_needs_tensorflow_alone(tmp_path: Path) -> None:
    """Fails if a step is an operation of tensorflow_text, a Python function, or a file that stays behind."""
    model = text_model(GPT2Tokenizer.from_pretrained(BUNDLED, pad_token_id=3, max_length=9))
    model.export(tmp_path / "exported", verbose=False)
    module = tf.Module()
    module.layer = GPT2Tokenizer.from_pretrained(BUNDLED, ragged=True)
    module.ids = tf.function(
        lambda texts: module.layer(texts)["input_ids"], input_signature=[tf.TensorSpec([None], tf.string)]
    )
    tf.saved_model.save(module, str(tmp_path / "saved"))
    code = (
        "import sys, json\n"
        "sys.modules.update(dict.fromkeys(['gptzoo', 'tensorflow_text', 'keras', 'tokenizers']))\n"
        "import tensorflow as tf\n"
        f"texts = tf.constant({TEXTS!r})\n"
        f"exported, saved = map(tf.saved_model.load, {[str(tmp_path / 'exported'), str(tmp_path / 'saved')]!r})\n"
        "ids, logits = saved.ids(texts).to_list(), exported.serve(texts).numpy()\n"
        "print(json.dumps([ids, logits.sum(-1).tolist()]))"
    )
    ids, sums = json.loads(run(code, "-I"))
    assert ids == original("shakespeare")(TEXTS)["input_ids"]
    np.testing.assert_allclose(sums, model(tf.constant(TEXTS)).numpy().sum(-1), rtol=1e-4, atol=1e-2)


def test_config_is_all_of_the_arguments() -> None:
    """Keras reads a dict with these two keys as an object of its own, if it is let."""
    vocab = {"a": 0, "b": 1, "class_name": 2, "config": 3, "ab": 4}
    layer = GPT2Tokenizer(
        vocab, ["a b"], added_tokens=[{"id": 7, "content": "ba", "normalized": True}], max_length=6, pad_token_id=7,
        padding_side="left", truncation_side="left", bos_token_id=4, unk_token_id=1, add_prefix_space=True,
        errors="ignore", dtype="int64", name="words",
    )  # fmt: skip
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert again.get_config() == layer.get_config()
    assert (again.vocab, again.merges, again.name) == (vocab, [("a", "b")], "words")
    texts = [b"abba\xff ab class_name"]
    np.testing.assert_array_equal(again(texts)["input_ids"], layer(texts)["input_ids"])


@pytest.mark.parametrize("name", ["shakespeare", "gpt2"])
def test_tokenizers_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    directory = DATA / "gpt2" if name == "gpt2" else Path(gptzoo.__file__).parent / "_bundled" / "shakespeare"
    original(name)
    tokenizer = transformers.GPT2Tokenizer.from_pretrained(directory, add_prefix_space=True)
    tokenizer.pad_token = END
    expected = tokenizer(TEXTS, padding=True, truncation=True, max_length=5)["input_ids"]  # which leaves traces in it
    layer = GPT2Tokenizer.from_tokenizer(tokenizer)
    assert layer(TEXTS, max_length=5)["input_ids"].numpy()[:, : len(expected[0])].tolist() == expected
    assert layer.pad_token_id == tokenizer.pad_token_id
    assert layer.bos_token_id is None


def test_the_tokens_that_no_text_becomes_are_kept_whole() -> None:
    tokenizer = original("gpt2")
    layer = TFGPT2Tokenizer(tokenizer.vocab, [" ".join(two) for two in tokenizer.merges])
    assert layer.get_config()["added_tokens"] == [{"id": 50256, "content": END}]
    assert layer(TEXTS)["input_ids"].to_list() == tokenizer(TEXTS)["input_ids"]


def test_old_name() -> None:
    """Ragged but for both a length and an id to fill up with; the mask right where the original's was all ones."""
    tokenizer = original("shakespeare", pad_token=END)
    layer = TFGPT2Tokenizer.from_tokenizer(tokenizer, 4, 0)
    assert layer(["To be, or not to be", "a"])["attention_mask"].numpy().tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert layer(["a"])["input_ids"].numpy().tolist() == [[64, 0, 0, 0]]
    assert layer(["a"], max_length=2)["input_ids"].shape == (1, 2)
    again = TFGPT2Tokenizer.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    ragged = TFGPT2Tokenizer.from_pretrained(BUNDLED)
    assert ragged(TEXTS)["input_ids"].to_list() == tokenizer(TEXTS)["input_ids"]
    assert ragged(TEXTS, max_length=2)["attention_mask"].row_lengths().numpy().tolist() == [2, 0, 2, 2, 2]


BAD = {
    "vocab": ({"vocab": ["a"]}, "vocab: "),
    "id": ({"vocab": {"a": -1}}, "vocab: a: id -1"),
    "id_twice": ({"vocab": {"a": 1, "b": 1}}, "b: id 1, which a has too"),
    "merges": ({"merges": 3}, "merges: 3"),
    "merge": ({"merges": ["a b c"]}, "merges: 0: .*expected two tokens"),
    "merge_of_number": ({"merges": [5]}, "merges: 0: 5"),
    "merge_unknown": ({"merges": ["a b"]}, "merges: 0: .*not in the vocabulary"),
    "added": ({"added_tokens": [3]}, "added_tokens: 3"),
    "added_empty": ({"added_tokens": [{"id": 3, "content": ""}]}, "a text"),
    "added_id": ({"added_tokens": [{"id": "3", "content": "x"}]}, "x: id '3'"),
    "added_flag": ({"added_tokens": [{"id": 3, "content": "x", "lstrip": True}]}, "x: lstrip"),
    "no_padding": ({"pad_token_id": None}, "pad_token_id: None.*ragged=True"),
    "special_ids": (
        {"pad_token_id": 99999, "bos_token_id": 4, "unk_token_id": -1, "added_tokens": [{"id": 3, "content": "x"}]},
        r"3 problems(.|\n)*pad_token_id: 99999, expected (.|\n)*bos_token_id: 4, (.|\n)*unk_token_id: -1, ",
    ),
    "length": ({"max_length": 0}, "max_length: 0"),
    "side": ({"padding_side": "up", "truncation_side": "down"}, "2 problems(.|\n)*up(.|\n)*down"),
    "errors": ({"errors": "surrogateescape"}, "errors: 'surrogateescape'"),
    "flag": ({"add_prefix_space": 1}, "add_prefix_space: 1"),
    "dtype": ({"dtype": "float32"}, "dtype: float32"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_argument_is_named(case: str) -> None:
    arguments, message = BAD[case]
    with pytest.raises(InputError, match=message):
        GPT2Tokenizer(**{"vocab": {"a": 0}, "merges": [], "pad_token_id": 0, **arguments})


def test_special_ids_may_be_of_added_tokens() -> None:
    added = [{"id": 3, "content": "x"}]
    layer = GPT2Tokenizer({"a": 0}, [], added_tokens=added, pad_token_id=3, bos_token_id=3, unk_token_id=0)
    assert layer(["a", "xa"])["input_ids"].numpy().tolist() == [[3, 0, 3], [3, 3, 0]]
    with pytest.raises(InputError, match="pad_token_id: 1024, expected an id of the vocabulary or the added tokens"):
        GPT2Tokenizer.from_pretrained(BUNDLED, pad_token_id=1024)
    assert GPT2Tokenizer.from_pretrained(BUNDLED, pad_token_id=1023).pad_token_id == 1023


@pytest.mark.parametrize("x", [[1, 2], [["a"]], None, ["a", None], "\ud800", tf.constant([1])], ids=ascii)
def test_bad_call_is_named(x: Any) -> None:
    layer = GPT2Tokenizer({"a": 0}, [], pad_token_id=0)
    with pytest.raises(InputError, match=r"^x: "):
        layer(x)
    with pytest.raises(InputError, match=r"^max_length: -1"):
        layer("a", max_length=-1)


def lowered(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def split_otherwise(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("x"), "isolated")


def stripped(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens([AddedToken("<m>", lstrip=True)])


def guessed(tokenizer: Tokenizer) -> None:
    tokenizer.model.dropout = 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lowered, "normalizer"),
        (split_otherwise, "pre_tokenizer"),
        (stripped, "<m>.*lstrip"),
        (guessed, "model.dropout"),
    ],
    ids=["normalizer", "pre_tokenizer", "lstrip", "dropout"],
)
def test_tokenizer_that_does_something_else_is_refused(change: Callable[[Tokenizer], None], message: str) -> None:
    tokenizer = rust({"a": 0}, [])
    change(tokenizer)
    with pytest.raises(InputError, match=message):
        GPT2Tokenizer.from_tokenizer(tokenizer, ragged=True)
    with pytest.raises(InputError, match="expected one on a"):
        GPT2Tokenizer.from_tokenizer("gpt2")
