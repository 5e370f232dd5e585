"""Calls of pipelines: lists, streams, batches, models of any framework, and what is refused with what words."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gptzoo
from gptzoo.errors import CheckpointError, GPTZooError, InputError
from gptzoo.hub import DEFAULT_MODEL
from gptzoo.pipelines import pipeline
from gptzoo.tokenization import AutoTokenizer
from tests import matrix
from tests.matrix import TESTED
from tests.pipelines import ASKED, TASKS, TEXTS, assert_same, folder, ours, store

FIRST = TESTED[0]
GPT1 = Path(__file__).parent / "golden_tokenizers" / "gpt1-fast-plain"
OLD = {"torch": "", "keras": "TF", "flax": "Flax"}
OLD_FRAMEWORKS = {"torch": "pt", "keras": "tf", "flax": "jax"}


def inputs(task: str) -> list[Any]:
    contexts = [{"question": ASKED["question"], "context": text} for text in (*TEXTS, ASKED["long"])]
    return contexts if task == "question-answering" else TEXTS


def refusal(call: Any, *given: Any, **options: Any) -> str:
    with pytest.raises(GPTZooError) as caught:
        call(*given, **options)
    return str(caught.value)


@pytest.mark.parametrize("task", TASKS)
def test_a_list_gives_a_list_and_a_stream_a_stream(task: str) -> None:
    pipe, many = ours(FIRST, task), inputs(task)
    expected = pipe(many)
    assert isinstance(expected, list)
    assert len(expected) == len(many)
    assert pipe(tuple(many)) == expected
    assert pipe(many[:1]) == expected[:1]
    assert pipe([]) == []
    stream = pipe(iter(many))
    assert isinstance(stream, Iterator)
    assert list(stream) == expected
    assert list(pipe(dict.fromkeys(many, 1).keys() if task != "question-answering" else iter(many))) == expected


@pytest.mark.parametrize("size", [1, 3])
def test_a_stream_may_be_endless_and_is_read_a_batch_at_a_time(size: int) -> None:
    read = []

    def texts() -> Iterator[str]:
        for number in itertools.count():
            read.append(number)
            yield f"King {number}"

    pipe = ours(FIRST, "text-classification")
    stream = pipe(texts(), batch_size=size)
    assert read == []
    found = [next(stream) for _ in range(4)]
    assert len(read) == (4 if size == 1 else 6)
    assert found == [pipe([f"King {number}"])[0] for number in range(4)] or size == 3


def test_results_before_a_wrong_input_come_before_its_error() -> None:
    stream = ours(FIRST, "text-generation")(iter(["King", "Queen", 3]), batch_size=4)
    assert next(stream) == ours(FIRST, "text-generation")("King")
    assert next(stream)[0]["generated_text"].startswith("Queen")
    with pytest.raises(InputError, match=r"^input 2: 3, expected a text$"):
        next(stream)


class Sized:
    """A dataset as PyTorch's are: entries by number, and no iterator."""

    def __getitem__(self, index: int) -> str:
        return TEXTS[index]

    def __len__(self) -> int:
        return len(TEXTS)


def test_a_dataset_is_a_stream() -> None:
    assert list(ours(FIRST, "text-classification")(Sized())) == ours(FIRST, "text-classification")(TEXTS)


def test_old_names(tmp_path: Path) -> None:
    path = store(tmp_path, "ForSequenceClassification")
    pipe = pipeline("sentiment-analysis", str(path), framework=OLD_FRAMEWORKS[FIRST], torch_dtype="float32", device=-1)
    assert pipe.task == "text-classification"
    assert pipe.framework == FIRST
    assert pipeline("ner", store(tmp_path / "ner", "ForTokenClassification"), framework=FIRST, device_map="auto")(["a"])


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("prefix", ["", "old"])
def test_a_model_tells_its_framework(framework: str, prefix: str) -> None:
    name = OLD[framework] * bool(prefix) + "GPT2LMHeadModel"
    home = gptzoo if prefix else __import__(f"gptzoo.{framework}", fromlist=[name])
    model = getattr(home, name).from_pretrained(DEFAULT_MODEL, dtype="float32")
    pipe = pipeline("text-generation", model, tokenizer=DEFAULT_MODEL, device="cpu")
    assert pipe.framework == framework
    expected = pipeline("text-generation", framework=framework, dtype="float32")
    assert pipe(TEXTS[:2], batch_size=2) == expected(TEXTS[:2])


