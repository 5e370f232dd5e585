"""Pickles that want to be more than data: none of them does anything, wherever in a checkpoint it stands."""

from __future__ import annotations

import io
import pickle
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gptzoo import limits
from gptzoo.errors import CheckpointError
from gptzoo_conversion.containers._pickle import PickleError, unpickle
from gptzoo_conversion.containers._pickling import pickled
from gptzoo_conversion.containers._torch_values import SYMBOLS
from gptzoo_conversion.containers.pytorch import read_pytorch
from tests import fuzz

Payload = Callable[[bytes, bytes], bytes]  # of Python's and of the shell's command

HEADER = [pickled(value) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
STATE = pickled({"a": 1})


def in_zip(data: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as writer:
        writer.writestr("x/data.pkl", data)
    return target.getvalue()


def legacy(place: int) -> Callable[[bytes], bytes]:
    """Returns what puts a pickle in the place of one of an old file's five."""
    pickles = [*HEADER, STATE, pickled([])]
    return lambda data: b"".join([*pickles[:place], data, *pickles[place + 1 :]])


PLACES = {
    "zip": in_zip,
    "bare": lambda data: data,
    "magic": legacy(0),
    "version": legacy(1),
    "system": legacy(2),
    "legacy": legacy(3),
    "keys": legacy(4),
    "before_magic": lambda data: data + b"".join(HEADER) + STATE + pickled([]),
    "after_garbage": lambda data: b"garbage" + data,
    "after_stop": lambda data: in_zip(STATE + data),
    "after_the_keys": lambda data: b"".join(HEADER) + STATE + pickled([]) + data,
    "stored_under_another_name": lambda data: in_zip(data).replace(b"x/data.pkl", b"x/constant"),
}


def text(value: bytes) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value


def short(value: bytes) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value + b"\x94"


def memoised(python: bytes, shell: bytes) -> bytes:
    """Takes both parts of the name from the memo, where they came as plain values."""
    names = b"\x80\x04](" + short(b"builtins") + short(b"exec") + b"e"
    return names + b"h\x00h\x01\x93" + text(python) + b"\x85R\x86."


FIRING: dict[str, tuple[Payload, str]] = {
    "exec_as_text": (lambda py, sh: b"c__builtin__\nexec\n(V" + py + b"\ntR.", "__builtin__.exec"),
    "exec": (lambda py, sh: b"\x80\x02c__builtin__\nexec\n" + text(py) + b"\x85R.", "__builtin__.exec"),
    "eval": (lambda py, sh: b"\x80\x03cbuiltins\neval\n" + text(py) + b"\x85R.", "builtins.eval"),
    "os_system": (lambda py, sh: b"\x80\x02cos\nsystem\n" + text(sh) + b"\x85R.", "os.system"),
    "posix_system": (lambda py, sh: b"\x80\x02cposix\nsystem\n" + text(sh) + b"\x85R.", "posix.system"),
    "subprocess": (lambda py, sh: b"\x80\x02csubprocess\ngetoutput\n" + text(sh) + b"\x85R.", "subprocess.getoutput"),
    "dotted_name": (
        lambda py, sh: b"\x80\x04" + short(b"os") + short(b"path.os.system") + b"\x93" + text(sh) + b"\x85R.",
        "os.path.os.system",
    ),
    "getattr_chain": (
        lambda py, sh: b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(Vos\ntRVsystem\ntR(V" + sh + b"\ntR.",
        "builtins.getattr",
    ),
    "nested_call": (
        lambda py, sh: b"\x80\x02ccollections\nOrderedDict\n(cbuiltins\nexec\n" + text(py) + b"\x85RtR.",
        "builtins.exec",
    ),
    "as_a_key": (lambda py, sh: b"\x80\x02}cbuiltins\nexec\n" + text(py) + b"\x85RK\x01s.", "builtins.exec"),
    "inst": (lambda py, sh: b"(V" + py + b"\ni__builtin__\nexec\n.", "__builtin__.exec"),
    "obj": (lambda py, sh: b"(c__builtin__\nexec\nV" + py + b"\no.", "__builtin__.exec"),
    "stack_global": (
        lambda py, sh: b"\x80\x04" + short(b"builtins") + short(b"exec") + b"\x93" + text(py) + b"\x85R.",
        "builtins.exec",
    ),
    "memoised_names": (memoised, "builtins.exec"),
    "setstate": (
        lambda py, sh: b"\x80\x02cargparse\nNamespace\n)R}V__setstate__\ncbuiltins\nexec\nsb" + text(py) + b"b.",
        "argparse.Namespace",
    ),
}  # fmt: skip


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary"


def made(payload: Payload, canary: Path) -> bytes:
    return payload(f"open({str(canary)!r},'w').close()".encode(), f"touch {canary}".encode())


@pytest.mark.parametrize("name", FIRING)
def test_payloads_would_do_something(canary, name):
    """Python's own reader runs each: so the tests below can fail."""
    with suppress(Exception):
        pickle.loads(made(FIRING[name][0], canary))
    assert canary.exists()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", FIRING)
def test_no_payload_runs(tmp_path, canary, name, place):
    payload, wanted = FIRING[name]
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(PLACES[place](made(payload, canary)))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: ") as caught:
        read_pytorch(path)
    assert not canary.exists()
    if place in ("zip", "legacy"):
        assert f"pickle wants {wanted}, which is not a tensor" in str(caught.value)


REFUSED = {
    "bytearray_bomb": (b"\x80\x03cbuiltins\nbytearray\nJ\0\0\0\x40\x85R.", "builtins.bytearray"),
    "bytes_bomb": (b"\x80\x03cbuiltins\nbytes\nJ\0\0\0\x40\x85R.", "builtins.bytes"),
    "numpy": (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R.", "numpy.core.multiarray._reconstruct"),
    "namespace": (b"\x80\x02cargparse\nNamespace\n)\x81.", "argparse.Namespace"),
    "control_characters": (b"\x80\x02ca\x1b[31m\nb\r\n)R.", r"'a\x1b[31m.b\r'"),
    "module_by_dots": (b"\x80\x02ctorch\n_utils._rebuild_qtensor\n)R.", "torch._utils._rebuild_qtensor"),
    "global_not_text": (b"\x80\x04]K\x01\x93.", "pickle wants a list.1"),
    "newobj": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "opcode NEWOBJ at"),
    "newobj_ex": (b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "opcode NEWOBJ_EX at"),
    "obj": (b"(ccollections\nOrderedDict\no.", "opcode OBJ at"),
    "inst": (b"(icollections\nOrderedDict\n.", "instance of collections.OrderedDict"),
    "ext1": (b"\x80\x02\x82\x01.", "opcode EXT1 at 2"),
    "ext2": (b"\x80\x02\x83\x01\0.", "opcode EXT2 at 2"),
    "ext4": (b"\x80\x02\x84\x01\0\0\0.", "opcode EXT4 at 2"),
    "persid": (b"Pstorage\n.", "opcode PERSID at 0"),
    "persistent_text": (b"\x80\x02" + text(b"0") + b"Q.", "persistent id of 0"),
    "persistent_number": (b"\x80\x02K\0Q.", "persistent id of 0"),
    "persistent_module": (b"\x80\x02" + text(b"module") + b"ctorch\nSize\n" + text(b"f") + b"\x87Q.", "id of module"),
    "bytearray8": (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "opcode BYTEARRAY8 at 2"),
    "next_buffer": (b"\x80\x05\x97.", "opcode NEXT_BUFFER at 2"),
    "set": (b"\x80\x04\x8f.", "opcode EMPTY_SET at 2"),
    "long4": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "opcode LONG4 at 2"),
    "unknown_opcode": (b"\x80\x02\xff.", "opcode ff at 2"),
    "pop": (b"\x80\x02NN0.", "opcode POP at 4"),
    "protocol_6": (b"\x80\x06}.", "protocol 6"),
    "build_on_a_symbol": (b"\x80\x02ctorch\nfloat32\n}b.", "sets attributes of torch.float32"),
    "build_with_slots": (b"\x80\x02ccollections\nOrderedDict\n)RN}\x86b.", "sets attributes by a tuple"),
    "call_of_text": (b"\x80\x02" + text(b"exec") + b")R.", "calls exec"),
    "call_with_a_list": (b"\x80\x02ccollections\nOrderedDict\n]R.", "with a list"),
    "append_to_a_dict": (b"\x80\x02}K\x01a.", "appends to a dict"),
    "append_to_a_tuple": (b"\x80\x02)(K\x01e.", "appends to a tuple"),
    "set_in_a_list": (b"\x80\x02]K\x01K\x02s.", "sets a key of a list"),
    "set_in_nothing": (b"\x80\x02K\x01K\x02s.", "sets a key of nothing"),
    "odd_items": (b"\x80\x02}(K\x01u.", "a key without a value"),
    "key_twice": (b"\x80\x02}(K\x01NK\x01Nu.", "the key 1 twice"),
    "key_twice_apart": (b"\x80\x02}" + (text(b"k") + b"Ns") * 2 + b".", "the key k twice"),
    "key_tuple": (b"\x80\x02})Ns.", "a tuple as a key"),
    "key_bool": (b"\x80\x02}\x88Ns.", "True as a key"),
    "key_negative": (b"\x80\x02}J\xff\xff\xff\xffNs.", "-1 as a key"),
    "key_float": (b"\x80\x02}G" + bytes(8) + b"Ns.", "0.0 as a key"),
    "empty_stack": (b"\x80\x02R.", "empty stack"),
    "stop_with_nothing": (b"\x80\x02.", "unfinished"),
    "stop_with_two": (b"\x80\x02}}.", "unfinished"),
    "stop_in_a_mark": (b"\x80\x02(}.", "unfinished"),
    "no_mark": (b"\x80\x02t.", "a mark that is not there"),
    "no_memo": (b"\x80\x02h\x05.", "recalls value 5"),
    "put_of_nothing": (b"\x80\x02q\0.", "remembers a value of an empty stack"),
    "no_stop": (b"\x80\x02}", "cut off"),
    "no_newline": (b"\x80\x02cbuiltins", "no end of a line"),
    "int_text": (b"I1_0\n.", "expected an integer"),
    "int_long_text": (b"I" + b"9" * 1000 + b"\n.", "expected an integer"),
    "float_text": (b"Fx\n.", "expected a number"),
    "index_text": (b"}p-1\n.", "expected an index"),
    "text_not_utf8": (b"\x80\x02X\x01\0\0\0\xff.", "not utf-8"),
    "text_surrogate": (b"V\\ud800\n.", "not raw-unicode-escape"),
    "text_length": (b"\x80\x04\x8d" + b"\xff" * 8 + b".", "cut off"),
    "marks": (b"\x80\x02" + b"(" * 2000 + b".", "more than 1000 marks"),
    "holds_itself": (b"\x80\x02}q\0" + text(b"k") + b"h\0s.", "nested more than"),
    "list_holds_itself": (b"\x80\x02}" + text(b"k") + b"]q\0h\0h\0h\0\x87as.", "nested more than"),
    "deep_tuple": (b"\x80\x02}" + text(b"k") + b")" + b"\x85" * 10_000 + b"s.", "nested more than"),
    "billion_laughs": (b"\x80\x02}" + text(b"k") + b"K\0" + b"q\0h\0\x86" * 60 + b"s.", "holds more than 1000 values"),
    "long_keys": (
        b"\x80\x02}q\0" + text(b"k" * 2**16) + b"q\1" + b"}h\1" * 50 + b"N" + b"s" * 51 + b".",
        "a name of more than 1024 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_checkpoint_needs_is_refused(tmp_path, monkeypatch, name):
    data, words = REFUSED[name]
    if "holds more than" in words:
        monkeypatch.setattr(limits, "MAX_PICKLE_VALUES", 1000)
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(in_zip(data))
    begin = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: ") as caught:
            read_pytorch(path)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - begin < fuzz.SECONDS
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "data", "words"),
    [
        pytest.param("MAX_PICKLE_OPCODES", b"\x80\x02](" + b"N" * 20 + b"e.", "more than 10 opcodes", id="opcodes"),
        pytest.param("MAX_PICKLE_MEMO", b"\x80\x04" + b"N\x94" * 20 + b".", "remembers more than 10", id="memo"),
        pytest.param("MAX_PICKLE_BYTES", b"\x80\x02}" + b"." * 20, "expected at most 10", id="bytes"),
        pytest.param("MAX_TENSORS", None, "more than 10 tensors", id="tensors"),
    ],
)
def test_limits_hold(tmp_path, monkeypatch, limit, data, words):
    monkeypatch.setattr(limits, limit, 10)
    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + b"NK\0tQ"
    one = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\0K\0\x85K\x01\x85tR"
    data = data or b"\x80\x02}" + text(b"k") + b"]" + b"(" + one * 11 + b"es."
    path = tmp_path / "x.bin"
    path.write_bytes(in_zip(data))
    with pytest.raises(CheckpointError, match=words):
        read_pytorch(path)


def test_shared_values_are_read(tmp_path):
    """A pair of numbers that two groups share is no bomb."""
    data = b"\x80\x02}" + text(b"k") + b"](K\1K\2\x86q\0h\0h\0es."
    path = tmp_path / "x.bin"
    path.write_bytes(in_zip(data))
    assert read_pytorch(path).metadata == {"k": [(1, 2)] * 3}


def opcodes(data: bytes, rng: np.random.Generator) -> bytes:
    """Puts random opcodes and names in."""
    parts = [
        bytes([byte])
        for byte in b"().0125FGIJKLMNQRSTUVX]abcdeghijlopqrstu}\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x95"
    ]
    parts += [
        b"cbuiltins\nexec\n",
        b"cos\nsystem\n",
        b"ctorch\nSize\n",
        b"h\0",
        b"K\5",
        b"\x85R",
        text(b"touch canary"),
    ]
    result = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(2, len(result)))
        result[place : place + int(rng.integers(0, 2))] = parts[int(rng.integers(len(parts)))]
    return bytes(result)


@pytest.mark.parametrize("mutate", [fuzz.mutate, opcodes], ids=["bytes", "opcodes"])
def test_fuzzed_pickles(mutate):
    """One error comes out of the machine, whatever the bytes."""
    value = {"a": [1, 2.5, None, (True, "é")], "b": {0: -1, 1: 2**70}}
    states = [pickled(value), pickle.dumps(value, 4), pickle.dumps(value, 1), pickle.dumps(value, 0)]
    rng, seen = np.random.default_rng(0), {"read": 0, "refused": 0}
    for number in range(fuzz.COUNT * 5):
        try:
            unpickle(mutate(states[number % 4], rng), SYMBOLS)
            seen["read"] += 1
        except PickleError:
            seen["refused"] += 1
    assert seen["read"]
    assert seen["refused"]
