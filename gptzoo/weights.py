"""THE weight table: every weight of every head of both families, once.

The canonical name and shape are those of Hugging Face's PyTorch state dict, and the three twins hold their parameters
under these dotted names in these shapes. Shapes, initial values, loading, saving, docs and tests are loops over this
table. A layout of another software is a further column.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gptzoo.config import GPTConfig
from gptzoo.errors import InputError

if TYPE_CHECKING:
    import numpy as np

PREFIX = "transformer."  # of backbone weights in every head but the bare model


@dataclass(frozen=True)
class Weight:
    """One row of the table.

    Attributes:
        name: canonical name; "{i}" stands for the number of the block.
        shape: symbolic dimensions, which are config attributes, methods of the number of the block, or numbers.
        axes: logical name of each axis.
        init: a key of `CONSTANTS`, or the config attribute that holds the standard deviation of a normal distribution.
        family: `model_type` that has this weight; None: both.
        heads: heads that have this weight; None: it belongs to the backbone, which all have.
        when: config attribute that must be true; None: always there.
        tied: weight that this one is identical to when `config.tie_word_embeddings`.
    """

    name: str
    shape: str
    axes: str
    init: str
    family: str | None = None
    heads: tuple[str, ...] | None = None
    when: str | None = None
    tied: str | None = None


GPT, GPT2 = "openai-gpt", "gpt2"
LM = ("LMHeadModel", "DoubleHeadsModel")
CHOICE, SEQUENCE = ("DoubleHeadsModel",), ("ForSequenceClassification",)
TOKEN, SPAN = ("ForTokenClassification",), ("ForQuestionAnswering",)
NORMAL, RESIDUAL = "initializer_range", "residual_initializer_range"
CROSS = "add_cross_attention"

# Initial values that are not random: PyTorch's for prelu, and those of Huang and Schlag (2024) for xielu, whose slopes are
# the softplus of these.
CONSTANTS = {
    "zeros": 0.0,
    "ones": 1.0,
    "prelu": 0.25,
    "xielu_p": math.log(math.expm1(0.8)),
    "xielu_n": math.log(math.expm1(0.3)),
}

# fmt: off
TABLE = (
    #      canonical name                         shape                axes           init      who has it
    Weight("wte.weight",                          "vocab_size n_embd", "vocab embed", NORMAL,   GPT2),
    Weight("wpe.weight",                          "n_positions n_embd", "position embed", NORMAL, GPT2),
    Weight("tokens_embed.weight",                 "vocab_size n_embd", "vocab embed", NORMAL,   GPT),
    Weight("positions_embed.weight",              "n_positions n_embd", "position embed", NORMAL, GPT),
    Weight("h.{i}.ln_1.weight",                   "n_embd",            "embed",       "ones"),
    Weight("h.{i}.ln_1.bias",                     "n_embd",            "embed",       "zeros"),
    Weight("h.{i}.attn.c_attn.weight",            "n_embd n_qkv",      "embed qkv",   NORMAL),
    Weight("h.{i}.attn.c_attn.bias",              "n_qkv",             "qkv",         "zeros"),
    Weight("h.{i}.attn.c_proj.weight",            "n_attn n_embd",     "heads embed", RESIDUAL),
    Weight("h.{i}.attn.c_proj.bias",              "n_embd",            "embed",       "zeros"),
    Weight("h.{i}.ln_cross_attn.weight",          "n_embd",            "embed",       "ones",   GPT2, when=CROSS),
    Weight("h.{i}.ln_cross_attn.bias",            "n_embd",            "embed",       "zeros",  GPT2, when=CROSS),
    Weight("h.{i}.crossattention.q_attn.weight",  "n_embd n_embd",     "embed heads", NORMAL,   GPT2, when=CROSS),
    Weight("h.{i}.crossattention.q_attn.bias",    "n_embd",            "heads",       "zeros",  GPT2, when=CROSS),
    Weight("h.{i}.crossattention.c_attn.weight",  "n_embd n_kv",       "embed kv",    NORMAL,   GPT2, when=CROSS),
    Weight("h.{i}.crossattention.c_attn.bias",    "n_kv",              "kv",          "zeros",  GPT2, when=CROSS),
    Weight("h.{i}.crossattention.c_proj.weight",  "n_embd n_embd",     "heads embed", RESIDUAL, GPT2, when=CROSS),
    Weight("h.{i}.crossattention.c_proj.bias",    "n_embd",            "embed",       "zeros",  GPT2, when=CROSS),
    Weight("h.{i}.ln_2.weight",                   "n_embd",            "embed",       "ones"),
    Weight("h.{i}.ln_2.bias",                     "n_embd",            "embed",       "zeros"),
    Weight("h.{i}.mlp.c_fc.weight",               "n_embd n_mlp",      "embed mlp",   NORMAL),
    Weight("h.{i}.mlp.c_fc.bias",                 "n_mlp",             "mlp",         "zeros"),
    Weight("h.{i}.mlp.act.weight",                "1",                 "act",         "prelu",  when="has_prelu"),
    Weight("h.{i}.mlp.act.alpha_p",               "1",                 "act",         "xielu_p", when="has_xielu"),
    Weight("h.{i}.mlp.act.alpha_n",               "1",                 "act",         "xielu_n", when="has_xielu"),
    Weight("h.{i}.mlp.c_proj.weight",             "n_mlp n_embd",      "mlp embed",   RESIDUAL),
    Weight("h.{i}.mlp.c_proj.bias",               "n_embd",            "embed",       "zeros"),
    Weight("ln_f.weight",                         "n_embd",            "embed",       "ones",   GPT2),
    Weight("ln_f.bias",                           "n_embd",            "embed",       "zeros",  GPT2),
    Weight("lm_head.weight",                      "vocab_size n_embd", "vocab embed", NORMAL,   GPT2, LM, tied="wte.weight"),
    Weight("lm_head.weight",                      "vocab_size n_embd", "vocab embed", NORMAL,   GPT,  LM, tied="tokens_embed.weight"),
    Weight("multiple_choice_head.summary.weight", "n_summary n_embd",  "choice embed", NORMAL,  None, CHOICE, "summary_use_proj"),
    Weight("multiple_choice_head.summary.bias",   "n_summary",         "choice",      "zeros",  None, CHOICE, "summary_use_proj"),
    Weight("score.weight",                        "num_labels n_embd", "label embed", NORMAL,   None, SEQUENCE),
    Weight("classifier.weight",                   "num_labels n_embd", "label embed", NORMAL,   None, TOKEN),
    Weight("classifier.bias",                     "num_labels",        "label",       "zeros",  None, TOKEN),
    Weight("qa_outputs.weight",                   "n_span n_embd",     "span embed",  NORMAL,   None, SPAN),
    Weight("qa_outputs.bias",                     "n_span",            "span",        "zeros",  None, SPAN),
)
# fmt: on

XIELU = {"beta": 0.5, "eps": -1e-6}  # its constants

# Buffers of other checkpoints: causal masks, position counters and the constants of xielu, which are computed here.
BUFFERS = (
    "h.{i}.attn.bias",
    "h.{i}.attn.masked_bias",
    "h.{i}.crossattention.bias",
    "h.{i}.crossattention.masked_bias",
    "h.{i}.mlp.act.beta",
    "h.{i}.mlp.act.eps",
    "position_ids",
)


@dataclass(frozen=True)
class Spec:
    """One weight of one model: a row of the table with its numbers filled in.

    Attributes:
        name: as in the model's state dict.
        backbone_name: without the prefix; what a checkpoint of another head may call it.
        std: standard deviation of the initial values; None for constants.
        tied: full name of the weight that this one is identical to, or None if it is stored.
        block: number of the block that it is in, if any.
    """

    name: str
    shape: tuple[int, ...]
    row: Weight
    std: float | None
    tied: str | None
    block: int | None = None

    @property
    def backbone_name(self) -> str:
        return self.name.removeprefix(PREFIX)

    @property
    def in_backbone(self) -> bool:
        return self.row.heads is None


def specs(config: GPTConfig, head: str) -> dict[str, Spec]:
    """Returns every weight of a model by its canonical name, tied ones included, in the order of the table."""
    prefix = "" if head == "Model" else PREFIX
    result = {}
    for row in rows(config, head):
        tied = prefix + row.tied if row.tied and config.tie_word_embeddings else None
        std = None if row.init in CONSTANTS else float(getattr(config, row.init))
        for block, name in enumerate(expand(row.name, config.n_layer)):
            full = prefix + name if row.heads is None else name
            shape = tuple(size(config, dim, block) for dim in row.shape.split())
            result[full] = Spec(full, shape, row, std, tied, block if name != row.name else None)
    return result


def size(config: GPTConfig, dim: str, block: int) -> int:
    """Returns the number that a symbolic dimension stands for: of a block's attention, heads may be pruned."""
    value = int(dim) if dim.isdecimal() else getattr(config, dim)
    return int(value(block) if callable(value) else value)


