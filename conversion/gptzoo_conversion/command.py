"""`gptzoo convert` and `gptzoo verify-certificate`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from gptzoo.checkpoint import Checkpoint
from gptzoo.config import DTYPES
from gptzoo_conversion.formats import FORMATS


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds both commands to a parser."""
    convert = commands.add_parser("convert", help="convert a checkpoint to another format, bit for bit")
    convert.add_argument("source", metavar="SRC", help="a directory, a file, or the name of a model")
    convert.add_argument("target", metavar="DST", help="a directory to be made, or a file such as model.gguf")
    convert.add_argument("--to", required=True, choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    convert.add_argument(
        "--from", dest="from_", choices=FORMATS, metavar="FORMAT", help="default: told from the content"
    )
    convert.add_argument("--config", type=Path, metavar="FILE", help="config.json in place of what SRC says")
    convert.add_argument("--dtype", choices=DTYPES, help="of the numbers (default: as they are, bit for bit)")
    convert.add_argument("--drop", action="store_true", help="leave behind what the format cannot hold")
    convert.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is at DST")
    convert.add_argument("--allow-nonfinite", action="store_true", help="take infinities and NaN as they are")
    convert.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="default: 5GB")
    convert.add_argument("--certificate", type=Path, metavar="FILE", help="write SHA-256 of every tensor to FILE")
    convert.add_argument("--parity", action="store_true", help="also compare what both models compute (slow)")
    convert.add_argument("--quiet", action="store_true", help="print nothing but errors")
    convert.add_argument("--json", action="store_true", help="print JSON")
    convert.set_defaults(run=_convert)

    verify = commands.add_parser("verify-certificate", help="check a certificate against its checkpoints")
    verify.add_argument("certificate", type=Path, metavar="CERTIFICATE")
    verify.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="default: both, where they were")
    verify.set_defaults(run=_verify)


def _convert(args: argparse.Namespace) -> int:
    from gptzoo_conversion.certificate import require_certificate_place, write_certificate
    from gptzoo_conversion.convert import convert

    if args.certificate:
        require_certificate_place(args.certificate, args.source, args.target, args.overwrite)
    with _stopped_by_signals(), _Bar(not args.quiet and sys.stderr.isatty()) as bar:
        result = convert(
            args.source,
            args.target,
            args.to,
            from_=args.from_,
            config=args.config,
            dtype=args.dtype,
            drop=args.drop,
            overwrite=args.overwrite,
            allow_nonfinite=args.allow_nonfinite,
            max_shard_size=args.max_shard_size,
            progress=bar.show,
            verify=_parity if args.parity else None,
        )
        if args.certificate:
            write_certificate(args.certificate, result)
    if args.json:
        _say(json.dumps(result.to_json(), indent=2))
    elif not args.quiet:
        _say(str(result))
    return 0


def _say(text: str) -> None:
    """Prints what was done; where that cannot be printed, it is done all the same."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as problem:
        print(f"gptzoo: standard output: {problem.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in its buffer goes nowhere


def _parity(source: Checkpoint, target: Checkpoint, head: str) -> None:
    from gptzoo.parity import require_same_outputs

    require_same_outputs(source, target, head)


def _verify(args: argparse.Namespace) -> int:
    from gptzoo_conversion.certificate import verify_certificate

    print("\n".join(verify_certificate(args.certificate, args.checkpoint)))
    return 0


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Turns signals that end a process into an exit on which what was begun is removed.

    Those that are ignored stay so, as `nohup` wants it; and once one has come, all are: the removal is not interrupted.
    """
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {n: handler for n in numbers if (handler := signal.getsignal(n)) not in (signal.SIG_IGN, None)}

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Bar:
    """A line on standard error that says how far the work is, for those who watch."""

    WIDTH = 30
    SECONDS = 0.1  # between two drawings

    def __init__(self, shown: bool):
        self.shown, self.last, self.drawn = shown, 0.0, False

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.drawn:
            print("\r" + " " * 79 + "\r", end="", file=sys.stderr, flush=True)

    def show(self, what: str, done: int, total: int) -> None:
        """Draws the line, but not too often."""
        if not self.shown or time.monotonic() - self.last < self.SECONDS:
            return
        self.last, self.drawn = time.monotonic(), True
        part = done / total if total else 1.0
        bar = "#" * int(part * self.WIDTH)
        print(
            f"\r{what:<13} [{bar:<{self.WIDTH}}] {part:4.0%} of {total / 1e6:,.0f} MB",
            end="",
            file=sys.stderr,
            flush=True,
        )
