"""`AsyncBridge`: the async twin of any Client, for one event loop.

Owns: the way from the dispatcher's thread to the event loop. Knows no transport.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, TypeVar

from .client import Client, Event, Stream
from .protocol import Chunk, ControlAction, EngineInfo, GenerateRequest, ScoreRequest, Scores

T = TypeVar("T")


class AsyncBridge:
    """See `AsyncClient`. What may block (tokenizing a long prompt too) runs on other threads."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def generate(self, request: GenerateRequest) -> "BridgedStream":
        start = partial(self._client.generate, request)
        stream = await _start(start, undo=lambda stream: stream.close())
        return BridgedStream(stream, request.sampling.n)

    async def score(self, request: ScoreRequest) -> Scores:
        start = partial(self._client.score, request)
        future = await _start(start, undo=lambda future: future.cancel())
        return await asyncio.wrap_future(future)  # cancelling this cancels that

    async def control(self, action: ControlAction) -> dict[str, Any]:
        return await _in_thread(partial(self._client.control, action))

    async def info(self) -> EngineInfo:
        return await _in_thread(self._client.info)

    async def close(self) -> None:
        await _in_thread(self._client.close)


class BridgedStream:
    """See `AsyncStream`. Leaving `async with` closes it."""

    def __init__(self, stream: Stream, num_samples: int) -> None:
        self._stream = stream
        self._num_open = num_samples
        self._error: BaseException | None = None
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        stream.subscribe(self._hear)

    def _hear(self, event: Event) -> None:
        """Dispatcher thread."""
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    @property
    def request_id(self) -> str:
        return self._stream.request_id

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        while self._num_open:
            if self._error is not None:
                raise self._error
            event = await self._events.get()
            if isinstance(event, BaseException):
                self._error = event
                raise event
            self._num_open -= event.finish is not None
            yield event

    async def close(self) -> None:
        self._stream.close()

    async def __aenter__(self) -> "BridgedStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _in_thread(function: Callable[[], T]) -> "asyncio.Future[T]":
    return asyncio.get_running_loop().run_in_executor(None, function)


async def _start(start: Callable[[], T], undo: Callable[[T], object]) -> T:
    """The result of `start`; undone if the caller is cancelled, since the thread goes on and what
    it starts would have nobody to end it."""
    starting = _in_thread(start)
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(partial(_undo, undo))
        raise


def _undo(undo: Callable[[T], object], started: "asyncio.Future[T]") -> None:
    if not started.cancelled() and started.exception() is None:
        undo(started.result())
