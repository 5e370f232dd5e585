"""Bounds on what a file may claim, so that no number in a file is believed before it is checked."""

from __future__ import annotations

MAX_JSON_BYTES = 64 * 2**20
MAX_CONFIG_BYTES = 2**20
MAX_JSON_DEPTH = 64
MAX_HEADER_BYTES = 16 * 2**20  # safetensors; GPT-2 XL needs 70 kB
MAX_TENSORS = 100_000
MAX_NAME_BYTES = 1024
MAX_RANK = 8

MAX_LAYERS = 1024
MAX_HEADS = 1024
MAX_EMBED = 131_072
MAX_INNER = 2**24
MAX_POSITIONS = 2**24
MAX_VOCAB = 2**24
MAX_LABELS = 2**20
