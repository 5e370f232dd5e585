"""Drawing tokens: what can be drawn and how often, the same tokens for a seed in every framework and in any batch."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from gptzoo.checkpoint import open_checkpoint, plan_load
from gptzoo.errors import GPTZooError, InputError
from gptzoo.generation import _seed, noise, set_seed
from gptzoo.generation._namespace import Namespace
from gptzoo.generation._processors import TABLE, Tokens, active, process
from gptzoo.generation._sampling import draw
from gptzoo.hub import DEFAULT_MODEL
from gptzoo.parity import load_runner
from gptzoo.reference._generation import draw as draw_of_reference
from gptzoo.reference._generation import philox, sample, uniform
from gptzoo.reference._processors import process as process_of_reference
from tests import matrix
from tests.matrix import TESTED

frameworks = pytest.mark.parametrize("framework", TESTED)

# temperature, top_k, top_p
SETTINGS: dict[str, tuple[float, int | None, float]] = {
    "plain": (1.0, None, 1.0),
    "cold": (0.3, None, 1.0),
    "hot": (2.5, None, 1.0),
    "top_k": (1.0, 7, 1.0),
    "top_p": (1.0, None, 0.6),
    "little_top_p": (1.0, None, 1e-9),
    "all": (1.4, 20, 0.8),
}
settings = pytest.mark.parametrize("setting", SETTINGS)
LEFT = np.array([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])


def named(setting: str) -> dict[str, Any]:
    return dict(zip(("temperature", "top_k", "top_p"), SETTINGS[setting], strict=True))


def warped(logits: Any, **options: Any) -> np.ndarray:
    """Returns what rows of logits (R, V) are drawn by."""
    logits = np.asarray(logits, np.float64)
    asked = SimpleNamespace(**(dict.fromkeys(TABLE) | {"do_sample": True} | options))
    static, values = active(asked, [], logits.shape[-1], 1)
    tokens = np.zeros((len(logits), 1), int)
    found: np.ndarray = process(Namespace(), static, values, Tokens(tokens, tokens == 0, 1, 1), logits)
    return found


def kept(logits: Any, **options: Any) -> list[int]:
    """Returns the ids that can be drawn from a row of logits (V,)."""
    return np.flatnonzero(np.isfinite(warped([logits], **options)[0])).tolist()


def some_logits(rows: int, size: int = 50) -> np.ndarray:
    return 2 * np.random.default_rng(5).standard_normal((rows, size)).astype(np.float32)


@cache
def model(framework: str, family: str = "gpt2", **overrides: Any) -> tuple[Any, Any, Any, np.ndarray]:
    config = matrix.tiny(family, **({"eos_token_id": None} | overrides))
    values = matrix.random_weights(config, "LMHeadModel", seed=2)
    ids = matrix.ids(config, np.random.default_rng(0), tokens=6)
    return config, values, matrix.build(framework, config, "LMHeadModel", values), ids


# The noise


def test_philox_gives_the_words_of_its_authors() -> None:
    """Known answers of Random123, the authors' library: for zeros, and for ones in every bit."""
    ones = 2**64 - 1
    zeros = (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)
    assert philox((0, 0, 0, 0), (0, 0)) == zeros
    full = (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)
    assert philox((ones, ones, ones, ones), (ones, ones)) == full


def test_noise_is_philox_as_defined() -> None:
    keys = [(0, 0), (3, 1), (2**64 - 1, 5), (1, 2**64 - 1)]
    assert noise(keys, 9).tolist() == [[uniform(key, step) for step in range(9)] for key in keys]


def test_noise_depends_on_its_row_and_step_only() -> None:
    assert np.array_equal(noise([(1, 0), (1, 1)], 5), noise([(1, 0), (4, 4), (1, 1)], 11)[[0, 2], :5])