def rows(config: GPTConfig, head: str) -> Iterable[Weight]:
    """Yields the rows of the table that a model has."""
    for row in TABLE:
        of_family = row.family in (None, config.model_type)
        of_head = row.heads is None or head in row.heads
        if of_family and of_head and (row.when is None or getattr(config, row.when)):
            yield row


def expand(name: str, n_layer: int) -> list[str]:
    """Returns a name once for each block: "h.{i}.ln_1.bias" -> ["h.0.ln_1.bias", "h.1.ln_1.bias", ...]."""
    return [name.replace("{i}", str(i)) for i in range(n_layer)] if "{i}" in name else [name]


def parameter_count(config: GPTConfig, head: str) -> int:
    """Returns the number of trainable numbers of a model; a tied weight counts once."""
    total = 0
    for spec in specs(config, head).values():
        size = 1
        for dim in spec.shape:
            size *= dim
        total += 0 if spec.tied else size
    return total


def initial_value(spec: Spec, seed: int = 0) -> np.ndarray:
    """Returns the initial float32 value of a weight.

    The numbers depend on the seed and the weight's own name only: they are the same in every framework, in the bare
    model and under a head, and any weight can be made alone. Source of the distributions: `row.init`.

    Raises:
        InputError: the seed is negative.
    """
    import numpy as np

    rng = generator(seed, spec.backbone_name)
    if spec.std is None:
        return np.full(spec.shape, CONSTANTS[spec.row.init], np.float32)
    values = rng.standard_normal(spec.shape, dtype=np.float32)
    values *= np.float32(spec.std)
    return values


