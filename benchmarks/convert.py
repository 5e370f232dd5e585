"""Measures `gptzoo convert`: memory for GPT-2 XL, time beside `cp` and SHA-256, and time of each format to each other.

    python benchmarks/convert.py [--xl] [--copy] [--pairs] [--folder DIR] [--repeats 3]

Every conversion runs in a process of its own, which first imports all libraries, and ends with everything read back and
on the disk. The checkpoints (random float32) are made in a temporary folder of DIR, which needs 26 GB of room, and
their files are in the system's cache: none is dropped, so that it is the programs that are measured, not the disk.
Memory is the highest resident set less that after the imports, as Linux tells them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptzoo._safetensors import write_tensors
from gptzoo._tensors import TensorInfo
from gptzoo.config import AutoConfig, GPTConfig
from gptzoo.weights import specs
from gptzoo_conversion import FORMATS

SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2"},
    "gpt1": {"model_type": "openai-gpt", "vocab_size": 50257, "n_positions": 1024, "afn": "gelu"},
    "xl": {"model_type": "gpt2", "n_layer": 48, "n_embd": 1600, "n_head": 25},
}
GPT1_ONLY = "gpt1_npy"
REST = 4  # seconds before a timing: until a virtual machine has given freed memory back to its host
SLACK = 100e6  # bytes that a conversion may take beside two tensors

CHILD = """
import json, os, sys, time
import google_crc32c, h5py, tensorstore
from gptzoo.errors import ConversionError
from gptzoo_conversion import convert

def resident(key):
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith(key + ":"))

source, target, to, synced = sys.argv[1:]
if synced == "False":
    os.fsync = lambda descriptor: None
base, start, cpu = resident("VmRSS"), time.perf_counter(), time.process_time()
try:
    size = convert(source, target, to, drop=True, max_shard_size="100GB").nbytes
except ConversionError as problem:
    raise SystemExit(f"refused: {problem}")
seconds = time.perf_counter() - start
memory = resident("VmHWM") - base
print(json.dumps({"seconds": seconds, "cpu": time.process_time() - cpu, "bytes": size, "memory": memory}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--xl", action="store_true", help="memory, of GPT-2 XL to each format and back")
    parser.add_argument("--copy", action="store_true", help="time beside that of cp and SHA-256, of GPT-2 124M")
    parser.add_argument("--pairs", action="store_true", help="time of each format to each other, of GPT-2 124M")
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    parser.add_argument("--repeats", type=int, default=3, help="of --copy")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), metavar="FORMAT")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        if args.xl:
            measure_memory(Path(name), args.formats)
        if args.copy:
            measure_copy(Path(name), args.repeats)
        if args.pairs:
            measure_pairs(Path(name), args.formats)


def make(folder: Path, size: str) -> Path:
    """Writes a checkpoint in safetensors, one tensor at a time."""
    config = AutoConfig.for_model(**SIZES[size])
    infos, random = tensor_infos(config), np.random.default_rng(0)
    checkpoint = folder / f"{size}-safetensors"
    checkpoint.mkdir()
    with open(checkpoint / "model.safetensors", "wb") as file:
        write_tensors(file, infos, lambda name: random.random(infos[name].shape, np.float32) - np.float32(0.5), {})
    (checkpoint / "config.json").write_text(config.to_json_string())
    return checkpoint


def tensor_infos(config: GPTConfig) -> dict[str, TensorInfo]:
    config.architectures = ["GPT2LMHeadModel" if config.model_type == "gpt2" else "OpenAIGPTLMHeadModel"]
    found = specs(config, "LMHeadModel").items()
    return {name: TensorInfo("", "float32", spec.shape) for name, spec in found if not spec.tied}


