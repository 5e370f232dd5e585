"""What generation means, framework-free; the loops belong to the frameworks."""

from __future__ import annotations

from typing import Any

from gptzoo._settings import short, whole
from gptzoo.errors import InputError
from gptzoo.inputs import ArrayKind, input_problems
from gptzoo.weights import LM

LARGEST_ID = 2**31 - 1  # what every framework's default integers hold


def check_prompt(
    model: Any,
    kind: ArrayKind,
    input_ids: Any,
    attention_mask: Any,
    max_new_tokens: Any,
    eos: Any,
    pad: Any,
) -> tuple[int, list[int], int]:
    """Checks a completion's arguments.

    Returns:
        How many tokens to add, the ids that end a row, and the one that fills it afterwards.

    Raises:
        InputError: lists what is wrong: with the arrays, the numbers, too few positions, or a model without the head.
    """
    config = model.config
    problems = [*input_problems(config, kind, input_ids=input_ids, attention_mask=attention_mask)]
    if model.head not in LM:
        problems.append(f"{type(model).__name__} has no language model head")
    shape = tuple(input_ids.shape) if kind.is_array(input_ids) else ()
    if len(shape) > 2 or 0 in shape[:1]:
        problems.append(f"input_ids: shape {shape}, expected (batch, tokens)")
    room = config.n_positions - shape[1] if len(shape) == 2 else config.n_positions
    if not 1 <= (new := whole(max_new_tokens) or 0) <= room:
        problems.append(f"max_new_tokens: {max_new_tokens!r}, expected 1 to {room} (n_positions less the prompt)")
    eos = config.eos_token_id if eos is None else eos
    ends = [] if eos is None else [whole(end) for end in (eos if isinstance(eos, list | tuple) else [eos])]
    if not all(end is not None and 0 <= end <= LARGEST_ID for end in ends):
        problems.append(f"eos_token_id: {short(eos)}, expected a token id, or a list of them")
    pad = config.pad_token_id if pad is None else pad
    fill = whole(pad) if pad is not None else (ends[0] if ends else 0)
    if fill is None or not 0 <= fill <= LARGEST_ID:
        problems.append(f"pad_token_id: {short(pad)}, expected a token id")
    if problems:
        raise InputError.listing("generate", problems)
    return new, [end for end in ends if end is not None], fill or 0
