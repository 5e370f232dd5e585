"""Model surgery in Flax NNX: other embeddings, another vocabulary, fewer heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from flax import nnx

from gptzoo import surgery, weights
from gptzoo.config import GPTConfig
from gptzoo.flax._nnx import Static


class SurgeryMixin:
    """What is changed about a model once it is made."""

    def get_input_embeddings(self: Any) -> nnx.Module:
        """Returns the layer that looks up tokens; its `weight` is (vocab_size, n_embd)."""
        return getattr(*weights.follow(self, surgery.embedding_layers(self)[0]))

    def set_input_embeddings(self: Any, value: nnx.Module) -> None:
        """Replaces the layer that looks up tokens; a tied head follows it.

        Raises:
            InputError: its weight is of another shape or dtype; or the model is the backbone of another.
        """
        replace_layer(self, surgery.embedding_layers(self)[0], value)
        self.tie_weights()

    def get_output_embeddings(self: Any) -> nnx.Module | None:
        """Returns the language model head, whose `weight` is (vocab_size, n_embd); None where there is none."""
        name = surgery.output_layer(self)
        return None if name is None else getattr(*weights.follow(self, name))

    def set_output_embeddings(self: Any, value: nnx.Module) -> None:
        """Replaces the language model head.

        Raises:
            InputError: there is none, or it is tied; or the weight is of another shape or dtype.
        """
        replace_layer(self, surgery.settable_output_layer(self), value)

    def resize_token_embeddings(
        self: Any,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
        seed: int = 0,
    ) -> nnx.Module:
        """Gives the token embedding, and the language model head if there is one, another number of rows.

        Rows are added, or dropped, at the end; the others stay bit for bit. `model.config`, from here on a copy of the
        config that the model was made from, has the new `vocab_size`. An optimizer
        has arrays of the old shapes: make it afterwards.

        Args:
            new_num_tokens: how many tokens there will be; None: as many as now.
            pad_to_multiple_of: rounds their number up to a multiple.
            mean_resizing: whether new rows are near the mean of the old ones (`gptzoo.surgery.mean_rows`), and not
                those that a new model begins with.
            seed: of the new rows, which are the same numbers in every framework.

        Returns:
            The input embeddings.

        Raises:
            InputError: a number is not an integer of at least 1; or the model is the backbone of another.
        """
        surgery.resize_token_embeddings(self, new_num_tokens, pad_to_multiple_of, mean_resizing, seed)
        return self.get_input_embeddings()

    def prune_heads(self: Any, heads_to_prune: Mapping[int, Collection[int]]) -> None:
        """Takes heads out of the self-attention of blocks, as a head mask of 0 does, and their weights with them.

        Heads keep their first numbers, here, in `config.pruned_heads` and in a `head_mask`, whose entries for pruned
        heads have no effect. Attentions and caches are of the heads that are left. Cross-attention stays whole.
        `model.config` becomes a copy of the config that the model was made from. An optimizer has arrays of
        the old shapes: make it afterwards.

        Args:
            heads_to_prune: block -> heads; those that are gone already may be among them.

        Raises:
            InputError: it is no map from block to heads; or the model is the backbone of another.
            ConfigError: lists blocks and heads that do not exist, and blocks that would have no head left.
        """
        surgery.prune_heads(self, heads_to_prune)

    def adopt(self: Any, config: GPTConfig) -> None:
        """Takes another config for the model and its backbone."""
        for model in (self, self.base_model):
            model._config = Static(config)


def replace_layer(model: Any, name: str, layer: nnx.Module) -> None:
    """Puts a layer in place of another one, named canonically."""
    surgery.check_layer(model, name, layer)
    parent, leaf = weights.follow(model, name)
    setattr(parent, leaf, layer)
