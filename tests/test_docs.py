"""What the documentation shows is run, and what it claims of the folders is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gptzoo_conversion import FORMATS
from tests.matrix import TESTED

ROOT = Path(__file__).parent.parent


def test_readme_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not {"torch", "flax"} <= set(TESTED):
        pytest.skip("the README shows torch and flax")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {"__name__": "readme"})
    printed = capsys.readouterr().out
    difference = float(re.search(r"largest difference: (\S+)", printed)[1])  # type: ignore[index]
    assert difference < 1e-4


def test_conversion_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its example runs, and its table names every format and how single files of each end."""
    text = (ROOT / "docs" / "conversion.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert (tmp_path / "model.gguf").is_file()
    assert sorted(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)) == sorted(FORMATS)
    for format in FORMATS.values():
        assert all(f"`{suffix}`" in text for suffix in format.suffixes)


def test_migration_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if set(TESTED) != {"torch", "keras", "flax"}:
        pytest.skip("the guide shows all three frameworks")
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "migration.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["tf_model"].config == names["flax_model"].config
    assert names["params"]["transformer"]["wte"]["weight"].shape == (100, 24)


def test_scoring_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Its example, which holds that the likely text is the likelier one; and its table names all that a score has."""
    if "torch" not in TESTED:
        pytest.skip("the page shows torch")
    text = (ROOT / "docs" / "scoring.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert len(capsys.readouterr().out.splitlines()) == names["score"].n_tokens + 1
    shown = {name for name in dir(names["score"]) if not name.startswith("_")} - {"n_bytes"}
    assert set(re.findall(r"^\| `([a-z_]+)` \|", text, flags=re.MULTILINE)) == shown


def test_generation_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """And what it shows as equal is: streamed text and tokens, guesses and none."""
    if "torch" not in TESTED:
        pytest.skip("the page shows torch")
    text = (ROOT / "docs" / "generation.md").read_text()
    names: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)), names)
    added = names["tokenizer"].decode(names["told"][0, names["one"].input_ids.shape[1] :])
    assert "".join(names["pieces"]) == added
    assert capsys.readouterr().out == added + "\n"
    assert names["guessed"].tolist() == names["told"].tolist()
    assert len(names["beams"]) == 4
    assert all(text == text.lower() for text in names["tokenizer"].batch_decode(names["lower"][:, -12:]))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of how Keras calls NumPy
def test_tokenizers_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "keras" not in TESTED:
        pytest.skip("the page shows Keras")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tokenizers.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    assert names["logits"].shape == (1, 16, 1024)


def test_preparations_of_the_tokenizers_page() -> None:
    """The words of the table are those that each preparation makes of its example."""
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    from gptzoo.tokenization._gpt import VARIANTS
    from gptzoo.tokenization._preparation import words

    page = (ROOT / "docs" / "tokenizers.md").read_text()
    example = re.search(r"\| what is done \| `\"(.*)\"` \|", page)
    assert example
    text = example[1].replace(r"\n", "\n")
    shown = {
        row[0]: row[1].split("` `")
        for row in re.findall(r"^\| `\"(\w+)\"` \|.*\| `(.*)` \|$", page, flags=re.MULTILINE)
    }
    made = {name: words(text, **options) for name, options in VARIANTS.items()}
    bert = BertPreTokenizer().pre_tokenize_str(BertNormalizer(lowercase=True).normalize_str(text))
    made["bert"] = [word for word, _ in bert]
    assert shown == {name: [word.replace("\n", r"\n") for word in found] for name, found in made.items()}


def test_architecture_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "gptzoo").glob("*.py"):
        assert path.name in text, f"docs/architecture.md does not mention {path.name}"
    for path in (ROOT / "gptzoo" / "torch").glob("*.py"):
        assert path.name in text, f"docs/architecture.md does not mention torch/{path.name}"


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_twins_have_the_same_files_and_classes() -> None:
    """The three texts stand side by side; a name in one only needs a reason that is written here."""
    reasons = {
        "Dropout": "NNX has one of its own that keeps random state, which here a call brings",
        "Static": "NNX hashes what a module holds beside arrays; a config cannot be hashed",
        "Tied": "a shared Param is two weights to JAX, tree functions and gradients",
        "EagerEngine": "Keras' backend PyTorch compiles nothing",
        "Program": "what JAX compiles for must be hashed, and NNX's own hash takes long",
        "Programs": "Keras has no jit: what its backends compile is kept for each model",
        "KerasModel": "Keras alone has packed inputs, symbolic calls and trees of its own",
    }
    seen: dict[str, set[str]] = {}
    for framework in ("torch", "keras", "flax"):
        for path in (ROOT / "gptzoo" / framework).glob("*.py"):
            if path.name == "_old_names.py":  # which differ as the originals did
                continue
            if path.name.startswith("_tokenizer"):  # TensorFlow alone has strings in its graphs
                continue
            for name in re.findall(r"^class (\w+)", path.read_text(), flags=re.MULTILINE):
                seen.setdefault(f"{path.name}: {name}", set()).add(framework)
    alone = {name: where for name, where in seen.items() if len(where) < 3 and name.split(": ")[1] not in reasons}
    assert not alone
