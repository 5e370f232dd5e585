"""Broken and hostile shard indices, directories and config.json files, files that change, and mutants of all."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save

from gptzoo.checkpoint import open_checkpoint, plan_load, save_checkpoint
from gptzoo.errors import CheckpointError, ConfigError, GPTZooError
from tests.checkpoints import (
    INDEX,
    LM,
    WEIGHTS,
    join,
    lm_tensors,
    load,
    outcome,
    refusal,
    split,
)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "good", LM, "LMHeadModel", lm_tensors())
    return tmp_path / "good"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "sharded", LM, "LMHeadModel", lm_tensors(), max_shard_size="5KB")
    return tmp_path / "sharded"


# The shard index


SECOND = "model-00002-of-00002.safetensors"
WTE = "transformer.wte.weight"
FILE_NAMES = [
    "../good/model.safetensors",
    "..",
    ".",
    "",
    "/etc/passwd",
    "sub/x.safetensors",
    "a\\b",
    "C:x",
    "a\0b",
    "a\nb",
]
FILE_NAMES += ["http://example.com/x", "~", "model.safetensors ", "ä", "\uff0e\uff0e"]


@pytest.mark.parametrize("name", [*FILE_NAMES, None, 1, ["x"], {"x": 1}])
def test_index_that_points_elsewhere(name: Any, good: Path, sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"][WTE] = name
    (sharded / INDEX).write_text(json.dumps(index))
    message = refusal(sharded, rf"index\.json: weight_map\[{WTE}\]: ", "is not a plain file name")
    assert len(message.splitlines()) == 1


def _edit_map(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        index = json.loads((path / INDEX).read_text())
        change(index["weight_map"])
        (path / INDEX).write_text(json.dumps(index))

    return edit


def _swap(path: Path) -> None:
    first, second = (path / SECOND.replace("2-of", f"{i}-of") for i in (1, 2))
    (path / "third").write_bytes(first.read_bytes())
    first.write_bytes(second.read_bytes())
    second.write_bytes((path / "third").read_bytes())


def _repeat(path: Path) -> None:
    held = load_bytes((path / SECOND).read_bytes())
    (path / SECOND).write_bytes(save(held | {WTE: lm_tensors()[WTE]}, {"format": "pt"}))


def _replace_by(make: Callable[[Path], Any], name: str) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        (path / name).unlink()
        make(path / name)

    return replace


KINDS: dict[str, Callable[[Path], Any]] = {
    "a directory": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket's link to itself": lambda path: path.symlink_to(path.name),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
}
SHARDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "shard is absent": (lambda path: (path / SECOND).unlink(), rf"{SECOND}: No such file or directory"),
    "tensor is not in its shard": (
        _edit_map(lambda m: m.update({WTE: SECOND})),
        rf"{SECOND}: no {WTE}, which the index",
    ),
    "tensor is in no shard": (_edit_map(lambda m: m.update(x=SECOND)), rf"{SECOND}: no x, which the index"),
    "tensor is not in the index": (_edit_map(lambda m: m.pop(WTE)), rf"holds {WTE}, which the index does not say"),
    "shards are swapped": (_swap, r"\(56 problems\)"),
    "tensor is in two shards": (_repeat, rf"{SECOND}: holds {WTE}, which the index does not say"),
    "shard is of another format": (
        _edit_map(lambda m: m.update({WTE: "config.json"})),
        r"config\.json: this is JSON text",
    ),
    "index is empty": (lambda path: (path / INDEX).write_text("{}"), "weight_map: None, expected a map"),
    "map is empty": (lambda path: (path / INDEX).write_text('{"weight_map": {}}'), "expected a map"),
    "map is a list": (lambda path: (path / INDEX).write_text('{"weight_map": ["x"]}'), "expected a map"),
    "map says a key twice": (
        lambda path: (path / INDEX).write_text('{"weight_map": {"a": "x", "a": "y"}}'),
        "key 'a' stands twice",
    ),
    "index is cut": (lambda path: (path / INDEX).write_text((path / INDEX).read_text()[:-9]), "not valid JSON"),
    "both kinds": (lambda path: (path / WEIGHTS).write_bytes(save(lm_tensors())), "holds both model.safetensors and"),
    **{f"shard is {kind}": (_replace_by(make, SECOND), rf"{SECOND}: ") for kind, make in KINDS.items()},
    **{f"index is {kind}": (_replace_by(make, INDEX), "index") for kind, make in KINDS.items() if "link" not in kind},
}


@pytest.mark.parametrize("case", SHARDS)
def test_shards_that_do_not_fit_together(case: str, sharded: Path) -> None:
    change, fault = SHARDS[case]
    change(sharded)
    refusal(sharded, fault, r"model\.safetensors\.index\.json")


def test_every_bad_shard_is_named(sharded: Path) -> None:
    for path in sharded.glob("*.safetensors"):
        path.write_bytes(b"")
    assert refusal(sharded).count("empty file") == 2


def test_wrong_totals_of_the_index_do_not_matter(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text()) | {"metadata": {"total_size": -1}}
    (sharded / INDEX).write_text(json.dumps(index))
    assert len(load(sharded)) == 28


# Directories, links, files that change


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_file_that_is_no_file(name: str, kind: str, good: Path) -> None:
    (good / name).unlink()
    KINDS[kind](good / name)
    with pytest.raises(GPTZooError, match=re.escape(name)):
        load(good)


def test_links_to_files_are_followed(good: Path) -> None:
    (good / "blobs").mkdir()
    for name in (WEIGHTS, "config.json"):
        (good / name).rename(good / "blobs" / name)
        (good / name).symlink_to(Path("blobs") / name)
    assert len(load(good)) == 28


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack", "model.ckpt.index"],
)
def test_files_of_other_formats_are_named(name: str, good: Path) -> None:
    (good / WEIGHTS).rename(good / name)
    refusal(good, re.escape(name.removesuffix(".index.json")))
    (good / WEIGHTS).write_bytes(b"broken")  # never a reason to fall back
    (good / name).write_bytes(b"x")
    (good / "config.json").write_text(LM.to_json_string())
    refusal(good, r"model\.safetensors: not safetensors")


def test_directories_that_are_none(good: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refusal(tmp_path / "absent", "no such file or directory")
    refusal(tmp_path / "empty", "no weights in a known format .looked for model.safetensors, ")
    assert len(load(good / WEIGHTS)) == 28
    refusal(good / "config.json" / "x", "config.json/x")
    refusal(Path("x" * 5000), "not a usable path")
    assert isinstance(outcome(lambda: load(Path("nul\0byte"))), CheckpointError)
    (good / "config.json").unlink()
    refusal(good, r"config\.json: no such file", error=ConfigError)


def test_home_of_nobody() -> None:
    refusal(Path("~nobody-of-this-name/model"), "nobody-of-this-name")


CHANGES: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: os.truncate(path, 5000),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "replaced": lambda path: (path.with_name("x").write_bytes(path.read_bytes()), path.with_name("x").replace(path)),
    "rewritten": lambda path: (time.sleep(0.02), path.write_bytes(path.read_bytes())),
    "removed": lambda path: path.unlink(),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("case", CHANGES)
def test_file_that_changes_after_it_was_opened(case: str, good: Path) -> None:
    checkpoint = open_checkpoint(good)
    values = plan_load(checkpoint, checkpoint.config, "LMHeadModel").values()
    next(values)
    CHANGES[case](good / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: (changed since|No such file|not a regular file)"):
        next(values)


def test_memory_that_is_not_there(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(good)

    def empty(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not enough memory"):
        checkpoint.read(WTE)


# config.json

TEXT = LM.to_json_string()
CONFIGS_BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "cut": (TEXT[:-9].encode(), "not valid JSON"),
    "two": ((TEXT * 2).encode(), "not valid JSON"),
    "UTF-16": (TEXT.encode("utf-16"), "not UTF-8"),
    "not UTF-8": (TEXT.encode().replace(b"gpt2", b"gpt\xff"), "not UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf" + TEXT.encode(), "not valid JSON"),
    "list": (b"[]", "holds a JSON list, expected an object"),
    "null": (b"null", "expected an object"),
    "text": (b'"gpt2"', "expected an object"),
    "key twice": (TEXT.replace("{", '{"n_head": 2,', 1).encode(), "key 'n_head' stands twice"),
    "NaN": (TEXT.replace("0.02", "NaN").encode(), "NaN is not a JSON number"),
    "infinite": (TEXT.replace("0.02", "Infinity").encode(), "Infinity is not a JSON number"),
    "too large a number": (TEXT.replace("0.02", "1e999").encode(), "initializer_range: inf"),
    "10,000 digits": (TEXT.replace("0.02", "9" * 10_000).encode(), "not valid JSON"),
    "4,000 digits": (TEXT.replace('"n_layer": 2', f'"n_layer": {"9" * 4000}').encode(), r"n_layer: 9+\.\.\., expected"),
    "deep": (b'{"a":' + b"[" * 100_000, "nested"),
    "deep but whole": (TEXT.replace("{", '{"a": ' + "[" * 500 + "]" * 500 + ",", 1).encode(), "nested"),
    "too large": (TEXT.encode() + b" " * 2**20, "bytes, expected at most 1048576"),
    "no model_type": (b"{}", "model_type: None, expected one of gpt2, openai-gpt"),
    "another family": (TEXT.replace('"gpt2"', '"bert"').encode(), "model_type: 'bert', expected one of"),
    "true layers": (TEXT.replace('"n_layer": 2', '"n_layer": true').encode(), "n_layer: True, expected an integer"),
    "no layers": (TEXT.replace('"n_layer": 2', '"n_layer": 0').encode(), "n_layer: 0, expected an integer from 1"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer, not JSON"),
}


@pytest.mark.parametrize("case", CONFIGS_BAD)
def test_config_that_is_broken(case: str, good: Path) -> None:
    data, fault = CONFIGS_BAD[case]
    (good / "config.json").write_bytes(data)
    message = refusal(good, r"config\.json: ", fault, error=ConfigError)
    assert len(message.splitlines()) == 1


def test_config_of_the_other_family(good: Path) -> None:
    (good / "config.json").write_text(TEXT.replace('"gpt2"', '"openai-gpt"').replace("activation_function", "afn"))
    refusal(
        good, r"unexpected transformer\.wte\.weight \(a weight of gpt2\)", r"missing transformer\.tokens_embed\.weight"
    )
    checkpoint = open_checkpoint(good)
    with pytest.raises(CheckpointError, match=r"config\.json: model_type: openai-gpt, expected gpt2"):
        plan_load(checkpoint, LM, "LMHeadModel")


# Mutants


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    mutant = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, kind = rng.randrange(len(mutant)), rng.randrange(5)
        if kind == 0:
            mutant[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            mutant[at] = rng.randrange(256)
        elif kind == 2:
            del mutant[at : at + rng.randrange(1, 20)]
        elif kind == 3:
            mutant[at:at] = rng.choice(
                (b"0", b"-1", b"[", b'"', b"}", b"9" * 30, b"\0", b"NaN", b"null", b"1e9", b"../")
            )
        else:
            mutant[at : at + 8] = struct.pack("<Q", rng.choice((0, 1, 2**31, 2**32, 2**63, 2**64 - 1)))
        if not mutant:
            break
    return bytes(mutant)


ODD = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    2**64,
    1e400,
    -0.5,
    "",
    "x",
    "F64",
    [],
    [0],
    [[0]],
    {},
    {"a": 1},
    "../x",
    "\ud800",
]


def _mutate_json(value: Any, rng: random.Random) -> Any:
    """Replaces, removes or renames one thing somewhere in a JSON value."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.2:
        return rng.choice(ODD)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return [*value[:at], _mutate_json(value[at], rng), *value[at + 1 :]]
    key, other = rng.choice(list(value)), rng.choice(list(value))
    changed = dict(value)
    kind = rng.randrange(4)
    if kind == 0:
        changed[rng.choice(("x", other, key + ".", ""))] = changed.pop(key)
    elif kind == 1:
        changed[key] = value[other]
    else:
        changed[key] = _mutate_json(value[key], rng)
    return changed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("file", ["config.json", WEIGHTS, INDEX, "model-00001-of-00002.safetensors"])
def test_mutants_raise_nothing_else(file: str, seed: int, good: Path, sharded: Path) -> None:
    directory = sharded if "000" in file or file == INDEX else good
    original = (directory / file).read_bytes()
    rng = random.Random(f"{file} {seed}")
    accepted = 0
    for _ in range(60):
        if rng.random() < 0.5:
            mutant = _mutate_bytes(original[:3000] if rng.random() < 0.1 else original, rng)
        elif file.endswith(".json"):
            mutant = json.dumps(_mutate_json(json.loads(original), rng)).encode()
        else:
            header, data = split(original)
            mutant = join(_mutate_json(header, rng), data)
        (directory / file).write_bytes(mutant)
        found = outcome(lambda: load(directory))
        if isinstance(found, GPTZooError):
            assert type(found) in (CheckpointError, ConfigError)
            assert all(line.isprintable() for line in str(found).splitlines())
        else:
            accepted += 1
            assert {name: x.shape for name, x in found.items()} == {name: x.shape for name, x in lm_tensors().items()}
    assert accepted < 50
