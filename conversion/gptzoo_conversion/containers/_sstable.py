"""LevelDB's table, in which TensorFlow keeps an index: ascending keys and their values in blocks with checksums.

Blocks lie one behind the other, the last of them an index of the others, and a footer says where that one is. In a
block, a key is stored without the beginning that it shares with the one before; at "restarts" it is stored whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gptzoo._files import stand_in
from gptzoo._tensors import shown
from gptzoo.errors import MissingExtraError
from gptzoo_conversion.containers._protobuf import MalformedError, to_varint, varint

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER_BYTES = 48
TRAILER_BYTES = 5  # of a block: how it is compressed, and the checksum

_RESTART_INTERVAL = 16


@dataclass(frozen=True)
class _Handle:
    """Where a block lies, without its trailer."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size + TRAILER_BYTES


def crc32c(data: bytes, crc: int = 0) -> int:
    """Returns the checksum of the bytes whose checksum is `crc`, followed by `data`."""
    try:
        from google_crc32c import extend
    except ImportError:
        raise MissingExtraError("TensorFlow checkpoints need google-crc32c: pip install 'gptzoo[conversion]'") from None
    return int(extend(crc, data))


def masked(crc: int) -> int:
    """Returns a checksum as it is stored; checksums of checksums are said to be weak."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def read_table(data: bytes, max_entries: int, max_key_bytes: int) -> dict[bytes, bytes]:
    """Returns the entries of a table, whose every byte is accounted for.

    Raises:
        MalformedError: says what is wrong; a search by the index of the blocks then finds what this finds.
    """
    if diagnosis := stand_in(data[:64]):
        raise MalformedError(diagnosis)
    if len(data) < FOOTER_BYTES or not data.endswith(MAGIC):
        raise MalformedError(f"not a TensorFlow index, or cut off (ends with {data[-8:]!r}, expected {MAGIC!r})")
    meta, index = _handles(data[-FOOTER_BYTES : -len(MAGIC)], 2)
    entries: dict[bytes, bytes] = {}
    last: bytes | None = None
    end = 0
    for bound, value in _entries(_block(data, index), max_key_bytes):
        (handle,) = _handles(value, 1)
        _require_next(handle, end)
        for key, item in _entries(_block(data, handle), max_key_bytes):
            if last is not None and key <= last:
                raise MalformedError(f"key {_shown(key)} follows {_shown(last)}, expected ascending keys")
            if len(entries) == max_entries:
                raise MalformedError(f"more than {max_entries} entries")
            entries[key], last = item, key
        if last is None or last > bound:
            raise MalformedError(f"index of blocks: key {_shown(bound)}, expected the last one of its block or above")
        last, end = bound, handle.end
    for handle in (meta, index):
        _require_next(handle, end)
        end = handle.end
    _block(data, meta)
    if end != len(data) - FOOTER_BYTES:
        raise MalformedError(f"blocks end at {end}, expected {len(data) - FOOTER_BYTES}, where the footer begins")
    return entries


def _handles(data: bytes, count: int) -> list[_Handle]:
    """Reads where blocks lie; behind that, there may be zeros."""
    handles, place = [], 0
    for _ in range(count):
        offset, place = varint(data, place)
        size, place = varint(data, place)
        handles.append(_Handle(offset, size))
    if any(data[place:]):
        raise MalformedError(f"{data[place:]!r} behind the place of a block, expected nothing")
    return handles


def _require_next(handle: _Handle, end: int) -> None:
    if handle.offset != end:
        raise MalformedError(f"a block at {handle.offset}, expected at {end} (a gap or an overlap)")


def _block(data: bytes, handle: _Handle) -> bytes:
    """Returns the contents of a block whose checksum is right."""
    limit = len(data) - FOOTER_BYTES
    if handle.end > limit:
        raise MalformedError(f"a block of bytes {handle.offset} to {handle.end}, expected to end at most at {limit}")
    end = handle.end - TRAILER_BYTES
    stored = int.from_bytes(data[end + 1 : handle.end], "little")
    found = masked(crc32c(data[handle.offset : end + 1]))
    if found != stored:
        raise MalformedError(f"block at {handle.offset}: checksum {found:#010x}, expected {stored:#010x} (damaged)")
    if kind := data[end]:
        name = "snappy" if kind == 1 else f"type {kind}"
        raise MalformedError(f"block at {handle.offset}: compressed ({name}), expected an uncompressed one")
    return data[handle.offset : end]


def _entries(block: bytes, max_key_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields the entries of a block, and checks its restarts."""
    end = _restarts_begin(block)
    body, heads, key, place = block[:end], [], b"", 0
    while place < end:
        start = place
        shared, place = varint(body, place)
        unshared, place = varint(body, place)
        length, place = varint(body, place)
        if shared > len(key) or unshared + length > end - place:
            raise MalformedError(f"entry behind {_shown(key)}: sizes beyond its block")
        if shared + unshared > max_key_bytes:
            raise MalformedError(f"a key of {shared + unshared} bytes, expected at most {max_key_bytes}")
        key = key[:shared] + body[place : place + unshared]
        if not shared:
            heads.append(start)
        place += unshared + length
        yield key, body[place - length : place]
    _check_restarts(block[end:-4], heads or [0])


