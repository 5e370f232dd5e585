"""Protocol buffers' wire format, as much of it as an index of tensors needs, without two readings of one message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

VARINT, BYTES, FIXED32 = 0, 2, 5

Schema = Mapping[int, tuple[str, int]]  # number of a field -> its name and wire type


class MalformedError(Exception):
    """Bytes are not what their format allows; says what was found and what was expected."""


@dataclass
class Message:
    """The fields of a message by name; a number that is absent is zero."""

    numbers: dict[str, int] = field(default_factory=dict)
    texts: dict[str, list[bytes]] = field(default_factory=dict)

    def number(self, name: str) -> int:
        return self.numbers.get(name, 0)

    def signed(self, name: str) -> int:
        number = self.number(name)
        return number - 2**64 if number >= 2**63 else number

    def many(self, name: str) -> list[bytes]:
        return self.texts.get(name, [])

    def one(self, name: str) -> bytes:
        found = self.many(name)
        if len(found) > 1:
            raise MalformedError(f"{name} stands {len(found)} times, expected once")
        return found[0] if found else b""


def parse(data: bytes, schema: Schema) -> Message:
    """Reads a message that has no fields but those of the schema.

    Raises:
        MalformedError: it has others, a number stands twice, or the bytes are cut off.
    """
    message, place = Message(), 0
    while place < len(data):
        tag, place = varint(data, place)
        name, wire = schema.get(tag >> 3, ("", -1))
        if wire != tag & 7:
            known = ", ".join(name for name, _ in schema.values())
            raise MalformedError(f"field {tag >> 3} of wire type {tag & 7}, expected only {known}")
        if wire == BYTES:
            text, place = _text(data, place, name)
            message.texts.setdefault(name, []).append(text)
            continue
        if name in message.numbers:
            raise MalformedError(f"{name} stands twice")
        message.numbers[name], place = varint(data, place) if wire == VARINT else _fixed32(data, place, name)
    return message


def varint(data: bytes, place: int) -> tuple[int, int]:
    """Returns an unsigned number of at most 64 bits, and where it ends."""
    result = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise MalformedError("cut off within a number")
        byte = data[place]
        place += 1
        result |= (byte & 127) << shift
        if byte < 128:
            break
    if byte >= 128 or result >= 2**64:
        raise MalformedError("a number of more than 64 bits")
    return result, place


def _text(data: bytes, place: int, name: str) -> tuple[bytes, int]:
    length, place = varint(data, place)
    if length > len(data) - place:
        raise MalformedError(f"{name}: {length} bytes, expected at most {len(data) - place} (cut off?)")
    return data[place : place + length], place + length


def _fixed32(data: bytes, place: int, name: str) -> tuple[int, int]:
    if len(data) - place < 4:
        raise MalformedError(f"{name}: cut off")
    return int.from_bytes(data[place : place + 4], "little"), place + 4


def to_varint(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])


def number_field(number: int, value: int) -> bytes:
    """Returns a field, or nothing for zero, which is what an absent one means."""
    return to_varint(number << 3 | VARINT) + to_varint(value) if value else b""


def fixed32_field(number: int, value: int) -> bytes:
    return to_varint(number << 3 | FIXED32) + value.to_bytes(4, "little") if value else b""


def bytes_field(number: int, data: bytes) -> bytes:
    return to_varint(number << 3 | BYTES) + to_varint(len(data)) + data
