"""Options and arguments of Transformers' generate that are not implemented: taken where they ask for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

from gptzoo._settings import short, unknown_argument

# Values beside None and [] that ask for nothing, and names. To Python, False is 0 and True is 1: no dict has both.
_NAMES: list[tuple[tuple[Any, ...], str]] = [
    (
        (),
        """
        assistant_early_exit assistant_ensemble_weight assistant_tokenizer cache_config compile_config constraints
        continuous_batching_config custom_generate decoder_start_token_id dola_layers encoder_attention_mask
        encoder_hidden_states force_words_ids head_mask inputs inputs_embeds max_cache_len
        negative_prompt_attention_mask negative_prompt_ids past_key_values position_ids prefill_chunk_size
        prefix_allowed_tokens_fn prng_key speculation_type token_type_ids top_h watermarking_config
        """,
    ),
    (
        (False,),
        """
        is_assistant low_memory output_attentions output_hidden_states remove_invalid_values synced_gpus token_healing
        use_mtp
        """,
    ),
    ((0,), "diversity_penalty encoder_no_repeat_ngram_size penalty_alpha"),
    ((1,), "encoder_repetition_penalty guidance_scale num_beam_groups"),
    ((True,), "trace"),
    ((False, True), "disable_compile use_model_defaults"),
    (("static", "dynamic"), "cache_implementation"),  # ours is static; the tokens are those of any
]
NEUTRAL = {name: values for values, names in _NAMES for name in names.split()}

# What has an effect only beside one of the above.
_UNUSED = """
    assistant_confidence_threshold assistant_lookbehind num_assistant_tokens_schedule target_lookbehind
    """
UNUSED = frozenset(_UNUSED.split())

# Names in generation_config.json that change no token: how to compute, what else to return, who wrote the file.
_HARMLESS = """
    cache_config cache_implementation compile_config continuous_batching_config disable_compile is_assistant low_memory
    max_cache_len output_attentions output_hidden_states prefill_chunk_size return_legacy_cache transformers_version
    """
HARMLESS = UNUSED | frozenset(_HARMLESS.split())

_OTHERWISE = "anything else is not implemented yet"
_HINTS = {
    "inputs": "it is another name of input_ids, which is given too",
    "token_type_ids": "not implemented yet in generate; a tokenizer's return_token_type_ids=False leaves them out",
}


def take_prompt(input_ids: Any, others: dict[str, Any]) -> Any:
    """Returns `input_ids`, or without it `inputs`, Transformers' name of the same, which is taken out of `others`."""
    return others.pop("inputs", None) if input_ids is None else input_ids


def other_problems(others: Mapping[str, Any], own: Iterable[str]) -> Iterator[str]:
    """Yields what is wrong with arguments beside generate's own: they are not known, or ask for something."""
    for name, value in others.items():
        if name in NEUTRAL and not _is_neutral(value, NEUTRAL[name]):
            fine = " or ".join(map(repr, NEUTRAL[name])) or "None"
            yield f"{name}: {described(value)}, expected {fine} ({_HINTS.get(name, _OTHERWISE)})"
        if name not in NEUTRAL and name not in UNUSED:
            yield unknown_argument(name, own, NEUTRAL)


def foreign_problems(foreign: Mapping[str, Any], own: Iterable[str]) -> Iterator[str]:
    """Yields what is wrong with entries of generation_config.json that are not ours.

    Those that say how to compute, that begin with an underscore, or that say nothing, are fine.
    """
    asking = {name: value for name, value in foreign.items() if value is not None and name not in HARMLESS}
    return other_problems({name: value for name, value in asking.items() if not name.startswith("_")}, own)


def described(value: Any) -> str:
    """Returns a value as a message shows it."""
    return "an array" if getattr(value, "shape", ()) else short(value)


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    if isinstance(value, Real | str):
        return value in neutral
    return value is None or (isinstance(value, list) and not value)
