"""Checkpoints written and read: every weight, bit for bit, with Transformers and safetensors as witnesses."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gptzoo import weights
from gptzoo.checkpoint import open_checkpoint, plan_load, save_checkpoint
from gptzoo.config import CONFIGS, GPT2Config
from gptzoo.errors import CheckpointError
from gptzoo.heads import HEADS, class_name
from gptzoo.inspect import describe
from tests.checkpoints import (
    CLASS_IDS,
    CLASSES,
    DTYPES,
    TINY,
    Arrays,
    arrays,
    assert_same,
    contents,
    load,
    refusal,
    store,
    tiny,
)

# Saved and read back


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("family", "head"), CLASSES, ids=CLASS_IDS)
def test_saved_weights_come_back(family: str, head: str, dtype: str, tmp_path: Path) -> None:
    config = tiny(family, architectures=["Other"], dtype="float16")
    expected = arrays(config, head, dtype)
    save_checkpoint(tmp_path / "new" / "directory", config, head, expected)
    assert_same(load(tmp_path / "new" / "directory", head), expected)
    written = json.loads((tmp_path / "new" / "directory" / "config.json").read_text())
    assert (written["architectures"], written["dtype"]) == ([class_name(config, head)], dtype)
    assert (config.architectures, config.dtype) == (["Other"], "float16")  # the caller's config is not changed
    assert sorted(contents(tmp_path)) == ["new/directory/config.json", "new/directory/model.safetensors"]


@pytest.mark.parametrize("changes", [{"tie_word_embeddings": False}, {"add_cross_attention": True, "n_inner": 5}])
def test_saved_weights_of_other_configs_come_back(changes: dict[str, Any], tmp_path: Path) -> None:
    config = tiny(**changes)
    expected = arrays(config, "LMHeadModel")
    save_checkpoint(tmp_path, config, "LMHeadModel", expected)
    assert_same(load(tmp_path, "LMHeadModel"), expected)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) is not config.tie_word_embeddings


@pytest.mark.parametrize("dtype", DTYPES)
def test_file_is_the_same_as_by_the_safetensors_library(dtype: str, tmp_path: Path) -> None:
    tensors = arrays(tiny(), "LMHeadModel", dtype)
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"].astype(np.float32)
    tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"].astype(np.float16)
    save_checkpoint(tmp_path, tiny(), "LMHeadModel", tensors)
    save_file(tensors, tmp_path / "theirs", {"format": "pt"})
    assert (tmp_path / "model.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert_same(load(tmp_path, "LMHeadModel"), tensors)
    assert open_checkpoint(tmp_path).config.dtype == ("float64" if dtype == "float64" else "float32")


@pytest.mark.parametrize(("stored", "common"), [(DTYPES[:2], "float32"), (DTYPES[1:3], "float32"), (DTYPES, "float64")])
def test_dtype_of_mixed_weights_holds_all(stored: tuple[str, ...], common: str, tmp_path: Path) -> None:
    tensors = arrays(tiny(), "Model")
    mixed = {name: array.astype(np.dtype(stored[i % len(stored)])) for i, (name, array) in enumerate(tensors.items())}
    store(tmp_path, mixed, tiny())
    checkpoint = open_checkpoint(tmp_path)
    assert plan_load(checkpoint, checkpoint.config, "Model").dtype == common


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
    "big-endian": lambda x: x.astype(">f4"),
    "inside-a-larger": lambda x: np.pad(x, [(1, 1)] * x.ndim)[tuple(slice(1, -1) for _ in x.shape)],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("shard_size", ["5GB", "1KB"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_array_in_any_layout_is_stored_right(layout: str, shard_size: str, tmp_path: Path) -> None:
    expected = arrays(tiny(), "LMHeadModel")
    odd = {name: LAYOUTS[layout](array) for name, array in expected.items()}
    assert any(x.dtype.byteorder == ">" or not x.flags.c_contiguous or not x.flags.writeable for x in odd.values())
    save_checkpoint(tmp_path, tiny(), "LMHeadModel", odd, max_shard_size=shard_size)
    assert_same(load(tmp_path, "LMHeadModel"), expected)


def test_arrays_that_share_memory_are_stored_each(tmp_path: Path) -> None:
    config = tiny()
    memory = np.arange(400, dtype=np.float32)
    specs = weights.specs(config, "Model").values()
    expected = {spec.name: memory[: np.prod(spec.shape)].reshape(spec.shape) for spec in specs}
    save_checkpoint(tmp_path, config, "Model", expected)
    assert_same(load(tmp_path, "Model"), expected)
    one = {spec.name: np.broadcast_to(np.float32(2), spec.shape) for spec in specs}
    save_checkpoint(tmp_path, config, "Model", one)
    assert_same(load(tmp_path, "Model"), {name: array.copy() for name, array in one.items()})


def test_values_are_fresh_and_writable(tmp_path: Path) -> None:
    store(tmp_path, arrays(tiny(), "Model"), tiny())
    checkpoint = open_checkpoint(tmp_path)
    first, second = checkpoint.read("wte.weight"), checkpoint.read("wte.weight")
    first[:] = 0
    assert second.any()
    assert first.flags.c_contiguous
    with pytest.raises(CheckpointError, match="no tensor wte"):
        checkpoint.read("wte")


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    config = tiny(tie_word_embeddings=False)
    alive: list[weakref.ref[np.ndarray]] = []

    def lazily(array: np.ndarray) -> Callable[[], np.ndarray]:
        def make() -> np.ndarray:
            assert all(reference() is None for reference in alive)
            copy = array.copy()
            alive.append(weakref.ref(copy))
            return copy

        return make

    expected = arrays(config, "LMHeadModel")
    save_checkpoint(tmp_path, config, "LMHeadModel", {name: lazily(array) for name, array in expected.items()})
    assert_same(load(tmp_path, "LMHeadModel"), expected)
    checkpoint = open_checkpoint(tmp_path)
    values = plan_load(checkpoint, checkpoint.config, "LMHeadModel").values()
    last: weakref.ref[np.ndarray] | None = None
    for _ in expected:
        assert last is None or last() is None
        last = weakref.ref(next(values)[1])


def test_initial_values_can_be_nan(tmp_path: Path) -> None:
    expected = {name: np.full_like(array, np.nan) for name, array in arrays(tiny(), "LMHeadModel").items()}
    tied = {"lm_head.weight": expected["transformer.wte.weight"].copy()}  # NaN is not equal to NaN; its bits are
    save_checkpoint(tmp_path, tiny(), "LMHeadModel", expected | tied)
    assert_same(load(store(tmp_path, expected | tied, tiny()), "LMHeadModel"), expected)


# Shards


@pytest.mark.parametrize(("limit", "count"), [("2KB", 6), (2000, 6), ("0.002 MB", 6), (1, 28), ("1gb", 1), ("7KB", 2)])
def test_shards_keep_to_the_limit(limit: int | str, count: int, tmp_path: Path) -> None:
    expected = arrays(tiny(), "LMHeadModel")
    save_checkpoint(tmp_path, tiny(), "LMHeadModel", expected, max_shard_size=limit)
    assert_same(load(tmp_path, "LMHeadModel"), expected)
    names = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    if count == 1:
        assert sorted(contents(tmp_path)) == ["config.json", "model.safetensors"]
        return
    assert sorted(contents(tmp_path)) == ["config.json", *names, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    sizes = [sum(array.nbytes for array in load_file(tmp_path / name).values()) for name in names]
    total = sum(array.size for array in expected.values())
    assert index["metadata"] == {"total_parameters": total, "total_size": 4 * total}
    assert (sum(sizes), max(sizes) <= 2000 or count < 6) == (4 * total, True)
    assert list(index["weight_map"]) == sorted(expected)


@pytest.mark.parametrize(
    "size", [0, -1, "0", "0KB", "5GiB", "GB", "-1GB", "1e9B", "", 2.5, True, None, "9" * 99 + "GB"]
)
def test_wrong_shard_size_is_refused(size: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="max_shard_size"):
        save_checkpoint(tmp_path / "x", tiny(), "Model", arrays(tiny(), "Model"), max_shard_size=size)
    assert list(tmp_path.iterdir()) == []


# Tied weights


@pytest.mark.parametrize("given", ["absent", "same object", "equal copy", "lazy"])
def test_tied_head_is_written_once(given: str, tmp_path: Path) -> None:
    expected = arrays(tiny(), "LMHeadModel")
    wte = expected["transformer.wte.weight"]
    heads: dict[str, Any] = {"same object": wte, "equal copy": wte.copy(), "lazy": lambda: wte}
    tied = {} if given == "absent" else {"lm_head.weight": heads[given]}
    save_checkpoint(tmp_path, tiny(), "LMHeadModel", expected | tied)
    assert sorted(load_file(tmp_path / "model.safetensors")) == sorted(expected)
    save_checkpoint(tmp_path, tiny(), "LMHeadModel", expected | tied, max_shard_size="1KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_parameters"] == sum(array.size for array in expected.values())


@pytest.mark.parametrize("family", CONFIGS)
def test_tied_head_that_differs_is_refused_both_ways(family: str, tmp_path: Path) -> None:
    config = tiny(family)
    tensors = arrays(config, "LMHeadModel")
    tensors["lm_head.weight"] = tensors[weights.specs(config, "LMHeadModel")["lm_head.weight"].tied or ""].copy()
    checkpoint = open_checkpoint(store(tmp_path / "same", tensors, config))
    plan = plan_load(checkpoint, config, "LMHeadModel")
    assert plan.report.tied == ["lm_head.weight"]
    assert "lm_head.weight" not in dict(plan.values())
    tensors["lm_head.weight"][-1, -1] = np.nextafter(tensors["lm_head.weight"][-1, -1], np.float32(9))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight: differs from .*embed|wte"):
        save_checkpoint(tmp_path / "differs", config, "LMHeadModel", tensors)
    assert not (tmp_path / "differs").exists()
    checkpoint = open_checkpoint(store(tmp_path / "differs", tensors, config))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: lm_head\.weight: differs from transformer\."):
        next(plan_load(checkpoint, config, "LMHeadModel").values())
    untied = type(config).derive(config, tie_word_embeddings=False)
    assert_same(dict(plan_load(checkpoint, untied, "LMHeadModel").values()), tensors)


@pytest.mark.parametrize("head", ["LMHeadModel", "DoubleHeadsModel", "Model"])
@pytest.mark.parametrize("family", CONFIGS)
def test_embedding_may_be_stored_as_the_head_it_is_tied_to(family: str, head: str, tmp_path: Path) -> None:
    """So does Transformers 5.23 with GPT's double heads."""
    config = tiny(family)
    expected = arrays(config, head)
    first = next(iter(expected))
    stored = {"lm_head.weight" if name == first else name: array for name, array in expected.items()}
    assert_same(load(store(tmp_path / "tied", stored, config), head), expected)
    store(tmp_path / "untied", stored, type(config).derive(config, tie_word_embeddings=False))
    for changes in ({}, {"tie_word_embeddings": True}):
        refusal(tmp_path / "untied", f"missing {first}", head=head, **changes)


