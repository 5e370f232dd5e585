"""Tokenizer files: read strictly, since they are copied to where other software believes them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptzoo import limits
from gptzoo._files import naming, open_regular, stand_in
from gptzoo._json import parse_json
from gptzoo._tensors import shown
from gptzoo.errors import CheckpointError

VOCAB, MERGES, TOKENIZER = "vocab.json", "merges.txt", "tokenizer.json"
CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
GENERATION_FILE = "generation_config.json"  # the model's, but copied like the others
SETTINGS = (CONFIG, SPECIAL, ADDED, GENERATION_FILE)
HEADER = "#version: 0.2"  # the first line of merges.txt
END_OF_TEXT = "<|endoftext|>"  # GPT-2's only special token
END_OF_WORD = "</w>"  # what GPT's tokens end in

# What the first two files are called by others.
OPENAI_GPT2 = {VOCAB: "encoder.json", MERGES: "vocab.bpe"}
OPENAI_GPT = {VOCAB: "encoder_bpe_40000.json", MERGES: "vocab_40000.bpe"}
KERASHUB = {VOCAB: "assets/tokenizer/vocabulary.json", MERGES: "assets/tokenizer/merges.txt"}

FILES = (VOCAB, MERGES, TOKENIZER, *SETTINGS)

# Regular expressions of GPT-2's tokenizer, and of those of BERT's kind; another one may never come to an end.
KNOWN_PATTERNS = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    }
)


def read_vocabulary(
    directory: Path, wanted: Sequence[str], names: Mapping[str, str], within: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Reads the tokenizer files of a checkpoint, each found right.

    Args:
        wanted: files to look for, by their usual names.
        names: usual names -> what they are called here.
        within: files that the checkpoint holds itself, by their usual names.

    Returns:
        Usual name -> content.

    Raises:
        CheckpointError: lists every wrong entry.
    """
    files = {}
    for usual in wanted:
        for name in dict.fromkeys((names.get(usual, usual), usual)):
            path = directory / name
            if usual not in files and os.path.lexists(path):
                files[usual] = read_file(path)
    files |= within
    problems = [
        problem for name, content in files.items() for problem in file_faults(names.get(name, name), name, content)
    ]
    if not problems and VOCAB in files and MERGES in files:
        problems = merge_faults(names.get(MERGES, MERGES), files[MERGES], json.loads(files[VOCAB]))
    if problems:
        raise CheckpointError.listing(str(directory), problems)
    return files


def bpe_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Returns vocab.json and merges.txt: as they are, or as tokenizer.json has them; nothing without either."""
    if {VOCAB, MERGES} <= files.keys():
        return {name: files[name] for name in (VOCAB, MERGES)}
    model = json.loads(files.get(TOKENIZER, b"{}")).get("model", {})
    if "vocab" not in model or "merges" not in model:
        return {}
    return {VOCAB: json.dumps(model["vocab"], ensure_ascii=False).encode(), MERGES: merge_text(model["merges"])}


def all_ids(files: Mapping[str, bytes]) -> dict[str, int]:
    """Returns the id of every token: of the vocabulary, and of those that were added to it."""
    ids: dict[str, int] = json.loads(bpe_files(files).get(VOCAB, b"{}"))
    added = json.loads(files.get(ADDED, b"{}"))
    for token in json.loads(files.get(TOKENIZER, b"{}")).get("added_tokens") or ():
        added[token["content"]] = token["id"]
    return ids | {token: number for token, number in added.items() if token not in ids}


def end_of_text_id(vocab: bytes) -> int | None:
    """Returns the id of GPT-2's special token in a vocab.json that may be faulty; None if it has none."""
    try:
        number = parse_json(vocab.decode()).get(END_OF_TEXT)
    except (ValueError, AttributeError):  # found again, and told, where it is read
        return None
    return number if type(number) is int else None


def read_file(path: Path) -> bytes:
    with naming(path), open_regular(path) as file:
        content = file.read(limits.MAX_JSON_BYTES + 1)
    if len(content) > limits.MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: more than {limits.MAX_JSON_BYTES} bytes")
    return content


def file_faults(label: str, name: str, content: bytes) -> list[str]:
    """Lists what is wrong with one file, taken by itself."""
    try:
        text = content.decode()
    except UnicodeDecodeError as problem:
        return [f"{label}: not UTF-8 text ({problem.reason} at byte {problem.start})"]
    if name == MERGES:
        diagnosis = stand_in(content[:64], "a list of merges")
        return [f"{label}: {diagnosis}"] if diagnosis else []
    try:
        value = parse_json(text)
    except ValueError as problem:
        return [f"{label}: {shown(str(problem), 200)}"]
    if not isinstance(value, dict):
        return [f"{label}: holds a JSON {type(value).__name__}, expected an object"]
    if name in (VOCAB, ADDED):
        empty = ["an empty token"] if name == ADDED and "" in value else []
        return [f"{label}: {problem}" for problem in [*empty, *id_faults(value)]]
    if name == TOKENIZER:
        return [f"{label}: {problem}" for problem in _tokenizer_faults(value)]
    return [f"{label}: {problem}" for problem in _setting_faults(value)]


