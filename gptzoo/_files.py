"""Files opened with care, and written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any, BinaryIO

from gptzoo.errors import CheckpointError

Move = tuple[Path, Path]  # from, to

_UNLOCKED = re.compile(r"\.gptzoo-[0-9]+-[0-9a-f]{8}\.tmp")
_DAY = 86_400.0  # seconds


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turns the faults of disks and memory into one line that names `path`."""
    try:
        yield
    except OSError as problem:
        raise CheckpointError(f"{path}: {problem.strerror or problem}") from None
    except MemoryError:
        raise CheckpointError(f"{path}: not enough memory") from None


def open_regular(path: Path) -> FileIO:
    """Opens a regular file, or a link to one; never waits on a pipe or a device."""
    _require_regular(path, path.stat().st_mode)
    file = open(path, "rb", buffering=0, opener=_without_waiting)  # noqa: SIM115  # the caller closes it
    try:
        _require_regular(path, os.fstat(file.fileno()).st_mode)
    except CheckpointError:
        file.close()
        raise
    return file


def stand_in(start: bytes, wanted: str = "the weights") -> str | None:
    """Says what a file is that stands where a download should; None if it begins as no such file does."""
    if start.startswith(b"version https://git-lfs"):
        return f"this is a git-lfs pointer, not {wanted} (run: git lfs pull)"
    return f"this is a web page, not {wanted}" if start.lstrip().startswith(b"<") else None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path}: not a regular file")


def require_writable(path: Path) -> None:
    """Checks that `write_file` can write here, as far as this can be told beforehand; writes and makes nothing.

    Raises:
        CheckpointError: its directory is absent or cannot be written to, or there is something other than a file.
    """
    require_possible(path)
    with naming(path):
        if not path.parent.is_dir():
            raise CheckpointError(f"{path}: {path.parent} is not a directory")
        if path.is_dir():
            raise CheckpointError(f"{path}: a directory, expected a file or nothing")
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(path.lstat().st_mode):  # it would be replaced, and not written to
                raise CheckpointError(f"{path}: a link, pipe or device, expected a file or nothing")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise CheckpointError(f"{path}: {path.parent} cannot be written to")


def require_possible(path: Path) -> None:
    """Checks that a path can be given to the operating system at all.

    Raises:
        CheckpointError: it cannot.
    """
    with suppress(UnicodeEncodeError):
        if b"\0" not in os.fsencode(path):
            return
    raise CheckpointError(f"{str(path)!r}: not a usable path")


def write_file(path: Path, data: bytes) -> None:
    """Writes a file that is there with all of `data` or not at all; makes the directory if absent.

    Raises:
        CheckpointError: it cannot be written; what was there before is unchanged.
    """
    with naming(path), _parents(path):
        temporary = _temporary_in(path.parent)
        try:
            write_synced(temporary, lambda file: file.write(data))
            _move([(temporary, path)])
        finally:
            temporary.unlink(missing_ok=True)


