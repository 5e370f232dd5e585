"""Ends conversions by a signal at points spread over their time: `python -m tests.kills SIGNAL FORMAT PLACE COUNT`.

The parent is warm and never converts, so that it can fork: it has no threads. Prints JSON: how many conversions the
signal found without a target, with a complete one, or done; how many left temporaries; and every fault.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from gptzoo.cli import main as gptzoo

from .runs import LARGE, Job, job_for, listing, store_small, tree

REACH = 1.2  # of an undisturbed duration
UNLOCKED = re.compile(r"\.gptzoo-[0-9]+-[0-9a-f]{8}\.tmp")  # killed before it was locked: whose it is, nobody knows


def start(job: Job, target: Path) -> int:
    """Begins a conversion in a process group of its own; returns its process."""
    if process := os.fork():
        return process
    code: object = 1
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        code = gptzoo(["convert", job.source, str(target), *job.options, "--quiet"])
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:  # before the command line could begin
        code = 130
    finally:
        os._exit(code if isinstance(code, int) else 1)


def finish(process: int) -> int:
    """Waits for a process; returns its exit code, or the signal that ended it as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def convert(job: Job, target: Path) -> float:
    """Converts undisturbed; returns how long it takes."""
    begin = time.perf_counter()
    assert finish(start(job, target)) == 0
    return time.perf_counter() - begin


def disturb(job: Job, target: Path, number: int, delay: float) -> int:
    """Begins a conversion and sends a signal to its process group; returns its exit code."""
    process = start(job, target)
    time.sleep(delay)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, number)
    return finish(process)


def rehearse(number: int, job: Job, place: Path, count: int) -> dict[str, object]:
    """Disturbs `count` conversions, each followed by one that is left alone."""
    target = place / "target"
    convert(job, place / "warm" / "target")  # the first takes longer
    shutil.rmtree(place)
    duration = convert(job, target)
    expected, seen, faults = tree(target), Counter[str](), []
    for point in range(count):
        shutil.rmtree(target)
        code = disturb(job, target, number, REACH * duration * point / count)
        state = "complete" if target.exists() else "absent"
        seen[state if code else "done"] += 1
        left = [name for name in listing(place) if not name.startswith("target")]
        seen["left temporaries"] += bool(left)
        if code not in (0, -number, 128 + number):
            faults.append(f"{point}: exit code {code}")
        if left and number != signal.SIGKILL:
            faults.append(f"{point}: left {left}")
        if target.exists() and tree(target) != expected:
            faults.append(f"{point}: half of it")
        shutil.rmtree(target, ignore_errors=True)
        convert(job, target)
        if tree(target) != expected:
            faults.append(f"{point}: the next run differs")
        for name in filter(UNLOCKED.fullmatch, os.listdir(place)):
            (place / name).rmdir()
            seen["empty, left for a day"] += 1
        if os.listdir(place) != ["target"]:
            faults.append(f"{point}: the next run leaves {listing(place)}")
            shutil.rmtree(place)
            convert(job, target)
    return {"seconds": round(duration, 3), **seen, "faults": faults}


def main(name: str, to: str, directory: str, count: str) -> None:
    for module in ("h5py", "tensorstore"):  # once, not in every child
        with suppress(ImportError):
            __import__(module)
    place = Path(directory)
    gpt1, gpt2 = (store_small(place / family, family, **LARGE) for family in ("openai-gpt", "gpt2"))
    job = job_for(to, gpt1, gpt2)
    assert len(os.listdir("/proc/self/task")) == 1, "threads do not survive a fork"
    print(json.dumps(rehearse(signal.Signals[name], job, place / "out", int(count))))


if __name__ == "__main__":
    main(*sys.argv[1:])
