"""Pipelines give what those of Transformers give, in every framework; a batch gives what its inputs give alone."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo.pipelines import TokenClassificationPipeline, pipeline
from tests.golden_pipelines.make import CALLS
from tests.matrix import TESTED
from tests.pipelines import ASKED, GOLDEN, TEXTS, TOLERANCE, assert_same, ours, store, theirs

PAIR = {"text": TEXTS[0], "text_pair": TEXTS[1]}


@pytest.mark.parametrize("framework", TESTED)
def test_classification(framework: str) -> None:
    pipe, reference = ours(framework, "text-classification"), theirs("text-classification")
    assert_same(pipe(TEXTS, batch_size=3), reference(TEXTS))
    assert_same(pipe(TEXTS[0]), reference(TEXTS[0]))
    assert_same(pipe(PAIR), reference(PAIR))
    for top_k in (1, 2, None):
        assert_same(pipe(TEXTS, top_k=top_k), reference(TEXTS, top_k=top_k))
        assert_same(pipe(TEXTS[0], top_k=top_k), reference(TEXTS[0], top_k=top_k))
    for function in ("softmax", "sigmoid", "none"):
        options = {"top_k": None, "function_to_apply": function}
        assert_same(pipe(TEXTS, **options), reference(TEXTS, **options))


@pytest.mark.parametrize(
    "fields",
    [
        {"num_labels": 1},
        {"num_labels": 1, "problem_type": "regression"},
        {"num_labels": 3, "problem_type": "multi_label_classification"},
        {"num_labels": 2, "problem_type": "single_label_classification", "pad_token_id": 1023},
        {"num_labels": 2, "pad_token_id": 11},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_problems_of_classification(fields: dict[str, Any], tmp_path: Path) -> None:
    """What makes scores of logits; and a pad id that the config names, which texts may hold too: 11 is a comma."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    store(tmp_path, "ForSequenceClassification", **fields)
    reference = transformers.pipeline("text-classification", model=str(tmp_path), device="cpu", top_k=None)
    pipe = pipeline("text-classification", tmp_path, framework="torch", top_k=None)
    texts = [*TEXTS, "Henry,", "Henry, my lord,"]
    assert_same(pipe(texts, batch_size=4), [reference([text])[0] for text in texts])
    assert_same(pipe(TEXTS[0]), reference(TEXTS[0]))


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_tokens(framework: str, strategy: str) -> None:
    """Of a word that is not ASCII, Transformers makes another one: it decodes it twice."""
    options: dict[str, Any] = {"aggregation_strategy": strategy}
    pipe, reference = ours(framework, "token-classification"), theirs("token-classification")
    texts = [text for text in TEXTS if text.isascii() or strategy in ("none", "simple")]
    for more in ({}, {"ignore_labels": []}, {"ignore_labels": ["PER", "B-LOC"]}):
        with warnings.catch_warnings(action="ignore"):  # that words are told by spaces
            expected = reference(texts, **options, **more)
            alone = reference(texts[0], **options, **more)
        assert_same(pipe(texts, batch_size=3, **options, **more), expected)
        assert_same(pipe(texts[0], **options, **more), alone)


@pytest.mark.parametrize("framework", TESTED)
def test_windows_of_tokens(framework: str) -> None:
    pipe, reference = ours(framework, "token-classification"), theirs("token-classification")
    reference.tokenizer.model_max_length = pipe.config.n_positions
    reference.tokenizer.pad_token = reference.tokenizer.eos_token
    options = {"stride": 40, "aggregation_strategy": "simple"}
    assert_same(pipe(ASKED["long"], batch_size=2, **options), reference(ASKED["long"], **options))


def test_words_end_at_any_space() -> None:
    """Not at blanks only, as in Transformers; and their texts are what stands there."""
    pipe, text = ours(TESTED[0], "token-classification"), "Romeo\nand\tété, \U0001f33c"
    for strategy in ("first", "average", "max"):
        found = pipe(text, aggregation_strategy=strategy, ignore_labels=[])
        assert "".join(one["word"] for one in found) == text
        assert all(one["word"] == text[one["start"] : one["end"]] for one in found)
    item = pipe.prepare(text, 0, pipe.options)
    assert isinstance(pipe, TokenClassificationPipeline)
    words = pipe.words(text, pipe.pieces(item, 0, np.zeros((len(item.rows[0]), 5))))
    assert [text[word[0].start : word[-1].end] for word in words] == [
        "Romeo",
        "\n",
        "and",
        "\t",
        "été,",
        " ",
        "\U0001f33c",
    ]


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("text", ["short", "long"])
def test_answers(framework: str, text: str) -> None:
    """The results of Transformers 4.57.6, recorded."""
    golden = json.loads((GOLDEN / "question_answering.json").read_text())
    pipe, asked = ours(framework, "question-answering"), {"question": ASKED["question"], "context": ASKED[text]}
    for name, options in CALLS.items():
        found = pipe(**asked, batch_size=2, **options)
        assert_same(found, golden[f"{text} {name}"])
        for answer in found if isinstance(found, list) else [found]:
            assert answer["answer"] == ASKED[text][answer["start"] : answer["end"]]


@pytest.mark.parametrize("text", ["short", "long"])
def test_no_answer_is_scored_by_the_first_token(text: str) -> None:
    """Of the window in which it is least likely: there is no answer only if no window has one."""
    pipe = ours(TESTED[0], "question-answering")
    options = {"handle_impossible_answer": True, "top_k": 1000, "max_seq_len": 60, "doc_stride": 8}
    asked = {"question": ASKED["question"], "context": ASKED[text]}
    item = pipe.prepare(asked, 0, pipe.merge(pipe.options, options))
    first = len(pipe.tokenizer(ASKED["question"])["input_ids"])
    scores = []
    for row in item.rows:
        output = pipe.runner(input_ids=np.array([row]))
        logits = [pipe.runner.numpy(output[name])[0, [0, *range(first, len(row))]] for name in pipe.outputs]
        scores.append(np.prod([np.exp(x[0]) / np.exp(x).sum() for x in logits]))
    found = pipe(**asked, **options)
    (none,) = [answer for answer in found if answer["answer"] == ""]
    assert none["score"] == pytest.approx(min(scores), rel=1e-5)
    assert len(scores) > 1 or text == "short"
    assert [answer["score"] for answer in found] == sorted((answer["score"] for answer in found), reverse=True)


@pytest.mark.parametrize("framework", TESTED)
def test_features(framework: str) -> None:
    pipe, reference = ours(framework, "feature-extraction"), theirs("feature-extraction")
    found, expected = pipe(TEXTS, batch_size=3), reference(TEXTS)
    for one, other in zip(found, expected, strict=True):
        assert np.shape(one) == np.shape(other)
        assert type(one[0][0][0]) is float
        assert np.abs(np.subtract(one, other)).max() < TOLERANCE * np.abs(other).max()
    array = pipe(TEXTS[0], return_tensors=True)
    assert type(array).__module__.split(".")[0] in {"torch", "tensorflow", "jaxlib"}
    assert np.array_equal(pipe.runner.numpy(array), np.array(pipe(TEXTS[0])))