def test_noise_is_even_and_neighbours_are_independent() -> None:
    """Chi-square of pairs on a grid of 16 x 16: along rows, along steps, and of neighbouring seeds."""
    table = noise([(7, row) for row in range(300)], 300)
    other = noise([(8, row) for row in range(300)], 300)
    assert table.min() >= 0
    assert table.max() < 1
    for one, two in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1]), (table, other)):
        counts = np.bincount(((one * 16).astype(int) * 16 + (two * 16).astype(int)).ravel(), minlength=256)
        assert _chi_square(counts, np.full(256, 1 / 256)) < 1


# What can be drawn


def _chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Pearson's statistic in units of its mean and four standard deviations: above 1, the distribution is wrong."""
    expected = counts.sum() * probabilities
    free = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum()) / (free + 4 * (2 * free) ** 0.5))


@settings
def test_distribution_is_that_of_transformers(setting: str) -> None:
    """Of the same logits, the second witness keeps the same tokens with the same probabilities."""
    torch = pytest.importorskip("torch")
    logits_process = pytest.importorskip("transformers.generation.logits_process")
    temperature, top_k, top_p = SETTINGS[setting]
    warpers = [logits_process.TemperatureLogitsWarper(temperature)]
    warpers += [logits_process.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [logits_process.TopPLogitsWarper(top_p)] if top_p < 1 else []
    for row in some_logits(200):
        scores = torch.from_numpy(row).double()[None]
        for warper in warpers:
            scores = warper(None, scores)
        wanted = scores.softmax(-1)[0].numpy()
        weights = np.exp(warped([row], **named(setting))[0])
        assert np.array_equal(np.flatnonzero(weights), np.flatnonzero(wanted))
        assert np.allclose(weights / weights.sum(), wanted, rtol=1e-12)


def test_ties_with_the_last_of_top_k_stay() -> None:
    assert kept([1.0, 3.0, 2.0, 2.0, 0.0], top_k=2) == [1, 2, 3]


def test_ties_at_the_end_of_top_p_go_to_lower_ids() -> None:
    logits = np.arange(512) % 8.0  # not few tokens, nor all equal: any sort leaves those in order
    probability = np.exp(7.0) / np.exp(logits).sum()
    assert kept(logits, top_p=30.5 * probability) == [8 * n + 7 for n in range(31)]
    assert kept(logits, top_k=5, top_p=30.5 / 64) == [8 * n + 7 for n in range(31)]  # of 64 that are equal
    assert kept([0.0, 9.0, 0.0, 9.0], top_p=0.5) == [1, 3]


def test_top_p_is_of_what_top_k_left() -> None:
    """Of the two most likely, 0.4 and 0.3, the first has 0.57 of what they have together."""
    logits = np.log([0.3, 0.4, 0.2, 0.1])
    assert kept(logits, top_k=2, top_p=0.5) == [1]
    assert kept(logits, top_k=2, top_p=0.6) == [0, 1]
    assert kept(logits, top_p=0.5) == [0, 1]


@pytest.mark.parametrize("choose", ["gptzoo", "reference"])
def test_the_token_at_which_the_weights_exceed_u(choose: str) -> None:
    logits = np.array([-np.inf, 0, np.log(2), -np.inf, 0, -np.inf])  # 0.25, 0.5, 0.25
    for u, token in ((0, 1), (0.2499, 1), (0.25, 2), (0.7499, 2), (0.75, 4), (1 - 2**-53, 4)):
        if choose == "gptzoo":
            found = draw(Namespace(), logits[None], np.array([u])).item()
        else:
            found = draw_of_reference(logits.tolist(), u)
        assert found == token


@settings
def test_frequencies_are_the_probabilities(setting: str) -> None:
    """16000 tokens of 4000 rows, all drawn from the same logits."""
    scores, numbers = warped(some_logits(1, 12), **named(setting)), noise([(0, row) for row in range(4000)], 4)
    weights = np.exp(scores[0])
    ids = np.flatnonzero(weights)
    drawn = np.concatenate([draw(Namespace(), np.repeat(scores, 4000, axis=0), u) for u in numbers.T])
    assert set(drawn.tolist()) <= set(ids.tolist())
    if len(ids) > 1:
        assert _chi_square(np.bincount(drawn, minlength=12)[ids], weights[ids] / weights.sum()) < 1


@settings
def test_draws_are_the_references(setting: str) -> None:
    """Of the same logits, by a text that shares none of its lines."""
    logits = some_logits(300)
    logits[::2] = logits[::2].round()  # with ties
    numbers = noise([(0, row) for row in range(300)], 2)[:, 1]
    scores = [process_of_reference(row, [0], named(setting), 1, 1, []) for row in logits.astype(np.float64).tolist()]
    wanted = [draw_of_reference(row, uniform((0, i), 1)) for i, row in enumerate(scores)]
    assert draw(Namespace(), warped(logits, **named(setting)), numbers).tolist() == wanted


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_smallest_temperature_draws_the_most_likely(dtype: Any) -> None:
    logits = some_logits(20).astype(dtype)
    with np.errstate(over="ignore"):
        scores = warped(logits, temperature=5e-324, top_p=0.9)
    assert np.array_equal(draw(Namespace(), scores, noise([(0, row) for row in range(20)], 1)[:, 0]), logits.argmax(-1))


# Models


@frameworks
@pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])
def test_ids_are_the_references(family: str, framework: str) -> None:
    config, values, runner, ids = model(framework, family)
    greedy = reference.greedy(config, values, ids, 10)
    for setting, (temperature, top_k, top_p) in SETTINGS.items():
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": 11}
        wanted = sample(config, values, ids, 10, LEFT, **options)
        native = runner.to_native(LEFT)
        found = runner.generate(ids, max_new_tokens=10, attention_mask=native, do_sample=True, **options)
        assert np.array_equal(found, wanted), setting
        assert setting == "little_top_p" or not np.array_equal(found, greedy)


