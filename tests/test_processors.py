"""What options do to scores: the same in every framework as by the reference's text, and as by Transformers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gptzoo.generation._namespace import Namespace
from gptzoo.generation._processors import TABLE, Tokens, active, process
from gptzoo.generation._sampling import draw
from gptzoo.reference._generation import draw as draw_of_reference
from gptzoo.reference._processors import log_softmax
from gptzoo.reference._processors import process as process_of_reference
from tests.matrix import TESTED

ROWS, COLUMNS, VOCABULARY, NEW = 3, 9, 14, 5
TOLERANCE = 1e-12
FRAMEWORKS = ["numpy", *TESTED]
frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)

# No sum of weights below falls on one of these.
SHARES = st.sampled_from([0.0137, 0.1471, 0.3713, 0.6127, 0.9041])
FACTORS = st.sampled_from([0.3, 0.77, 1.3, 2.6])
IDS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=4)
FEW = st.integers(0, 3)  # ids that occur in most rows, so that sequences of them do
# As many as long in every example: another shape of them is another program.
WORDS = st.tuples(*(st.lists(FEW, min_size=n, max_size=n) for n in (1, 1, 2, 2, 2, 3))).map(list)
BIASES = st.tuples(*[st.sampled_from([-1.5, 0.25, 4.0])] * 6)

# Option -> its values. What a program is compiled for is one number, or two.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "sequence_bias": st.builds(lambda words, biases: [*map(list, zip(words, biases, strict=True))], WORDS, BIASES),
    "repetition_penalty": FACTORS,
    "no_repeat_ngram_size": st.sampled_from([1, 2, 3]),
    "bad_words_ids": WORDS,
    "min_length": st.integers(1, COLUMNS + 1),
    "min_new_tokens": st.integers(1, NEW),
    "forced_bos_token_id": FEW,
    "forced_eos_token_id": FEW | IDS,
    "exponential_decay_length_penalty": st.tuples(st.integers(0, 3), FACTORS),
    "suppress_tokens": IDS,
    "begin_suppress_tokens": IDS,
    "temperature": FACTORS,
    "top_k": st.sampled_from([1, 5, VOCABULARY, VOCABULARY + 1]),
    "top_p": SHARES,
    "min_p": SHARES,
    "typical_p": SHARES,
    "epsilon_cutoff": SHARES,
    "eta_cutoff": SHARES,
    "renormalize_logits": st.just(True),
}
NOTHING: dict[str, Any] = dict.fromkeys(TABLE) | {"do_sample": True}


class Problem(NamedTuple):
    """Rows with padding on the left, and with anything in the columns that are not filled."""

    tokens: Tokens
    scores: np.ndarray
    ends: list[int]

    def rows(self) -> list[list[int]]:
        ids, real, length, _ = self.tokens
        return [row[there].tolist() for row, there in zip(ids[:, :length], real[:, :length], strict=True)]

    def expected(self, options: dict[str, Any]) -> np.ndarray:
        prompts = self.tokens.real[:, : self.tokens.prompt].sum(axis=1).tolist()
        rows = zip(self.scores.tolist(), self.rows(), prompts, strict=True)
        return np.array([process_of_reference(row, ids, options, n, NEW, self.ends) for row, ids, n in rows])


@st.composite
def problems(pick: Any, padded: bool = True) -> Problem:
    prompt = pick(st.integers(1, COLUMNS - NEW + 1))
    length = pick(st.integers(prompt, prompt + NEW - 1))
    ids = pick(arrays(int, (ROWS, COLUMNS), elements=FEW | st.integers(0, VOCABULARY - 1)))
    ids[:, length:] = pick(st.sampled_from([0, 1, VOCABULARY, 10**6]))
    real = np.ones((ROWS, COLUMNS), bool)
    for row in range(ROWS if padded else 0):
        real[row, : pick(st.integers(0, prompt - 1))] = False
    # Few values make ties.
    values = st.sampled_from([-np.inf, -2.75, -0.5, 0.0, 1.25, 3.5]) | st.floats(-6, 6)
    scores = pick(arrays(np.float64, (ROWS, VOCABULARY), elements=values))
    scores[:, 4] = pick(st.sampled_from([0.5, 3.5]))  # not all are minus infinity
    return Problem(Tokens(ids, real, length, prompt), scores, pick(st.lists(FEW, max_size=2, unique=True)))


def namespace(framework: str) -> Namespace:
    """Imports a framework's only where it is tested."""
    module = "gptzoo.generation" if framework == "numpy" else f"gptzoo.{framework}"
    found: Namespace = importlib.import_module(f"{module}._namespace").Namespace()
    return found


