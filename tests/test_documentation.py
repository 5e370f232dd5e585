"""The examples of the two original pages run on gptzoo by their import line, and compute what Transformers computes."""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import os
import re
import warnings
from ast import literal_eval
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gptzoo
from gptzoo._devices import find_device
from gptzoo.config import GPTConfig
from tests.documentation import examples, models, signatures
from tests.documentation.examples import EXAMPLES, Change, Example
from tests.matrix import TESTED, error

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "examples.md"
ORIGINALS = ROOT.parent / "shared" / "docs_of_the_original"
RUN = [example for example in EXAMPLES.values() if not example.not_run]
CHANGED = [
    pytest.param(example, change, id=f"{example.name}: {change.old[:40].strip()}")
    for example in RUN
    for change in example.changes
]
# A token that was added has a random row: the mean of the others, and errors with 3e-5 of their standard deviation.
NEW_ROW = 1e-4
CODE = re.compile(r">>> |\.\.\.|from \w+ import|import |pip |python -m|\w+ = ")  # how a line of code begins
NEEDED = {
    "PyTorch": {"torch"},
    "TensorFlow": {"torch", "keras"},
    "Flax": {"torch", "flax"},
    "all": set(),
    "shell": {"torch"},
}  # an example's framework -> what has to be installed, its twin's included


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Path]]:
    """Models with the weights of all heads, and models with one, as on the hub."""
    found = {}
    for all_heads in (True, False):
        found[all_heads] = tmp_path_factory.mktemp("all_heads" if all_heads else "one_head")
        models.save_models(found[all_heads], all_heads)
    for framework in TESTED:
        importlib.import_module(f"gptzoo.{framework}")
    importlib.import_module("transformers")
    gc.freeze()  # a vocabulary is so many objects that the collector would go through the frameworks again and again
    yield found
    gc.unfreeze()
    run_like.cache_clear()


