"""Makes the tokenizer folders beside it with Transformers 4.57.6, and golden.json: what that encoded and decoded.

    python make.py --bundled ../../gptzoo/_bundled/shakespeare --text tinyshakespeare.txt

Needs transformers==4.57.6 without ftfy and spaCy, so that its slow GPT-1 tokenizer splits as the fast one does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

from transformers import (
    AddedToken,
    GPT2Tokenizer,
    GPT2TokenizerFast,
    OpenAIGPTTokenizer,
    OpenAIGPTTokenizerFast,
    PreTrainedTokenizerBase,
    __version__,
)

GOLDEN = Path(__file__).parent
MERGES = 150  # few, so that the files are small
CLASSES = {"gpt2": (GPT2Tokenizer, GPT2TokenizerFast), "gpt1": (OpenAIGPTTokenizer, OpenAIGPTTokenizerFast)}
VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": tuple(CLASSES),
    "added": tuple(CLASSES),
    "bos": ("gpt2",),
    "prefix": ("gpt2",),
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "bos": {"add_bos_token": True, "pad_token": "<|endoftext|>", "model_max_length": 32},
    "prefix": {"add_prefix_space": True},
    "added": {"padding_side": "left", "truncation_side": "left"},
}
TEXTS = [
    "",
    " ",
    "Now is the winter of our discontent",
    "  two  spaces,\ttabs\n\nand lines \r\n ",
    "I'll say: they're HERE'S 1234 naïve ﬁ 東京 🙂👩‍👩‍👧 e\u0301 \u00a0\u3000!",
    "a <|endoftext|>b<|endoftext|> c",
    "x <unk>y <unk> z",
    "some <new> thing<new>else abab <s1> <pad> THINE thine",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundled", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True, help="from whose start the GPT-1 vocabulary is made")
    args = parser.parse_args()
    assert __version__ == "4.57.6", __version__
    golden = {}
    with tempfile.TemporaryDirectory() as name:
        write_gpt2(args.bundled, Path(name, "gpt2"))
        write_gpt1(args.text.read_text(encoding="utf-8")[:100_000], Path(name, "gpt1"))
        for variant, families in VARIANTS.items():
            for family in families:
                for kind, cls in zip(("slow", "fast"), CLASSES[family], strict=True):
                    tokenizer = build(cls, Path(name, family), variant)
                    place = GOLDEN / f"{family}-{kind}-{variant}"
                    shutil.rmtree(place, ignore_errors=True)
                    tokenizer.save_pretrained(place)
                    golden[place.name] = describe(tokenizer)
    (GOLDEN / "golden.json").write_text(json.dumps({"texts": TEXTS, "tokenizers": golden}, indent=1) + "\n")


def build(cls: type, folder: Path, variant: str) -> PreTrainedTokenizerBase:
    tokenizer = cls(folder / "vocab.json", folder / "merges.txt", **ARGUMENTS.get(variant, {}))
    if variant == "added":
        tokenizer.add_tokens(["abab", AddedToken("<new>", lstrip=True), AddedToken("thine", single_word=True)])
        tokenizer.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": ["<s1>"]})
    return tokenizer


def write_gpt2(bundled: Path, folder: Path) -> None:
    """The first merges of the bundled vocabulary; <|endoftext|> comes after them, as in OpenAI's."""
    ids = json.loads((bundled / "vocab.json").read_text(encoding="utf-8"))
    merges = (bundled / "merges.txt").read_text(encoding="utf-8").splitlines()[1 : MERGES + 1]
    tokens = sorted(ids, key=ids.__getitem__)[: 256 + len(merges)]
    write(folder, [*tokens, "<|endoftext|>"], merges)


def write_gpt1(text: str, folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    write(folder, tokens, [" ".join(pair) for pair in model["merges"]])


def write(folder: Path, tokens: list[str], merges: list[str]) -> None:
    folder.mkdir()
    ids = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def describe(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    return {
        "len": len(tokenizer),
        "ids": ids,
        "tokens": [tokenizer.tokenize(text) for text in TEXTS],
        "decoded": [tokenizer.decode(found, clean_up_tokenization_spaces=False) for found in ids],
        "skipped": [
            tokenizer.decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False) for found in ids
        ],
        "special": {
            key: [str(token), tokenizer.convert_tokens_to_ids(str(token))]
            for key, token in tokenizer.special_tokens_map.items()
            if isinstance(token, str)
        },
        "sides": [tokenizer.padding_side, tokenizer.truncation_side],
        "model_max_length": min(tokenizer.model_max_length, 10**30),
    }


if __name__ == "__main__":
    main()
