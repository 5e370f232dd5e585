"""The model's own vectors of each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptzoo._settings import setting
from gptzoo.pipelines._base import FLAG, Item, Options, Pipeline


@dataclass(frozen=True)
class FeatureOptions(Options):
    """Options of feature extraction.

    Attributes:
        return_tensors: whether to return the framework's arrays, on the model's device, instead of nested lists.
        truncation: whether texts that are too long are cut.
    """

    return_tensors: bool = setting(False, FLAG)
    truncation: bool = setting(False, FLAG)


class FeatureExtractionPipeline(Pipeline):
    """Gives the last hidden state: (1, T, n_embd) for each text of T tokens."""

    task = "feature-extraction"
    heads = ("Model",)
    options_class = FeatureOptions

    def prepare(self, source: Any, index: int, options: FeatureOptions) -> Item:
        found = self.encode(source, limit=self.limit if options.truncation else None)
        return Item(source, found["input_ids"], found, index)

    def forward(
        self, rows: Sequence[list[int]], options: FeatureOptions, items: Sequence[Item]
    ) -> list[dict[str, Any]]:
        states = self.call(rows)["last_hidden_state"]
        states = states if options.return_tensors else np.asarray(self.runner.numpy(states), np.float32)
        return [{"features": states[i : i + 1, : len(row)]} for i, row in enumerate(rows)]

    def finish(self, item: Item, outputs: list[dict[str, Any]], options: FeatureOptions) -> Any:
        features = outputs[0]["features"]
        return features if options.return_tensors else features.tolist()
