"""Server-sent events, and callers that leave before their answer is there.

Owns: the framing of events, the end of work whose caller is gone, and the merging of several
answers into one.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import failure

DONE = b"data: [DONE]\n\n"

Item = TypeVar("Item")


def event(data: Any) -> bytes:
    """One event. Compact JSON on one line, text as it is (UTF-8)."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"data: {text}\n\n".encode()


async def unless_gone(receive: Receive, work: Awaitable[Item]) -> Item:
    """The result of `work`; cancels it and raises ClientDisconnect once the caller has left.

    Call it after the body has been read: from then on the only message to come is that the caller
    has left.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        for one in (task, watch):
            one.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        if not task.done():
            with suppress(asyncio.CancelledError):
                await task


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def streamed(receive: Receive, events: AsyncGenerator[Any], *, openai: bool) -> "EventStream":
    """The response that streams `events`. It begins with the first of them: a refused request keeps
    its status."""
    first = await unless_gone(receive, anext(events))
    return EventStream(first, events, openai=openai)


class EventStream(Response):
    """A response of events. An error in mid-stream becomes an error event; [DONE] always comes
    last.

    `events` yields the data of each event; it is closed when the answer is complete or the caller
    has left. `openai`: whether errors take OpenAI's form.
    """

    media_type = "text/event-stream"

    def __init__(self, first: Any, events: AsyncGenerator[Any], *, openai: bool) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._events = events
        self._openai = openai

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            with suppress(ClientDisconnect):
                await unless_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        async for data in self._safely():
            await send({"type": "http.response.body", "body": event(data), "more_body": True})
        await send({"type": "http.response.body", "body": DONE, "more_body": False})

    async def _safely(self) -> AsyncIterator[Any]:
        yield self._first
        try:
            async for data in self._events:
                yield data
        except Exception as error:
            known = failure(error)
            yield known.openai() if self._openai else known.native()


async def merged(sources: list[AsyncIterator[Item]]) -> AsyncIterator[tuple[int, Item]]:
    """The items of all sources as they come, each with its source's index. The first error ends
    all."""
    if len(sources) == 1:
        async for item in sources[0]:
            yield 0, item
        return
    queue: asyncio.Queue[_Item[Item] | _End] = asyncio.Queue()

    async def pump(index: int, source: AsyncIterator[Item]) -> None:
        error: Exception | None = None
        try:
            async for item in source:
                queue.put_nowait(_Item(index, item))
        except Exception as raised:
            error = raised
        queue.put_nowait(_End(error))

    pumps = [asyncio.ensure_future(pump(i, source)) for i, source in enumerate(sources)]
    try:
        running = len(pumps)
        while running:
            event = await queue.get()
            if isinstance(event, _Item):
                yield event.index, event.item
            elif event.error is not None:
                raise event.error
            else:
                running -= 1
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


@dataclass(frozen=True)
class _Item(Generic[Item]):
    index: int
    item: Item


@dataclass(frozen=True)
class _End:
    """A source has ended, perhaps with an error."""

    error: Exception | None
