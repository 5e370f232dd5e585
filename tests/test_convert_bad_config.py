"""A false config.json, tokenizer file or directory is refused before any tensor is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptzoo._tensors import TensorFile
from tests.falsify import (
    CONFIG,
    LFS_POINTER,
    WEB_PAGE,
    Case,
    Falsify,
    both,
    cases,
    no_files,
    replaced,
    with_bytes,
    with_config,
    with_json,
    without,
)


def field(value: Any, words: str, name: str = "n_layer") -> tuple[Falsify, str]:
    return with_config(**{name: value}), f"{CONFIG}: *{name}: *{words}"


def text(data: bytes | Callable[[bytes], bytes], words: str) -> tuple[Falsify, str]:
    return with_bytes(CONFIG, data), f"{CONFIG}: *{words}"


def said(token: bytes) -> Callable[[bytes], bytes]:
    """Returns what gives n_layer a value that Python's own writer of JSON would not write."""
    return lambda data: data.replace(b'"n_layer": 2', b'"n_layer": ' + token)


FIELDS = {
    "n_layer 10**9": field(10**9, "expected"),
    "n_layer of 1025": field(1025, "expected"),
    "n_layer of 4301 digits": text(said(b"9" * 4301), "digits"),
    "n_layer above the file": (with_config(n_layer=3), "src*n_layer: 3*missing all of block 2"),
    "n_layer below the file": (with_config(n_layer=1), "src*n_layer: 1*there are tensors of block 1"),
    "n_layer 0": field(0, "expected"),
    "n_layer -1": field(-1, "expected"),
    "n_layer text": field("2", "expected"),
    "n_layer 2.5": field(2.5, "expected"),
    "n_layer true": field(True, "expected"),
    "n_layer null": field(None, "expected"),
    "n_layer list": field([2], "expected"),
    "n_layer NaN": text(said(b"NaN"), "NaN is not a JSON number"),
    "n_layer Infinity": text(said(b"Infinity"), "Infinity is not a JSON number"),
    "n_layer 1e999": text(said(b"1e999"), "n_layer"),
    "n_head that does not divide": (with_config(n_head=5), f"{CONFIG}: *n_embd: 12 is not divisible by n_head 5"),
    "n_head 10**9": field(10**9, "expected", "n_head"),
    "n_head 0": field(0, "expected", "n_head"),
    "n_head twice": text(lambda data: data.replace(b"{", b'{"n_head": 6,', 1), "key 'n_head' stands twice"),
    "n_embd 10**9": field(10**9, "expected", "n_embd"),
    "n_embd of another model": (with_config(n_embd=24), "model.safetensors: *(40, 12)*expected (40, 24)"),
    "n_positions 10**9": field(10**9, "expected", "n_positions"),
    "n_positions of another model": (with_config(n_positions=17), "transformer.wpe.weight: shape (16, 12)"),
    "vocab_size 10**9": field(10**9, "expected", "vocab_size"),
    "vocab_size of another model": (with_config(vocab_size=41), "transformer.wte.weight: shape (40, 12)"),
    "n_inner -1": field(-1, "expected", "n_inner"),
    "n_inner of another model": (with_config(n_inner=48), "mlp.c_fc.weight: shape (12, 20)"),
    "activation unknown": field("evil", "expected", "activation_function"),
    "activation number": field(5, "expected", "activation_function"),
    "epsilon -1": field(-1, "expected", "layer_norm_epsilon"),
    "epsilon text": field("1e-5", "expected", "layer_norm_epsilon"),
    "dropout 2": field(2.0, "expected", "resid_pdrop"),
    "tie text": field("false", "expected", "tie_word_embeddings"),
    "head that is not there": (with_config(tie_word_embeddings=False), "model.safetensors: missing lm_head.weight"),
    "cross-attention that is not there": (with_config(add_cross_attention=True), "missing *crossattention"),
    "model_type of another": field("bert", "expected", "model_type"),
    "model_type number": field(5, "expected", "model_type"),
    "family of another": (with_config(model_type="openai-gpt"), f"{CONFIG}: *n_inner: 20"),
    "architectures number": field(5, "expected", "architectures"),
    "head of another kind": (with_config(architectures=["GPT2ForQuestionAnswering"]), "missing qa_outputs"),
    "auto_map": field({"AutoModel": "evil.Model"}, "names code to be run; refused", "auto_map"),
    "pruned_heads beyond": field({"0": [7]}, "expected", "pruned_heads"),
    "pruned_heads of a block beyond": field({"9": [0]}, "expected", "pruned_heads"),
    "pruned_heads true": field(True, "expected", "pruned_heads"),
    "control characters": field("\x1b[2J\n\u202eevil", "expected", "activation_function"),
    "a text of 900,000": field("x" * 900_000, "expected", "activation_function"),
}

