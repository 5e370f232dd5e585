"""Pickles of plain values and of names to be called, written so that equal values give equal bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gptzoo import limits
from gptzoo._tensors import shown
from gptzoo_conversion.containers._pickle import PickleError, described, is_key


@dataclass(frozen=True)
class Call:
    """In what is pickled: a name that the reader is to call."""

    module: str
    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Name:
    """In what is pickled: a name by itself."""

    module: str
    name: str


@dataclass(frozen=True)
class Persistent:
    """In what is pickled: a persistent id."""

    value: tuple[Any, ...]


@dataclass(frozen=True)
class Ordered:
    """In what is pickled: a `collections.OrderedDict`."""

    items: Mapping[str, Any]


def pickled(value: Any) -> bytes:
    """Returns the pickle, of protocol 2 and without a memo, of plain values and the four kinds above.

    Raises:
        PickleError: there is something else in it.
    """
    return b"\x80\x02" + b"".join(_pickled(value, limits.MAX_PICKLE_NESTING)) + b"."


def _pickled(value: Any, depth: int) -> Iterator[bytes]:
    if depth < 0:
        raise PickleError(f"values nested more than {limits.MAX_PICKLE_NESTING} deep")
    kind = type(value)
    if kind in _SCALARS:
        yield _SCALARS[kind](value)
    elif kind is Name:
        yield f"c{value.module}\n{value.name}\n".encode("ascii")
    elif kind is Call:
        yield from _pickled(Name(value.module, value.name), depth - 1)
        yield from _pickled(value.arguments, depth - 1)
        yield b"R"
    elif kind is Persistent:
        yield from _pickled(value.value, depth - 1)
        yield b"Q"
    elif kind is Ordered:
        yield from _pickled(Call("collections", "OrderedDict", ()), depth - 1)
        yield from _marked_items(value.items, depth)
    elif kind is dict:
        yield b"}"
        yield from _marked_items(value, depth)
    elif kind is list:
        yield from _between(b"](", value, b"e", depth)
    elif kind is tuple:
        yield from _between(b"(", value, b"t", depth)
    else:
        raise PickleError(f"a {kind.__name__}, expected plain values")


def _marked_items(items: Mapping[Any, Any], depth: int) -> Iterator[bytes]:
    if faulty := [key for key in items if not is_key(key)]:
        raise PickleError(f"{described(faulty[0])} as a key, expected text or a small integer")
    yield from _between(b"(", [part for pair in items.items() for part in pair], b"u", depth)


def _between(begin: bytes, values: list[Any] | tuple[Any, ...], end: bytes, depth: int) -> Iterator[bytes]:
    yield begin
    for value in values:
        yield from _pickled(value, depth - 1)
    yield end


def _text(value: str) -> bytes:
    try:
        text = value.encode()
    except UnicodeEncodeError:
        raise PickleError(f"{shown(value)}, expected text that UTF-8 can hold") from None
    return b"X" + len(text).to_bytes(4, "little") + text


def _integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    width = value.bit_length() // 8 + 1
    if width > 255:
        raise PickleError(f"an integer of {width} bytes, expected at most 255")
    return b"\x8a" + bytes([width]) + value.to_bytes(width, "little", signed=True)


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"N",
    bool: lambda value: b"\x88" if value else b"\x89",
    int: _integer,
    float: lambda value: b"G" + struct.pack(">d", value),
    str: _text,
}
