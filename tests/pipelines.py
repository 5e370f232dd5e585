"""Pipelines to test, and those of Transformers: of the bundled backbone under heads whose scores differ."""

from __future__ import annotations

import atexit
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from gptzoo.checkpoint import open_checkpoint, plan_load, save_checkpoint
from gptzoo.hub import DEFAULT_MODEL
from gptzoo.pipelines import Pipeline, pipeline
from gptzoo.tokenization import AutoTokenizer

TOLERANCE = 1e-5
TASKS = {
    "text-generation": "LMHeadModel",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "feature-extraction": "Model",
}
SCALE = 6  # of the head's initial weights: neither even scores nor certain ones
LABELS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
FIELDS: dict[str, dict[str, Any]] = {
    "ForSequenceClassification": {"num_labels": 3},
    "ForTokenClassification": {"id2label": LABELS},
}

TEXTS = [
    "Now is the winter of our discontent made glorious summer",
    "Romeo, don't go to Verona!",
    "A",
    "O Romeo,  wherefore art thou Romeo? été \U0001f33c",
]
GOLDEN = Path(__file__).parent / "golden_pipelines"
ASKED = json.loads((GOLDEN / "texts.json").read_text())  # a question, a short context and a long one


def store(path: Path, head: str, **changes: Any) -> Path:
    """Writes a model of a head in float32, and its tokenizer."""
    checkpoint = open_checkpoint(DEFAULT_MODEL)
    config = type(checkpoint.config).derive(checkpoint.config, **(FIELDS.get(head, {}) | changes))
    config.dtype = "float32"
    plan = plan_load(checkpoint, config, head)
    values = {name: SCALE * x if name in plan.report.fresh else x for name, x in plan.values(seed=3)}
    save_checkpoint(path, config, head, {name: lambda x=x: x.astype(np.float32) for name, x in values.items()})
    AutoTokenizer.from_pretrained(DEFAULT_MODEL).save_pretrained(path)
    return path


@cache
def folder(task: str) -> Path:
    """A checkpoint for a task; it goes when the process does."""
    base = TemporaryDirectory()
    atexit.register(base.cleanup)
    return store(Path(base.name) / "model", TASKS[task])


@cache
def ours(framework: str, task: str) -> Pipeline:
    return pipeline(task, folder(task), framework=framework)


@cache
def theirs(task: str) -> Any:
    """Transformers' pipeline, of the same files."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers.pipeline(task, model=str(folder(task)), device="cpu")


def assert_same(found: Any, expected: Any) -> None:
    """Structure, texts, labels and places are equal; numbers are close."""
    if isinstance(expected, list | tuple):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, float | np.floating):
        assert type(found) is float
        assert abs(found - expected) < TOLERANCE
    else:
        assert found == expected
        assert type(found) is type(expected)
