"""How two arrays are compared: numbers for people, one verdict for machines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.errors import GPTZooError

# Largest error that a right implementation may show, as max |error| / max |reference|, by the dtype it computes in.
# float32: three right twins stay below 4e-7 on tiny models; the smallest wrong one (another epsilon) is at 2.5e-5.
# float16 and bfloat16 carry 11 and 8 bits, of which a few are lost by the depth of the model.
TOLERANCES = {"float64": 1e-13, "float32": 1e-6, "bfloat16": 5e-2, "float16": 1e-2}

# Width of the sums at which these hold. Rounding grows as the square root of the number of products in a sum; the
# widest sums are those over the MLP, 640 products in the bundled model and 3072 in GPT-2 124M.
BASE_WIDTH = 96


def default_tolerance(dtype: str, config: GPTConfig) -> float:
    """Returns the tolerance of a dtype for models of this width.

    Raises:
        GPTZooError: there is none.
    """
    if dtype not in TOLERANCES:
        raise GPTZooError(f"dtype {dtype!r}: expected one of {', '.join(TOLERANCES)}")
    return TOLERANCES[dtype] * math.sqrt(max(1.0, config.n_mlp / BASE_WIDTH))


@dataclass(frozen=True)
class Comparison:
    """One output of one framework against the reference.

    Attributes:
        max_abs: largest absolute error.
        max_rel: largest absolute error over the largest absolute value of the reference, over all cases of a run: a
            score that happens to be small is the difference of larger numbers, and has the rounding of these.
        top1: share of tokens whose most likely next token agrees, of those that the reference decides by more than
            the tolerance; None where the output is not logits.
        mean_kl: mean Kullback-Leibler divergence from the reference, nats a token; None where it is not logits.
        not_finite: number of values that are the same NaN or infinity on both sides; the others make the numbers.
        problem: what makes the numbers meaningless (a shape, a NaN on one side), or None.
    """

    framework: str
    case: str
    output: str
    tolerance: float
    max_abs: float = 0.0
    max_rel: float = 0.0
    top1: float | None = None
    mean_kl: float | None = None
    not_finite: int = 0
    problem: str | None = None

    @property
    def passed(self) -> bool:
        return self.problem is None and self.max_rel <= self.tolerance and self.top1 in (None, 1.0)


def compare(
    framework: str,
    case: str,
    output: str,
    found: np.ndarray,
    wanted: np.ndarray,
    tolerance: float,
    scale: float = 0.0,
) -> Comparison:
    """Compares one array with the reference's; a NaN or infinity is a failure on one side only, counted on both.

    Args:
        scale: what errors are relative to; at least the largest absolute value of `wanted`.
    """
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if found.shape != wanted.shape:
        problem = f"shape {found.shape}, expected {wanted.shape}"
        return Comparison(framework, case, output, tolerance, problem=problem)
    if not np.array_equal(np.isfinite(found), np.isfinite(wanted)):
        count = np.sum(np.isfinite(found) != np.isfinite(wanted))
        return Comparison(
            framework, case, output, tolerance, problem=f"{count} values NaN or infinite on one side only"
        )
    finite = np.isfinite(wanted)
    if not np.array_equal(found[~finite], wanted[~finite], equal_nan=True):
        return Comparison(framework, case, output, tolerance, problem="NaN or infinities differ")
    error = np.abs(found[finite] - wanted[finite]).max(initial=0.0)
    scale = np.abs(wanted[finite]).max(initial=scale)
    relative = error / scale if scale else (0.0 if not error else np.inf)
    top1, mean_kl = (
        _distributions(found, wanted, tolerance * scale) if output == "logits" and finite.all() else (None, None)
    )
    not_finite = int(np.sum(~finite))
    return Comparison(framework, case, output, tolerance, float(error), float(relative), top1, mean_kl, not_finite)


def _distributions(found: np.ndarray, wanted: np.ndarray, margin: float) -> tuple[float, float]:
    """Agreement of the most likely token, and the mean KL divergence, over the last axis."""
    ranked = np.sort(wanted, axis=-1)
    decided = (
        ranked[..., -1] - ranked[..., -2] > 2 * margin if wanted.shape[-1] > 1 else np.ones(wanted.shape[:-1], bool)
    )
    agree = found.argmax(-1) == wanted.argmax(-1)
    p, q = _log_softmax(wanted), _log_softmax(found)
    kl = (np.exp(p) * (p - q)).sum(-1)
    return float(agree[decided].mean()) if decided.any() else 1.0, float(np.abs(kl).mean())


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
