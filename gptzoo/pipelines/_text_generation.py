"""Texts that go on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from gptzoo._settings import Rule, one_of, setting, short, unknown_argument, whole
from gptzoo.errors import InputError
from gptzoo.generation._arguments import NEW_TOKENS, OWN, resolve_options
from gptzoo.generation._config import OPTIONS
from gptzoo.generation._others import NEUTRAL, UNUSED, other_problems
from gptzoo.generation._sampling import SEED_LIMIT
from gptzoo.pipelines._base import FLAG, TEXT, Item, Options, Pipeline, at_least, or_none
from gptzoo.weights import LM

# Arguments of the model's `generate` that a call may have: the arrays are made of the text, the text of the arrays.
_MADE = ("input_ids", "attention_mask", "tokenizer", "return_dict_in_generate", "output_scores", "output_logits")
GENERATE = [name for name in OWN if name not in _MADE]


@dataclass(frozen=True)
class GenerationOptions(Options):
    """Options of text generation.

    Attributes:
        return_full_text: whether the text begins with its prompt.
        return_tensors: whether to return ids ("generated_token_ids"), of prompt and completion, in place of text.
        return_text: True is what there is without it.
        prefix: a text that is put before each prompt, and is no part of the result.
        handle_long_generation: "hole": of a prompt that leaves no room for the new tokens, only the end is read; None:
            it is an error.
        truncation: whether of such a prompt, or one as long as `max_length`, only the beginning is read.
        clean_up_tokenization_spaces: whether spaces before English punctuation go from the completion; None: no.
        stop_sequence: None; Transformers' is not implemented.
        max_new_tokens: how many tokens are added at most. Without it and `max_length`, 20.
        max_length: how many tokens prompt and completion have at most; a prefix does not count.
        seed: of the drawing; prompt number i (from 0) is drawn with seed + i, whatever the batches.
        generate: any other argument of the model's `generate`, by its name.
    """

    return_full_text: bool | None = setting(None, or_none(FLAG))
    return_tensors: bool | None = setting(None, or_none(FLAG))
    return_text: bool | None = setting(None, or_none(FLAG))
    prefix: str | None = setting(None, or_none(TEXT))
    handle_long_generation: str | None = setting(None, or_none(one_of("hole")))
    truncation: bool | None = setting(None, or_none(FLAG))
    clean_up_tokenization_spaces: bool | None = setting(None, or_none(FLAG))
    stop_sequence: None = setting(None, Rule("None (not implemented yet)", lambda value: value is None))
    max_new_tokens: int | None = setting(None, or_none(at_least(1)))
    max_length: int | None = setting(None, or_none(at_least(1)))
    seed: int | None = setting(None, or_none(Rule("an integer", lambda value: whole(value) is not None)))
    generate: dict[str, Any] = setting({}, Rule("arguments by name", lambda value: isinstance(value, dict)))

    def problems(self) -> Iterable[str]:
        yield from super().problems()
        if self.return_tensors and (self.return_full_text is not None or self.return_text):
            yield "return_tensors: True, expected without return_full_text and return_text"
        if self.return_text and self.return_full_text is not None:
            yield "return_text: given, expected without return_full_text"
        if self.max_new_tokens is not None and self.max_length is not None:
            yield "max_new_tokens and max_length: both given, expected one of them"
        if self.truncation and self.handle_long_generation is not None:
            yield "truncation and handle_long_generation: both given, expected one of them"
        known = [*GENERATE, *(entry.name for entry in fields(self) if entry.name != "generate")]
        for name, value in self.generate.items():
            if name in NEUTRAL or name in UNUSED:
                yield from other_problems({name: value}, known)
            elif name not in GENERATE:
                yield unknown_argument(name, known)


class TextGenerationPipeline(Pipeline):
    """Lets the model go on from a text: a list of {"generated_text": ...} for each, one for each sequence asked for.

    Options are those of `GenerationOptions` and of the model's `generate`. An empty text begins with `bos_token`.
    """

    task = "text-generation"
    heads = LM
    options_class = GenerationOptions
    remedy = ', or handle_long_generation="hole", or truncation=True'

    def merge(self, options: GenerationOptions, given: dict[str, Any]) -> GenerationOptions:
        own = {entry.name for entry in fields(options)} - {"generate"}
        further = {name: value for name, value in given.items() if name not in own}
        given = {name: value for name, value in given.items() if name in own}
        merged: GenerationOptions = super().merge(options, given | {"generate": {**options.generate, **further}})
        return merged

    def prepare(self, source: Any, index: int, options: GenerationOptions) -> Item:
        if not isinstance(source, str):
            raise InputError(f"{short(source)}, expected a text")
        ids = self.ids(options.prefix or "") if options.prefix else []
        prompt = self.ids((options.prefix or "") + source)
        if not prompt:
            if self.tokenizer.bos_token_id is None:
                raise InputError("no tokens, expected one at least: this tokenizer has no bos_token to begin with")
            prompt = [self.tokenizer.bos_token_id]
        self.require_known(prompt)
        if options.truncation and options.max_length is not None:
            prompt = prompt[: max(len(ids) + options.max_length - 1, 1)]
        new = self.new_tokens(len(prompt), len(ids), options)
        if options.generate.get("overflow") == "slide":
            return Item(source, [prompt], new, index)
        room = self.limit - new
        if room < 1:
            raise InputError(f"{new} new tokens, expected fewer than {self.limit} (n_positions)")
        if options.handle_long_generation == "hole":
            prompt = prompt[-room:]
        elif options.truncation:
            prompt = prompt[:room]
        if len(prompt) > room:
            raise InputError(
                f"{len(prompt)} tokens and {new} new ones, expected at most {self.limit} together (n_positions)"
                f"{self.remedy}"
            )
        return Item(source, [prompt], new, index)

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text)["input_ids"]
        return found

    def new_tokens(self, prompt: int, prefix: int, options: GenerationOptions) -> int:
        """Returns how many tokens are to be added to a prompt of so many, some of them a prefix."""
        if options.max_new_tokens is not None:
            return options.max_new_tokens
        if options.max_length is None:
            room = self.limit - prompt
            cuts = options.truncation or options.handle_long_generation is not None
            return NEW_TOKENS if cuts or room < 1 else min(NEW_TOKENS, room)
        if options.max_length <= prompt - prefix:
            raise InputError(f"{prompt - prefix} tokens, expected fewer than max_length {options.max_length}")
        return options.max_length - (prompt - prefix)

    def forward(
        self, rows: Sequence[list[int]], options: GenerationOptions, items: Sequence[Item]
    ) -> list[dict[str, Any]]:
        """Rows that get the same number of new tokens go together, so that none depends on the others."""
        found: dict[int, dict[str, Any]] = {}
        for new in sorted({item.notes for item in items}):
            group = [i for i, item in enumerate(items) if item.notes == new]
            sequences = self.complete([items[i] for i in group], new, options)
            found.update(zip(group, sequences, strict=True))
        return [found[i] for i in range(len(items))]

    def complete(self, items: Sequence[Item], new: int, options: GenerationOptions) -> list[dict[str, Any]]:
        """Returns the new ids of every completion of each prompt, up to the one that ends it."""
        further = dict(options.generate)
        if options.seed is not None:
            further["seed"] = [(options.seed + item.index) % SEED_LIMIT for item in items]
        arrays = self.padded([item.rows[0] for item in items], self.config.n_positions - new, left=True)
        prompts = arrays.pop("input_ids")
        further |= {"max_new_tokens": new, "tokenizer": self.tokenizer}
        added = self.runner.generate(prompts, **arrays, **further)[:, prompts.shape[1] :]
        asked = {name: value for name, value in options.generate.items() if name in OPTIONS}
        ends = resolve_options(self.runner.model, further.get("generation_config"), asked).eos_token_id
        rows = [up_to_end(row, ends if isinstance(ends, list) else [ends]) for row in added.tolist()]
        copies = len(rows) // len(items)
        return [{"completions": rows[i * copies : (i + 1) * copies]} for i in range(len(items))]

    def finish(self, item: Item, outputs: list[dict[str, Any]], options: GenerationOptions) -> list[dict[str, Any]]:
        prompt, completions = item.rows[0], outputs[0]["completions"]
        if options.return_tensors:
            return [{"generated_token_ids": [*prompt, *new]} for new in completions]
        before = "" if options.return_full_text is False else item.source
        return [{"generated_text": before + self.added_text(prompt, new, options)} for new in completions]

    def added_text(self, prompt: list[int], new: list[int], options: GenerationOptions) -> str:
        """Returns the text that new ids add to a prompt; GPT's space between two words is there only with both."""
        whole_text, before = (self.tokenizer.decode(ids, skip_special_tokens=True) for ids in (prompt + new, prompt))
        added: str = whole_text[len(before) :]
        return self.tokenizer.clean_up_tokenization(added) if options.clean_up_tokenization_spaces else added


def up_to_end(ids: list[int], ends: Sequence[Any]) -> list[int]:
    """Returns ids without what follows the first of the ids that end a row."""
    places = (i for i, one in enumerate(ids) if one in ends)
    return ids[: next(places, len(ids)) + 1]