PROMPT = np.array([[46, 281, 318, 262]])
# The defaults of do_sample=True, which keep 50 tokens, and what OpenAI's and Transformers' texts draw by.
CHOICES: tuple[dict[str, Any], ...] = (
    {},
    {"top_k": 40},
    {"top_k": 0, "top_p": 0.92},
    {"temperature": 0.7, "top_k": None},
)


@cache
def completions_by_the_bundled_model() -> list[np.ndarray]:
    checkpoint = open_checkpoint(DEFAULT_MODEL)
    weights = dict(plan_load(checkpoint, checkpoint.config, "LMHeadModel").values())
    more = {"seed": 1, "num_return_sequences": 3}
    return [sample(checkpoint.config, weights, PROMPT, 12, **more, **options) for options in CHOICES]


@frameworks
def test_ids_of_the_bundled_model_are_the_references(framework: str) -> None:
    config = open_checkpoint(DEFAULT_MODEL).config
    runner = load_runner(framework, DEFAULT_MODEL, config, "LMHeadModel", "float32")
    for options, wanted in zip(CHOICES, completions_by_the_bundled_model(), strict=True):
        found = runner.generate(PROMPT, max_length=16, do_sample=True, num_return_sequences=3, seed=1, **options)
        assert np.array_equal(found, wanted), options
        assert len({*map(tuple, wanted.tolist())}) == 3


@frameworks
def test_calls_of_the_documentation(framework: str) -> None:
    _, _, runner, ids = model(framework)
    inputs = {"attention_mask": runner.to_native(LEFT)}
    assert runner.generate(ids, do_sample=True, temperature=0.9, max_length=16).shape == (3, 16)
    assert runner.generate(ids, **inputs, max_new_tokens=10, do_sample=True).shape == (3, 16)
    assert runner.generate(ids, **inputs, max_length=16).shape == (3, 16)
    assert runner.generate(ids, **inputs, cache_implementation="static").shape == (3, 16)


