"""What `make demo` shows: the three frameworks agree on real weights, and write the same text."""

from __future__ import annotations

from collections.abc import Callable

from gptzoo._extras import FRAMEWORKS, missing
from gptzoo.checkpoint import open_checkpoint, plan_load
from gptzoo.hub import DEFAULT_MODEL
from gptzoo.parity import check, load_runner
from gptzoo.parity._report import table

PROMPT = "Now is the winter of our discontent"
NEW_TOKENS = 40


def demo(progress: Callable[[str], None]) -> int:
    """Prints a parity table and a completion by each framework; returns 0 if all agree, otherwise 1."""
    report = check(DEFAULT_MODEL, progress=progress)
    print(report, end="\n\n")
    texts = completions(progress)
    print(f"Greedy completion of {PROMPT!r}, {NEW_TOKENS} tokens, by the reference:\n")
    print(_indented(texts["reference"][1]), end="\n\n")
    errors = {one.framework: one for one in report.worst() if one.output == "logits"}
    rows = [("framework", "largest error of the logits", "same next tokens", "same completion as the reference")]
    for name in FRAMEWORKS:
        if name in texts:
            one, same = errors[name], texts[name][0] == texts["reference"][0]
            rows.append(
                (name, f"{one.max_rel:.1e} of the largest", f"{one.top1:.0%}", "yes, token for token" if same else "NO")
            )
        else:
            rows.append((name, "not installed", "-", "-"))
    print("\n".join(table(rows)), end="\n\n")
    agree = report.passed and all(ids == texts["reference"][0] for ids, _ in texts.values())
    print("All of them agree." if agree else "They do NOT agree.")
    return 0 if agree else 1


def completions(progress: Callable[[str], None]) -> dict[str, tuple[list[int], str]]:
    """Returns the ids and the text that the reference and each installed framework write after the prompt."""
    from gptzoo import reference
    from gptzoo.tokenization import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEFAULT_MODEL)
    checkpoint = open_checkpoint(DEFAULT_MODEL)
    config, head = checkpoint.config, "LMHeadModel"
    ids = tokenizer(PROMPT, return_tensors="np").input_ids
    progress("completion by the reference")
    weights = dict(plan_load(checkpoint, config, head).values())
    found = {"reference": reference.greedy(config, weights, ids, NEW_TOKENS)}
    for name in FRAMEWORKS:
        if not missing(name):
            progress(f"completion by {name}")
            runner = load_runner(name, DEFAULT_MODEL, config, head, "float32")
            found[name] = runner.generate(ids, max_new_tokens=NEW_TOKENS)
    return {name: (row[0].tolist(), tokenizer.decode(row[0])) for name, row in found.items()}


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines())
