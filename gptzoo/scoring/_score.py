"""How likely a model finds a text."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False, repr=False)
class Score:
    """The log probabilities of a text's tokens, each given those before it. The first token has none.

    Attributes:
        token_ids: (T,) int64, with the bos token that was put before them.
        log_probs: (T - 1,) float64, of every token but the first: natural logarithms.
        tokens: (T,) as the vocabulary has them; None without a tokenizer.
        n_bytes: of the text in UTF-8; None where not all of its tokens have a log probability, or it came as ids.
    """

    token_ids: np.ndarray
    log_probs: np.ndarray
    tokens: list[str] | None = None
    n_bytes: int | None = None

    @property
    def n_tokens(self) -> int:
        """How many tokens have a log probability."""
        return len(self.log_probs)

    @property
    def total(self) -> float:
        """The log probability of all tokens but the first, given the first."""
        return float(self.log_probs.sum())

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log probability of a token; infinite where a float cannot hold it."""
        try:
            return math.exp(-self.total / self.n_tokens)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Negative log probability to the base of 2, for each byte of the text: it compares tokenizers too."""
        return None if self.n_bytes is None else -self.total / math.log(2) / self.n_bytes

    def __repr__(self) -> str:
        return f"Score({self.n_tokens} tokens, log probability {self.total:.6g}, perplexity {self.perplexity:.6g})"
