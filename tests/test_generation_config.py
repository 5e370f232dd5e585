"""GenerationConfig: what its class takes, its files, and what models do with theirs."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from gptzoo import GenerationConfig, reference
from gptzoo.errors import ConfigError, GPTZooError, InputError
from gptzoo.generation._arguments import OWN
from gptzoo.generation._config import DEFAULTS, GENERATION_FILE, OPTIONS, OURS
from gptzoo.generation._others import HARMLESS, NEUTRAL, UNUSED
from gptzoo.weights import LM
from tests import matrix
from tests.fuzz import mutate
from tests.generation_calls import VALUES
from tests.matrix import TESTED

frameworks = pytest.mark.parametrize("framework", TESTED)

# What Transformers 4.57 and 5 write of a GPT-2, and 4.57 of a changed one.
WRITTEN: dict[str, str] = {
    "4.57 gpt2": '{"_from_model_config": true, "bos_token_id": 50256, "eos_token_id": 50256,'
    ' "transformers_version": "4.57.6"}',
    "5 gpt2": '{"_from_model_config": true, "bos_token_id": 50256, "eos_token_id": 50256, "output_attentions": false,'
    ' "output_hidden_states": false, "transformers_version": "5.23.0", "use_cache": true}',
    "4.57 changed": '{"bad_words_ids": [[1]], "do_sample": true, "eos_token_id": [50256, 198], "max_length": 50,'
    ' "sequence_bias": {"(1, 2)": 3.0, "(7,)": -1.0}, "cache_implementation": "static", "low_memory": null,'
    ' "temperature": 0.7, "top_k": 5, "num_beam_groups": 1, "transformers_version": "4.57.6"}',
}


# The class and its files


def test_values_of_this_file_are_of_every_option() -> None:
    assert list(VALUES) == list(OPTIONS)
    assert {entry.name for entry in fields(GenerationConfig)} == set(OPTIONS)


def test_every_option_has_its_line_in_the_documentation() -> None:
    text = GenerationConfig.__doc__ or ""
    assert [name for name in OPTIONS if f"        {name}: " not in text] == []


def test_nothing_is_said_at_first() -> None:
    nothing = GenerationConfig()
    assert nothing.to_dict() == {}
    assert all(getattr(nothing, name) is None for name in OPTIONS)
    assert (
        repr(GenerationConfig(top_k=5, sequence_bias={(1,): 2}))
        == "GenerationConfig(top_k=5, sequence_bias=[[[1], 2]])"
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_round_trip(name: str, tmp_path: Path) -> None:
    once = GenerationConfig(**{name: VALUES[name]})
    once.save_pretrained(tmp_path)
    assert json.loads((tmp_path / GENERATION_FILE).read_text()) == {name: VALUES[name]}
    again = GenerationConfig.from_pretrained(tmp_path)
    assert again == once
    assert again == GenerationConfig.from_pretrained(tmp_path / GENERATION_FILE)
    assert again != GenerationConfig()
    assert getattr(again, name) == VALUES[name]
    assert pickle.loads(pickle.dumps(once)) == once.copy() == once


@pytest.mark.parametrize("version", WRITTEN)
def test_files_of_transformers(version: str, tmp_path: Path) -> None:
    """They load, and what they hold of other software's is there when they are written again."""
    (tmp_path / GENERATION_FILE).write_text(WRITTEN[version])
    found = GenerationConfig.from_pretrained(tmp_path)
    wanted = json.loads(WRITTEN[version])
    if "sequence_bias" in wanted:
        assert found.sequence_bias == {(1, 2): 3.0, (7,): -1.0}
        wanted["sequence_bias"] = [[[1, 2], 3.0], [[7], -1.0]]
    found.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / GENERATION_FILE).read_text()) == wanted
    assert found.eos_token_id == wanted["eos_token_id"]


def test_transformers_reads_what_is_written(tmp_path: Path) -> None:
    theirs = pytest.importorskip("transformers").GenerationConfig
    GenerationConfig(**VALUES).save_pretrained(tmp_path)
    found = theirs.from_pretrained(tmp_path)
    assert {name: getattr(found, name) for name in OPTIONS if hasattr(found, name)} == VALUES


def test_reads_what_transformers_writes(tmp_path: Path) -> None:
    theirs = pytest.importorskip("transformers").GenerationConfig
    known = {name: value for name, value in VALUES.items() if name not in OURS}
    theirs(**known).save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path) == GenerationConfig(**known)


def test_numbers_and_tuples_of_all_kinds_are_the_same() -> None:
    one = GenerationConfig(
        top_k=np.int64(5), temperature=np.float32(0.5), eos_token_id=(1, np.int8(2)), sequence_bias={(np.int64(1),): 2}
    )
    assert one == GenerationConfig(top_k=5, temperature=0.5, eos_token_id=[1, 2], sequence_bias={(1,): 2})
    assert json.loads(one.to_json_string())["eos_token_id"] == [1, 2]
    assert type(one.temperature) is float


