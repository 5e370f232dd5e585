"""Arguments of Transformers' generate that are not implemented: taken where they ask for nothing, otherwise refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from gptzoo._settings import short, unknown_argument

# Values beside None and [] that ask for nothing, and names. To Python, False is 0 and True is 1: no dict has both.
_NAMES: list[tuple[tuple[Any, ...], str]] = [
    (
        (),
        """
        assistant_early_exit assistant_ensemble_weight assistant_model assistant_tokenizer bad_words_ids
        begin_suppress_tokens cache_config compile_config constraints continuous_batching_config custom_generate
        decoder_start_token_id dola_layers encoder_attention_mask encoder_hidden_states
        exponential_decay_length_penalty force_words_ids forced_bos_token_id forced_eos_token_id generation_config
        head_mask inputs inputs_embeds logits_processor max_cache_len max_matching_ngram_size max_time
        negative_prompt_attention_mask negative_prompt_ids past_key_values position_ids prefill_chunk_size
        prefix_allowed_tokens_fn prng_key prompt_lookup_num_tokens sequence_bias speculation_type stop_strings
        stopping_criteria streamer suppress_tokens token_type_ids top_h watermarking_config
        """,
    ),
    (
        (False,),
        """
        early_stopping is_assistant low_memory output_attentions output_hidden_states output_logits output_scores
        remove_invalid_values renormalize_logits return_dict_in_generate synced_gpus token_healing use_mtp
        """,
    ),
    (
        (0,),
        """
        diversity_penalty encoder_no_repeat_ngram_size epsilon_cutoff eta_cutoff min_length min_new_tokens min_p
        no_repeat_ngram_size penalty_alpha
        """,
    ),
    (
        (1,),
        """
        encoder_repetition_penalty guidance_scale length_penalty num_beam_groups num_beams repetition_penalty typical_p
        """,
    ),
    ((True,), "trace"),
    ((False, True), "disable_compile use_cache use_model_defaults"),
    (("static", "dynamic"), "cache_implementation"),  # ours is static; the tokens are those of any
]
NEUTRAL = {name: values for values, names in _NAMES for name in names.split()}

# What has an effect only without a prompt, or beside one of the above.
_UNUSED = """
    assistant_confidence_threshold assistant_lookbehind bos_token_id num_assistant_tokens num_assistant_tokens_schedule
    target_lookbehind tokenizer
    """
UNUSED = frozenset(_UNUSED.split())

_OTHERWISE = "anything else is not implemented yet"
_HINTS = {
    "inputs": "it is another name of input_ids, which is given too",
    "token_type_ids": "not implemented yet in generate; a tokenizer's return_token_type_ids=False leaves them out",
}


def take_prompt(input_ids: Any, others: dict[str, Any]) -> Any:
    """Returns `input_ids`, or without it `inputs`, Transformers' name of the same, which is taken out of `others`."""
    return others.pop("inputs", None) if input_ids is None else input_ids


def other_problems(others: Mapping[str, Any], own: Sequence[str]) -> Iterable[str]:
    """Yields what is wrong with arguments beside generate's own: they are not known, or ask for something."""
    for name, value in others.items():
        if name in NEUTRAL and not _is_neutral(value, NEUTRAL[name]):
            fine = " or ".join(map(repr, NEUTRAL[name])) or "None"
            given = "an array" if getattr(value, "shape", ()) else short(value)
            yield f"{name}: {given}, expected {fine} ({_HINTS.get(name, _OTHERWISE)})"
        if name not in NEUTRAL and name not in UNUSED:
            yield unknown_argument(name, own, NEUTRAL)


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    if isinstance(value, Real | str):
        return value in neutral
    return value is None or (isinstance(value, list) and not value)