def _restarts_begin(block: bytes) -> int:
    count = int.from_bytes(block[-4:], "little")
    if len(block) < 8 or not 1 <= count <= len(block) // 4 - 1:
        raise MalformedError(f"block of {len(block)} bytes: {count} restarts, expected some that fit")
    return len(block) - 4 * (count + 1)


def _check_restarts(data: bytes, heads: Sequence[int]) -> None:
    """Restarts are where a search begins: each must be an entry with a whole key."""
    places = [int.from_bytes(data[i : i + 4], "little") for i in range(0, min(len(data), 4 * len(heads) + 4), 4)]
    ascend = all(a < b for a, b in pairwise(places))
    if not ascend or places[0] or not set(places) <= set(heads):
        raise MalformedError("restarts of a block, expected ascending places of entries with whole keys")


def write_table(entries: Mapping[bytes, bytes]) -> bytes:
    """Returns a table of one block; its bytes are TensorFlow's as long as that would not begin a second block."""
    items = sorted(entries.items())
    data = _with_trailer(_to_block(items, _RESTART_INTERVAL))
    meta = _with_trailer(_to_block([], 1))
    bound = bytes(byte + 1 for byte in items[-1][0][:1])  # keys are UTF-8, so no byte is 255
    index = _with_trailer(_to_block([(bound, _to_handle(0, data))], 1))
    handles = _to_handle(len(data), meta) + _to_handle(len(data) + len(meta), index)
    return data + meta + index + handles.ljust(FOOTER_BYTES - len(MAGIC), b"\0") + MAGIC


def _to_block(items: Sequence[tuple[bytes, bytes]], interval: int) -> bytes:
    block, restarts, previous = bytearray(), [0], b""
    for number, (key, value) in enumerate(items):
        shared = _shared(previous, key) if number % interval else 0
        if number and not number % interval:
            restarts.append(len(block))
        block += to_varint(shared) + to_varint(len(key) - shared) + to_varint(len(value)) + key[shared:] + value
        previous = key
    return bytes(block) + b"".join(number.to_bytes(4, "little") for number in [*restarts, len(restarts)])


def _shared(a: bytes, b: bytes) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _to_handle(offset: int, block: bytes) -> bytes:
    return to_varint(offset) + to_varint(len(block) - TRAILER_BYTES)


def _with_trailer(block: bytes) -> bytes:
    return block + b"\0" + masked(crc32c(block + b"\0")).to_bytes(4, "little")


def _shown(key: bytes) -> str:
    return shown(key.decode(errors="backslashreplace"))
