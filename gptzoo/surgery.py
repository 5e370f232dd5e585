"""Model surgery, framework-free: a model with another vocabulary, or fewer attention heads.

The functions work on a model of any framework through what its twins share: `get_weight` and its kin.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from gptzoo import limits, weights
from gptzoo._settings import is_int, short, whole
from gptzoo.config import GPTConfig, dtype_name
from gptzoo.errors import InputError

SHRINK = 1e-9  # of the covariance of old rows, around whose mean new rows are drawn: Transformers' number


def require_whole(model: Any) -> None:
    """Checks that a model is not the backbone of another: that one's config and head would not follow.

    Raises:
        InputError: it is.
    """
    if model.in_head:
        raise InputError(f"{type(model).__name__}: inside a model with a head; operate on that model")


def embedding_layers(model: Any) -> list[str]:
    """Returns the names of the layers with a row for each token: the input embeddings, then the output ones, if any."""
    specs = weights.specs(model.config, model.head)
    return [name.removesuffix(".weight") for name, spec in specs.items() if spec.row.axes.startswith("vocab ")]


def output_layer(model: Any) -> str | None:
    """Returns the name of the output embeddings; None where the model has none."""
    _, *rest = embedding_layers(model)
    return rest[0] if rest else None


def settable_output_layer(model: Any) -> str:
    """Returns the name of the output embeddings.

    Raises:
        InputError: the model has none; or they are the input embeddings, and a layer put there would be lost.
    """
    name = output_layer(model)
    if name is None:
        raise InputError(f"{type(model).__name__} has no output embeddings")
    if model.config.tie_word_embeddings:
        raise InputError(f"{name}: is {embedding_layers(model)[0]} (tie_word_embeddings); set the input embeddings")
    return name


def check_layer(model: Any, name: str, layer: Any) -> None:
    """Checks that a layer can stand in place of one of the model's.

    Raises:
        InputError: it has no weight, or one of another shape or dtype.
    """
    require_whole(model)
    old, new = model.get_weight(f"{name}.weight"), getattr(layer, "weight", None)
    wanted = f"a layer whose attribute `weight` is {_described(old)}"
    if new is None or not hasattr(new, "shape"):
        raise InputError(f"{name}: {short(layer)}, expected {wanted}")
    if _described(new) != _described(old):
        raise InputError(f"{name}: a weight {_described(new)}, expected {wanted}; see resize_token_embeddings")


def _described(weight: Any) -> str:
    return f"{tuple(weight.shape)} {dtype_name(weight.dtype)}"


def changed(config: GPTConfig, **fields: Any) -> GPTConfig:
    """Returns a copy with other fields: the model's own, as other models may have been made from the same config.

    Raises:
        ConfigError: lists every field with a wrong value.
    """
    config = deepcopy(config)
    for name, value in fields.items():
        setattr(config, name, value)
    config.validate()
    return config


def resize_token_embeddings(
    model: Any, new_num_tokens: int | None, pad_to_multiple_of: int | None, mean_resizing: bool, seed: int
) -> None:
    """Gives the token embedding, and the head unless it is tied, another number of rows: see the models' method."""
    require_whole(model)
    size = vocabulary_size(model.config, new_num_tokens, pad_to_multiple_of)
    if size == model.config.vocab_size:
        return
    config = changed(model.config, vocab_size=size)
    specs = weights.specs(config, model.head)
    names = [f"{layer}.weight" for layer in embedding_layers(model)]
    names = [name for name in names if not specs[name].tied]
    # All are made before one is put in place: an error leaves the model as it was.
    arrays = {name: resized(specs[name], model.read_weight(name), mean_resizing, seed) for name in names}
    for name, array in arrays.items():
        model.replace_weight(name, array)
    model.adopt(config)
    model.tie_weights()


def vocabulary_size(config: GPTConfig, new_num_tokens: int | None, pad_to_multiple_of: int | None) -> int:
    """Returns the number of tokens asked for, the present one by default, rounded up to a multiple.

    Raises:
        InputError: lists what is not an integer of at least 1; or the number is beyond what a config may hold.
    """
    given = {"new_num_tokens": new_num_tokens, "pad_to_multiple_of": pad_to_multiple_of}
    problems = [
        f"{name}: {short(value)}, expected an integer of at least 1, or None"
        for name, value in given.items()
        if value is not None and (whole(value) or 0) < 1
    ]
    if problems:
        raise InputError.listing("resize_token_embeddings", problems)
    size = whole(new_num_tokens) or config.vocab_size
    size += -size % (whole(pad_to_multiple_of) or 1)
    if size > limits.MAX_VOCAB:
        raise InputError(f"resize_token_embeddings: {size} tokens, expected at most {limits.MAX_VOCAB}")
    return size


