"""Scores of texts: the reference's log probabilities in every framework, each token once, and what is refused.

Each test names, where it is not plain, the change of the code that it catches.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptzoo import reference
from gptzoo.cli import main
from gptzoo.config import CONFIGS
from gptzoo.errors import GPTZooError, InputError
from gptzoo.hub import DEFAULT_MODEL
from gptzoo.scoring import Score, TextError
from gptzoo.scoring._run import PIECE, windows
from tests import matrix
from tests.matrix import TESTED

FIRST = TESTED[0]
ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "conversion")]), "PYTHONUTF8": "1"}
LIMIT = matrix.TINY["n_positions"]
IDS = np.random.default_rng(5).integers(0, matrix.TINY["vocab_size"], 35)
VERSE = "To be, or not to be, that is the question:\nWhether \u2019tis nobler in the mind to suffer\n"
HALF = 2**-5  # largest error over the largest number in bfloat16: 8 bits, through two blocks

frameworks = pytest.mark.parametrize("framework", TESTED)
families = pytest.mark.parametrize("family", CONFIGS)


@cache
def built(family: str, framework: str, head: str = "LMHeadModel", **overrides: Any) -> tuple[Any, Any, Any]:
    config = matrix.tiny(family, **overrides)
    values = matrix.random_weights(config, head, seed=2)
    return config, values, matrix.build(framework, config, head, values)


@cache
def judged(family: str, stride: int | None = None, length: int | None = None) -> np.ndarray:
    """What the reference finds for `IDS`."""
    config, values, _ = built(family, FIRST)
    return reference.score(config, values, IDS, stride, length)


@cache
def trained(framework: str) -> Any:
    models = __import__(f"gptzoo.{framework}", fromlist=["GPT2LMHeadModel"])
    return models.GPT2LMHeadModel.from_pretrained(DEFAULT_MODEL, dtype="float32")


def close(found: Score, wanted: Any) -> bool:
    return matrix.error(found.log_probs, wanted) < matrix.TOLERANCE


@frameworks
@families
def test_log_probs_are_the_references(family: str, framework: str) -> None:
    """Catches windows that begin, or are scored from, one token off; and the logits of the wrong place."""
    _, _, runner = built(family, framework)
    for stride, length in ((None, None), (1, None), (LIMIT - 1, None), (3, 7)):
        wanted = judged(family, stride, length)
        found = runner.model.score(IDS, stride=stride, max_length=length)
        assert (found.log_probs.dtype, found.n_tokens) == (np.float64, len(IDS) - 1)
        assert close(found, wanted), (stride, length)
        assert found.perplexity == pytest.approx(math.exp(-wanted.mean()), rel=1e-5)


@frameworks
def test_double_heads_score_too(framework: str) -> None:
    config, values, runner = built("gpt2", framework, "DoubleHeadsModel")
    ours = {name: value for name, value in values.items() if "multiple_choice" not in name}
    assert close(runner.model.score(IDS), reference.score(config, ours, IDS))


def test_reference_has_the_probabilities_of_all_texts() -> None:
    """It judges the others, so it is judged by what a probability is: those of all texts of 3 tokens add up to 1."""
    config = matrix.tiny("gpt2", vocab_size=3)
    values = matrix.random_weights(config, "LMHeadModel")
    texts = [(0, b, c) for b in range(3) for c in range(3)]
    assert sum(math.exp(reference.score(config, values, text).sum()) for text in texts) == pytest.approx(1)


@families
def test_perplexity_is_transformers(family: str, tmp_path: Path) -> None:
    """By the way of Hugging Face's guide on fixed-length models: labels of -100 on what was scored before."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    _, _, runner = built(family, FIRST)
    runner.model.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    for stride in (5, 8, LIMIT - 1):
        total, count, before = 0.0, 0, 0
        for begin in range(0, len(IDS), stride):
            end = min(begin + LIMIT, len(IDS))
            ids = torch.from_numpy(IDS[None, begin:end])
            labels = ids.clone()
            labels[:, : before - begin if begin else 0] = -100
            scored = int((labels[:, 1:] != -100).sum())
            with torch.no_grad():
                total, count = total + float(theirs(ids, labels=labels).loss) * scored, count + scored
            before = end
            if end == len(IDS):
                break
        found = runner.model.score(IDS, stride=stride)
        assert count == found.n_tokens
        assert found.perplexity == pytest.approx(math.exp(total / count), rel=1e-5)


