"""What `gptzoo score` does: texts from files or lines go through a model, how likely each is to standard output."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from gptzoo._files import naming, open_regular
from gptzoo._run import SOURCE, add_computing_arguments, decoded, write_json
from gptzoo._tensors import shown
from gptzoo.errors import CheckpointError, InputError
from gptzoo.hub import DEFAULT_MODEL
from gptzoo.scoring import Score, TextError

STDIN = "-"
LONGEST = 500  # name that is printed whole


class Named(NamedTuple):
    """A text, and where it comes from."""

    name: str
    text: str


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `gptzoo score`."""
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"one text each; {STDIN}, or none: {SOURCE}")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"a path or name (default: {DEFAULT_MODEL})")
    add_computing_arguments(parser)
    parser.add_argument("--stride", type=int, metavar="N", help="tokens between windows (default: half of one)")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of a window (default: all positions)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="texts scored together (default: 1)")
    parser.add_argument("--bos", action="store_true", help="put the bos token before each text, to score all of it")
    parser.add_argument("--lines", action="store_true", help="each line is a text, without its line end")
    parser.add_argument("--tokens", action="store_true", help="also print the log probability of each token")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each text")


def score(args: argparse.Namespace, progress: Callable[[str], None]) -> int:
    """Scores the texts, and prints those of a batch when it is done.

    Raises:
        GPTZooError: an option, a file or a text is wrong; the batches before it have been printed.
    """
    from gptzoo.pipelines._loading import choose_framework, load
    from gptzoo.pipelines._text_generation import TextGenerationPipeline
    from gptzoo.tokenization import AutoTokenizer

    files = args.files or [STDIN]
    _require_files(files)
    if args.batch_size < 1:
        raise InputError(f"--batch-size: {args.batch_size}, expected an integer of at least 1")
    framework = choose_framework(args.framework)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    runner = load(TextGenerationPipeline, args.model, framework, args.device, {"dtype": args.dtype})
    if STDIN in files and sys.stdin.isatty():
        progress("reading from the terminal")
    names = ("stride", "max_length", "batch_size")
    options = {name: getattr(args, name) for name in names} | {"add_bos": args.bos}
    texts = _texts(files, args.lines)
    while batch := list(islice(texts, args.batch_size)):
        with runner.scope():  # new arrays go where the model is
            for named, found in zip(batch, _scores(runner.model, tokenizer, batch, options), strict=True):
                if args.json:
                    write_json(_as_json(named.name, found, args.tokens))
                else:
                    _write(named.name, found, args.tokens)
    return 0


def _scores(model: Any, tokenizer: Any, batch: Sequence[Named], options: dict[str, Any]) -> list[Score | None]:
    """Returns the score of each text, None for an empty line."""
    full = [i for i, one in enumerate(batch) if one.text]
    try:
        scores = model.score([batch[i].text for i in full], tokenizer, **options)
    except TextError as problem:
        named = [f"{shown(batch[full[i]].name, LONGEST)}: {text}" for i, text in problem.problems.items()]
        raise InputError("\n".join(named)) from None
    by_number = dict(zip(full, scores, strict=True))
    return [by_number.get(i) for i in range(len(batch))]


def _require_files(files: Sequence[str]) -> None:
    """Raises an error that lists the files that cannot be opened, before a model is loaded."""
    problems = []
    for name in files:
        if name != STDIN:
            try:
                _open(name).close()
            except CheckpointError as problem:
                problems.append(str(problem))
    if problems:
        raise InputError("\n".join(problems))


def _texts(files: Sequence[str], by_lines: bool) -> Iterator[Named]:
    for file in files:
        name = SOURCE if file == STDIN else file
        if by_lines:
            for number, line in enumerate(_lines(file), 1):
                place = f"{name}: line {number}"
                yield Named(place, decoded(line.removesuffix(b"\n").removesuffix(b"\r"), shown(place, LONGEST)))
        elif text := decoded(b"".join(_lines(file)), shown(name, LONGEST)):
            yield Named(name, text)
        else:
            raise InputError(f"{shown(name, LONGEST)}: empty, expected a text")


def _lines(file: str) -> Iterator[bytes]:
    """Yields lines as they come, each with its end."""
    if file == STDIN:
        yield from iter(sys.stdin.buffer.readline, b"")
        return
    with naming(Path(file)), _open(file) as stream:
        yield from stream


def _open(file: str) -> BufferedReader:
    with naming(Path(file)):
        return BufferedReader(open_regular(Path(file)))


def _write(name: str, found: Score | None, with_tokens: bool) -> None:
    """Prints name, tokens, perplexity and, if it is known, bits per byte; then each token, and an empty line.

    An empty line answers an empty line.
    """
    rows: list[tuple[str, ...]] = [()]
    if found is not None:
        bits = [] if found.bits_per_byte is None else [f"{found.bits_per_byte:.6f}"]
        rows = [(shown(name, LONGEST), str(found.n_tokens), f"{found.perplexity:.6g}", *bits)]
        if with_tokens:
            numbers = ["-", *(f"{number:.6f}" for number in found.log_probs)]
            rows += [*zip(map(shown, found.tokens or ()), numbers, strict=True), ()]
    print(*("\t".join(row) for row in rows), sep="\n", flush=True)


def _as_json(name: str, found: Score | None, with_tokens: bool) -> dict[str, Any] | None:
    if found is None:
        return None
    numbers = {"n_tokens": found.n_tokens, "total": found.total, "perplexity": found.perplexity}
    result: dict[str, Any] = {"name": name, **numbers, "bits_per_byte": found.bits_per_byte}
    if with_tokens:
        result |= {"token_ids": found.token_ids.tolist(), "tokens": found.tokens, "log_probs": found.log_probs.tolist()}
    return result
