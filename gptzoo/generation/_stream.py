"""A generation in a thread of its own, and the text that it adds to a prompt, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from threading import Thread
from typing import Any

import numpy as np

from gptzoo._runners import Runner, framework_of, runner_of
from gptzoo._settings import short
from gptzoo.errors import InputError
from gptzoo.generation._streaming import AsyncTextIteratorStreamer, QueueStreamer, StreamClosed, TextIteratorStreamer

# What holds unless a call says otherwise, whatever the model's generation_config.json says.
ONE_TEXT = {"num_return_sequences": 1, "return_dict_in_generate": False}


def stream(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    skip_special_tokens: bool = True,
    clean_up_tokenization_spaces: bool | None = None,
    timeout: float | None = None,
    **options: Any,
) -> Iterator[str]:
    """Yields the text that a model adds to a prompt, as it comes; the generation runs in a thread.

    The prompt's text and all pieces together are the text of all ids. Closing the iterator ends the generation at its
    next token, and waits for that: `contextlib.closing` does so however a loop is left; and so does Python for an
    iterator that nobody holds any more.

    Args:
        model: of any framework, with a language model head.
        tokenizer: of `gptzoo.tokenization`.
        prompt: a text; an empty one begins with `bos_token`.
        skip_special_tokens, clean_up_tokenization_spaces: as of `decode`.
        timeout: of waiting for a piece, in seconds; None: none.
        options: of the model's `generate`, such as `max_new_tokens`.

    Raises:
        InputError: with the first piece: an argument is wrong.
        TimeoutError: no text came in time.
    """
    streamer = TextIteratorStreamer(
        tokenizer,
        skip_prompt=True,
        timeout=timeout,
        skip_special_tokens=skip_special_tokens,
        clean_up_tokenization_spaces=clean_up_tokenization_spaces,
    )
    run = generation(runner_of(framework_of(model), model), streamer, prompt_ids(tokenizer, prompt), options)
    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield from streamer
    finally:
        streamer.close()
        thread.join()


async def astream(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    skip_special_tokens: bool = True,
    clean_up_tokenization_spaces: bool | None = None,
    timeout: float | None = None,
    **options: Any,
) -> AsyncIterator[str]:
    """Yields the same as `stream`, for `async for`.

    A loop that is left before the end ends the generation with `aclose`, or when the task or the event loop ends.
    """
    streamer = AsyncTextIteratorStreamer(
        tokenizer,
        skip_prompt=True,
        timeout=timeout,
        skip_special_tokens=skip_special_tokens,
        clean_up_tokenization_spaces=clean_up_tokenization_spaces,
    )
    run = generation(runner_of(framework_of(model), model), streamer, prompt_ids(tokenizer, prompt), options)
    running = asyncio.get_running_loop().run_in_executor(None, run)
    try:
        async for piece in streamer:
            yield piece
    finally:
        streamer.close()
        await running


def generation(
    runner: Runner, streamer: QueueStreamer, ids: list[int], options: dict[str, Any], by_steps: bool = True
) -> Callable[[], None]:
    """Returns a function that generates, and tells the streamer all that happens: it raises nothing.

    Args:
        streamer: with `skip_prompt`; it goes on from the prompt.
        ids: the prompt's.
        options: of the model's `generate`.
        by_steps: whether the streamer is told each token, or all of them at the end.

    Raises:
        InputError: an option is what is made here.
    """
    if taken := [name for name in ("input_ids", "inputs", "streamer") if options.get(name) is not None]:
        raise InputError.listing("stream", [f"{name}: given, expected none beside the prompt" for name in taken])
    streamer.go_on_from(ids)
    prompt = np.array([ids])
    arguments = ONE_TEXT | options | {"tokenizer": streamer.tokenizer}

    def tell_at_the_end() -> None:
        sequences = runner.generate(prompt, **arguments)
        streamer.put(prompt)
        streamer.put(sequences[:, prompt.shape[1] :])
        streamer.end()

    def run() -> None:
        try:
            if by_steps:
                runner.generate(prompt, **arguments, streamer=streamer)
            else:
                tell_at_the_end()
        except BaseException as problem:
            with suppress(StreamClosed):  # there may be no reader any more
                streamer.fail(problem)

    return run


def prompt_ids(tokenizer: Any, prompt: Any) -> list[int]:
    """Returns the ids of a prompt; an empty one has `bos_token`.

    Raises:
        InputError: it is no text, or there is no such token.
    """
    if not isinstance(prompt, str):
        raise InputError(f"prompt: {short(prompt)}, expected a text")
    ids: list[int] = tokenizer(prompt)["input_ids"]
    if not ids and tokenizer.bos_token_id is None:
        raise InputError("prompt: no tokens, expected one at least: this tokenizer has no bos_token to begin with")
    return ids or [tokenizer.bos_token_id]
