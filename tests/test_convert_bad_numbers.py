"""False checkpoints of Flax, OpenAI, llama.cpp and Orbax are refused by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo_conversion.containers._sstable import read_table, write_table
from tests import test_container_flax_msgpack as flax
from tests import test_container_gguf as gguf
from tests import test_container_npy_shards as npy
from tests import test_container_tf_bundle as tf
from tests.falsify import (
    CONFIG,
    LFS_POINTER,
    WEB_PAGE,
    Case,
    Falsify,
    cases,
    no_files,
    replaced,
    with_bytes,
    with_config,
    with_json,
    without,
)

Table = dict[str, tuple[Falsify, str]]


def files(name: str, contents: dict[str, tuple[bytes, str]]) -> Table:
    """Returns what puts other files, made by hand for the tests of a container, in the place of one."""
    return {case: (with_bytes(name, data), f"{name}*{words}") for case, (data, words) in contents.items()}


def stand_ins(name: str) -> Table:
    """Returns what may be in the place of a file that was not downloaded, and what is no file."""
    return {
        "git-lfs pointer to it": (with_bytes(name, LFS_POINTER), f"{name}: this is a git-lfs pointer"),
        "web page": (with_bytes(name, WEB_PAGE), f"{name}: this is a web page"),
        "dangling link": (replaced(name, lambda path: path.symlink_to("nowhere")), f"{name}: No such file"),
    } | no_files(name)


def changed(name: str, change: Callable[[bytes], bytes], words: str) -> tuple[Falsify, str]:
    return with_bytes(name, change), f"{name}: *{words}"


# Flax

MSGPACK = "flax_model.msgpack"
FLAX: Table = stand_ins(MSGPACK) | {
    "cut by a byte": changed(MSGPACK, lambda data: data[:-1], "expected at most"),
    "cut by half": changed(MSGPACK, lambda data: data[: len(data) // 2], ""),
    "a byte behind": changed(MSGPACK, lambda data: data + b"\0", "1 bytes after the end"),
    "name of another layout": changed(
        MSGPACK, lambda d: d.replace(b"\xa3wte", b"\xa3wtf"), "transformer/wtf/embedding"
    ),
    "shape of another model": changed(
        MSGPACK, lambda d: d.replace(b"\x92\x28\x0c", b"\x92\x0c\x28"), "transformer/wte/emb"
    ),
    "dtype of another width": changed(
        MSGPACK, lambda d: d.replace(b"float32", b"float64"), "transformer/wte/embedding"
    ),
    "a leaf twice": changed(MSGPACK, lambda d: d.replace(b"\xa3wpe", b"\xa3wte"), "transformer: key wte stands twice"),
    "n_layer beyond the file": (with_config(n_layer=3), "missing all of block 2"),
    "n_layer below the file": (with_config(n_layer=1), "there are tensors of block 1"),
}


# OpenAI's GPT-2

PREFIX = "model.ckpt"
INDEX, DATA = f"{PREFIX}.index", f"{PREFIX}.data-00000-of-00001"
WTE = b"model/wte"


def with_row(key: bytes, value: bytes | None) -> Falsify:
    """Returns what changes one entry of the index, whose checksums are then right."""

    def change(data: bytes) -> bytes:
        rows = read_table(data, 1000, 1024) | {key: value}
        return write_table({name: row for name, row in rows.items() if row is not None})

    return with_bytes(INDEX, change)


def row(words: str, dtype: int = 1, dims: Any = (40, 12), **lie: Any) -> tuple[Falsify, str]:
    return with_row(WTE, tf.entry(dtype, dims, **({"size": 1920} | lie))), f"{INDEX}: model/wte: *{words}"


def hparams(words: str, **changes: Any) -> tuple[Falsify, str]:
    return with_json("hparams.json", lambda value: value.update(changes)), f"hparams.json: *{words}"


def state(path: str, words: str = "expected a plain file name") -> tuple[Falsify, str]:
    return with_bytes("checkpoint", f'model_checkpoint_path: "{path}"\n'.encode()), words


TF1: Table = stand_ins(INDEX) | {
    "dtype 999": row("dtype 999", 999),
    "dtype wider": row("size 1920, expected 3840", 2),
    "dtype of texts": (with_row(WTE, tf.entry(7, (40, 12), size=1920)), f"{INDEX}: no embeddings as GPT"),
    "shape -1": row("shape [-1, 12]", dims=(-1, 12)),
    "shape smaller": row("size 1920, expected 1872", dims=(39, 12)),
    "shape that wraps": row("shape [", dims=(2**62, 4, 480)),
    "rank 9": row("9 dimensions", dims=(1,) * 9),
    "size 2**62": row("size 4611686018427387904", size=2**62),
    "offset beyond": row("bytes 99999", offset=99_999),
    "offset -1": row("offset -1", offset=-1),
    "shard 1 of 1": row("shard_id 1", shard=1),
    "slices": row("partitioned variable", extra=tf.sub(7, tf.sub(1, b"\x10\x02"))),
    "absent": (with_row(WTE, None), ""),
    "unexpected": (with_row(b"model/evil", tf.entry(1, (0,), size=0)), "model/evil"),
    "no header": (with_row(b"", None), f"{INDEX}: no header"),
    "2 shards": (with_row(b"", tf.header(2)), f"{INDEX}: *shard 1 of 2"),
    "index cut": changed(INDEX, lambda data: data[:-1], "not a TensorFlow index, or cut off"),
    "bit of the index flipped": changed(INDEX, lambda d: d[:50] + bytes([d[50] ^ 1]) + d[51:], "checksum"),
    "bit of the numbers flipped": (with_bytes(DATA, lambda d: bytes([d[0] ^ 1]) + d[1:]), f"{DATA}: *checksum"),
    "numbers cut": (with_bytes(DATA, lambda d: d[:-1]), f"{DATA}*(cut off?)"),
    "numbers a git-lfs pointer": (with_bytes(DATA, LFS_POINTER), f"{DATA}: this is a git-lfs pointer"),
    "numbers a web page": (with_bytes(DATA, WEB_PAGE), f"{DATA}: this is a web page"),
    "numbers absent": (without(DATA), f"{DATA}: No such file"),
    "n_layer beyond the file": (with_json("hparams.json", lambda h: h.update(n_layer=3)), "missing all of block 2"),
    "n_layer 10**9": hparams("n_layer: 1000000000", n_layer=10**9),
    "n_head text": hparams("n_head: '3'", n_head="3"),
    "n_head absent": (with_json("hparams.json", lambda h: h.pop("n_head")), "n_head is not said*give a config"),
    "n_head absent and n_embd text": (
        with_json("hparams.json", lambda h: [h.pop("n_head"), h.update(n_embd="12")]),
        "hparams.json: *n_embd: '12'",
    ),
    "hparams a list": (with_bytes("hparams.json", b"[]"), "hparams.json: holds a JSON list"),
    "hparams a git-lfs pointer": (with_bytes("hparams.json", LFS_POINTER), "hparams.json: this is a git-lfs pointer"),
    "hparams a pipe": (replaced("hparams.json", os.mkfifo), "hparams.json: not a regular file"),
    "state leads out": state("../../x"),
    "state absolute": state("/tmp/x"),
    "state escaped": state(r"\056\056\057x"),
    "state a URL": state("gs://bucket/x"),
    "state leads nowhere": state("nowhere", "nowhere.index: No such file"),
    "state of nothing": (with_bytes("checkpoint", b""), "checkpoint: "),
    "state a web page": (with_bytes("checkpoint", WEB_PAGE), "checkpoint: "),
}


# OpenAI's GPT

SHAPES = "params_shapes.json"
SHARD = "params_5.npy"


def shapes(change: Callable[[list[Any]], object], words: str) -> tuple[Falsify, str]:
    return with_json(SHAPES, change), words


NPY: Table = stand_ins(SHARD) | {
    "shapes a git-lfs pointer": (with_bytes(SHAPES, LFS_POINTER), f"{SHAPES}: this is a git-lfs pointer"),
    "shapes a web page": (with_bytes(SHAPES, WEB_PAGE), f"{SHAPES}: this is a web page"),
    "shapes absent": (without(SHAPES), f"{SHAPES}: No such file"),
    "shapes an object": (with_bytes(SHAPES, b"{}"), f"{SHAPES}: "),
    "shape -1": shapes(lambda s: s.__setitem__(1, [-1, 12]), f"{SHAPES}: 1: [-1, 12], expected"),
    "shape true": shapes(lambda s: s.__setitem__(3, [True]), f"{SHAPES}: 3: [True], expected"),
    "shape 2.5": shapes(lambda s: s.__setitem__(3, [2.5]), f"{SHAPES}: 3: [2.5], expected"),
    "shape 2**62": shapes(lambda s: s.__setitem__(3, [2**62]), f"{SHAPES}: 3: shape [4611686018427387904]"),
    "shape longer": shapes(lambda s: s.__setitem__(1, [41, 12]), f"{SHAPES}: "),
    "one shape fewer": shapes(lambda s: s.pop(), f"{SHAPES}: "),
    "one shape more": shapes(lambda s: s.append([12]), f"{SHAPES}: "),
    "two shapes exchanged": shapes(lambda s: s.insert(2, s.pop(3)), "2 (36,): no shape of h.0.attn.c_attn.weight"),
    "middle shard absent": (without(SHARD), f"{SHARD}: no such file, though there is params_9.npy"),
    "last shard absent": (without("params_9.npy"), "(is params_9.npy missing?)"),
    "shards exchanged in length": (with_bytes(SHARD, lambda d: d[:-4]), f"{SHARD}: *(cut off)"),
    "other dtype": (
        lambda directory: np.save(directory / SHARD, np.ones(444, "f2")),
        f"{SHARD}: dtype float16, expected float32",
    ),
    "objects": (
        lambda directory: np.save(directory / SHARD, np.full(444, None), allow_pickle=True),
        f"{SHARD}: *(Python objects, never unpickled here)",
    ),
    "big-endian": (lambda directory: np.save(directory / SHARD, np.ones(444, ">f4")), f"{SHARD}: *big-endian"),
    "a matrix": (lambda directory: np.save(directory / SHARD, np.ones((4, 111), "f4")), f"{SHARD}: shape (4, 111)"),
}


# llama.cpp

GGUF = "model.gguf"


def key(name: str, change: Callable[[bytes], bytes], words: str) -> tuple[Falsify, str]:
    """Returns what changes the value of a key, which is a uint32."""

    def falsify(data: bytes) -> bytes:
        place = data.index(name.encode()) + len(name) + 4
        return data[:place] + change(data[place : place + 4]) + data[place + 4 :]

    return with_bytes(GGUF, falsify), f"{GGUF}: *{words}"


def number(value: int) -> Callable[[bytes], bytes]:
    return lambda _: value.to_bytes(4, "little")


LAMA: Table = stand_ins(GGUF) | {
    "block_count 10**9": key("gpt2.block_count", number(10**9), "n_layer: 1000000000"),
    "block_count beyond": (key("gpt2.block_count", number(3), "")[0], "n_layer: 3, but missing all of block 2"),
    "block_count below": (key("gpt2.block_count", number(1), "")[0], "n_layer: 1, but there are tensors of block 1"),
    "head_count 5": key("gpt2.attention.head_count", number(5), "not divisible by n_head 5"),
    "head_count 0": key("gpt2.attention.head_count", number(0), "n_head: 0"),
    "epsilon NaN": key("gpt2.attention.layer_norm_epsilon", lambda _: b"\0\0\xc0\x7f", "layer_norm_epsilon: nan"),
    "context of another model": key("gpt2.context_length", number(17), "position_embd.weight: shape (16, 12)"),
    "another architecture": changed(
        GGUF, lambda d: d.replace(b"\4\0\0\0\0\0\0\0gpt2", b"\4\0\0\0\0\0\0\0bert", 1), "general.arch"
    ),
    "a name of no layout": changed(
        GGUF, lambda d: d.replace(b"output_norm.bias", b"output_evil.bias"), "output_evil.bias"
    ),
    "a name twice": changed(GGUF, lambda d: d.replace(b"output_norm.weight", b"position_embd.weig"), ""),
    "cut by a byte": changed(GGUF, lambda data: data[:-33], "ends at byte"),
    "10 GB of zeros behind": (lambda directory: os.truncate(directory / GGUF, 10**10), f"{GGUF}: "),
}


# llm.c

LLMC = "gpt2_tiny.bin"


def word(place: int, value: int, words: str) -> tuple[Falsify, str]:
    """Returns what changes one number of the header."""

    def change(data: bytes) -> bytes:
        return data[: 4 * place] + value.to_bytes(4, "little", signed=True) + data[4 * place + 4 :]

    return changed(LLMC, change, words)


KARPATHY: Table = {
    "version 4": word(1, 4, "version 4, expected 3 or 5"),
    "version of the other dtype": word(1, 5, "bytes, expected"),
    "n_positions -1": word(2, -1, "n_positions: -1, expected"),
    "vocab_size 2**31-1": word(3, 2**31 - 1, "vocab_size: 2147483647, expected"),
    "vocab_size below": word(3, 39, "wte: rows that pad the vocabulary, expected zeros"),
    "n_layer 2**31-1": word(4, 2**31 - 1, "n_layer: 2147483647, expected"),
    "n_layer beyond": word(4, 3, "bytes, expected"),
    "n_head 0": word(5, 0, "n_head: 0, expected"),
    "n_head 5": word(5, 5, "not divisible by n_head 5"),
    "n_embd 24": word(6, 24, "bytes, expected"),
    "padded below": word(7, 8, "padded vocabulary: 8, expected at least 40"),
    "padded 2**31-1": word(7, 2**31 - 1, "padded vocabulary"),
    "cut": changed(LLMC, lambda data: data[:-1], "(cut off)"),
    "a byte behind": changed(LLMC, lambda data: data + b"x", "bytes, expected"),
    "NaN": changed(LLMC, lambda data: data[:-4] + b"\0\0\xc0\x7f", "lnfb[11]*expected finite numbers"),
}


# Orbax

LEAF = "wte.weight"


def leaf(**changes: Any) -> tuple[Falsify, str]:
    return with_json(f"state/{LEAF}/.zarray", lambda header: header.update(changes)), f"state: {LEAF}: "


def tree(change: Callable[[dict[str, Any]], object], words: str) -> tuple[Falsify, str]:
    return with_json("state/_METADATA", lambda value: change(value["tree_metadata"])), f"state*{words}"


def said(*keys: str) -> dict[str, Any]:
    names = [{"key": name, "key_type": 2} for name in keys]
    return {"key_metadata": names, "value_metadata": {"value_type": "np.ndarray"}}


def linked(name: str, target: str) -> Falsify:
    def falsify(directory: Path) -> None:
        path = directory / "state" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(target)

    return falsify


ORBAX: Table = {
    "chunk absent": (without(f"state/{LEAF}/0.0"), f"state: {LEAF}: "),
    "chunk cut": (with_bytes(f"state/{LEAF}/0.0", lambda data: data[:-1]), f"state: {LEAF}: "),
    "chunk empty": (with_bytes(f"state/{LEAF}/0.0", b""), f"state: {LEAF}: "),
    "chunk a pipe": (replaced(f"state/{LEAF}/0.0", os.mkfifo), "0.0: "),
    "chunk a link out": (linked(f"{LEAF}/0.0", "/etc/passwd"), f"{LEAF}/0.0: a link out"),
    "leaf a link out": (linked(LEAF, "/etc"), f"{LEAF}: a link out"),
    "shape longer": leaf(shape=[80, 12]),
    "shape -1": leaf(shape=[-1, 12]),
    "shape of 16 TiB": leaf(shape=[2**21, 2**21], chunks=[2**21, 2**21]),
    "dtype wider": leaf(dtype="<f8"),
    "dtype of objects": leaf(dtype="|O"),
    "compressor unknown": leaf(compressor={"id": "evil"}),
    "chunks 0": leaf(chunks=[0, 12]),
    "leaf of dots": tree(lambda t: t.update(new=said("../../_outside/zwte")), "new: keys"),
    "leaf of a parent": tree(lambda t: t.update(new=said("..", "x")), "new: keys"),
    "leaf absent": tree(lambda t: t.update(new=said("absent")), "absent: "),
    "leaf twice": tree(lambda t: t.update(new=said("wte", "weight")), "stands twice"),
    "tree cut": (with_bytes("state/_METADATA", lambda data: data[:50]), "_METADATA: not valid JSON"),
    "tree absent": (without("state/_METADATA"), "src: no weights in a known format"),
    "n_layer beyond the file": (with_config(n_layer=3), "missing all of block 2"),
    "config absent": (without(CONFIG), "n_head is not said"),
}


TEMPORARY = "state.orbax-checkpoint-tmp-7"


def uncommitted(directory: Path) -> None:
    (directory / "state").rename(directory / TEMPORARY)


# A golden checkpoint -> what is false in a copy of it.
FALSE = (
    cases("flax-gpt2-lm", FLAX | files(MSGPACK, flax.BAD))
    | cases("openai-gpt2", TF1 | files(INDEX, tf.TABLES) | files("checkpoint", tf.STATES))
    | cases("openai-gpt", NPY | files(SHARD, npy.NPYS))
    | cases("openai-gpt2 as gguf/model.gguf", LAMA | files(GGUF, gguf.BAD))
    | cases("llmc-float32", KARPATHY)
    | cases("torch-gpt2-model as orbax", ORBAX)
    | cases("torch-gpt2-model as orbax", {"uncommitted": (uncommitted, f"{TEMPORARY}: *uncommitted")}, TEMPORARY)
    | cases(
        "torch-gpt2-model as orbax",
        {"only uncommitted": (uncommitted, f"{TEMPORARY}: an Orbax checkpoint that was not finished")},
    )
)


@pytest.mark.parametrize("case", FALSE.values(), ids=FALSE)
def test_false_files(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)


def test_no_canary_of_a_pickled_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = Case("openai-gpt", with_bytes(SHARD, npy.npy(npy.said("'|O'"), npy.BOMB)), f"{SHARD}: *never unpickled")
    case.check(tmp_path)
    assert not (tmp_path / "canary").exists()
