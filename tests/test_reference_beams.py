"""Beam search of the reference against Transformers': sequences, where they end, and their scores."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from tests import matrix
from tests.reference_witness import Witness

NEW, PAD = 8, 2  # a pad token of 0 is none to the beam search of Transformers
PENALTIES = (1.0, 0.0, 2.0, -1.5)
ENDS: dict[str, Any] = {"none": None, "one": 31, "several": [31, 4, 17, 22]}


@cache
def _model(family: str) -> tuple[Any, Any, Any, np.ndarray]:
    config = matrix.tiny(family, eos_token_id=None, bos_token_id=None)
    values = matrix.random_weights(config, "LMHeadModel", seed=2)
    witness = Witness(config, "LMHeadModel", values)
    return config, values, witness, matrix.ids(config, np.random.default_rng(0), tokens=5)


def _both(family: str, ids: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns sequences and scores of the reference and of Transformers."""
    config, values, witness, _ = _model(family)
    found = reference.beam_search(config, values, ids, NEW, pad_token_id=PAD, **options)
    given = witness.torch.tensor(ids)
    theirs = witness.model.generate(
        given,
        attention_mask=witness.torch.ones_like(given),
        max_new_tokens=NEW,
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    return *found, theirs.sequences.numpy(), theirs.sequences_scores.numpy()


@pytest.mark.parametrize("early", [True, False, "never"], ids=str)
@pytest.mark.parametrize("ends", ENDS)
def test_beams_of_transformers(ends: str, early: bool | str) -> None:
    family = "openai-gpt" if ends == "one" else "gpt2"
    ids = _model(family)[3]
    lengths = set()
    for penalty in PENALTIES:
        for beams in (2, 3):
            options = {"num_beams": beams, "length_penalty": penalty, "early_stopping": early}
            ours, scores, theirs, wanted = _both(
                family, ids, eos_token_id=ENDS[ends], num_return_sequences=beams, **options
            )
            assert np.array_equal(ours, theirs), options
            assert np.allclose(scores, wanted, rtol=1e-5), options
            lengths |= {*(ours != PAD).sum(axis=1).tolist()}
    assert (len(lengths) > 2) == (ends != "none")


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.8},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 6},
        {"forced_eos_token_id": 3},
        {"exponential_decay_length_penalty": (2, 1.5)},
        {"bad_words_ids": [[9], [14, 31]]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_of_beams_are_those_of_transformers(options: dict[str, Any]) -> None:
    ours, scores, theirs, wanted = _both("gpt2", _model("gpt2")[3], eos_token_id=31, num_beams=3, **options)
    assert np.array_equal(ours, theirs)
    assert np.allclose(scores, wanted, rtol=1e-5)


def test_padded_rows_are_searched_as_alone() -> None:
    config, values, _, ids = _model("gpt2")
    mask = np.ones_like(ids)
    mask[0, :3] = 0
    together, scores = reference.beam_search(config, values, ids, NEW, mask, num_beams=3)
    alone, score = reference.beam_search(config, values, ids[:1, 3:], NEW, num_beams=3)
    assert np.array_equal(together[:1, 3:], alone)
    assert scores[0] == score[0]
