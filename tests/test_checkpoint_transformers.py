"""Transformers as the witness: what one side saves the other loads, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import pytest

from gptzoo.checkpoint import open_checkpoint, plan_load, save_checkpoint
from gptzoo.config import CONFIGS
from gptzoo.heads import class_name
from tests.checkpoints import (
    CLASSES,
    Arrays,
    arrays,
    assert_same,
    tiny,
)


def _state(model: Any) -> Arrays:
    torch = pytest.importorskip("torch")
    bits = {torch.bfloat16: (torch.uint16, ml_dtypes.bfloat16)}
    result = {}
    for name, tensor in model.state_dict().items():
        plain, dtype = bits.get(tensor.dtype, (None, None))
        result[name] = tensor.numpy() if plain is None else tensor.view(plain).numpy().view(dtype)
    return result


# Transformers has no such heads for GPT-1.
WITNESSES = [
    one for one in CLASSES if one[0] == "gpt2" or one[1] not in ("ForTokenClassification", "ForQuestionAnswering")
]
WITNESS_IDS = [class_name(CONFIGS[family], head) for family, head in WITNESSES]


@pytest.fixture(scope="module")
def transformers() -> Any:
    module = pytest.importorskip("transformers")
    module.utils.logging.set_verbosity_error()
    return module


@pytest.mark.parametrize("size", ["5GB", "2KB"])
@pytest.mark.parametrize(("family", "head"), WITNESSES, ids=WITNESS_IDS)
def test_transformers_loads_what_we_save(family: str, head: str, size: str, tmp_path: Path, transformers: Any) -> None:
    for dtype, tie in (("float32", True), ("bfloat16", False), ("float16", True)):
        config = tiny(family, bos_token_id=1, eos_token_id=2, tie_word_embeddings=tie)
        expected = arrays(config, head, dtype)
        save_checkpoint(tmp_path / dtype, config, head, expected, max_shard_size=size)
        load = getattr(transformers, class_name(config, head)).from_pretrained
        model, info = load(tmp_path / dtype, output_loading_info=True)
        assert not any(info.values())
        state = _state(model)
        assert_same({name: state[name] for name in expected}, expected)
        assert str(model.dtype) == f"torch.{dtype}"
        if tie and "lm_head.weight" in state:
            assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("size", ["5GB", "2KB"])
@pytest.mark.parametrize(("family", "head"), WITNESSES, ids=WITNESS_IDS)
def test_we_load_what_transformers_saves(family: str, head: str, size: str, tmp_path: Path, transformers: Any) -> None:
    torch = pytest.importorskip("torch")
    for dtype, tie in (("float32", True), ("bfloat16", False), ("float16", True)):
        config = tiny(family, bos_token_id=1, eos_token_id=2, tie_word_embeddings=tie)
        theirs = getattr(transformers, type(config).__name__).from_dict(config.to_dict())
        model = getattr(transformers, class_name(config, head))(theirs).to(getattr(torch, dtype)).eval()
        model.save_pretrained(tmp_path / dtype, max_shard_size=size)
        checkpoint = open_checkpoint(tmp_path / dtype)
        plan = plan_load(checkpoint, checkpoint.config, head)
        state = _state(model)
        found = dict(plan.values())
        assert_same(found, {name: state[name] for name in found})
        assert set(state) - set(found) == set(plan.report.tied)
        assert (plan.dtype, plan.report.ignored, plan.report.fresh) == (dtype, [], [])
        save_checkpoint(tmp_path / "again", checkpoint.config, head, found, max_shard_size=size)
        again = type(model).from_pretrained(tmp_path / "again").eval()
        ids = torch.tensor([[1, 3, 5, 2]])
        with torch.no_grad():
            assert torch.equal(again(ids)[0], model(ids)[0])
