"""Times our tokenizers beside the bare `tokenizers` library and Transformers, on 1 MB of text.

    python benchmarks/tokenization.py --text TEXT.txt [--gpt2 DIR] [--gpt DIR] [--repeats 9] [--threads 1]

DIR has vocab.json and merges.txt; without --gpt2 the bundled vocabulary serves. All ways run in one process, in turns,
in batches of documents and one document at a time, and give the same ids, which is checked. Ratios are of medians.
(The file is not called tokenize.py: Python's own `tokenize` would be hidden from whatever runs in this folder.)
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

SIZE = 1_000_000  # bytes
DOCUMENT, BATCH = 1000, 64  # characters, documents
BARE = "tokenizers"
PADDED = 256  # tokens of a row
Way = Callable[[Any], list[Any]]


class Times(NamedTuple):
    """Seconds that passed, and those of the processor, which tell more on a machine that is busy."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--gpt2", type=Path, help="GPT-2's vocabulary")
    parser.add_argument("--gpt", type=Path, help="GPT's vocabulary")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of the Rust library")
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    text = args.text.read_bytes()[:SIZE].decode("utf-8", "ignore")
    documents = [text[start : start + DOCUMENT] for start in range(0, len(text), DOCUMENT)]
    batches = [documents[start : start + BATCH] for start in range(0, len(documents), BATCH)]
    print(f"| {len(text.encode()) / 1e6:.1f} MB, {args.threads} thread(s) | median | beside | processor | beside |")
    print("|---|---|---|---|---|")
    for name, cls, folder in vocabularies(args):
        report(f"{name}, batches of {BATCH}", measure(ways(cls, folder), batches, args.repeats))
        report(f"{name}, the same padded to {PADDED}", measure(padding_ways(cls, folder), batches, args.repeats))
        report(f"{name}, single documents", measure(ways(cls, folder), documents, args.repeats))


def vocabularies(args: argparse.Namespace) -> Iterator[tuple[str, str, Path]]:
    from gptzoo.hub import resolve

    yield "GPT-2", "GPT2Tokenizer", args.gpt2 or resolve("gptzoo/shakespeare")
    if args.gpt:
        yield "GPT", "OpenAIGPTTokenizerFast", args.gpt


def ways(cls: str, folder: Path) -> dict[str, Way]:
    """Returns the ways to the ids of one text or many; of the bare library, nothing but the ids."""
    ours, theirs = load(cls, folder)
    bare = ours.backend_tokenizer
    found: dict[str, Way] = {
        BARE: lambda texts: (
            bare.encode(texts).ids if isinstance(texts, str) else [row.ids for row in bare.encode_batch(texts)]
        ),
        "gptzoo": lambda texts: ours(texts)["input_ids"],
    }
    return found | ({"transformers": lambda texts: theirs(texts)["input_ids"]} if theirs else {})


def padding_ways(cls: str, folder: Path) -> dict[str, Way]:
    """Returns the ways to rows of one length."""
    ours, theirs = load(cls, folder)
    bare = type(ours.backend_tokenizer).from_str(ours.backend_tokenizer.to_str())
    bare.enable_truncation(PADDED)
    bare.enable_padding(length=PADDED)
    options: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": PADDED}
    for tokenizer in filter(None, (ours, theirs)):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    found: dict[str, Way] = {
        BARE: lambda texts: [row.ids for row in bare.encode_batch(texts)],
        "gptzoo": lambda texts: ours(texts, **options)["input_ids"],
    }
    return found | ({"transformers": lambda texts: theirs(texts, **options)["input_ids"]} if theirs else {})


def load(cls: str, folder: Path) -> tuple[Any, Any]:
    """Returns our tokenizer and that of Transformers, None if it is not installed."""
    from gptzoo import tokenization

    try:
        import transformers
    except ModuleNotFoundError:
        return getattr(tokenization, cls).from_pretrained(folder), None
    return getattr(tokenization, cls).from_pretrained(folder), getattr(transformers, cls).from_pretrained(folder)


def measure(ways: dict[str, Way], items: list[Any], repeats: int) -> dict[str, list[Times]]:
    """Returns the times of each way, taken in turns, which begin with another way each round."""
    for item in items:
        ids = [way(item) for way in ways.values()]
        assert all(found == ids[0] for found in ids)
    times: dict[str, list[Times]] = {name: [] for name in ways}
    names = list(ways)
    for round_ in range(repeats):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            way, start, used = ways[name], time.perf_counter(), time.process_time()
            for item in items:
                way(item)
            times[name].append(Times(time.perf_counter() - start, time.process_time() - used))
    return times


def report(what: str, times: dict[str, list[Times]]) -> None:
    medians = {name: Times(*map(statistics.median, zip(*found, strict=True))) for name, found in times.items()}
    base = medians[BARE]
    for name, (wall, cpu) in medians.items():
        row = f"{wall:.3f} s | {wall / base.wall:.2f} | {cpu:.3f} s | {cpu / base.cpu:.2f}"
        print(f"| {what}: {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
