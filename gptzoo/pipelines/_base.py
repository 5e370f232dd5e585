"""What every pipeline does: texts become rows of ids, rows go through the model in batches, outputs become results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gptzoo._devices import find_device
from gptzoo._runners import Runner, power_of_two
from gptzoo._settings import Rule, short, whole
from gptzoo.errors import GPTZooError, InputError
from gptzoo.heads import HEADS, class_name


class ItemError(InputError):
    """One of several inputs is wrong.

    Attributes:
        index: its number, from 0.
        problem: what is wrong with it.
    """

    def __init__(self, index: int, problem: str):
        super().__init__(f"input {index}: {problem}")
        self.index, self.problem = index, problem


FLAG = Rule("True or False", lambda value: isinstance(value, bool))
TEXT = Rule("a text", lambda value: isinstance(value, str))


def at_least(low: int) -> Rule:
    return Rule(f"an integer of at least {low}", lambda value: (number := whole(value)) is not None and number >= low)


def or_none(rule: Rule) -> Rule:
    return Rule(f"{rule.expected}, or None", lambda value: value is None or rule.accepts(value))


@dataclass(frozen=True)
class Options:
    """Options of a call, each with its default and its rule; a subclass for each task."""

    def problems(self) -> Iterable[str]:
        """Yields what is wrong with the values."""
        for entry in fields(self):
            value, rule = getattr(self, entry.name), entry.metadata["rule"]
            if not rule.accepts(value):
                yield f"{entry.name}: {short(value)}, expected {rule.expected}"


@dataclass(frozen=True)
class Item:
    """An input, ready for the model.

    Attributes:
        source: the input itself.
        rows: the ids of each row that it takes.
        notes: what else `prepare` found out, for `forward` and `finish`.
        index: the input's number, from 0.
    """

    source: Any
    rows: list[list[int]]
    notes: Any
    index: int


class Pipeline:
    """Base of all pipelines: a model, its tokenizer, and how a task uses them.

    Args:
        runner: calls the model.
        tokenizer: turns texts into the model's ids.
        batch_size: how many rows go through the model together.
        options: of every call, where the call does not say otherwise.

    Attributes:
        task: the task's name.
        heads: of the models that can do it; the first is what a checkpoint is loaded as.
        options_class: the options, with their defaults.
        outputs: names of the model's outputs that a result is made of.
        needs_characters: whether a result says where in the text it stands.
    """

    task: ClassVar[str]
    heads: ClassVar[tuple[str, ...]]
    options_class: ClassVar[type[Options]]
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    needs_characters: ClassVar[bool] = False

    def __init__(self, runner: Runner, tokenizer: Any, batch_size: int = 1, **options: Any):
        self.runner, self.model, self.tokenizer = runner, runner.model, tokenizer
        self.config, self.framework = runner.model.config, runner.framework
        if self.model.head not in self.heads:
            expected = " or ".join(class_name(self.config, head) for head in self.heads)
            raise InputError(f"model: a {type(self.model).__name__}, expected a {expected} for {self.task}")
        if self.needs_characters and not getattr(tokenizer, "finds_characters", True):
            loaded = 'AutoTokenizer.from_pretrained(path, preparation="bert")'
            raise InputError(
                f"tokenizer: a {type(tokenizer).__name__} that changes the text before it splits it, expected one that "
                f"keeps the characters' places, for {self.task}: pipeline(..., tokenizer={loaded})"
            )
        self.batch_size = self.checked_size(batch_size)
        self.options: Any = self.merge(self.options_class(), options)

    def __call__(self, inputs: Any, *, batch_size: int | None = None, **options: Any) -> Any:
        """Returns the result of an input, the list of those of a list; or a generator of those of any other iterable.

        Args:
            inputs: a text, or what else the task takes for one; or many: a list, or an iterable that may be endless.
                Its results come in its order, each batch when it is full.
            batch_size: how many rows go through the model together; None: the pipeline's.
            options: of the task, for this call.

        Raises:
            InputError: lists the options that are wrong; or names the first input that is.
        """
        chosen = self.merge(self.options, options)
        size = self.batch_size if batch_size is None else self.checked_size(batch_size)
        if self.is_one(inputs):
            return self._only(inputs, chosen, size)
        try:
            results = self._stream(iter(inputs), chosen, size)
        except TypeError:
            raise InputError(f"inputs: {short(inputs)}, expected {self.expected()}, or an iterable of such") from None
        return list(results) if isinstance(inputs, list | tuple) else results

    def is_one(self, inputs: Any) -> bool:
        """Whether this is a single input, and not an iterable of them."""
        return isinstance(inputs, str | bytes | dict) or inputs is None

    def expected(self) -> str:
        """Says what an input is."""
        return "a text"

    def prepare(self, source: Any, index: int, options: Any) -> Item:
        """Returns an input as rows for the model.

        Raises:
            InputError: it is not what the task takes, or too long.
        """
        raise NotImplementedError

    def finish(self, item: Item, outputs: list[dict[str, Any]], options: Any) -> Any:
        """Returns the result of an input from the outputs of its rows."""
        raise NotImplementedError

    def forward(self, rows: Sequence[list[int]], options: Any, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Returns the outputs of each row, without padding."""
        outputs = self.call(rows)
        arrays = {name: np.asarray(self.runner.numpy(outputs[name]), np.float64) for name in self.outputs}
        return [
            {name: x[i, : len(row)] if self.has_tokens(name) else x[i] for name, x in arrays.items()}
            for i, row in enumerate(rows)
        ]

    def call(self, rows: Sequence[list[int]]) -> dict[str, Any]:
        """Calls the model with rows, padded on the right."""
        return self.runner.predict(**self.padded(rows, self.config.n_positions))

    def has_tokens(self, output: str) -> bool:
        """Whether an output of the model has an entry for each token."""
        shapes = {entry.name: entry.shape.split() for entry in HEADS[self.model.head].outputs}
        return shapes[output][:2] == ["B", "T"]

    def padded(self, rows: Sequence[list[int]], room: int, left: bool = False) -> dict[str, np.ndarray]:
        """Returns rows as arrays (B, T): ids, and a mask unless it is one row without padding.

        Args:
            room: what T can be at most.
        """
        width = max(map(len, rows))
        if self.runner.compiles:  # few shapes for all texts: powers of two
            width = max(width, min(room, power_of_two(width)))
        fill = self.config.pad_token_id or 0  # any id will do under a mask, but a classifier may know its own
        ids = np.full((len(rows), width), fill, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            place = slice(width - len(row), None) if left else slice(len(row))
            ids[i, place], mask[i, place] = row, 1
        return {"input_ids": ids} if len(rows) == 1 and mask.all() else {"input_ids": ids, "attention_mask": mask}

    def encode(self, first: Any, second: Any = None, limit: int | None = None, **options: Any) -> Any:
        """Tokenizes a text, or two.

        Args:
            limit: tokens of a row at most; None: as many as the model has positions for, and more are an error.

        Returns:
            The tokenizer's `BatchEncoding`, of which each array is a list of rows.

        Raises:
            InputError: it is no text, has no tokens, or too many.
        """
        texts = [text for text in (first, second) if text is not None] or [first]
        for text in texts:
            if not isinstance(text, str):
                raise InputError(f"{short(text)}, expected {self.expected()}")
        cut = {} if limit is None else {"truncation": True, "max_length": limit}
        found = self.tokenizer(*([text] for text in texts), **(cut | options))
        tokens = max(map(len, found["input_ids"]))
        if not tokens:
            raise InputError("no tokens, expected one at least")
        if tokens > self.limit:
            raise InputError(f"{tokens} tokens, expected at most {self.limit} (n_positions){self.remedy}")
        self.require_known(*found["input_ids"])
        return found

    def require_known(self, *rows: list[int]) -> None:
        """Raises an error if a tokenizer is not the model's, as far as its ids show it."""
        if (largest := max(max(row, default=0) for row in rows)) >= self.config.vocab_size:
            expected = f"0 to {self.config.vocab_size - 1} (vocab_size): a tokenizer of this model"
            raise InputError(f"token id {largest}, expected {expected}")

    remedy: ClassVar[str] = ", or truncation=True"

    @property
    def limit(self) -> int:
        """How many tokens a row can have."""
        named = self.tokenizer.model_max_length
        return min(self.config.n_positions, named) if named else self.config.n_positions

    def merge(self, options: Any, given: dict[str, Any]) -> Any:
        """Returns options with those given in place of their own.

        Raises:
            InputError: lists those that do not exist, and those with wrong values.
        """
        names = [entry.name for entry in fields(options)]
        if problems := [f"{name}: no such option{_hint(name, names)}" for name in given if name not in names]:
            raise InputError.listing(self.task, problems)
        merged = replace(options, **given)
        if problems := [*merged.problems()]:
            raise InputError.listing(self.task, problems)
        return merged

    def checked_size(self, batch_size: Any) -> int:
        """Returns a batch size.

        Raises:
            InputError: it is none.
        """
        if (size := whole(batch_size) or 0) < 1:
            raise InputError(f"batch_size: {short(batch_size)}, expected {at_least(1).expected}")
        return size

    @property
    def device(self) -> Any:
        """Where the model is: the device of PyTorch or JAX; of Keras its name, such as "cpu:0"."""
        if self.framework == "torch":
            return self.model.device
        if self.framework == "flax":
            return min(self.model.first_weight.devices(), key=lambda device: device.id)
        place = self.model.weights[0].value.device  # of Keras's backend, which has its own words for it
        name = f"{place.platform}:{place.id}" if hasattr(place, "platform") else str(place).rpartition("device:")[2]
        return find_device("keras", name)[0]

    @property
    def dtype(self) -> Any:
        """The model's dtype, as its framework has it; for Keras the name of that of the weights."""
        return self.model.dtype

    @property
    def torch_dtype(self) -> Any:
        """The older name of `dtype`."""
        return self.dtype

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the model and the tokenizer."""
        self.model.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(save_directory)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}, {self.framework})"

    def _only(self, source: Any, options: Any, size: int) -> Any:
        try:
            (result,) = self._stream(iter([source]), options, size)
        except ItemError as problem:
            raise InputError(f"input: {problem.problem}") from None
        return result

    def _stream(self, inputs: Iterator[Any], options: Any, size: int) -> Iterator[Any]:
        """Yields the results of inputs; those before a wrong one come before its error."""
        items: list[Item] = []
        index = 0
        while True:
            try:
                source = next(inputs, _END)
                if source is not _END:
                    items.append(self._prepared(source, index, options))
            except GPTZooError:
                yield from self._results(items, options, size)
                raise
            if source is _END or len(items) == size:
                yield from self._results(items, options, size)
                items = []
            if source is _END:
                return
            index += 1

    def _prepared(self, source: Any, index: int, options: Any) -> Item:
        try:
            return self.prepare(source, index, options)
        except InputError as problem:
            raise ItemError(index, str(problem)) from None

    def _results(self, items: list[Item], options: Any, size: int) -> Iterator[Any]:
        rows = [(item, row) for item in items for row in item.rows]
        outputs: list[dict[str, Any]] = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            outputs += self.forward([row for _, row in part], options, [item for item, _ in part])
        remaining = iter(outputs)
        for item in items:
            yield self.finish(item, [next(remaining) for _ in item.rows], options)


_END = object()


def softmax(x: np.ndarray) -> np.ndarray:
    """Turns scores into probabilities along the last axis."""
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    probabilities: np.ndarray = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


def _hint(name: str, names: list[str]) -> str:
    like = get_close_matches(name, names, 1)
    return f" ({like[0]}?)" if like else f", expected some of {', '.join(names)}"
