"""Where a line was drawn between a fault and an oddity: both sides of it, and the command as a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gptzoo_conversion import FORMATS, convert, open_foreign
from tests import checkpoints
from tests.conversion import GOLDEN, assert_same_bits, numbers, truth
from tests.falsify import (
    CONFIG,
    LFS_POINTER,
    WEB_PAGE,
    WEIGHTS,
    Case,
    Falsify,
    assert_one_line,
    both,
    copied,
    listed,
    refused,
    replaced,
    run,
    with_bytes,
    with_config,
    with_header,
    with_json,
    with_tensors,
)
from tests.test_convert_bad_config import CASES, FAULTY_TOKENIZERS, IDS, token_files
from tests.test_convert_bad_keras import FALSE as KERAS
from tests.test_convert_bad_numbers import FALSE as NUMBERS
from tests.test_convert_bad_pytorch import FALSE as PYTORCH
from tests.test_convert_bad_pytorch import FALSE_NANOGPT
from tests.test_convert_bad_safetensors import INDEX, LN, ONE_FILE, SHARDED, SHARDS, WTE, header

# The config of a checkpoint that does not say how many heads it has.
TRUE_CONFIGS = {"openai-gpt": GOLDEN / "torch-gpt-lm" / CONFIG}
BIN, HUB = "pytorch_model.bin", "torch-gpt2-lm-bin"


def converted(source: Path, target: Path, *options: str) -> str:
    """Converts a checkpoint that must be taken; returns what was printed."""
    code, out, err = run(source, target, *options)
    assert (code, err) == (0, ""), err
    return out


ALL = CASES | FAULTY_TOKENIZERS | ONE_FILE | SHARDED | PYTORCH | FALSE_NANOGPT | KERAS | NUMBERS


@pytest.mark.parametrize("base", sorted({case.base for case in ALL.values()}))
def test_what_the_false_checkpoints_are_copies_of_is_taken(base: str, tmp_path: Path) -> None:
    """So that each is refused for what is false in it."""
    options = ["--config", str(TRUE_CONFIGS[base])] if base in TRUE_CONFIGS else []
    converted(copied(base, tmp_path), tmp_path / "out", *options)
    if " as " not in base:
        assert_same_bits(numbers(open_foreign(tmp_path / "out")), truth(base))


# Taken: what is odd, but has one meaning


def renamed(prefix: str) -> Falsify:
    """Returns what puts the prefix of a wrapper before every name."""
    return with_tensors(lambda held: held.update({prefix + name: held.pop(name) for name in list(held)}))


def masks(held: dict[str, np.ndarray]) -> None:
    for block in (0, 1):
        held[f"transformer.h.{block}.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), "u1"))
        held[f"transformer.h.{block}.attn.masked_bias"] = np.array(-1e4, "f4")


def as_in_the_cache(directory: Path) -> None:
    """Lays files out as huggingface_hub does: links to blobs outside of the directory."""
    blobs = directory.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(directory.iterdir())):
        path.rename(blobs / f"{number:040x}")
        path.symlink_to(f"../blobs/{number:040x}")


def padded(data: bytes) -> bytes:
    """Returns a safetensors file with spaces behind its header, as the format allows."""
    end = 8 + int.from_bytes(data[:8], "little")
    return header(data[8:end] + b" " * 8, data[end:])


def bare(held: dict[str, np.ndarray]) -> None:
    held.update({name.removeprefix("transformer."): held.pop(name) for name in list(held)})


TAKEN: dict[str, tuple[str, Falsify]] = {
    "masks of old": ("torch-gpt2-lm", with_tensors(masks)),
    "prefix _orig_mod.": ("torch-gpt2-lm", renamed("_orig_mod.")),
    "prefix module.": ("torch-gpt2-lm", renamed("module.")),
    "both prefixes": ("torch-gpt2-lm", renamed("module._orig_mod.")),
    "names of the backbone": ("torch-gpt2-lm", with_tensors(bare)),
    "tied head that is stored": (
        "torch-gpt2-lm",
        with_tensors(lambda held: held.update({"lm_head.weight": held[WTE]})),
    ),
    "tied head in place of the embedding": (HUB, lambda directory: None),
    "spaces behind the header": ("torch-gpt2-lm", with_bytes(WEIGHTS, padded)),
    "no metadata": ("torch-gpt2-lm", with_header(lambda head: head.pop("__metadata__"))),
    "links as in the cache": ("torch-gpt2-lm", as_in_the_cache),
    "shards linked as in the cache": ("torch-gpt2-sharded", as_in_the_cache),
    "fields that no one knows": ("torch-gpt2-lm", with_config(my_field={"a": [1, None]}, _name_or_path="../../x")),
    "other files beside": ("torch-gpt2-lm", lambda directory: (directory / "evil.py").write_text("raise SystemExit")),
    "a broken pytorch_model.bin beside": ("torch-gpt2-lm", lambda directory: (directory / BIN).write_bytes(b"\x80")),
    "total_size that is wrong": (
        "torch-gpt2-sharded",
        with_json(INDEX, lambda index: index["metadata"].update(total_size=1)),
    ),
    "total_size that is a text": (
        "torch-gpt2-sharded",
        with_json(INDEX, lambda index: index["metadata"].update(total_size="x")),
    ),
    "index without metadata": ("torch-gpt2-sharded", with_json(INDEX, lambda index: index.pop("metadata"))),
    "shards of other names": (
        "torch-gpt2-sharded",
        both(
            lambda directory: (directory / SHARDS[0]).rename(directory / "a-b_c.1"),
            with_bytes(INDEX, lambda data: data.replace(SHARDS[0].encode(), b"a-b_c.1")),
        ),
    ),
    "slots of an optimizer": ("gpt2simple-run1", lambda directory: None),
    "state of an optimizer": ("nanogpt-bias", lambda directory: None),
    "TensorFlow's graph absent": ("openai-gpt2", lambda directory: (directory / "model.ckpt.meta").unlink()),
    "code in TensorFlow's graph": ("openai-gpt2", with_bytes("model.ckpt.meta", b"\xff" * 99)),
    "Keras' task that is a Lambda": (
        "kerashub-lm",
        with_json("task.json", lambda task: task.update(class_name="Lambda", module="builtins")),
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(case: str, tmp_path: Path) -> None:
    base, change = TAKEN[case]
    directory = copied(base, tmp_path)
    change(directory)
    converted(directory, tmp_path / "out")
    assert_same_bits(numbers(open_foreign(tmp_path / "out")), truth(base))


@pytest.mark.parametrize(
    "place", ["a b", "ünï \U0001f600", "-x", "x" * 200, "line\nend", "%2e%2e", "'\"$(touch canary)"]
)
def test_odd_places(place: str, tmp_path: Path) -> None:
    source = copied("torch-gpt2-lm", tmp_path).rename(tmp_path / f"{place}.src")
    converted(source, tmp_path / place)
    assert_same_bits(numbers(open_foreign(tmp_path / place)), truth("torch-gpt2-lm"))
    (source / WEIGHTS).write_bytes(b"")
    refused(source, "empty file")


def test_tokenizers_that_are_right_are_copied(tmp_path: Path) -> None:
    directory = copied("torch-gpt2-lm", tmp_path)
    token_files(IDS | {"ü": 7})(directory)
    (directory / "special_tokens_map.json").write_text('{"bos_token": "<|endoftext|>"}')
    converted(directory, tmp_path / "out")
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (directory / name).read_bytes()


# Numbers that are none


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"gpt1_npy", "llmc"}))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_numbers(format: str, value: float, tmp_path: Path) -> None:
    """Refused by name and index; bit for bit the same where that is asked for."""
    activation = "gelu" if format == "nanogpt" else "gelu_new"
    config = checkpoints.tiny(activation_function=activation, architectures=["GPT2LMHeadModel"])
    held = checkpoints.arrays(config, "LMHeadModel")
    held["transformer.h.1.attn.c_proj.weight"][5, 2] = value
    source = checkpoints.store(tmp_path / "src", held, config)
    convert(source, tmp_path / "foreign", format, allow_nonfinite=True)
    refused(tmp_path / "foreign", "[5, 2]", "expected finite numbers (--allow-nonfinite takes them as they are)")
    converted(tmp_path / "foreign", tmp_path / "out", "--allow-nonfinite")
    wanted = {name.removeprefix("transformer."): array for name, array in held.items()}
    assert_same_bits(numbers(open_foreign(tmp_path / "out")), wanted)


# Which of two is meant


@pytest.mark.parametrize(
    "falsify",
    [
        with_bytes(WEIGHTS, lambda data: data[:-1]),
        with_bytes(WEIGHTS, LFS_POINTER),
        with_tensors(lambda held: held.pop(LN)),
        with_tensors(lambda held: held[LN].__setitem__(0, np.nan)),
        replaced(WEIGHTS, lambda path: path.symlink_to("nowhere")),
        replaced(WEIGHTS, os.mkfifo),
        replaced(WEIGHTS, lambda path: path.with_name(INDEX).write_text("{}")),
    ],
    ids=["cut", "git-lfs pointer", "missing tensor", "NaN", "dangling link", "pipe", "index"],
)
def test_no_other_file_is_read_for_a_broken_one(falsify: Falsify, tmp_path: Path) -> None:
    directory = copied("torch-gpt2-lm", tmp_path)
    shutil.copy(GOLDEN / HUB / BIN, directory)
    falsify(directory)
    message = refused(directory, WEIGHTS)
    assert BIN not in message


# Heads that no one counted


def gpt1(place: Path, width: int, heads: int) -> Path:
    """Writes OpenAI's own layout of a random GPT, which says nothing of its heads."""
    config = checkpoints.tiny("openai-gpt", n_embd=width, n_head=heads)
    checkpoints.store(place / "gpt", checkpoints.arrays(config, "LMHeadModel"), config)
    convert(place / "gpt", place / "src", "gpt1_npy")
    (place / "src" / CONFIG).unlink()
    return place / "src"


