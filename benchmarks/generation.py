"""Times greedy generation with GPT-2 124M on the CPU: gptzoo and its peers in turns, each in a process of its own.

    python benchmarks/generation.py [--old-python GOLDEN/bin/python] [--rounds 7] [--batch 1] [--dtype float32]
        [--contestants NAME ...] [--json FILE]

Transformers 5 and KerasHub run in the environment of `--python`, Transformers 4.57 with its TensorFlow and Flax models
in that of `--old-python`. All get the same random weights, saved once in each format in a temporary folder (3 GB), and
no end token. A worker loads them, then generates whenever it is told to, as long as all others wait. Its first call
compiles; the second has a shorter prompt, of the same bucket; the third warms up; then come the rounds.

The floor is what reading the weights once a token takes, all but the position embeddings: the token embeddings count
as they are the head. Memory bandwidth is the best of several sums of a large array in each round, the median of them.
All workers together need 20 GB of memory. They use every core they may: `taskset` gives them fewer.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

VOCABULARY = 50257
PROMPT, SHORTER, NEW = 32, 27, 64  # tokens
MEMORY, FLOATS, READS = "memory", 100_000_000, 20  # the worker that reads so many float32, so often a round
REST = 0.5  # seconds before a call, in which idle threads of the worker before it stop spinning
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "XLA_FLAGS")
QUIET = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
FORMATS = {"tf_h5": "tf", "flax_msgpack": "flax", "kerashub": "kerashub"}  # beside safetensors
COLUMNS = ("median", "ms/token", "tokens/s", "of the floor", "first call", "other length", "tokens as the first")
CORES = len(os.sched_getaffinity(0))
PACKAGES = ("torch", "tensorflow", "keras", "jax", "flax", "transformers", "keras-hub")

Generate = Callable[[Any], Any]  # (B, T) int64 in NumPy -> (B, T + NEW), in NumPy or convertible


class Absent(Exception):
    """A contestant cannot do what is asked."""


def gptzoo_torch(folder: Path, dtype: str, compiled: bool = False) -> Generate:
    import torch

    from gptzoo.torch import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder / "safetensors", dtype=dtype).eval()
    if compiled:
        model.compile()
    return lambda ids: model.generate(torch.from_numpy(ids), max_new_tokens=NEW)


def gptzoo_flax(folder: Path, dtype: str) -> Generate:
    from gptzoo.flax import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder / "safetensors", dtype=dtype)
    return lambda ids: model.generate(ids, max_new_tokens=NEW)


def gptzoo_keras(folder: Path, dtype: str) -> Generate:
    from gptzoo.keras import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder / "safetensors", dtype=dtype)
    return lambda ids: model.generate(ids, max_new_tokens=NEW)


def transformers_torch(folder: Path, dtype: str, compiled: bool = False) -> Generate:
    import torch

    model = transformers(5).GPT2LMHeadModel.from_pretrained(folder / "safetensors", dtype=getattr(torch, dtype))
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    if compiled:  # as in its documentation of static caches; by itself, generate compiles on accelerators only
        model.forward = torch.compile(model.forward, fullgraph=True)
        options["cache_implementation"] = "static"

    def generate(ids: Any) -> Any:
        prompt = torch.from_numpy(ids)
        return model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)

    return generate


def transformers_tf(folder: Path, dtype: str, compiled: bool = False) -> Generate:
    import tensorflow as tf

    if dtype != "float32":
        raise Absent("float32 only")
    model = transformers(4).TFGPT2LMHeadModel.from_pretrained(folder / "tf")
    function = tf.function(model.generate, jit_compile=True) if compiled else model.generate

    def generate(ids: Any) -> Any:
        ids, mask = left_padded(ids) if compiled else (ids, ids * 0 + 1)
        ids, mask = tf.constant(ids, tf.int32), tf.constant(mask, tf.int32)
        return function(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0)

    return generate


def transformers_flax(folder: Path, dtype: str, compiled: bool = False) -> Generate:
    import flax  # noqa: F401 - or what misses it is a model
    import jax
    import jax.numpy as jnp

    model = transformers(4).FlaxGPT2LMHeadModel.from_pretrained(folder / "flax", dtype=jnp.dtype(dtype))
    params = model.to_bf16(model.params) if dtype == "bfloat16" else model.params
    # It cannot do without an end token: one behind the vocabulary never comes.
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, "eos_token_id": VOCABULARY}

    def whole(params: Any, ids: Any, mask: Any) -> Any:
        return model.generate(ids, attention_mask=mask, params=params, **options).sequences

    if compiled:
        function = jax.jit(whole)
        return lambda ids: function(params, *left_padded(ids))
    return lambda ids: whole(params, jnp.asarray(ids), jnp.ones_like(ids))


def keras_hub(folder: Path, dtype: str) -> Generate:
    """Its buffer is as long as the rows become, so that a shorter prompt has as many more new tokens."""
    import numpy as np
    from keras_hub.models import GPT2Backbone, GPT2CausalLM

    backbone = GPT2Backbone.from_preset(str(folder / "kerashub"), dtype=dtype)
    model = GPT2CausalLM(backbone=backbone, preprocessor=None)
    model.compile(sampler="greedy")

    def generate(ids: Any) -> Any:
        rest = ((0, 0), (0, PROMPT + NEW - ids.shape[1]))
        inputs = {"token_ids": np.pad(ids.astype("int32"), rest), "padding_mask": np.pad(ids == ids, rest)}
        return model.generate(inputs, stop_token_ids=None)["token_ids"]

    return generate


def read_memory(folder: Path, dtype: str) -> Generate:
    import torch

    array = torch.ones(FLOATS)
    return lambda ids: array.sum()[None]


def transformers(major: int) -> Any:
    import transformers

    if not transformers.__version__.startswith(f"{major}."):
        raise Absent(f"not installed: transformers {major}, but {transformers.__version__}")
    return transformers


def left_padded(ids: Any) -> tuple[Any, Any]:
    """Returns a prompt of the full length and its mask, as compiled programs of Transformers want it."""
    import numpy as np

    pad = ((0, 0), (PROMPT - ids.shape[1], 0))
    return np.pad(ids, pad), np.pad(ids * 0 + 1, pad)


class Contestant(NamedTuple):
    framework: str
    make: Callable[[Path, str], Generate]
    old: bool = False  # whether it runs in the older environment
    backend: str = ""  # of Keras


OURS = {
    "gptzoo-torch": Contestant("torch", gptzoo_torch),
    "gptzoo-torch-compiled": Contestant("torch", partial(gptzoo_torch, compiled=True)),
    "gptzoo-flax": Contestant("jax", gptzoo_flax),
    "gptzoo-keras-tf": Contestant("tensorflow", gptzoo_keras, backend="tensorflow"),
    "gptzoo-keras-jax": Contestant("jax", gptzoo_keras, backend="jax"),
}
PEERS = {
    "transformers5-torch": Contestant("torch", transformers_torch),
    "transformers5-torch-compiled": Contestant("torch", partial(transformers_torch, compiled=True)),
    "transformers4-tf": Contestant("tensorflow", transformers_tf, old=True),
    "transformers4-tf-xla": Contestant("tensorflow", partial(transformers_tf, compiled=True), old=True),
    "transformers4-flax": Contestant("jax", transformers_flax, old=True),
    "transformers4-flax-jit": Contestant("jax", partial(transformers_flax, compiled=True), old=True),
    "keras-hub-tf": Contestant("tensorflow", keras_hub, backend="tensorflow"),
    "keras-hub-jax": Contestant("jax", keras_hub, backend="jax"),
}
WORKERS = {MEMORY: Contestant("", read_memory)} | OURS | PEERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter with gptzoo, Transformers 5, KerasHub")
    parser.add_argument("--old-python", default=sys.executable, help="interpreter with Transformers 4.57")
    parser.add_argument("--contestants", nargs="+", choices=[*OURS, *PEERS], default=[*OURS, *PEERS], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--layers", type=int, default=12, help="fewer, to try this program out")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.folder, args.batch, args.dtype)
    else:
        with tempfile.TemporaryDirectory() as name:
            compete(args, Path(name))


def compete(args: argparse.Namespace, folder: Path) -> None:
    size = make(folder, args.layers)
    workers = {name: Worker(name, args, folder) for name in (MEMORY, *args.contestants)}
    try:
        for worker in workers.values():  # one after the other: alone on the machine
            worker.start()
        for round_ in range(args.rounds):
            for worker in turned(list(workers.values()), round_):
                worker.take_turn()
    finally:
        for worker in workers.values():
            worker.stop()
    report(args, size * (2 if args.dtype == "bfloat16" else 4), workers)


def turned(items: list[Worker], by: int) -> list[Worker]:
    by %= len(items)
    return items[by:] + items[:by]


def make(folder: Path, layers: int) -> int:
    """Writes the checkpoints; returns how many weights are read for each token."""
    from gptzoo import GPT2Config, weights
    from gptzoo.checkpoint import save_checkpoint
    from gptzoo_conversion import convert

    # A range at which the tokens vary, so that equal ones prove something.
    config = GPT2Config(n_layer=layers, initializer_range=0.2, bos_token_id=None, eos_token_id=None)
    specs = {name: spec for name, spec in weights.specs(config, "LMHeadModel").items() if not spec.tied}
    tensors = {name: weights.initial_value(spec) for name, spec in specs.items()}
    save_checkpoint(folder / "safetensors", config, "LMHeadModel", tensors)
    for to, name in FORMATS.items():
        convert(folder / "safetensors", folder / name, to, drop=True)
    return sum(tensor.size for name, tensor in tensors.items() if "wpe" not in name)


class Worker:
    """A contestant's process, and what it has answered."""

    def __init__(self, name: str, args: argparse.Namespace, folder: Path):
        self.name, self.contestant = name, WORKERS[name]
        self.python = args.old_python if self.contestant.old else args.python
        self.options = ["--batch", str(args.batch), "--dtype", args.dtype, "--folder", str(folder)]
        self.log, self.cache = folder / f"{name}.log", folder / f"{name}.cache"
        self.process: subprocess.Popen[str] | None = None
        self.versions: dict[str, str] = {}
        self.problem = ""  # why there are no times
        self.first = self.second = self.idle = 0.0
        self.times: list[float] = []
        self.tokens: list[list[int]] = []

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    def start(self) -> None:
        """Starts the process and lets it make its first calls."""
        environment = {name: value for name, value in os.environ.items() if name not in THREADS}
        environment |= QUIET | {"TORCHINDUCTOR_CACHE_DIR": str(self.cache)}  # an empty one: nothing is compiled before
        if self.contestant.backend:
            environment["KERAS_BACKEND"] = self.contestant.backend
        command = [self.python, __file__, "--worker", self.name, *self.options]
        try:
            with open(self.log, "w") as log:
                self.process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
        except OSError as problem:
            self.problem = f"not installed: {self.python}: {problem.strerror}"
            return
        self.versions = self.receive().get("versions", {})
        self.first = self.call(PROMPT)
        self.second = self.call(SHORTER)
        self.call(PROMPT)

    def take_turn(self) -> None:
        seconds = min(self.call(PROMPT) for _ in range(READS if self.name == MEMORY else 1))
        if not self.problem:
            self.times.append(seconds)

    def call(self, prompt: int) -> float:
        """Generates from a prompt of so many tokens; returns the seconds, 0 if it did not work."""
        if self.problem or not self.process:
            return 0.0
        with contextlib.suppress(BrokenPipeError):  # it died: no answer tells
            print(prompt, file=self.process.stdin, flush=True)
        answer = self.receive()
        if not self.problem:
            self.idle, self.tokens = answer["idle"], answer["tokens"]
        return float(answer.get("seconds", 0))

    def receive(self) -> dict[str, Any]:
        """Returns the next answer, in which there may be a problem."""
        assert self.process
        assert self.process.stdout
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"problem": f"died: {self.log.read_text()[-200:]}"}
        self.problem = " ".join(answer.get("problem", "").split())[:200]
        shown = {key: value for key, value in answer.items() if key != "tokens"}
        if self.name != MEMORY or "seconds" not in answer:
            print(f"{self.name}: {shown}", file=sys.stderr, flush=True)
        return answer

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()


