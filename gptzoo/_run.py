"""What `gptzoo run` does: each line of standard input goes through a pipeline, each result to standard output."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from gptzoo.errors import GPTZooError, InputError

SOURCE = "standard input"
DTYPE = "float32"  # in which a seed draws the same text in every framework

GENERATION = ("text-generation",)
ONE_ROW = ("text-classification", "token-classification", "feature-extraction")

# Options of the pipelines that the command has too -> the tasks that have them, and what argparse is told.
OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "max_new_tokens": (GENERATION, {"type": int, "metavar": "N", "help": "tokens to add at most (default: 20)"}),
    "do_sample": (GENERATION, {"action": "store_true", "help": "draw tokens, not always the most likely one"}),
    "temperature": (GENERATION, {"type": float, "metavar": "X", "help": "below 1: likely tokens become likelier"}),
    "top_k": (GENERATION, {"type": int, "metavar": "N", "help": "draw from the N most likely tokens (default: 50)"}),
    "top_p": (GENERATION, {"type": float, "metavar": "X", "help": "draw from the likeliest, X of the probability"}),
    "num_return_sequences": (GENERATION, {"type": int, "metavar": "N", "help": "completions of each line"}),
    "seed": (GENERATION, {"type": int, "metavar": "N", "help": "of the drawing: N for line one, then N + 1, ..."}),
    "handle_long_generation": (GENERATION, {"choices": ["hole"], "help": "hole: read the end of a line too long"}),
    "truncation": (ONE_ROW, {"action": "store_true", "help": "cut lines that are too long"}),
    "question": (("question-answering",), {"metavar": "TEXT", "help": "that is asked of each line"}),
}


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `gptzoo run`."""
    parser.add_argument("--task", required=True, help=", ".join(_PLAIN))
    parser.add_argument("--model", help="a path or name (default for text-generation: the bundled model)")
    add_computing_arguments(parser, "auto")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="lines answered together (default: 1)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each line")
    groups = {tasks: parser.add_argument_group(f"for {', '.join(tasks)}") for tasks, _ in OPTIONS.values()}
    for name, (tasks, settings) in OPTIONS.items():
        groups[tasks].add_argument(flag(name), default=None, **settings)


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def device(text: str) -> str | int:
    return int(text) if text.removeprefix("-").isdecimal() else text


def run(args: argparse.Namespace, progress: Callable[[str], None]) -> int:
    """Answers the lines of standard input, each when its batch is full.

    Raises:
        GPTZooError: an option or a line is wrong; the batches before it have been answered.
    """
    from gptzoo.pipelines import pipeline, task_class

    task = task_class(args.task).task
    options = _task_options(args, task)
    question = options.pop("question", None)
    loading = {"framework": args.framework, "device": args.device, "dtype": args.dtype, "batch_size": args.batch_size}
    pipe = pipeline(task, args.model, **loading, **options)
    if sys.stdin.isatty():
        progress("reading lines from the terminal")
    write = write_json if args.json else _PLAIN[task]
    numbers: deque[int | None] = deque()
    for result in _results(pipe, numbers, question):
        while numbers.popleft() is None:
            write(None)
        write(result)
    for _ in numbers:
        write(None)
    return 0


def _task_options(args: argparse.Namespace, task: str) -> dict[str, Any]:
    """Returns the options that were given for the task alone."""
    given = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    wrong = {name: tasks for name, (tasks, _) in OPTIONS.items() if name in given and task not in tasks}
    problems = [f"{flag(name)}: given, expected only for {', '.join(tasks)}" for name, tasks in wrong.items()]
    if task == "question-answering" and "question" not in given:
        problems.append("--question: none given, expected one")
    if problems:
        raise InputError.listing(f"--task {task}", problems)
    return given


def _results(pipe: Any, numbers: deque[int | None], question: str | None) -> Iterator[Any]:
    """Yields the results of all lines that are not empty.

    Args:
        numbers: gets the number of each line as it is read, None for an empty one.
    """
    from gptzoo.pipelines import ItemError

    def inputs() -> Iterator[Any]:
        for number, line in enumerate(iter(sys.stdin.buffer.readline, b""), 1):
            text = decoded(line.removesuffix(b"\n").removesuffix(b"\r"), f"{SOURCE}: line {number}")
            numbers.append(number if text else None)
            if text:
                yield text if question is None else {"question": question, "context": text}

    try:
        yield from pipe(inputs())
    except ItemError as problem:
        raise InputError(f"{SOURCE}: line {numbers[-1]}: {problem.problem}") from None


def add_computing_arguments(parser: argparse.ArgumentParser, dtype: str = DTYPE) -> None:
    """Adds the options that say what computes, and in which dtype unless they say otherwise."""
    parser.add_argument("--framework", help="torch, keras or flax (default: the first that is installed)")
    parser.add_argument("--device", type=device, help="cpu, cuda:0, ...; an accelerator's number; -1 for the CPU")
    parser.add_argument(
        "--dtype", default=dtype, help=f"of weights and computation, or auto: as stored (default: {dtype})"
    )


def decoded(content: bytes, place: str) -> str:
    """Returns the text of bytes.

    Args:
        place: where they come from, for the message.

    Raises:
        InputError: they are not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as problem:
        found = f"byte {content[problem.start]:#04x} at {problem.start}"
        raise InputError(f"{place}: {found}, expected UTF-8") from None


def write_json(result: Any) -> None:
    """Prints a line of JSON: the result as the pipeline returns it, null for an empty line."""
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    try:
        print(json.dumps(result, ensure_ascii=plain, allow_nan=False), flush=True)
    except ValueError:
        raise GPTZooError("result: infinite or not a number, expected numbers that JSON has") from None


def _write_completions(result: Any) -> None:
    """Prints each text; an empty line for an empty line."""
    print(*(one["generated_text"] for one in result or [{"generated_text": ""}]), sep="\n", flush=True)


def _write_label(result: Any) -> None:
    """Prints the label and its score."""
    print(_row(result, "label", "score"), flush=True)


def _write_answer(result: Any) -> None:
    """Prints the answer, its score and its place."""
    print(_row(result, "answer", "score", "start", "end"), flush=True)


def _write_entities(result: Any) -> None:
    """Prints a line for each token that has an entity, and an empty line behind them."""
    rows = [_row(one, "word", "entity", "score", "start", "end") for one in result or ()]
    print(*rows, "", sep="\n", flush=True)


def _write_features(result: Any) -> None:
    """Prints a line of numbers for each token, and an empty line behind them."""
    rows = ["\t".join(f"{number:.6g}" for number in vector) for vector in (result[0] if result else ())]
    print(*rows, "", sep="\n", flush=True)


def _row(result: dict[str, Any] | None, *names: str) -> str:
    """Returns values with tabs between them; those inside texts become spaces."""
    values = [] if result is None else [result[name] for name in names]
    return "\t".join(f"{x:.6f}" if isinstance(x, float) else " ".join(str(x).splitlines()) for x in values)


_PLAIN: dict[str, Callable[[Any], None]] = {
    "text-generation": _write_completions,
    "text-classification": _write_label,
    "token-classification": _write_entities,
    "question-answering": _write_answer,
    "feature-extraction": _write_features,
}
