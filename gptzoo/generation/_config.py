"""GenerationConfig: the options of generate, each with its default and what it accepts, and generation_config.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from gptzoo import limits
from gptzoo._files import write_file
from gptzoo._json import read_json_object
from gptzoo._settings import one_of
from gptzoo._vocabulary import GENERATION_FILE
from gptzoo.config import CONFIG_FILE, AutoConfig, GPTConfig
from gptzoo.errors import ConfigError
from gptzoo.generation._others import described, foreign_problems
from gptzoo.generation._rules import (
    ABOVE_0,
    BIAS,
    CUTOFF,
    DECAY,
    EARLY,
    FLAG,
    NOT_NEGATIVE,
    POSITIVE,
    POWER,
    RATE,
    SEED,
    SHARE,
    TEXTS,
    TOKEN,
    TOKEN_OR_TOKENS,
    TOKENS,
    TOP,
    WORDS,
    option,
    plain,
)
from gptzoo.weights import LM

TOP_K = 50
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")  # what config.json says too


@dataclass(init=False, repr=False, eq=False)
class GenerationConfig:
    """Options of `generate`; an attribute is None where nothing was said about it.

    What a call is given by name wins over the object that it is given as `generation_config`, that over the model's
    own, `model.generation_config`, and that over the defaults, which are named here. A new token is one that is not in
    the prompt. An option that changes scores does so on log probabilities in beam search, and on logits otherwise.

    Attributes:
        max_length: how many tokens a row has at most, its prompt and padding included.
        max_new_tokens: how many tokens are added at most. Without it and `max_length` 20, or as many as there are
            positions for.
        min_length: how many tokens a row has at least, its prompt included, before it may end.
        min_new_tokens: how many are added at least before a row may end; wins over `min_length`.
        do_sample: whether tokens are drawn; False: the most likely are taken.
        temperature: of drawing, 1: divides the logits; below 1 makes likely tokens likelier, above 1 unlikely ones.
        top_k: of drawing, 50: only the so many most likely tokens; 0: all, and so does None in a call.
        top_p: of drawing, 1: only the fewest tokens that have this probability together.
        min_p: of drawing, 0: only tokens of this probability at least, times that of the most likely.
        typical_p: of drawing, 1: only the tokens of this probability together whose surprise is nearest to the expected
            one (Meister et al. 2022).
        epsilon_cutoff: of drawing, 0: only tokens of this probability at least (Hewitt et al. 2022).
        eta_cutoff: of drawing, 0: the same, or less where the distribution is flat (Hewitt et al. 2022).
        repetition_penalty: 1: divides the positive scores of tokens that are there already, the prompt included, and
            multiplies the negative ones (Keskar et al. 2019).
        no_repeat_ngram_size: 0: so many tokens in a row do not come a second time.
        bad_words_ids: lists of ids that do not come.
        sequence_bias: number by tuple of ids, or pairs of both: is added to the score of the last id of such a
            sequence where the others stand before.
        suppress_tokens: ids that do not come.
        begin_suppress_tokens: ids that are not the first new token.
        forced_bos_token_id: the second token of a row whose prompt is one token.
        forced_eos_token_id: the last token, one id or several, where a row reaches `max_length`.
        exponential_decay_length_penalty: (start, factor): after `start` new tokens, the ends' scores s grow by
            abs(s) * (factor**n - 1), n counting from there.
        renormalize_logits: whether scores are made log probabilities again after all that is above.
        num_beams: 1: how many rows beam search follows for each prompt.
        length_penalty: of beam search, 1: a finished row's score is its sum over its new tokens to this power.
        early_stopping: of beam search. True: it ends with `num_beams` finished rows; False: when none that runs is
            likely to become better; "never": when none can.
        num_return_sequences: 1: how many rows there are of each prompt; `num_beams` at most, or as many as are drawn.
        bos_token_id: begins a text; None: the config's.
        eos_token_id: ends a row, one id or several; []: none does; None: the config's.
        pad_token_id: fills a row after its end; None: the config's, or else the first `eos_token_id`.
        stop_strings: a text or several: a row ends with the token that completes one. Needs a call's `tokenizer`.
        output_scores: whether the result has what tokens were chosen by; of `return_dict_in_generate` only.
        output_logits: whether it has the model's logits; likewise.
        return_dict_in_generate: whether the result is an object and not an array.
        use_cache: True: whether what is computed of a token is kept for those after it. The ids are the same.
        seed: of the drawing, from 0 to 2**64 - 1: a row's tokens depend on it and the row's number. A list has one for
            each row of `input_ids`, whose tokens then do not depend on the batch; a pair in it says the number as well:
            `seed=7` means `[(7, 0), (7, 1), ...]`, which may be split as the rows are. None: another one each time;
            `gptzoo.set_seed` makes them the same in every run.
        overflow: what happens to a row longer than the config's `n_positions`. "error": a call that may get there is
            refused; "slide": only its last tokens are read.
        num_assistant_tokens: 5: how many tokens an assistant model proposes at a time.
        prompt_lookup_num_tokens: how many tokens are proposed at a time by what followed the last ones before; None:
            none.
        max_matching_ngram_size: 2: how many of the last tokens are looked for by that, at most.
        max_time: seconds after which no further token is begun; None: no limit.

    Raises:
        ConfigError: lists every unknown name, every wrong value, and every option of Transformers that asks for
            something that is not implemented here. Others of its options are kept, written back and without effect.
    """

    max_length: int | None = option(None, POSITIVE)
    max_new_tokens: int | None = option(None, POSITIVE)
    min_length: int | None = option(0, NOT_NEGATIVE)
    min_new_tokens: int | None = option(None, NOT_NEGATIVE)
    do_sample: bool | None = option(False, FLAG)
    temperature: float | None = option(1.0, ABOVE_0, "do_sample")
    top_k: int | None = option(TOP_K, TOP, "do_sample", none=0)
    top_p: float | None = option(1.0, SHARE, "do_sample")
    min_p: float | None = option(0.0, RATE, "do_sample")
    typical_p: float | None = option(1.0, SHARE, "do_sample")
    epsilon_cutoff: float | None = option(0.0, CUTOFF, "do_sample")
    eta_cutoff: float | None = option(0.0, CUTOFF, "do_sample")
    repetition_penalty: float | None = option(1.0, ABOVE_0)
    no_repeat_ngram_size: int | None = option(0, NOT_NEGATIVE)
    bad_words_ids: list[list[int]] | None = option(None, WORDS)
    sequence_bias: dict[tuple[int, ...], float] | list[list[Any]] | None = option(None, BIAS)
    suppress_tokens: list[int] | None = option(None, TOKENS)
    begin_suppress_tokens: list[int] | None = option(None, TOKENS)
    forced_bos_token_id: int | None = option(None, TOKEN)
    forced_eos_token_id: int | list[int] | None = option(None, TOKEN_OR_TOKENS)
    exponential_decay_length_penalty: tuple[int, float] | list[Any] | None = option(None, DECAY)
    renormalize_logits: bool | None = option(False, FLAG)
    num_beams: int | None = option(1, POSITIVE)
    length_penalty: float | None = option(1.0, POWER, "num_beams")
    early_stopping: bool | str | None = option(False, EARLY, "num_beams")
    num_return_sequences: int | None = option(1, POSITIVE)
    bos_token_id: int | None = option(None, TOKEN)
    eos_token_id: int | list[int] | None = option(None, TOKEN_OR_TOKENS)
    pad_token_id: int | None = option(None, TOKEN)
    stop_strings: str | list[str] | None = option(None, TEXTS)
    output_scores: bool | None = option(False, FLAG)
    output_logits: bool | None = option(False, FLAG)
    return_dict_in_generate: bool | None = option(False, FLAG)
    use_cache: bool | None = option(True, FLAG)
    seed: int | list[int | list[int]] | None = option(None, SEED)
    overflow: str | None = option("error", one_of("error", "slide"))
    num_assistant_tokens: int | None = option(5, POSITIVE)
    prompt_lookup_num_tokens: int | None = option(None, POSITIVE)
    max_matching_ngram_size: int | None = option(2, POSITIVE)
    max_time: float | None = option(None, ABOVE_0)

    def __init__(self, **options: Any):
        for name in OPTIONS:
            setattr(self, name, None)
        self._foreign: dict[str, Any] = {}
        self._copied: dict[str, Any] = {}  # from config.json, which these follow until they are changed
        self.update(**options)

    def update(self, **options: Any) -> None:
        """Changes options by their names.

        Raises:
            ConfigError: as the class; then nothing was changed.
        """
        own = {name: plain(value) for name, value in options.items() if name in OPTIONS}
        foreign = {name: deepcopy(value) for name, value in options.items() if name not in OPTIONS}
        if problems := [*value_problems(own), *foreign_problems(foreign, OPTIONS)]:
            raise ConfigError.listing(type(self).__name__, problems)
        for name, value in own.items():
            setattr(self, name, value)
        self._foreign |= foreign

    def problems(self) -> list[str]:
        """Lists what is wrong with options that were set since construction."""
        return [*value_problems({name: plain(value) for name, value in self.said().items()})]

    def foreign(self) -> dict[str, Any]:
        """Returns the options of other software that are kept."""
        return deepcopy(self._foreign)

    def said(self) -> dict[str, Any]:
        """Returns the options that something was said about, by name."""
        return {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}

    def following(self, config: GPTConfig) -> Self:
        """Returns a copy in which what was copied from a model's config, and not changed here, is as there now."""
        new = self.copy()
        for name, value in self._copied.items():
            if getattr(self, name) == value:
                new._copied[name] = deepcopy(getattr(config, name))
                setattr(new, name, deepcopy(getattr(config, name)))
        return new

    def copy(self) -> Self:
        """Returns an object of its own with the same options."""
        return deepcopy(self)

    def to_dict(self) -> dict[str, Any]:
        """Returns generation_config.json's content: what was said, and what is kept of other software's options."""
        said = {name: plain(value) for name, value in self.said().items()}
        if isinstance(bias := said.get("sequence_bias"), dict):  # JSON's keys are texts
            said["sequence_bias"] = [[plain(ids), number] for ids, number in bias.items()]
        return deepcopy(self._foreign) | said

    def to_json_string(self) -> str:
        """Returns generation_config.json's text.

        Raises:
            ConfigError: an option has a wrong value, or one of other software cannot be written as JSON.
        """
        if problems := self.problems():
            raise ConfigError.listing(type(self).__name__, problems)
        try:
            return json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"
        except (TypeError, ValueError) as problem:
            raise ConfigError(f"{type(self).__name__}: not to be written as JSON ({problem})") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> Self:
        """Builds one from generation_config.json's content; `overrides` win over it.

        Entries that are no options here are kept: `generate` refuses those that might ask for something, so that they
        do not keep a model from being loaded.
        """
        said = {**values, **overrides}
        new = cls(**{name: value for name, value in said.items() if name in OPTIONS or name in overrides})
        new._foreign = deepcopy({name: value for name, value in values.items() if name not in OPTIONS}) | new._foreign
        return new

    @classmethod
    def from_json_file(cls, path: str | Path, **overrides: Any) -> Self:
        """Reads one generation_config.json of Transformers 4 or 5, or of gptzoo; errors name the file."""
        values = read_json_object(Path(path), ConfigError, limits.MAX_CONFIG_BYTES)
        try:
            stored = cls.from_dict(values)
        except ConfigError as problem:
            raise ConfigError(f"{path}: {problem}") from None
        stored.update(**overrides)
        return stored

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **overrides: Any) -> Self:
        """Reads the generation_config.json of a checkpoint directory, one by its path, or that of a model by its name.

        Where there is none beside a config.json, it is made of that, as it is for a model that is loaded.

        Args:
            pretrained_model_name_or_path: such a path; or the name of a model, bundled or on the Hugging Face hub.
            overrides: options that win over those read; and `gptzoo.hub.HubOptions` by their names.
        """
        from gptzoo.hub import resolve, take_options

        hub, overrides = take_options(overrides)
        local = resolve(pretrained_model_name_or_path, "generation", hub)
        file = local / GENERATION_FILE if local.is_dir() else local
        if os.path.lexists(file) or not os.path.lexists(local / CONFIG_FILE):
            return cls.from_json_file(file, **overrides)
        new = cls.from_model_config(AutoConfig.from_pretrained(local))
        new.update(**overrides)
        return new

    @classmethod
    def from_model_config(cls, config: GPTConfig) -> Self:
        """Returns what a model's config says: its special tokens, and options that old versions of Transformers kept.

        Raises:
            ConfigError: one of these has a wrong value.
        """
        kept = {name: value for name, value in config.foreign.items() if name in OPTIONS and name not in OURS}
        new = cls(**kept, _from_model_config=True)
        new._copied = dict.fromkeys(IDS)
        return new.following(config)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes generation_config.json into `directory`, which is made if absent."""
        write_file(Path(directory) / GENERATION_FILE, self.to_json_string().encode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationConfig) and self._meaning() == other._meaning()

    __hash__ = None  # type: ignore[assignment]  # mutable, as users of these classes expect

    def _meaning(self) -> dict[str, Any]:
        return {name: value for name, value in self.to_dict().items() if name not in _METADATA}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"


OPTIONS = {entry.name: entry.metadata for entry in fields(GenerationConfig)}
DEFAULTS = {name: metadata["default"] for name, metadata in OPTIONS.items()}
OURS = ("overflow", "seed")  # no options of Transformers

_METADATA = ("_from_model_config", "transformers_version")


def value_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is wrong with the values of options, which are plain ones; None never is."""
    for name, value in values.items():
        rule = OPTIONS[name]["rule"]
        if value is not None and not rule.accepts(value):
            yield f"{name}: {described(value)}, expected {rule.expected}"