Arrays = Any


@cache
def program(framework: str, function: Callable[..., Any], *static: Any) -> Callable[..., Arrays]:
    """Returns the function with a framework's arrays, compiled where it runs so; lengths are arrays too."""
    xp = namespace(framework)

    def call(*arrays: Any) -> Any:
        return function(xp, *static, *arrays)

    if framework != "flax" and not (framework == "keras" and backend() == "jax"):
        return lambda *arrays: _numpy(call(*_each(xp.array, arrays)))
    import jax

    compiled = jax.jit(call)

    def run(*arrays: Any) -> Any:
        with jax.enable_x64(True):
            return _numpy(compiled(*_each(xp.array, arrays)))

    return run


def backend() -> str:
    name: str = pytest.importorskip("keras").backend.backend()
    return name


def _each(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _each(function, value) for name, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_each(function, value) for value in tree)
    return function(tree)


def _numpy(x: Any) -> np.ndarray:
    found = np.asarray(x.cpu() if hasattr(x, "cpu") and not hasattr(x, "numpy") else x)
    assert found.dtype in (np.float64, np.int64, np.int32)
    return found


def processed(framework: str, problem: Problem, options: dict[str, Any]) -> np.ndarray:
    static, values = active(SimpleNamespace(**(NOTHING | options)), problem.ends, VOCABULARY, NEW)
    found: np.ndarray = program(framework, _process, static)(values, tuple(problem.tokens), problem.scores)
    assert found.dtype == np.float64
    return found


def _process(xp: Namespace, static: Any, values: Any, tokens: Any, scores: Any) -> Any:
    return process(xp, static, values, Tokens(*tokens), scores)


def assert_equal(found: np.ndarray, wanted: np.ndarray) -> None:
    assert np.array_equal(np.isneginf(found), np.isneginf(wanted))
    assert np.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)


def examples(n: int) -> settings:
    return settings(max_examples=n, deadline=None, derandomize=True, database=None)


@frameworks
@pytest.mark.parametrize("option", VALUES)
def test_each_option_is_the_references(framework: str, option: str) -> None:
    @examples(50 if framework == "numpy" else 10)
    @given(problem=problems(), value=VALUES[option])
    def check(problem: Problem, value: Any) -> None:
        wanted = problem.expected({option: value})
        if np.isfinite(wanted).any(axis=-1).all():  # else there is nothing to choose from
            assert_equal(processed(framework, problem, {option: value}), wanted)

    check()


SOME = st.lists(st.sampled_from(sorted(VALUES)), min_size=2, max_size=6, unique=True)


@examples(120)
@given(data=st.data())
def test_options_apply_in_the_order_of_the_reference(data: st.DataObject) -> None:
    problem = data.draw(problems())
    options = {option: data.draw(VALUES[option]) for option in data.draw(SOME)}
    wanted = problem.expected(options)
    if np.isfinite(wanted).any(axis=-1).all():
        assert_equal(processed("numpy", problem, options), wanted)


@frameworks
def test_all_options_together(framework: str) -> None:
    """In one program: of Keras on TensorFlow compiled by XLA, which no other test here does."""
    options: dict[str, Any] = {
        "sequence_bias": {(1,): 0.5, (0, 2): -2.0},
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[3], [1, 1]],
        "min_length": 3,
        "min_new_tokens": 2,
        "exponential_decay_length_penalty": (1, 1.2),
        "suppress_tokens": [7],
        "begin_suppress_tokens": [8, 9],
        "temperature": 0.8,
        "top_k": 11,
        "top_p": 0.91,
        "min_p": 0.011,
        "typical_p": 0.93,
        "epsilon_cutoff": 0.013,
        "eta_cutoff": 0.017,
        "renormalize_logits": True,
    }
    rng, left = np.random.default_rng(3), set()
    for length in (2, 3, 5, 9):
        ids, scores = rng.integers(0, 4, (ROWS, COLUMNS)), 2 * rng.standard_normal((ROWS, VOCABULARY))
        problem = Problem(Tokens(ids, np.arange(COLUMNS) >= np.array([[0], [1], [0]]), length, 2), scores, [5, 6])
        wanted = problem.expected(options)
        static, values = active(SimpleNamespace(**(NOTHING | options)), problem.ends, VOCABULARY, 8)
        assert_equal(compiled(framework, _process, static)(values, tuple(problem.tokens), scores), wanted)
        left |= {*np.isfinite(wanted).sum(axis=1).tolist()}
    assert len(left) > 2


