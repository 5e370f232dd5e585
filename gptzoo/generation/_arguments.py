"""The arguments of generate, all checked before any work starts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from gptzoo._settings import short, whole
from gptzoo.config import GPTConfig
from gptzoo.errors import InputError
from gptzoo.generation._others import other_problems
from gptzoo.generation._sampling import SEED_LIMIT, Sampler, noise
from gptzoo.generation._seed import next_seed
from gptzoo.inputs import ArrayKind, input_problems
from gptzoo.weights import LM

LARGEST_ID = 2**31 - 1  # what every framework's default integers hold
NEW_TOKENS = 20  # where the call names no length
TOP_K = 50  # the default of Transformers' GenerationConfig


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments of a call beside its arrays, as they were given; see `generate`.

    Attributes:
        others: what `generate` has no parameter for, by name.
    """

    max_new_tokens: Any
    max_length: Any
    eos_token_id: Any
    pad_token_id: Any
    do_sample: Any
    temperature: Any
    top_k: Any
    top_p: Any
    num_return_sequences: Any
    seed: Any
    others: Mapping[str, Any]


OWN = ["input_ids", "attention_mask", *(field.name for field in fields(Arguments) if field.name != "others")]


@dataclass(frozen=True)
class Plan:
    """What a call does.

    Attributes:
        new: how many tokens to add at most.
        ends: the ids that end a row.
        pad: the id that fills a row after its end.
        copies: how many rows each row of the prompt becomes.
        sampler: draws the tokens; None: the most likely ones are taken.
    """

    new: int
    ends: list[int]
    pad: int
    copies: int
    sampler: Sampler | None


def plan(model: Any, kind: ArrayKind, input_ids: Any, attention_mask: Any, arguments: Arguments) -> Plan:
    """Checks a call's arguments.

    Raises:
        InputError: lists what is wrong: with the arrays, the other arguments, too few positions, or a model without
            the head.
    """
    config, problems = model.config, [*other_problems(arguments.others, OWN)]
    if input_ids is None:
        problems.append("input_ids: None, expected token ids, (batch, tokens)")
    else:
        problems += input_problems(config, kind, input_ids=input_ids, attention_mask=attention_mask)
    if model.head not in LM:
        problems.append(f"{type(model).__name__} has no language model head")
    shape = tuple(input_ids.shape) if kind.is_array(input_ids) else ()
    if len(shape) > 2 or 0 in shape[:1]:
        problems.append(f"input_ids: shape {shape}, expected (batch, tokens)")
    rows, tokens = shape if len(shape) == 2 else (None, 0)
    new = _new_tokens(config, tokens, arguments, problems)
    ends, pad = _special_ids(config, arguments, problems)
    copies = _copies(arguments, problems)
    draws = _draws(arguments, problems)
    problems += _seed_problems(arguments.seed, rows)
    if problems:
        raise InputError.listing("generate", problems)
    if not arguments.do_sample:
        return Plan(new, ends, pad, copies, None)
    return Plan(new, ends, pad, copies, Sampler(*draws, noise(_keys(arguments.seed, rows or 0, copies), new)))


def _new_tokens(config: GPTConfig, tokens: int, arguments: Arguments, problems: list[str]) -> int:
    """Returns how many tokens to add to a prompt of `tokens`."""
    length, given, limit = arguments.max_length, arguments.max_new_tokens, config.n_positions
    room = limit - tokens
    if room < 1:
        if room == 0:  # more are a problem of the model's call
            problems.append(f"input_ids: {tokens} tokens, expected at most {limit - 1}: n_positions less a new one")
        return 0
    new, total = whole(given) or 0, whole(length) or 0
    before = len(problems)
    if given is not None and not 1 <= new <= room:
        problems.append(f"max_new_tokens: {short(given)}, expected 1 to {room} (n_positions less the prompt)")
    if length is not None and not tokens < total <= limit:
        problems.append(f"max_length: {short(length)}, expected {tokens + 1} to {limit}, with the prompt's {tokens}")
    if given is not None and length is not None and len(problems) == before and tokens + new != total:
        problems.append(f"max_length: {total}, expected {tokens + new} (the prompt and max_new_tokens), or only one")
    return new or (total - tokens if length is not None else min(NEW_TOKENS, room))


