"""Makes golden.json beside it: the words that Transformers 4's slow tokenizer of GPT finds with ftfy and spaCy.

    pip install transformers==4.57.6 ftfy==6.3.1 spacy==3.8.18
    python make.py tinyshakespeare.txt

Each text has two results: of `tokenize`, which lowers the text first, and of `_tokenize`, which does not. Without
merges a token is a character, so that the words are the tokens joined and split behind `</w>`.
"""

# ruff: noqa: RUF001  (characters that look like others)

from __future__ import annotations

import json
import random
import sys
import tempfile
import unicodedata
from pathlib import Path

import ftfy
import spacy
import transformers

QUIRKS = [
    "",
    " ",
    "\n",
    " \n \n ",
    "\t\x0b\x0c\r",
    "a",
    "\\",
    "</w>",
    "\ufffd",
    "\x00\x01\x7f",
    "x" * 300,
    "ab-" * 80,
    "Mr. Smith lives in the U.S.A. -- he isn't IN: can't, WON'T, I'M, I'm, y'all, o'clock, 'tis.",
    "Dr. Jones, Ph.D., and Mrs. Lee of St. Louis, Mo.",
    "In the U.K., and at Acme Corp. or Gen. Inc.",
    "I'VE, WE'LL, HE'D, She's, They're, Ma'am, Let's, THAT'S, I'm.",
    "10KM at 5PM, 3Kg, 2MB, 7 A.M.",
    "XD :D :P =D O_O :-D",
    "Born in Dec. or Sept. in Calif., N.Y., or D.C.",
    "C++ and C.V. of J.R.R. T., vol. II, No. 5",
    "HTTP://Example.COM/A.B mailto:A.B@C.ORG",
    "Gonna, GOTTA, Cannot, WANNA",
    "end.Begin iPhone McDonald's e.G. A.B",
    "a\nb",
    "a\n\n\nb",
    " a \n\t\n b\r\nc\rd",
    "a\u2028b\u2029c\x85d\xa0e\u3000f\u200bg\ufeffh\x1ci",
    "one\x0btwo\x0cthree",
    "wait... what....no . . . yes…no",
    "a—b–c―d--e---f",
    "´tis “quoted” ‘text’ `here´",
    "!!!???!?!",
    '""\'\'""',
    "~~~***___",
    "a\\b",
    "\\\\n",
    "a \\ b \\\\\\ c+\\+",
    "C:\\path\\to",
    "\\n\\t",
    "1+1=2",
    "a++b",
    "{x}[y](z)<t>|u|/v/",
    "Ã©tÃ© cafÃ© â€œquoteâ€\x9d",
    "&amp; &lt;b&gt; &eacute;",
    "<b>&amp;</b>",
    "\ufb01ne \ufb02ow",
    "\uff46\uff55\uff4c\uff4c \uff57\uff49\uff44\uff54\uff48",
    "Héllo naïve Ångström ΟΔΟΣ ΣΑΣ İstanbul STRASSE ẞ ŉ",
    "中文字符 日本語テキスト 한국어",
    "e\u0301 a\u0308\u0323 \u0301",
    "\U0001f600\U0001f44d\U0001f3fd\U0001f469\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "10km 5PM 5pm 3.14 1,000.00 $5 £10 50% #tag @user 1st 2nd 10-20",
    ":) :D xD :-( <3 ^_^ O.O",
    "Jan. 5, e.g. i.e. vs. etc. a.m. P.M.",
    "see http://www.example.com/a_b?c=d&e=f or mail a.b@example.com.",
    "state-of-the-art well-known x--y",
    "don’t can’t it’s",
    "\x1b[31mred\x1b[0m",
    "a\u200eb\u202ec",
    "=====",
    "'''''",
    "$$$$",
    "%%%",
    "....",
    "-" * 40,
    "a.b.c.d",
    "A.B.C.",
]


def assigned(rng: random.Random) -> str:
    """A character of the first planes that has been in Unicode for long."""
    while True:
        character = chr(rng.choice((rng.randrange(0x250), rng.randrange(0x3100), rng.randrange(0x20000))))
        if unicodedata.ucd_3_2_0.category(character) not in ("Cn", "Cs", "Co"):
            return character


def texts(corpus: str) -> list[str]:
    rng = random.Random(1)
    strange = ["".join(assigned(rng) for _ in range(rng.randrange(1, 30))) for _ in range(110)]
    marks = ["".join(rng.choices("aB .,-'\"\\\n!?:;()…—é\t1", k=rng.randrange(2, 40))) for _ in range(70)]
    return QUIRKS + strange + marks + rng.sample(corpus.split("\n\n"), 30)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        vocab, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocab.write_text('{"<unk>": 0}')
        merges.write_text("#version: 0.2\n")
        tokenizer = transformers.OpenAIGPTTokenizer(str(vocab), str(merges))
    assert tokenizer.fix_text is not None, "ftfy and spaCy are not installed"

    rows = []
    for text in texts(Path(sys.argv[1]).read_text()):
        tokens = {"lowered": tokenizer.tokenize(text), "kept": tokenizer._tokenize(text)}
        rows.append({"text": text} | {name: "".join(found).split("</w>")[:-1] for name, found in tokens.items()})
    made_with = {module.__name__: module.__version__ for module in (transformers, ftfy, spacy)}
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    golden = f'{{"made_with": {json.dumps(made_with)},\n"rows": [\n{lines}\n]}}\n'
    Path(__file__).with_name("golden.json").write_text(golden)


if __name__ == "__main__":
    main()
