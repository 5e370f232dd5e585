"""A false pytorch_model.bin or ckpt.pt is refused by name, and no payload in it runs."""

from __future__ import annotations

import io
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo_conversion.containers._pickling import Call, Name, Persistent, pickled
from gptzoo_conversion.containers.pytorch import read_pytorch
from tests.conversion import GOLDEN
from tests.falsify import (
    LFS_POINTER,
    WEB_PAGE,
    Case,
    Falsify,
    cases,
    copied,
    no_files,
    refused,
    replaced,
    with_bytes,
    with_config,
    without,
)
from tests.test_container_pytorch_pickles import FIRING, REFUSED, made

BIN, PT = "pytorch_model.bin", "ckpt.pt"
WTE, LN = "transformer.wte.weight", "transformer.ln_f.weight"


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return target.getvalue()


def with_members(change: Callable[[dict[str, bytes]], object], method: int = zipfile.ZIP_STORED) -> Falsify:
    """Returns what changes the files within the archive."""

    def changed(data: bytes) -> bytes:
        content = members(data)
        change(content)
        return zipped(content, method)

    return with_bytes(BIN, changed)


def with_pickle(data: bytes) -> Falsify:
    """Returns what exchanges the pickle of the archive, whose numbers stay."""
    return with_members(lambda content: content.update({next(n for n in content if n.endswith("data.pkl")): data}))


def storage(kind: str, key: Any, count: Any) -> Persistent:
    return Persistent(("storage", Name("torch", kind), key, "cpu", count))


def rebuilt(place: Any, offset: Any, shape: Any, strides: Any) -> Call:
    """Returns how a pickle says a tensor."""
    hooks = Call("collections", "OrderedDict", ())
    return Call("torch._utils", "_rebuild_tensor_v2", (place, offset, shape, strides, False, hooks))