def convert(source: Path, target: Path, to: str, synced: bool = True) -> dict[str, float] | None:
    """Converts in a new process; returns its seconds, memory and the bytes of the tensors, None if refused."""
    settle()
    command = [sys.executable, "-c", CHILD, str(source), str(target), to, str(synced)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.stderr.startswith("refused"):
        return None
    if result.returncode:
        raise SystemExit(f"{source} to {to}: {result.stderr}")
    figures: dict[str, float] = json.loads(result.stdout)
    print(f"{source.name} -> {to}: {figures}", file=sys.stderr, flush=True)
    return figures


def settle() -> None:
    """Waits until what was written before is on the disk."""
    subprocess.run(["sync"], check=True)


def measure_memory(folder: Path, formats: list[str]) -> None:
    source = make(folder, "xl")
    infos = tensor_infos(AutoConfig.for_model(**SIZES["xl"]))
    limit = 2 * max(info.nbytes for info in infos.values()) + SLACK
    total = sum(info.nbytes for info in infos.values())
    print(f"GPT-2 XL, float32, {total / 1e9:.1f} GB; promised: at most {limit / 1e6:.0f} MB\n")
    print("| GPT-2 XL | memory, MB | s | back to safetensors: memory, MB | s |\n|---|---|---|---|---|", flush=True)
    for name in (name for name in formats if "gpt2" in FORMATS[name].families):
        there, back = folder / "there", folder / "back"
        ways = [convert(source, there, name)]
        ways += [convert(there, back, "safetensors")] if ways[0] else []
        cells = [f"{way['memory'] / 1e6:.0f} | {way['seconds']:.1f}" if way else "refused |" for way in ways]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        for path in (there, back):
            shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(source)


def measure_copy(folder: Path, repeats: int) -> None:
    source = make(folder, "gpt2")
    found: dict[str, list[Times]] = {}
    for round_ in range(repeats + 1):  # alternately; the first round only warms the file cache
        for way, work in ways_to_copy(source, folder / "copy").items():
            settle()
            time.sleep(REST)
            times = work()
            if round_:
                found.setdefault(way, []).append(times)
            (shutil.rmtree if (folder / "copy").is_dir() else Path.unlink)(folder / "copy")
            print(f"round {round_}: {way} {times}", file=sys.stderr, flush=True)
    medians = {way: Times(*map(statistics.median, zip(*times, strict=True))) for way, times in found.items()}
    print("| GPT-2 124M, float32, safetensors | median | beside the copy | processor | beside the copy |")
    print("|---|---|---|---|---|")
    for way, (wall, cpu) in medians.items():
        base = medians[way.replace("convert", "cp and SHA-256")]
        print(f"| {way} | {wall:.2f} s | {wall / base.wall:.2f} | {cpu:.2f} s | {cpu / base.cpu:.2f} |")
    shutil.rmtree(source)


class Times(NamedTuple):
    """Seconds that passed, and those of all processor cores together: these tell more on a machine that is busy."""

    wall: float
    cpu: float


def ways_to_copy(source: Path, target: Path) -> dict[str, Callable[[], Times]]:
    def converted(synced: bool) -> Times:
        figures = convert(source, target, "safetensors", synced)
        assert figures
        return Times(figures["seconds"], figures["cpu"])

    copied = partial(copy_and_hash, source / "model.safetensors", target)
    return {
        "cp and SHA-256": partial(copied, False),
        "convert": partial(converted, False),
        "cp and SHA-256, on the disk": partial(copied, True),
        "convert, on the disk": partial(converted, True),
    }


def copy_and_hash(source: Path, target: Path, synced: bool) -> Times:
    """Copies a file as `cp` does and hashes it once."""
    start, used = time.perf_counter(), os.times()
    subprocess.run(["cp", source, target], check=True)
    if synced:
        subprocess.run(["sync", target], check=True)
    with open(source, "rb") as file:
        hashlib.file_digest(file, "sha256")
    return Times(time.perf_counter() - start, sum(os.times()[:4]) - sum(used[:4]))


def measure_pairs(folder: Path, formats: list[str]) -> None:
    sources = dict(sources_of("gpt2", folder, [name for name in formats if name != GPT1_ONLY]))
    gpt1 = dict(sources_of("gpt1", folder, [name for name in formats if "openai-gpt" in FORMATS[name].families]))
    print("Seconds (MB/s of tensors), GPT-2 124M in float32; to and from gpt1_npy a GPT-1 of the same size.\n")
    print(f"| from \\ to | {' | '.join(formats)} |\n|---{'|---' * len(formats)}|", flush=True)
    for name in formats:
        cells = []
        for to in formats:
            source = (gpt1 if GPT1_ONLY in (name, to) else sources).get(name)
            way = convert(source, folder / "copy", to) if source and name != to else None
            shutil.rmtree(folder / "copy", ignore_errors=True)
            cells.append(f"{way['seconds']:.1f} ({way['bytes'] / way['seconds'] / 1e6:.0f})" if way else "-")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def sources_of(size: str, folder: Path, formats: list[str]) -> Iterator[tuple[str, Path]]:
    """Yields a model in each format that holds it."""
    source = make(folder, size)
    for name in formats:
        target = folder / f"{size}-{name}"
        if name == "safetensors" or convert(source, target, name):
            yield name, target


if __name__ == "__main__":
    main()
