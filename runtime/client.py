"""The one narrow interface between those who ask (lang, server, CLI) and those who compute.

Owns: the Protocols and their promises. Holds no implementation: `local` and `process` do, `aio`
makes the async twin.

The promises, tested over every implementation: a request ends in exactly one finish per sample or
one error; chunks keep their order; closing a stream early frees its pages; a dead engine wakes
every waiting caller with EngineDied.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol

from .protocol import Chunk, ControlAction, EngineInfo, GenerateRequest, ScoreRequest, Scores

Event = Chunk | BaseException
"""What a stream delivers: chunks, or one error that ends it."""


class Stream(Protocol):
    """The answer to one GenerateRequest, all samples interleaved."""

    @property
    def request_id(self) -> str: ...

    def __iter__(self) -> Iterator[Chunk]:
        """Blocks for each next chunk; ends after every sample's finish; raises the stream's
        error."""
        ...

    def subscribe(self, on_event: Callable[[Event], None]) -> None:
        """Have every event, those already here first, handed to `on_event` on the client's
        dispatcher thread.

        Instead of iterating, never beside it. `on_event` must not block.
        """
        ...

    def close(self) -> None:
        """Abort whatever has not finished and free it; a waiting reader gets Cancelled. Safe to
        call twice."""
        ...


class Client(Protocol):
    """A runtime as seen by callers. Every method may be called from any thread."""

    def generate(self, request: GenerateRequest) -> Stream:
        """Start a generation. A bad request raises InvalidRequest here or ends the stream with
        it."""
        ...

    def score(self, request: ScoreRequest) -> Future[Scores]:
        """Score options; `cancel()` on the future aborts. Callbacks run on the dispatcher
        thread."""
        ...

    def control(self, action: ControlAction) -> dict[str, Any]:
        """`stats`: counters; `flush_cache`: drop every unlocked page; `check_integrity`: assert the
        owners' invariants."""
        ...

    def info(self) -> EngineInfo: ...

    def close(self) -> None:
        """Stop. Whatever is unfinished ends with EngineDied. Safe to call twice."""
        ...


class AsyncStream(Protocol):
    @property
    def request_id(self) -> str: ...

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    async def close(self) -> None: ...


class AsyncClient(Protocol):
    """The same, for one event loop."""

    async def generate(self, request: GenerateRequest) -> AsyncStream: ...

    async def score(self, request: ScoreRequest) -> Scores: ...

    async def control(self, action: ControlAction) -> dict[str, Any]: ...

    async def info(self) -> EngineInfo: ...

    async def close(self) -> None: ...
