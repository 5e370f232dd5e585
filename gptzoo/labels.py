"""What a head takes beside the backbone's arguments: checks of labels and choices, and the type of a problem."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gptzoo.config import GPTConfig
from gptzoo.errors import InputError
from gptzoo.heads import HEADS, class_name
from gptzoo.inputs import IGNORED, ArrayKind, Shape, dtype_of, fits, range_problems, show


def check_labels(head: str, config: GPTConfig, kind: ArrayKind, tokens: Any, **given: Any) -> None:
    """Checks the arguments that a head has beside the backbone's.

    Args:
        head: key of `gptzoo.heads.HEADS`.
        tokens: (..., T), `input_ids`, or (..., T, n_embd), `inputs_embeds`; None: the backbone refuses the call.
        given: labels and other arguments by name; those not given are None.

    Raises:
        InputError: lists every argument that does not fit.
    """
    if not hasattr(tokens, "shape") or all(value is None for value in given.values()):
        return
    shape = token_shape(tokens)
    problems: list[str] = []
    for name, value in given.items():
        if value is None or name == "logits_to_keep":
            continue
        if not kind.is_array(value):
            problems.append(f"{name}: a {type(value).__name__}, expected {kind.name}")
        else:
            problems += _CHECKS[_kind_of(head, name)](config, kind, name, value, shape)
    problems += _keep_problems(kind, given.get("logits_to_keep"), shape[-1])
    if (given.get("start_positions") is None) != (given.get("end_positions") is None):
        problems.append("start_positions and end_positions: one given, expected both or neither")
    if problems:
        raise InputError.listing(f"{class_name(config, head)} call", problems)


def token_shape(tokens: Any) -> Shape:  # ids (..., T) or embeddings (..., T, n_embd)
    is_embeds = "int" not in str(tokens.dtype) and len(tokens.shape) > 2
    return tuple(tokens.shape[:-1] if is_embeds else tokens.shape)


def problem_type(config: GPTConfig, labels: Any) -> str:
    """Returns the config's problem type, or the one that the labels of this call are for.

    One label per row of floats or a single class is a regression, integers name one class of several, and anything else
    says of each class whether it applies.
    """
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "single_label_classification" if "int" in str(labels.dtype) else "multi_label_classification"


def require_padding(config: GPTConfig, tokens: Any, attention_mask: Any) -> None:
    """Checks that the last real token of each row can be told from padding.

    Args:
        tokens: (..., T) `input_ids`, or (..., T, n_embd) `inputs_embeds`; None: the backbone refuses the call.

    Raises:
        InputError: several rows, neither `config.pad_token_id` nor an attention mask.
    """
    if config.pad_token_id is not None or attention_mask is not None or not hasattr(tokens, "shape"):
        return
    shape = token_shape(tokens)[:-1]
    rows = 1 if None in shape else math.prod(shape)
    if rows > 1:
        raise InputError(
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
    if "int" not in str(positions.dtype):
        yield f"{name}: dtype {dtype_of(positions)}, expected integers"


def _keep_problems(kind: ArrayKind, wanted: Any, n_tokens: Any) -> Iterable[str]:
    if wanted is None or (isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 0):
        return
    if isinstance(wanted, int | str | float) or not hasattr(wanted, "shape") or len(wanted.shape) != 1:
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