@frameworks
def test_seeds(framework: str) -> None:
    _, _, runner, ids = model(framework)

    def drawn(seed: Any) -> Any:
        return runner.generate(ids, max_new_tokens=10, do_sample=True, temperature=2.0, seed=seed).tolist()

    assert drawn(1) == drawn(np.int64(1)) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(2**64 - 1) != drawn(0)
    assert drawn(None) != drawn(None)
    rows = drawn([5, 5, 5])
    assert drawn([5, 6, 5]) == [rows[0], drawn([0, 6, 0])[1], rows[2]]


@pytest.fixture
def unseeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes later tests draw by chance again."""
    monkeypatch.setattr(_seed, "_source", _seed._source)


@frameworks
@pytest.mark.usefixtures("unseeded")
def test_a_seeded_run_is_repeated(framework: str) -> None:
    """The calls' seeds are known numbers, so that all frameworks draw alike; greedy and refused calls take none."""
    config, values, runner, ids = model(framework)

    def drawn(seed: int) -> Any:
        set_seed(seed)
        first = runner.generate(ids, max_new_tokens=10, do_sample=True)
        runner.generate(ids, max_new_tokens=2)
        runner.generate(ids, max_new_tokens=2, do_sample=True, seed=7)
        with pytest.raises(InputError, match="top_p"):
            runner.generate(ids, do_sample=True, top_p=2)
        return np.stack([first, runner.generate(ids, max_new_tokens=10, do_sample=True)])

    source = random.Random(42)
    wanted = [sample(config, values, ids, 10, seed=source.getrandbits(64)) for _ in range(2)]
    found = drawn(42)
    assert np.array_equal(found, wanted)
    assert np.array_equal(found, drawn(np.int64(42)))
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found, drawn(43))


@frameworks
@pytest.mark.usefixtures("unseeded")
def test_set_seed_seeds_other_generators(framework: str) -> None:
    def numbers() -> list[float]:
        set_seed(5)
        found = [random.random(), np.random.random()]  # noqa: NPY002
        if framework == "torch":
            found.append(pytest.importorskip("torch").rand(1).item())
        if framework == "keras":
            keras = pytest.importorskip("keras")
            found += [float(keras.random.uniform(())), float(keras.random.uniform(()))]
        return found

    once = numbers()
    assert once == numbers()
    assert len({*once}) == len(once)


@pytest.mark.usefixtures("unseeded")
def test_threads_share_the_seeds() -> None:
    set_seed(1)
    source = random.Random(1)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: _seed.next_seed(), range(2000)))
    assert sorted(found) == sorted(source.getrandbits(64) for _ in range(2000))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, None, "1", [1]], ids=str)
def test_set_seed_refuses(seed: Any) -> None:
    with pytest.raises(InputError, match=r"^seed: .*, expected an integer from 0 to 2\*\*32 - 1$"):
        set_seed(seed)


@frameworks
def test_equal_rows_are_drawn_apart(framework: str) -> None:
    _, _, runner, ids = model(framework)
    found = runner.generate(np.repeat(ids[:1], 3, axis=0), max_new_tokens=10, do_sample=True, temperature=2.0, seed=1)
    assert len({*map(tuple, found.tolist())}) == 3


@frameworks
def test_rows_with_seeds_of_their_own_do_not_depend_on_the_batch(framework: str) -> None:
    """Padded and together, or without padding and alone: the same tokens, whatever else is in the batch."""
    _, _, runner, ids = model(framework)
    options = {"max_new_tokens": 10, "do_sample": True, "top_k": 0, "num_return_sequences": 2}
    together = runner.generate(ids, attention_mask=runner.to_native(LEFT), seed=[7, 8, 7], **options)
    for row in range(3):
        start = int((LEFT[row] == 0).sum())
        alone = runner.generate(ids[row : row + 1, start:], seed=[[7, 8, 7][row]], **options)
        assert np.array_equal(together[2 * row : 2 * row + 2, start:], alone)
    first = runner.generate(ids[:1, 3:], seed=7, **options)  # of one row, the seed and the list of it are the same
    assert np.array_equal(together[:2, 3:], first)


