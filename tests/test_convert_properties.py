"""Models that nobody thought of, to every format and back: the same bits, or a refusal that names what has no place."""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (bfloat16 by its name)
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gptzoo import reference, weights
from gptzoo._load import plan_load
from gptzoo.checkpoint import save_checkpoint
from gptzoo.config import ACTIVATIONS, CONFIGS, GPTConfig
from gptzoo.errors import ConversionError
from gptzoo.heads import HEADS
from gptzoo_conversion import FORMATS, ForeignCheckpoint, convert, open_foreign
from gptzoo_conversion.cells import HEADS_FIRST, HEADS_LAST
from gptzoo_conversion.format import Format
from tests import matrix

DTYPES = ("float32", "float16", "bfloat16")
CELLS = [(name, row) for name, format in FORMATS.items() for row in format.column]
ROWS = {row.name: row for row in weights.TABLE}

EXAMPLES = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # shrinking would take minutes; a failing model is small as it is
    suppress_health_check=[HealthCheck.too_slow],
)


def random_bits(shape: tuple[int, ...], dtype: str, seed: int) -> np.ndarray:
    """Any finite numbers, the subnormal ones and both zeros among them."""
    kind = np.dtype(dtype)
    data = np.random.default_rng(seed).bytes(math.prod(shape) * kind.itemsize)
    result = np.frombuffer(data, kind).reshape(shape).copy()
    with np.errstate(invalid="ignore"):
        result[~np.isfinite(result)] = -0.0
    return result


@pytest.mark.parametrize(("format", "row"), CELLS, ids=[f"{name}-{row}" for name, row in CELLS])
def test_a_cell_is_undone_by_its_own_inverse(format: str, row: str) -> None:
    cell = FORMATS[format].column[row]
    for seed, dtype in enumerate(DTYPES):
        n_head, *sizes = map(int, np.random.default_rng(seed).permutation([2, 3, 5, 7]))
        shape = tuple(sizes[: len(ROWS[row].shape.split())])
        if HEADS_FIRST in cell.changes:
            shape = (shape[0] * n_head, *shape[1:])
        if HEADS_LAST in cell.changes:
            shape = (*shape[:-1], shape[-1] * n_head)
        shape = (*shape[:-1], shape[-1] * len(cell.names))
        array = random_bits(shape, dtype, seed)
        parts = cell.split(array, n_head)
        back = cell.join(parts)
        assert len(parts) == len(cell.names)
        assert (back.shape, back.dtype, back.tobytes()) == (array.shape, array.dtype, array.tobytes())
        shapes = [part.shape for part in parts]
        assert cell.split_shapes(shape, n_head) == shapes
        assert cell.join_shapes(shapes) == shape


@pytest.mark.parametrize("format", FORMATS)
def test_a_column_is_made_of_rows_of_the_table_and_no_name_stands_twice(format: str) -> None:
    column = FORMATS[format].column
    assert set(column) <= set(ROWS)
    names: Counter[str] = Counter()
    for row, cell in column.items():
        for block in range(13) if "{i}" in row else [None]:
            names.update(cell.named(block))
    assert max(names.values()) == 1
    assert not any(set("{}") & set(name) for name in names)


@st.composite
def models(draw: st.DrawFn, format: Format) -> tuple[GPTConfig, str, str, int]:
    """A config, a head, a dtype and a seed; more often than by chance such as the format holds."""
    plain = draw(st.booleans())
    family = draw(st.sampled_from(format.families if plain else tuple(CONFIGS)))
    dtype = draw(st.sampled_from([dtype for dtype in DTYPES if dtype in format.dtypes or not plain]))
    head = draw(st.sampled_from([head for head in HEADS if not plain or _holds(format, head)]))
    n_head, n_layer = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    values: dict[str, Any] = {
        "vocab_size": draw(st.integers(1, 30)),
        "n_positions": draw(st.integers(1, 12)),
        "n_head": n_head,
        "n_embd": n_head * draw(st.integers(2, 6)),
        "n_layer": n_layer,
        "layer_norm_epsilon": draw(st.sampled_from([1e-5, 1e-12, 3e-3])),
        "tie_word_embeddings": draw(st.booleans()),
        "num_labels": draw(st.integers(1, 4)),
    }
    activation = "activation_function" if family == "gpt2" else "afn"
    values[activation] = draw(st.sampled_from(["gelu_new", "gelu", "relu", *([] if plain else ["prelu", "xielu"])]))
    if n_head > 1 and (format.prunes or not plain) and draw(st.booleans()):
        values["pruned_heads"] = {draw(st.integers(0, n_layer - 1)): [draw(st.integers(0, n_head - 1))]}
    if family == "gpt2":
        values["n_inner"] = draw(st.none() | st.integers(1, 40))
        values["add_cross_attention"] = not plain and draw(st.booleans())
        values["scale_attn_by_inverse_layer_idx"] = draw(st.booleans())
    if plain and draw(st.booleans()):
        values |= {"n_inner": None} if family == "gpt2" else {}
        values |= {name: value for name, value in format.fixed.items() if hasattr(CONFIGS[family](), name)}
    return CONFIGS[family](**values), head, dtype, draw(st.integers(0, 2**32 - 1))


def _holds(format: Format, head: str) -> bool:
    return all(row.name in format.column or row.tied for row in weights.TABLE if row.heads and head in row.heads)


def _arrays(config: GPTConfig, head: str, dtype: str, seed: int) -> dict[str, np.ndarray]:
    specs = weights.specs(config, head).values()
    return {spec.name: random_bits(spec.shape, dtype, seed + i) for i, spec in enumerate(specs) if not spec.tied}