def test_heads_of_64_are_assumed_and_said(tmp_path: Path) -> None:
    out = converted(gpt1(tmp_path, 128, 4), tmp_path / "out")
    assert "n_head is not said: 2 heads of 64 are assumed" in out
    assert open_foreign(tmp_path / "out").config.n_head == 2
    converted(tmp_path / "src", tmp_path / "four", "--config", str(tmp_path / "gpt" / CONFIG))
    assert open_foreign(tmp_path / "four").config.n_head == 4


def test_heads_of_no_known_width_are_asked_for(tmp_path: Path) -> None:
    source = gpt1(tmp_path, 12, 3)
    refused(source, "n_head is not said", "give a config (--config FILE, or config=)")
    converted(source, tmp_path / "out", "--config", str(tmp_path / "gpt" / CONFIG))


# Downloads that never were


@pytest.mark.parametrize("as_file", [False, True], ids=["directory", "file"])
@pytest.mark.parametrize(("data", "words"), [(LFS_POINTER, "git-lfs pointer"), (WEB_PAGE, "web page")])
@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"orbax"}))
def test_stand_ins_are_named(format: str, data: bytes, words: str, as_file: bool, tmp_path: Path) -> None:
    """Under the usual file name of each format."""
    directory = tmp_path / "src"
    directory.mkdir()
    shutil.copy(GOLDEN / "torch-gpt2-lm" / CONFIG, directory)
    name = FORMATS[format].file
    (directory / name).write_bytes(data)
    refused(directory / name if as_file else directory, name, f"this is a {words}", place=tmp_path)


