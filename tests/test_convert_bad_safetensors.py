"""A false model.safetensors, and an index that lies, are refused by name."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.falsify import (
    LFS_POINTER,
    WEB_PAGE,
    WEIGHTS,
    Case,
    Falsify,
    both,
    cases,
    no_files,
    replaced,
    with_bytes,
    with_header,
    with_json,
    with_tensors,
    without,
)

WTE, LN = "transformer.wte.weight", "transformer.ln_f.weight"
QKV = "transformer.h.1.attn.c_attn.weight"


def entry(words: str, name: str = WTE, **changes: Any) -> tuple[Falsify, str]:
    return with_header(lambda header: header[name].update(changes)), f"{WEIGHTS}: {name}: {words}"


def raw(data: bytes | Callable[[bytes], bytes], words: str) -> tuple[Falsify, str]:
    return with_bytes(WEIGHTS, data), f"{WEIGHTS}: *{words}"


def header(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


def again(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Returns what changes the text of a header."""

    def changed(data: bytes) -> bytes:
        end = 8 + int.from_bytes(data[:8], "little")
        return header(change(data[8:end]), data[end:])

    return changed


def length(value: int) -> Callable[[bytes], bytes]:
    return lambda data: struct.pack("<Q", value) + data[8:]


def tensors(change: Callable[[dict[str, np.ndarray]], object], words: str) -> tuple[Falsify, str]:
    return with_tensors(change), words


def set_number(name: str, place: tuple[int, ...], value: float) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda held: held[name].__setitem__(place, value)