def generation_config_of(head: str | None, config: GPTConfig) -> GenerationConfig | None:
    """Returns the options of a new model, of what its config says; None for a head that does not generate.

    Args:
        head: None: a class of the user's own.
    """
    return GenerationConfig.from_model_config(config) if head in LM else None


def stored_generation_config(
    head: str, path: Path, config: GPTConfig, overrides: Mapping[str, Any]
) -> GenerationConfig | None:
    """Returns the options of a model that is loaded: of the file beside its weights, or else of its config.

    Args:
        head: of the model; None is returned for one that does not generate.
        path: of the checkpoint.
        config: of the model.
        overrides: config fields that win over what is stored.

    Raises:
        ConfigError: the file is wrong.
    """
    file = (path if path.is_dir() else path.parent) / GENERATION_FILE
    if head not in LM or not os.path.lexists(file):
        return generation_config_of(head, config)
    return GenerationConfig.from_json_file(file, **{name: overrides[name] for name in IDS if name in overrides})


def saved_files(generation_config: GenerationConfig | None, config: GPTConfig) -> dict[str, bytes]:
    """Returns what a model's checkpoint has beside its weights, by the file's name."""
    if generation_config is None:
        return {}
    return {GENERATION_FILE: generation_config.following(config).to_json_string().encode()}