# The command as a process

PROCESSES = {
    **{name: CASES[f"torch-gpt2-lm: {name}"] for name in ("n_layer 10**9", "control characters", "pipe")},
    **{name: ONE_FILE[f"torch-gpt2-lm: {name}"] for name in ("git-lfs pointer", "device", "NaN", "tied and different")},
    **{name: SHARDED[f"torch-gpt2-sharded: {name}"] for name in ("leads to parent", "shard absent")},
    **{name: PYTORCH[f"torch-gpt2-lm-bin: {name}"] for name in ("bytearray_bomb", "bomb", "4 TiB of strides 0")},
    **{name: KERAS[f"tf-gpt2-lm: {name}"] for name in ("external storage", "never written")},
    **{name: NUMBERS[f"openai-gpt2: {name}"] for name in ("state leads out", "bit of the numbers flipped")},
    "tokenizer": FAULTY_TOKENIZERS["torch-gpt2-lm: regular expression"],
}


@pytest.mark.parametrize("case", PROCESSES.values(), ids=PROCESSES)
def test_process(case: Case, tmp_path: Path) -> None:
    directory = copied(case.base, tmp_path)
    case.falsify(directory)
    before = listed(tmp_path)
    command = [sys.executable, "-m", "gptzoo.cli", "convert", str(directory), str(tmp_path / "out")]
    done = subprocess.run([*command, "--to", "safetensors"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr, *case.words.split("*"))
    assert listed(tmp_path) == before


def test_tokens_that_the_model_does_not_have(tmp_path: Path) -> None:
    """GGUF holds one token for each row of the embedding: those beyond would go without a word."""
    place = copied("openai-gpt2", tmp_path / "in")
    with_json("encoder.json", lambda ids: ids.update(extra=500))(place)
    refused(place, "vocab.json", "extra has id 500", "below vocab_size 40", options=("--to", "gguf"))


def test_weight_that_is_no_tensor(tmp_path: Path) -> None:
    import torch

    place = copied(HUB, tmp_path / "in")
    held = torch.load(place / BIN)
    torch.save(held | {"transformer.wte.weight": 5}, place / BIN)
    refused(place, BIN, "transformer.wte.weight: 5", "expected a tensor")


def test_what_is_not_read_may_be_broken(tmp_path: Path) -> None:
    place = copied("torch-gpt2-lm", tmp_path / "in")
    for name in ("model.weights.h5", "checkpoint", "ckpt.pt"):
        (place / name).write_bytes(b"\x89HDF\r\n\x1a\nbroken")
    converted(place, tmp_path / "out")
    assert_same_bits(numbers(open_foreign(tmp_path / "out")), truth("torch-gpt2-lm"))


def test_unfinished_orbax(tmp_path: Path) -> None:
    convert(GOLDEN / "torch-gpt2-lm", tmp_path / "in", "orbax")
    (tmp_path / "in" / "state").rename(tmp_path / "in" / "state.orbax-checkpoint-tmp-7")
    refused(tmp_path / "in", "state.orbax-checkpoint-tmp-7", "not finished")


@pytest.mark.parametrize("nest", ["state_dict", "model"])
def test_weights_beside_the_state_of_training(nest: str, tmp_path: Path) -> None:
    """As training scripts save them; what is neither weight nor training is not passed over."""
    import torch

    place = copied(HUB, tmp_path / "in")
    held = torch.load(place / BIN)
    state = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "epoch": 7}
    torch.save({nest: held, **state}, place / BIN)
    converted(place, tmp_path / "out")
    assert_same_bits(numbers(open_foreign(tmp_path / "out")), truth(HUB))
    torch.save({nest: held, "ema": {"x": torch.zeros(3)}}, place / BIN)
    refused(place, BIN, "unexpected ema/x")
