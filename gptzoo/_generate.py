"""What `gptzoo generate` does: a model goes on from one prompt, and the text goes to standard output."""

from __future__ import annotations

import argparse
import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING, Any

from gptzoo._json import parse_json
from gptzoo._run import OPTIONS, SOURCE, add_computing_arguments, decoded, flag
from gptzoo._settings import short, unknown_argument
from gptzoo.errors import InputError
from gptzoo.hub import DEFAULT_MODEL

if TYPE_CHECKING:  # which imports NumPy
    from gptzoo.generation import TextIteratorStreamer

INTERRUPTED = 130  # what shells report of a command that Ctrl-C has ended

# Options of `generate` that have a flag of their own -> what argparse is told.
FLAGS: dict[str, dict[str, Any]] = {
    **{name: OPTIONS[name][1] for name in ("max_new_tokens", "do_sample", "temperature", "top_k", "top_p")},
    "seed": {"type": int, "metavar": "N", "help": "of the drawing: the same text each time"},
    "num_beams": {"type": int, "metavar": "N", "help": "search with so many beams (default: 1)"},
    "repetition_penalty": {"type": float, "metavar": "X", "help": "above 1: tokens that were there get less likely"},
}
# Those that would give something else than one text.
ELSEWHERE = ("num_return_sequences", "output_logits", "output_scores", "return_dict_in_generate")


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `gptzoo generate`."""
    parser.add_argument("--prompt", metavar="TEXT", help=f"default: {SOURCE}, without its last line end")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"a path or name (default: {DEFAULT_MODEL})")
    add_computing_arguments(parser)
    parser.add_argument("--stream", action="store_true", help="print each token as soon as it is there")
    for name, settings in FLAGS.items():
        parser.add_argument(flag(name), default=None, **settings)
    parser.add_argument("--stop", action="append", metavar="TEXT", help="end behind the token that completes it")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any other option of generate, in JSON"
    )


def generate(args: argparse.Namespace, progress: Callable[[str], None]) -> int:
    """Prints the prompt and what the model adds to it.

    Raises:
        GPTZooError: an option or the prompt is wrong.
        KeyboardInterrupt: Ctrl-C; what was printed stays.
    """
    from gptzoo.generation import TextIteratorStreamer
    from gptzoo.generation._stream import generation, prompt_ids
    from gptzoo.pipelines._loading import choose_framework, load
    from gptzoo.pipelines._text_generation import TextGenerationPipeline
    from gptzoo.tokenization import AutoTokenizer

    options = _options(args)
    framework = choose_framework(args.framework)
    prompt = _read_prompt(progress) if args.prompt is None else args.prompt
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    runner = load(TextGenerationPipeline, args.model, framework, args.device, {"dtype": args.dtype})
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    run = generation(runner, streamer, prompt_ids(tokenizer, prompt), options, by_steps=args.stream)
    with _heard(streamer, run):
        _write(prompt, streamer)
    return 0


@contextmanager
def _heard(streamer: TextIteratorStreamer, run: Callable[[], None]) -> Iterator[None]:
    """Generates in a thread, so that Ctrl-C is heard at once, even while compiled code runs."""
    thread = Thread(target=run, daemon=True)
    try:
        thread.start()
        try:
            yield
        except Exception:  # such as the reader of our output having gone
            streamer.close()
            thread.join()
            raise
        thread.join()
    except KeyboardInterrupt:
        atexit.register(os._exit, INTERRUPTED)  # else Python would end the thread in its compiled code, and may crash
        raise


def _write(prompt: str, pieces: Iterator[str]) -> None:
    """Prints a prompt and the pieces behind it, nothing before the first one has come; then a line end in any case."""
    before, begun = prompt, False
    try:
        for piece in pieces:
            begun = True
            print(before, piece, sep="", end="", flush=True)
            before = ""
        begun = True
        print(before, end="")
    finally:
        if begun:
            with suppress(OSError):
                print(flush=True)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of the model's generate that were given.

    Raises:
        InputError: lists those that are unknown, given twice, or not for this command.
        ConfigError: lists wrong values.
    """
    from gptzoo.generation import GenerationConfig

    options = {name: value for name in FLAGS if (value := getattr(args, name)) is not None}
    options |= {"stop_strings": args.stop} if args.stop else {}
    problems: list[str] = []
    for text in args.set:
        name, _, value = text.partition("=")
        try:
            problems += _set_problems(name, options)
            options[name] = _parsed(value)
        except ValueError as problem:
            problems.append(f"{short(text)}: {problem}, expected NAME=VALUE with a value in JSON")
    if problems:
        raise InputError.listing("--set", problems)
    GenerationConfig(**options)  # before anything is loaded
    return options


def _set_problems(name: str, given: dict[str, Any]) -> Iterator[str]:
    from gptzoo.generation._config import OPTIONS as KNOWN

    known = [one for one in KNOWN if one not in ELSEWHERE]
    if name in given:
        yield f"{name}: given twice"
    elif name in ELSEWHERE:
        yield f"{name}: given, expected none: this command prints one text"
    elif name not in known:
        yield unknown_argument(name, known)


def _parsed(value: str) -> Any:
    """Returns what a value in JSON says; a word that is none is a text: never."""
    try:
        return parse_json(value)
    except ValueError:
        if value.isidentifier():
            return value
        raise


def _read_prompt(progress: Callable[[str], None]) -> str:
    if sys.stdin.isatty():
        progress("reading the prompt from the terminal, up to Ctrl-D")
    return decoded(sys.stdin.buffer.read(), SOURCE).removesuffix("\n").removesuffix("\r")
