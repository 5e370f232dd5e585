"""Times what importing gptzoo adds to an empty interpreter, and each of its framework folders to its framework.

    python benchmarks/imports.py [--repeats 9]

Whole processes, alternately; the figure is the difference of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

PAIRS = {
    "gptzoo": ("pass", "import gptzoo"),
    "gptzoo.torch": ("import torch", "import torch, gptzoo.torch"),
    "gptzoo.keras": ("import keras", "import keras, gptzoo.keras"),
    "gptzoo.flax": ("import jax, flax.nnx", "import jax, flax.nnx, gptzoo.flax"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    print("| import | without | with | added |\n|---|---|---|---|")
    for name, programs in PAIRS.items():
        times: tuple[list[float], list[float]] = ([], [])
        for round_ in range(args.repeats + 1):  # the first only warms the file cache
            for program, found in zip(programs, times, strict=True):
                seconds = run(program)
                if round_:
                    found.append(seconds)
        without, with_ = map(statistics.median, times)
        print(f"| `{name}` | {without:.3f} s | {with_:.3f} s | {with_ - without:+.3f} s |", flush=True)


def run(program: str) -> float:
    start = time.perf_counter()
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", program], check=True, env=env, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