def _special_ids(config: GPTConfig, arguments: Arguments, problems: list[str]) -> tuple[list[int], int]:
    """Returns the ids that end a row, and the one that fills it afterwards."""
    eos, pad = arguments.eos_token_id, arguments.pad_token_id
    eos = config.eos_token_id if eos is None else eos
    ends = [] if eos is None else [whole(end) for end in (eos if isinstance(eos, list | tuple) else [eos])]
    if not all(end is not None and 0 <= end <= LARGEST_ID for end in ends):
        problems.append(f"eos_token_id: {short(eos)}, expected a token id, or a list of them")
    pad = config.pad_token_id if pad is None else pad
    fill = whole(pad) if pad is not None else (ends[0] if ends else 0)
    if pad is not None and (fill is None or not 0 <= fill <= LARGEST_ID):
        problems.append(f"pad_token_id: {short(pad)}, expected a token id")
    return [end for end in ends if end is not None], fill or 0


def _copies(arguments: Arguments, problems: list[str]) -> int:
    given = arguments.num_return_sequences
    copies = 1 if given is None else whole(given) or 0
    if copies < 1:
        problems.append(f"num_return_sequences: {short(given)}, expected an integer of at least 1")
    elif copies > 1 and arguments.do_sample is not True:
        problems.append(f"num_return_sequences: {copies}, expected 1 without do_sample=True: they would all be equal")
    return copies


def _draws(arguments: Arguments, problems: list[str]) -> tuple[float, int | None, float]:
    """Returns temperature, top_k and top_p; None, and the values that change nothing, need no do_sample."""
    sampled = arguments.do_sample
    if not (sampled is None or isinstance(sampled, bool)):
        problems.append(f"do_sample: {short(sampled)}, expected True or False")
    temperature, top_p = (_real(value) for value in (arguments.temperature, arguments.top_p))
    top_k = 0 if arguments.top_k is None else whole(arguments.top_k)
    for name, value, good, expected, neutral in (
        ("temperature", temperature, temperature > 0, "a number above 0", (1,)),
        ("top_k", top_k, top_k is not None and top_k >= 0, "an integer of at least 1, or None for all", (0, TOP_K)),
        ("top_p", top_p, 0 < top_p <= 1, "a number above 0, to 1", (1,)),
    ):
        given = short(getattr(arguments, name))
        if not good:
            problems.append(f"{name}: {given}, expected {expected}")
        elif sampled is not True and value not in neutral:
            problems.append(f"{name}: {given}, expected do_sample=True beside it: without, it has no effect")
    return temperature, top_k or None, top_p


def _real(value: Any) -> float:
    """Returns a number as Python's float, 1 for None; NaN for anything else, and for what is not finite."""
    if value is None:
        return 1.0
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _seed_problems(seed: Any, rows: int | None) -> Iterable[str]:
    """Yields what is wrong with a seed, or a list of them, for a prompt of `rows`."""
    if seed is None:
        return
    one = not isinstance(seed, Sequence)
    many = [whole(entry) for entry in ([seed] if one else seed)]
    if not all(entry is not None and 0 <= entry < SEED_LIMIT for entry in many):
        yield f"seed: {short(seed)}, expected an integer from 0 to 2**64 - 1, or a list of them"
    elif not one and rows is not None and len(many) != rows:
        yield f"seed: {len(many)} integers, expected one for each of {rows} rows of input_ids"


def _keys(seed: Any, rows: int, copies: int) -> list[tuple[int, int]]:
    """Returns the key of each row's noise: the call's seed and the row, or the prompt's own seed and the copy."""
    if isinstance(seed, Sequence):
        return [(int(entry), copy) for entry in seed for copy in range(copies)]
    one = next_seed() if seed is None else int(seed)
    return [(one, row) for row in range(rows * copies)]