def test_every_token_is_scored_once_with_enough_before_it() -> None:
    cases = [(n, size, step) for n in range(2, 30) for size in range(2, 9) for step in range(1, size)]
    for length, size, stride in cases:
        found = list(windows(0, length, size, stride))
        scored = [(place, place - one.begin) for one in found for place in range(one.first, one.end)]
        assert [place for place, _ in scored] == list(range(1, length))
        assert all(given >= min(place, size - stride) for place, given in scored)
        assert all(one.end - one.begin <= size for one in found)


@frameworks
def test_neither_batches_nor_padding_change_a_score(framework: str) -> None:
    """Texts of all lengths, and more tokens in a batch than have their logits together."""
    _, _, runner = built("gpt2", framework)
    texts = [IDS, IDS[:2], IDS[3:20], np.tile(IDS, 10), IDS[::-1][:LIMIT], IDS[:9]]
    alone = [runner.model.score(text, stride=12) for text in texts]
    for size in (2, 60):
        for one, found in zip(alone, runner.model.score(texts, stride=12, batch_size=size), strict=True):
            assert np.array_equal(found.token_ids, one.token_ids)
            assert close(found, one.log_probs)


def test_logits_of_few_tokens_are_in_memory_together() -> None:
    torch = pytest.importorskip("torch")
    if "torch" not in TESTED:
        pytest.skip("hooks are PyTorch's")
    _, _, runner = built("gpt2", "torch")
    seen: list[tuple[int, ...]] = []
    hook = runner.model.lm_head.register_forward_hook(lambda module, inputs, out: seen.append(tuple(out.shape)))
    runner.model.score(np.tile(IDS, 20), batch_size=50)
    hook.remove()
    assert max(shape[0] for shape in seen) == PIECE
    assert all(len(shape) == 2 for shape in seen)
    assert sum(shape[0] for shape in seen) == len(IDS) * 20 - 1  # no logits that are not needed
    assert torch.is_grad_enabled()


@frameworks
def test_half_precision_has_full_log_probabilities(framework: str) -> None:
    """Catches a log-softmax in bfloat16, whose results would all be numbers of that dtype."""
    import ml_dtypes

    config, values, _ = built("gpt2", framework)
    config = matrix.tiny("gpt2", dtype="bfloat16")
    runner = matrix.build(framework, config, "LMHeadModel", values)
    found = runner.model.score(IDS)
    assert matrix.error(found.log_probs, judged("gpt2")) < HALF
    assert (found.log_probs.astype(ml_dtypes.bfloat16).astype(np.float64) != found.log_probs).mean() > 0.5


def test_a_model_in_training_is_scored_without_dropout_and_stays_in_training() -> None:
    if "torch" not in TESTED:
        pytest.skip("modes are PyTorch's")
    dropout = {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5}
    model = built("gpt2", "torch", **dropout)[2].model.train()
    model.transformer.drop.eval()
    modes = [module.training for module in model.modules()]
    assert close(model.score(IDS), judged("gpt2"))
    assert [module.training for module in model.modules()] == modes


def test_flax_scores_with_other_params_and_compiles_for_few_shapes() -> None:
    if "flax" not in TESTED:
        pytest.skip("params are Flax'")
    import jax

    from gptzoo.flax._scoring import last_states, log_probs

    config, values, runner = built("gpt2", "flax")
    model, before = runner.model, runner.model.score(IDS).total
    halved = jax.tree.map(lambda x: x / 2, model.params)
    wanted = reference.score(config, {name: value / 2 for name, value in values.items()}, IDS)
    assert close(model.score(IDS, params=halved), wanted)
    assert model.score(IDS).total == before
    compiled = last_states._cache_size(), log_probs._cache_size()
    for text in (IDS[:2], IDS[:9], IDS[: LIMIT + 1], IDS[:30]):
        model.score(text)
    assert (last_states._cache_size(), log_probs._cache_size()) == compiled