def write_synced(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a new file to the disk itself, past the operating system's buffers."""
    with BufferedWriter(_PiecewiseFile(path, "xb")) as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


class _PiecewiseFile(FileIO):
    """Writes little at a time: a MiB or more at once took three to ten times as long where it was measured."""

    PIECE = 2**17

    def write(self, data: Any, /) -> int:
        return super().write(memoryview(data)[: self.PIECE])


def save_files(directory: Path, write: Callable[[Path], None], ours: re.Pattern[str], last: str) -> None:
    """Writes a set of files into a directory, all or nothing.

    A new directory appears by one rename. In an existing one, the old set is moved away, `last` first, and the new one
    moved in, `last` last: a reader who needs `last` never sees half of one set and half of the other.

    Args:
        directory: made if absent; other files in it are left alone.
        write: writes the set into the empty directory that it is given.
        ours: names of the set's files, `last` included; those of an earlier set go.
        last: the file without which the others are not read.

    Raises:
        CheckpointError: something could not be written; the directory is as it was.
    """
    with naming(directory), _parents(directory):
        exists = _is_directory(directory)
        old = _old_files(directory, ours) if exists else []
        place = directory if exists else directory.parent
        with _staging(place) as stage:
            write(stage)
            _sync_directory(stage)
            if exists:
                _replace(directory, old, stage, last)
            else:
                _move([(stage, directory)])
        _remove_leftovers(place)


@contextmanager
def _staging(place: Path) -> Iterator[Path]:
    """Makes an empty directory in `place`, which goes at the end.

    Where locks can be had, it is locked as long as this process lives, and only then has the name of a leftover that
    others may remove. (A process number would not do: in another container or on another machine it is no one's.)
    """
    new, boot = _temporary_in(place), _boot()
    stage = place / f".gptzoo-{boot}-{secrets.token_hex(4)}.tmp"
    try:
        new.mkdir()
        with _lock(new) as locked:
            try:
                if locked and boot:
                    new.rename(stage)
                else:
                    stage = new
                yield stage
            finally:
                _remove(stage)  # under the lock: its `.old` may hold what could not move back
    finally:
        _remove(new)  # there only if a signal came in between


def _remove(directory: Path) -> None:
    """Removes a directory, and goes on doing so where a signal interrupts it."""
    try:
        shutil.rmtree(directory, ignore_errors=True)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _remove_leftovers(place: Path) -> None:
    """Removes what saves left in `place` whose process was killed, as far as this is certain.

    A leftover is removed if it was made under this very kernel and its lock is free, so that whoever made it is gone.
    An `.old` whose `.tmp` is gone stays: it is what a save could not move back. What was never locked is empty, and
    goes when it is a day old.
    """
    pattern = re.compile(rf"\.gptzoo-{re.escape(_boot())}-[0-9a-f]{{8}}\.tmp")
    with suppress(OSError):
        names = os.listdir(place)
        for name in filter(_UNLOCKED.fullmatch, names):
            with suppress(OSError):
                if time.time() - (place / name).lstat().st_mtime > _DAY:
                    (place / name).rmdir()
        for name in filter(pattern.fullmatch, names):
            with _lock(place / name) as free:
                if free:
                    shutil.rmtree((place / name).with_suffix(".old"), ignore_errors=True)
                    shutil.rmtree(place / name, ignore_errors=True)


def _boot() -> str:
    """Identifies the running kernel, the same in all of its containers; empty where there is no such thing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@contextmanager
def _lock(directory: Path) -> Iterator[bool]:
    """Locks a directory for the body, or until the process dies; tells whether it could, and never waits."""
    descriptor = _open_locked(directory)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open_locked(directory: Path) -> int | None:
    try:
        import fcntl  # absent on Windows

        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_directory(path: Path) -> bool:
    if os.path.lexists(path) and not path.is_dir():
        raise CheckpointError(f"{path}: not a directory")
    return path.is_dir()


def _old_files(directory: Path, ours: re.Pattern[str]) -> list[str]:
    names = sorted(name for name in os.listdir(directory) if ours.fullmatch(name))
    for name in names:
        if (directory / name).is_dir():
            raise CheckpointError(f"{directory / name}: a directory, expected a file or nothing")
    return names


def _replace(directory: Path, old: Sequence[str], stage: Path, last: str) -> None:
    """Moves the files of `stage` into `directory`, whose `old` ones go."""
    backup = stage.with_suffix(".old")
    away = sorted(old, key=lambda name: name != last)
    coming = sorted(os.listdir(stage), key=lambda name: (name == last, name))
    backup.mkdir()
    try:
        _move([(directory / n, backup / n) for n in away] + [(stage / n, directory / n) for n in coming])
    except BaseException:
        backup.rmdir()  # empty again
        raise
    shutil.rmtree(backup, ignore_errors=True)


def _move(moves: Sequence[Move]) -> None:
    """Renames in order, each on disk before the next begins; on an error, undoes those already made."""
    try:
        for source, target in moves:
            os.replace(source, target)
            _sync_directory(target.parent)
            _sync_directory(source.parent)
    except BaseException:
        for source, target in reversed(moves):
            if not os.path.lexists(source) and os.path.lexists(target):
                os.replace(target, source)
        raise


def _sync_directory(path: Path) -> None:
    if os.name == "nt":  # no handle on a directory can be had there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_in(place: Path) -> Path:
    return place / f".gptzoo-{os.getpid()}-{secrets.token_hex(4)}.tmp"


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Makes the directories above `path`; those that were made go again if the body fails."""
    require_possible(path)
    missing = [parent for parent in path.parents if not parent.exists()]  # innermost first
    try:
        if missing:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def publish(target: Path, write: Callable[[Path], None], file: str | None = None, overwrite: bool = False) -> None:
    """Makes a directory, or a file, that is there whole or not at all.

    Args:
        target: the directory above it is made if absent.
        write: writes into the empty directory that it is given, and may raise if it finds what it wrote wrong.
        file: name of the one file in it that becomes `target`; None: the directory itself does.
        overwrite: whether what is at `target` is replaced; otherwise it is an error that there is something.

    Raises:
        CheckpointError: something could not be written; what was there before is unchanged.
    """
    with naming(target), _parents(target), _staging(target.parent) as stage:
        new = stage / "new"
        new.mkdir()
        write(new)
        for directory, _, _ in os.walk(new, topdown=False):
            _sync_directory(Path(directory))
        _put(new / file if file else new, target, stage / "old", overwrite)
    _remove_leftovers(target.parent)


def _put(new: Path, target: Path, old: Path, overwrite: bool) -> None:
    """Renames `new` to `target`; what is there is replaced in one step where the system can do that."""
    exists = os.path.lexists(target)
    if exists and not overwrite:
        raise CheckpointError(f"{target}: exists (--overwrite replaces it)")
    flags = _RENAME_EXCHANGE if exists else _RENAME_NOREPLACE
    if _rename(new, target, flags):
        try:
            _sync_directory(target.parent)
        except BaseException:
            _rename(target, new, flags)
            raise
    elif not exists:
        _move([(new, target)])
    else:
        aside = _temporary_in(target.parent).with_suffix(".old")  # after a crash no one takes it for a leftover
        _move([(target, aside), (new, target)])
        os.rename(aside, old)


_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2


def _rename(source: Path, target: Path, flags: int) -> bool:
    """Renames as Linux' renameat2 does; returns whether there is such a call for this file system."""
    import ctypes

    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here = -100  # AT_FDCWD
    if call(here, os.fsencode(source), here, os.fsencode(target), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(target))
