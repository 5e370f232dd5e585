"""What generation means, framework-free; the loops belong to the frameworks."""

from __future__ import annotations

from typing import Any

from gptzoo._settings import is_int
from gptzoo.errors import InputError
from gptzoo.weights import LM


def stop_ids(
    model: Any, shape: tuple[int, ...], max_new_tokens: int, eos: int | list[int] | None, pad: int | None
) -> tuple[list[int], int]:
    """Checks a completion's arguments and returns the ids that end a row, and the one that fills it afterwards.

    Raises:
        InputError: the model has no language model head, the prompt is not (B, T), or there are too few positions.
    """
    config = model.config
    problems = []
    if model.head not in LM:
        problems.append(f"{type(model).__name__} has no language model head")
    if len(shape) != 2 or 0 in shape:
        problems.append(f"input_ids: shape {tuple(shape)}, expected (batch, tokens)")
    elif not (is_int(max_new_tokens) and 1 <= max_new_tokens <= config.n_positions - shape[1]):
        room = config.n_positions - shape[1]
        problems.append(f"max_new_tokens: {max_new_tokens!r}, expected 1 to {room} (n_positions less the prompt)")
    if problems:
        raise InputError.listing("generate", problems)
    eos = config.eos_token_id if eos is None else eos
    ends = [eos] if isinstance(eos, int) else list(eos or ())
    pad = config.pad_token_id if pad is None else pad
    return ends, (ends[0] if ends else 0) if pad is None else pad
