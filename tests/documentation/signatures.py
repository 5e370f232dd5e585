"""The signatures of the original pages, read from their texts.

`python -m tests.documentation.signatures` writes them to signatures.json, from the pages in ../shared.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

Signatures = dict[str, dict[str, dict[str, str | None]]]  # class -> method -> parameter -> its default, as written

FILE = Path(__file__).with_name("signatures.json")
ORIGINALS = Path(__file__).parents[3] / "shared" / "docs_of_the_original"

_CLASS = re.compile(r"(?:### )?class transformers\.(?:\w+\.)*(\w+)$")
_METHOD = re.compile(r"(?:#### )?([a-z_]+)$")
_SIGNATURE = re.compile(r"(?:< source >)?\( (.*?) \)(?: →.*)?$")
# A type of several words always has a default behind it.
_PARAMETER = re.compile(
    r"(?P<name>\*{0,2}\w+)(?:: (?:[^=:]*?(?= = )|\S+))?(?: = (?P<default>'[^']*'|<[^>]*>|\([^)]*\)|\S+))?(?: |$)"
)


def read(page: Path) -> Signatures:
    """Returns the signatures of a page; a class's own is that of `__init__`."""
    result: Signatures = {}
    owner, method = "", "__init__"
    for line in page.read_text().replace("\\", "").splitlines():
        if found := _CLASS.match(line):
            owner, method = found[1], "__init__"
        elif found := _METHOD.match(line):
            method = found[1]
        elif owner and (found := _SIGNATURE.match(line)):
            result.setdefault(owner, {})[method] = parameters(found[1])
    return result


def parameters(text: str) -> dict[str, str | None]:
    """Returns the parameters of a signature that has no commas, but for *args and **kwargs."""
    found = list(_PARAMETER.finditer(text))
    assert "".join(match[0] for match in found) == text, text
    return {match["name"]: match["default"] for match in found if "*" not in match["name"]}


def pages() -> Signatures:
    return {name: methods for page in sorted(ORIGINALS.glob("*.md")) for name, methods in read(page).items()}


def as_text(signatures: Signatures) -> str:
    """Returns JSON with one line for each signature."""
    classes = [
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"    {json.dumps(method)}: {json.dumps(listed)}" for method, listed in methods.items())
        + "\n  }"
        for name, methods in signatures.items()
    ]
    return "{\n" + ",\n".join(classes) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(as_text(pages()))