def state_dict(name: str = WTE, **lie: Any) -> Falsify:
    """Returns what writes the golden numbers as torch.save does, with a lie about one tensor."""
    file = read_pytorch(GOLDEN / "torch-gpt2-lm-bin" / BIN)
    arrays = {key: file.read(key) for key in file.tensors}
    values: dict[str, Any] = {}
    for number, (key, array) in enumerate(arrays.items()):
        said: dict[str, Any] = {
            "kind": "FloatStorage",
            "key": str(number),
            "count": array.size,
            "offset": 0,
            "shape": array.shape,
        }
        said["strides"] = tuple(int(stride) // 4 for stride in array.strides)
        said |= lie if key == name else {}
        place = said.get("place") or storage(said["kind"], said["key"], said["count"])
        values[key] = said.get("value") or rebuilt(place, said["offset"], said["shape"], said["strides"])
    content = {"x/data.pkl": pickled(values), "x/byteorder": b"little", "x/version": b"3\n"}
    content |= {f"x/data/{number}": array.tobytes() for number, array in enumerate(arrays.values())}
    return with_bytes(BIN, zipped(content))


def tensor(words: str, **lie: Any) -> tuple[Falsify, str]:
    return state_dict(**lie), f"{BIN}: *{words}"


def raw(data: bytes | Callable[[bytes], bytes], words: str) -> tuple[Falsify, str]:
    return with_bytes(BIN, data), f"{BIN}: *{words}"


def flipped(data: bytes) -> bytes:
    """Flips one bit of the first tensor."""
    place = data.index(max(members(data).values(), key=len)) + 5
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def as_second(old: str, new: str) -> Callable[[bytes], bytes]:
    """Gives a member a name that another has."""
    return lambda data: data.replace(old.encode(), new.encode())


def root(content: dict[str, bytes]) -> str:
    return next(iter(content)).split("/")[0]


TENSORS: dict[str, tuple[Falsify, str]] = {
    "count above the storage": tensor(f"{WTE}: storage 0 of 1920 bytes", count=481),
    "count below the storage": tensor(f"{WTE}: storage 0 of 1920 bytes", count=479),
    "count 2**62": tensor(f"{WTE}: storage 0 of 1920 bytes", count=2**62),
    "count -1": tensor("-1 elements", count=-1),
    "dtype narrower": tensor(f"{WTE}: storage 0 of 1920 bytes, expected 960", kind="HalfStorage"),
    "dtype quantized": tensor("pickle wants torch.QInt8Storage, which is not a tensor", kind="QInt8Storage"),
    "dtype integers": tensor(f"{WTE}: dtype int32", kind="IntStorage"),
    "storage absent": tensor(f"{LN}: storage 99 is not in the file", name=LN, key="99"),
    "storage a path": tensor(f"{WTE}: storage ../x is not in the file", key="../x"),
    "offset 1": tensor(f"{WTE}: offset 1", offset=1),
    "offset -1": tensor("-1", offset=-1),
    "offset 2**62": tensor(f"{WTE}: offset 4611686018427387904", offset=2**62),
    "shape beyond": tensor(f"{WTE}: offset 0, shape [41, 12]", shape=(41, 12)),
    "shape negative": tensor("a tuple as shape", shape=(-40, -12)),
    "shape that overflows": tensor(f"{WTE}: shape [1099511627776", shape=(2**40, 2**40)),
    "shape of another model": tensor(f"{WTE}: shape (20, 12), expected (40, 12)", shape=(20, 12)),
    "strides 0": tensor(f"{WTE}: strides [0, 0]", strides=(0, 0)),
    "strides that overlap": tensor(f"{WTE}: strides [1, 1]", strides=(1, 1)),
    "4 TiB of strides 0": tensor(f"{WTE}: strides [0, 0]", shape=(2**20, 2**20), strides=(0, 0)),
    "strides negative": tensor("a tuple as shape or strides", strides=(-12, 1)),
    "strides 2**62": tensor(f"{WTE}: offset 0", strides=(2**62, 1)),
    "value a number": (state_dict(LN, value=5), f"{BIN}: {LN}: 5, expected a tensor"),
    "value a storage": tensor(f"{WTE}: a storage, expected a tensor", value=storage("FloatStorage", "0", 480)),
    "value a dict": (state_dict(LN, value={"a": 5}), f"{BIN}: {LN}: *expected a tensor"),
    "tied and different": (
        state_dict("lm_head.weight", key="0", count=480, offset=0, shape=(20, 12)),
        "lm_head.weight",
    ),
    "optimizer state": (with_pickle(pickled({"step": 5})), f"{BIN}: "),
}

FILES: dict[str, tuple[Falsify, str]] = {
    "empty": raw(b"", "empty file"),
    "git-lfs pointer": raw(LFS_POINTER, "this is a git-lfs pointer, not the weights (run: git lfs pull)"),
    "web page": raw(WEB_PAGE, "this is a web page"),
    "JSON": raw(b'{"error": 1}', "this is JSON"),
    "HDF5": raw(b"\x89HDF\r\n\x1a\n", "this is an HDF5 file"),
    "tar archive": raw(bytes(257) + b"ustar" + bytes(250), "a tar archive (PyTorch before 0.2)"),
    "cut by a byte": raw(lambda data: data[:-1], ""),
    "cut by half": raw(lambda data: data[: len(data) // 2], ""),
    "a byte before": raw(lambda data: b"x" + data, ""),
    "a byte behind": raw(lambda data: data + b"x", ""),
    "bit flipped": raw(flipped, "CRC-32"),
    "big-endian": (with_members(lambda held: held.update({f"{root(held)}/byteorder": b"big"})), "byteorder: big"),
    "storage cut": (
        with_members(lambda held: held.update({f"{root(held)}/data/0": b"1234"})),
        f"{BIN}*{WTE}: storage 0 of 4 bytes, expected 1920",
    ),
    "storage absent": (
        with_members(lambda held: held.pop(f"{root(held)}/data/0")),
        f"{BIN}*{WTE}: storage 0 is not in the",
    ),
    "pickle absent": (with_members(lambda held: held.pop(f"{root(held)}/data.pkl")), f"{BIN}: *data.pkl"),
    "member out": (with_members(lambda held: held.update({"../evil": b"x"})), f"{BIN}: *../evil"),
    "member absolute": (with_members(lambda held: held.update({"/etc/evil": b"x"})), f"{BIN}: */etc/evil"),
    "second root": (with_members(lambda held: held.update({"y/evil": b"x"})), f"{BIN}: *y/evil"),
    "bomb": (
        with_members(lambda held: held.update({f"{root(held)}/data/0": bytes(2**26)}), zipfile.ZIP_DEFLATED),
        f"{BIN}: *data/0",
    ),
    "encrypted": raw(lambda data: re.sub(rb"(?s)(PK\x03\x04..|PK\x01\x02....).", b"\\g<1>\x09", data), "encrypted"),
    "10 GB of zeros behind": (lambda directory: os.truncate(directory / BIN, 10**10), f"{BIN}: "),
    "absent": (without(BIN), "src: no weights in a known format"),
    "dangling link": (replaced(BIN, lambda path: path.symlink_to("nowhere")), f"{BIN}: No such file"),
} | no_files(BIN)

MODEL = {
    "n_layer beyond the file": (with_config(n_layer=3), "missing all of block 2"),
    "n_layer below the file": (with_config(n_layer=1), "there are tensors of block 1"),
}
PICKLES = {
    name: (with_pickle(data), f"{BIN}: *{words}") for name, (data, words) in REFUSED.items() if "laughs" not in name
}
FALSE = cases("torch-gpt2-lm-bin", TENSORS | FILES | MODEL | PICKLES)


@pytest.mark.parametrize("case", FALSE.values(), ids=FALSE)
def test_false_files(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)


@pytest.mark.parametrize("base", ["torch-gpt2-lm-bin", "torch-gpt2-hub-bin"], ids=["zip", "bare"])
@pytest.mark.parametrize("name", FIRING)
def test_no_payload_runs(name: str, base: str, tmp_path: Path) -> None:
    """Python's reader runs each of these: see tests/test_container_pytorch_pickles.py."""
    directory, canary = copied(base, tmp_path), tmp_path / "canary"
    payload, wanted = FIRING[name]
    data = made(payload, canary)
    (with_pickle(data) if base == "torch-gpt2-lm-bin" else with_bytes(BIN, data))(directory)
    refused(directory, f"{BIN}: ", f"pickle wants {wanted}, which is not a tensor" if base.endswith("lm-bin") else "")
    assert not canary.exists()


# nanoGPT


def arguments(**changes: Any) -> Falsify:
    """Returns what writes a golden ckpt.pt's weights with other model_args."""
    file = read_pytorch(GOLDEN / "nanogpt-bias" / PT)
    arrays = {name: file.read(name) for name in file.tensors if name.startswith("model/")}
    said = {key: value for key, value in (file.metadata["model_args"] | changes).items() if value != "absent"}
    model, content = {}, {"x/byteorder": b"little", "x/version": b"3\n"}
    for number, (name, array) in enumerate(arrays.items()):
        strides = tuple(int(stride) // 4 for stride in array.strides)
        place = storage("FloatStorage", str(number), array.size)
        model[name.removeprefix("model/")] = rebuilt(place, 0, array.shape, strides)
        content[f"x/data/{number}"] = array.tobytes()
    content["x/data.pkl"] = pickled({"model": model, "model_args": said})
    return with_bytes(PT, zipped(content))


def argument(name: str, value: Any, words: str = "expected an integer") -> tuple[Falsify, str]:
    return arguments(**{name: value}), f"{PT}: *model_args.{name}: *{words}"


NANOGPT = {
    "n_layer 10**9": argument("n_layer", 10**9),
    "n_layer true": argument("n_layer", True),
    "n_layer text": argument("n_layer", "2"),
    "n_layer 0": argument("n_layer", 0),
    "n_layer absent": argument("n_layer", "absent", "absent"),
    "n_head -1": argument("n_head", -1),
    "n_head that does not divide": (arguments(n_head=5), f"{PT}: *n_embd: 12 is not divisible by n_head 5"),
    "vocab_size 2**40": argument("vocab_size", 2**40),
    "bias a number": argument("bias", 1, "expected True or False"),
    "dropout text": (arguments(dropout="0.1"), f"{PT}: *resid_pdrop"),
    "n_layer beyond the file": (arguments(n_layer=3), "missing all of block 2"),
    "n_layer below the file": (arguments(n_layer=1), "there are tensors of block 1"),
    "vocab_size of another": (arguments(vocab_size=50), "wte.weight: shape (64, 12), expected (50, 12)"),
    "git-lfs pointer": (with_bytes(PT, LFS_POINTER), f"{PT}: this is a git-lfs pointer"),
    "web page": (with_bytes(PT, WEB_PAGE), f"{PT}: this is a web page"),
    "a state dict": (
        lambda directory: shutil.copy(GOLDEN / "torch-gpt2-lm-bin" / BIN, directory / PT),
        f"{PT}: no model_args",
    ),
    "exec": (with_bytes(PT, zipped({"x/data.pkl": b"\x80\x02cbuiltins\nexec\nX\x01\0\0\x001\x85R."})), "builtins.exec"),
}
FALSE_NANOGPT = cases("nanogpt-bias", NANOGPT)


@pytest.mark.parametrize("case", FALSE_NANOGPT.values(), ids=FALSE_NANOGPT)
def test_nanogpt(case: Case, tmp_path: Path) -> None:
    case.check(tmp_path)


def test_what_the_false_files_are_made_from_is_read(tmp_path: Path) -> None:
    """So that each is refused for its lie."""
    directory = copied("torch-gpt2-lm-bin", tmp_path)
    before = read_pytorch(directory / BIN)
    wanted = {name: before.read(name) for name in before.tensors}
    state_dict()(directory)
    found = read_pytorch(directory / BIN)
    assert all(np.array_equal(found.read(name), array) for name, array in wanted.items())
    arguments()(directory)
    assert "model_args" in read_pytorch(directory / PT).metadata
