"""Calls of generate as its arguments' checks see them, and a value of every option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gptzoo import GenerationConfig
from gptzoo.config import GPTConfig
from gptzoo.errors import InputError
from gptzoo.generation._arguments import Plan, plan
from gptzoo.inputs import ArrayKind
from tests import matrix

# One value of each option that says something, as a file has it.
VALUES: dict[str, Any] = {
    "max_length": 14,
    "max_new_tokens": 6,
    "min_length": 9,
    "min_new_tokens": 2,
    "do_sample": True,
    "temperature": 0.7,
    "top_k": 7,
    "top_p": 0.9,
    "min_p": 0.05,
    "typical_p": 0.8,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.02,
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 3,
    "bad_words_ids": [[1], [2, 3]],
    "sequence_bias": [[[4, 5], -2.5]],
    "suppress_tokens": [6, 7],
    "begin_suppress_tokens": [8],
    "forced_bos_token_id": 9,
    "forced_eos_token_id": [10, 11],
    "exponential_decay_length_penalty": [2, 1.5],
    "renormalize_logits": True,
    "num_beams": 4,
    "length_penalty": 2.0,
    "early_stopping": "never",
    "num_return_sequences": 2,
    "bos_token_id": 0,
    "eos_token_id": [1, 2],
    "pad_token_id": 3,
    "stop_strings": ["a", "b"],
    "output_scores": True,
    "output_logits": True,
    "return_dict_in_generate": True,
    "use_cache": False,
    "seed": 4,
    "overflow": "slide",
    "num_assistant_tokens": 3,
    "prompt_lookup_num_tokens": 8,
    "max_matching_ngram_size": 4,
    "max_time": 2.5,
}


@dataclass
class Model:
    """What `plan` reads of a model."""

    config: GPTConfig
    generation_config: GenerationConfig | None = None
    head: str = "LMHeadModel"


KIND = ArrayKind(lambda x: isinstance(x, np.ndarray), "a NumPy array", lambda x: x)


def planned(*, stored: Any = None, given: Any = None, rows: int = 1, tokens: int = 4, **options: Any) -> Plan:
    """Plans a call with `options`, of a model of 40 ids and 16 positions that ends with id 3."""
    config = matrix.tiny("gpt2", eos_token_id=3)
    model = Model(config, GenerationConfig.from_model_config(config) if stored is None else GenerationConfig(**stored))
    return plan(model, KIND, np.zeros((rows, tokens), int), None, given, options)


def refused(**call: Any) -> str:
    with pytest.raises(InputError) as caught:
        planned(**call)
    return str(caught.value)