def test_overrides_and_update(tmp_path: Path) -> None:
    GenerationConfig(top_k=5, top_p=0.5).save_pretrained(tmp_path)
    found = GenerationConfig.from_pretrained(tmp_path, top_k=9, top_p=None)
    assert found.to_dict() == {"top_k": 9}
    with pytest.raises(ConfigError, match="top_k: -1, expected"):
        found.update(temperature=0.5, top_k=-1)
    assert found.to_dict() == {"top_k": 9}
    words = [[1, 2]]
    found.update(bad_words_ids=words)
    words[0].append(3)
    assert found.bad_words_ids == [[1, 2]]
    other = found.copy()
    other.bad_words_ids[0].append(4)
    assert found.bad_words_ids == [[1, 2]]


def test_what_is_set_later_is_checked_when_it_is_written(tmp_path: Path) -> None:
    one = GenerationConfig()
    one.temperature = "hot"  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="GenerationConfig: temperature: 'hot', expected a number above 0"):
        one.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="not to be written as JSON"):
        GenerationConfig(_own={1, 2}).save_pretrained(tmp_path)


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        GenerationConfig(temprature=1, top_p=7, penalty_alpha=0.6, banana=1)
    assert str(caught.value).splitlines() == [
        "GenerationConfig (4 problems):",
        "  top_p: 7, expected a number above 0, to 1",
        "  unknown argument 'temprature', did you mean temperature?",
        "  penalty_alpha: 0.6, expected 0 (anything else is not implemented yet)",
        "  unknown argument 'banana'",
    ]