@pytest.fixture
def among_models(folders: dict[bool, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the directory current in which each model, with all heads, stands under its name."""
    monkeypatch.chdir(folders[True])


@pytest.fixture
def among_plain_models(folders: dict[bool, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with models with one head."""
    monkeypatch.chdir(folders[False])


def require(example: Example) -> None:
    if absent := NEEDED[example.framework] - set(TESTED):
        pytest.skip(f"needs {', '.join(sorted(absent))}")
    if example.framework == "TensorFlow" and os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        pytest.skip("needs Keras on TensorFlow, whose tensors the code makes")


@cache
def run_like(name: str, package: str) -> dict[str, Any]:
    """The names of an example that another one is compared with."""
    example = EXAMPLES[name]
    with warnings.catch_warnings():
        if package != "gptzoo":
            warnings.simplefilter("ignore")
            importlib.import_module("torch").manual_seed(0)  # of the rows that it makes for new tokens
        return examples.run(example, examples.needed(example), package)


def same(found: Any, wanted: Any, tolerance: float = 1e-5) -> bool:
    """Whether the largest error is small beside the largest number."""
    return error(to_array(found), to_array(wanted)) < tolerance


def to_array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


@pytest.mark.parametrize("example", RUN, ids=[example.name for example in RUN])
@pytest.mark.usefixtures("among_models")
def test_example_runs(example: Example) -> None:
    require(example)
    names = examples.run(example, examples.needed(example))
    like = None
    if example.compares:
        like = run_like(example.twin or example.name, "gptzoo" if example.twin else "transformers")
    for check in example.checks:
        assert eval(check, names | {"same": same, "NEW_ROW": NEW_ROW, "like": like}), check


def test_every_example_has_a_check_of_numbers_or_text() -> None:
    for example in RUN:
        assert example.checks, example.name
        assert example.framework in ("PyTorch", "shell", "all") or example.compares, f"{example.name}: no twin"


@pytest.mark.parametrize("example", [example for example in RUN if example.prints], ids=lambda example: example.name)
@pytest.mark.usefixtures("among_models")
def test_prints_what_the_page_prints(example: Example) -> None:
    if not models.REAL:
        pytest.skip("the real vocabularies are not here: ../shared/data")
    shown = examples.run(example)["shown"]
    assert len(shown) == 2
    for wanted, found in shown:
        assert found == wanted


@pytest.mark.parametrize(("example", "change"), CHANGED)
@pytest.mark.usefixtures("among_plain_models")
def test_change_is_needed(example: Example, change: Change) -> None:
    require(example)
    if change.without in examples.available():
        pytest.skip(f"{examples.NEEDS[change.without]} is here: the example runs as it stands")
    others = [other for other in examples.needed(example) if other is not change]
    with pytest.raises(Exception, match=change.error):
        examples.run(example, others)


@pytest.mark.usefixtures("among_plain_models")
def test_device_map_of_the_newer_pages_is_a_device() -> None:
    require(EXAMPLES["gpt2 5 AutoModel"])
    load = gptzoo.AutoModelForCausalLM.from_pretrained
    assert load("gpt2", device_map="auto").device == load("gpt2", device=find_device("torch", None)[1]).device
    assert load("gpt2", device_map="cpu").device.type == "cpu"
    with pytest.raises(gptzoo.InputError, match=r"^device_map: .nowhere., expected one that torch finds here: cpu:0"):
        load("gpt2", device_map="nowhere")
    with pytest.raises(gptzoo.InputError, match=r"^device_map: given, expected without device$"):
        load("gpt2", device_map="auto", device="cpu")


HEADS = [example for example in RUN if re.search("DoubleHeads|QuestionAns|SequenceClass", example.name)]


@pytest.mark.parametrize("example", HEADS, ids=[example.name for example in HEADS])
@pytest.mark.usefixtures("among_plain_models")
def test_example_makes_the_head_that_the_checkpoint_lacks(example: Example) -> None:
    require(example)
    model = examples.run(example)["model"]
    assert bool(model.load_report.fresh) is ("GPT2ForSequence" not in example.name)


@pytest.mark.parametrize("page", ["gpt2", "openai-gpt"])
def test_every_line_of_code_is_an_example(page: str) -> None:
    """The examples stand in the page as they are here, and no line of code there is in none of them."""
    if not ORIGINALS.is_dir():
        pytest.skip("the pages are not here: ../shared/docs_of_the_original")
    lines = lines_of(ORIGINALS / f"{page}.md")
    free = dict(enumerate(lines))
    for example in EXAMPLES.values():
        if example.page == examples.PAGES[f"{page}.toml"]:
            take(example, lines, free)
    assert not [line for line in free.values() if CODE.match(line)]


def lines_of(page: Path) -> list[str]:
    """Returns the lines of a page, less empty ones, borders of blocks, and prompts that lost their comments.

    The GPT-2 page has lost line breaks: before what follows a block, which `take` knows, and before a prompt.
    """
    text = re.sub(r"(?<=\S)>>> ", "\n>>> ", page.read_text())
    return [line.rstrip() for line in text.splitlines() if line.strip() not in ("", ">>>", "```")]


def take(example: Example, lines: list[str], free: dict[int, str]) -> None:
    """Takes the lines of an example from those that no example has taken."""
    wanted = [line for line in example.code.splitlines() if line]
    *body, last = wanted
    for start in range(len(lines) - len(body)):
        place = range(start, start + len(wanted))
        if lines[start : place[-1]] == body and lines[place[-1]].startswith(last) and free.keys() >= set(place):
            for index in place:
                del free[index]
            return
    pytest.fail(f"{example.name}: not in the page as it is here")


def test_the_page_has_every_example() -> None:
    """docs/examples.md says of each what the data says; `python -m tests.documentation.examples` prints it."""
    text = PAGE.read_text()
    assert examples.counts() in text.replace("\n", " ")
    assert [line for line in text.splitlines() if line.startswith("|")] == examples.table()


SIGNATURES: signatures.Signatures = json.loads(signatures.FILE.read_text())
# By name only: configs have further fields between, GPT has a cache second and in its output, TensorFlow's double heads
# have losses, and its calls an order of their own (`call_order`, which test_old_names.py tests).
REORDERED = re.compile(r"\w+Config|TF\w+(Model|Classification|Output)|OpenAIGPT\w*(Model|Classification|Output)")
METHODS = [(name, method) for name, methods in SIGNATURES.items() for method in methods]


def test_signatures_are_those_of_the_pages() -> None:
    if not ORIGINALS.is_dir():
        pytest.skip("the pages are not here: ../shared/docs_of_the_original")
    assert signatures.FILE.read_text() == signatures.as_text(signatures.pages())


@pytest.mark.parametrize(("name", "method"), METHODS, ids=[".".join(entry) for entry in METHODS])
def test_takes_every_parameter_of_the_page(name: str, method: str) -> None:
    require_name(name)
    taken = parameters(getattr(gptzoo, name), method)
    listed = list(SIGNATURES[name][method])
    assert not [parameter for parameter in listed if parameter not in taken]
    if not REORDERED.match(name):
        assert taken[: len(listed)] == listed


def parameters(cls: Any, method: str) -> list[str]:
    if issubclass(cls, gptzoo.ModelOutput):
        return list(cls.names())
    if issubclass(cls, GPTConfig):
        return [field.name for field in fields(cls)]
    return [name for name in inspect.signature(getattr(cls, method)).parameters if name != "self"]


def require_name(name: str) -> None:
    framework = "keras" if name.startswith("TF") else "flax" if name.startswith("Flax") else "torch"
    if framework not in TESTED:
        pytest.skip(f"needs {framework}")


@pytest.mark.parametrize("name", [name for name in SIGNATURES if name.endswith("Config")])
def test_config_has_the_defaults_of_the_page(name: str) -> None:
    cls = getattr(gptzoo, name)
    defaults = {key: literal_eval(value) for key, value in SIGNATURES[name]["__init__"].items() if value}
    plain = cls()
    assert {key: getattr(plain, key) for key in defaults} == defaults
    assert cls(**defaults) == plain


TOKENIZERS = [name for name in SIGNATURES if "Tokenizer" in name and not name.startswith("TF")]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizer_has_the_defaults_of_the_page(name: str, tmp_path: Path) -> None:
    """Also by their places: it is made with all of them, and does what it does with none."""
    cls = getattr(gptzoo, name)
    stored = models.tokenizer("openai-gpt" if "OpenAI" in name else "gpt2", real=False).save_vocabulary(tmp_path)
    files = dict(zip(("vocab_file", "merges_file"), stored, strict=True))
    defaults = {key: literal_eval(value) for key, value in SIGNATURES[name]["__init__"].items() if value}
    plain, full = cls(**files), cls(*(defaults | files if "Fast" in name else files | defaults).values())
    for parameter in defaults.keys() - {"vocab_file", "merges_file", "tokenizer_file", "add_bos_token"}:
        assert getattr(plain, parameter) == getattr(full, parameter) == defaults[parameter], parameter
    assert full("Hello, my dog is cute")["input_ids"] == plain("Hello, my dog is cute")["input_ids"]
