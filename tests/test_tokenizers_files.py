"""Tokenizer files: ours read by Transformers, theirs (5, and 4.57.6's in golden_tokenizers) by us, to the same ids."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken, Tokenizer

from gptzoo import tokenization
from gptzoo.hub import resolve
from gptzoo.tokenization import AutoTokenizer, GPT2Tokenizer, OpenAIGPTTokenizerFast
from tests.tokenizers_matrix import BEST, CLASSES, END, GOLDEN, VOCABULARIES, fresh, golden, pair

TEXTS = golden()["texts"]
FOLDERS = tuple(golden()["tokenizers"])

# What 4.57.6's slow tokenizers did otherwise than its fast ones, whose way is ours.
LIKE_FAST = {
    "gpt2-slow-prefix": "a second space before a text that begins with one, and one for no text at all",
    "gpt2-slow-added": "spaces around added tokens in what they decode",
    "gpt1-slow-added": "spaces around added tokens in what they decode",
}


def wanted(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = golden()["tokenizers"][folder.replace("slow", "fast") if folder in LIKE_FAST else folder]
    return found


@pytest.mark.parametrize("auto", [False, True], ids=["by its class", "by AutoTokenizer"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_of_transformers_4(folder: str, auto: bool) -> None:
    cls = (
        AutoTokenizer if auto else getattr(tokenization, CLASSES["gpt2" if folder.startswith("gpt2") else "openai-gpt"])
    )
    ours, old = cls.from_pretrained(GOLDEN / folder), wanted(folder)
    assert [ours(text)["input_ids"] for text in TEXTS] == old["ids"]
    assert ours(TEXTS)["input_ids"] == old["ids"]
    assert [ours.decode(ids) for ids in old["ids"]] == old["decoded"]
    assert [ours.decode(ids, skip_special_tokens=True) for ids in old["ids"]] == old["skipped"]
    assert len(ours) == old["len"]
    assert {role: [getattr(ours, role), getattr(ours, f"{role}_id")] for role in old["special"]} == old["special"]
    assert [ours.padding_side, ours.truncation_side] == old["sides"]
    assert min(ours.model_max_length, 10**30) == old["model_max_length"]


@pytest.mark.parametrize("folder", [name for name in FOLDERS if "fast" in name])
def test_every_file_of_a_folder_tells_the_same(folder: str, tmp_path: Path) -> None:
    """tokenizer.json alone, and without it: what Transformers 5 saves, and what it needs not."""
    for keep in (("tokenizer.json", "tokenizer_config.json"), ("vocab.json", "merges.txt", "tokenizer_config.json")):
        place = tmp_path / keep[0]
        place.mkdir()
        for name in keep:
            shutil.copy(GOLDEN / folder / name, place)
        ours = AutoTokenizer.from_pretrained(place)
        assert [ours(text)["input_ids"] for text in TEXTS] == wanted(folder)["ids"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_saved_folders_keep_their_ids(folder: str, tmp_path: Path) -> None:
    """Read by us, saved by us, read again by us, by Transformers 5 and by the bare library."""
    ours = AutoTokenizer.from_pretrained(GOLDEN / folder)
    written = ours.save_pretrained(tmp_path)
    assert {Path(path).name for path in written} == {path.name for path in tmp_path.iterdir()}
    again, theirs = (module.AutoTokenizer.from_pretrained(tmp_path) for module in (tokenization, transformers))
    assert type(again) is type(ours)
    ids = [ours(text)["input_ids"] for text in TEXTS]
    for tokenizer in (again, theirs):
        assert [tokenizer(text)["input_ids"] for text in TEXTS] == ids
        assert [tokenizer.decode(row, skip_special_tokens=True) for row in ids] == wanted(folder)["skipped"]
        assert len(tokenizer) == len(ours)
        assert all(getattr(tokenizer, role) == token for role, (token, _) in wanted(folder)["special"].items())
        assert (tokenizer.padding_side, tokenizer.truncation_side) == (ours.padding_side, ours.truncation_side)
    bare = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [bare.encode(text).ids for text in TEXTS] == ids
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


@pytest.mark.parametrize("folder", ["gpt2-slow-added", "gpt2-slow-bos", "gpt1-slow-added"])
def test_files_for_software_that_knows_no_tokenizer_json(folder: str, tmp_path: Path) -> None:
    """Transformers' slow tokenizers read vocab.json, merges.txt and the settings."""
    ours = AutoTokenizer.from_pretrained(GOLDEN / folder)
    ours.save_pretrained(tmp_path)
    old = GOLDEN / folder
    settings, wanted_settings = (json.loads((place / "tokenizer_config.json").read_text()) for place in (tmp_path, old))
    assert settings["added_tokens_decoder"] == wanted_settings["added_tokens_decoder"]
    for name in ("bos_token", "pad_token", "add_bos_token", "additional_special_tokens", "model_max_length"):
        assert settings.get(name) == wanted_settings.get(name), name
    assert settings["padding_side"] == wanted_settings.get("padding_side", "right")
    assert json.loads((tmp_path / "vocab.json").read_text()) == json.loads((old / "vocab.json").read_text())
    assert (tmp_path / "merges.txt").read_text() == (old / "merges.txt").read_text()


