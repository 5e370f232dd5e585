"""What the score of a text is, framework-free: its windows, log probabilities and perplexity."""

from gptzoo.scoring._run import Steps, score
from gptzoo.scoring._score import Score
from gptzoo.scoring._texts import TextError

__all__ = ["Score", "Steps", "TextError", "score"]
