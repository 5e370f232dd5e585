"""How GPT's texts are prepared, as tables: what the installed `tokenizers` makes of each character."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cmp_to_key
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gptzoo.keras._tokenizer_tables import Ranges, all_text

WORD, BLANK, MARK = range(3)  # kinds of characters: a mark is a word of its own
ABOVE = np.iinfo(np.int32).max  # a key above all code points, which ends a search
BETWEEN = "\u16a0"  # a rune, which nothing changes and nothing else becomes
FIRST, LAST = "\u0334", "\u0345"  # accents of the lowest and of the highest class


class Replacements(NamedTuple):
    """Code points `keys[i]` become `values[splits[i]:splits[i + 1]]`, others stay."""

    keys: np.ndarray
    splits: np.ndarray
    values: np.ndarray


class Preparation(NamedTuple):
    """What becomes of a text, in this order.

    Attributes:
        cleaned: control characters go, white space is a space, ideographs get spaces, letters lose their accents,
            which follow them.
        order: classes of accents, which are sorted by them; 0 is no accent.
        lowered: accents go, letters are lower-case.
        kinds: where words end.
    """

    cleaned: Replacements
    order: Ranges
    lowered: Replacements
    kinds: Ranges


class Symbols(NamedTuple):
    """Ids of single characters, `codes[i]` -> `ids[i]`."""

    codes: np.ndarray
    ids: np.ndarray


@cache
def preparation() -> Preparation:
    """Returns BERT's preparation. It is exact: but for the order of accents, no character depends on its neighbours."""
    from tokenizers.normalizers import NFD, BertNormalizer

    decompose = NFD().normalize_str
    clean = BertNormalizer(strip_accents=False, lowercase=False).normalize_str
    lower = BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True).normalize_str
    cleaned = changes(lambda text: decompose(clean(text)))
    stable = np.setdiff1d(all_text()[1], list(changes(decompose)))
    order = accent_order("".join(map(chr, stable.tolist())), decompose)
    return Preparation(replacements(cleaned), ranges(order, 0), replacements(changes(lower)), ranges(kinds(), WORD))


def normalized(text: str) -> str:
    """Returns a text as it is prepared."""
    from tokenizers.normalizers import BertNormalizer

    prepared: str = BertNormalizer().normalize_str(text)
    return prepared


def changes(change: Callable[[str], str]) -> dict[int, str]:
    """Returns the characters that a function of texts changes, with what it makes of them."""
    text = all_text()[0].replace(BETWEEN, "")
    made = change(BETWEEN.join(text)).split(BETWEEN)
    return {ord(old): new for old, new in zip(text, made, strict=True) if new != old}


def accent_order(stable: str, decompose: Callable[[str], str]) -> dict[int, int]:
    """Returns the classes of those characters that change places, in the order of Unicode's, counted from 1.

    A character has a class if an accent of the first moves before it, or it moves before one of the last.
    """

    def compare(a: str, b: str) -> int:
        return int(decompose(a + b) != a + b) - int(decompose(b + a) != b + a)

    behind = decompose("".join(f"{BETWEEN}{character}{FIRST}" for character in stable))
    ahead = decompose("".join(f"{BETWEEN}{LAST}{character}" for character in stable))
    moved = {FIRST, LAST, *(one for one, there in zip(stable, behind[1::3], strict=True) if one != there)}
    moved |= {one for one, there in zip(stable, ahead[1::3], strict=True) if there != LAST}
    found: dict[int, int] = {}
    for last, this in pairwise(["", *sorted(moved, key=cmp_to_key(compare))]):
        found[ord(this)] = found[ord(last)] + (compare(last, this) != 0) if last else 1
    return found


def kinds() -> dict[int, int]:
    """Returns the characters that end a word, each with its kind."""
    from tokenizers.pre_tokenizers import BertPreTokenizer

    text, codes = all_text()
    found = np.full(2 * len(text), BLANK)
    for _, (start, end) in BertPreTokenizer().pre_tokenize_str("".join(f"a{character}" for character in text)):
        found[start:end] = WORD if end - start > 1 or start % 2 == 0 else MARK
    return dict(zip(codes.tolist(), found[1::2].tolist(), strict=True))


def replacements(changed: Mapping[int, str]) -> Replacements:
    """Returns changed characters as a table."""
    texts = [changed[code] for code in sorted(changed)]
    splits = np.cumsum([0, *map(len, texts), 1])
    return Replacements(
        np.array([*sorted(changed), ABOVE], np.int32),
        splits.astype(np.int32),
        np.array([ord(character) for text in texts for character in text] + [0], np.int32),
    )


def ranges(classes: Mapping[int, int], other: int) -> Ranges:
    """Returns classes of code points as ranges."""
    whole = np.full(0x110000, other, np.int32)
    whole[list(classes)] = list(classes.values())
    starts = np.flatnonzero(np.diff(whole, prepend=-1))
    return Ranges(starts.astype(np.int32), whole[starts])


def symbols(vocab: Mapping[str, int], suffix: str) -> Symbols:
    """Returns the ids of single characters with a suffix."""
    endings = {token.removesuffix(suffix): number for token, number in vocab.items() if token.endswith(suffix)}
    found = sorted((ord(character), number) for character, number in endings.items() if len(character) == 1)
    codes, ids = np.array([*found, (ABOVE, 0)], np.int32).T
    return Symbols(codes, ids)
