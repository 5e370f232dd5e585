"""Text that is told while it is generated: printed, or read by an iterator."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from gptzoo._settings import class_of, is_number, short, unknown_argument
from gptzoo.errors import InputError


class StreamClosed(Exception):
    """Ends a generation whose text nobody reads any more: raised by `put` after `close`."""


class TextStreamer:
    """Prints the text of one row: each character as soon as nothing that follows can change it.

    What is printed, put together, is `tokenizer.decode` of all ids, or with `skip_prompt` of the new ones alone. A
    subclass that overrides `on_finalized_text` gets the text in place of the terminal.

    Args:
        tokenizer: of `gptzoo.tokenization`.
        skip_prompt: whether the prompt is left out.
        decode_options: `skip_special_tokens` and `clean_up_tokenization_spaces`, as of `decode`.

    Raises:
        InputError: one of them is something else.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_options: Any):
        self.tokenizer, self.skip_prompt, self.decode_kwargs = tokenizer, skip_prompt, decode_options
        self.next_tokens_are_prompt = True
        self._decoder = _decoder(tokenizer, decode_options)

    def put(self, value: Any) -> None:
        """Takes the next ids.

        Args:
            value: (T,) or (1, T), at first the prompt's, later new ones; an array of any framework.

        Raises:
            InputError: there is more than one row; or an id is none of the tokenizer's.
        """
        ids = _one_row(value)
        is_prompt, self.next_tokens_are_prompt = self.next_tokens_are_prompt, False
        if not (is_prompt and self.skip_prompt):
            self._tell(self._decoder.steps(ids))

    def end(self) -> None:
        """Tells what was held back; the next ids are the prompt of another generation."""
        self.next_tokens_are_prompt = True
        self.on_finalized_text(self._decoder.end(), stream_end=True)

    def fail(self, problem: BaseException) -> None:
        """Ends in place of `end` when the generation has failed."""
        self.end()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Prints text that is complete, and a line end behind the last one.

        Args:
            text: empty only at the end.
        """
        print(text, end="\n" if stream_end else "", flush=True)

    def _tell(self, text: str) -> None:
        if text:
            self.on_finalized_text(text)

    def go_on_from(self, ids: list[int]) -> None:
        """Reads a prompt that is not told, so that the new tokens are decoded as its continuation."""
        self._decoder.steps(ids)


class QueueStreamer(TextStreamer):
    """Hands text over to a reader, which may close it.

    Attributes:
        text_queue: of texts, behind them the stop signal, or what the generation has raised.
        timeout: of waiting for a text, in seconds; None: none.
    """

    text_queue: Any
    stop_signal: Any = None

    def __init__(self, tokenizer: Any, skip_prompt: bool, timeout: float | None, **decode_options: Any):
        super().__init__(tokenizer, skip_prompt, **decode_options)
        if timeout is not None and not (is_number(timeout) and timeout > 0):
            raise InputError(f"timeout: {short(timeout)}, expected a number of seconds above 0, or None")
        self.timeout = timeout
        self._closed = self._finished = False

    def put(self, value: Any) -> None:
        if self._closed:
            raise StreamClosed
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Hands text to the reader, and tells it the end."""
        if text:
            self._hand(text)
        if stream_end:
            self._hand(self.stop_signal)

    def fail(self, problem: BaseException) -> None:
        """Ends the iterator, which raises the problem behind the text so far."""
        self.next_tokens_are_prompt = True
        with suppress(InputError):  # the end of the text may be what the problem is about
            self._tell(self._decoder.end())
        self._hand(problem)

    def close(self) -> None:
        """Ends the iterator; the generation ends with its next token, where `generate` raises `StreamClosed`."""
        self._closed = True
        with suppress(StreamClosed):
            self._hand(self.stop_signal)

    def _hand(self, item: Any) -> None:
        self.text_queue.put(item)

    @property
    def _is_over(self) -> bool:
        return self._closed or self._finished

    def _text_of(self, item: Any, stop: type[Exception]) -> str:
        if isinstance(item, str):
            return item
        self._finished = True
        raise stop if item is self.stop_signal else item

    def _late(self) -> TimeoutError:
        return TimeoutError(f"no text within {self.timeout} seconds")