@cache
def compiled(framework: str, function: Callable[..., Any], *static: Any) -> Callable[..., Arrays]:
    """As `program`, but compiled in Keras on TensorFlow too."""
    if framework != "keras" or backend() != "tensorflow":
        return program(framework, function, *static)
    tensorflow, xp = pytest.importorskip("tensorflow"), namespace(framework)
    call = tensorflow.function(lambda *arrays: function(xp, *static, *arrays), jit_compile=True)
    return lambda *arrays: _numpy(call(*_each(xp.array, arrays)))


def test_values_compile_nothing_anew() -> None:
    """What is told apart as static is all that a program depends on."""
    given = {"temperature": 0.5, "top_p": 0.5, "top_k": 3, "repetition_penalty": 2.0, "min_length": 3}
    other = {"temperature": 0.7, "top_p": 0.2, "top_k": 3, "repetition_penalty": 1.1, "min_length": 6}
    (one, values), (two, others) = (
        active(SimpleNamespace(**(NOTHING | options)), [1, 2], VOCABULARY, NEW) for options in (given, other)
    )
    assert one == two
    assert hash(one) == hash(two)
    assert [[x.shape for x in values[name]] for name in values] == [[x.shape for x in others[name]] for name in others]
    assert active(SimpleNamespace(**(NOTHING | given | {"top_k": 4})), [1], VOCABULARY, NEW)[0] != one


def test_own_processors_stand_before_the_warpers() -> None:
    ids, scores = np.array([[1, 2, 7]]), np.array([[1.0, 2.0, 3.0, 4.0]])
    options = SimpleNamespace(**(NOTHING | {"temperature": 2.0, "suppress_tokens": [1], "renormalize_logits": True}))
    static, values = active(options, [], 4, NEW)
    seen = []

    def own(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        seen.append((ids.tolist(), scores.tolist()))
        return scores + np.array([10.0, 0.0, 0.0, 0.0])

    found = process(Namespace(), static, values, Tokens(ids, ids > 0, 2, 1), scores, [own])
    assert seen == [([[1, 2]], [[1.0, -np.inf, 3.0, 4.0]])]
    assert_equal(found, np.array([log_softmax([5.5, -np.inf, 1.5, 2.0])]))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_sequences_need_all_their_tokens(length: int) -> None:
    """The columns before the first one are not its copies."""
    ids, scores = np.ones((1, 4), int), np.zeros((1, VOCABULARY))
    problem = Problem(Tokens(ids, ids == 1, length, 1), scores, [])
    options = {"sequence_bias": {(1, 1, 1, 5): 2.0, (1, 1, 6): 3.0}}
    assert_equal(processed("numpy", problem, options), problem.expected(options))


@pytest.mark.parametrize("length", [2, 3, 4])
def test_a_forced_first_token_is_not_the_one_to_suppress(length: int) -> None:
    """Of rows whose prompt is one token, and padding; in others none is forced."""
    ids = np.ones((2, 4), int)
    problem = Problem(Tokens(ids, np.array([[False], [True]]) | (np.arange(4) > 0), length, 2), np.zeros((2, 9)), [])
    options = {"forced_bos_token_id": 3, "begin_suppress_tokens": [5]}
    static, values = active(SimpleNamespace(**(NOTHING | options)), [], 9, NEW)
    found = process(Namespace(), static, values, problem.tokens, problem.scores)
    assert_equal(found, problem.expected(options))
    assert np.isneginf(found[:, 5]).tolist() == [length < 4, length == 2]
    assert np.isneginf(found[:, 6]).tolist() == [length == 2, False]


def test_nothing_asked_for_is_nothing_done() -> None:
    neutral = {row.option: row.neutral[0] if row.neutral else None for row in TABLE.values()}
    asked = {"temperature": 0.5, "top_k": 3, "top_p": 0.3, "min_p": 0.1, "typical_p": 0.3}
    for options in (NOTHING, NOTHING | neutral, NOTHING | asked | {"do_sample": False}, NOTHING | {"min_length": 3}):
        assert active(SimpleNamespace(**options), [], VOCABULARY, NEW) == ((), {})


# Transformers


@pytest.fixture(scope="module")
def model() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=4, n_layer=1, n_head=1, n_positions=8)
    return transformers.GPT2LMHeadModel(config)


def test_options_are_those_of_transformers(model: Any) -> None:
    """Of rows without padding, in the order that Transformers itself chooses."""

    @examples(100)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        problem = data.draw(problems(padded=False))
        scores = np.random.default_rng(data.draw(st.integers(0, 10**6))).standard_normal((ROWS, VOCABULARY))
        problem = problem._replace(scores=np.where(np.isfinite(problem.scores), 2 * scores, -np.inf))  # without ties
        options = {option: data.draw(VALUES[option]) for option in data.draw(SOME)}
        if "exponential_decay_length_penalty" in options and not problem.ends:
            return  # an error there
        found = processed("numpy", problem, options)
        if np.isfinite(found).any(axis=-1).all():  # else an error there
            assert_equal(found, theirs(model, problem, options))

    check()