@frameworks
def test_texts(framework: str) -> None:
    """Their tokens, and bits per byte where every token has a probability."""
    from gptzoo import AutoTokenizer

    model, tokenizer = trained(framework), AutoTokenizer.from_pretrained(DEFAULT_MODEL)
    plain = model.score(VERSE, tokenizer)
    ids = tokenizer(VERSE)["input_ids"]
    assert plain.tokens == tokenizer.convert_ids_to_tokens(ids)
    assert plain.token_ids.tolist() == ids
    assert plain.bits_per_byte is None
    (whole,) = model.score([VERSE], DEFAULT_MODEL, add_bos=True)
    assert whole.tokens == ["<|endoftext|>", *plain.tokens]
    assert whole.n_tokens == len(ids)
    assert whole.bits_per_byte == pytest.approx(-whole.total / math.log(2) / len(VERSE.encode()))
    assert repr(plain).startswith(f"Score({len(ids) - 1} tokens, log probability -")
    same = model.score(ids, tokenizer, add_bos=True)
    assert (same.tokens, same.n_bytes) == (whole.tokens, None)
    assert matrix.error(same.log_probs, whole.log_probs) == 0
    tokenizer.add_bos_token = True  # which is there once, all the same
    assert model.score(VERSE, tokenizer, add_bos=True).tokens == whole.tokens
    assert model.score(VERSE, tokenizer).tokens == whole.tokens


def test_a_trained_model_likes_what_it_has_read() -> None:
    """A number that a person can judge: better than chance by far, and worse on the same words in disorder."""
    shuffled = " ".join(np.random.default_rng(0).permutation(VERSE.split()))
    verse, disorder = trained(FIRST).score([VERSE, shuffled], DEFAULT_MODEL)
    assert verse.perplexity < 0.5 * disorder.perplexity < 1024


