"""Tokenizers and configs come along, whichever files a checkpoint has them in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gptzoo.errors import CheckpointError, ConfigError
from gptzoo.hub import resolve
from gptzoo_conversion import convert, open_foreign
from gptzoo_conversion.containers.gguf import read_gguf

from .conversion import GOLDEN

BUNDLED = resolve("gptzoo/shakespeare")
VOCAB, MERGES = (BUNDLED / "vocab.json").read_bytes(), (BUNDLED / "merges.txt").read_bytes()
IDS = json.loads(VOCAB) | {"<|endoftext|>": 1023}


@pytest.fixture
def modern(tmp_path: Path) -> Path:
    """What Transformers 5 saves: tokenizer.json and no vocab.json."""
    place = tmp_path / "modern"
    place.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(BUNDLED / name, place)
    return place


@pytest.mark.parametrize("from_modern", [False, True])
def test_gguf_holds_every_token(from_modern: bool, modern: Path, tmp_path: Path) -> None:
    convert(modern if from_modern else BUNDLED, tmp_path / "x.gguf", "gguf")
    keys = read_gguf(tmp_path / "x.gguf").metadata
    assert {token: i for i, token in enumerate(keys["tokenizer.ggml.tokens"])} == IDS
    assert keys["tokenizer.ggml.token_type"] == [1] * 1023 + [3]  # the last one is a control token
    assert keys["tokenizer.ggml.merges"] == MERGES.decode().splitlines()[1:]
    assert keys["tokenizer.ggml.eos_token_id"] == 1023


@pytest.mark.parametrize("from_modern", [False, True])
def test_openai_s_own_names(from_modern: bool, modern: Path, tmp_path: Path) -> None:
    convert(modern if from_modern else BUNDLED, tmp_path / "out", "gpt2_tf1")
    assert json.loads((tmp_path / "out" / "encoder.json").read_bytes()) == json.loads(VOCAB)
    assert (tmp_path / "out" / "vocab.bpe").read_bytes() == MERGES


def test_along_a_chain(modern: Path, tmp_path: Path) -> None:
    """Through formats that hold a tokenizer in their own ways; the numbers of the config too, where they are held."""
    at = modern
    for number, format in enumerate(("gguf", "kerashub", "gpt2_tf1", "flax_msgpack", "keras", "safetensors")):
        convert(at, tmp_path / str(number), format)
        at = tmp_path / str(number)
    assert json.loads((at / "vocab.json").read_bytes()) == IDS
    assert (at / "merges.txt").read_bytes() == MERGES
    assert open_foreign(at).config.eos_token_id == 1023


def test_tokenizer_files_stay_as_they_are(modern: Path, tmp_path: Path) -> None:
    convert(modern, tmp_path / "out", "pytorch_bin")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (modern / "tokenizer.json").read_bytes()
    assert not (tmp_path / "out" / "vocab.json").exists()


def test_fields_that_a_format_does_not_say_are_named(tmp_path: Path) -> None:
    done = convert(BUNDLED, tmp_path / "out", "kerashub")
    assert any("kerashub does not say" in note and "attn_pdrop" in note for note in done.notes)
    assert not convert(BUNDLED, tmp_path / "two", "flax_msgpack").notes


def test_small_vocabularies_have_no_token_of_openai(tmp_path: Path) -> None:
    place = tmp_path / "in"
    shutil.copytree(GOLDEN / "openai-gpt2", place)
    assert not (place / "config.json").exists()
    config = open_foreign(place).config
    assert (config.bos_token_id, config.eos_token_id, config.vocab_size) == (None, None, 40)


def test_a_config_may_say_what_is_missing_only(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "openai-gpt", "n_head": 3}')
    config = open_foreign(GOLDEN / "openai-gpt", config=tmp_path / "config.json").config
    assert (config.n_head, config.n_layer, config.vocab_size) == (3, 2, 40)
    (tmp_path / "config.json").write_text('{"model_type": "openai-gpt", "n_head": 5}')
    with pytest.raises(ConfigError, match="n_head"):
        open_foreign(GOLDEN / "openai-gpt", config=tmp_path / "config.json")


@pytest.mark.parametrize("name", ["src", ".git", "notes.txt"])
def test_what_is_no_checkpoint_s_is_not_replaced(name: str, tmp_path: Path) -> None:
    convert(BUNDLED, tmp_path / "out", "safetensors")
    convert(BUNDLED, tmp_path / "out", "tf_h5", overwrite=True)
    (tmp_path / "out" / name).mkdir()
    with pytest.raises(CheckpointError, match=f"not overwritten: it also holds {name}"):
        convert(BUNDLED, tmp_path / "out", "gguf", overwrite=True)
    assert (tmp_path / "out" / "tf_model.h5").exists()
