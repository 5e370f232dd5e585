"""Broken and falsified safetensors, and tensors that do not fit: refused by an error that names file and fault."""

from __future__ import annotations

import ast
import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from gptzoo import limits
from gptzoo.checkpoint import open_checkpoint, save_checkpoint
from gptzoo.config import AutoConfig
from gptzoo.errors import CheckpointError
from gptzoo.inspect import describe
from tests.checkpoints import (
    LM,
    WEIGHTS,
    Arrays,
    Header,
    join,
    lm_tensors,
    load,
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


# What is no name of a checkpoint


@pytest.mark.parametrize("value", [None, 5, 1.5, True, b"model", ["model"], {}, "", Exception])
@pytest.mark.parametrize("read", [open_checkpoint, AutoConfig.from_pretrained, describe])
def test_name_that_is_none(read: Callable[[Any], Any], value: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(value)
    assert str(caught.value) == f"checkpoint: {value!r}, expected a path or a model's name"


def test_no_module_imports_what_another_keeps_to_itself() -> None:
    package = Path(limits.__file__).parent
    found = [
        f"{file.relative_to(package)}: {name.name} of {node.module}"
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gptzoo.")
        for name in node.names
        if name.name.startswith("_")
        and not (package.parent / node.module.replace(".", "/") / f"{name.name}.py").exists()
    ]
    assert found == []


# Bytes that are not safetensors, or were cut

HEADER_END = int.from_bytes(save(lm_tensors(), {"format": "pt"})[:8], "little") + 8
CUTS = [1, 7, 8, 9, 100, HEADER_END - 1, HEADER_END, HEADER_END + 1, HEADER_END + 1000, -1]
BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "empty file"),
    **{f"cut at {cut}": (lambda data, cut=cut: data[:cut], "cut off") for cut in CUTS},
    "a byte too many": (lambda data: data + b"\0", "7617 bytes of data, expected 7616"),
    "a second file behind": (lambda data: data + data, "bytes of data, expected"),
    "zeros": (lambda data: bytes(1000), "header begins with b''"),
    "header of 2**63": (lambda data: struct.pack("<Q", 2**63) + data[8:], "header of 9223372036854775808 bytes"),
    "header of 2**64-1": (lambda data: b"\xff" * 8 + data[8:], "header of 18446744073709551615 bytes"),
    "header above the limit": (
        lambda data: struct.pack("<Q", 2**24 + 1) + b" " * 2**24 + data,
        "expected at most 16777216",
    ),
    "header too short": (lambda data: struct.pack("<Q", 50) + data[8:], "header is not valid JSON"),
    "header too long": (lambda data: struct.pack("<Q", HEADER_END + 8) + data[8:], "header is not"),
    "leading space": (lambda data: join(b" " + json.dumps(split(data)[0]).encode(), split(data)[1]), "begins with b' "),
    "byte order mark": (lambda data: join(b"\xef\xbb\xbf{}", b""), "begins with"),
    "not UTF-8": (lambda data: join(b'{"a\xff":{}}', b""), "not UTF-8"),
    "UTF-16": (lambda data: join("{}".encode("utf-16"), b""), "begins with"),
    "a list": (lambda data: join(b"[]", b""), "begins with"),
    "two objects": (lambda data: join(b"{}{}", b""), "not valid JSON"),
    "NaN": (lambda data: join(b'{"a": NaN}', b""), "NaN is not a JSON number"),
    "a number of 10,000 digits": (lambda data: join(b'{"a": ' + b"9" * 10_000 + b"}", b""), "not valid JSON"),
    "deep": (lambda data: join(b'{"a":' + b"[" * 100_000, b""), "too deeply"),
    "deep but whole": (lambda data: join(b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", b""), "too deeply"),
    "no tensors": (lambda data: join({}, b""), "missing transformer.wte.weight"),
    "git-lfs": (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "web page": (lambda data: b"\n<!DOCTYPE html><html><body>Not found</body></html>", "web page"),
    "JSON": (lambda data: b'{"error": "Repository not found"}', "JSON text"),
    "zip": (lambda data: b"PK\x03\x04" + bytes(100), "zip archive"),
    "pickle": (lambda data: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02", "pickle"),
    "HDF5": (lambda data: b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "GGUF": (lambda data: b"GGUF\x03\0\0\0" + b"\1" * 100, "GGUF"),
    "text": (lambda data: b"Entry not found", "not safetensors"),
}


@pytest.mark.parametrize("case", BYTES)
def test_file_that_is_not_safetensors(case: str, good: Path, sharded: Path) -> None:
    change, fault = BYTES[case]
    (good / WEIGHTS).write_bytes(change((good / WEIGHTS).read_bytes()))
    message = refusal(good, r"model\.safetensors: ", re.escape(fault))
    assert len(message.splitlines()) == 1 or "missing" in message
    if "cut" not in case and case != "a byte too many":
        shard = sharded / "model-00002-of-00002.safetensors"
        shard.write_bytes(change(shard.read_bytes()))
        refusal(sharded, re.escape(fault) if case != "no tensors" else "which the index says", "model-00002-of-00002")


# Headers that lie about one tensor

NAME = "transformer.h.0.attn.c_attn.bias"  # float32, (24,), 96 bytes
ENTRY: dict[str, tuple[dict[str, Any], str]] = {
    "unknown dtype": ({"dtype": "F31"}, "dtype F31, expected one of"),
    "dtype of half a byte": ({"dtype": "F4"}, "dtype F4"),
    "dtype is a list": ({"dtype": ["F32"]}, r"dtype \['F32'\]"),
    "dtype is null": ({"dtype": None}, "dtype None"),
    "wider dtype": ({"dtype": "F64"}, r"hold 96 bytes, expected 192 for F64 \[24\]"),
    "narrower dtype": ({"dtype": "F16"}, "hold 96 bytes, expected 48"),
    "shape is a text": ({"shape": "24"}, "shape 24"),
    "negative size": ({"shape": [-1, -24]}, r"shape \[-1, -24\]"),
    "float size": ({"shape": [24.0]}, r"shape \[24\.0\]"),
    "true size": ({"shape": [True, 24]}, r"shape \[True, 24\]"),
    "size of 2**63": ({"shape": [2**63]}, r"shape \[9223372036854775808\]"),
    "size of 4,000 digits": ({"shape": [int("9" * 4000)]}, r"shape \[999.*\.\.\."),
    "empty, and too large": ({"shape": [0, 2**62], "data_offsets": [0, 0]}, "larger than any array"),
    "sizes that wrap to 24": ({"shape": [2**62, 4, 24]}, "expected 1770887431076116955136 for F32"),
    "rank 9": ({"shape": [1] * 8 + [24]}, "at most 8 sizes"),
    "empty shape": ({"shape": []}, r"expected 4 for F32 \[\]"),
    "zero": ({"shape": [0]}, "expected 0 for F32"),
    "offsets swapped": ({"data_offsets": [96, 0]}, "hold -96 bytes"),
    "offsets of one": ({"data_offsets": [0]}, "expected begin and end"),
    "offsets of three": ({"data_offsets": [0, 96, 192]}, "expected begin and end"),
    "offsets are floats": ({"data_offsets": [0.0, 96.0]}, "expected begin and end"),
    "offsets are negative": ({"data_offsets": [-96, 0]}, "expected begin and end"),
    "offsets far away": ({"data_offsets": [2**62, 2**62 + 96]}, "a gap or an overlap"),
    "overlap": ({"data_offsets": [4, 100]}, "a gap or an overlap"),
    "a key too many": ({"extra": 1}, "expected dtype, shape and data_offsets"),
}


@pytest.mark.parametrize("case", ENTRY)
def test_header_that_lies_about_a_tensor(case: str, good: Path) -> None:
    header, data = split((good / WEIGHTS).read_bytes())
    change, fault = ENTRY[case]
    header[NAME] |= change
    (good / WEIGHTS).write_bytes(join(header, data))
    refusal(good, r"model\.safetensors", re.escape(NAME), fault)


@pytest.mark.parametrize("entry", [None, [], "F32", 1, {}, {"dtype": "F32"}, [["deep"] * 5]])
def test_entry_that_is_none(entry: Any, good: Path) -> None:
    header, data = split((good / WEIGHTS).read_bytes())
    (good / WEIGHTS).write_bytes(join(header | {NAME: entry}, data))
    refusal(good, re.escape(f"{NAME}: "), "expected dtype, shape and data_offsets")


def test_every_lie_is_listed(good: Path) -> None:
    header, data = split((good / WEIGHTS).read_bytes())
    lies = ["transformer.wte.weight", "transformer.wpe.weight", NAME]
    for name in lies:
        header[name]["dtype"] = "F31"
    (good / WEIGHTS).write_bytes(join(header, data))
    lines = refusal(good).splitlines()
    assert lines[0].endswith("model.safetensors (3 problems):")
    assert [line.split(":")[0].strip() for line in lines[1:]] == sorted(lies)


def _twice(header: Header, data: bytes) -> bytes:
    text = json.dumps(header)[:-1] + "," + json.dumps({NAME: header[NAME]})[1:]
    return join(text.encode(), data)


def _moved(header: Header, data: bytes, gap: int) -> bytes:
    """The tensor that lies last begins `gap` bytes later, and so does the end of the file."""
    entry = max(header.values(), key=lambda entry: entry.get("data_offsets", [0]))
    entry["data_offsets"] = [offset + gap for offset in entry["data_offsets"]]
    return join(header, data + bytes(gap))


HEADERS: dict[str, tuple[Callable[[Header, bytes], bytes], str]] = {
    "tensor twice": (_twice, f"key '{NAME}' stands twice"),
    "aliased tensor": (lambda h, d: join(h | {"other": h[NAME]}, d), "a gap or an overlap"),
    "gap": (lambda h, d: _moved(h, d, 8), "a gap or an overlap"),
    "metadata is a list": (
        lambda h, d: join(h | {"__metadata__": []}, d),
        r"__metadata__: \[\], expected a map of texts",
    ),
    "metadata of numbers": (lambda h, d: join(h | {"__metadata__": {"a": 1}}, d), "expected a map of texts"),
    "long name": (lambda h, d: join(h | {"x" * 1025: h[NAME]}, d), "a name of more than 1024 bytes"),
    "name with control characters": (lambda h, d: join({"a\x1b[2J\n": h[NAME]}, d[:96]), r"\\x1b\[2J\\n"),
    "name of half a character": (lambda h, d: join({"\ud800": {}}, d), r"\\ud800"),
    "no name": (lambda h, d: join({"": h[NAME] | {"data_offsets": [0, 96]}}, d[:96]), "unexpected ''"),
    "of TensorFlow": (lambda h, d: join(h | {"__metadata__": {"format": "tf"}}, d), "no name of this layout"),
    "of Flax": (lambda h, d: join(h | {"__metadata__": {"format": "flax"}}, d), "no name of this layout"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_header_that_is_wrong(case: str, good: Path) -> None:
    change, fault = HEADERS[case]
    (good / WEIGHTS).write_bytes(change(*split((good / WEIGHTS).read_bytes())))
    refusal(good, r"model\.safetensors", fault)


def test_too_many_tensors(good: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    (good / WEIGHTS).write_bytes(join({f"t{i}": entry for i in range(limits.MAX_TENSORS + 1)}, b""))
    assert len(refusal(good, "100001 tensors, expected at most 100000")) < 300


def test_header_without_metadata_is_fine(good: Path) -> None:
    header, data = split((good / WEIGHTS).read_bytes())
    del header["__metadata__"]
    (good / WEIGHTS).write_bytes(join(header, data))
    assert len(load(good)) == 28


# Tensors that do not fit the model

PREFIXED = "transformer."
T_WPE, T_LN, T_ATTN = "transformer.wpe.weight", "transformer.ln_f.bias", "transformer.h.1.attn.c_proj.weight"
MISFITS: dict[str, tuple[Callable[[Arrays], Any], str]] = {
    "missing": (lambda t: t.pop(T_LN), rf"model\.safetensors: missing {T_LN}"),
    "missing, with a buffer of like name": (
        lambda t: t.update({"h.0.attn.bias": t.pop("transformer.h.0.attn.c_attn.bias")}),
        r"missing transformer\.h\.0\.attn\.c_attn\.bias",
    ),
    "unknown": (lambda t: t.update(surplus=t[T_LN]), r"model\.safetensors: unexpected surplus"),
    "misnamed": (lambda t: t.update({"transformer.ln_f.beta": t.pop(T_LN)}), r"unexpected transformer\.ln_f\.beta"),
    "block number with a zero": (lambda t: t.update({"h.01.ln_1.bias": t[T_LN]}), r"unexpected h\.01\.ln_1\.bias"),
    "prefix twice": (lambda t: t.update({PREFIXED + T_LN: t[T_LN]}), r"unexpected transformer\.transformer\."),
    "prefix of another tool": (lambda t: t.update({"module." + T_LN: t.pop(T_LN)}), r"unexpected module\."),
    "prefix on a head": (lambda t: t.update({"transformer.score.weight": t[T_WPE]}), r"unexpected transformer\.score"),
    "prefix on the own head": (
        lambda t: t.update({"transformer.lm_head.weight": t["transformer.wte.weight"]}),
        r"unexpected transformer\.lm_head\.weight",
    ),
    "both spellings": (lambda t: t.update({"ln_f.bias": t[T_LN]}), r"ln_f\.bias: stored twice, also as .*ln_f\.bias"),
    "transposed": (
        lambda t: t.update({T_WPE: t[T_WPE].T.copy()}),
        r"wpe\.weight: shape \(8, 7\), expected \(7, 8\) \(n_positions n_embd\), looks transposed",
    ),
    "misshapen": (
        lambda t: t.update({T_LN: np.zeros((1, 8), np.float32)}),
        r"ln_f\.bias: shape \(1, 8\), expected \(8,\) \(n_embd\)$",
    ),
    "integers": (
        lambda t: t.update({T_LN: np.zeros(8, np.int32)}),
        r"ln_f\.bias: dtype int32, expected one of float16",
    ),
    "booleans": (lambda t: t.update({T_LN: np.zeros(8, bool)}), r"ln_f\.bias: dtype bool"),
    "8-bit floats": (lambda t: t.update({T_LN: np.zeros(8, np.dtype("float8_e4m3fn"))}), "dtype float8_e4m3fn"),
    "complex": (lambda t: t.update({T_LN: np.zeros(8, np.complex64)}), "dtype complex64"),
    "one block less": (
        lambda t: [t.pop(name) for name in list(t) if ".h.1." in name],
        r"LMHeadModel: n_layer: 2, but missing all of block 1$",
    ),
    "more blocks": (
        lambda t: t.update(
            {n.replace("h.1.", f"h.{i}."): x for n, x in list(t.items()) for i in (2, 3) if "h.1." in n}
        ),
        r"LMHeadModel: n_layer: 2, but there are tensors of block 2 to 3$",
    ),
    "a block far off": (lambda t: t.update({"h.9999999999.ln_1.bias": t[T_LN]}), r"tensors of block 9999999999$"),
    "cross attention": (
        lambda t: t.update({"transformer.h.0.ln_cross_attn.bias": t[T_LN]}),
        r"unexpected transformer\.h\.0\.ln_cross_attn\.bias \(add_cross_attention is false\)",
    ),
    "the other family": (
        lambda t: t.update({"transformer.tokens_embed.weight": t.pop("transformer.wte.weight")}),
        r"unexpected transformer\.tokens_embed\.weight \(a weight of openai-gpt\)",
    ),
    "tied head of another shape": (
        lambda t: t.update({"lm_head.weight": np.zeros((8, 11), np.float32)}),
        r"lm_head\.weight: shape \(8, 11\).*looks transposed",
    ),
    "tied head of another dtype": (
        lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"].astype(np.float64)}),
        r"model\.safetensors: lm_head\.weight: differs from transformer\.wte\.weight",
    ),
    "tied head that differs": (
        lambda t: t.update({"lm_head.weight": -t["transformer.wte.weight"]}),
        r"model\.safetensors: lm_head\.weight: differs from transformer\.wte\.weight",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_tensors_that_do_not_fit(case: str, good: Path) -> None:
    change, fault = MISFITS[case]
    held = lm_tensors()
    change(held)
    (good / WEIGHTS).write_bytes(save(held, {"format": "pt"}))
    refusal(good, fault)
    if "that differs" not in case and "another dtype" not in case:
        assert re.search(fault.replace("LMHeadModel: ", ""), "\n".join(describe(good).problems), re.MULTILINE)


def test_all_misfits_are_listed_at_once(good: Path) -> None:
    held = lm_tensors()
    held |= {T_WPE: held[T_WPE].T.copy(), "surplus": held.pop(T_LN), T_ATTN: held[T_ATTN].astype(np.int8)}
    held["h.1.attn.c_proj.weight"] = held[T_ATTN]
    (good / WEIGHTS).write_bytes(save(held, {"format": "pt"}))
    lines = refusal(good).splitlines()
    assert lines[0] == f"{good} does not fit GPT2LMHeadModel (5 problems):"
    assert lines[1:3] == ["  model.safetensors: unexpected surplus", f"  model.safetensors: missing {T_LN}"]
    assert {line.split()[-1] for line in lines[3:]} == {"float64", f"{T_ATTN.removeprefix(PREFIXED)}", "transposed"}


OTHER_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "fewer layers": ({"n_layer": 1}, "n_layer: 1, but there are tensors of block 1$"),
    "more layers": ({"n_layer": 1024}, "n_layer: 1024, but missing all of block 2 to 1023$"),
    "wider": ({"n_embd": 16}, r"wte\.weight: shape \(11, 8\), expected \(11, 16\) \(vocab_size n_embd\)"),
    "more tokens": (
        {"vocab_size": 50257},
        r"wte\.weight: shape \(11, 8\), expected \(50257, 8\) \(vocab_size n_embd\)",
    ),
    "longer": ({"n_positions": 2**24}, r"wpe\.weight: shape \(7, 8\), expected \(16777216, 8\)"),
    "largest": ({"n_embd": 131072, "n_inner": 2**24, "n_head": 1}, r"expected \(131072, 16777216\) \(n_embd n_mlp\)"),
    "cross attention": ({"add_cross_attention": True}, r"missing transformer\.h\.1\.crossattention\.c_proj\.bias"),
    "narrow MLP": ({"n_inner": 5}, r"mlp\.c_fc\.bias: shape \(32,\), expected \(5,\) \(n_mlp\)"),
}


@pytest.mark.parametrize("case", OTHER_CONFIGS)
def test_config_that_does_not_fit_the_tensors(case: str, good: Path) -> None:
    change, fault = OTHER_CONFIGS[case]
    refusal(good, fault, **change)
    values = json.loads((good / "config.json").read_text())
    (good / "config.json").write_text(json.dumps(values | change))
    refusal(good, fault)


@pytest.mark.parametrize(
    ("head", "held", "fault"),
    [
        ("ForTokenClassification", {"classifier.weight": (2, 8)}, "missing classifier.bias"),
        ("ForQuestionAnswering", {"qa_outputs.bias": (2,)}, "missing qa_outputs.weight"),
        (
            "DoubleHeadsModel",
            {"multiple_choice_head.summary.weight": (1, 8)},
            "missing multiple_choice_head.summary.bias",
        ),
        (
            "ForSequenceClassification",
            {"score.weight": (3, 8)},
            r"score.weight: shape \(3, 8\), expected \(2, 8\) \(num",
        ),
    ],
)
def test_head_that_is_there_in_part(head: str, held: dict[str, Any], fault: str, good: Path) -> None:
    more = {name: np.zeros(shape, np.float32) for name, shape in held.items()}
    (good / WEIGHTS).write_bytes(save(lm_tensors() | more, {"format": "pt"}))
    refusal(good, fault, head=head)


def test_own_weights_that_the_config_does_not_have(good: Path) -> None:
    more = {"multiple_choice_head.summary.weight": np.zeros((1, 8), np.float32)}
    (good / WEIGHTS).write_bytes(save(lm_tensors() | more, {"format": "pt"}))
    refusal(good, r"summary\.weight \(summary_use_proj is false\)", head="DoubleHeadsModel", summary_use_proj=False)
    assert len(load(good, summary_use_proj=False)) == 28


def test_extra_bytes_and_claims_cost_nothing(good: Path) -> None:
    """A sparse file of 40 GB is refused by arithmetic, a tensor of 4 TB before a byte of it is allocated."""
    os.truncate(good / WEIGHTS, 40 * 10**9)
    refusal(good, "bytes of data, expected 7616")
    header, data = split(save(lm_tensors()))
    header[NAME] |= {"shape": [2**40], "data_offsets": [0, 2**42]}
    (good / WEIGHTS).write_bytes(join(header, data))
    refusal(good, "a gap or an overlap|cut off")