@pytest.mark.skipif("torch" not in TESTED, reason="PyTorch's models have a mode")
def test_a_model_in_training_is_not_changed(tmp_path: Path) -> None:
    from gptzoo.torch import GPT2ForSequenceClassification

    path = store(tmp_path, "ForSequenceClassification")
    model = GPT2ForSequenceClassification.from_pretrained(path).train()
    pipe = pipeline("text-classification", model, tokenizer=AutoTokenizer.from_pretrained(path))
    assert pipe(TEXTS) == pipeline("text-classification", path, framework="torch")(TEXTS)
    assert model.training
    assert next(model.parameters()).requires_grad


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("options", [{}, {"return_full_text": False}], ids=["full", "new"])
def test_gpt_puts_a_space_between_prompt_and_completion(framework: str, options: dict[str, Any]) -> None:
    """GPT's tokens do not say what stands before a word; and the prompt stays as it was typed."""
    tokenizer = AutoTokenizer.from_pretrained(GPT1)
    config = matrix.tiny("openai-gpt", vocab_size=len(tokenizer))
    model = matrix.model_class(framework, config, "LMHeadModel")(config)
    pipe = pipeline("text-generation", model, tokenizer=tokenizer, max_new_tokens=3)
    prompt = "The King"
    ids = tokenizer(prompt)["input_ids"]
    new = pipe(prompt, return_tensors=True)[0]["generated_token_ids"][len(ids) :]
    words = tokenizer.decode(new)
    assert tokenizer.decode([*ids, *new]) == f"the king {words}"
    expected = f" {words}" if options else f"{prompt} {words}"
    assert pipe(prompt, **options) == [{"generated_text": expected}]
    assert "no bos_token" in refusal(pipe, "")


@pytest.mark.parametrize("call", [{"tokens": 1}, {"top_q": 0.5}], ids=str)
def test_unknown_options_are_named(call: dict[str, Any]) -> None:
    (name,) = call
    for task in TASKS:
        assert name in refusal(ours(FIRST, task), inputs(task)[0], **call)
    assert "top_k?" in refusal(ours(FIRST, "text-classification"), "a", top_q=1)


WRONG: dict[str, dict[str, Any]] = {
    "text-generation": {
        "max_new_tokens": 0,
        "max_length": "ten",
        "prefix": 3,
        "handle_long_generation": "whole",
        "seed": 0.5,
        "return_full_text": 1,
        "truncation": "yes",
        "clean_up_tokenization_spaces": 1,
        "top_p": 2,
        "temperature": 0,
    },
    "text-classification": {
        "top_k": 0,
        "function_to_apply": "relu",
        "truncation": "yes",
        "max_length": 0,
        "padding": "left",
    },
    "token-classification": {"aggregation_strategy": "mean", "ignore_labels": "O", "stride": -1, "truncation": 2},
    "question-answering": {"top_k": None, "doc_stride": -1, "max_answer_len": 0, "max_seq_len": 1.5},
    "feature-extraction": {"return_tensors": "pt"},
}


@pytest.mark.parametrize("task", TASKS)
def test_wrong_options_are_all_listed(task: str) -> None:
    pipe = ours(FIRST, task)
    problem = refusal(pipe, inputs(task)[:1], **WRONG[task]) + refusal(pipe, inputs(task)[0], batch_size=0)
    if task == "text-generation":  # those of `generate` are looked at by itself
        problem += refusal(pipe, "a", do_sample=True, top_p=2, temperature=0)
    assert all(f"{name}: {value!r}" in problem for name, value in WRONG[task].items()), problem
    assert "batch_size: 0, expected an integer of at least 1" in problem


def test_options_that_do_not_go_together_are_refused() -> None:
    pipe = ours(FIRST, "text-generation")
    assert "return_tensors" in refusal(pipe, "a", return_tensors=True, return_full_text=False)
    assert "return_text" in refusal(pipe, "a", return_text=True, return_full_text=False)
    assert "expected one of them" in refusal(pipe, "a", max_new_tokens=3, max_length=5)
    assert "expected one of them" in refusal(pipe, "a", truncation=True, handle_long_generation="hole")
    assert "max_length: 5, expected truncation=True" in refusal(ours(FIRST, "text-classification"), "a", max_length=5)
    assert "stride" in refusal(ours(FIRST, "token-classification"), "a", stride=3)
    answers = ours(FIRST, "question-answering")
    assert "1 questions and 2 contexts" in refusal(answers, question=["a"], context=["b", "c"])
    assert "two texts" in refusal(answers, question="a", context=["b"])
    assert "without question and context" in refusal(answers, [], question="a")
    assert "doc_stride" in refusal(answers, question="a", context="b", max_seq_len=9, doc_stride=9)
    assert "question: " in refusal(answers, question="king " * 300, context="b")


