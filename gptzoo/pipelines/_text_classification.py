"""Labels of texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptzoo._settings import Rule, one_of, setting, short, whole
from gptzoo.errors import InputError
from gptzoo.pipelines._base import FLAG, Item, Options, Pipeline, at_least, or_none, softmax
from gptzoo.tokenization._arguments import PADDINGS

COUNT = or_none(at_least(1))
PADDING = Rule(
    f"True, False, or one of {', '.join(PADDINGS)}",
    lambda value: isinstance(value, bool) or (isinstance(value, str) and value in PADDINGS),
)
BEST = "best"  # what top_k is where nobody names it: the label alone, not a list of one


@dataclass(frozen=True)
class ClassificationOptions(Options):
    """Options of text classification.

    Attributes:
        top_k: how many labels, the best first; None: all.
        function_to_apply: what makes scores of logits: "softmax", "sigmoid" or "none". None: "none" for a regression,
            "sigmoid" for one label or a problem of several that may apply, "softmax" for others.
        truncation: whether texts that are too long are cut.
        max_length: tokens that are left of a text at most, beside `truncation`; None: as many as the model can have.
        padding: changes nothing: rows of a batch are padded anyway, under a mask.
    """

    top_k: int | str | None = setting(
        BEST, Rule("an integer of at least 1, or None for all", lambda value: value == BEST or COUNT.accepts(value))
    )
    function_to_apply: str | None = setting(None, or_none(one_of("softmax", "sigmoid", "none")))
    truncation: bool = setting(False, FLAG)
    max_length: int | None = setting(None, COUNT)
    padding: bool | str = setting(False, PADDING)

    def problems(self) -> Iterable[str]:
        yield from super().problems()
        if self.max_length is not None and self.truncation is False and self.padding != "max_length":
            yield f"max_length: {short(self.max_length)}, expected truncation=True beside it"


class TextClassificationPipeline(Pipeline):
    """Says which label a text has: a list of {"label": ..., "score": ...} for each.

    Takes texts, and pairs of texts as {"text": ..., "text_pair": ...}. Where `top_k` is not given, a result is the best
    label alone, in a list for a single text.
    """

    task = "text-classification"
    heads = ("ForSequenceClassification",)
    options_class = ClassificationOptions

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **options: Any) -> Any:
        result = super().__call__(inputs, batch_size=batch_size, **options)
        return [result] if isinstance(inputs, str) and "top_k" not in options else result

    def expected(self) -> str:
        return 'a text, or {"text": ..., "text_pair": ...}'

    def prepare(self, source: Any, index: int, options: ClassificationOptions) -> Item:
        pair = source if isinstance(source, dict) else {"text": source}
        if not {"text"} <= set(pair) <= {"text", "text_pair"}:
            raise InputError(f"{short(source)}, expected {self.expected()}")
        limit = min(self.limit, whole(options.max_length) or self.limit) if options.truncation else None
        found = self.encode(pair["text"], pair.get("text_pair"), limit)
        return Item(source, found["input_ids"], found, index)

    def finish(self, item: Item, outputs: list[dict[str, Any]], options: ClassificationOptions) -> Any:
        scores = self.scores(outputs[0]["logits"], options.function_to_apply)
        order = np.argsort(-scores, kind="stable")
        labels = [{"label": self.config.id2label[int(i)], "score": float(scores[i])} for i in order]
        if options.top_k == BEST:
            return labels[0]
        return labels[: whole(options.top_k)]

    def scores(self, logits: np.ndarray, function: str | None) -> np.ndarray:  # (L,) -> (L,)
        """Applies a function, or that which the model's problem asks for."""
        kind = self.config.problem_type
        if function is None and kind == "regression":
            function = "none"
        elif function is None:
            single = self.config.num_labels > 1 and kind != "multi_label_classification"
            function = "softmax" if single else "sigmoid"
        if function == "softmax":
            return softmax(logits)
        return logits if function == "none" else 1 / (1 + np.exp(-logits))
