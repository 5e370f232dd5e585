"""Pickles as data: a machine that builds plain values from a stream and never calls what the stream names.

A name in the stream is looked up in the caller's table, which says what may stand there and what it builds; opcodes
that no plain value needs do not exist here.
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gptzoo import limits
from gptzoo._tensors import shown

_INTEGER = re.compile(rb"-?[0-9]{1,100}")
_OPCODES = {op.code.encode("latin-1"): op.name for op in pickletools.opcodes}
_INDEX = re.compile(rb"[0-9]{1,9}")


class PickleError(ValueError):
    """A pickle is damaged, or wants what is refused; the text says what, and names no file."""


@dataclass(frozen=True)
class Symbol:
    """What stands for a name in a pickle.

    Attributes:
        build: gets the arguments (a tuple) that the stream calls the name with; None: it may not be called.
    """

    name: str
    build: Callable[[tuple[Any, ...]], Any] | None = None


def unpickle(
    data: bytes, symbols: Mapping[str, Symbol], persistent: Callable[[Any], Any] | None = None, start: int = 0
) -> tuple[Any, int]:
    """Returns the value of the pickle at `start`, and where it ends.

    Its dicts and lists may hold themselves, and share parts: whoever follows them must count.

    Args:
        symbols: dotted name -> what stands for it.
        persistent: what builds a value of a persistent id.

    Raises:
        PickleError: alone, whatever the bytes.
    """
    machine = _Machine(data, symbols, persistent, start)
    return machine.run(), machine.place


def described(value: Any) -> str:
    """Returns what a value of a pickle is, without following it."""
    if value is None or type(value) in (bool, int, float, str):
        return shown(value)
    if isinstance(value, Symbol):
        return shown(value.name)
    return f"a {type(value).__name__.lower()}"


def is_key(value: Any) -> bool:
    """Tells whether a value may be a key of a dict. (Large integers can be chosen so that their hashes are equal.)"""
    return type(value) is str or (type(value) is int and 0 <= value < 2**31)


class _Machine:
    def __init__(self, data: bytes, symbols: Mapping[str, Symbol], persistent: Callable[[Any], Any] | None, start: int):
        self.place = start
        self._data = data
        self._symbols = symbols
        self._persistent = persistent
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks put aside by MARK
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(limits.MAX_PICKLE_OPCODES):
            begin = self.place
            code = self._take(1)
            if code == b".":
                return self._result()
            step = _STEPS.get(code)
            if step is None:
                raise PickleError(f"pickle opcode {_OPCODES.get(code, code.hex())} at {begin}; refused")
            step(self)
        raise PickleError(f"pickle of more than {limits.MAX_PICKLE_OPCODES} opcodes")

    def _result(self) -> Any:
        if len(self._stack) != 1 or self._below:
            raise PickleError("pickle stops with unfinished values")
        return self._stack[0]

    def _take(self, count: int) -> bytes:
        begin, self.place = self.place, self.place + count
        if self.place > len(self._data):
            raise PickleError(f"pickle is cut off: {count} bytes wanted at {begin}, {len(self._data)} in all")
        return self._data[begin : self.place]

    def _number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _line(self) -> bytes:
        end = self._data.find(b"\n", self.place, self.place + limits.MAX_NAME_BYTES)
        if end < 0:
            raise PickleError(f"pickle has no end of a line after {self.place}")
        line, self.place = self._data[self.place : end], end + 1
        return line

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack:
            raise PickleError(f"pickle takes a value from an empty stack before {self.place}")
        return self._stack.pop()

    def _top(self, kind: type, verb: str) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            found = described(self._stack[-1]) if self._stack else "nothing"
            raise PickleError(f"pickle {verb} {found} before {self.place}, expected a {kind.__name__}")
        return self._stack[-1]

    def mark(self) -> None:
        if len(self._below) >= limits.MAX_PICKLE_DEPTH:
            raise PickleError(f"pickle is more than {limits.MAX_PICKLE_DEPTH} marks deep")
        self._below.append(self._stack)
        self._stack = []

    def _marked(self) -> list[Any]:
        if not self._below:
            raise PickleError(f"pickle goes back to a mark that is not there before {self.place}")
        items, self._stack = self._stack, self._below.pop()
        return items

    def protocol(self) -> None:
        if (version := self._number(1)) > 5:
            raise PickleError(f"pickle protocol {version}, expected at most 5")

    def frame(self) -> None:
        self._number(8)  # a hint for buffers

    def integer(self) -> None:
        line = self._line()
        if not _INTEGER.fullmatch(line.removesuffix(b"L")):
            raise PickleError(f"pickle has {line[:40]!r}, expected an integer")
        self.push({b"00": False, b"01": True}.get(line, int(line.removesuffix(b"L"))))

    def fixed_integer(self, width: int, signed: bool = False) -> None:
        self.push(int.from_bytes(self._take(width), "little", signed=signed))

    def long(self) -> None:
        self.fixed_integer(self._number(1), signed=True)

    def text_float(self) -> None:
        line = self._line()
        try:
            self.push(float(line))
        except ValueError:
            raise PickleError(f"pickle has {line[:40]!r}, expected a number") from None

    def real(self) -> None:
        self.push(struct.unpack(">d", self._take(8))[0])

    def text(self, width: int) -> None:
        self.push(self._decoded(self._take(self._number(width)), "utf-8"))

    def text_line(self) -> None:
        self.push(self._decoded(self._line(), "raw-unicode-escape"))

    def _decoded(self, text: bytes, encoding: str) -> str:
        try:
            decoded = text.decode(encoding)
            decoded.encode()  # half of a surrogate pair comes in, but would not go out
            return decoded
        except UnicodeError:
            raise PickleError(f"pickle has text before {self.place} that is not {encoding}") from None

    def bytes(self, width: int) -> None:
        self.push(self._take(self._number(width)))

    def tuple(self, length: int) -> None:
        items = [self._pop() for _ in range(length)]
        self.push(tuple(reversed(items)))

    def marked_tuple(self) -> None:
        self.push(tuple(self._marked()))

    def marked_list(self) -> None:
        self.push(self._marked())

    def marked_dict(self) -> None:
        items = self._marked()
        self.push({})
        self._set(items)

    def append(self) -> None:
        value = self._pop()
        self._top(list, "appends to").append(value)

    def appends(self) -> None:
        items = self._marked()
        self._top(list, "appends to").extend(items)

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def set_items(self) -> None:
        self._set(self._marked())

    def _set(self, items: list[Any]) -> None:
        target = self._top(dict, "sets a key of")
        if len(items) % 2:
            raise PickleError(f"pickle has a key without a value before {self.place}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not is_key(key):
                raise PickleError(f"pickle has {described(key)} as a key, expected text or a small integer")
            if key in target:
                raise PickleError(f"pickle has the key {shown(key)} twice in one dict")
            target[key] = value

    def put(self, index: int) -> None:
        if not self._stack:
            raise PickleError(f"pickle remembers a value of an empty stack before {self.place}")
        if len(self._memo) >= limits.MAX_PICKLE_MEMO:
            raise PickleError(f"pickle remembers more than {limits.MAX_PICKLE_MEMO} values")
        self._memo[index] = self._stack[-1]

    def put_fixed(self, width: int) -> None:
        self.put(self._number(width))

    def put_next(self) -> None:
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise PickleError(f"pickle recalls value {index} before {self.place}, which is not there")
        self.push(self._memo[index])

    def get_fixed(self, width: int) -> None:
        self.get(self._number(width))

    def _index(self) -> int:
        line = self._line()
        if not _INDEX.fullmatch(line):
            raise PickleError(f"pickle has {line[:40]!r}, expected an index")
        return int(line)

    def text_put(self) -> None:
        self.put(self._index())

    def text_get(self) -> None:
        self.get(self._index())

    def name(self) -> None:
        self._look_up(self._decoded(self._line(), "utf-8"), self._decoded(self._line(), "utf-8"))

    def stack_name(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise PickleError(f"pickle wants {described(module)}.{described(name)}, expected a name; refused")
        self._look_up(module, name)

    def instance(self) -> None:
        self.name()
        raise PickleError(f"pickle makes an instance of {described(self._pop())}; refused")

    def _look_up(self, module: str, name: str) -> None:
        symbol = self._symbols.get(f"{module}.{name}")
        if symbol is None:
            raise PickleError(
                f"pickle wants {shown(f'{module}.{name}')}, which is not a tensor of plain numbers; refused"
            )
        self.push(symbol)

    def reduce(self) -> None:
        arguments, symbol = self._pop(), self._pop()
        if not isinstance(symbol, Symbol) or symbol.build is None or type(arguments) is not tuple:
            raise PickleError(f"pickle calls {described(symbol)} with {described(arguments)}; refused")
        self.push(symbol.build(arguments))

    def build(self) -> None:
        """Drops the attributes of a dict: the versions of modules, in a state dict."""
        state = self._pop()
        self._top(dict, "sets attributes of")
        if type(state) is not dict:
            raise PickleError(f"pickle sets attributes by {described(state)}, expected a dict; refused")

    def persistent_id(self) -> None:
        if self._persistent is None:
            raise PickleError(f"pickle has a persistent id before {self.place}, expected none; refused")
        self.push(self._persistent(self._pop()))


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"\x95": _Machine.frame,
    b"(": _Machine.mark,
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b"I": _Machine.integer,
    b"L": _Machine.integer,
    b"J": lambda machine: machine.fixed_integer(4, signed=True),
    b"K": lambda machine: machine.fixed_integer(1),
    b"M": lambda machine: machine.fixed_integer(2),
    b"\x8a": _Machine.long,
    b"F": _Machine.text_float,
    b"G": _Machine.real,
    b"V": _Machine.text_line,
    b"X": lambda machine: machine.text(4),
    b"\x8c": lambda machine: machine.text(1),
    b"\x8d": lambda machine: machine.text(8),
    b"T": lambda machine: machine.text(4),  # Python 2's str, which its PyTorch wrote names with
    b"U": lambda machine: machine.text(1),
    b"B": lambda machine: machine.bytes(4),
    b"C": lambda machine: machine.bytes(1),
    b"\x8e": lambda machine: machine.bytes(8),
    b"}": lambda machine: machine.push({}),
    b"]": lambda machine: machine.push([]),
    b")": lambda machine: machine.push(()),
    b"\x85": lambda machine: machine.tuple(1),
    b"\x86": lambda machine: machine.tuple(2),
    b"\x87": lambda machine: machine.tuple(3),
    b"t": _Machine.marked_tuple,
    b"l": _Machine.marked_list,
    b"d": _Machine.marked_dict,
    b"a": _Machine.append,
    b"e": _Machine.appends,
    b"s": _Machine.set_item,
    b"u": _Machine.set_items,
    b"p": _Machine.text_put,
    b"q": lambda machine: machine.put_fixed(1),
    b"r": lambda machine: machine.put_fixed(4),
    b"\x94": _Machine.put_next,
    b"g": _Machine.text_get,
    b"h": lambda machine: machine.get_fixed(1),
    b"j": lambda machine: machine.get_fixed(4),
    b"c": _Machine.name,
    b"\x93": _Machine.stack_name,
    b"i": _Machine.instance,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
    b"Q": _Machine.persistent_id,
}