# Which tensors are which weights


@pytest.mark.parametrize("source", HEADS)
@pytest.mark.parametrize("target", HEADS)
@pytest.mark.parametrize("family", CONFIGS)
def test_every_head_loads_every_other(family: str, target: str, source: str, tmp_path: Path) -> None:
    """The backbone is the same, weights of other heads are ignored, the own head is fresh where there was none."""
    config = tiny(family, tie_word_embeddings=False)
    stored = arrays(config, source)
    save_checkpoint(tmp_path, config, source, stored)
    checkpoint = open_checkpoint(tmp_path)
    plan = plan_load(checkpoint, checkpoint.config, target)
    bare = {name.removeprefix(weights.PREFIX): array for name, array in stored.items()}
    specs = weights.specs(config, target)
    for name, array in plan.values(seed=3):
        known = bare.get(specs[name].backbone_name)
        assert array.tobytes() == (weights.initial_value(specs[name], 3) if known is None else known).tobytes(), name
    used = {spec.backbone_name for spec in specs.values()}
    assert plan.report.fresh == [name for name, spec in specs.items() if spec.backbone_name not in bare]
    assert sorted(plan.report.ignored) == sorted(name for name in bare if name not in used)
    assert sorted(plan.report.loaded + plan.report.fresh) == sorted(specs)


