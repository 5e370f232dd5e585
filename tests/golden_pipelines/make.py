"""Makes question_answering.json by Transformers 4.57.6, whose version 5 has no such pipeline.

In an environment with gptzoo:  python -c "from tests.pipelines import *; store(Path('FOLDER'), 'ForQuestionAnswering')"
In one with Transformers 4.57:  python tests/golden_pipelines/make.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CALLS: dict[str, dict[str, Any]] = {
    "best": {},
    "three": {"top_k": 3},
    "tokens": {"top_k": 3, "align_to_words": False},
    "one_token": {"top_k": 2, "max_answer_len": 1},
    "windows": {"top_k": 4, "max_seq_len": 40, "doc_stride": 8},
}


def main(folder: str) -> None:
    from transformers import AutoModelForQuestionAnswering, GPT2TokenizerFast, pipeline

    here = Path(__file__).parent
    texts = json.loads((here / "texts.json").read_text())
    model = AutoModelForQuestionAnswering.from_pretrained(folder)
    pipe = pipeline("question-answering", model=model, tokenizer=GPT2TokenizerFast.from_pretrained(folder))
    results = {
        f"{name} {call}": pipe(question=texts["question"], context=texts[name], **options)
        for name in ("short", "long")
        for call, options in CALLS.items()
    }
    (here / "question_answering.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
