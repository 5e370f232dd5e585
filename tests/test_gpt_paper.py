r"""GPT's texts as the paper prepared them: against OpenAI's algorithm written anew, and Transformers 4's results.

Mutations that these tests have caught: a backslash padded or not against the option, the text lowered before spaCy sees
it, no ftfy, a dash or quote not replaced, `str.lower` of the whole text (a final sigma), "\n " left as a word.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptzoo import InputError, OpenAIGPTTokenizer
from gptzoo.tokenization import _preparation
from gptzoo.tokenization._preparation import standardize, words
from tests.openai_gpt import TextEncoder

GOLDEN = Path(__file__).parent / "golden_gpt_paper" / "golden.json"
DATA = Path(__file__).parents[2] / "shared" / "data"
REAL = DATA / "openai-gpt"
VOCABULARY = REAL if REAL.is_dir() else Path(__file__).parent / "golden_tokenizers" / "gpt1-slow-plain"
CORPORA = ("tinyshakespeare.txt", "wikitext2-valid.txt", "wikitext2-test.txt")
NEWLINE = 40477  # the last id of GPT's vocabulary: "\n</w>"

OPENAI: dict[str, Any] = {}
TRANSFORMERS: dict[str, Any] = {"pad_backslashes": True, "lower_first": True}
WAYS = pytest.mark.parametrize("way", [OPENAI, TRANSFORMERS], ids=["openai", "transformers"])

TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from("aB .,-'\"\\\n\r\t!?:;()[]…—–´é1İΣ\u2028\x85\xa0\x1c$#@&<>=/_~+"), max_size=60),  # noqa: RUF001
)


def golden() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(GOLDEN.read_text())["rows"]
    return rows


@cache
def encoder(transformers: bool = False) -> TextEncoder:
    """The witness, with GPT's vocabulary where it is at hand, else a small one."""
    lines = (VOCABULARY / "merges.txt").read_text().split("\n")[1:-1]
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines)]
    return TextEncoder(json.loads((VOCABULARY / "vocab.json").read_text()), merges, transformers)


def paragraphs(name: str) -> Iterator[str]:
    path = DATA / "text" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    text = path.read_text()
    yield from text.split("\n\n" if "shakespeare" in name else "\n")[::15]
    yield text[:20_000]


# ------------------------------------------------------------------------------------------------------------ witnesses


def test_words_are_those_of_transformers_4() -> None:
    for row in golden():
        assert words(row["text"], **TRANSFORMERS) == row["lowered"], row["text"]
        assert words(row["text"], pad_backslashes=True) == row["kept"], row["text"]
        if "\\" not in row["text"]:
            assert words(row["text"]) == row["kept"], row["text"]


def test_golden_texts_tell_the_ways_apart() -> None:
    rows = golden()
    assert len(rows) > 200
    assert sum(row["lowered"] != row["kept"] for row in rows) > 12
    assert sum(row["kept"] != words(row["text"]) for row in rows) > 20


@WAYS
@pytest.mark.parametrize("corpus", CORPORA)
def test_words_of_corpora_are_the_witness_s(corpus: str, way: dict[str, Any]) -> None:
    for text in paragraphs(corpus):
        assert words(text, **way) == encoder(bool(way)).words(text), text


@WAYS
@given(text=TEXTS)
@example(text="\ud83d\ude00 &#128512; a\u0300\u0301 \ufffd \ufdfa")
@settings(deadline=None, max_examples=300)
def test_words_of_any_text_are_the_witness_s(text: str, way: dict[str, Any]) -> None:
    assert words(text, **way) == encoder(bool(way)).words(text)


@given(text=TEXTS)
@settings(deadline=None, max_examples=300)
def test_no_word_is_empty_or_holds_white_space(text: str) -> None:
    for word in words(text):
        assert word == "\n" or (word and not any(map(str.isspace, word)))


