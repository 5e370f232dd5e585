"""Tiny vocabularies, forty entries each, in the forms of OpenAI's files."""

from __future__ import annotations


def gpt2_vocabulary() -> tuple[dict[str, int], list[str]]:
    """Forty byte-level entries: the small letters, the space (Ġ), twelve merges and <|endoftext|>."""
    merges = ["Ġ t", "h e", "Ġt he", "i n", "Ġ a", "e r", "o n", "r e", "Ġ s", "a t", "n d", "Ġa nd"]
    tokens = [*"abcdefghijklmnopqrstuvwxyz", "Ġ", *(pair.replace(" ", "") for pair in merges), "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


def gpt_vocabulary() -> tuple[dict[str, int], list[str]]:
    """Forty entries as OpenAI ordered them: <unk>, characters, the same at a word's end, merges, the newline."""
    letters = "acdehinorstu"
    merges = ["t h", "th e</w>", "i n</w>", "a n", "an d</w>", "r e</w>", "o n</w>", "e r</w>", "a t</w>", "o r</w>"]
    merges += ["i s</w>", "h a", "ha t</w>", "s t"]
    ends, words = [f"{letter}</w>" for letter in letters], [pair.replace(" ", "") for pair in merges]
    tokens = ["<unk>", *letters, *ends, *words, "\n</w>"]
    return {token: index for index, token in enumerate(tokens)}, merges
