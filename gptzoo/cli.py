"""The command line: gptzoo demo | generate | run | score | inspect | parity | convert | verify-certificate.

Exit code 0: done, and everything agrees. 1: parity failed. 2: bad input, or nothing to run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from gptzoo._generate import add_generate_arguments
from gptzoo._run import add_run_arguments
from gptzoo._score import add_score_arguments
from gptzoo.errors import GPTZooError
from gptzoo.hub import DEFAULT_MODEL

MAX_MESSAGE = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; bad input ends in one line on standard error, never in a traceback."""
    _quiet_frameworks()
    _repair_streams()
    try:
        args = _parser().parse_args(argv)
        code: int = args.run(args)
        print(end="", flush=True)  # now, while its errors are ours to tell; there may be no standard output
        return code
    except GPTZooError as problem:
        return _fail(str(problem))
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of our output has gone; there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory")
    except OSError as problem:
        return _fail(f"{problem.filename or 'system'}: {problem.strerror or problem}")


def _parser() -> argparse.ArgumentParser:
    from gptzoo import __version__

    parser = argparse.ArgumentParser(prog="gptzoo", description="GPT and GPT-2, equal in every framework.")
    parser.add_argument("--version", action="version", version=f"gptzoo {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="compare the frameworks on the bundled model, and let each write")
    demo.set_defaults(run=_demo)

    generate = commands.add_parser("generate", help="let a model go on from a prompt")
    add_generate_arguments(generate)
    generate.set_defaults(run=_generate)

    run = commands.add_parser("run", help="answer each line of standard input by a model")
    add_run_arguments(run)
    run.set_defaults(run=_run)

    score = commands.add_parser("score", help="tell how likely a model finds texts: perplexity, log probabilities")
    add_score_arguments(score)
    score.set_defaults(run=_score)

    inspect = commands.add_parser("inspect", help="print what a checkpoint holds, from its headers alone")
    inspect.add_argument("checkpoint", help="a directory or file, in any format; or the name of a model")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)

    parity = commands.add_parser("parity", help="compare every framework with the float64 reference")
    parity.add_argument("checkpoint", nargs="?", default=DEFAULT_MODEL, help=f"default: {DEFAULT_MODEL}")
    parity.add_argument("--frameworks", type=_names, help="comma-separated: torch,keras,flax (default: all installed)")
    parity.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parity.add_argument("--tolerance", type=_positive, help="largest max |error| / max |reference|")
    parity.add_argument("--seed", type=_whole, default=0, help="of the inputs")
    parity.add_argument("--json", type=_file, metavar="FILE", help="also write every comparison to FILE")
    parity.set_defaults(run=_parity)

    from gptzoo_conversion.command import add_commands

    add_commands(commands)
    return parser


def _positive(text: str) -> float:
    with suppress(ValueError):
        if 0 < (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"{text!r:.80}, expected a number above 0")


def _whole(text: str) -> int:
    with suppress(ValueError):
        if (value := int(text)) >= 0:
            return value
    raise argparse.ArgumentTypeError(f"{text!r:.80}, expected a whole number from 0")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _file(text: str) -> Path:
    if not text:  # Path would take it for the current directory
        raise argparse.ArgumentTypeError("'', expected the name of a file")
    return Path(text)


def _demo(args: argparse.Namespace) -> int:
    from gptzoo._demo import demo

    return demo(progress)


def _generate(args: argparse.Namespace) -> int:
    from gptzoo._generate import generate

    return generate(args, progress)


def _run(args: argparse.Namespace) -> int:
    from gptzoo._run import run

    return run(args, progress)


def _score(args: argparse.Namespace) -> int:
    from gptzoo._score import score

    return score(args, progress)


def _inspect(args: argparse.Namespace) -> int:
    from gptzoo.inspect import describe

    description = describe(args.checkpoint)
    print(json.dumps(description.to_json(), indent=2) if args.json else description)
    return 2 if description.problems else 0


def _parity(args: argparse.Namespace) -> int:
    from gptzoo._files import require_writable, write_file
    from gptzoo.parity import check

    if args.json:
        require_writable(args.json)  # a run takes long
    options = {"dtype": args.dtype, "tolerance": args.tolerance, "seed": args.seed}
    report = check(args.checkpoint, args.frameworks, progress=progress, **options)
    if args.json:
        write_file(args.json, (json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n").encode())
    print(report)
    return 0 if report.passed else 1


def progress(line: str) -> None:
    """Says on standard error what is being done, if it can be said."""
    with suppress(OSError):
        print(f"gptzoo: {line} ...", file=sys.stderr, flush=True)


def _fail(message: str, code: int = 2) -> int:
    line = "; ".join(part.strip() for part in message.splitlines() if part.strip()).replace(":; ", ": ")
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    if len(printable) > MAX_MESSAGE - 20:
        printable = printable[: MAX_MESSAGE - 23] + "..."
    with suppress(OSError):  # the exit code still tells
        print(f"gptzoo: error: {printable}", file=sys.stderr)
    return code


def _repair_streams() -> None:
    """Opens what the caller closed, whose numbers our own files would get; prints any file name that there is."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # as long as the process lives
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _quiet_frameworks() -> None:
    """TensorFlow's C++ log would drown our one line; a user who wants it sets the variable."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


if __name__ == "__main__":
    sys.exit(main())
