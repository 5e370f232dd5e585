"""The examples of the original documentation: read, rewritten by their import line, and run.

`python -m tests.documentation.examples` prints the table of docs/examples.md.
"""

from __future__ import annotations

import ast
import doctest
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from tests.runs import ENVIRONMENT

HERE = Path(__file__).parent
PAGES = {"gpt2.toml": "GPT-2", "openai-gpt.toml": "GPT", "newer.toml": ""}  # file -> the page of its examples
NEEDS = {"gpu": "a GPU", "flash_attn": "flash-attn"}

_IMPORT = re.compile(r"^((?:>>> )?from )transformers( import )", re.MULTILINE)
_COMMAND = re.compile(r"(\| )transformers( run )")
_GPTZOO = 'gptzoo() { "$PYTHON" -m gptzoo.cli "$@"; }\n'  # as installed, in a checkout that is not


@dataclass(frozen=True)
class Change:
    """What else must change in an example, so that it runs.

    Attributes:
        old, new: a part of the code, and what takes its place.
        error: pattern of the error that the part as it stands ends in.
        why: said in the table.
        without: key of `NEEDS`: where that is there, the part runs as it stands.
    """

    old: str
    new: str
    error: str
    why: str = ""
    without: str = ""


@dataclass(frozen=True)
class Example:
    """One example.

    Attributes:
        name: unique; of the class that it shows, where it is that class's example.
        page, section: where it stands.
        framework: "PyTorch", "TensorFlow", "Flax", "all" (no model in it), or "shell".
        code: as it stands there.
        checks: expressions that hold afterwards, of the example's names; of `_`, the last expression's value; of
            `printed`; of `same` and `NEW_ROW`; and of `like`, the names of the twin.
        changes: what else than the import line is rewritten.
        twin: name of the example that computes the same; "": this one, run by Transformers.
        prints: whether what the page prints is what the real vocabulary gives, so that it is compared.
        note: what is said of it in the table, although it runs.
        not_run: the reason why it is not run.
    """

    name: str
    page: str
    section: str
    framework: str
    code: str
    checks: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    twin: str = ""
    prints: bool = False
    note: str = ""
    not_run: str = ""

    @property
    def compares(self) -> bool:
        return any("like" in check for check in self.checks)


def read() -> Iterator[Example]:
    for file, page in PAGES.items():
        for entry in tomllib.loads((HERE / file).read_text())["example"]:
            changes = tuple(Change(**change) for change in entry.pop("change", ()))
            checks = tuple(entry.pop("checks", ()))
            yield Example(**({"page": page} | entry), checks=checks, changes=changes)


EXAMPLES = {example.name: example for example in read()}


def available() -> set[str]:
    """Returns the keys of `NEEDS` that are met on this machine."""
    import torch

    found = {"gpu": torch.cuda.is_available(), "flash_attn": find_spec("flash_attn") is not None}
    return {need for need, there in found.items() if there}


def needed(example: Example) -> tuple[Change, ...]:
    """Returns the changes that an example needs on this machine."""
    return tuple(change for change in example.changes if change.without not in available())


def run(example: Example, changes: Iterable[Change] = (), package: str = "gptzoo") -> dict[str, Any]:
    """Runs an example in a namespace of its own, with its import line rewritten and nothing else but `changes`.

    Returns:
        Its names; `_`, the value of the last expression; `printed`; `shown`, pairs of what the page prints for an
        expression, and what it is here.
    """
    code = example.code
    for change in changes:
        assert change.old in code, change
        code = code.replace(change.old, change.new)
    pattern = _COMMAND if example.framework == "shell" else _IMPORT
    code, count = pattern.subn(rf"\g<1>{package}\2", code)
    assert count == 1, f"{example.name}: {count} import lines"
    return run_shell(code) if example.framework == "shell" else run_python(code)


def run_python(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "example", "_": None}
    printed, shown = StringIO(), []
    with redirect_stdout(printed):
        for source, want in statements(code):
            for node in ast.parse(source).body:
                if isinstance(node, ast.Expr):
                    names["_"] = eval(compile(ast.Expression(node.value), "example", "eval"), names)
                else:
                    exec(compile(ast.Module([node], []), "example", "exec"), names)
            if want:
                shown.append((want, repr(names["_"])))
    return names | {"printed": printed.getvalue(), "shown": shown}


def statements(code: str) -> list[tuple[str, str]]:
    """Returns (source, what is printed) of each prompt; without prompts, all is one source."""
    prompts = doctest.DocTestParser().get_examples(code)
    return [(prompt.source, prompt.want.strip()) for prompt in prompts] or [(code, "")]


def run_shell(code: str) -> dict[str, Any]:
    environment = ENVIRONMENT | {"PYTHON": sys.executable}
    command = ["bash", "-c", _GPTZOO + code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return {"printed": done.stdout}


def status(example: Example) -> str:
    """Returns the last column of the table."""
    if example.not_run:
        return f"not run: {example.not_run}"
    reasons = dict.fromkeys(change.why for change in example.changes if change.why)
    parts = [f"changed: {'; '.join(reasons)}" if reasons else "as it stands"]
    for change in example.changes:
        if change.without:
            parts.append(f"without {NEEDS[change.without]} `{change.old}` becomes `{change.new}`")
    return "; ".join([*parts, *([example.note] if example.note else [])])


def counts() -> str:
    """Returns how many examples run, in words, for the top of the page."""
    run_here = [example for example in EXAMPLES.values() if not example.not_run]
    same = [example for example in run_here if not any(change.why for change in example.changes)]
    equipped = [example for example in same if example.changes]
    changed, others = len(run_here) - len(same), len(EXAMPLES) - len(run_here)
    return (
        f"Of {len(EXAMPLES)} examples, {len(same)} run with the import line changed and nothing else; {len(equipped)} "
        f"of these ask for a GPU. {changed} need another change, and {others} are commands of other packages."
    )


def table() -> list[str]:
    """Returns the lines of the table."""
    rows = [
        (replace_code(example.section), example.page, example.framework, status(example))
        for example in EXAMPLES.values()
    ]
    head = [("example", "page", "framework", "runs"), ("---",) * 4]
    return [f"| {' | '.join(row)} |" for row in (*head, *rows)]


def replace_code(section: str) -> str:
    """Marks the class at the start of a section's name as code."""
    return re.sub(r"^(?:TF|Flax)?(?:OpenAI)?GPT[\w.]*\b", lambda match: f"`{match[0]}`", section)


if __name__ == "__main__":
    print(counts(), *table(), sep="\n")
