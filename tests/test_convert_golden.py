"""Every checkpoint that other software wrote is read to its exact numbers, and goes to every format and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gptzoo import reference
from gptzoo._load import plan_load
from gptzoo.errors import ConversionError
from gptzoo.inspect import own_head
from gptzoo_conversion import FORMATS, convert, open_foreign

from . import conversion
from .conversion import GOLDEN, INDEX, assert_same_bits, golden_config, numbers, open_golden, truth

NAMES = sorted(INDEX)

# TensorFlow's GPT computes the exact gelu whatever its config says, so that what it computed is not what GPT is.
WITNESS = {name: name.replace("tf-gpt-", "torch-gpt-") for name in NAMES if name.startswith("tf-gpt-")}

# Why a model is refused, in words of the error.
REASONS = "holds|has no place for it|means"


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_that_were_put_in(name: str) -> None:
    checkpoint = open_golden(name)
    assert checkpoint.format == INDEX[name]["format"]
    assert_same_bits(numbers(checkpoint), truth(name))


@pytest.mark.parametrize("name", NAMES)
def test_reference_computes_what_the_other_software_did(name: str) -> None:
    checkpoint = open_golden(name)
    head = own_head(checkpoint)
    with np.load(GOLDEN / WITNESS.get(name, name) / "expected.npz") as file:
        expected = {key: file[key] for key in file.files}
    inputs = {key: expected[key] for key in INDEX[name]["inputs"] if key in expected}
    if head == "LMHeadModel" and INDEX[name]["outputs"] == ["last_hidden_state"]:
        head = "Model"
    output = reference.forward(
        head, checkpoint.config, dict(plan_load(checkpoint, checkpoint.config, head).values()), **inputs
    )
    half = INDEX[name]["dtype"] != "float32"
    real = inputs.get("attention_mask", np.ones(inputs["input_ids"].shape)).astype(bool)
    for key in INDEX[name]["outputs"]:
        found, wanted = np.asarray(output[key]), expected[key].astype(np.float64)
        if found.shape[: real.ndim] == real.shape:
            found, wanted = found[real], wanted[real]
        assert np.abs(found - wanted).max() <= (1e-1 if half and "keras" in name else 4e-6) * np.abs(wanted).max(), key


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name: str, format: str, tmp_path: Path) -> None:
    """To another format, to safetensors and back: the same bytes in each tensor, or a refusal by name."""
    there, back = tmp_path / "there", tmp_path / "back"
    checkpoint = open_golden(name)
    head = own_head(checkpoint)
    layout, dtype = FORMATS[format], INDEX[name]["dtype"]
    if layout.problems(checkpoint.config, head) + layout.losses(checkpoint.config, head) or dtype not in layout.dtypes:
        with pytest.raises(ConversionError, match=REASONS):
            convert(GOLDEN / name, there, format, config=golden_config(name))
        assert not there.exists()
        return
    done = convert(GOLDEN / name, there, format, config=golden_config(name))
    assert all(tensor["source"] == tensor["target"] for tensor in done.tensors.values())
    convert(there, back, "safetensors")
    assert_same_bits(numbers(open_foreign(back)), numbers(open_foreign(there)))
    assert_same_bits(numbers(open_foreign(back)), conversion.truth(name))
    assert open_foreign(back).vocabulary.keys() >= (open_golden(name).vocabulary.keys() - {"generation_config.json"})
