"""How the GPT paper prepared texts: ftfy repairs them, and spaCy splits them into the words to which BPE is applied.

Source: text_utils.py of openai/finetune-transformer-lm, the code of Radford et al. 2018.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from importlib.util import find_spec

from gptzoo._settings import short
from gptzoo.errors import MissingExtraError

MAX_STRINGS = 200_000  # that spaCy may keep: some 60 MB

_NEEDS = 'OpenAIGPTTokenizer(preparation="paper" or "transformers") needs ftfy and spaCy'
_PLAIN = str.maketrans(
    {
        "\N{EM DASH}": "-",
        "\N{EN DASH}": "-",
        "\N{HORIZONTAL BAR}": "-",
        "\N{HORIZONTAL ELLIPSIS}": "...",
        "\N{ACUTE ACCENT}": "'",
    }
)
_PADDED = '-~!";?+,)(/*[]}{|_'  # a run of one of these becomes a word of its own
_RUNS = re.compile(rf"([{re.escape(_PADDED)}])\1*")
_RUNS_AND_BACKSLASHES = re.compile(rf"([{re.escape(_PADDED)}\\])\1*")


def available() -> bool:
    """Whether ftfy and spaCy are installed; neither is imported."""
    return all(find_spec(library) for library in ("ftfy", "spacy"))


@cache
def require() -> Libraries:
    """Imports ftfy and spaCy, and returns what is needed of them.

    Raises:
        MissingExtraError: one of them is not installed, or is installed but cannot be imported.
    """
    if not available():
        raise MissingExtraError(f"{_NEEDS}: pip install 'gptzoo[gpt1-paper]'")
    try:
        return Libraries()
    except Exception as problem:  # a compiled module that does not fit NumPy raises ValueError, for one
        raise MissingExtraError(
            f"{_NEEDS}, which are installed but cannot be imported ({type(problem).__name__}: {short(str(problem))}): "
            'install them anew, or choose preparation="bert"'
        ) from problem


@cache  # once a process
def announce(preparation: str) -> None:
    """Says in one line which preparation is in use: on standard error, unless logging is set up otherwise."""
    how = {
        "paper": 'as the GPT paper did, with ftfy and spaCy; preparation="bert" is the way without them',
        "bert": "as BERT did; pip install 'gptzoo[gpt1-paper]' for the GPT paper's way, with ftfy and spaCy",
    }
    logging.getLogger("gptzoo").warning("OpenAIGPTTokenizer prepares texts %s", how[preparation])


def words(text: str, pad_backslashes: bool = False, lower_first: bool = False) -> list[str]:
    r"""Returns the words of a text in lower case, without `</w>`; a line break is the word "\n".

    Args:
        text: without lone surrogates, of which ftfy would make U+FFFD.
        pad_backslashes: whether a run of backslashes is a word of its own, as in Transformers. OpenAI's pattern names
            the backslash too, but not in a raw string, where it stands for a second plus sign.
        lower_first: whether ftfy and spaCy see lower case only, as in Transformers before 5: "Mr." is then two words.

    Raises:
        MissingExtraError: see `require`.
    """
    libraries = require()
    if lower_first:
        text = "".join(map(str.lower, text))  # one by one: no final sigma
    found = libraries.split(standardize(libraries.fix_text(text), pad_backslashes))
    # spaCy's only word with white space is "\n ": OpenAI's code makes of its BPE that of "\n".
    return ["\n" if word == "\n " else word.lower() for word in found]


def standardize(text: str, pad_backslashes: bool = False) -> str:
    """Returns a text with plain dashes, spaces around punctuation, and one space or line break between words."""
    runs = _RUNS_AND_BACKSLASHES if pad_backslashes else _RUNS
    text = runs.sub(r" \g<0> ", text.translate(_PLAIN))
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return " \n ".join(line for line in lines if line)


class Libraries:
    """ftfy and spaCy, imported when a text first needs them."""

    def __init__(self) -> None:
        import ftfy
        from spacy.lang.en import English

        self.fix_text = ftfy.fix_text
        self._english = English
        self._nlp = English()

    def split(self, text: str) -> list[str]:
        nlp = self._nlp
        found = [token.text for token in nlp.tokenizer(text)]
        if len(nlp.vocab.strings) > MAX_STRINGS:  # it keeps every string that it sees; a new one knows none
            self._nlp = self._english()
        return found
