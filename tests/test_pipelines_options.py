"""Options and attributes of pipelines that users of Transformers know, and what is refused when a pipeline is made."""

from __future__ import annotations

import pytest

from gptzoo._devices import find_device
from gptzoo.config import dtype_name
from gptzoo.pipelines import pipeline
from gptzoo.tokenization import AutoTokenizer
from tests import matrix
from tests.matrix import TESTED
from tests.pipelines import ASKED, TASKS, TEXTS, ours
from tests.test_pipelines_calls import FIRST, GPT1, refusal


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "generate"])
def test_unknown_options_of_generation_are_named_when_the_pipeline_is_made(name: str) -> None:
    problem = refusal(pipeline, "text-generation", framework=FIRST, **{name: ["x"]})
    assert problem.startswith(f"text-generation: unknown argument {name!r}")
    assert "inputs" not in problem.replace("input_ids", "")  # nor any other name that is refused
    assert "encoder" not in problem


def test_arguments_of_transformers_that_ask_for_nothing_are_taken() -> None:
    options = {"trust_remote_code": False, "use_fast": True, "feature_extractor": None, "guidance_scale": 1}
    pipe = pipeline("text-generation", framework=FIRST, **options, max_new_tokens=1)
    assert pipe("King")[0]["generated_text"].startswith("King")
    problem = refusal(pipeline, "text-generation", trust_remote_code=True, use_fast="no", pipeline_class=dict)
    assert problem.startswith("pipeline (3 problems):")
    for text in (
        "trust_remote_code: True, expected None or False",
        "use_fast: 'no', expected True",
        "pipeline_class: <class",
    ):
        assert text in problem
    assert "stop_sequence: '.', expected None" in refusal(
        pipeline, "text-generation", framework=FIRST, stop_sequence="."
    )
    assert "guidance_scale: 4, expected 1" in refusal(pipeline, "text-generation", framework=FIRST, guidance_scale=4)


def test_question_and_context_may_come_in_order() -> None:
    pipe = ours(FIRST, "question-answering")
    question, contexts = ASKED["question"], TEXTS[:2]
    expected = pipe(question=question, context=contexts[0])
    assert pipe(question, contexts[0]) == pipe(question, context=contexts[0]) == expected
    assert pipe([question] * 2, contexts) == [expected, pipe(question=question, context=contexts[1])]
    assert "without question and context" in refusal(pipe, "a", "b", question="c")
    assert "question=None and context='b'" in refusal(pipe, context="b")


@pytest.mark.parametrize("framework", TESTED)
def test_device_and_dtype(framework: str) -> None:
    pipe = pipeline("text-generation", framework=framework, device="cpu", dtype="float16")
    assert find_device(framework, pipe.device)[0] == "cpu:0"
    assert pipe.dtype == pipe.torch_dtype == pipe.model.dtype
    assert dtype_name(pipe.dtype) == "float16"


@pytest.mark.parametrize("task", ["question-answering", "token-classification"])
def test_a_tokenizer_that_changes_the_text_is_refused(task: str) -> None:
    pytest.importorskip("spacy")
    pytest.importorskip("ftfy")
    tokenizer = AutoTokenizer.from_pretrained(GPT1, preparation="paper")
    config = matrix.tiny("openai-gpt", vocab_size=len(tokenizer))
    model = matrix.model_class(FIRST, config, TASKS[task])(config)
    problem = refusal(pipeline, task, model, tokenizer=tokenizer)
    assert problem.startswith("tokenizer: a OpenAIGPTTokenizer that changes the text")
    assert 'tokenizer=AutoTokenizer.from_pretrained(path, preparation="bert")' in problem
    assert pipeline(task, model, tokenizer=AutoTokenizer.from_pretrained(GPT1, preparation="bert"))


def test_a_text_is_cut_to_a_length_of_the_call() -> None:
    text = TEXTS[0]
    pipe, write = ours(FIRST, "text-classification"), ours(FIRST, "text-generation")
    ids = pipe.tokenizer(text)["input_ids"]
    expected = pipe(pipe.tokenizer.decode(ids[:4]))
    assert pipe(text, truncation=True, max_length=4, padding=True) == expected != pipe(text)
    assert pipe(text, max_length=64, padding="max_length") == pipe(text)
    assert pipe(ASKED["long"] * 2, truncation=True, max_length=9999) == pipe(ASKED["long"] * 2, truncation=True)
    options = {"max_length": 5, "return_tensors": True}
    (found,) = write(text, truncation=True, **options)
    assert found["generated_token_ids"][:-1] == ids[:4]
    (found,) = write(text, truncation=True, prefix="KING:", **options)
    before = write.tokenizer("KING:")["input_ids"]
    assert found["generated_token_ids"][:-1] == [
        *before,
        *write.tokenizer("KING:" + text)["input_ids"][len(before) :][:4],
    ]
    assert "fewer than max_length 5" in refusal(write, text, **options)
    near = write.tokenizer(ASKED["long"] * 2)["input_ids"][: write.limit - 5]
    (found,) = write(write.tokenizer.decode(near), truncation=True, return_tensors=True)
    assert [found] == write(write.tokenizer.decode(near[:-15]), return_tensors=True)  # 20 new tokens have room


def test_spaces_are_cleaned_in_the_completion() -> None:
    pipe = ours(FIRST, "text-generation")
    new = pipe.tokenizer(" , my lord ; I do n't !")["input_ids"]
    for clean, expected in (
        (True, "No , King, my lord ; I don't!"),
        (False, "No , King , my lord ; I do n't !"),
        (None, "No , King , my lord ; I do n't !"),
    ):
        options = pipe.merge(pipe.options, {"clean_up_tokenization_spaces": clean})
        item = pipe.prepare("No , King", 0, options)
        assert pipe.finish(item, [{"completions": [new]}], options) == [{"generated_text": expected}]