@pytest.mark.parametrize("family", CLASSES)
def test_folders_of_transformers_5(family: str, tmp_path: Path) -> None:
    both = fresh(BEST[family], padding_side="left")
    both.theirs.add_tokens(["abab", AddedToken("<new>", lstrip=True)])
    both.theirs.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": ["<s1>"]})
    both.theirs.save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.json").exists()
    for ours in (AutoTokenizer.from_pretrained(tmp_path), type(both.ours).from_pretrained(tmp_path)):
        assert type(ours) is type(both.ours)
        for text in TEXTS:
            found, expected = ours(text, return_offsets_mapping=True), both.theirs(text, return_offsets_mapping=True)
            assert dict(found) == dict(expected)
        assert (ours.pad_token_id, ours.padding_side) == (both.theirs.pad_token_id, "left")
        assert ours.additional_special_tokens == ["<s1>"]


@pytest.mark.parametrize("arguments", [{"add_bos_token": True}, {"add_prefix_space": True}, {"model_max_length": 7}])
def test_settings_survive(arguments: dict[str, Any], tmp_path: Path) -> None:
    both = fresh(BEST["gpt2"], **arguments)
    for number, tokenizer in enumerate(both):
        place = tmp_path / str(number)
        tokenizer.save_pretrained(place)
        for module in (tokenization, transformers):
            again = module.AutoTokenizer.from_pretrained(place)
            assert again.encode("Hello world") == tokenizer.encode("Hello world")
            if module is tokenization or "add_bos_token" not in arguments:  # which Transformers 5 forgets by that name
                assert all(getattr(again, name) == value for name, value in arguments.items())


def test_save_vocabulary(tmp_path: Path) -> None:
    for vocabulary in BEST.values():
        ours = pair(vocabulary).ours
        place = tmp_path / vocabulary
        paths = ours.save_vocabulary(place, "some")
        assert [Path(path).name for path in paths] == ["some-vocab.json", "some-merges.txt"]
        assert sorted(path.name for path in place.iterdir()) == ["some-merges.txt", "some-vocab.json"]
        again = type(ours)(*paths)
        assert again.encode("Now is the winter") == ours.encode("Now is the winter")
        assert (again.vocab, again.merges) == (ours.vocab, ours.merges)


