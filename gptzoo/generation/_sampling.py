"""How a token is drawn: the same one in every framework, for the same logits and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gptzoo.errors import GPTZooError

SEED_LIMIT = 2**64  # a word of the generator's key


def noise(keys: Sequence[tuple[int, int]], steps: int) -> np.ndarray:
    """Returns the numbers that rows are drawn with.

    Number t of a row is word t of Philox-4x64-10 (Salmon et al. 2011) with the row's key and a counter from 1, its
    upper 53 bits as a fraction. So it depends neither on other rows nor on how many steps there are.

    Args:
        keys: of each row, a seed and a number, both from 0 to 2**64 - 1.

    Returns:
        (rows, steps) float64, from 0 to below 1.
    """
    words = [np.random.Philox(key=np.array(key, np.uint64)).random_raw(steps) for key in keys]
    return (np.stack(words) >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class Sampler:
    """Draws the tokens of one call, in float64, each row by itself.

    1. A token's weight is exp((logit - largest logit) / temperature).
    2. top_k keeps the tokens whose logit is at least the k-th largest: ties with it stay, so that more may be left.
    3. top_p ranks those by weight, ties by lower id first, and keeps the shortest beginning of that list whose weights
       make up at least top_p of the weights of all that top_k has left.
    4. The token is the first one kept, in the order of ids, at which the weights added up exceed the row's noise of
       the step times the weights of all kept.

    The logits of two frameworks differ by about 1e-6 of the largest. Where the noise, or top_p, lies that close to a
    sum of weights, or two logits that close to each other around the k-th place, they may draw different tokens.

    Attributes:
        temperature: above 0.
        top_k: at least 1; None: all tokens.
        top_p: above 0, to 1.
        noise: (rows, steps), from 0 to below 1.
    """

    temperature: float
    top_k: int | None
    top_p: float
    noise: np.ndarray

    def choose(self, logits: np.ndarray, step: int) -> np.ndarray:
        """Draws the next token of each row.

        Args:
            logits: (rows, V), of any floating dtype.
            step: how many tokens have been drawn before.

        Returns:
            (rows,) int64.

        Raises:
            GPTZooError: logits are infinite or not numbers.
        """
        logits = np.asarray(logits, np.float64)
        if not np.isfinite(logits.max(axis=-1)).all():
            raise GPTZooError(f"generate: infinite logits or not numbers at new token {step + 1}, expected finite ones")
        return np.array([self._draw(row, u) for row, u in zip(logits, self.noise[:, step], strict=True)])

    def kept(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids that can be drawn from a row's logits, (V,) float64, in their order, and their weights."""
        with np.errstate(over="ignore"):  # a small temperature: -inf is a weight of 0
            weights = np.exp((logits - logits.max()) / self.temperature)
        ids = np.arange(len(logits))
        if self.top_k is not None and self.top_k < len(logits):
            ids = np.flatnonzero(logits >= np.partition(logits, -self.top_k)[-self.top_k])
        if self.top_p < 1:
            ranked = ids[np.argsort(-weights[ids], kind="stable")]
            sums = weights[ranked].cumsum()
            ids = np.sort(ranked[: np.searchsorted(sums, self.top_p * sums[-1]) + 1])
        return ids, weights[ids]

    def _draw(self, logits: np.ndarray, u: float) -> int:
        ids, weights = self.kept(logits)
        sums = weights.cumsum()
        return int(ids[np.searchsorted(sums, u * sums[-1], side="right")])