def _bare(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {n.removeprefix(weights.PREFIX): (a.dtype.name, a.shape, a.tobytes()) for n, a in arrays.items()}


def _reasons(format: Format, config: GPTConfig, head: str, dtype: str) -> list[str]:
    """What the format has no place for, as an error must name it."""
    found = [] if dtype in format.dtypes else [dtype]
    if config.model_type not in format.families:
        return [f"model_type {config.model_type}", *found]
    found += ["pruned_heads"] if config.pruned_heads and not format.prunes else []
    return found + _lost_weights(format, config, head) + _changed_fields(format, config)


def _lost_weights(format: Format, config: GPTConfig, head: str) -> list[str]:
    specs = weights.specs(config, head).values()
    return sorted({spec.row.name for spec in specs if not spec.tied and spec.row.name not in format.column})


def _changed_fields(format: Format, config: GPTConfig) -> list[str]:
    return [
        f"{name} {getattr(config, name)!r}"
        for name, value in format.fixed.items()
        if hasattr(config, name) and _meaning(getattr(config, name)) != _meaning(value)
    ]


def _meaning(value: Any) -> Any:
    return ACTIVATIONS.get(value, value)


def _is_true(reason: str, config: GPTConfig, head: str, expected: list[str]) -> bool:
    """Whether a line of a refusal is one of those to be expected; or of an MLP of another width than 4, or of a weight
    that goes with others of its head."""
    own = {row.name for row in weights.rows(config, head) if row.heads}
    narrow = config.n_mlp != 4 * config.n_embd and reason.startswith(f"n_inner {config.n_inner}: ")
    along = reason.split(": no weight of ")[0] in own and bool({*own, "tie_word_embeddings False"} & set(expected))
    return narrow or along or any(reason.startswith(f"{name}: ") for name in expected)


def _assert_same_model(back: ForeignCheckpoint, config: GPTConfig, head: str) -> None:
    """The same numbers come out of both configs, whatever the weights."""
    values = matrix.random_weights(config, head)
    ids = np.random.default_rng(2).integers(0, config.vocab_size, (2, config.n_positions))
    call: dict[str, Any] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    wanted = reference.forward(head, config, values, **call)
    found = reference.forward(head, back.config, values, **call)
    output = matrix.main_output(head)
    assert np.array_equal(found[output], wanted[output])


@pytest.mark.parametrize("format", FORMATS)
def test_any_model_goes_there_and_back_or_is_refused_by_name(format: str) -> None:
    outcomes: Counter[str] = Counter()

    @EXAMPLES
    @given(models(FORMATS[format]))
    def check(model: tuple[GPTConfig, str, str, int]) -> None:
        config, head, dtype, seed = model
        arrays = _arrays(config, head, dtype, seed)
        expected = _reasons(FORMATS[format], config, head, dtype)
        with tempfile.TemporaryDirectory() as name:
            source, there, back = (Path(name) / part for part in ("source", "there", "back"))
            save_checkpoint(source, config, head, arrays)
            try:
                convert(source, there, format)
            except ConversionError as problem:
                outcomes["refused"] += 1
                reasons = _listed(problem)
                assert reasons
                assert all(_is_true(reason, config, head, expected) for reason in reasons), reasons
                assert not there.exists()
                _check_drop(source, there, format, model, arrays, reasons)
                return
            outcomes["held"] += 1
            assert not expected
            convert(there, back, "safetensors")
            found = open_foreign(back)
            plan = plan_load(found, found.config, head)
            assert _bare(dict(plan.values())) == _bare(arrays)
            _assert_same_model(found, config, head)

    check()
    assert outcomes["held"] >= 3, outcomes
    assert outcomes["refused"] >= 3 or not FORMATS[format].fixed, outcomes


def _listed(problem: ConversionError) -> list[str]:
    """The reasons in a message: behind the paths, in one line or in many."""
    lines = str(problem).splitlines()
    return [line.strip().removeprefix("- ") for line in lines[1:]] or [re.split(r" as \w+: ", lines[0])[1]]


def _check_drop(
    source: Path,
    there: Path,
    format: str,
    model: tuple[GPTConfig, str, str, int],
    arrays: dict[str, np.ndarray],
    reasons: list[str],
) -> None:
    """What remains after --drop has its bits, and what does not remain is named; or nothing is written at all."""
    config, head, dtype, _ = model
    layout = FORMATS[format]
    expected = _reasons(layout, config, head, dtype)
    if not all("--drop" in reason for reason in reasons):
        with pytest.raises(ConversionError):
            convert(source, there, format, drop=True)
        assert not there.exists()
        return
    done = convert(source, there, format, drop=True)
    assert done.dropped
    assert all(_is_true(reason, config, head, expected) for reason in done.dropped)
    found = open_foreign(there)
    held = {name.removeprefix(weights.PREFIX) for name in done.tensors}
    lost = {name for name in _bare(arrays) if name not in held}
    named = " ".join(done.dropped)
    assert all(row in named for row in _lost_weights(layout, config, head))
    assert all(re.sub(r"\d+", "{i}", name) in named for name in lost)
    kept = {name: array for name, array in arrays.items() if name.removeprefix(weights.PREFIX) in held}
    stored = {name.removeprefix(weights.PREFIX): name for name in found.tensors}
    assert _bare({name: found.read(stored[name.removeprefix(weights.PREFIX)]) for name in kept}) == _bare(kept)
    for name in ("n_layer", "n_head", "n_embd", "vocab_size", "n_positions", "n_mlp"):
        assert getattr(found.config, name) == getattr(config, name), name
    assert not _changed_fields(layout, found.config)