# --------------------------------------------------------------------------------------------------------------- quirks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [], id="empty"),
        pytest.param(" \t\n\r\n \u2028\u3000", [], id="white space only"),
        pytest.param("A\n \n\tB", ["a", "\n", "b"], id="line breaks are one"),
        pytest.param("a\u2028b\x85c\xa0d", ["a", "\n", "b", "...", "c", "d"], id="x85 is cp1252's ellipsis to ftfy"),
        pytest.param("so… well...", ["so", "...", "well", "..."], id="ellipses"),
        pytest.param("a—b–c―d--e", ["a", "-", "b", "-", "c", "-", "d", "--", "e"], id="dashes"),  # noqa: RUF001
        pytest.param("´tis “it”", ["'", "tis", '"', "it", '"'], id="quotes"),  # noqa: RUF001
        pytest.param(
            "what?!?? (no)++", ["what", "?", "!", "?", "?", "(", "no", ")", "+", "+"], id="runs of punctuation"
        ),
        pytest.param("a\\b \\\\", ["a\\b", "\\\\"], id="backslashes"),
        pytest.param("Mr. Smith of the U.S.", ["mr.", "smith", "of", "the", "u.s."], id="abbreviations"),
        pytest.param("can't", ["ca", "n't"], id="contractions"),
        pytest.param("Héllo e\u0301", ["héllo", "é"], id="accents survive, composed"),
        pytest.param("cafÃ© &amp; ﬁn", ["café", "&", "fin"], id="ftfy mends"),
        pytest.param("中文 字", ["中文", "字"], id="ideographs are not split"),
        pytest.param("a\x00b\x07c\x1b[31md", ["abcd"], id="control characters"),
        pytest.param("x\ufffdy", ["x", "\ufffd", "y"], id="replacement character"),
        pytest.param("ab" * 50_000, ["ab" * 50_000], id="very long word"),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_transformers_lowers_first_and_pads_backslashes() -> None:
    assert words("Mr. A\\\\b", **TRANSFORMERS) == ["mr", ".", "a", "\\\\", "b"]
    assert words("ΟΔΟΣ", **TRANSFORMERS) == ["οδοσ"]  # character by character
    assert words("ΟΔΟΣ") == ["οδος"]


def test_white_space_takes_linear_time() -> None:
    r"""The original `\s*\n\s*` goes over a run once for each of its characters: hours here."""
    assert standardize("a" + " " * 1_000_000 + "b") == "a b"


def test_words_stay_the_same_when_spacy_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Mr. Smith's book isn't here: " + " ".join(f"{n}th" for n in range(500))
    expected = words(text)
    monkeypatch.setattr(_preparation, "MAX_STRINGS", 0)
    before = _preparation.require()._nlp
    assert words(text) == expected
    assert _preparation.require()._nlp is not before
    assert words(text) == expected


# -------------------------------------------------------------------------------------------------------- the tokenizer

TOKENIZERS = pytest.mark.parametrize("preparation", ["paper", "transformers"])


@cache
def tokenizer(preparation: str) -> OpenAIGPTTokenizer:
    """Ours, with the vocabulary of the witness."""
    return OpenAIGPTTokenizer(VOCABULARY / "vocab.json", VOCABULARY / "merges.txt", preparation=preparation)


@TOKENIZERS
def test_ids_are_the_witness_s(preparation: str) -> None:
    ours, witness = tokenizer(preparation), encoder(preparation == "transformers")
    for text in (row["text"] for row in golden()):
        assert ours.encode(text) == witness.encode(text), text


@TOKENIZERS
@given(text=TEXTS.filter(lambda text: "<unk>" not in text))
@settings(deadline=None, max_examples=200)
def test_ids_of_any_text_are_the_witness_s(text: str, preparation: str) -> None:
    assert tokenizer(preparation).encode(text) == encoder(preparation == "transformers").encode(text)


