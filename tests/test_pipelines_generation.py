"""Text generation gives what that of Transformers gives, in every framework; batches too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gptzoo.generation import GenerationConfig
from tests.matrix import TESTED
from tests.pipelines import ASKED, assert_same, ours, theirs

PROMPTS = ["Now is the winter of our", "O", "What says the king, my lord? I"]


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_full_text": False},
        {"return_tensors": True},
        {"prefix": "KING:\n"},
        {"max_length": 20},
        {"max_length": 20, "prefix": "KING:\n"},
    ],
    ids=lambda options: "_".join(options) or "plain",
)
def test_generation(framework: str, options: dict[str, Any]) -> None:
    length = {} if "max_length" in options else {"max_new_tokens": 6}
    expected = [theirs("text-generation")(text, do_sample=False, **length, **options) for text in PROMPTS]
    pipe = ours(framework, "text-generation")
    assert_same(pipe(PROMPTS, batch_size=2, **length, **options), expected)
    assert_same(pipe(PROMPTS[0], **length, **options), expected[0])


@pytest.mark.parametrize("framework", TESTED)
def test_generation_reads_the_end_of_a_long_prompt(framework: str) -> None:
    options = {"handle_long_generation": "hole", "max_new_tokens": 8}
    reference = theirs("text-generation")
    reference.tokenizer.model_max_length = reference.model.config.n_positions
    expected = reference(ASKED["long"], do_sample=False, **options)
    assert_same(ours(framework, "text-generation")(ASKED["long"], **options), expected)


@pytest.mark.parametrize("framework", TESTED)
def test_sampling_depends_on_the_seed_and_the_place_only(framework: str) -> None:
    """The same in every framework, whatever the batches; a text alone is drawn as the model's own `generate` draws."""
    pipe = ours(framework, "text-generation")
    options = {"do_sample": True, "seed": 5, "num_return_sequences": 2, "max_new_tokens": 5, "temperature": 0.9}
    found = pipe(PROMPTS, **options)
    assert found == pipe(PROMPTS, batch_size=2, **options)
    assert found == ours(TESTED[0], "text-generation")(PROMPTS, **options)
    assert pipe(PROMPTS[1], **(options | {"seed": 6})) == found[1]
    assert found[0] != pipe(PROMPTS, **(options | {"seed": 6}))[0]
    ids = np.array([pipe.tokenizer(PROMPTS[0])["input_ids"]])
    rows = pipe.runner.generate(ids, **options)
    texts = [pipe.tokenizer.decode(row, skip_special_tokens=True) for row in rows.tolist()]
    assert [one["generated_text"] for one in found[0]] == texts


@pytest.mark.parametrize("framework", TESTED)
def test_an_end_token_ends_a_text_in_a_batch_too(framework: str) -> None:
    """The rows after it are filled, with an id that is no end token, and the filling is no part of the result."""
    pipe = ours(framework, "text-generation")
    plain = pipe(PROMPTS, max_new_tokens=8, return_tensors=True)
    end = plain[1][0]["generated_token_ids"][-4]
    options = {"max_new_tokens": 8, "eos_token_id": end, "pad_token_id": 7, "return_tensors": True}
    found = pipe(PROMPTS, batch_size=3, **options)
    assert found[1][0]["generated_token_ids"][-1] == end
    assert len(found[1][0]["generated_token_ids"]) < len(plain[1][0]["generated_token_ids"])
    assert found == [pipe(text, **options) for text in PROMPTS]


@pytest.mark.parametrize("framework", TESTED)
def test_prompts_near_the_end_of_the_positions_do_not_shorten_others(framework: str) -> None:
    pipe = ours(framework, "text-generation")
    ids = pipe.tokenizer(ASKED["long"] * 2)["input_ids"][: pipe.limit - 5]
    texts = [PROMPTS[0], pipe.tokenizer.decode(ids), PROMPTS[1]]
    found = pipe(texts, batch_size=3, return_tensors=True)
    assert found == [pipe(text, return_tensors=True) for text in texts]
    assert [len(one[0]["generated_token_ids"]) for one in found][1] == pipe.limit


def test_an_empty_text_begins_with_the_first_token() -> None:
    pipe = ours(TESTED[0], "text-generation")
    (found,) = pipe("", max_new_tokens=4, return_tensors=True)
    assert found["generated_token_ids"][0] == pipe.tokenizer.bos_token_id
    assert pipe("", max_new_tokens=4)[0]["generated_text"] == pipe.tokenizer.decode(found["generated_token_ids"][1:])


def test_options_of_generate_reach_the_model() -> None:
    """Beams, stop strings (with the pipeline's own tokenizer) and a config that says what ends a text."""
    pipe = ours(TESTED[0], "text-generation")
    beams = pipe("King", max_new_tokens=6, num_beams=3, num_return_sequences=2)
    assert len({one["generated_text"] for one in beams}) == 2
    text = pipe("King", max_new_tokens=6, return_full_text=False)[0]["generated_text"]
    stop = text[2:4]
    stopped = pipe("King", max_new_tokens=6, return_full_text=False, stop_strings=stop)[0]["generated_text"]
    assert stop in stopped
    assert text.startswith(stopped)
    assert len(stopped) < len(text)
    end = pipe("King", max_new_tokens=3, return_tensors=True)[0]["generated_token_ids"][-1]
    ending = pipe("King", max_new_tokens=6, return_tensors=True, generation_config=GenerationConfig(eos_token_id=end))
    assert ending[0]["generated_token_ids"][-1] == end
