"""What the reference is held against: Transformers in float64, with the same weights.

The witness is Transformers 5.23, eager attention, in double precision: agreement is one of rounding, not of design.
Only real tokens are compared: what padding queries compute differs between implementations and reaches no real token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gptzoo import reference, weights
from gptzoo.config import MLP_ACTIVATIONS, GPT2Config, GPTConfig, OpenAIGPTConfig
from gptzoo.heads import class_name

TOLERANCE = 1e-12  # of max|difference| / max|witness|; seen: 2e-15
SMALL = {"vocab_size": 23, "n_positions": 12, "n_embd": 12, "n_layer": 3, "n_head": 3}
B, T, X = 3, 7, 5

FAMILIES = [pytest.param(GPT2Config, id="gpt2"), pytest.param(OpenAIGPTConfig, id="gpt")]
HEADS = ["Model", "LMHeadModel"]
BOTH = pytest.mark.parametrize("family", FAMILIES)

LEFT = np.array([[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]])
RIGHT = LEFT[:, ::-1]


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


def tiny(family: type[GPTConfig], head: str = "LMHeadModel", **fields: Any) -> tuple[GPTConfig, dict[str, np.ndarray]]:
    """A small config and float64 weights at std 0.2, biases and layer norms too: errors must show."""
    config = family(**(SMALL | fields))
    source = rng()
    values = {}
    for name, spec in weights.specs(config, head).items():
        value = 0.2 * source.standard_normal(spec.shape)
        if not spec.tied:
            values[name] = value + 1.0 if spec.row.init == "ones" else value
    return config, values


def ids(*shape: int) -> np.ndarray:
    return rng().integers(0, SMALL["vocab_size"], shape or (B, T))


def vectors(*shape: int) -> np.ndarray:
    return rng().standard_normal((*(shape or (B, T)), SMALL["n_embd"]))


class Witness:
    """Transformers' model with these weights, called with NumPy arrays."""

    def __init__(self, config: GPTConfig, head: str, values: dict[str, np.ndarray]):
        self.torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
        self.torch.set_num_threads(1)  # so small are the arrays that threads cost three times what they save
        fields = {name: value for name, value in config.to_dict().items() if name != "model_type"}
        theirs = getattr(transformers, type(config).__name__)(**fields, attn_implementation="eager")
        self.model = getattr(transformers, class_name(config, head))(theirs).double().eval()
        tensors = {name: self.torch.tensor(value) for name, value in values.items()}
        missing, unexpected = self.model.load_state_dict(tensors, strict=False)
        assert not unexpected
        assert {name for name in missing if not weights.is_buffer(name)} <= {"lm_head.weight"}  # where tied

    def __call__(self, **inputs: Any) -> Any:
        tensors = {k: self.torch.tensor(v.copy()) if isinstance(v, np.ndarray) else v for k, v in inputs.items()}
        with self.torch.no_grad():
            return self.model(**tensors, output_hidden_states=True, output_attentions=True)


def error(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.dtype == np.float64
    assert ours.shape == theirs.shape
    return float(abs(ours - theirs).max() / abs(theirs).max())


def arrays(output: Any, real: np.ndarray | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Every array of an output by name, those of the witness too; if `real` is given, of real tokens only."""
    for name in ("last_hidden_state", "logits"):
        if name in output:
            yield name, np.asarray(output[name])[... if real is None else real]
    for i, state in enumerate(output["hidden_states"]):
        yield f"hidden_states[{i}]", np.asarray(state)[... if real is None else real]
    for name in ("attentions", "cross_attentions"):
        for i, probabilities in enumerate(output.get(name, ())):
            by_query = np.asarray(probabilities).transpose(0, 2, 1, 3)  # (B, T, N, S)
            yield f"{name}[{i}]", by_query[... if real is None else real]


def assert_same(ours: Any, theirs: Any, real: np.ndarray | None = None) -> None:
    found, expected = dict(arrays(ours, real)), dict(arrays(theirs, real))
    assert found.keys() == expected.keys()
    for name in expected:
        assert error(found[name], expected[name]) <= TOLERANCE, name


def forward(head: str, config: GPTConfig, values: Any, **inputs: Any) -> Any:
    return reference.forward(head, config, values, output_hidden_states=True, output_attentions=True, **inputs)


def check(config: GPTConfig, head: str, values: Any, real: np.ndarray | None = None, **inputs: Any) -> None:
    assert_same(forward(head, config, values, **inputs), Witness(config, head, values)(**inputs), real)


# Rounding sqrt(2/pi) to ten digits, gelu_fast is 1.3e-12 off in the logits; test_reference.py compares the function.
EXACT = sorted(set(MLP_ACTIVATIONS) - {"gelu_fast"})