def is_text(value: Any) -> bool:
    """Whether a value is a text that can be UTF-8; one with a lone surrogate cannot."""
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def id_faults(ids: Mapping[Any, Any]) -> list[str]:
    """Lists tokens that are no texts, and ids that are no integers, out of bounds, or given twice."""
    problems, seen = [], dict[int, str]()
    for token, number in ids.items():
        if not is_text(token):
            problems.append(f"token {shown(token)}, expected a text in UTF-8")
        elif type(number) is not int or not 0 <= number < limits.MAX_VOCAB:
            problems.append(f"{shown(token)}: id {shown(number)}, expected an integer from 0 below {limits.MAX_VOCAB}")
        elif number in seen:
            problems.append(f"{shown(token)}: id {number}, which {shown(seen[number])} has too")
        else:
            seen[number] = token
    return problems[:20]


def _tokenizer_faults(value: dict[str, Any]) -> list[str]:
    model = value.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        return ["model.type: expected BPE"]
    vocab = model.get("vocab")
    if not isinstance(vocab, dict):
        return ["model.vocab: expected an object"]
    problems = [f"model.vocab: {problem}" for problem in id_faults(vocab)]
    added = value.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        return [*problems, "added_tokens: expected a list of objects"]
    for token in added:
        number = token.get("id")
        if not token.get("content") or not is_text(token["content"]):
            problems.append(f"added_tokens: content {shown(token.get('content'))}, expected a text")
        if type(number) is not int or not 0 <= number < limits.MAX_VOCAB:
            problems.append(f"added_tokens: id {shown(number)}, expected an integer from 0 below {limits.MAX_VOCAB}")
    problems += [f"model.merges: {problem}" for problem in _tokenizer_merge_faults(model, vocab)]
    unknown = [pattern for pattern in _patterns(value) if pattern not in KNOWN_PATTERNS]
    return problems + [f"a regular expression that GPT-2 does not have: {shown(pattern)}" for pattern in unknown]


def _tokenizer_merge_faults(model: Mapping[str, Any], ids: Mapping[str, int]) -> list[str]:
    """Lists the wrong merges of a model, each of which is a text or a list of two."""
    merges, prefix = model.get("merges"), model.get("continuing_subword_prefix") or ""
    if not isinstance(merges, list) or not isinstance(prefix, str):
        return [f"{shown(merges)}, expected a list"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    faults = ((number, _pair_fault(pair, ids, prefix)) for number, pair in enumerate(pairs))
    return [f"{number}: {fault}" for number, fault in faults if fault][:20]


def _patterns(value: Any) -> list[str]:
    """Returns every regular expression in a tokenizer.json; its nesting is bounded."""
    if isinstance(value, list):
        return [pattern for item in value for pattern in _patterns(item)]
    if not isinstance(value, dict):
        return []
    own = [str(value["Regex"])] if "Regex" in value else []
    return own + [pattern for key, item in value.items() if key != "vocab" for pattern in _patterns(item)]


def _setting_faults(value: dict[str, Any]) -> list[str]:
    problems = ["auto_map: names code to be run; refused"] if value.get("auto_map") else []
    for key in ("vocab_file", "merges_file", "tokenizer_file"):
        name = value.get(key)
        if isinstance(name, str) and ("/" in name or "\\" in name or ".." in name):
            problems.append(f"{key}: {shown(name)} is not a plain file name")
    return problems


def merge_faults(label: str, content: bytes, ids: Mapping[str, int]) -> list[str]:
    problems = []
    for number, line in enumerate(content.decode().split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        if fault := _pair_fault(line.rstrip("\r").split(" "), ids):
            problems.append(f"{label}: line {number}: {fault}")
    return problems[:20]


def _pair_fault(pair: Any, ids: Mapping[str, int], prefix: str = "") -> str | None:
    """Says why two tokens cannot be merged; `prefix` begins those that continue a word, and goes as they are merged."""
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(token, str) and token for token in pair):
        return f"{shown(pair)}, expected two tokens"
    first, second = pair
    merged = first + second.removeprefix(prefix)
    if first in ids and second in ids and merged in ids:
        return None
    unknown = next(token for token in (first, second, merged) if token not in ids)
    return f"{shown(unknown)} is not in the vocabulary"


def merge_text(merges: Iterable[Any]) -> bytes:
    """Returns the content of merges.txt; a merge is a pair, or a text with a space in it."""
    lines = [HEADER, *(pair if isinstance(pair, str) else " ".join(map(str, pair)) for pair in merges), ""]
    return "\n".join(lines).encode(errors="surrogatepass")


def merge_pairs(text: str) -> list[tuple[str, str]]:
    """Returns the merges of a merges.txt that `merge_faults` found right; its last line may lack its end."""
    lines = text.split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    pairs = (line.rstrip("\r").split(" ") for line in lines[first:] if line.strip())
    return [(pair[0], pair[1]) for pair in pairs]
