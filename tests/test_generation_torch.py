"""Completion in PyTorch: compiled steps, caches that are written in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo.cache import OwnedCache, StaticCache
from tests import matrix

torch = pytest.importorskip("torch")
if "torch" not in matrix.TESTED:
    pytest.skip("GPTZOO_FRAMEWORKS is without torch", allow_module_level=True)

from gptzoo.torch._layers import linear  # noqa: E402

PROMPTS = np.array([[5, 9, 31, 9], [22, 5, 9, 14], [1, 2, 1, 2]])


def runner(**config: Any) -> Any:
    config = matrix.tiny("gpt2", n_positions=64, eos_token_id=None, **config)
    return matrix.build("torch", config, "LMHeadModel", matrix.random_weights(config, "LMHeadModel", seed=2))


CALLS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"do_sample": True, "seed": 3},
    "hotter": {"do_sample": True, "seed": 4, "temperature": 2.0, "top_k": 9},
    "masked": {"attention_mask": torch.tensor([[0, 1]] * 3)},
    "penalty": {"repetition_penalty": 1.5},
}


def test_compiled_once_for_a_bucket_without_a_graph_break() -> None:
    """A step; neither another length nor another option is compiled anew."""
    from torch._dynamo.testing import CompileCounterWithBackend

    eager, compiled = runner(), runner()
    counter = CompileCounterWithBackend("eager")
    compiled.model.compile(fullgraph=True, dynamic=False, backend=counter)
    for (new, tokens), options in zip(((6, 4), (9, 3), (20, 4), (8, 2), (28, 4)), CALLS.values(), strict=True):
        found, wanted = (one.generate(PROMPTS[:, -tokens:], max_new_tokens=new, **options) for one in (compiled, eager))
        assert np.array_equal(found, wanted)
    assert counter.frame_count == 1
    # One row is multiplied in another way than several.
    found, wanted = (one.generate(PROMPTS[:1], max_new_tokens=9) for one in (compiled, eager))
    assert np.array_equal(found, wanted)
    assert counter.frame_count == 2
    compiled.generate(PROMPTS[:1], max_new_tokens=40)  # 44 columns: the next bucket
    assert counter.frame_count == 3


def test_more_buckets_than_pytorch_compiles_by_itself() -> None:
    compiled = runner()
    compiled.model.compile(fullgraph=True, dynamic=False, backend="eager")
    for rows in range(1, 7):
        assert compiled.generate(np.repeat(PROMPTS[:1], rows, axis=0), max_new_tokens=2).shape == (rows, 6)


def test_autocast() -> None:
    model = runner().model
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.generate(torch.tensor(PROMPTS), max_new_tokens=3).shape == (3, 7)


def test_an_owned_cache_is_written_in_place_and_no_other() -> None:
    model = runner().model
    ids = torch.tensor(PROMPTS)
    for kind, in_place in ((StaticCache, False), (OwnedCache, True)):
        cache = kind(*model.init_cache(3, 8))
        with torch.no_grad():
            output = model(ids, past_key_values=cache, use_cache=True, return_dict=True)
        assert type(output.past_key_values) is kind
        assert bool(cache.layers[0][0].any()) is in_place
        assert (output.past_key_values.layers[1][1].data_ptr() == cache.layers[1][1].data_ptr()) is in_place
        assert int(output.past_key_values.length) == 4


def test_gradients_and_modes_stay_as_they_are() -> None:
    model = runner().model
    model.transformer.drop.p = 0.5
    wanted = model.eval().generate(torch.tensor(PROMPTS), max_new_tokens=6)
    model.train()
    model.transformer.h[1].eval()
    assert torch.equal(model.generate(torch.tensor(PROMPTS), max_new_tokens=6), wanted)  # nothing drops out
    assert model.training
    assert not model.transformer.h[1].training
    assert torch.is_grad_enabled()
    assert all(weight.grad is None for weight in model.parameters())


def test_products_in_inference_mode() -> None:
    """oneDNN's are F.linear's to rounding, of weights as heads and as OpenAI store them, and have no gradient."""
    x, weight, bias = torch.randn(2, 3, 8), torch.randn(5, 8), torch.randn(5)
    for stored in (weight, weight.T.contiguous().T):
        for offset in (None, bias):
            wanted = torch.nn.functional.linear(x, stored, offset)
            with torch.inference_mode():
                assert (linear(x, stored, offset) - wanted).abs().max() < 1e-5
                assert (linear(x[:1, :1], stored, offset) - wanted[:1, :1]).abs().max() < 1e-5
    assert linear(x, weight.requires_grad_(), bias).requires_grad


def test_what_is_returned_can_be_trained_on() -> None:
    """Though it is made in inference mode, whose tensors cannot."""
    model = runner().model
    output = model.generate(
        torch.tensor(PROMPTS), max_new_tokens=3, return_dict_in_generate=True, output_scores=True, output_logits=True
    )
    assert not any(x.is_inference() for x in (output.sequences, *output.scores, *output.logits))
    model(output.sequences, labels=output.sequences).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())
