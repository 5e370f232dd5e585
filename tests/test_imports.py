"""Import hygiene, in fresh interpreters: who imports what, and what happens where a framework is not installed."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gptzoo
from gptzoo._extras import FRAMEWORKS
from gptzoo.config import CONFIGS
from gptzoo.heads import AUTO_HEADS, HEADS, class_name
from tests.matrix import TESTED

PACKAGE = Path(gptzoo.__file__).parent
ALL = ("torch", "tensorflow", "keras", "jax", "flax")
OWN = {"torch": {"torch"}, "keras": {"keras", "tensorflow"}, "flax": {"jax", "flax"}}
CORE = (
    "config",
    "weights",
    "heads",
    "outputs",
    "cache",
    "inputs",
    "checkpoint",
    "hub",
    "errors",
    "reference",
    "scoring",
    "pipelines",
    "cli",
)


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter, warnings being errors as in the tests themselves."""
    env = os.environ | {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-W", "error", *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def imported(code: str) -> set[str]:
    """Returns the top-level modules that are loaded after a program has run."""
    result = run(f"import sys\n{code}\nprint('loaded', *sorted({{name.split('.')[0] for name in sys.modules}}))")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split("loaded ")[-1].split())


def without(*modules: str) -> str:
    """Code that makes modules look as if they were not installed."""
    return f"import sys\nsys.modules.update(dict.fromkeys({list(modules)!r}))\n"


def test_gptzoo_imports_no_framework_and_no_numpy() -> None:
    assert not imported("import gptzoo; gptzoo.GPT2Config()") & {*ALL, "numpy", "safetensors", "tokenizers"}


@pytest.mark.parametrize("module", CORE)
def test_core_imports_no_framework(module: str) -> None:
    assert not imported(f"import gptzoo.{module}") & set(ALL)


@pytest.mark.parametrize("framework", TESTED)
def test_framework_imports_no_other(framework: str) -> None:
    ours = imported(f"import gptzoo.{framework}")
    theirs = imported("; ".join(f"import {module}" for module in sorted(OWN[framework])))
    assert OWN[framework] <= ours
    assert (ours - theirs) & set(ALL) == set()


@pytest.mark.parametrize("framework", TESTED)
def test_works_with_the_others_not_installed(framework: str) -> None:
    others = sorted(set(ALL) - OWN[framework])
    result = run(
        without(*others) + f"from gptzoo.{framework} import GPT2LMHeadModel\n"
        "from gptzoo import GPT2Config\nimport numpy as np\n"
        "from gptzoo._runners import runner_of\n"
        "model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=2))\n"
        f"runner = runner_of({framework!r}, model)\n"
        "print(runner.numpy(runner(input_ids=np.array([[1, 2]]))['logits']).shape)"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("(1, 2, 9)\n")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_missing_extra_is_one_line_that_names_the_pip_install(framework: str) -> None:
    result = run(
        without(*OWN[framework]) + f"import gptzoo\ntry:\n    import gptzoo.{framework}\n"
        "except gptzoo.MissingExtraError as problem:\n    print(problem)"
    )
    assert result.returncode == 0, result.stderr
    assert f"pip install 'gptzoo[{framework}]'" in result.stdout
    assert len(result.stdout.splitlines()) == 1


def test_no_framework_at_all_is_exit_2() -> None:
    result = run(without(*ALL) + "from gptzoo.cli import main\nsys.exit(main(['parity']))")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "pip install 'gptzoo[torch]'" in result.stderr.splitlines()[-1]


def test_imports_point_one_way() -> None:
    """The order of the layers, read from the sources: nothing imports what stands to its right."""
    layers = [
        "errors limits _settings",
        "_files",
        "_json",
        "config",
        "hub heads weights",
        "outputs cache inputs labels surgery _extras _devices _runners",
        "_tensors _shards _safetensors _vocabulary _download",
        "tokenization",
    ]
    layers += [
        "checkpoint _load inspect",
        "generation scoring _auto",
        "reference torch keras flax",
        "parity pipelines",
        "_demo _run _score _generate",
        "cli",
    ]
    rank = {module: i for i, layer in enumerate(layers) for module in layer.split()}
    for path in PACKAGE.rglob("*.py"):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        for node in ast.parse(path.read_text()).body:  # imports inside functions are the stated exceptions
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gptzoo"):
                names = [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
                for name in names:
                    assert name in rank, f"{path}: {name} has no place in the order"
                    fine = (
                        name == here or rank[name] < rank[here] or (rank[name] == rank[here] and name not in FRAMEWORKS)
                    )
                    assert fine, f"{path} imports {name}"


def test_public_names_are_there() -> None:
    """What type checkers see of the top level, what it lends at run time, and what its modules have, are the same."""
    absent = set(FRAMEWORKS) - set(TESTED)
    wanted = {module: set(names) for module, names in gptzoo._NAMES.items() if module.split(".")[1] not in absent}
    typed: dict[str, set[str]] = {module: set() for module in wanted}
    for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in typed:
            names = {alias.name for alias in node.names}
            typed[node.module] |= set(importlib.import_module(node.module).__all__) if names == {"*"} else names
    assert typed == wanted
    for module, names in wanted.items():
        assert all(getattr(gptzoo, name) is getattr(importlib.import_module(module), name) for name in names)
    assert len(set(gptzoo.__all__)) == len(gptzoo.__all__)
    assert set(gptzoo.__all__) <= set(dir(gptzoo))


@pytest.mark.parametrize("framework", TESTED)
def test_twins_export_the_same_names(framework: str) -> None:
    result = run(f"import gptzoo.{framework} as twin; print(*sorted(twin.__all__))")
    models = [class_name(config, head) for config in CONFIGS.values() for head in HEADS]
    # TensorFlow alone has strings in its graphs.
    alone = ["GPT2Tokenizer", "OpenAIGPTTokenizer"] if framework == "keras" else []
    assert result.stdout.split() == sorted([*models, *AUTO_HEADS, *alone])