def resized(spec: weights.Spec, old: np.ndarray, mean_resizing: bool, seed: int) -> np.ndarray:
    """Returns the rows of a weight that are kept, bit for bit, and behind them new ones.

    Args:
        spec: of the new weight, whose shape says how many rows there will be.
        old: (old rows, n_embd).
        mean_resizing: whether new rows are `mean_rows`; otherwise those that a new model of this size begins with.
    """
    n_old, n_new = len(old), spec.shape[0]
    if n_new <= n_old:
        return old[:n_new].copy()
    if mean_resizing:
        rng = weights.generator(seed, spec.backbone_name, n_old)  # another one as the vocabulary grows again
        new = mean_rows(old.astype(np.float64), n_new - n_old, rng)
    else:
        new = weights.initial_value(spec, seed)[n_old:]
    return np.concatenate((old, new.astype(old.dtype)))


def mean_rows(old: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:  # (V, E) -> (count, E)
    """Draws rows from the normal distribution N(mean of the old rows, SHRINK * covariance of the old rows), in float64.

    It is that of Transformers (https://nlp.stanford.edu/~johnhew/vocab-expansion.html), where the new rows are the
    mean alone if the covariance is singular: there are no more tokens than n_embd. Here they vary in the directions
    that there are: with C the centred rows and C = QR, C^T C = R^T R, and no matrix has to be positive definite.
    """
    mean = old.mean(axis=0)
    factor = np.linalg.qr(old - mean, mode="r")  # (min(V, E), E)
    noise = rng.standard_normal((count, len(factor)))
    return mean + np.sqrt(SHRINK / len(old)) * (noise @ factor)


def prune_heads(model: Any, heads_to_prune: Mapping[int, Collection[int]]) -> None:
    """Takes heads out of the self-attention of a model's blocks: see the models' method."""
    require_whole(model)
    config = changed(model.config, pruned_heads=pruned(model.config, heads_to_prune))
    before, after = weights.specs(model.config, model.head), weights.specs(config, model.head)
    arrays = {}
    for name, spec in after.items():
        for axis, (old, new) in enumerate(zip(before[name].shape, spec.shape, strict=True)):
            if spec.block is not None and old != new:
                columns = kept_columns(model.config, config, spec.block, old)
                arrays[name] = np.take(model.read_weight(name), columns, axis)
    for name, array in arrays.items():
        model.replace_weight(name, array)
    for block in range(config.n_layer):
        attention, _ = weights.follow(model.base_model, f"h.{block}.attn.heads")
        attention.heads = config.kept_heads(block)
    model.adopt(config)


def pruned(config: GPTConfig, more: Mapping[int, Collection[int]]) -> dict[int, list[int]]:
    """Returns the heads of each block that are not there, once more are pruned; those that are gone stay gone.

    Raises:
        InputError: it is no map from block to heads.
    """
    if not isinstance(more, Mapping) or not all(_is_head_list(*pair) for pair in more.items()):
        raise InputError(f"heads_to_prune: {short(more)}, expected a map from block to a list of heads")
    result = {block: set(heads) for block, heads in config.pruned_heads.items()}
    for block, heads in more.items():
        result.setdefault(block, set()).update(heads)
    return {block: sorted(heads) for block, heads in sorted(result.items()) if heads}


def _is_head_list(block: Any, heads: Any) -> bool:
    return is_int(block) and isinstance(heads, Collection) and all(map(is_int, heads))


def kept_columns(old: GPTConfig, new: GPTConfig, block: int, size: int) -> np.ndarray:
    """Returns which places of an axis stay that a block's heads share: once (c_proj), or as q, k and v (c_attn).

    Args:
        size: of the axis, as it was.
    """
    heads, staying = old.kept_heads(block), new.kept_heads(block)
    places = [place for place, head in enumerate(heads) if head in staying]
    return np.arange(size).reshape(-1, len(heads), old.head_dim)[:, places].ravel()