def theirs(model: Any, problem: Problem, options: dict[str, Any]) -> np.ndarray:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    ids, _, length, prompt = problem.tokens
    config = transformers.GenerationConfig(do_sample=True, max_length=prompt + NEW)
    for option, value in options.items():  # which it would check: it lets no forced token be suppressed
        setattr(config, option, value)
    config._eos_token_tensor = torch.tensor(problem.ends) if problem.ends else None
    processors = model._get_logits_processor(config, input_ids_seq_length=prompt, device="cpu", model_kwargs={})
    found: np.ndarray = processors(torch.from_numpy(ids[:, :length]), torch.from_numpy(problem.scores)).numpy()
    return found


# Drawing, and the functions on arrays


@frameworks
def test_draws_are_the_references(framework: str) -> None:
    values = st.sampled_from([-np.inf, -800.0, -1.0, 0.0, 0.75]) | st.floats(-6, 6)

    @examples(40 if framework == "numpy" else 15)
    @given(
        scores=arrays(np.float64, (ROWS, VOCABULARY), elements=values),
        likely=st.integers(0, VOCABULARY - 1),
        noise=arrays(np.float64, ROWS, elements=st.sampled_from([0.0, 0.3137, 0.7131, 1 - 2**-53])),
    )
    def check(scores: np.ndarray, likely: int, noise: np.ndarray) -> None:
        scores[:, likely] = 0.25
        wanted = [draw_of_reference(row, u) for row, u in zip(scores.tolist(), noise.tolist(), strict=True)]
        assert program(framework, draw)(scores, noise).tolist() == wanted

    check()


@frameworks
def test_only_what_is_left_is_drawn(framework: str) -> None:
    """Running sums that are added in another order must not make a token of weight 0 the first above."""
    scores = np.full((1, 5000), -np.inf)
    scores[0, [7, 3001, 3002, 4900]] = [0.1, 0.7, -1.3, 0.4]
    for u in (0.0, 0.15, 0.5, 0.9, 1 - 2**-53):
        assert program(framework, draw)(scores, np.array([u])).tolist() == [draw_of_reference(scores[0].tolist(), u)]


@frameworks
@pytest.mark.parametrize("k", [1, 4, VOCABULARY])
def test_top_k_takes_lower_ids_of_equal_values(framework: str, k: int) -> None:
    values = st.sampled_from([-np.inf, -1e9, -1e9 + 1e-6, -0.0, 0.0, 2.5])

    @examples(15)
    @given(x=arrays(np.float64, (ROWS, VOCABULARY), elements=values))
    def check(x: np.ndarray) -> None:
        index = np.argsort(-x, axis=-1, kind="stable")[:, :k]
        assert np.array_equal(program(framework, _top_k, k)(x), np.stack((index, np.take_along_axis(x, index, -1))))

    check()


def _top_k(xp: Namespace, k: int, x: Any) -> Any:
    values, index = xp.top_k(x, k)
    return xp.reshape(xp.concatenate((xp.float64(index), values), axis=0), (2, ROWS, k))


@pytest.mark.parametrize("framework", TESTED)
def test_namespaces_give_the_same_functions(framework: str) -> None:
    """In the same order; what is composed of them stands in one place, or is a framework's own behind all others."""
    functions = [name for name in vars(Namespace) if not name.startswith("_")]
    composed = functions[functions.index("first") :]
    own = [name for name in vars(type(namespace(framework))) if not name.startswith("_")]
    simple = functions[: -len(composed)]
    assert own[: len(simple)] == simple
    assert set(own[len(simple) :]) <= {"argmax", "sound"}


@pytest.mark.parametrize("framework", TESTED)
def test_the_largest_value(framework: str) -> None:
    inf, nan = float("inf"), float("nan")
    rows = [[1.0, 3.0, 2.0, 3.0], [-inf, 0.0, -inf, 0.0], [-inf] * 4, [1.0, inf, inf, 0.0], [nan, 1.0, 0.0, 2.0]]
    assert program(framework, lambda xp, x: xp.argmax(x[:4]))(np.array(rows)).tolist() == [1, 1, 0, 1]
    sound = program(framework, lambda xp, x: xp.integer(xp.sound(x)))(np.array(rows))
    assert sound.tolist() == [1, 1, 0, 0, 0]
