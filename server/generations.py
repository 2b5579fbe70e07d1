"""The generations that HTTP callers are waiting for: each is started, counted, abortable by id, and
closed exactly once.

Owns: the table of ids in flight and the request counters. Knows no wire format.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from ..runtime.client import AsyncClient, AsyncStream
from ..runtime.errors import Cancelled, InvalidRequest
from ..runtime.native_format import renamed
from ..runtime.protocol import Chunk, GenerateRequest
from .errors import failure

FieldNames = Mapping[str, str]
"""Field of the runtime -> the caller's key for it, where the two differ."""


@contextmanager
def in_callers_words(names: FieldNames) -> Iterator[None]:
    """An InvalidRequest raised inside names the field that the caller sent."""
    try:
        yield
    except InvalidRequest as error:
        raise renamed(error, names) from error.__cause__


@dataclass
class Counts:
    """What became of the requests so far. Written only by Generations."""

    requests: Counter[str] = field(default_factory=Counter)  # by outcome
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    forced_tokens: int = 0


@dataclass
class _Entry:
    """A request in flight; without a stream it is still being started. Written by Generations."""

    stream: AsyncStream | None = None
    is_aborted: bool = False


class Generations:
    """Starts requests on a client and keeps them abortable until they end."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._running: dict[str, _Entry] = {}
        self.counts = Counts()

    @property
    def num_running(self) -> int:
        return len(self._running)

    @asynccontextmanager
    async def started(
        self, requests: list[GenerateRequest], names: list[FieldNames]
    ) -> AsyncIterator[list["Generation"]]:
        """All of `requests`, running side by side; leaving the block aborts what has not ended.
        `names`: for each request, what its caller calls its fields."""
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(self._started(one, called))
                for one, called in zip(requests, names, strict=True)
            ]

    @asynccontextmanager
    async def _started(
        self, request: GenerateRequest, names: FieldNames
    ) -> AsyncIterator["Generation"]:
        request_id = request.request_id
        if request_id in self._running:
            raise InvalidRequest(f"rid: {request_id!r} is already in flight", field="rid")
        entry = self._running[request_id] = _Entry()
        outcome = "aborted"
        try:
            with in_callers_words(names):
                entry.stream = await self._client.generate(request)
            generation = Generation(entry.stream, self.counts, request.sampling.n, names)
            try:
                if entry.is_aborted:
                    await entry.stream.close()
                yield generation
            finally:
                await entry.stream.close()
            if generation.is_finished:
                outcome = "finished"
        except Exception as error:
            if not isinstance(error, Cancelled):
                outcome = "refused" if failure(error).status < 500 else "failed"
            raise
        finally:
            del self._running[request_id]
            self.counts.requests[outcome] += 1

    async def abort(self, prefix: str) -> int:
        """Abort every request in flight whose id begins with `prefix`; the number of them."""
        found = [entry for name, entry in self._running.items() if name.startswith(prefix)]
        for entry in found:
            entry.is_aborted = True
            if entry.stream is not None:
                await entry.stream.close()
        return len(found)


class Generation:
    """One request's answer: chunks in order, counted as they pass."""

    def __init__(
        self, stream: AsyncStream, counts: Counts, num_samples: int, names: FieldNames
    ) -> None:
        self._stream = stream
        self._counts = counts
        self._unfinished = num_samples
        self._names = names

    @property
    def is_finished(self) -> bool:
        return self._unfinished == 0

    async def chunks(self) -> AsyncIterator[Chunk]:
        with in_callers_words(self._names):
            async for chunk in self._stream:
                if chunk.finish is not None:
                    self._unfinished -= 1
                    self._count(chunk)
                yield chunk

    def _count(self, final: Chunk) -> None:
        self._counts.prompt_tokens += final.usage.prompt_tokens
        self._counts.cached_tokens += final.usage.cached_tokens
        self._counts.completion_tokens += final.usage.completion_tokens
        self._counts.forced_tokens += final.usage.forced_tokens
