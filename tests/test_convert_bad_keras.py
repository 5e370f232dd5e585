"""False HDF5 files of Transformers, KerasHub and Keras: nothing is read from elsewhere, made up, or run."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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

h5py = pytest.importorskip("h5py")

H5, WEIGHTS_H5 = "tf_model.h5", "model.weights.h5"
SCOPE = "transformer/tfgpt2lm_head_model/transformer"
WTE, GAMMA = f"{SCOPE}/wte/embeddings:0", f"{SCOPE}/ln_f/gamma:0"


def with_h5(change: Callable[[Any], object], file: str = H5) -> Falsify:
    """Returns what changes an HDF5 file by its own library."""

    def falsify(directory: Path) -> None:
        with h5py.File(directory / file, "r+") as h5:
            change(h5)

    return falsify


def dataset(words: str, name: str = WTE, file: str = H5, **options: Any) -> tuple[Falsify, str]:
    """Returns what puts another dataset in the place of one."""

    def change(h5: Any) -> None:
        del h5[name]
        h5.create_dataset(name, **options)

    return with_h5(change, file), f"{file}*{name}*{words}"


def link(target: Any, words: str, name: str = WTE, file: str = H5) -> tuple[Falsify, str]:
    """Returns what puts a link in the place of a dataset."""

    def change(h5: Any) -> None:
        h5["elsewhere"] = h5[name][()]
        del h5[name]
        h5[name] = target

    return with_h5(change, file), f"{file}*{words}"


def virtual() -> Any:
    layout = h5py.VirtualLayout((40, 12), "f4")
    layout[:] = h5py.VirtualSource("../secret.h5", "x", (40, 12))
    return layout


def with_virtual(h5: Any) -> None:
    del h5[WTE]
    h5.create_virtual_dataset(WTE, virtual())


def unknown_filter(h5: Any) -> None:
    del h5[WTE]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((40, 12))
    properties.set_filter(32099, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((40, 12))
    h5py.h5d.create(h5[SCOPE + "/wte"].id, b"embeddings:0", h5py.h5t.IEEE_F32LE, space, properties)


def values(h5: Any, name: str = GAMMA, place: Any = 3, value: float = np.nan) -> None:
    h5[name][place] = value


def raw(data: bytes | Callable[[bytes], bytes], words: str, file: str = H5) -> tuple[Falsify, str]:
    return with_bytes(file, data), f"{file}: *{words}"


NUMBERS = np.ones((40, 12), "f4")
TF_H5: dict[str, tuple[Falsify, str]] = {
    "external storage": dataset("", shape=(40, 12), dtype="f4", external=[("/etc/passwd", 0, 1920)]),
    "external storage, relative": dataset("", shape=(40, 12), dtype="f4", external=[("../secret", 0, 1920)]),
    "external link": link(h5py.ExternalLink("../secret.h5", "x"), "wte/embeddings:0"),
    "external link to itself": link(h5py.ExternalLink(H5, "elsewhere"), "wte/embeddings:0"),
    "soft link": link(h5py.SoftLink("/elsewhere"), "wte/embeddings:0"),
    "soft link that goes round": link(h5py.SoftLink(f"/{WTE}"), "wte/embeddings:0"),
    "group that holds itself": (with_h5(lambda h5: h5[SCOPE].__setitem__("self", h5["/"])), f"{H5}: "),
    "virtual dataset": (with_h5(with_virtual), f"{H5}*{WTE}"),
    "never written": dataset("", shape=(40, 12), dtype="f4"),
    "8 GiB never written": dataset("", shape=(2**31,), dtype="f4"),
    "2**33 rows in chunks": dataset("", shape=(2**33, 12), dtype="f4", chunks=(1024, 12)),
    "chunks never written": dataset("", shape=(40, 12), dtype="f4", chunks=(8, 12)),
    "unknown filter": (with_h5(unknown_filter), f"{H5}*{WTE}*32099"),
    "filter of LZF": dataset("", data=NUMBERS, chunks=(8, 12), compression="lzf"),
    "checksums of Fletcher": dataset("", data=NUMBERS, chunks=(8, 12), fletcher32=True),
    "texts": dataset("", data=["a"] * 40),
    "texts of fixed length": dataset("", data=np.full(40, b"abcd")),
    "lists of any length": dataset("", shape=(40,), dtype=h5py.vlen_dtype("f4")),
    "records": dataset("", data=np.zeros(40, [("a", "f4"), ("b", "i4")])),
    "references": dataset("", shape=(40,), dtype=h5py.ref_dtype),
    "enumeration": dataset("", data=np.zeros((40, 12), "i4"), dtype=h5py.enum_dtype({"a": 0}, "i4")),
    "complex": dataset("", data=NUMBERS.astype("c8")),
    "integers": dataset("int32", data=NUMBERS.astype("i4")),
    "null space": dataset("", data=h5py.Empty("f4")),
    "shape of another model": dataset("(41, 12)", data=np.ones((41, 12), "f4")),
    "bias of one axis": dataset("", f"{SCOPE}/h_._0/mlp/c_fc/bias:0", data=np.ones(20, "f4")),
    "absent": (with_h5(lambda h5: h5.__delitem__(GAMMA)), f"{H5}: missing *ln_f.weight"),
    "unexpected": (with_h5(lambda h5: h5.create_dataset("evil/x:0", data=NUMBERS)), f"{H5}: *evil/x:0"),
    "twice": (with_h5(lambda h5: h5.create_dataset(f"transformer/b/{WTE[12:]}", data=NUMBERS)), "wte/embeddings:0"),
    "NaN": (with_h5(values), f"{H5}: {GAMMA}*[3]*expected finite numbers"),
    "empty": raw(b"", "empty file"),
    "git-lfs pointer": raw(LFS_POINTER, "this is a git-lfs pointer"),
    "web page": raw(WEB_PAGE, "this is a web page"),
    "pickle": raw(b"\x80\x02}.", "expected an HDF5 file"),
    "cut": raw(lambda data: data[:30_000], ""),
    "a byte behind": raw(lambda data: data + b"x", ""),
    "in a user block": raw(lambda data: bytes(512) + data, "expected an HDF5 file"),
    "signature only": raw(lambda data: data[:8], ""),
    "10 GB of zeros behind": (lambda directory: os.truncate(directory / H5, 10**10), f"{H5}: "),
    "n_layer beyond the file": (with_config(n_layer=3), "missing all of block 2"),
    "n_layer below the file": (with_config(n_layer=1), "there are tensors of block 1"),
    "dangling link": (replaced(H5, lambda path: path.symlink_to("nowhere")), f"{H5}: No such file"),
} | no_files(H5)


# KerasHub

EMBEDDING = "layers/reversible_embedding/vars/0"
QUERY = "layers/transformer_decoder_1/_self_attention_layer/query_dense/vars/0"
VOCABULARY = "assets/tokenizer/vocabulary.json"


def hub(words: str, **changes: Any) -> tuple[Falsify, str]:
    return with_json(CONFIG, lambda content: content["config"].update(changes)), words


KERASHUB: dict[str, tuple[Falsify, str]] = {
    "num_layers 10**9": hub(f"{CONFIG}: *n_layer: 1000000000", num_layers=10**9),
    "num_layers beyond": hub("n_layer: 3", num_layers=3),
    "num_layers below": hub("n_layer: 1", num_layers=1),
    "num_layers true": hub(f"{CONFIG}: *n_layer: True", num_layers=True),
    "num_layers text": hub(f"{CONFIG}: *n_layer: '2'", num_layers="2"),
    "num_layers list": hub(f"{CONFIG}: *n_layer: [2]", num_layers=[2]),
    "num_heads 5": hub("n_head 5", num_heads=5),
    "num_heads of another model": hub(
        "query_dense/vars/0: shape (12, 3, 4), expected that of 6 heads (12, 6, 2)", num_heads=6
    ),
    "vocabulary of another model": hub(f"{EMBEDDING}: shape (40, 12), expected (41, 12)", vocabulary_size=41),
    "hidden_dim text": hub(f"{CONFIG}: *n_embd: '12'", hidden_dim="12"),
    "hidden_dim null": hub(f"{CONFIG}: *n_embd: None", hidden_dim=None),
    "hidden_dim object": hub(f"{CONFIG}: *n_embd: {{}}", hidden_dim={}),
    "dropout text": hub("'0.1'", dropout="0.1"),
    "no layers": (with_json(CONFIG, lambda c: c["config"].pop("num_layers")), f"{CONFIG}: config: num_layers: absent"),
    "Lambda": (
        with_json(CONFIG, lambda c: c.update(module="keras.layers", class_name="Lambda")),
        f"{CONFIG}: class_name Lambda",
    ),
    "builtins.exec": (
        with_json(CONFIG, lambda c: c.update(module="builtins", class_name="exec")),
        f"{CONFIG}: class_name exec",
    ),
    "config a list": (with_json(CONFIG, lambda c: c.update(config=[])), f"{CONFIG}: config: []"),
    "class twice": (
        with_bytes(CONFIG, lambda d: d.replace(b"{", b'{"class_name": 1, ', 1)),
        "'class_name' stands twice",
    ),
    "2 MiB of spaces": (with_bytes(CONFIG, lambda data: data + b" " * 2**21), f"{CONFIG}: "),
    "config of 256 MiB": (lambda directory: os.truncate(directory / CONFIG, 2**28), f"{CONFIG}: 268435456 bytes"),
    "git-lfs pointer": raw(LFS_POINTER, "this is a git-lfs pointer", WEIGHTS_H5),
    "web page": raw(WEB_PAGE, "this is a web page", WEIGHTS_H5),
    "config a git-lfs pointer": raw(LFS_POINTER, "this is a git-lfs pointer", CONFIG),
    "cut": raw(lambda data: data[:50_000], "", WEIGHTS_H5),
    "external storage": dataset(
        "", EMBEDDING, WEIGHTS_H5, shape=(40, 12), dtype="f4", external=[("/etc/passwd", 0, 1920)]
    ),
    "external link": link(h5py.ExternalLink("../x.h5", "x"), "reversible_embedding", EMBEDDING, WEIGHTS_H5),
    "query of one axis": dataset("", QUERY, WEIGHTS_H5, data=np.ones(144, "f4")),
    "query of another split": dataset("", QUERY, WEIGHTS_H5, data=np.ones((12, 4, 4), "f4")),
    "query absent": (with_h5(lambda h5: h5.__delitem__(QUERY), WEIGHTS_H5), f"{WEIGHTS_H5}: missing {QUERY}"),
    "unexpected": (
        with_h5(lambda h5: h5.create_dataset("layers/evil/vars/0", data=NUMBERS), WEIGHTS_H5),
        f"{WEIGHTS_H5}: *layers/evil/vars/0",
    ),
    "vocabulary a pipe": (replaced(VOCABULARY, os.mkfifo), f"{VOCABULARY}: not a regular file"),
    "vocabulary a dangling link": (replaced(VOCABULARY, lambda p: p.symlink_to("nowhere")), f"{VOCABULARY}: No such"),
}

INDEX = "model.weights.json"
GROUP = "/layers/reversible_embedding/vars"


def led(name: Any) -> tuple[Falsify, str]:
    return with_json(INDEX, lambda c: c["weight_map"].update({GROUP: name})), f"{INDEX}: weight_map[{GROUP}]: "


KERASHUB_SHARDS = {
    "leads out": led("../model_00000.weights.h5"),
    "leads out in a list": led(["model_00000.weights.h5", "/etc/passwd"]),
    "leads to a number": led(5),
    "map a list": (with_json(INDEX, lambda c: c.update(weight_map=[])), f"{INDEX}: weight_map: []"),
    "shard absent": (without("model_00001.weights.h5"), "model_00001.weights.h5: No such file"),
    "shard a git-lfs pointer": raw(LFS_POINTER, "this is a git-lfs pointer", "model_00001.weights.h5"),
    "tensor in two shards": (
        with_h5(lambda h5: h5.create_dataset(EMBEDDING, data=NUMBERS), "model_00001.weights.h5"),
        f"{INDEX}: model_00001.weights.h5: holds {GROUP}, which the index does not say",
    ),
    "tensor in two shards, by the index too": (
        both(
            with_h5(lambda h5: h5.create_dataset(EMBEDDING, data=NUMBERS), "model_00001.weights.h5"),
            led(["model_00000.weights.h5", "model_00001.weights.h5"])[0],
        ),
        f"{EMBEDDING}: stored twice",
    ),
    "tensor in another shard": (
        led("model_00001.weights.h5")[0],
        f"model_00000.weights.h5: holds {GROUP}, which*model_00001.weights.h5: nothing in {GROUP}",
    ),
}


# Keras' archives of our own models

ARCHIVE = "model.keras"


def with_members(change: Callable[[dict[str, bytes]], object]) -> Falsify:
    """Returns what changes the members of an archive."""

    def falsify(directory: Path) -> None:
        path = directory / ARCHIVE
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        change(content)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)

    return falsify


def with_saved(change: Callable[[Any], object]) -> Falsify:
    """Returns what changes config.json in an archive."""

    def changed(content: dict[str, bytes]) -> None:
        value = json.loads(content[CONFIG])
        change(value)
        content[CONFIG] = json.dumps(value).encode()

    return with_members(changed)


def saved(words: str, **changes: Any) -> tuple[Falsify, str]:
    return with_saved(lambda value: value["config"]["config"].update(changes)), f"{ARCHIVE}: *{words}"


def member(name: str, data: bytes, words: str = "") -> tuple[Falsify, str]:
    return with_members(lambda content: content.update({name: data})), f"{ARCHIVE}: *{words or name}"


def link_member(directory: Path) -> None:
    info = zipfile.ZipInfo("assets/link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(directory / ARCHIVE, "a") as archive:
        archive.writestr(info, "/etc/passwd")


LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": ["4wAAAA==", None, None]}}
KERAS: dict[str, tuple[Falsify, str]] = {
    "n_layer 10**9": saved("n_layer: 1000000000", n_layer=10**9),
    "n_layer beyond": (with_saved(lambda v: v["config"]["config"].update(n_layer=3)), "missing all of block 2"),
    "n_layer text": saved("n_layer: '2'", n_layer="2"),
    "family unknown": saved("config.config", model_type="bert"),
    "family a list": saved("config.config", model_type=[1]),
    "Lambda": (with_saved(lambda value: [value.clear(), value.update(LAMBDA)]), f"{ARCHIVE}: config.json: "),
    "builtins.exec": (with_saved(lambda v: v.update(registered_name="builtins>exec")), f"{ARCHIVE}: config.json: "),
    "no config": (with_saved(lambda value: value.pop("config")), f"{ARCHIVE}: config.json: config.config"),
    "config absent": (with_members(lambda content: content.pop(CONFIG)), f"{ARCHIVE}: {CONFIG}: missing"),
    "config of 256 MiB": member(CONFIG, b" " * 2**21, CONFIG),
    "weights absent": (with_members(lambda content: content.pop(WEIGHTS_H5)), f"{ARCHIVE}: {WEIGHTS_H5}: missing"),
    "weights cut": (with_members(lambda c: c.update({WEIGHTS_H5: c[WEIGHTS_H5][:9999]})), f"{ARCHIVE}: "),
    "member out": member("../evil", b"x"),
    "member absolute": member("/evil", b"x"),
    "member unknown": member("evil.py", b"x"),
    "member a link": (link_member, f"{ARCHIVE}: *assets/link"),
    "cut": raw(lambda data: data[:-30], "", ARCHIVE),
    "git-lfs pointer": raw(LFS_POINTER, "this is a git-lfs pointer", ARCHIVE),
    "web page": raw(WEB_PAGE, "this is a web page", ARCHIVE),
}
OWN_WEIGHTS = {
    "n_layer beyond": (with_config(n_layer=3), "missing all of block 2"),
    "git-lfs pointer": raw(LFS_POINTER, "this is a git-lfs pointer", WEIGHTS_H5),
    "web page": raw(WEB_PAGE, "this is a web page", WEIGHTS_H5),
}

FALSE = (
    cases("tf-gpt2-lm", TF_H5)
    | cases("kerashub-lm", KERASHUB)
    | cases("kerashub-sharded", KERASHUB_SHARDS)
    | cases(f"torch-gpt2-lm as keras/{ARCHIVE}", KERAS, ARCHIVE)
    | cases("torch-gpt2-lm as keras", OWN_WEIGHTS)
)


@pytest.mark.parametrize("case", FALSE.values(), ids=FALSE)
def test_false_files(case: Case, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as h5:
        h5["x"] = NUMBERS
    (tmp_path / "secret").write_bytes(NUMBERS.tobytes())
    case.check(tmp_path)
