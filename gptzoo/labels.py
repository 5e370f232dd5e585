"""What a head takes beside the backbone's arguments: checks of labels and choices, and the type of a problem."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gptzoo.config import GPTConfig
from gptzoo.errors import InputError
from gptzoo.heads import HEADS, class_name
from gptzoo.inputs import (
    IGNORED,
    ArrayKind,
    Shape,
    dtype_of,
    fits,
    input_problems,
    is_whole,
    range_problems,
    show,
    token_shape,
)


def check_call(head: str, config: GPTConfig, kind: ArrayKind, inputs: Mapping[str, Any], **own: Any) -> None:
    """Checks the arguments that a head has beside the backbone's; if one is wrong, the backbone's are listed too.

    Args:
        head: key of `gptzoo.heads.HEADS`.
        inputs: the backbone's arguments by name, `past_key_values` normalised; those not given are None.
        own: labels and other arguments of the head by name; those not given are None.

    Raises:
        InputError: lists every argument that does not fit.
    """
    given = {name: inputs[name] for name in ("input_ids", "inputs_embeds") if kind.is_array(inputs[name])}
    tokens, problem = token_shape(config, given)
    if problem:  # the backbone refuses the call
        return
    problems = [*_own_problems(head, config, kind, tokens, own)]
    if head == "ForSequenceClassification":
        problems += _padding_problems(config, tokens, inputs["attention_mask"])
    if problems:
        problems = [*input_problems(config, kind, **inputs), *problems]
        raise InputError.listing(f"{class_name(config, head)} call", problems)


def _own_problems(head: str, config: GPTConfig, kind: ArrayKind, tokens: Shape, own: dict[str, Any]) -> Iterable[str]:
    for name, value in own.items():
        if name == "logits_to_keep":
            yield from _keep_problems(kind, value, tokens[-1])
        elif value is not None and not kind.is_array(value):
            yield f"{name}: a {type(value).__name__}, expected {kind.name}"
        elif value is not None:
            yield from _CHECKS[_kind_of(head, name)](config, kind, name, value, tokens)
    if (own.get("start_positions") is None) != (own.get("end_positions") is None):
        yield "start_positions and end_positions: one given, expected both or neither"


def problem_type(config: GPTConfig, labels: Any) -> str:
    """Returns the config's problem type, or the one that the labels of this call are for.

    One label per row of floats or a single class is a regression, integers name one class of several, and anything else
    says of each class whether it applies.
    """
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "single_label_classification" if is_whole(labels) else "multi_label_classification"


def _padding_problems(config: GPTConfig, tokens: Shape, attention_mask: Any) -> Iterable[str]:
    """Rows of a batch end anywhere, unless a pad id or a mask says where."""
    if config.pad_token_id is not None or attention_mask is not None or None in tokens[:-1]:
        return
    if (rows := math.prod(tokens[:-1])) > 1:
        yield (
            f"a batch of {rows} rows without padding information, which the last token of each row depends on: "
            "give attention_mask, or set config.pad_token_id"
        )


def _kind_of(head: str, name: str) -> str:
    """Returns the kind of loss that an argument is the labels of, or the argument's own name."""
    for labels, kind in HEADS[head].losses.values():
        if name in labels.split():
            return kind
    return name


def _tokens(config: GPTConfig, kind: ArrayKind, name: str, labels: Any, tokens: Shape) -> Iterable[str]:
    """A next token for each token."""
    yield from _shape_problems(name, labels, tokens)
    yield from range_problems(kind, name, labels, 0, config.vocab_size - 1, "vocab_size", IGNORED)


def _classes(config: GPTConfig, kind: ArrayKind, name: str, labels: Any, tokens: Shape) -> Iterable[str]:
    """A class for each token."""
    yield from _shape_problems(name, labels, tokens)
    yield from range_problems(kind, name, labels, 0, config.num_labels - 1, "num_labels", IGNORED)


def _problem(config: GPTConfig, kind: ArrayKind, name: str, labels: Any, tokens: Shape) -> Iterable[str]:
    """A class, a number or a vector for each row, as the problem type says."""
    rows, n, wanted = tokens[:-1], config.num_labels, problem_type(config, labels)
    vector = (*rows, n)
    if wanted == "single_label_classification":
        yield from _shape_problems(name, labels, rows, (*rows, 1), of=wanted)
        yield from range_problems(kind, name, labels, 0, n - 1, "num_labels", IGNORED)
    elif wanted == "regression" and n == 1:
        yield from _shape_problems(name, labels, rows, vector, of=wanted)
    else:
        yield from _shape_problems(name, labels, vector, of=wanted)


def _choice(config: GPTConfig, kind: ArrayKind, name: str, labels: Any, tokens: Shape) -> Iterable[str]:
    """The right choice of each question; the rows of (B, T) tokens are the choices of one question."""
    if not config.has_choice_scores:
        yield f"{name}: given, but this config's summary is no single score (summary_proj_to_labels)"
    questions = tokens[:-2]
    yield from _shape_problems(name, labels, *([questions] if questions else [(), (1,)]))
    yield from range_problems(kind, name, labels, 0, _last(tokens[-2:-1]), "choices", IGNORED)


def _choice_tokens(config: GPTConfig, kind: ArrayKind, name: str, ids: Any, tokens: Shape) -> Iterable[str]:
    """The token of each choice that stands for it."""
    yield from _shape_problems(name, ids, tokens[:-1])
    yield from range_problems(kind, name, ids, 0, _last(tokens), "tokens")


def _spans(config: GPTConfig, kind: ArrayKind, name: str, positions: Any, tokens: Shape) -> Iterable[str]:
    """A position for each row; one that is not among the tokens is not counted."""
    yield from _shape_problems(name, positions, tokens[:-1], (*tokens[:-1], 1))
    if not is_whole(positions):
        yield f"{name}: dtype {dtype_of(positions)}, expected integers"


def _keep_problems(kind: ArrayKind, wanted: Any, n_tokens: Any) -> Iterable[str]:
    whole = isinstance(wanted, int | np.integer) and not isinstance(wanted, bool)
    if wanted is None or (whole and wanted >= 0):
        return
    if whole or not kind.is_array(wanted) or len(wanted.shape) != 1:
        yield f"logits_to_keep: {wanted!r:.40}, expected a number of tokens, or a 1-D array of indices"
    elif n_tokens is not None:
        yield from range_problems(kind, "logits_to_keep", wanted, -n_tokens, n_tokens - 1, "tokens")


def _shape_problems(name: str, array: Any, *expected: Shape, of: str = "") -> Iterable[str]:
    shape = tuple(array.shape)
    if not any(fits(shape, want) for want in expected):
        wanted = " or ".join(map(show, expected)) + (f" ({of})" if of else "")
        yield f"{name}: shape {show(shape)}, expected {wanted}"


def _last(axis: Shape) -> Any:
    return None if not axis or axis[-1] is None else axis[-1] - 1


# Kind of loss, or name of an argument -> its check.
_CHECKS = {
    "next_token": _tokens,
    "token": _classes,
    "problem_type": _problem,
    "choice": _choice,
    "mc_token_ids": _choice_tokens,
    "span": _spans,
}
