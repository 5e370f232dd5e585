"""The call of generate, the same in every framework: its arguments are checked, then it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gptzoo.generation._arguments import plan
from gptzoo.generation._config import GenerationConfig
from gptzoo.generation._engine import Engine
from gptzoo.generation._loop import run
from gptzoo.generation._others import take_prompt
from gptzoo.generation._search import Hooks
from gptzoo.generation._stop_strings import StopStrings
from gptzoo.generation._streaming import streaming
from gptzoo.inputs import ArrayKind

Array = Any  # of the framework


def generate(
    model: Any,
    kind: ArrayKind,
    engine_of: Callable[[Any], Engine],
    input_ids: Any,
    generation_config: GenerationConfig | None,
    attention_mask: Any,
    *,
    logits_processor: Sequence[Callable[[Array, Array], Array]] | None,
    stopping_criteria: Sequence[Callable[[Array, Array], Any]] | None,
    streamer: Any,
    assistant_model: Any,
    tokenizer: Any,
    options: dict[str, Any],
) -> Any:
    """Completes rows of ids; the arguments are those of the models' `generate`.

    Args:
        kind: of the framework's arrays.
        engine_of: makes the engine of a model.

    Raises:
        InputError: lists what is wrong with the arguments.
        GPTZooError: logits are infinite or not numbers.
    """
    with streaming(streamer) as put:  # all of it: who reads in another thread is told of wrong arguments too
        input_ids = take_prompt(input_ids, options)
        streamed = streamer is not None
        todo = plan(
            *(model, kind, input_ids, attention_mask, generation_config, options),
            assistant=assistant_model,
            streamed=streamed,
            functions={"logits_processor": logits_processor, "stopping_criteria": stopping_criteria},
        )
        engine = engine_of(model)
        ids = engine.numpy(input_ids)
        mask = np.ones_like(ids) if attention_mask is None else engine.numpy(attention_mask)
        criteria = [*(stopping_criteria or ())]
        moved, mask = left_padded(ids, mask)
        if todo.options.stop_strings:
            criteria.append(_stop_strings(engine, StopStrings(todo.options.stop_strings, tokenizer), mask != 0))
        hooks = Hooks(tuple(logits_processor or ()), tuple(criteria))
        assistant = None if assistant_model is None else engine_of(assistant_model)
        put(ids)
        output = run(engine, todo, moved, mask, hooks, put if streamed else None, assistant)
        if not np.array_equal(moved, ids):
            output["sequences"] = _with_prompt(engine, output.sequences, ids)
    return output if todo.options.return_dict_in_generate else output.sequences


def left_padded(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moves the padding of rows to the left, wherever it is: new tokens follow the last one of the prompt."""
    order = np.argsort(mask != 0, axis=-1, kind="stable")
    return np.take_along_axis(ids, order, axis=-1), np.take_along_axis(mask, order, axis=-1)


def _with_prompt(engine: Engine, sequences: Array, ids: np.ndarray) -> Array:
    """Returns sequences that begin with the prompts as they were given."""
    found = engine.numpy(sequences)
    prompts = np.repeat(ids, len(found) // len(ids), axis=0)
    return engine.xp.array(np.concatenate((prompts, found[:, ids.shape[1] :]), axis=1))


def _stop_strings(engine: Engine, stop: StopStrings, real: np.ndarray) -> Callable[[Array, Array], Array]:
    """Returns the criterion that ends rows by their text; the rows of a prompt follow each other."""

    def ended(ids: Array, scores: Array) -> Array:
        rows = engine.numpy(ids)
        seen = np.repeat(real, len(rows) // len(real), axis=0)
        new = np.ones((len(rows), rows.shape[1] - seen.shape[1]), bool)
        return engine.xp.array(stop(rows, np.concatenate((seen, new), axis=1)))

    return ended