FILES: dict[str, tuple[Falsify, str]] = {
    "empty": raw(b"", "empty file"),
    "seven bytes": raw(b"\0" * 7, "not safetensors, or cut off"),
    "git-lfs pointer": raw(LFS_POINTER, "this is a git-lfs pointer, not the weights (run: git lfs pull)"),
    "web page": raw(WEB_PAGE, "this is a web page"),
    "JSON": raw(b'{"error": "not found"}', "this is JSON"),
    "zip archive": raw(b"PK\x03\x04" + bytes(60), "this is a zip archive"),
    "pickle": raw(pickle.dumps({"a": 1}, 2) + bytes(60), "this is a pickle"),
    "HDF5": raw(b"\x89HDF\r\n\x1a\n" + bytes(60), "this is an HDF5 file"),
    "GGUF": raw(b"GGUF" + bytes(60), "this is a GGUF file"),
    "header of 2**63": raw(length(2**63), "header of 9223372036854775808 bytes"),
    "header of 2**64-1": raw(length(2**64 - 1), "header of 18446744073709551615 bytes"),
    "header of 0": raw(length(0), "header begins with"),
    "header longer than the file": raw(length(20_000), "header of 20000 bytes, expected at most"),
    "header shorter than it is": raw(length(100), "not valid JSON"),
    "header of 17 MiB": raw(header(b"{" + b" " * 17 * 2**20 + b"}"), "header of 17825794 bytes"),
    "header not UTF-8": raw(header(b'{"\xff": 1}'), "not UTF-8"),
    "header a list": raw(header(b"[]"), "header begins with"),
    "header deep": raw(header(b'{"a":' * 9999), "nested too deeply"),
    "leading space": raw(again(lambda text: b" " + text), "header begins with"),
    "no tensors": raw(header(b"{}"), ""),
    "name twice": raw(again(lambda text: text[:-1].rstrip(b"} ") + b'},"a":{},"a":{}}'), "key 'a' stands twice"),
    "NaN in the header": raw(again(lambda text: text.replace(b"[0,", b"[NaN,", 1)), "NaN is not a JSON number"),
    "100,001 tensors": raw(header(json.dumps({str(i): {} for i in range(100_001)}).encode()), "100001 tensors"),
    "cut by a byte": raw(lambda data: data[:-1], "(cut off)"),
    "cut by half": raw(lambda data: data[: len(data) // 2], "(cut off)"),
    "a byte too many": raw(lambda data: data + b"\0", "bytes of data, expected"),
    "40 GB of zeros behind": (
        lambda directory: os.truncate(directory / WEIGHTS, 40 * 10**9),
        "bytes of data, expected",
    ),
    "absent": (without(WEIGHTS), "src: no weights in a known format"),
    "dangling link": (replaced(WEIGHTS, lambda path: path.symlink_to("nowhere")), f"{WEIGHTS}: No such file"),
    "a link to itself": (replaced(WEIGHTS, lambda path: path.symlink_to(path.name)), f"{WEIGHTS}: *symbolic links"),
} | no_files(WEIGHTS)

ENTRIES: dict[str, tuple[Falsify, str]] = {
    "begin + 4": (
        with_header(lambda h: h[WTE].update(data_offsets=[h[WTE]["data_offsets"][0] + 4, h[WTE]["data_offsets"][1]])),
        f"{WTE}: data_offsets",
    ),
    "offsets swapped": (with_header(lambda h: h[WTE]["data_offsets"].reverse()), f"{WTE}: data_offsets"),
    "offsets of 2**62": entry("data_offsets", data_offsets=[2**62, 2**62 + 1920]),
    "offsets -1": entry("data_offsets", data_offsets=[-1, 1919]),
    "offsets 2.5": entry("data_offsets", data_offsets=[0.5, 1920.5]),
    "one offset": entry("data_offsets", data_offsets=[0]),
    "overlap": (
        with_header(lambda h: h[LN].update(data_offsets=h["transformer.ln_f.bias"]["data_offsets"])),
        "(a gap or an overlap)",
    ),
    "a gap": (with_header(lambda h: h.pop(QKV)), "(a gap or an overlap)"),
    "shape smaller": entry("data_offsets", shape=[40, 11]),
    "shape of another rank": (
        with_header(lambda h: h[WTE].update(shape=[480])),
        f"{WTE}: shape (480,), expected (40, 12)",
    ),
    "shape transposed": (
        with_header(lambda h: h[WTE].update(shape=[12, 40])),
        f"{WTE}: shape (12, 40), expected (40, 12)*looks transposed",
    ),
    "shape -1": entry("shape", shape=[-1, 12]),
    "shape true": entry("shape", shape=[True, 480]),
    "shape 2**62 by 0": entry("", shape=[2**62, 0], data_offsets=[0, 0]),
    "shape that wraps": entry("data_offsets", shape=[2**32, 2**32]),
    "shape no list": entry("shape", shape=480),
    "rank 9": entry("shape", shape=[40, 12, 1, 1, 1, 1, 1, 1, 1]),
    "dtype wider": entry("data_offsets", dtype="F64"),
    "dtype unknown": entry("dtype Q4_0", dtype="Q4_0"),
    "dtype list": entry("dtype", dtype=["F32"]),
    "dtype integers": (with_header(lambda h: h[WTE].update(dtype="I32")), f"{WTE}: dtype int32"),
    "dtype 8 bits": (with_header(lambda h: h[WTE].update(dtype="F8_E4M3", shape=[160, 12])), f"{WTE}: dtype float8"),
    "entry a number": (with_header(lambda h: h.update({WTE: 3})), f"{WTE}: 3, expected"),
    "entry of more": entry("", extra=1),
    "metadata a number": (with_header(lambda h: h.update(__metadata__={"format": 5})), "__metadata__"),
    "name of 2,000 bytes": (
        with_header(lambda h: h.update({"x" * 2000: h.pop(WTE)})),
        "a name of more than 1024 bytes",
    ),
    "name of control characters": (
        with_header(lambda h: h.update({"\x1b[2J\n\u202e": h.pop(WTE)})),
        r"'\x1b[2J\n\u202e'",
    ),
    "layout that is not meant": (with_header(lambda h: h.update(__metadata__={"format": "tf"})), f"{WEIGHTS}: *"),
}

TENSORS: dict[str, tuple[Falsify, str]] = {
    "missing": tensors(lambda held: held.pop(LN), f"{WEIGHTS}: missing {LN}"),
    "missing block": tensors(
        lambda held: [held.pop(name) for name in list(held) if ".h.1." in name], "missing all of block 1"
    ),
    "unexpected": tensors(lambda held: held.update(evil=np.ones(2, "f4")), f"{WEIGHTS}: unexpected evil"),
    "of another head": tensors(lambda held: held.update({"score.weight": np.ones((2, 12), "f4")}), f"{WEIGHTS}: score"),
    "twice by two names": tensors(lambda held: held.update({"ln_f.weight": held[LN]}), "ln_f.weight: stored twice"),
    "twice by a wrapper": tensors(
        lambda held: held.update({f"module.{LN}": held[LN]}), f"{WEIGHTS}: {LN}: stored twice, also as module.{LN}"
    ),
    "padded": tensors(lambda held: held.update({WTE: np.ones((48, 12), "f4")}), f"{WTE}: shape (48, 12), expected"),
    "tied and different": tensors(
        lambda held: held.update({"lm_head.weight": held[WTE] + 1}), "lm_head.weight*tie_word_embeddings"
    ),
    "tied and of another shape": tensors(
        lambda held: held.update({"lm_head.weight": held[WTE][:-1]}), "lm_head.weight: shape (39, 12)"
    ),
    "NaN": tensors(set_number(QKV, (3, 5), np.nan), f"{QKV}*[3, 5]*expected finite numbers (--allow-nonfinite"),
    "infinity": tensors(set_number(LN, (11,), -np.inf), f"{LN}*[11]*expected finite numbers"),
}

ONE_FILE = cases("torch-gpt2-lm", FILES | ENTRIES | TENSORS)


@pytest.mark.parametrize("case", ONE_FILE.values(), ids=ONE_FILE)
def test_one_file(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)


# Shards

INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


def weight_map(change: Callable[[dict[str, Any]], object], words: str, index: str = INDEX) -> tuple[Falsify, str]:
    return with_json(index, lambda content: change(content["weight_map"])), f"{index}*{words}"


def secret(directory: Path) -> None:
    """Puts a good shard where no index may lead to."""
    for place in ("_outside", "src/sub"):
        (directory.parent / place).mkdir()
        shutil.copy(directory / SHARDS[0], directory.parent / place / "secret.safetensors")


def led(name: Any, index: str = INDEX) -> tuple[Falsify, str]:
    """Returns an index in which a tensor lies elsewhere, at a place that exists."""
    falsify, words = weight_map(
        lambda held: held.update({WTE: name}), f"weight_map[{WTE}]: *is not a plain file", index
    )
    return (both(falsify, secret) if index == INDEX else falsify), words


def exchanged(directory: Path) -> None:
    for old, new in ((0, "x"), (1, SHARDS[0]), ("x", SHARDS[1])):
        (directory / (SHARDS[old] if isinstance(old, int) else old)).rename(directory / new)


NAMES = {
    "parent": "../_outside/secret.safetensors",
    "parents within": "sub/../../_outside/secret.safetensors",
    "folder": "sub/secret.safetensors",
    "absolute": "/etc/passwd",
    "URL": "https://evil.example/x.safetensors",
    "NUL": "model\0.safetensors",
    "backslash": "..\\_outside\\secret.safetensors",
    "drive": "C:model.safetensors",
    "dots": "..",
    "nothing": "",
    "home": "~/secret.safetensors",
    "number": 5,
    "list": ["model-00001-of-00003.safetensors"],
    "control characters": "\x1b[2J",
}
INDEXES: dict[str, tuple[Falsify, str]] = (
    {f"leads to {name}": led(value) for name, value in NAMES.items()}
    | {
        "no map": (with_json(INDEX, lambda content: content.pop("weight_map")), f"{INDEX}: weight_map: None"),
        "map a list": (with_json(INDEX, lambda content: content.update(weight_map=[])), f"{INDEX}: weight_map: []"),
        "map empty": (with_json(INDEX, lambda content: content.update(weight_map={})), f"{INDEX}: weight_map: {{}}"),
        "cut": (with_bytes(INDEX, lambda data: data[:99]), f"{INDEX}: not valid JSON"),
        "git-lfs pointer": (with_bytes(INDEX, LFS_POINTER), f"{INDEX}: this is a git-lfs pointer"),
        "web page": (with_bytes(INDEX, WEB_PAGE), f"{INDEX}: this is a web page"),
        "deep": (with_bytes(INDEX, b"[" * 100_000), f"{INDEX}: nested too deeply"),
        "65 MiB": (lambda directory: os.truncate(directory / INDEX, 65 * 2**20), f"{INDEX}: 68157440 bytes, expected"),
        "tensor twice": (
            with_bytes(
                INDEX, lambda data: data.replace(b'"weight_map": {', b'"weight_map": {"%s": "x",' % WTE.encode())
            ),
            f"{INDEX}: *key '{WTE}' stands twice",
        ),
        "names an absent shard": weight_map(
            lambda held: held.update({WTE: "nowhere.safetensors"}), "nowhere.safetensors: "
        ),
        "tensor in another shard": weight_map(
            lambda held: held.update({WTE: SHARDS[2]}),
            f"{SHARDS[0]}: holds {WTE}, which the index does not say*{SHARDS[2]}: no {WTE}",
        ),
        "tensor not said": weight_map(
            lambda held: held.pop(WTE), f"{SHARDS[0]}: holds {WTE}, which the index does not say"
        ),
        "tensor that is not there": weight_map(
            lambda held: held.update(evil=SHARDS[1]), f"{SHARDS[1]}: no evil, which the index says is there"
        ),
        "shard absent": (without(SHARDS[1]), f"{INDEX}: *{SHARDS[1]}: No such file"),
        "shard cut": (with_bytes(SHARDS[1], lambda data: data[:-5]), f"{INDEX}: *{SHARDS[1]}: *(cut off)"),
        "shard empty": (with_bytes(SHARDS[1], b""), f"{SHARDS[1]}: empty file"),
        "shard a git-lfs pointer": (with_bytes(SHARDS[1], LFS_POINTER), f"{SHARDS[1]}: this is a git-lfs pointer"),
        "shard a web page": (with_bytes(SHARDS[1], WEB_PAGE), f"{SHARDS[1]}: this is a web page"),
        "shards exchanged": (
            exchanged,
            f"{INDEX}*{SHARDS[0]}: no transformer.h.0.ln_1.bias, which the index says is there",
        ),
        "tensor in two shards": (
            with_tensors(lambda held: held.update({WTE: np.ones((40, 12), "f4")}), SHARDS[2]),
            f"{SHARDS[2]}: holds {WTE}, which the index does not say",
        ),
        "a whole file beside it": (
            lambda directory: shutil.copy(directory / SHARDS[0], directory / WEIGHTS),
            f"src: holds both {WEIGHTS} and {INDEX}",
        ),
        "dangling link": (replaced(INDEX, lambda path: path.symlink_to("nowhere")), f"{INDEX}: no such file"),
    }
    | {f"shard a {name}": case for name, case in no_files(SHARDS[1]).items()}
)

BIN_INDEX = "pytorch_model.bin.index.json"
BIN_SHARD = "pytorch_model-00002-of-00003.bin"
BIN_INDEXES = {f"leads to {name}": led(value, BIN_INDEX) for name, value in NAMES.items() if name != "number"} | {
    "shard absent": (without(BIN_SHARD), f"{BIN_SHARD}: No such file"),
    "shard cut": (with_bytes(BIN_SHARD, lambda data: data[:-5]), f"{BIN_SHARD}: "),
}
H5_INDEX, H5_WTE = "tf_model.h5.index.json", "wte"
OTHER_INDEXES = cases(
    "tf-gpt2-sharded",
    {
        "leads out": (
            with_json(H5_INDEX, lambda c: c["weight_map"].update(dict.fromkeys(c["weight_map"], "../x.h5"))),
            f"{H5_INDEX}*../x.h5 is not a plain file name",
        ),
        "shard absent": (without("tf_model-00002-of-00003.h5"), "tf_model-00002-of-00003.h5: No such file"),
    },
) | cases(
    "flax-gpt2-sharded",
    {
        "leads out": (
            with_json("flax_model.msgpack.index.json", lambda c: c["weight_map"].update(evil="../x.msgpack")),
            "flax_model.msgpack.index.json: weight_map[evil]: ../x.msgpack is not a plain file name",
        ),
        "shard cut": (
            with_bytes("flax_model-00002-of-00003.msgpack", lambda data: data[:-5]),
            "flax_model-00002-of-00003.msgpack: ",
        ),
    },
)
SHARDED = cases("torch-gpt2-sharded", INDEXES) | cases("torch-gpt2-sharded-bin", BIN_INDEXES) | OTHER_INDEXES


@pytest.mark.parametrize("case", SHARDED.values(), ids=SHARDED)
def test_shards(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)