NOT_JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "list": (b"[]", "holds a JSON list, expected an object"),
    "twice": (b'{"top_k": 1, "top_k": 2}', "key 'top_k' stands twice"),
    "nan": (b'{"temperature": NaN}', "NaN is not a JSON number"),
    "infinite": (b'{"temperature": 1e999}', "temperature: inf, expected a number above 0"),
    "huge": (b'{"temperature": 1' + b"0" * 400 + b"}", r"temperature: 10+\.\.\., expected a number above 0"),
    "deep": (b'{"eos_token_id": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
    "nested": (b'{"eos_token_id": ' + b"[" * 50 + b"]" * 50 + b"}", "eos_token_id: .*, expected a token id"),
    "not UTF-8": (b'{"\xff": 1}', "not UTF-8"),
    "large": (b" " * 2**20 + b"{}", "expected at most 1048576"),
    "web page": (b"<html>", "this is a web page"),
    "flag": (b'{"do_sample": 1}', "do_sample: 1, expected True or False"),
    "bias": (b'{"sequence_bias": {"a": 1}}', "sequence_bias: {'a': 1}, expected numbers by tuples of token ids"),
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_bad_files(case: str, tmp_path: Path) -> None:
    content, message = NOT_JSON[case]
    (tmp_path / GENERATION_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{GENERATION_FILE}: .*{message}"):
        GenerationConfig.from_pretrained(tmp_path)


FOREIGN = {
    "unknown": (b'{"tempreature": 2}', "unknown argument 'tempreature', did you mean temperature"),
    "not ours": (b'{"guidance_scale": 2}', r"guidance_scale: 2, expected 1 \(anything else is not implemented yet\)"),
    "control": (b'{"\\u001b[31m": 2}', r"unknown argument '\\x1b\[31m'"),
}


@frameworks
def test_foreign_entries_keep_no_model_from_being_loaded(framework: str, tmp_path: Path) -> None:
    """They are written back, and refused when they would be used."""
    runner = matrix.build(framework, matrix.tiny("gpt2"), "LMHeadModel")
    model, ids = runner.model, runner.to_native(np.array([[1, 2]]))
    model.save_pretrained(tmp_path)
    for content, message in FOREIGN.values():
        (tmp_path / GENERATION_FILE).write_bytes(content)
        loaded = type(model).from_pretrained(tmp_path)
        with pytest.raises(InputError, match=f"generate: model.generation_config: {message}"):
            loaded.generate(ids)
        loaded.save_pretrained(tmp_path)
        assert json.loads((tmp_path / GENERATION_FILE).read_bytes()) == json.loads(content)
        with pytest.raises(InputError, match=f"generate: generation_config: {message}"):
            model.generate(ids, GenerationConfig.from_pretrained(tmp_path))
    (tmp_path / GENERATION_FILE).write_text('{"guidance_scale": 2}')
    for call in ({"guidance_scale": 1}, {"generation_config": GenerationConfig(guidance_scale=1)}):  # a call wins
        assert type(model).from_pretrained(tmp_path).generate(ids, max_new_tokens=1, **call).shape == (1, 3)
    assert GenerationConfig.from_dict({"guidance_scale": 2}).to_dict() == {"guidance_scale": 2}
    loaded.generation_config = GenerationConfig(max_new_tokens=1)
    assert loaded.generate(ids).shape == (1, 3)


def test_without_a_file_the_config_says_it(tmp_path: Path) -> None:
    config = matrix.tiny("gpt2", eos_token_id=7)
    config.save_pretrained(tmp_path)
    found = GenerationConfig.from_pretrained(tmp_path, top_k=3)
    wanted = GenerationConfig.from_model_config(config)
    wanted.update(top_k=3)
    assert found == wanted
    assert found.eos_token_id == 7
    assert GenerationConfig.from_pretrained("gptzoo/shakespeare").max_length is None


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{GENERATION_FILE}: no such file"):
        GenerationConfig.from_pretrained(tmp_path)
    (tmp_path / GENERATION_FILE).mkdir()
    with pytest.raises(ConfigError, match="not a regular file"):
        GenerationConfig.from_pretrained(tmp_path)
    with pytest.raises(GPTZooError, match="no such file or directory"):
        GenerationConfig.from_pretrained(tmp_path / "absent")


def test_falsified_files_are_read_or_refused(tmp_path: Path) -> None:
    data = json.dumps(VALUES | {"_from_model_config": True, "sequence_bias": {"(4, 5)": 1.5}}).encode()
    path, rng, seen = tmp_path / GENERATION_FILE, np.random.default_rng(0), set()
    for _ in range(300):
        path.write_bytes(mutate(data, rng))
        try:
            GenerationConfig.from_pretrained(path).to_json_string()
            seen.add("read")
        except ConfigError as problem:
            seen.add("refused" if str(problem).startswith(f"{path}: ") else f"{problem}")
    assert seen == {"read", "refused"}


def test_harmless_entries_of_other_software() -> None:
    kept = dict.fromkeys(HARMLESS, "anything") | {"_mark": [1], "dola_layers": None, "trace": True, "chat_format": None}
    assert GenerationConfig(**kept).to_dict() == kept
    assert GenerationConfig(**kept, top_k=5) != GenerationConfig(top_k=5)
    assert GenerationConfig(_from_model_config=True, transformers_version="5") == GenerationConfig()


def test_every_option_of_transformers_is_known() -> None:
    """And its defaults are those here, but for three that are said to be others."""
    theirs = pytest.importorskip("transformers").GenerationConfig
    names = {name for name in vars(theirs()) if not name.startswith("_")} - {"transformers_version"}
    assert names <= {*OPTIONS, *NEUTRAL, *UNUSED}
    assert set(OPTIONS) - set(OURS) <= names
    defaults = theirs._get_default_generation_params()
    other = {name for name, value in defaults.items() if name in OPTIONS and value != DEFAULTS[name]}
    assert other == {"max_length", "num_assistant_tokens"}
    assert not {*OWN} & {*NEUTRAL, *UNUSED}


# Models


@frameworks
@pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])
def test_models_have_theirs(family: str, framework: str, tmp_path: Path) -> None:
    config = matrix.tiny(family, bos_token_id=None, eos_token_id=3, pad_token_id=5)
    model = matrix.build(framework, config, "LMHeadModel").model
    assert model.generation_config.to_dict() == {"_from_model_config": True, "eos_token_id": 3, "pad_token_id": 5}
    model.generation_config.pad_token_id = 6
    model.config.eos_token_id = model.config.pad_token_id = 7  # what was changed above does not follow it
    model.generation_config.top_k = 9
    model.save_pretrained(tmp_path)
    wanted = {"_from_model_config": True, "eos_token_id": 7, "pad_token_id": 6, "top_k": 9}
    assert json.loads((tmp_path / GENERATION_FILE).read_text()) == wanted
    load = type(model).from_pretrained
    assert load(tmp_path).generation_config.to_dict() == wanted
    assert load(tmp_path, eos_token_id=8).generation_config.to_dict() == wanted | {"eos_token_id": 8}
    (tmp_path / GENERATION_FILE).write_text('{"top_k": -5}')
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/{GENERATION_FILE}: GenerationConfig: top_k: -5, expected"):
        load(tmp_path)
    (tmp_path / GENERATION_FILE).unlink()
    wanted = {"_from_model_config": True, "eos_token_id": 7, "pad_token_id": 7}
    assert load(tmp_path).generation_config.to_dict() == wanted


@frameworks
@pytest.mark.parametrize("head", ["LMHeadModel", "DoubleHeadsModel", "Model", "ForSequenceClassification"])
def test_heads_that_generate(head: str, framework: str, tmp_path: Path) -> None:
    model = matrix.build(framework, matrix.tiny("gpt2"), head).model
    (tmp_path / GENERATION_FILE).write_text("old")
    model.save_pretrained(tmp_path)
    assert (model.generation_config is not None) == (tmp_path / GENERATION_FILE).exists() == (head in LM)


@frameworks
def test_generates_by_its_options_and_a_calls_win(framework: str) -> None:
    config = matrix.tiny("gpt2", eos_token_id=None)
    values = matrix.random_weights(config, "LMHeadModel", seed=2)
    runner = matrix.build(framework, config, "LMHeadModel", values)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=4)
    wanted = reference.greedy(config, values, ids, 5)
    runner.model.generation_config = GenerationConfig(max_length=9)
    assert np.array_equal(runner.generate(ids), wanted)
    assert np.array_equal(runner.generate(ids, generation_config=GenerationConfig(max_new_tokens=4)), wanted[:, :8])
    assert np.array_equal(
        runner.generate(ids, generation_config=GenerationConfig(max_length=6), max_new_tokens=4), wanted[:, :8]
    )