@pytest.mark.skipif(VOCABULARY != REAL, reason=f"{REAL} is not there")
def test_a_line_break_is_the_last_id() -> None:
    assert tokenizer("paper").encode("a\n \n\tb")[1:-1] == [NEWLINE]
    assert encoder().bpe("\n") == encoder().bpe("\n ") == ["\n</w>"]


@TOKENIZERS
def test_a_lone_surrogate_is_refused_before_ftfy_replaces_it(preparation: str) -> None:
    with pytest.raises(InputError, match=r"lone surrogate"):
        tokenizer(preparation)("a \ud800 b")
    with pytest.raises(InputError, match=r"lone surrogate"):
        tokenizer(preparation)(["fine", "\ud83d\ude00"])


def test_the_paper_s_is_the_default_where_it_is_installed(caplog: pytest.LogCaptureFixture) -> None:
    _preparation.announce.cache_clear()
    made = [OpenAIGPTTokenizer(VOCABULARY / "vocab.json", VOCABULARY / "merges.txt") for _ in range(2)]
    assert [each.preparation for each in made] == ["paper", "paper"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "as the GPT paper did" in caplog.text


# ------------------------------------------------------------------------------------------------- what is installed


def run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter, with folders before all others on its path."""
    code = f"import sys\nsys.path[:0] = {[str(folder) for folder in path]!r}\n{code}"
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


NEEDS = 'OpenAIGPTTokenizer(preparation="paper" or "transformers") needs ftfy and spaCy'
ASK = (
    "from gptzoo import MissingExtraError\n"
    "from gptzoo.tokenization._preparation import available, require, words\n"
    "print(available())\n"
    "for call in (require, lambda: words('a')):\n"
    "    try:\n        call()\n        print('fine')\n"
    "    except MissingExtraError as problem:\n        print(problem)\n"
)


@pytest.mark.parametrize("absent", ["ftfy", "spacy"])
def test_a_missing_library_is_one_line_that_names_the_extra(absent: str) -> None:
    result = run(f"sys.modules[{absent!r}] = None\n{ASK}")
    line = f"{NEEDS}: pip install 'gptzoo[gpt1-paper]'"
    assert result.stdout.splitlines() == ["False", line, line], result.stderr


@pytest.mark.parametrize(
    "fault",
    [
        "raise ImportError('libblis.so: cannot open shared object file')",
        "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')",
        "import no_such_module",
    ],
    ids=["shared object", "numpy", "its own dependency"],
)
def test_a_broken_library_is_told_from_a_missing_one(fault: str, tmp_path: Path) -> None:
    (tmp_path / "spacy").mkdir()
    (tmp_path / "spacy" / "__init__.py").write_text(fault)
    lines = run(ASK, tmp_path).stdout.splitlines()
    assert lines[0] == "True"
    assert len(lines) == 3
    assert lines[1].startswith(f"{NEEDS}, which are installed but cannot be imported (")
    assert any(word in lines[1] for word in ("libblis", "numpy.dtype", "no_such_module"))
    assert "pip install" not in lines[1]


def test_libraries_are_imported_when_asked_for_and_need_no_network() -> None:
    result = run(
        "import socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from gptzoo.tokenization._preparation import available, words\n"
        "print(available(), 'spacy' in sys.modules, 'ftfy' in sys.modules)\n"
        "print(words('Hello, World!'))"
    )
    assert result.stdout.splitlines() == ["True False False", "['hello', ',', 'world', '!']"], result.stderr
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("preparation", "says"),
    [("paper", "as the GPT paper did"), ("bert", "as BERT did; pip install 'gptzoo[gpt1-paper]'")],
)
def test_the_preparation_in_use_is_announced_once_on_standard_error(preparation: str, says: str) -> None:
    result = run(
        "from gptzoo.tokenization._preparation import announce\n"
        f"announce({preparation!r})\nannounce({preparation!r})\nprint('spacy' in sys.modules)"
    )
    assert len(result.stderr.splitlines()) == 1
    assert says in result.stderr
    assert result.stdout == "False\n"
