"""Broken and hostile tokenizer files, and mutants of all: one line that names the file and what is wrong in it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo import tokenization
from gptzoo.errors import CheckpointError, GPTZooError, InputError
from gptzoo.tokenization import AutoTokenizer, GPT2Tokenizer, OpenAIGPTTokenizer
from tests.fuzz import COUNT, attack
from tests.tokenizers_matrix import GOLDEN

GPT2, GPT1 = GOLDEN / "gpt2-fast-added", GOLDEN / "gpt1-fast-added"
VOCAB, MERGES, TOKENIZER = "vocab.json", "merges.txt", "tokenizer.json"
SETTINGS, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
PAGE = "<!DOCTYPE html><html>Not found</html>"

Edit = Callable[[Path], object]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """All files but tokenizer.json, which would be read in place of the first two."""
    return copied(tmp_path / "tokenizer", GPT2, without=TOKENIZER)


@pytest.fixture
def modern(tmp_path: Path) -> Path:
    """What Transformers 5 saves."""
    return copied(tmp_path / "tokenizer", GPT2, without=f"{VOCAB} {MERGES} {ADDED} {SPECIAL}")


def copied(place: Path, source: Path, without: str = "") -> Path:
    shutil.copytree(source, place)
    for name in without.split():
        (place / name).unlink(missing_ok=True)
    return place


def refusal(place: Path, *words: str, cls: Any = AutoTokenizer, error: type[GPTZooError] = CheckpointError) -> str:
    """Returns the one error of reading a tokenizer, each line of which is short and names what it is about."""
    with pytest.raises(GPTZooError) as caught:
        cls.from_pretrained(place)
    assert type(caught.value) is error
    message = str(caught.value)
    lines = message.splitlines()
    assert len(lines) == 1 or re.fullmatch(r".* \(\d+ problems\):", lines[0]), message
    assert all(len(line) < 1000 and line.isprintable() for line in lines), message
    assert str(place) in message
    for word in words:
        assert re.search(word, message), f"{word!r} is not in: {message}"
    return message


def text(name: str, change: Callable[[str], str]) -> Edit:
    def edit(place: Path) -> None:
        old = (place / name).read_bytes().decode()
        new = change(old)
        assert new != old, "nothing was falsified"
        (place / name).write_bytes(new.encode("utf-8", "surrogatepass"))

    return edit


def raw(name: str, content: bytes | str) -> Edit:
    return lambda place: (place / name).write_bytes(content.encode() if isinstance(content, str) else content)


def value(name: str, change: Callable[[Any], object]) -> Edit:
    """Changes what a JSON file holds, in place, or to what `change` returns."""

    def edit(place: Path) -> None:
        held = json.loads((place / name).read_bytes())
        result = change(held)
        (place / name).write_text(json.dumps(held if result is None else result), encoding="utf-8")

    return edit


def put(name: str, *path: Any, to: Any) -> Edit:
    def change(held: Any) -> None:
        for key in path[:-1]:
            held = held[key]
        held[path[-1]] = to

    return value(name, change)


def removed(*names: str) -> Edit:
    return lambda place: [(place / name).unlink() for name in names]


def line(number: int, content: str) -> Edit:
    def change(old: str) -> str:
        lines = old.split("\n")
        lines[number - 1] = content
        return "\n".join(lines)

    return text(MERGES, change)


def swapped(vocab: Any) -> None:
    vocab["Ġthe"], vocab["!"] = "!", vocab["Ġthe"]


FILES: dict[str, tuple[Edit, str]] = {
    # merges.txt
    "merge of one token": (line(5, "Ġt"), r"merges\.txt: line 5: .*expected two tokens"),
    "merge of three tokens": (line(5, "Ġ t h"), r"merges\.txt: line 5: .*expected two tokens"),
    "merge with two spaces": (line(5, "Ġ  t"), r"merges\.txt: line 5: .*expected two tokens"),
    "merge of a tab": (line(5, "Ġ\tt"), r"merges\.txt: line 5: .*expected two tokens"),
    "merge of an unknown token": (line(5, "Ġ zzz"), r"merges\.txt: line 5: zzz is not in the vocabulary"),
    "merge to an unknown token": (line(5, "z z"), r"merges\.txt: line 5: zz is not in the vocabulary"),
    "merges not UTF-8": (raw(MERGES, b"#version: 0.2\n\xff t\n"), r"merges\.txt: not UTF-8 text"),
    "merges a git-lfs pointer": (raw(MERGES, LFS), r"merges\.txt: this is a git-lfs pointer"),
    "merges a web page": (raw(MERGES, PAGE), r"merges\.txt: this is a web page"),
    "merges absent": (removed(MERGES), r"no merges\.txt"),
    # vocab.json
    "vocab with a hole": (text(VOCAB, lambda old: old.replace(":300,", ":5300,")), "300"),
    "vocab with an id twice": (
        text(VOCAB, lambda old: old.replace(":300,", ":301,")),
        r"vocab\.json: .*id 301, which",
    ),
    "vocab with a token twice": (
        text(VOCAB, lambda old: old.replace('"!":0,', '"!":0,"!":1,')),
        r"vocab\.json: .*'!' stands twice",
    ),
    "id below 0": (put(VOCAB, "!", to=-1), r"vocab\.json: !: id -1, expected an integer"),
    "id a float": (put(VOCAB, "!", to=0.0), r"vocab\.json: !: id 0\.0, expected an integer"),
    "id huge": (put(VOCAB, "!", to=10**9), r"vocab\.json: !: id 1000000000, expected an integer"),
    "id beyond 64 bits": (put(VOCAB, "!", to=10**30), r"vocab\.json: !: id 10+, expected an integer"),
    "id a text": (value(VOCAB, swapped), r"vocab\.json: Ġthe: id '?!'?, expected an integer"),
    "id true": (put(VOCAB, "!", to=True), r"vocab\.json: !: id .rue, expected an integer"),
    "id null": (put(VOCAB, "!", to=None), r"vocab\.json: !: id (None|null), expected an integer"),
    "vocab a list": (value(VOCAB, lambda old: list(old)), r"vocab\.json: holds a JSON list, expected an object"),
    "vocab cut": (text(VOCAB, lambda old: old[:1000]), r"vocab\.json: not valid JSON"),
    "vocab empty": (raw(VOCAB, "{}"), "not in the vocabulary"),
    "vocab no byte": (raw(VOCAB, b""), r"vocab\.json: not valid JSON"),
    "vocab deep": (raw(VOCAB, "[" * 100_000), r"vocab\.json: nested too deeply"),
    "vocab a git-lfs pointer": (raw(VOCAB, LFS), r"vocab\.json: this is a git-lfs pointer"),
    "vocab a web page": (raw(VOCAB, PAGE), r"vocab\.json: this is a web page"),
    "vocab not UTF-8": (raw(VOCAB, b'{"\xff": 0}'), r"vocab\.json: not UTF-8 text"),
    "vocab absent": (removed(VOCAB), r"no vocab\.json"),
    "lone surrogate": (
        text(VOCAB, lambda old: old.replace('"!"', '"\\ud800"')),
        r"vocab\.json: token .*ud800.*expected a text in UTF-8",
    ),
    "every file absent": (removed(VOCAB, MERGES), r"no vocab\.json and no merges\.txt, and no tokenizer\.json"),
    "vocab a directory": (
        lambda place: ((place / VOCAB).unlink(), (place / VOCAB).mkdir()),
        r"vocab\.json: not a regular file",
    ),
    "vocab a pipe": (
        lambda place: ((place / VOCAB).unlink(), os.mkfifo(place / VOCAB)),
        r"vocab\.json: not a regular file",
    ),
    "vocab a dangling link": (
        lambda place: ((place / VOCAB).unlink(), (place / VOCAB).symlink_to("nowhere")),
        r"vocab\.json",
    ),
    # the settings
    "settings a list": (raw(SETTINGS, "[]"), r"tokenizer_config\.json: holds a JSON list, expected an object"),
    "settings cut": (raw(SETTINGS, '{"a": '), r"tokenizer_config\.json: not valid JSON"),
    "special tokens a list": (raw(SPECIAL, "[]"), r"special_tokens_map\.json: holds a JSON list"),
    "added token empty": (put(ADDED, "", to=412), r"added_tokens\.json: an empty token"),
    "added token a lone surrogate": (
        put(SETTINGS, "added_tokens_decoder", "407", "content", to="\ud800"),
        r"added_tokens_decoder: 407: .*ud800",
    ),
    "token a lone surrogate": (put(SETTINGS, "pad_token", to="\udfff"), r"pad_token: .*udfff.*expected a token"),
    "added tokens a list": (raw(ADDED, "[]"), r"added_tokens\.json: holds a JSON list"),
    "code to be run": (
        put(SETTINGS, "auto_map", to={"AutoTokenizer": ["x.py", None]}),
        r"tokenizer_config\.json: auto_map: .*refused",
    ),
    "a file elsewhere": (
        put(SETTINGS, "vocab_file", to="../../x"),
        r"tokenizer_config\.json: vocab_file: \S*\.\./\.\./x",
    ),
    "another tokenizer": (put(SETTINGS, "tokenizer_class", to="BertTokenizer"), "tokenizer_config.json.*BertTokenizer"),
    "side": (
        put(SETTINGS, "padding_side", to="top"),
        r"tokenizer_config\.json: .*padding_side: .*top.*expected.*right",
    ),
    "side a number": (
        put(SETTINGS, "truncation_side", to=1),
        r"tokenizer_config\.json: .*truncation_side: 1, expected",
    ),
    "length a text": (
        put(SETTINGS, "model_max_length", to="long"),
        r"tokenizer_config\.json: .*model_max_length: .*long.*expected a number",
    ),
    "length below 0": (
        put(SETTINGS, "model_max_length", to=-5),
        r"tokenizer_config\.json: .*model_max_length: -5, expected a number",
    ),
    "flag a text": (
        put(SETTINGS, "add_bos_token", to="yes"),
        r"tokenizer_config\.json: .*add_bos_token: .*yes.*expected",
    ),
    "space a number": (
        put(SETTINGS, "add_prefix_space", to=1),
        r"tokenizer_config\.json: .*add_prefix_space: 1, expected",
    ),
    "errors unknown": (
        put(SETTINGS, "errors", to="ignorant"),
        r"tokenizer_config\.json: .*errors: .*ignorant.*expected",
    ),
    "token a number": (put(SETTINGS, "pad_token", to=5), r"tokenizer_config\.json: .*pad_token: 5, expected a token"),
    "token without content": (
        put(SETTINGS, "eos_token", to={"lstrip": True}),
        r"tokenizer_config\.json: .*eos_token: .*expected a token",
    ),
    "token empty": (put(SETTINGS, "bos_token", to=""), r"tokenizer_config\.json: .*bos_token: .*expected a token"),
    "special ones a text": (
        put(SETTINGS, "additional_special_tokens", to="<s1>"),
        r"tokenizer_config\.json: .*additional_special_tokens: .*expected a list",
    ),
    "added a list": (
        put(SETTINGS, "added_tokens_decoder", to=[]),
        r"tokenizer_config\.json: added_tokens_decoder: .*expected an object",
    ),
    "added under a word": (
        put(SETTINGS, "added_tokens_decoder", "x", to={"content": "<x>"}),
        r"added_tokens_decoder: x: ",
    ),
    "added a number": (put(SETTINGS, "added_tokens_decoder", "407", to=5), r"added_tokens_decoder: 407: 5, expected"),
    "added without content": (
        put(SETTINGS, "added_tokens_decoder", "407", to={}),
        r"added_tokens_decoder: 407: .*expected",
    ),
    "added far beyond": (
        put(SETTINGS, "added_tokens_decoder", "9000", to={"content": "<x>"}),
        r"no token has the id 412",
    ),
    "added at a taken id": (
        put(SETTINGS, "added_tokens_decoder", "5", to={"content": "<x>"}),
        r"added token <x>: id 5, which",
    ),
    "added under another id": (
        put(SETTINGS, "added_tokens_decoder", "412", to={"content": "!"}),
        r"added token !: id 412, in the vocabulary 0",
    ),
    "added twice": (
        put(SETTINGS, "added_tokens_decoder", "412", to={"content": "<new>"}),
        r"tokenizer_config\.json: added token <new>: id 412, and id \d+ too",
    ),
    "added at one id under two numbers": (
        put(SETTINGS, "added_tokens_decoder", "0407", to={"content": "<other>"}),
        r"tokenizer_config\.json: added token <other>: id 407, which .* has",
    ),
}
BERT = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}
HANGING = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
BETWEEN = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Removed", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
MODERN: dict[str, tuple[Edit, str]] = {
    "of another kind": (
        put(TOKENIZER, "model", "type", to="WordPiece"),
        r"tokenizer\.json: model\.type: .*expected BPE",
    ),
    "no model": (value(TOKENIZER, lambda held: held.pop("model") and None), r"tokenizer\.json: model"),
    "vocabulary a list": (
        put(TOKENIZER, "model", "vocab", to=[]),
        r"tokenizer\.json: model\.vocab: expected an object",
    ),
    "merges a text": (
        put(TOKENIZER, "model", "merges", to="a b"),
        r"tokenizer\.json: model\.merges: .*expected a list",
    ),
    "merge of three": (
        put(TOKENIZER, "model", "merges", 3, to=["a", "b", "c"]),
        r"tokenizer\.json: model\.merges: 3: .*expected two tokens",
    ),
    "merge of unknown ones": (
        put(TOKENIZER, "model", "merges", 3, to="zz z"),
        r"tokenizer\.json: model\.merges: 3: zz is not in",
    ),
    "merge of numbers": (
        put(TOKENIZER, "model", "merges", 3, to=[1, 2]),
        r"tokenizer\.json: model\.merges: 3: .*expected two tokens",
    ),
    "id huge": (put(TOKENIZER, "model", "vocab", "!", to=10**9), r"tokenizer\.json: model\.vocab: !: id 1000000000"),
    "id twice": (put(TOKENIZER, "model", "vocab", "!", to=1), r"tokenizer\.json: model\.vocab: .*id 1, which"),
    "added id huge": (
        put(TOKENIZER, "added_tokens", 0, "id", to=10**9),
        r"tokenizer\.json: added_tokens: id 1000000000",
    ),
    "added no text": (put(TOKENIZER, "added_tokens", 0, "content", to=None), r"tokenizer\.json: added_tokens: content"),
    "added empty": (put(TOKENIZER, "added_tokens", 1, "content", to=""), r"tokenizer\.json: added_tokens: content"),
    "added a text": (put(TOKENIZER, "added_tokens", to="x"), r"tokenizer\.json: added_tokens: expected a list"),
    "added at the id of another": (
        put(TOKENIZER, "added_tokens", 1, "id", to=406),
        r"tokenizer\.json: added token .*: id 406, which .* has",
    ),
    "regular expression that hangs": (
        put(TOKENIZER, "pre_tokenizer", to=HANGING),
        r"tokenizer\.json: a regular expression .*\(a\+\)\+\$",
    ),
    "another regular expression": (
        put(TOKENIZER, "pre_tokenizer", to={**HANGING, "pattern": {"Regex": r"\w+"}}),
        r"tokenizer\.json: a regular expression",
    ),
    "GPT-2's pattern, between pieces": (
        put(TOKENIZER, "pre_tokenizer", to={"type": "Sequence", "pretokenizers": [BETWEEN, BYTES]}),
        r"tokenizer\.json: pre_tokenizer: .*GPT-2 does not",
    ),
    "BERT's normalizer": (put(TOKENIZER, "normalizer", to=BERT), r"tokenizer\.json: normalizer: .*GPT-2 does not have"),
    "another pre-tokenizer": (
        put(TOKENIZER, "pre_tokenizer", to={"type": "Whitespace"}),
        r"tokenizer\.json: pre_tokenizer: .*GPT-2 does not",
    ),
    "no pre-tokenizer": (put(TOKENIZER, "pre_tokenizer", to=None), r"tokenizer\.json: pre_tokenizer: .*GPT-2 does not"),
    "another decoder": (
        put(TOKENIZER, "decoder", to={"type": "WordPiece", "prefix": "##"}),
        r"tokenizer\.json: decoder: .*GPT-2 does not",
    ),
    "another post-processor": (
        put(TOKENIZER, "post_processor", to={"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}),
        r"tokenizer\.json: post_processor: .*GPT-2 does not",
    ),
    "dropout": (put(TOKENIZER, "model", "dropout", to=0.5), r"tokenizer\.json: model: .*GPT-2 does not have"),
    "a suffix": (
        put(TOKENIZER, "model", "end_of_word_suffix", to="x"),
        r"tokenizer\.json: model: .*GPT-2 does not have",
    ),
    "cut": (text(TOKENIZER, lambda old: old[:2000]), r"tokenizer\.json: not valid JSON"),
    "a git-lfs pointer": (raw(TOKENIZER, LFS), r"tokenizer\.json: this is a git-lfs pointer"),
    "absent": (removed(TOKENIZER), r"no tokenizer\.json"),
    "settings wrong": (put(SETTINGS, "padding_side", to=3), r"tokenizer_config\.json: .*padding_side: 3"),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_files(case: str, place: Path) -> None:
    AutoTokenizer.from_pretrained(place)
    edit, words = FILES[case]
    edit(place)
    refusal(place, words)


@pytest.mark.parametrize("case", MODERN)
def test_bad_tokenizer_json(case: str, modern: Path) -> None:
    AutoTokenizer.from_pretrained(modern)
    edit, words = MODERN[case]
    edit(modern)
    refusal(modern, words)


def test_every_problem_is_named(place: Path) -> None:
    line(5, "Ġt")(place)
    line(9, "x y z")(place)
    assert "(2 problems)" in refusal(place, r"line 5: ", r"line 9: ")
    put(VOCAB, "!", to=-1)(place)
    put(SETTINGS, "auto_map", to={"a": "b"})(place)
    assert "(2 problems)" in refusal(place, r"vocab\.json: !", "auto_map")


def test_no_directory(tmp_path: Path) -> None:
    for cls in (AutoTokenizer, GPT2Tokenizer, OpenAIGPTTokenizer):
        refusal(tmp_path / "nowhere", "nowhere", cls=cls)
        (tmp_path / "file").write_text("x")
        refusal(tmp_path / "file", "file", cls=cls)
        (tmp_path / "empty").mkdir(exist_ok=True)
        refusal(tmp_path / "empty", r"no vocab\.json", cls=cls)


# One family's files given to the other's class


@pytest.mark.parametrize("without", ["tokenizer.json", "vocab.json merges.txt added_tokens.json"])
def test_files_of_the_other_family(without: str, tmp_path: Path) -> None:
    first, second = (copied(tmp_path / source.name, source, without) for source in (GPT1, GPT2))
    refusal(first, "use OpenAIGPTTokenizer|GPT-2 does not have", cls=GPT2Tokenizer)
    for name in ("OpenAIGPTTokenizer", "OpenAIGPTTokenizerFast"):
        refusal(second, "GPT2Tokenizer|GPT does not have", cls=getattr(tokenization, name))


def test_a_vocabulary_without_some_byte(place: Path) -> None:
    """Its unknown bytes are <|endoftext|>, as in Transformers; without that, it is refused."""
    held = json.loads((place / VOCAB).read_bytes())
    last = max(held, key=lambda token: held[token] if not re.search(r"[^ -~]", token) and len(token) == 1 else -1)
    merges = (place / MERGES).read_text(encoding="utf-8").splitlines()
    kept = [merge for merge in merges if last not in merge]
    ids = {token: n for n, token in enumerate(t for t in held if last not in t)}
    ours = GPT2Tokenizer(ids, kept[1:])
    assert ours.encode(f"a{last}") == [ids["a"], ours.unk_token_id]
    del ids["<|endoftext|>"]
    ids = {token: n for n, token in enumerate(ids)}
    with pytest.raises(GPTZooError, match="no token for 1 of the 256 bytes") as caught:
        GPT2Tokenizer(ids, kept[1:], unk_token=None, bos_token=None, eos_token=None)
    assert len(str(caught.value).splitlines()) == 1


# Constructors and their arguments


CONSTRUCTORS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "nothing": ((), {}, "vocab_file: None, expected a path"),
    "no merges": ((GPT2 / VOCAB,), {}, "merges_file: None, expected a path"),
    "a number": ((5, GPT2 / MERGES), {}, "vocab_file: 5, expected a path"),
    "no such file": (("/nowhere/vocab.json", GPT2 / MERGES), {}, r"/nowhere/vocab\.json: No such file"),
    "a directory": ((GPT2, GPT2 / MERGES), {}, "not a regular file"),
    "the wrong way round": ((GPT2 / MERGES, GPT2 / VOCAB), {}, r"merges\.txt: not valid JSON"),
    "ids that are none": (({"a": "b"}, []), {}, "vocab: a: id .?b.?, expected an integer"),
    "tokens that are none": (({1: 0}, []), {}, "vocab: token 1, expected a text"),
    "a merge of three": (({"a": 0, "b": 1}, ["a b a"]), {}, "merges: .*expected two tokens"),
    "a merge of numbers": (({"a": 0, "b": 1}, [(1, 2)]), {}, "merges: .*"),
    "merges a number": (({"a": 0}, 5), {}, "merges"),
    "no text": ((b"\0", GPT2 / MERGES), {}, "vocab_file: "),
    "a name that is none": (("a\0b", GPT2 / MERGES), {}, "not a usable path"),
    "an unknown argument": (
        (GPT2 / VOCAB, GPT2 / MERGES),
        {"pad_tokne": "x"},
        "unknown argument .?pad_tokne.?, did you mean pad_token",
    ),
    "a wrong side": ((GPT2 / VOCAB, GPT2 / MERGES), {"padding_side": "up"}, "padding_side: .?up.?, expected"),
    "a wrong length": (
        (GPT2 / VOCAB, GPT2 / MERGES),
        {"model_max_length": "x"},
        "model_max_length: .?x.?, expected a number",
    ),
    "a wrong token": ((GPT2 / VOCAB, GPT2 / MERGES), {"pad_token": 5}, "pad_token: 5, expected a token"),
    "a lone surrogate": (
        (GPT2 / VOCAB, GPT2 / MERGES),
        {"pad_token": "\ud800"},
        r"pad_token: .*ud800.*expected a token",
    ),
    "a wrong flag": ((GPT2 / VOCAB, GPT2 / MERGES), {"add_bos_token": "no"}, "add_bos_token: .?no.?, expected"),
    "errors of encoding": ((GPT2 / VOCAB, GPT2 / MERGES), {"errors": "xmlcharrefreplace"}, "errors: .*expected"),
    "errors of a lone surrogate": ((GPT2 / VOCAB, GPT2 / MERGES), {"errors": "\ud800"}, "errors: .*ud800.*expected"),
    "wrong errors": ((GPT2 / VOCAB, GPT2 / MERGES), {"errors": "none"}, "errors: .?none.?, expected"),
}


@pytest.mark.parametrize("case", CONSTRUCTORS)
def test_bad_constructors(case: str) -> None:
    positional, named, words = CONSTRUCTORS[case]
    with pytest.raises(GPTZooError, match=words) as caught:
        GPT2Tokenizer(*positional, **named)
    assert type(caught.value) in (CheckpointError, InputError)
    assert len(str(caught.value).splitlines()) == 1


def test_a_known_spelling_of_the_pattern_is_taken(modern: Path) -> None:
    wanted = AutoTokenizer.from_pretrained(modern)
    split = {**BETWEEN, "behavior": "Isolated"}
    put(TOKENIZER, "pre_tokenizer", to={"type": "Sequence", "pretokenizers": [split, BYTES]})(modern)
    assert AutoTokenizer.from_pretrained(modern)("I'm  here").input_ids == wanted("I'm  here").input_ids


@pytest.mark.parametrize("prefix", ["../x", "a/b", "..", 3])
def test_files_stay_in_their_directory(prefix: Any, place: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(place)
    for save in (tokenizer.save_pretrained, tokenizer.save_vocabulary):
        with pytest.raises(InputError, match=r"filename_prefix: .*expected the beginning of a file's name"):
            save(tmp_path / "saved", filename_prefix=prefix)
        with pytest.raises(CheckpointError, match="save_directory: 3, expected a path"):
            save(3)
    assert not (tmp_path / "saved").exists()


def test_bad_arguments_of_from_pretrained(place: Path) -> None:
    for cls in (AutoTokenizer, GPT2Tokenizer):
        for arguments, words in (
            ({"padding_sid": "left"}, r"unknown argument .?padding_sid.?, did you mean padding_side"),
            ({"padding_side": "up"}, r"padding_side: .?up.?, expected"),
            ({"model_max_length": 0}, r"model_max_length: 0, expected"),
        ):
            with pytest.raises(InputError, match=words):
                cls.from_pretrained(place, **arguments)
    with pytest.raises(InputError, match="AutoTokenizer has no instances"):
        AutoTokenizer()


# Mutants


WEIRD: list[Any] = [
    None,
    True,
    0,
    1,
    -1,
    300,
    1.5,
    1e300,
    2**31,
    2**64,
    "",
    "x",
    "Ġ",
    "\ud800",
    "BPE",
    [],
    {},
    [[]],
    {"a": 1},
]


@pytest.mark.parametrize("mutate", ["bytes", "values"])
@pytest.mark.parametrize("name", [VOCAB, SETTINGS, SPECIAL, ADDED])
def test_mutants(name: str, mutate: str, place: Path) -> None:
    if name in (SPECIAL, ADDED):
        (place / SETTINGS).unlink()  # which would be believed before these
    fuzz(place, name, mutate)


def test_mutants_of_merges(place: Path) -> None:
    fuzz(place, MERGES, "bytes")


@pytest.mark.parametrize("mutate", ["bytes", "values"])
def test_mutants_of_tokenizer_json(mutate: str, modern: Path) -> None:
    fuzz(modern, TOKENIZER, mutate)


def falsify(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns JSON with one to three values, wherever they are, changed for weird ones, or gone."""
    held = json.loads(data)
    for _ in range(rng.integers(1, 4)):
        at = held
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            if isinstance(at[key], dict | list) and at[key] and rng.random() < 0.8:
                at = at[key]
                continue
            if rng.random() < 0.2:
                del at[key]
            else:
                at[key] = WEIRD[rng.integers(len(WEIRD))]
            break
    return json.dumps(held).encode()


def fuzz(place: Path, name: str, mutate: str) -> None:
    """Only CheckpointError comes out; what is read can encode and decode."""

    def read(path: Path) -> None:
        try:
            tokenizer = GPT2Tokenizer.from_pretrained(path.parent)
        except CheckpointError as problem:
            if str(path.parent) not in str(problem):
                raise AssertionError(f"{problem} names no folder") from problem
            # The error may be of another file, which does not fit this one any more.
            raise CheckpointError(f"{path.name}: {problem}") from problem
        tokenizer.decode(tokenizer.encode("Now is the <s1> winter\n\x00 é東 <new> abab <|endoftext|>"))

    data = (place / name).read_bytes()
    kind = {"mutate": falsify} if mutate == "values" else {}
    seen = attack(read, data, place / name, count=COUNT // 5, **kind)
    assert seen["refused"] > 0