class TextIteratorStreamer(QueueStreamer):
    """An iterator over the text of a generation that runs in another thread; `stream` starts that thread too.

    It ends with the generation, and raises what that has raised.

    Args:
        tokenizer, skip_prompt, decode_options: as of `TextStreamer`.
        timeout: of waiting for a piece, in seconds; None: none.

    Raises:
        TimeoutError: by `next`, no text came in time; it may be called again.
    """

    stop_signal: Any = None

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_options: Any):
        super().__init__(tokenizer, skip_prompt, timeout, **decode_options)
        self.text_queue = SimpleQueue()

    def __iter__(self) -> Iterator[str]:
        self._finished = False  # a streamer may serve one generation after the other
        return self

    def __next__(self) -> str:
        if self._is_over:
            raise StopIteration
        try:
            item = self.text_queue.get(timeout=self.timeout)
        except Empty:
            raise self._late() from None
        return self._text_of(item, StopIteration)


class AsyncTextIteratorStreamer(QueueStreamer):
    """The same for `async for`. It is made inside a coroutine, and the generation runs in another thread.

    Args:
        tokenizer, skip_prompt, timeout, decode_options: as of `TextIteratorStreamer`.

    Raises:
        InputError: there is no coroutine around.
        TimeoutError: by `anext`, no text came in time; it may be called again.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_options: Any):
        super().__init__(tokenizer, skip_prompt, timeout, **decode_options)
        try:
            self.loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InputError("AsyncTextIteratorStreamer: no running event loop, expected a coroutine around") from None
        self.text_queue = asyncio.Queue()

    def _hand(self, item: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(self.text_queue.put_nowait, item)
        except RuntimeError:  # the event loop is closed
            raise StreamClosed from None

    def __aiter__(self) -> AsyncIterator[str]:
        self._finished = False
        return self

    async def __anext__(self) -> str:
        if self._is_over:
            raise StopAsyncIteration
        try:
            item = await asyncio.wait_for(self.text_queue.get(), self.timeout)
        except TimeoutError:
            raise self._late() from None
        return self._text_of(item, StopAsyncIteration)


@contextmanager
def streaming(streamer: Any) -> Iterator[Callable[[np.ndarray], None]]:
    """Lends `put` of a streamer, ours or Transformers', which ends when the block does, whatever ended that.

    Args:
        streamer: None: what is put goes nowhere.

    Raises:
        InputError: it has no `put` and `end`.
    """
    if streamer is None:
        yield lambda ids: None
        return
    if isinstance(streamer, type) or not all(callable(getattr(streamer, name, None)) for name in ("put", "end")):
        raise InputError(f"streamer: {short(streamer)}, expected one with put and end, such as a TextStreamer")
    try:
        yield streamer.put
        streamer.end()
    except BaseException as problem:
        if callable(getattr(streamer, "fail", None)):
            streamer.fail(problem)
        else:
            streamer.end()
        raise


def _decoder(tokenizer: Any, options: dict[str, Any]) -> Any:
    make = getattr(tokenizer, "decode_stream", None)
    if not callable(make):
        raise InputError(f"tokenizer: a {class_of(tokenizer)}, expected one of gptzoo.tokenization")
    known = [*inspect.signature(make).parameters]
    if problems := [unknown_argument(name, known) for name in options if name not in known]:
        raise InputError.listing("streamer", problems)
    return make(**options)


def _one_row(value: Any) -> list[int]:
    ids = value.tolist() if hasattr(value, "tolist") else np.asarray(value).tolist()
    rows = ids if ids and isinstance(ids[0], list) else [ids]
    if len(rows) != 1:
        raise InputError(f"streamer: {len(rows)} rows, expected one row")
    row: list[int] = rows[0]
    return row
