"""Bounds on what a file may claim, so that no number in a file is believed before it is checked."""

from __future__ import annotations

MAX_JSON_BYTES = 64 * 2**20
MAX_CONFIG_BYTES = 2**20
MAX_JSON_DEPTH = 64
MAX_HEADER_BYTES = 16 * 2**20  # safetensors; GPT-2 XL needs 70 kB
MAX_TENSORS = 100_000
MAX_NAME_BYTES = 1024
MAX_RANK = 8

MAX_ZIP_MEMBERS = 100_000
MAX_ZIP_RATIO = 100  # deflated: bytes inside to bytes in the file

MAX_PICKLE_BYTES = 16 * 2**20
MAX_PICKLE_DEPTH = 1000  # of its stack
MAX_PICKLE_NESTING = 64  # of values
MAX_PICKLE_MEMO = 1_000_000
MAX_PICKLE_OPCODES = 1_000_000  # a tensor takes about 25
MAX_PICKLE_VALUES = 250_000  # in all, those that stand in several places counted in each

MAX_HDF5_DEPTH = 32
MAX_HDF5_OBJECTS = 100_000
MAX_HDF5_BYTES = 64 * 2**20  # beside the tensors

MAX_MSGPACK_DEPTH = 32
MAX_MSGPACK_OBJECTS = 1_000_000

MAX_NPY_HEADER_BYTES = 10_000
MAX_NPY_FILES = 1000

MAX_TF_INDEX_BYTES = 64 * 2**20
MAX_TF_SHARDS = 1000
MAX_TF_STATE_BYTES = 2**16

MAX_GGUF_VALUES = 1_000_000  # keys, and elements of arrays, together
MAX_GGUF_TEXT_BYTES = 64 * 2**20
MAX_GGUF_RANK = 4
GGUF_ALIGNMENTS = tuple(2**n for n in range(3, 17))

MAX_LAYERS = 1024
MAX_HEADS = 1024
MAX_EMBED = 131_072
MAX_INNER = 2**24
MAX_POSITIONS = 2**24
MAX_VOCAB = 2**24
MAX_LABELS = 2**20
