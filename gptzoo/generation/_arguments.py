"""The arguments of generate, all checked before any work starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gptzoo._settings import short
from gptzoo.config import GPTConfig
from gptzoo.errors import InputError
from gptzoo.generation._config import DEFAULTS, IDS, OPTIONS, GenerationConfig, value_problems
from gptzoo.generation._others import described, foreign_problems, other_problems
from gptzoo.generation._rules import plain
from gptzoo.generation._seed import next_seed
from gptzoo.generation._speculative import assistant_problems
from gptzoo.inputs import ArrayKind, input_problems
from gptzoo.weights import LM

LARGEST_ID = 2**31 - 1  # what every framework's default integers hold
NEW_TOKENS = 20  # where nobody names a length
MOST_NEW_TOKENS = 10**6  # of rows that may be longer than n_positions

# Arguments of generate that are no options.
_ARGUMENTS = (
    *("input_ids", "attention_mask", "generation_config", "logits_processor", "stopping_criteria"),
    *("streamer", "assistant_model", "tokenizer"),
)
OWN = (*_ARGUMENTS, *OPTIONS)

# Of two names of one thing: that of a lower source does not count where a higher one has the other.
_PAIRS = (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens"))
_IN_VOCABULARY = (
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias"),
    *("forced_bos_token_id", "forced_eos_token_id"),
)
# What a call leaves as it is by None.
_KEPT = (*IDS, "max_length", "max_new_tokens")


@dataclass(frozen=True)
class Plan:
    """What a call does.

    Attributes:
        options: of the call, each with the value that holds: the default where nobody said anything. `stop_strings`,
            `forced_eos_token_id` and the values of `suppress_tokens`, `begin_suppress_tokens` and `bad_words_ids` are
            lists or None, `sequence_bias` is a dict or None, `min_length` is 0 beside `min_new_tokens`, and
            `max_new_tokens` is `new`.
        new: how many tokens to add at most.
        ends: the ids that end a row.
        pad: the id that fills a row after its end.
        copies: how many rows each row of the prompt becomes before anything is drawn; 1 in beam search.
        keys: of each row's noise; None: nothing is drawn.
    """

    options: GenerationConfig
    new: int
    ends: list[int]
    pad: int
    copies: int
    keys: list[tuple[int, int]] | None


def plan(
    model: Any,
    kind: ArrayKind,
    input_ids: Any,
    attention_mask: Any,
    generation_config: GenerationConfig | None,
    given: Mapping[str, Any],
    *,
    assistant: Any = None,
    streamed: bool = False,
    functions: Mapping[str, Any] | None = None,
) -> Plan:
    """Checks a call's arguments.

    Args:
        generation_config: as the call was given it; `model.generation_config` stands behind it.
        given: what the call was given by name beside the arguments of its own, options and unknown ones.
        assistant: the assistant model that it was given.
        streamed: whether it was given a streamer.
        functions: what it was given as lists of functions, by name.

    Raises:
        InputError: lists what is wrong: with the arrays, the other arguments, too few positions, or a model without
            the head.
    """
    call = _Call(model, generation_config, given)
    problems = [*_array_problems(model, kind, input_ids, attention_mask, call.options.overflow == "slide")]
    shape = tuple(input_ids.shape) if kind.is_array(input_ids) else ()
    call.rows, call.tokens = shape if len(shape) == 2 else (None, 0)
    call.assisted, call.streamed = assistant is not None, streamed
    problems += call.problems
    problems += assistant_problems(model, assistant) if call.assisted else []
    problems += _function_problems(functions or {})
    for check in _CHECKS:
        problems += check(call)
    if problems:
        raise InputError.listing("generate", problems)
    return _plan(call)


def resolve_options(
    model: Any, generation_config: GenerationConfig | None = None, given: Mapping[str, Any] | None = None
) -> GenerationConfig:
    """Returns the options of a call, each with the value that holds.

    Args:
        model: whose `generation_config` stands behind, and whose config's special tokens behind that.
        generation_config: the call's; wins over the model's.
        given: by name; win over both. None asks for nothing: for lengths and special tokens it is as if not given.

    Raises:
        InputError: lists every unknown name and every wrong value.
    """
    call = _Call(model, generation_config, given or {})
    if call.problems:
        raise InputError.listing("generate", call.problems)
    return call.options


class _Call:
    """The options of a call, and what they are checked against.

    Attributes:
        options: each with the value that holds.
        given: those that the call itself was given by name, without the wrong ones.
        sources: option -> who else said it; none for the call itself and for defaults.
        problems: unknown names and wrong values; what is wrong is left out.
        rows, tokens: of the prompt; None: not known.
        assisted: whether there is an assistant model.
        streamed: whether there is a streamer.
    """

    rows: int | None = None
    tokens = 0
    assisted = False
    streamed = False

    def __init__(self, model: Any, generation_config: Any, given: Mapping[str, Any]):
        self.config: GPTConfig = model.config
        self.options = GenerationConfig()
        self.sources: dict[str, str] = {}
        self.problems = [*other_problems({name: given[name] for name in given if name not in OPTIONS}, OWN)]
        stored = self._checked("model.generation_config", getattr(model, "generation_config", None))
        generation_config = self._checked("generation_config", generation_config)
        self._add("config", {name: value for name in IDS if (value := getattr(self.config, name)) is not None})
        self._add("model.generation_config", stored.following(self.config).said() if stored else {})
        self._add("generation_config", generation_config.said() if generation_config else {})
        self.problems += _stored_problems(stored, generation_config, given)
        self.given = self._add("", _asked(given))
        self._settle()

    def _checked(self, source: str, said: Any) -> GenerationConfig | None:
        if isinstance(said, GenerationConfig | None):
            return said
        self.problems.append(f"{source}: a {type(said).__name__}, expected a gptzoo.GenerationConfig")
        return None

    def _add(self, source: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Puts what one source says on top of those before; returns it without the wrong ones."""
        values = {name: plain(value) for name, value in values.items()}
        for name in [*values]:
            for problem in value_problems({name: values[name]}):
                self.problems.append(f"{source}.{problem}" if source else problem)
                del values[name]
        for pair in _PAIRS:
            if not values.keys().isdisjoint(pair):
                values = dict.fromkeys(pair) | values
        for name, value in values.items():
            setattr(self.options, name, value)
            self.sources[name] = source
        return {name: value for name, value in values.items() if value is not None}

    def _settle(self) -> None:
        """Fills in the defaults, and gives every option the one form that is read."""
        options = self.options
        if options.min_new_tokens is not None:
            options.min_length = 0
        for name, default in DEFAULTS.items():
            if getattr(options, name) is None:
                setattr(options, name, default)
        for name in ("stop_strings", "forced_eos_token_id"):
            value = getattr(options, name)
            setattr(options, name, None if value in (None, []) else _many(value))
        bias = options.sequence_bias
        options.sequence_bias = {tuple(ids): number for ids, number in bias} if isinstance(bias, list) else bias

    def says(self, name: str) -> str:
        """Returns how a message about an option begins: its name, its value, and who said it if not the call."""
        source = self.sources.get(name)
        return f"{name}: {short(getattr(self.options, name))}" + (f" (of {source})" if source else "")

    @property
    def ends(self) -> list[int]:
        eos = self.options.eos_token_id
        return [] if eos is None else _many(eos)

    @property
    def samples(self) -> bool:
        return self.options.do_sample is True

    @property
    def beams(self) -> int:
        return self.options.num_beams or 1

    @property
    def copies(self) -> int:
        return self.options.num_return_sequences or 1