def hub_gpt2() -> Arrays:
    """Names as in the hub's first GPT-2 files: no prefix, and the masks that were stored beside the weights."""
    tensors = arrays(tiny(), "Model")
    for i in range(2):
        tensors[f"h.{i}.attn.bias"] = np.tril(np.ones((1, 1, 7, 7), np.float32))
        tensors[f"h.{i}.attn.masked_bias"] = np.array(-1e4, np.float32)
    return tensors


def test_hub_layout_loads_into_the_lm_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    store(tmp_path, hub_gpt2(), tiny(architectures=["GPT2LMHeadModel"]))
    checkpoint = open_checkpoint(tmp_path)
    plan = plan_load(checkpoint, checkpoint.config, "LMHeadModel")
    assert_same(dict(plan.values()), {f"transformer.{name}": array for name, array in arrays(tiny(), "Model").items()})
    ignored = "4 ignored (h.0.attn.bias, h.0.attn.masked_bias, h.1.attn.bias, ...)"
    assert str(plan.report) == f"28 loaded, 1 tied (lm_head.weight), {ignored}"
    assert plan.report.fresh == []
    assert (capfd.readouterr(), caplog.records) == (("", ""), [])


def test_old_gpt_with_position_ids_loads(tmp_path: Path) -> None:
    tensors = arrays(tiny("openai-gpt"), "Model")
    old = {"position_ids": np.arange(7), "h.0.attn.bias": np.ones((1, 1, 7, 7), np.uint8)}
    store(tmp_path, tensors | old, tiny("openai-gpt"))
    assert_same(load(tmp_path, "Model"), tensors)