@frameworks
def test_forms_of_ids(framework: str) -> None:
    _, _, runner = built("gpt2", framework)
    model, rows = runner.model, np.stack([IDS[:6], IDS[6:12]])
    wanted = [model.score(row).log_probs for row in rows]
    many = (rows, runner.to_native(rows), rows.tolist(), list(rows), tuple(map(tuple, rows.astype(np.uint8))))
    for given in many:
        assert all(close(a, b) for a, b in zip(model.score(given), wanted, strict=True))
    for given in (rows[0].tolist(), runner.to_native(rows[0]), list(rows[0]), tuple(rows[0])):
        assert close(model.score(given), wanted[0])
    assert model.score([]) == []
    assert model.score(rows[0]).tokens is None


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no_tokenizer": (["a"], {}, r"score: tokenizer: none given, expected the model's beside texts: AutoTokenizer\.f"),
    "a_number_as_tokenizer": ("a", {"tokenizer": 5}, "score: tokenizer: 5, expected a tokenizer, a path or a name"),
    "no_texts": (None, {}, "score: texts: None, expected a text, token ids, or a list"),
    "a_number": (3, {}, "score: texts: 3, expected a text"),
    "empty": ("", {"tokenizer": DEFAULT_MODEL}, "score: text: empty, expected tokens$"),
    "empty_and_bos": ([""], {"tokenizer": DEFAULT_MODEL, "add_bos": True}, "score: text 0: empty, expected tokens$"),
    "one_token": ([7], {}, "score: text: 1 token, expected at least 2: the first is not scored, unless"),
    "fractions": ([[1.5, 2.5]], {}, r"score: text 0: \[1.5, 2.5\], expected a text or token ids"),
    "flags": ([True, False], {}, r"score \(2 problems\):\n  text 0: True, expected .*\n  text 1: False, expected"),
    "unknown_ids": (
        [[1, 2], [1, 40], [-1, 5]],
        {},
        r"text 1: token id 40, .*\n  text 2: token id -1, ",
    ),
    "huge_id": ([1, 2**70], {}, rf"score: text: token id {2**70}, expected 0 to 39 \(vocab_size\)$"),
    "of_another_tokenizer": (VERSE, {"tokenizer": DEFAULT_MODEL}, "expected 0 to 39 .*: a tokenizer of this model"),
    "three_axes": (np.zeros((1, 2, 3), int), {}, r"text 0: \[\[0, 0, 0\], .*, expected a text or token ids"),
    "stride_0": ([1, 2], {"stride": 0}, "score: stride: 0, expected 1 to 15, less than max_length"),
    "stride_of_a_window": ([1, 2], {"stride": 8, "max_length": 8}, "stride: 8, expected 1 to 7"),
    "stride_half": ([1, 2], {"stride": 2.5}, r"stride: 2\.5, expected 1 to 15"),
    "max_length_1": ([1, 2], {"max_length": 1}, r"max_length: 1, expected 2 to 16 \(n_positions\)"),
    "max_length_17": ([1, 2], {"max_length": 17}, "max_length: 17, expected 2 to 16"),
    "batch_size_0": ([1, 2], {"batch_size": 0}, "batch_size: 0, expected an integer of at least 1"),
    "add_bos_1": ([1, 2], {"add_bos": 1}, "add_bos: 1, expected True or False"),
    "all_at_once": ([1, 2], {"stride": -1, "batch_size": "a", "add_bos": None}, r"score \(3 problems\):\n  stride: -1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_refuses(name: str) -> None:
    _, _, runner = built("gpt2", FIRST)
    texts, options, problem = WRONG[name]
    with pytest.raises(InputError, match=problem):
        runner.model.score(texts, **options)


def test_refuses_what_has_no_bos_token_and_knows_which_texts_are_wrong() -> None:
    _, _, runner = built("openai-gpt", FIRST)
    with pytest.raises(InputError, match="add_bos: True, expected False: neither tokenizer nor config has a bos token"):
        runner.model.score(IDS, add_bos=True)
    with pytest.raises(TextError) as caught:
        runner.model.score([IDS, [], [3]])
    assert [*caught.value.problems] == [1, 2]


@frameworks
def test_refuses_numbers_that_are_none(framework: str) -> None:
    config, values, _ = built("gpt2", framework)
    broken = values | {"transformer.wte.weight": values["transformer.wte.weight"] * np.float32("nan")}
    model = matrix.build(framework, config, "LMHeadModel", broken).model
    with pytest.raises(GPTZooError, match="score: log probabilities that are infinite or not numbers"):
        model.score(IDS)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    contents = {
        "verse": VERSE.encode(),
        "lines": b"King\r\n\nO Romeo",
        "empty": b"",
        "latin": b"caf\xe9",
        "short": b"e",
        "long": VERSE.encode() * 4,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    return tmp_path


def scored(*options: str) -> list[str]:
    return ["score", "--framework", FIRST, "--dtype", "float32", *options]


@frameworks
def test_command_prints_a_line_for_each_file(framework: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--bos", "--stride", "20", "--max-length", "32", "--batch-size", "2", "verse", "long"]
    assert main(["score", "--framework", framework, "--dtype", "float32", *options]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    wanted = trained(FIRST).score([VERSE, VERSE * 4], DEFAULT_MODEL, add_bos=True, stride=20, max_length=32)
    assert [row[:2] for row in rows] == [["verse", str(wanted[0].n_tokens)], ["long", str(wanted[1].n_tokens)]]
    assert [float(row[2]) for row in rows] == pytest.approx([one.perplexity for one in wanted], rel=1e-5)
    assert [float(row[3]) for row in rows] == pytest.approx([one.bits_per_byte for one in wanted], abs=1e-5)


@pytest.mark.parametrize("size", ["1", "2"])
def test_command_reads_lines(size: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty line has null; line ends are no part of a text."""
    options = ["--lines", "--bos", "--tokens", "--batch-size", size, "lines"]
    king, romeo = trained(FIRST).score(["King", "O Romeo"], DEFAULT_MODEL, add_bos=True)
    assert main(scored("--json", *options)) == 0
    first, none, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert none is None
    for found, name, wanted in ((first, "lines: line 1", king), (last, "lines: line 3", romeo)):
        assert (found["name"], found["tokens"]) == (name, wanted.tokens)
        assert found["token_ids"] == wanted.token_ids.tolist()
        assert found["log_probs"] == pytest.approx(wanted.log_probs, abs=1e-5)
        assert [found["total"], found["perplexity"], found["bits_per_byte"]] == pytest.approx(
            [wanted.total, wanted.perplexity, wanted.bits_per_byte], rel=1e-5
        )
    assert main(scored(*options)) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"lines: line 1\t{king.n_tokens}\t{king.perplexity:.3g}"[:-1])
    assert [line.split("\t")[0] for line in out[1 : king.n_tokens + 2]] == king.tokens
    assert out[1] == "<|endoftext|>\t-"
    assert float(out[2].split("\t")[1]) == pytest.approx(king.log_probs[0], abs=1e-5)
    assert out[king.n_tokens + 2 : king.n_tokens + 4] == ["", ""]
    assert main(scored("--json", "verse")) == 0
    assert [*json.loads(capsys.readouterr().out)] == ["name", "n_tokens", "total", "perplexity", "bits_per_byte"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["absent", "folder"], "absent: No such file or directory; folder: not a regular file"),
        (["empty"], "empty: empty, expected a text"),
        (["latin"], "latin: byte 0xe9 at 3, expected UTF-8"),
        (["--lines", "latin"], "latin: line 1: byte 0xe9 at 3, expected UTF-8"),
        (["short"], "short: 1 token, expected at least 2: the first is not scored"),
        (["--lines", "--batch-size", "2", "short", "short"], "short: line 1: 1 token, expected at least 2"),
        (["--stride", "0", "verse"], "score: stride: 0, expected 1 to 255"),
        (["--stride", "256", "verse"], "score: stride: 256, expected 1 to 255"),
        (["--max-length", "257", "verse"], "max_length: 257, expected 2 to 256 (n_positions)"),
        (["--batch-size", "0", "verse"], "--batch-size: 0, expected an integer of at least 1"),
        (["--model", "absent-model", "verse"], "'absent-model'"),
        (["--device", "gpu:77", "verse"], "device: 'gpu:77', expected one that"),
        (["--framework", "mxnet", "verse"], "framework: 'mxnet', expected one of torch"),
    ],
    ids=lambda given: "_".join(given) if isinstance(given, list) else "",
)
def test_command_refuses_in_one_line(
    options: list[str], problem: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(scored(*options)) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert out == ""
    assert line.startswith("gptzoo: error: ")
    assert problem in line


def test_command_prints_what_is_done_before_a_wrong_text(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(scored("verse", "short")) == 2
    assert capsys.readouterr().out.startswith("verse\t")


def process(*options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error::UserWarning", "-m", "gptzoo.cli", *scored(*options)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT)


def test_command_answers_lines_as_they_come_and_stops_at_ctrl_c() -> None:
    with process("--lines", "--json") as running:
        assert running.stdin
        assert running.stdout
        for line in ("King", "O Roméo"):
            running.stdin.write(f"{line}\n".encode())
            running.stdin.flush()
            assert json.loads(running.stdout.readline())["n_tokens"] > 0
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate()
        assert running.returncode == 130
        assert b"Traceback" not in errors


def test_command_reads_standard_input_whole() -> None:
    with process("--json") as running:
        out, errors = running.communicate(VERSE.encode())
        assert (running.returncode, errors) == (0, b"")
    found, wanted = json.loads(out), trained(FIRST).score(VERSE, DEFAULT_MODEL)
    assert (found["name"], found["n_tokens"]) == ("standard input", wanted.n_tokens)
    assert found["perplexity"] == pytest.approx(wanted.perplexity, rel=1e-5)