def test_saving_replaces_a_tokenizer_and_nothing_else(tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(GOLDEN / "gpt2-fast-added").save_pretrained(tmp_path)
    assert (tmp_path / "added_tokens.json").exists()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    pair(BEST["openai-gpt"]).ours.save_pretrained(tmp_path)
    assert not (tmp_path / "added_tokens.json").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is OpenAIGPTTokenizerFast


# Where tokenizers come from


def test_the_bundled_one_needs_no_file() -> None:
    ours = AutoTokenizer.from_pretrained("gptzoo/shakespeare")
    assert type(ours) is GPT2Tokenizer
    assert (len(ours), ours.eos_token_id, ours.model_max_length) == (1024, 1023, 256)
    text = "Now is the winter of our discontent\n"
    assert ours.decode(ours.encode(text)) == text
    bare = Tokenizer.from_file(str(resolve("gptzoo/shakespeare") / "tokenizer.json"))
    assert ours.encode(text) == bare.encode(text).ids


@pytest.mark.parametrize(
    ("vocab", "merges"),
    [("encoder.json", "vocab.bpe"), ("assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt")],
    ids=["OpenAI", "KerasHub"],
)
def test_other_names_of_the_files(vocab: str, merges: str, tmp_path: Path) -> None:
    for name, source in ((vocab, "vocab.json"), (merges, "merges.txt")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(GOLDEN / "gpt2-slow-plain" / source, tmp_path / name)
    ours = AutoTokenizer.from_pretrained(tmp_path)
    assert [ours(text)["input_ids"] for text in TEXTS] == wanted("gpt2-slow-plain")["ids"]


@pytest.mark.parametrize("family", CLASSES)
def test_constructors(family: str) -> None:
    """From paths, from what the files hold, by the older and the newer names of the arguments."""
    folder = GOLDEN / ("gpt2-fast-plain" if family == "gpt2" else "gpt1-fast-plain")
    fast = getattr(tokenization, CLASSES[family].removesuffix("Fast") + "Fast")
    cls = partial(fast.__base__, **({} if family == "gpt2" else {"preparation": "bert"}))
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    made = {
        "paths": cls(folder / "vocab.json", str(folder / "merges.txt")),
        "names": cls(vocab_file=folder / "vocab.json", merges_file=folder / "merges.txt"),
        "newer names": cls(vocab=ids, merges=lines),
        "pairs": cls(ids, [tuple(line.split(" ")) for line in lines]),
        "fast": fast(folder / "vocab.json", folder / "merges.txt"),
        "fast, of tokenizer.json": fast(tokenizer_file=str(folder / "tokenizer.json")),
    }
    for how, ours in made.items():
        assert [ours(text)["input_ids"] for text in TEXTS] == wanted(folder.name)["ids"], how
        assert isinstance(ours, fast.__base__)


@pytest.mark.parametrize("family", CLASSES)
def test_the_end_of_a_line_changes_no_id(family: str, tmp_path: Path) -> None:
    """With and without the header, the last newline and carriage returns, none is lost, as one was in old readers."""
    folder = GOLDEN / ("gpt2-slow-plain" if family == "gpt2" else "gpt1-slow-plain")
    cls = getattr(tokenization, CLASSES[family])
    text = (folder / "merges.txt").read_text(encoding="utf-8")
    _, body = text.split("\n", 1)
    last = tuple(body.splitlines()[-1].split(" "))
    forms = {
        "as it is": text,
        "no last newline": text.rstrip("\n"),
        "no header": body,
        "neither": body.rstrip("\n"),
        "another version": f"#version: 0.1 - Trained by `huggingface/tokenizers`\n{body}",
        "carriage returns": text.replace("\n", "\r\n"),
        "empty lines at the end": text + "\n\n",
    }
    for how, content in forms.items():
        (tmp_path / "merges.txt").write_bytes(content.encode())
        ours = cls(folder / "vocab.json", tmp_path / "merges.txt")
        assert ours.merges[-1] == last, how
        assert len(ours.merges) == len(body.splitlines()), how
        assert [ours(text)["input_ids"] for text in TEXTS] == wanted(folder.name)["ids"], how


def test_merges_whose_first_token_is_a_number_sign(tmp_path: Path) -> None:
    """Only the header is one: "# #" is a merge."""
    ids = json.loads((GOLDEN / "gpt2-slow-plain" / "vocab.json").read_text(encoding="utf-8"))
    ids |= {"##": len(ids), "#!": len(ids) + 1}
    (tmp_path / "merges.txt").write_text("# #\n# !")
    for merges in (["# #", "# !"], tmp_path / "merges.txt"):
        assert GPT2Tokenizer(ids, merges).tokenize("###!") == ["##", "#!"]


def test_auto_tokenizer_knows_the_family() -> None:
    for vocabulary, (family, folder) in VOCABULARIES.items():
        if folder.is_dir():
            assert type(AutoTokenizer.from_pretrained(folder)) is type(pair(vocabulary).ours), vocabulary
            assert CLASSES[family] == type(pair(vocabulary).ours).__name__
    assert END in AutoTokenizer.from_pretrained(GOLDEN / "gpt2-fast-plain").vocab