FRESH: dict[str, tuple[str, dict[str, Any], list[str] | None]] = {
    # case: head that is loaded, changes of the config, architectures of a checkpoint that holds the backbone alone
    "no architectures": ("ForSequenceClassification", {}, None),
    "of the base model": ("ForTokenClassification", {}, ["GPT2Model"]),
    "of another head": ("ForQuestionAnswering", {}, ["GPT2LMHeadModel"]),
    "of TensorFlow": ("ForQuestionAnswering", {}, ["TFGPT2Model"]),
    "of a stranger": ("ForSequenceClassification", {}, ["Stranger"]),
    "untied": ("LMHeadModel", {"tie_word_embeddings": False}, ["GPT2Model"]),
    "untied double": ("DoubleHeadsModel", {"tie_word_embeddings": False}, None),
}
NOT_FRESH: dict[str, tuple[str, dict[str, Any], list[str] | None]] = {
    "of this very head": ("ForSequenceClassification", {}, ["GPT2ForSequenceClassification"]),
    "of this very head in Flax": ("ForTokenClassification", {}, ["FlaxGPT2ForTokenClassification"]),
    "untied": ("LMHeadModel", {"tie_word_embeddings": False}, ["GPT2LMHeadModel"]),
    "of a head that has it too": ("LMHeadModel", {"tie_word_embeddings": False}, ["GPT2DoubleHeadsModel"]),
}


@pytest.mark.parametrize("case", [*FRESH, *(f"not {case}" for case in NOT_FRESH)])
def test_head_is_fresh_only_if_the_checkpoint_never_had_it(case: str, tmp_path: Path) -> None:
    head, changes, architectures = FRESH[case] if case in FRESH else NOT_FRESH[case.removeprefix("not ")]
    config = tiny(**changes)
    store(tmp_path, arrays(config, "Model"), type(config).derive(config, architectures=architectures))
    checkpoint = open_checkpoint(tmp_path)
    own = [name for name, spec in weights.specs(config, head).items() if not spec.in_backbone and not spec.tied]
    if case in FRESH:
        assert plan_load(checkpoint, config, head).report.fresh == own
    else:
        with pytest.raises(CheckpointError) as caught:
            plan_load(checkpoint, config, head)
        assert all(f"missing {name}" in str(caught.value) for name in own)


# Inspection


def test_description_of_a_checkpoint(tmp_path: Path) -> None:
    config = tiny()
    save_checkpoint(tmp_path, config, "ForSequenceClassification", arrays(config, "ForSequenceClassification"))
    found = describe(tmp_path)
    assert found.architecture == "GPT2ForSequenceClassification"
    assert found.parameters == weights.parameter_count(config, "ForSequenceClassification")
    assert found.heads == ["Model", "LMHeadModel", "ForSequenceClassification"]
    assert found.loads["GPT2ForTokenClassification"].fresh == ["classifier.weight", "classifier.bias"]
    assert found.dtypes == {"float32": 29}
    assert found.files == {"model.safetensors": (tmp_path / "model.safetensors").stat().st_size}
    assert found.problems == []
    assert json.loads(json.dumps(found.to_json()))["loads"]["GPT2Model"]["ignored"] == ["score.weight"]
    lines = str(found).splitlines()
    assert len({line.index(next(part for part in line.split("  ") if part)) for line in lines}) == 1
    assert "GPT2ForSequenceClassification (gpt2), 1,920 parameters" in lines[1]


def test_description_names_problems(tmp_path: Path) -> None:
    tensors = arrays(tiny(), "LMHeadModel")
    del tensors["transformer.ln_f.bias"]
    store(tmp_path, tensors, GPT2Config(**(TINY | {"n_layer": 3, "architectures": ["GPT2LMHeadModel"]})))
    found = describe(tmp_path)
    assert found.problems == [
        "n_layer: 3, but missing all of block 2",
        "model.safetensors: missing transformer.ln_f.bias",
    ]
    assert (found.loads, found.heads) == ({}, [])
    assert str(found).splitlines()[-1].split(maxsplit=1) == ["problem", found.problems[-1]]
    with pytest.raises(CheckpointError, match="no such file or directory"):
        describe(tmp_path / "absent")
