"""A parity run: reference and frameworks over the cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gptzoo._extras import FRAMEWORKS, missing
from gptzoo._load import claimed_heads
from gptzoo._runners import Runner, load_runner
from gptzoo.checkpoint import Checkpoint, open_checkpoint, plan_load
from gptzoo.config import GPTConfig
from gptzoo.errors import GPTZooError, InputError, MissingExtraError, ParityError
from gptzoo.heads import class_name
from gptzoo.parity._cases import Case, cases
from gptzoo.parity._compare import Comparison, compare, default_tolerance
from gptzoo.parity._report import Report


def check(
    path: str | Path,
    frameworks: Iterable[str] | None = None,
    *,
    dtype: str = "float32",
    tolerance: float | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Compares a checkpoint's model in each framework with the float64 reference, output by output.

    Args:
        path: a checkpoint directory, or the name of a bundled model.
        frameworks: names of frameworks, each run once, in the order first named; None: all that are installed.
        dtype: of the weights and the computation in the frameworks.
        tolerance: largest max |error| / max |reference|; None: that of the dtype and the model's width.
        seed: of the inputs.
        progress: is told what is being done.

    Raises:
        MissingExtraError: none of the frameworks is installed.
        GPTZooError: a framework or dtype is unknown.
        CheckpointError: the checkpoint cannot be loaded.
    """
    wanted = _known(frameworks)
    checkpoint = open_checkpoint(path)
    tolerance = default_tolerance(dtype, checkpoint.config) if tolerance is None else tolerance
    config, head = checkpoint.config, choose_head(checkpoint)
    skipped = {name: f"{' and '.join(missing(name))} not installed" for name in wanted if missing(name)}
    if len(skipped) == len(wanted):
        needed = ", ".join(f"pip install 'gptzoo[{name}]'" for name in wanted)
        raise MissingExtraError(f"no framework to compare is installed: {needed}")
    progress("reference (NumPy, float64)")
    weights = dict(plan_load(checkpoint, config, head).values(seed))
    inputs = cases(config, head, seed)
    expected = {case.name: _outputs(reference_runner(config, head, weights), case, lambda x: x) for case in inputs}
    report = Report(str(path), class_name(config, head), dtype, tolerance, seed, skipped)
    for framework in wanted:
        if framework in skipped:
            continue
        progress(framework)
        try:
            runner = load_runner(framework, path, config, head, dtype)
        except MissingExtraError as problem:
            report.skipped[framework] = str(problem)
            continue
        report.precision[framework] = runner.precision
        report.comparisons += _compare_all(runner, inputs, expected, tolerance)
    if not report.comparisons:
        raise MissingExtraError("; ".join(report.skipped.values()))
    return report


def require_same_outputs(one: Checkpoint, other: Checkpoint, head: str) -> None:
    """Checks that the float64 reference computes the same from two checkpoints: to the last bit if of one dtype.

    Raises:
        ParityError: lists the outputs that differ; or names an input that only one of them takes.
    """
    plans = [plan_load(checkpoint, checkpoint.config, head) for checkpoint in (one, other)]
    same = plans[0].dtype == plans[1].dtype
    tolerance = 0.0 if same else max(default_tolerance(plan.dtype, one.config) for plan in plans)
    inputs = cases(one.config, head)
    outputs = []
    for plan in plans:
        call = reference_runner(plan.checkpoint.config, head, dict(plan.values()))
        try:
            outputs.append({case.name: _outputs(call, case, lambda x: x) for case in inputs})
        except InputError as problem:  # the inputs are those of the first config
            raise ParityError(f"{other.path} does not take what {one.path} does: {problem}") from None
    wrong = [
        f"{case} {name}: {comparison.problem or f'{comparison.max_rel:.1e} off'}"
        for case, expected in outputs[0].items()
        for name, arrays in expected.items()
        for a, b in zip(outputs[1][case][name], arrays, strict=True)
        if not (comparison := compare("target", case, name, a, b, tolerance)).passed
    ]
    if wrong:
        raise ParityError.listing(f"{other.path} does not compute what {one.path} does", wrong)


def choose_head(checkpoint: Checkpoint) -> str:
    """Returns the head that a checkpoint was saved from: by its `architectures`, or else by its weights."""
    if claimed := claimed_heads(checkpoint):
        return claimed[0]
    has_head = "lm_head.weight" in checkpoint.tensors or checkpoint.config.tie_word_embeddings
    return "LMHeadModel" if has_head else "Model"


def reference_runner(config: GPTConfig, head: str, weights: dict[str, np.ndarray]) -> Callable[..., dict[str, Any]]:
    from gptzoo import reference

    return lambda **inputs: reference.forward(head, config, weights, **inputs)


def _known(frameworks: Iterable[str] | None) -> list[str]:
    if isinstance(frameworks, str):  # its letters are no names
        raise GPTZooError(f"frameworks {frameworks!r}: expected a list of {', '.join(FRAMEWORKS)}")
    names = list(FRAMEWORKS if frameworks is None else frameworks)
    if not names:
        raise GPTZooError(f"no framework named, expected some of {', '.join(FRAMEWORKS)}")
    if unknown := [repr(name) for name in names if name not in FRAMEWORKS]:
        raise GPTZooError(f"framework {', '.join(unknown)}: expected {', '.join(FRAMEWORKS)}")
    return list(dict.fromkeys(names))


def _outputs(call: Callable[..., dict[str, Any]], case: Case, to_numpy: Callable[[Any], Any]) -> dict[str, list[Any]]:
    """Calls a model as a case says; every output becomes a list of arrays."""
    past = {} if case.before is None else {"past_key_values": call(**case.before)["past_key_values"]}
    output = call(**case.inputs, **past)
    return {name: list(_leaves(to_numpy(value))) for name, value in output.items()}


def _leaves(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _compare_all(
    runner: Runner, inputs: list[Case], expected: dict[str, dict[str, list[Any]]], tolerance: float
) -> Iterator[Comparison]:
    scales = _scales(expected.values())
    for case in inputs:
        found, wanted = _outputs(runner, case, runner.numpy), expected[case.name]
        for output in dict.fromkeys([*wanted, *found]):
            ours, theirs = found.get(output, []), wanted.get(output, [])
            if len(ours) != len(theirs):
                problem = f"{len(ours)} arrays, expected {len(theirs)}"
                yield Comparison(runner.framework, case.name, output, tolerance, problem=problem)
                continue
            for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                yield compare(runner.framework, case.name, output, a, b, tolerance, scales[output, i])


def _scales(expected: Iterable[dict[str, list[Any]]]) -> dict[tuple[str, int], float]:
    """Returns the largest finite absolute value of each array over all cases; at least 1 for a loss.

    The loss of a good fit is the small difference of larger numbers.
    """
    scales: dict[tuple[str, int], float] = {("loss", 0): 1.0, ("mc_loss", 0): 1.0}
    for outputs in expected:
        for output, arrays in outputs.items():
            for i, array in enumerate(arrays):
                largest = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
                scales[output, i] = max(largest, scales.get((output, i), 0.0))
    return scales