TEXTS = {
    "empty": text(b"", "not valid JSON"),
    "cut": text(lambda data: data[:100], "not valid JSON"),
    "null": text(b"null", "expected an object"),
    "a list": text(b"[]", "expected an object"),
    "UTF-16": text(lambda data: data.decode().encode("utf-16"), "not UTF-8"),
    "a byte order mark": text(lambda data: b"\xef\xbb\xbf" + data, "not valid JSON"),
    "zeros": text(bytes(100), "not valid JSON"),
    "git-lfs pointer": text(LFS_POINTER, "git-lfs pointer"),
    "web page": text(WEB_PAGE, "web page"),
    "100,000 brackets": text(b"[" * 100_000, "nested too deeply"),
    "65 levels": text(b'{"a":' * 65 + b"1" + b"}" * 65, "nested too deeply"),
    "2 MiB of spaces": text(lambda data: data + b" " * 2**21, "expected at most 1048576"),
    "absent": (without(CONFIG), "n_head is not said*give a config (--config FILE, or config=)"),
    "dangling link": (replaced(CONFIG, lambda path: path.symlink_to("nowhere")), f"{CONFIG}: no such file"),
} | no_files(CONFIG)

CASES = cases("torch-gpt2-lm", FIELDS | TEXTS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_tensor_is_read_for_a_false_config(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(TensorFile, "fill", fail)
    case.check(tmp_path)


# Tokenizer files: they are copied, so that other software would meet what is wrong with them


IDS = {letter: number for number, letter in enumerate("abcdeĠ")} | {"ab": 6}
BPE = {"type": "BPE", "vocab": IDS, "merges": ["a b"]}
MERGES = "#version: 0.2\na b\n"


def token_files(vocab: Any = IDS, merges: str | bytes = MERGES) -> Falsify:
    """Returns what puts both files of a tokenizer into a directory."""

    def falsify(directory: Path) -> None:
        (directory / "vocab.json").write_bytes(vocab if isinstance(vocab, bytes) else json.dumps(vocab).encode())
        (directory / "merges.txt").write_bytes(merges if isinstance(merges, bytes) else merges.encode())

    return falsify


def token_file(name: str, **content: Any) -> Falsify:
    return lambda directory: (directory / name).write_text(json.dumps(content))


def split_by(pattern: str) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": pattern}}]}


VOCAB, TOKENIZER, SETTINGS = "vocab.json: ", "tokenizer.json: ", "tokenizer_config.json"
TOKENIZERS: dict[str, tuple[Falsify, str]] = {
    "id 10**9": (token_files(IDS | {"x": 10**9}), VOCAB + "x: id 1000000000"),
    "id -1": (token_files(IDS | {"x": -1}), VOCAB + "x: id -1"),
    "id 1.5": (token_files(IDS | {"x": 1.5}), VOCAB + "x: id 1.5"),
    "id text": (token_files(IDS | {"x": "7"}), VOCAB + "x: id 7"),
    "id true": (token_files(IDS | {"x": True}), VOCAB + "x: id True"),
    "id twice": (token_files(IDS | {"x": 3}), VOCAB + "x: id 3, which d has too"),
    "token twice": (token_files(b'{"a": 0, "a": 1}'), VOCAB + "*key 'a' stands twice"),
    "vocab a list": (token_files(["a", "b"]), VOCAB + "holds a JSON list"),
    "vocab deep": (token_files(b"[" * 100_000), VOCAB + "nested too deeply"),
    "vocab not UTF-8": (token_files(b'{"\xff": 0}'), VOCAB + "not UTF-8"),
    "vocab of nothing": (token_files(b""), VOCAB + "not valid JSON"),
    "vocab git-lfs": (token_files(LFS_POINTER), VOCAB + "*git-lfs pointer"),
    "token of control characters": (token_files(IDS | {"\x1b[2J": -1}), VOCAB + r"'\x1b[2J': id -1"),
    "merge of unknown tokens": (token_files(merges="a z\n"), "merges.txt: line 1: z is not in the vocabulary"),
    "merge into an unknown token": (token_files(merges="a c\n"), "merges.txt: line 1: ac is not in the vocabulary"),
    "merge of three": (token_files(merges="a b c\n"), "merges.txt: line 1: *expected two tokens"),
    "merges not UTF-8": (token_files(merges=b"\xff \xfe\n"), "merges.txt: not UTF-8"),
    "merges a web page": (token_files(merges=WEB_PAGE), "merges.txt: *web page"),
    "regular expression": (
        token_file("tokenizer.json", model=BPE, pre_tokenizer=split_by("(a+)+$")),
        TOKENIZER + "*(a+)+$",
    ),
    "regular expression in a normalizer": (
        token_file("tokenizer.json", model=BPE, normalizer={"type": "Replace", "pattern": {"Regex": "(a*)*b"}}),
        TOKENIZER + "*(a*)*b",
    ),
    "tokenizer of another kind": (token_file("tokenizer.json", model={"type": "Unigram"}), TOKENIZER + "model.type"),
    "tokenizer's merge of unknown tokens": (
        token_file("tokenizer.json", model=BPE | {"merges": ["a b", ["a", "z"]]}),
        TOKENIZER + "model.merges: 1: z is not in the vocabulary",
    ),
    "tokenizer's merge of one": (
        token_file("tokenizer.json", model=BPE | {"merges": [["a"]]}),
        TOKENIZER + "model.merges: 0: ['a'], expected two tokens",
    ),
    "tokenizer's merges no list": (
        token_file("tokenizer.json", model=BPE | {"merges": 5}),
        "model.merges: 5, expected",
    ),
    "tokenizer's id": (
        token_file("tokenizer.json", model=BPE | {"vocab": {"a": 10**9}}),
        TOKENIZER + "model.vocab: a: id",
    ),
    "added token's id": (
        token_file("tokenizer.json", model=BPE, added_tokens=[{"id": 10**9, "content": "x"}]),
        TOKENIZER + "added_tokens: id 1000000000",
    ),
    "added token's id elsewhere": (token_file("added_tokens.json", x=10**9), "added_tokens.json: x: id 1000000000"),
    "code": (token_file(SETTINGS, auto_map={"AutoTokenizer": "evil.T"}), f"{SETTINGS}: auto_map"),
    "vocab_file": (token_file(SETTINGS, vocab_file="../../secret"), f"{SETTINGS}: vocab_file: ../../secret"),
    "tokenizer_file": (token_file(SETTINGS, tokenizer_file="/etc/passwd"), f"{SETTINGS}: tokenizer_file: /etc/passwd"),
    "settings cut": (lambda directory: (directory / SETTINGS).write_text("{"), f"{SETTINGS}: not valid JSON"),
} | {f"settings a {name}": case for name, case in no_files(SETTINGS).items()}

OPENAI = {
    "id twice": (with_json("encoder.json", lambda ids: ids.update(b=0)), "encoder.json: b: id 0, which a has too"),
    "merge of unknown tokens": (with_bytes("vocab.bpe", b"#version: 0.2\n!! ??\n"), "vocab.bpe: line 2: !!"),
}
ASSETS = "assets/tokenizer"
KERASHUB = {
    "id 10**9": (with_json(f"{ASSETS}/vocabulary.json", lambda ids: ids.update(a=10**9)), "vocabulary.json: a: id 10"),
    "merge of unknown tokens": (with_bytes(f"{ASSETS}/merges.txt", b"!! ??\n"), "merges.txt: line 2: !!"),
}
FAULTY_TOKENIZERS = cases("torch-gpt2-lm", TOKENIZERS) | cases("openai-gpt2", OPENAI) | cases("kerashub-lm", KERASHUB)


@pytest.mark.parametrize("case", FAULTY_TOKENIZERS.values(), ids=FAULTY_TOKENIZERS)
def test_faulty_tokenizers(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)


# Directories


def emptied(*kept: str) -> Falsify:
    def falsify(directory: Path) -> None:
        for path in directory.iterdir():
            if path.name not in kept:
                path.unlink()

    return falsify


LOOKED = "no weights in a known format (looked for model.safetensors, "
DIRECTORIES = cases(
    "torch-gpt2-lm",
    {
        "empty": (emptied(), f"src: {LOOKED}"),
        "config only": (emptied(CONFIG), f"src: {LOOKED}"),
        "a text only": (both(emptied(), lambda directory: (directory / "README.md").write_text("hello")), LOOKED),
        "pipe only": (both(emptied(), replaced("model.safetensors", lambda path: None)), LOOKED),
    },
) | cases("torch-gpt2-lm", {"absent": (lambda directory: None, "no such file or directory")}, file="absent")


@pytest.mark.parametrize("case", DIRECTORIES.values(), ids=DIRECTORIES)
def test_directories_without_weights(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)
