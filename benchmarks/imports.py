"""Times what importing gptzoo adds to an empty interpreter, and each of its framework folders to its framework.

    python benchmarks/imports.py [--repeats 9]

Each import is timed in a fresh process, after its framework was imported there, so that the frameworks' own seconds and
their noise stay outside.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

BEFORE = {
    "gptzoo": "pass",
    "gptzoo.torch": "import torch",
    "gptzoo.keras": "import keras",
    "gptzoo.flax": "import jax, flax.nnx",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in BEFORE}
    for round_ in range(args.repeats + 1):  # alternately; the first round only warms the file cache
        for name, before in BEFORE.items():
            seconds = run(f"{before}\nimport time\nstart = time.perf_counter()\nimport {name}\n")
            if round_:
                times[name].append(seconds)
    print("| import | adds, median | worst |\n|---|---|---|")
    for name, found in times.items():
        print(f"| `{name}` | {statistics.median(found):.3f} s | {max(found):.3f} s |")


def run(program: str) -> float:
    program += "print(time.perf_counter() - start)"
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run([sys.executable, "-c", program], check=True, env=env, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


if __name__ == "__main__":
    main()
