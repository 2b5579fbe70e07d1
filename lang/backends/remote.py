"""`RemoteClient`: a `Client` over something that answers on an event loop.

Owns: the loop on a thread of its own, the requests in flight, and the four promises of `Client`.
Knows no wire format: that is the transport's.
"""

import asyncio
import atexit
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast

from ...runtime.dispatcher import Dispatcher
from ...runtime.errors import Cancelled, EngineDied, EngineError, InvalidRequest, SapwoodError
from ...runtime.protocol import (
    Chunk,
    ControlAction,
    EngineInfo,
    GenerateRequest,
    ScoreRequest,
    Scores,
)
from ...runtime.streams import Answer, Mailbox, RoutedStream

T = TypeVar("T")

_GRACE: Final = 5.0  # seconds for connections and callbacks to end at close


class Transport(Protocol):
    """A remote runtime. All of it is called on the client's event loop; errors are SapwoodErrors,
    and what else is raised reaches the caller as EngineError."""

    async def open(self) -> EngineInfo: ...

    def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """The chunks of all samples, each with one finish. Closing the iterator aborts."""
        ...

    async def score(self, request: ScoreRequest) -> Scores: ...

    async def control(self, action: ControlAction) -> dict[str, Any]: ...

    async def close(self) -> None: ...


class RemoteClient:
    """See `Client`. Raises what `transport.open` raises. Closed at interpreter exit, if not
    before."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._dispatcher = Dispatcher()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="sapwood-remote", daemon=True
        )
        self._lock = threading.Lock()
        # Name -> (who reads the answer, the work): a name is used again once its reader has left.
        self._running: dict[str, tuple[object, Future[None]]] = {}
        self._death: EngineDied | None = None
        self._thread.start()
        try:
            self._info = self._spawn(transport.open()).result()
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)

    # --- the Client interface ------------------------------------------------------------------

    def generate(self, request: GenerateRequest) -> RoutedStream:
        name = request.request_id
        mailbox = Mailbox(self._dispatcher, on_broken_reader=partial(self._cancel, name))

        def cancelled() -> None:
            mailbox.push(self._cancellation(), last=True)

        self._start(name, mailbox, self._generate(request, mailbox), cancelled)
        return RoutedStream(name, mailbox, self._dispatcher, partial(self._cancel, name))

    def score(self, request: ScoreRequest) -> Future[Scores]:
        answer: Answer[Scores] = Answer()

        def cancelled() -> None:
            reason = self._cancellation()
            self._dispatcher.post(lambda: answer.fail(reason))

        self._start(request.request_id, answer, self._score(request, answer), cancelled)

        def after(future: Future[Scores]) -> None:
            if future.cancelled():
                answer.withdraw()
                self._cancel(request.request_id)

        answer.future.add_done_callback(after)
        return answer.future

    def control(self, action: ControlAction) -> dict[str, Any]:
        self._check_alive()
        return self.run(self._transport.control(action))

    def info(self) -> EngineInfo:
        return self._info

    def close(self) -> None:
        with self._lock:
            if self._death is not None:
                return
            self._death = EngineDied("the client was closed")
            running = list(self._running)
        for name in running:
            self._cancel(name)
        try:
            self._spawn(self._shut()).result(2 * _GRACE)
        except TimeoutError:
            pass  # a transport that blocks its loop; this thread is not to share its fate
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_GRACE)
            if not self._thread.is_alive():
                self._loop.close()
            self._dispatcher.stop(_GRACE)
            atexit.unregister(self.close)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something of the transport's on the loop; waits for it."""
        return self._spawn(_told(work)).result()

    # --- the loop ------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _check_alive(self) -> None:
        if self._death is not None:
            raise EngineDied(str(self._death))

    def _start(
        self,
        name: str,
        reader: object,
        work: Coroutine[Any, Any, None],
        cancelled: Callable[[], None],
    ) -> None:
        """`cancelled` tells the reader, also where the work is cancelled before it has begun."""

        def ended(future: Future[None]) -> None:
            if future.cancelled():
                cancelled()

        with self._lock:
            try:
                self._check_alive()
                if name in self._running:
                    raise InvalidRequest(
                        f"request_id: {name!r} is the id of a request that has not ended",
                        field="request_id",
                    )
            except BaseException:
                work.close()
                raise
            future = self._spawn(work)
            self._running[name] = (reader, future)
        future.add_done_callback(ended)

    def _cancel(self, name: str) -> None:
        """Its name is free from now on; what is left of it ends by itself."""
        with self._lock:
            _, future = self._running.pop(name, (None, None))
        if future is not None:
            future.cancel()

    def _forget(self, name: str, reader: object) -> None:
        with self._lock:
            if name in self._running and self._running[name][0] is reader:
                del self._running[name]

    def _cancellation(self) -> Exception:
        if self._death is not None:
            return EngineDied(str(self._death))
        return Cancelled("the request was closed by its caller")

    async def _generate(self, request: GenerateRequest, mailbox: Mailbox) -> None:
        num_open = request.sampling.n
        error: Exception | None = None
        try:
            # A transport writes its answers as an async generator, which can be closed.
            chunks = cast("Any", self._transport.generate(request))
            async with aclosing(chunks):
                async for chunk in chunks:
                    num_open -= chunk.finish is not None
                    if not num_open:
                        self._forget(request.request_id, mailbox)
                    mailbox.push(chunk, last=not num_open)
            if num_open:
                error = EngineError(f"the answer ended with {num_open} samples unfinished")
        except Exception as raised:
            error = _as_ours(raised)
        self._forget(request.request_id, mailbox)
        if error is not None:
            mailbox.push(error, last=True)

    async def _score(self, request: ScoreRequest, answer: Answer[Scores]) -> None:
        try:
            scores = await self._transport.score(request)
            self._forget(request.request_id, answer)
            self._dispatcher.post(lambda: answer.give(scores))
        except Exception as raised:
            error = _as_ours(raised)
            self._forget(request.request_id, answer)
            self._dispatcher.post(lambda: answer.fail(error))

    async def _shut(self) -> None:
        """Once every request has heard of the end."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_GRACE)
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await self._transport.close()


async def _told(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except Exception as raised:
        raise _as_ours(raised) from raised.__cause__


def _as_ours(raised: Exception) -> Exception:
    if isinstance(raised, SapwoodError):
        return raised
    error = EngineError(f"{type(raised).__name__}: {raised}")
    error.__cause__ = raised
    return error