@pytest.mark.parametrize("wrong", [3, b"text", None, ["a", "b"], {"txt": "a"}, {"question": "a"}], ids=repr)
@pytest.mark.parametrize("task", TASKS)
def test_a_wrong_input_is_named_by_its_number(task: str, wrong: Any) -> None:
    problem = refusal(ours(FIRST, task), [*inputs(task)[:1], wrong])
    assert problem.startswith("input 1: ")
    assert ", expected " in problem
    if not isinstance(wrong, list) and wrong is not None:
        assert refusal(ours(FIRST, task), wrong).startswith("input")


@pytest.mark.parametrize("task", [task for task in TASKS if task != "question-answering"])
def test_a_text_that_is_too_long_is_an_error_or_cut(task: str) -> None:
    pipe = ours(FIRST, task)
    long = ASKED["long"] * 2
    n = len(pipe.tokenizer(long)["input_ids"])
    problem = refusal(pipe, ["a", long])
    assert problem.startswith(f"input 1: {n} tokens")
    assert f"{pipe.limit}" in problem
    assert "(n_positions), or " in problem
    generates = task == "text-generation"
    ids = pipe.tokenizer(long)["input_ids"]
    if generates:
        (end,) = pipe(long, handle_long_generation="hole", return_tensors=True)
        (begin,) = pipe(long, truncation=True, return_tensors=True)
        assert end["generated_token_ids"][:-20] == ids[20 - pipe.limit :]
        assert begin["generated_token_ids"][:-20] == ids[: pipe.limit - 20]
    else:
        assert pipe(long, truncation=True) == pipe(pipe.tokenizer.decode(ids[: pipe.limit]))
    assert "expected fewer than" in refusal(ours(FIRST, "text-generation"), "a", max_new_tokens=pipe.limit)


@pytest.mark.parametrize("task", [task for task in TASKS if task != "text-generation"])
def test_a_text_without_tokens_is_an_error(task: str) -> None:
    asked = {"question": "a", "context": ""} if task == "question-answering" else ""
    assert refusal(ours(FIRST, task), asked).startswith("input: ")


@pytest.mark.parametrize("task", [task for task in TASKS if TASKS[task].startswith("For")])
def test_a_checkpoint_without_the_head_is_refused(task: str) -> None:
    """Its results would be chance."""
    with pytest.raises(CheckpointError, match=f"GPT2LMHeadModel without trained .*, expected a GPT2{TASKS[task]}"):
        pipeline(task, DEFAULT_MODEL, framework=FIRST)


def test_a_tokenizer_of_another_model_is_found_out() -> None:
    pipe = ours(FIRST, "text-classification")
    model = matrix.model_class(FIRST, matrix.tiny("gpt2"), "ForSequenceClassification")(matrix.tiny("gpt2"))
    other = pipeline("text-classification", model, tokenizer=pipe.tokenizer)
    assert refusal(other, "king").endswith("expected 0 to 39 (vocab_size): a tokenizer of this model")


def test_wrong_arguments_of_pipeline() -> None:
    tasks = refusal(pipeline, "translation")
    assert all(task in tasks for task in (*TASKS, "ner", "sentiment-analysis"))
    assert "expected one of torch, keras, flax, pt" in refusal(pipeline, "text-generation", framework="mxnet")
    assert "no default for feature-extraction" in refusal(pipeline, "feature-extraction")
    assert "expected a path, a name, or a model of gptzoo" in refusal(pipeline, "text-generation", object())
    assert "no such file" in refusal(pipeline, "text-generation", "./absent", framework=FIRST)
    assert "max_new_token: no such" not in refusal(
        pipeline, "text-classification", folder("text-classification"), top=1
    )
    model = ours(FIRST, "text-classification").model
    assert "ForSequenceClassification" in refusal(pipeline, "text-generation", model, tokenizer=DEFAULT_MODEL)
    assert "tokenizer: none given" in refusal(pipeline, "text-classification", model)
    further = refusal(pipeline, "text-classification", model, tokenizer=DEFAULT_MODEL, dtype="float16", revision="x")
    assert "dtype: given" in further
    assert "revision: given" in further
    other = next(name for name in ("torch", "keras", "flax") if name != FIRST)
    assert "the model's" in refusal(pipeline, "text-classification", model, tokenizer=DEFAULT_MODEL, framework=other)


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("device", [7, "cuda:7", "tpu", "nowhere", True, 1.5, ""], ids=repr)
def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are(framework: str, device: Any) -> None:
    problem = refusal(pipeline, "text-generation", framework=framework, device=device)
    assert problem.startswith(f"device: {device!r}, expected one that {framework} finds here: cpu:0")


