"""Times loading GPT-2 124M from a warm file cache beside reading the same bytes, each in a process of its own.

    python benchmarks/load.py [--repeats 5] [--json FILE]

Every process first imports its framework, then times `from_pretrained` alone, data on the device and ready. The ratio
is the median time over the median time of reading the file into memory. Transformers, if installed, is timed in the
same round. The checkpoint (random weights, 498 MB) is made in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

READ = """
data = open(path + "/model.safetensors", "rb")
def load():
    buffer = bytearray(os.fstat(data.fileno()).st_size)
    data.readinto(buffer)
"""
WAYS = {
    "reading the bytes": READ,
    "gptzoo.torch": """
from gptzoo.torch import GPT2LMHeadModel
def load():
    return GPT2LMHeadModel.from_pretrained(path)
""",
    "gptzoo.keras": """
from gptzoo.keras import GPT2LMHeadModel
def load():
    return GPT2LMHeadModel.from_pretrained(path)
""",
    "gptzoo.flax": """
import jax
from flax import nnx
from gptzoo.flax import GPT2LMHeadModel
def load():
    model = GPT2LMHeadModel.from_pretrained(path)
    jax.block_until_ready(nnx.state(model))
    return model
""",
    "transformers (torch)": """
from transformers import GPT2LMHeadModel
def load():
    model = GPT2LMHeadModel.from_pretrained(path)
    for parameter in model.parameters():  # it maps the file: touch every page, so that the bytes are really read
        float(parameter.detach().flatten()[::1024].sum())
    return model
""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for round_ in range(args.repeats + 1):  # alternately; the first round only warms the file cache
            for way, code in WAYS.items():
                seconds = measure(code, folder)
                if round_ and seconds is not None:
                    times[way].append(seconds)
                print(f"round {round_}: {way} {seconds}", file=sys.stderr, flush=True)
    medians = {way: statistics.median(found) for way, found in times.items() if found}
    base = medians["reading the bytes"]
    print("| loading GPT-2 124M, float32 | median | times the reading |\n|---|---|---|")
    for way, median in medians.items():
        print(f"| {way} | {median:.2f} s | {median / base:.1f} |")
    if args.json:
        args.json.write_text(json.dumps({"seconds": times, "medians": medians}, indent=2) + "\n")


def make(folder: str) -> None:
    from gptzoo import GPT2Config, weights
    from gptzoo.checkpoint import save_checkpoint

    config = GPT2Config()
    specs = weights.specs(config, "LMHeadModel").items()
    tensors = {name: weights.initial_value(spec) for name, spec in specs if not spec.tied}
    save_checkpoint(folder, config, "LMHeadModel", tensors)


def measure(code: str, folder: str) -> float | None:
    """Returns the seconds that one load takes in a fresh process; None if its library is not installed."""
    timing = "start = time.perf_counter()\nkept = load()\nprint(time.perf_counter() - start)"
    program = f"import os, time\npath = {folder!r}\n{code}\n{timing}"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in result.stderr:
        return None
    if result.returncode:
        raise SystemExit(result.stderr)
    return float(result.stdout.split()[-1])


if __name__ == "__main__":
    main()