def constants(config: GPTConfig, head: str, dtype: str) -> dict[str, np.ndarray]:
    """Returns what Transformers stores beside the weights and does not compute itself: the constants of xielu."""
    import numpy as np

    if not config.has_xielu:
        return {}
    import ml_dtypes  # noqa: F401  (bfloat16 by its name)

    prefix = "" if head == "Model" else PREFIX
    values = {f"{prefix}h.{i}.mlp.act.{name}": value for i in range(config.n_layer) for name, value in XIELU.items()}
    return {name: np.asarray(value).astype(np.dtype(dtype)) for name, value in values.items()}


def generator(seed: int, name: str, *more: int) -> np.random.Generator:
    """Returns a source of random numbers that depend on the seed, the name of a weight and further numbers only.

    Raises:
        InputError: the seed is negative.
    """
    import numpy as np

    if seed < 0:
        raise InputError(f"seed: {seed}, expected an integer of at least 0")
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *more])


def is_buffer(name: str) -> bool:
    """Whether a tensor of a checkpoint is a mask or counter that old versions stored beside the weights."""
    return _BUFFER.fullmatch(name.removeprefix(PREFIX)) is not None


def is_weight(name: str, config: GPTConfig) -> bool:
    """Whether a tensor of a checkpoint is a weight of any head of the family."""
    match = _BLOCK_NUMBER.sub("{i}", name.removeprefix(PREFIX), count=1)
    return any(row.name == match and row.family in (None, config.model_type) for row in TABLE)


def follow(model: Any, name: str) -> tuple[Any, str]:
    """Returns the module that holds a weight and the weight's attribute in it.

    All three twins nest their modules as the canonical names say, so that one walk serves them all.
    """
    *path, leaf = name.split(".")
    for part in path:
        model = model[int(part)] if part.isdecimal() else getattr(model, part)
    return model, leaf


_BLOCK_NUMBER = re.compile(r"(?<=^h\.)\d+(?=\.)")
_BUFFER = re.compile("|".join(re.escape(name).replace(r"\{i\}", r"\d+") for name in BUFFERS))