def _stored_problems(
    stored: GenerationConfig | None, generation_config: GenerationConfig | None, given: Mapping[str, Any]
) -> Iterator[str]:
    """What a file asked for and nobody after it has said otherwise."""
    asked: dict[str, tuple[str, Any]] = {}
    for source, said in (("model.generation_config", stored), ("generation_config", generation_config)):
        asked |= {name: (source, value) for name, value in (said.foreign() if said else {}).items()}
    for name, (source, value) in asked.items():
        if name not in given:
            for problem in foreign_problems({name: value}, OPTIONS):
                yield f"{source}: {problem}; {source} = GenerationConfig() is without it"


def _asked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a call; None asks for nothing, but for those that it leaves as they are."""
    options = {name: value for name, value in given.items() if name in OPTIONS}
    options = {name: value for name, value in options.items() if value is not None or name not in _KEPT}
    return {name: OPTIONS[name]["none"] if value is None else value for name, value in options.items()}


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _array_problems(model: Any, kind: ArrayKind, input_ids: Any, attention_mask: Any, slides: bool) -> Iterator[str]:
    shape = tuple(input_ids.shape) if kind.is_array(input_ids) else ()
    if input_ids is None:
        yield "input_ids: None, expected token ids, (batch, tokens)"
    elif slides and len(shape) == 2 and shape[1] > model.config.n_positions:
        yield from _long_problems(model, kind, input_ids, attention_mask)
    else:
        yield from input_problems(model.config, kind, input_ids=input_ids, attention_mask=attention_mask)
    if model.head not in LM:
        yield f"{type(model).__name__} has no language model head"
    if len(shape) > 2 or 0 in shape[:1]:
        yield f"input_ids: shape {shape}, expected (batch, tokens)"


def _long_problems(model: Any, kind: ArrayKind, input_ids: Any, attention_mask: Any) -> Iterator[str]:
    """A prompt that is longer than a call of the model may be is looked at part by part."""
    width, problems = model.config.n_positions, dict[str, None]()
    if attention_mask is not None and (
        not kind.is_array(attention_mask) or tuple(attention_mask.shape) != tuple(input_ids.shape)
    ):
        found = tuple(attention_mask.shape) if kind.is_array(attention_mask) else type(attention_mask).__name__
        yield f"attention_mask: {found}, expected {kind.name} of shape {tuple(input_ids.shape)}"
        return
    for start in range(0, input_ids.shape[1], width):
        part = slice(start, start + width)
        mask = None if attention_mask is None else attention_mask[:, part]
        problems |= dict.fromkeys(input_problems(model.config, kind, input_ids=input_ids[:, part], attention_mask=mask))
    yield from problems


def _room(call: _Call) -> int:
    """Returns how many tokens can be added to the prompt."""
    return MOST_NEW_TOKENS if call.options.overflow == "slide" else call.config.n_positions - call.tokens


def _new_tokens(call: _Call) -> int:
    """Returns how many tokens to add at most, of options that are right."""
    options = call.options
    if options.max_new_tokens is not None:
        return options.max_new_tokens
    return min(NEW_TOKENS, _room(call)) if options.max_length is None else options.max_length - call.tokens


def _length_problems(call: _Call) -> Iterator[str]:
    options, tokens, room = call.options, call.tokens, _room(call)
    new, total = options.max_new_tokens, options.max_length
    if room < 1:
        if room == 0:  # more are a problem of the model's call
            limit = call.config.n_positions - 1
            yield f"input_ids: {tokens} tokens, expected at most {limit}: n_positions less a new one"
        return
    if new is not None and new > room:
        reason = "" if options.overflow == "slide" else ' (n_positions less the prompt; overflow="slide" has no limit)'
        yield f"{call.says('max_new_tokens')}, expected 1 to {room}{reason}"
    elif total is not None and new is not None and "max_length" in call.given and total != tokens + new:
        yield f"max_length: {total}, expected {tokens + new} (the prompt and max_new_tokens), or only one"
    elif total is not None and new is None and not tokens < total <= tokens + room:
        remedy = "; max_new_tokens says how many to add" if call.sources.get("max_length") else ""
        yield f"{call.says('max_length')}, expected {tokens + 1} to {tokens + room}, with the prompt's {tokens}{remedy}"
    else:
        yield from _least_problems(call, _new_tokens(call))


def _least_problems(call: _Call, new: int) -> Iterator[str]:
    """What a call wants at least must not be more than there is at most; what is stored gives way."""
    for name, most in (("min_new_tokens", new), ("min_length", call.tokens + new)):
        if call.given.get(name, 0) > most and getattr(call.options, name):
            yield f"{call.says(name)}, expected at most {most}: {new} tokens are added at most"


def _token_problems(call: _Call) -> Iterator[str]:
    """Ids that end or fill rows may be outside the vocabulary: the former never come, the latter are not read."""
    for name in IDS:
        value = getattr(call.options, name)
        if not all(0 <= token <= LARGEST_ID for token in _tokens(value)):
            yield f"{call.says(name)}, expected {OPTIONS[name]['rule'].expected}"
    largest = call.config.vocab_size - 1
    for name in _IN_VOCABULARY:
        if outside := sorted({token for token in _tokens(getattr(call.options, name)) if not 0 <= token <= largest}):
            ids = short(outside).strip("[]")
            yield f"{call.says(name)}, expected ids from 0 to {largest} (vocab_size), and not {ids}"


def _tokens(value: Any) -> Iterator[int]:
    """Yields every token id of an option, a list, or a dict by lists of them."""
    if isinstance(value, int):
        yield value
    elif value is not None:
        for entry in value:
            yield from _tokens(entry)


def _function_problems(functions: Mapping[str, Any]) -> Iterator[str]:
    for name, given in functions.items():
        if given is not None and not (isinstance(given, list | tuple) and all(map(callable, given))):
            yield f"{name}: {described(given)}, expected a list of functions"


def _forced_problems(call: _Call) -> Iterator[str]:
    """What no token could meet, whoever said it."""
    options = call.options
    suppressed = set(options.suppress_tokens or ())
    suppressed |= {word[0] for word in options.bad_words_ids or () if len(word) == 1}
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        if len(suppressed.union(getattr(options, name) or ())) == call.config.vocab_size:
            yield f"{call.says(name)}, expected one token at least that is left"
            break
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        forced = [*_tokens(getattr(options, name))]
        if forced and suppressed.issuperset(forced):
            yield f"{call.says(name)}, expected a token that is not suppressed or a bad word"


def _effect_problems(call: _Call) -> Iterator[str]:
    """What a call asks for and would not get; of stored options it is left alone."""
    met = {"do_sample": call.samples, "num_beams": call.beams > 1}
    wanted = {"do_sample": "do_sample=True", "num_beams": "num_beams above 1"}
    for name, value in call.given.items():
        needs = OPTIONS[name]["needs"]
        if needs and not met[needs] and value not in (OPTIONS[name]["default"], OPTIONS[name]["none"]):
            yield f"{name}: {short(value)}, expected {wanted[needs]} beside it: without, it has no effect"


def _search_problems(call: _Call) -> Iterator[str]:
    """What no kind of search does, whoever said it."""
    if call.samples and call.beams > 1:
        yield f"{call.says('do_sample')}, expected False beside num_beams {call.beams}: beams are not drawn here"
    elif call.copies > call.beams > 1:
        yield f"{call.says('num_return_sequences')}, expected at most num_beams, which is {call.beams}"
    elif call.copies > 1 and call.beams == 1 and not call.samples:
        yield f"{call.says('num_return_sequences')}, expected 1 without do_sample=True: they would all be equal"


def _draft_problems(call: _Call) -> Iterator[str]:
    drafts = {"prompt_lookup_num_tokens": "prompt_lookup_num_tokens" in call.given, "assistant_model": call.assisted}
    rows = (call.rows or 1) * call.copies
    for name in (name for name, is_asked in drafts.items() if is_asked):
        if call.beams > 1:
            yield f"{name}: given, expected none beside num_beams {call.beams}: beams have no drafts"
        elif rows > 1:
            yield f"{name}: given, expected none for {rows} rows: only a single one has drafts"
        elif call.options.use_cache is False:
            yield f"{name}: given, expected none beside use_cache=False: drafts are checked by the cache"
    if all(drafts.values()):
        yield "prompt_lookup_num_tokens: given, expected none beside assistant_model"


def _streamer_problems(call: _Call) -> Iterator[str]:
    rows = (call.rows or 1) * call.copies
    if call.streamed and call.beams > 1:
        yield f"streamer: given, expected none beside num_beams {call.beams}: what beams find is known at the end"
    elif call.streamed and rows > 1:
        yield f"streamer: given, expected none for {rows} rows: only a single one is streamed"


def _seed_problems(call: _Call) -> Iterator[str]:
    seed = call.options.seed
    if isinstance(seed, list) and call.rows is not None and len(seed) != call.rows:
        yield f"seed: {len(seed)} entries, expected one for each of {call.rows} rows of input_ids"


_CHECKS = (
    _length_problems,
    _token_problems,
    _search_problems,
    _effect_problems,
    _forced_problems,
    _draft_problems,
    _streamer_problems,
    _seed_problems,
)


def _plan(call: _Call) -> Plan:
    options, ends = call.options, call.ends
    pad = next(iter(ends), 0) if options.pad_token_id is None else options.pad_token_id
    new = _new_tokens(call)
    options.max_new_tokens, options.max_length = new, call.tokens + new
    rows = call.rows or 0
    if (call.beams > 1 or rows * call.copies > 1) or call.assisted:
        options.prompt_lookup_num_tokens = None  # of a stored file: the tokens are the same without
    copies = call.copies if call.samples else 1
    return Plan(options, new, ends, pad, copies, _keys(options.seed, rows, copies) if call.samples else None)


def _keys(seed: Any, rows: int, copies: int) -> list[tuple[int, int]]:
    """Returns the key of each completion's noise: a seed, and the completion's number among those with that seed."""
    if not isinstance(seed, list):
        one = next_seed() if seed is None else seed
        seed = [(one, row) for row in range(rows)]
    pairs = [(entry, 0) if isinstance(entry, int) else entry for entry in seed]
    return [(one, row * copies + copy) for one, row in pairs for copy in range(copies)]