@pytest.mark.parametrize("framework", TESTED)
@pytest.mark.parametrize("device", ["cpu", -1, "CPU:0"], ids=str)
def test_a_device_by_any_of_its_names(framework: str, device: Any) -> None:
    pipe = pipeline("text-generation", framework=framework, device=device, dtype="float32", max_new_tokens=1)
    assert pipe("King")


@pytest.mark.skipif("flax" not in TESTED, reason="JAX makes two devices of a CPU")
def test_a_model_goes_to_the_second_device() -> None:
    code = (
        "import jax; from gptzoo import pipeline; from gptzoo.hub import DEFAULT_MODEL\n"
        "pipe = pipeline('text-generation', framework='flax', device='cpu:1', dtype='float32', max_new_tokens=2)\n"
        "features = pipeline('feature-extraction', DEFAULT_MODEL, framework='flax', device=jax.devices()[1])\n"
        "moved = pipeline('text-generation', pipe.model, tokenizer=DEFAULT_MODEL, device='cpu', max_new_tokens=2)\n"
        "print(features('King', return_tensors=True).devices(), pipe.model.first_weight.devices(), moved('King'))"
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | flags, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("{CpuDevice(id=1)} {CpuDevice(id=0)} [{'generated_text': 'King"), result.stdout


@pytest.mark.skipif(TESTED != ["torch", "keras", "flax"], reason="one installation that has all backends of Keras")
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_every_backend_of_keras_gives_the_same(backend: str) -> None:
    path = str(folder("text-classification"))
    code = (
        "import json; from gptzoo import pipeline; from tests.pipelines import TEXTS\n"
        f"pipe = pipeline('text-classification', {path!r}, framework='keras', device=-1)\n"
        "write = pipeline('text-generation', framework='keras', dtype='float32', max_new_tokens=3)\n"
        "print(json.dumps([pipe(TEXTS, batch_size=3), write(TEXTS[:2], batch_size=2)]))"
    )
    paths = {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | paths, check=False
    )
    assert result.returncode == 0, result.stderr
    write = ours("torch", "text-generation")
    expected = [ours("torch", "text-classification")(TEXTS), write(TEXTS[:2], max_new_tokens=3)]
    assert_same(json.loads(result.stdout), expected)


def test_a_pipeline_saves_its_model_and_tokenizer(tmp_path: Path) -> None:
    pipe = ours(FIRST, "text-classification")
    pipe.save_pretrained(tmp_path)
    assert pipeline("text-classification", tmp_path, framework=FIRST)(TEXTS) == pipe(TEXTS)


def test_options_of_the_pipeline_hold_for_every_call() -> None:
    """A call's own win; and a list of all labels stays within the list of a single text, as in Transformers."""
    pipe = pipeline("text-classification", folder("text-classification"), framework=FIRST, top_k=None)
    plain = ours(FIRST, "text-classification")
    assert pipe("King") == [plain("King", top_k=None)]
    assert pipe(["King"]) == [plain("King", top_k=None)]
    assert pipe("King", top_k=2) == plain("King", top_k=2)
    assert np.isclose(sum(one["score"] for one in pipe(["King"])[0]), 1)


@pytest.mark.skipif("torch" not in TESTED, reason="the guide has a model of PyTorch")
def test_the_guide_runs() -> None:
    text = (Path(__file__).parents[1] / "docs" / "pipelines.md").read_text()
    names: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)), names)
    assert names["texts"][0] == names["text"]
    assert len(names["drawn"]) == 2
    assert [one["generated_text"][:8] for (one,) in names["scenes"]] == ["Scene 1:", "Scene 2:", "Scene 3:"]
    assert np.shape(names["rows"])[::2] == (1, 160)
    assert all(f"`{task}`" in text for task in TASKS)