def work(name: str, folder: Path, batch: int, dtype: str) -> None:
    """Answers, in a worker, each length of a prompt with what it took to generate."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # where libraries may print
    try:
        import numpy as np

        prompts = np.random.default_rng(0).integers(0, VOCABULARY, (batch, PROMPT))
        generate = WORKERS[name].make(folder, dtype)
        send(answers, {"versions": dict(versions())})
        before = time.process_time()
        for line in sys.stdin:
            time.sleep(REST * (name != MEMORY))
            start, used = time.perf_counter(), time.process_time()
            rows = np.asarray(generate(prompts[:, -int(line) :].copy()))
            seconds, idle = time.perf_counter() - start, used - before
            before = time.process_time()
            send(answers, {"seconds": seconds, "idle": idle, "tokens": rows[..., -NEW:].tolist()})
    except ModuleNotFoundError as problem:
        send(answers, {"problem": f"not installed: {problem.name}"})
    except Absent as problem:
        send(answers, {"problem": str(problem)})
    except Exception as problem:
        traceback.print_exc()
        send(answers, {"problem": f"failed: {type(problem).__name__}: {problem}"})


def send(answers: IO[str], answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


def versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        if package.replace("-", "_") in sys.modules:
            yield package, importlib.metadata.version(package)


def report(args: argparse.Namespace, size: int, workers: dict[str, Worker]) -> None:
    memory = workers.pop(MEMORY)
    bandwidth = 4 * FLOATS / memory.median if memory.times else float("nan")
    floor = NEW * size / bandwidth
    print(f"{size / 1e6:.0f} MB of weights, memory {bandwidth / 1e9:.1f} GB/s: a floor of {floor:.2f} s\n")
    print(f"| batch {args.batch}, {args.dtype}, {CORES} cores | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
    reference = next((worker.tokens for worker in workers.values() if worker.tokens), [])
    for name, worker in workers.items():
        print(f"| {name} | {worker.problem or cells(worker, floor, args.batch, reference)} |")
    print("\n| peer | gptzoo | times its time | times its first call |\n|---|---|---|---|")
    for peer, ours in pairs(workers):
        print(f"| {peer.name} | {ours.name} | {peer.median / ours.median:.2f} | {peer.first / ours.first:.2f} |")
    print(f"\n{'; '.join(sorted({' '.join(pair) for w in workers.values() for pair in w.versions.items()}))}")
    if args.json:
        args.json.write_text(json.dumps(figures(args, size, bandwidth, workers), indent=2) + "\n")


def cells(worker: Worker, floor: float, batch: int, reference: list[list[int]]) -> str:
    median = worker.median
    same = min(leading(row, expected) for row, expected in zip(worker.tokens, reference, strict=True))
    speed = f"{median:.2f} s | {1000 * median / NEW:.1f} | {batch * NEW / median:.1f} | {floor / median:.0%}"
    return f"{speed} | {worker.first:.1f} s | {worker.second:.1f} s | {same} of {NEW}"


def leading(row: list[int], expected: list[int]) -> int:
    """Counts the tokens before the first one that differs."""
    return next((i for i, (a, b) in enumerate(zip(row, expected, strict=True)) if a != b), len(row))


def pairs(workers: dict[str, Worker]) -> Iterator[tuple[Worker, Worker]]:
    done = [worker for worker in workers.values() if worker.times]
    for peer in (worker for worker in done if worker.name in PEERS):
        for ours in (worker for worker in done if worker.name in OURS):
            if peer.contestant.framework == ours.contestant.framework:
                yield peer, ours


def figures(args: argparse.Namespace, size: int, bandwidth: float, workers: dict[str, Worker]) -> dict[str, Any]:
    options = {name: getattr(args, name) for name in ("batch", "dtype", "layers", "rounds")}
    names = ("problem", "versions", "first", "second", "times", "idle")
    found = {name: {key: getattr(worker, key) for key in names} for name, worker in workers.items()}
    return options | {
        "cores": CORES,
        "bytes": size,
        "bandwidth": bandwidth,
        "contestants": found,
    }


if __name__ == "__main__":
    main()
