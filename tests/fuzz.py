"""Files falsified at random: what a reader may do with them is to read them, or to raise one error in time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gptzoo.errors import CheckpointError, ConversionError

COUNT = int(os.environ.get("GPTZOO_FUZZ", "1000"))  # mutants a reader; nightly runs ask for more
SECONDS = 2.0
MEMORY = 64 * 2**20  # beyond four times the file

_NUMBERS = [0, 1, -1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Returns the data with one to four places falsified; the first bytes, where headers are, more often."""
    result = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        reach = len(result) if rng.random() < 0.5 else min(len(result), 512)
        place = int(rng.integers(0, max(reach, 1)))
        _MUTATIONS[rng.integers(len(_MUTATIONS))](result, place, rng)
    return bytes(result)


def _flip(data: bytearray, place: int, rng: np.random.Generator) -> None:
    if place < len(data):
        data[place] ^= 1 << int(rng.integers(8))


def _byte(data: bytearray, place: int, rng: np.random.Generator) -> None:
    if place < len(data):
        data[place] = int(rng.integers(256))


def _number(data: bytearray, place: int, rng: np.random.Generator) -> None:
    width = int(rng.choice([1, 2, 4, 8]))
    value = _NUMBERS[rng.integers(len(_NUMBERS))] % 2 ** (8 * width)
    data[place : place + width] = value.to_bytes(width, str(rng.choice(["little", "big"])))  # type: ignore[arg-type]


def _cut(data: bytearray, place: int, rng: np.random.Generator) -> None:
    del data[place:]


def _remove(data: bytearray, place: int, rng: np.random.Generator) -> None:
    del data[place : place + int(rng.integers(1, 64))]


def _insert(data: bytearray, place: int, rng: np.random.Generator) -> None:
    data[place:place] = rng.bytes(int(rng.integers(1, 32)))


def _repeat(data: bytearray, place: int, rng: np.random.Generator) -> None:
    data[place:place] = data[place : place + int(rng.integers(1, 128))]


_MUTATIONS = [_flip, _byte, _number, _number, _cut, _remove, _insert, _repeat]


def attack(
    read: Callable[[Path], object],
    data: bytes,
    path: Path,
    count: int = COUNT,
    seed: int = 0,
    mutate: Callable[[bytes, np.random.Generator], bytes] = mutate,
) -> dict[str, int]:
    """Lets a reader read `count` falsified files, and checks the error, the time and the memory of each.

    Args:
        read: opens the file and reads all of its tensors.
        path: where each mutant is written.
        mutate: makes one; by default bytes are falsified wherever they are.

    Returns:
        How many were "read" and how many "refused".
    """
    rng, seen = np.random.default_rng(seed), {"read": 0, "refused": 0}
    path.write_bytes(data)
    read(path)
    for number in range(count):
        mutant = mutate(data, rng)
        path.write_bytes(mutant)
        base = forget_peak()
        begin = time.perf_counter()
        try:
            read(path)
            seen["read"] += 1
        except (CheckpointError, ConversionError) as problem:
            if path.name not in str(problem):
                raise AssertionError(f"mutant {number} of seed {seed}: {problem} names no file") from problem
            seen["refused"] += 1
        except BaseException as problem:
            raise AssertionError(f"mutant {number} of seed {seed}: {problem!r}") from problem
        took = time.perf_counter() - begin
        assert took < SECONDS, f"mutant {number} of seed {seed}: took {took:.1f} s"
        assert peak() - base < MEMORY + 4 * len(mutant), f"mutant {number} of seed {seed}: memory"
    return seen


def forget_peak() -> int:
    """Lets the peak of this process's memory begin anew; returns what it holds now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> int:
    """The most that this process held since `forget_peak`, in bytes."""
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))
