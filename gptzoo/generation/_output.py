"""What generate returns where more than the sequences is asked for."""

from __future__ import annotations

from gptzoo.outputs import ModelOutput


class GenerateOutput(ModelOutput):
    """Sequences, and what they were chosen by; read by attribute, key, index or slice.

    R rows: those of the prompt, each as often as there are beams, or completions drawn of it. V vocabulary.

    Attributes:
        sequences: (B * num_return_sequences, T + N), the prompts and their new tokens.
        sequences_scores: of beam search, of each sequence: its log probability over its number of new tokens to the
            power of `length_penalty`.
        scores: of each step (R, V), what the tokens were chosen by, behind all processors.
        logits: of each step (R, V), the model's.
    """

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return "sequences", "sequences_scores", "scores", "logits"