@frameworks
def test_right_padding_is_the_references(framework: str) -> None:
    config, values, runner, ids = model(framework)
    mask = LEFT[:, ::-1].copy()
    wanted = sample(config, values, ids, 4, mask, seed=3)
    assert np.array_equal(wanted[0, 6:], sample(config, values, ids[:1, :3], 4, seed=[3])[0, 3:])
    found = runner.generate(ids, max_new_tokens=4, attention_mask=runner.to_native(mask), do_sample=True, seed=3)
    assert np.array_equal(found, wanted)


@frameworks
def test_a_batch_is_drawn_the_same_however_it_is_split(framework: str) -> None:
    config, values, runner, ids = model(framework)
    options = {"max_new_tokens": 6, "do_sample": True, "num_return_sequences": 2}
    whole = runner.generate(ids, seed=7, **options)
    keys = [(7, row) for row in range(len(ids))]
    for cut in (1, 2):
        parts = [runner.generate(ids[part], seed=keys[part], **options) for part in (slice(cut), slice(cut, None))]
        assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(sample(config, values, ids[1:], 6, seed=keys[1:], num_return_sequences=2), whole[2:])


@frameworks
def test_more_sequences_are_more_rows(framework: str) -> None:
    _, _, runner, ids = model(framework)
    options = {"do_sample": True, "seed": 4}
    found = runner.generate(ids, max_new_tokens=8, num_return_sequences=2, **options)
    assert np.array_equal(found, runner.generate(np.repeat(ids, 2, axis=0), max_new_tokens=8, **options))
    assert np.array_equal(found[:, :10], runner.generate(ids, max_new_tokens=4, num_return_sequences=2, **options))


@frameworks
def test_drawn_rows_end_and_are_filled(framework: str) -> None:
    config, values, runner, ids = model(framework)
    free = sample(config, values, ids, 10, seed=1)
    ends = [int(free[0, 8]), int(free[1, 10])]
    for given in ({"eos_token_id": ends}, {"eos_token_id": ends, "pad_token_id": 1}):
        wanted = sample(config, values, ids, 10, seed=1, **given)  # type: ignore[arg-type]
        assert not np.array_equal(wanted, free[:, : wanted.shape[1]])
        assert np.array_equal(runner.generate(ids, max_new_tokens=10, do_sample=True, seed=1, **given), wanted)


@frameworks
def test_one_token_to_choose_from_is_the_most_likely(framework: str) -> None:
    config, values, runner, ids = model(framework)
    wanted = reference.greedy(config, values, ids, 10)
    options: tuple[dict[str, Any], ...] = ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-300})
    for one in options:
        assert np.array_equal(runner.generate(ids, max_new_tokens=10, do_sample=True, **one), wanted)


@frameworks
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype: str, framework: str) -> None:
    _, _, runner, ids = model(framework, dtype=dtype)
    once, again = (runner.generate(ids, max_new_tokens=10, do_sample=True, seed=1) for _ in range(2))
    assert np.array_equal(once, again)
    assert len({*once[:, 6:].ravel().tolist()}) > 5


@frameworks
def test_weights_that_are_no_numbers_are_an_error(framework: str) -> None:
    config, values, _, ids = model(framework)
    name = "transformer.ln_f.weight"
    runner = matrix.build(framework, config, "LMHeadModel", values | {name: np.full_like(values[name], np.nan)})
    with pytest.raises(GPTZooError, match="generate: infinite logits or not numbers at new token 1"):
        runner.generate(ids, max_new_tokens=2, do_sample=True)
