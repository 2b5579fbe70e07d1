"""Our own server as a transport: the runtime's records over HTTP, token by token as in process.

Owns: the routes `/exact/`, from this side.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from ...runtime.errors import EngineError
from ...runtime.protocol import (
    Chunk,
    ControlAction,
    EngineInfo,
    GenerateRequest,
    ScoreRequest,
    Scores,
    new_request_id,
)
from ...runtime.recording.encoding import decode, encode
from .http import Http

Record = TypeVar("Record")


class ExactTransport:
    def __init__(self, http: Http) -> None:
        self._http = http

    async def open(self) -> EngineInfo:
        return _answer(EngineInfo, await self._http.get("/exact/info"))

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        # The server hears of a caller's end later than the caller, who may use the id again.
        wire = replace(request, request_id=f"{request.request_id}.{new_request_id()}")
        async with aclosing(self._http.events("/exact/generate", encode(wire))) as events:
            async for event in events:
                yield _answer(Chunk, event)

    async def score(self, request: ScoreRequest) -> Scores:
        return _answer(Scores, await self._http.post("/exact/score", encode(request)))

    async def control(self, action: ControlAction) -> dict[str, Any]:
        return dict(await self._http.post("/exact/control", {"action": action}))

    async def close(self) -> None:
        await self._http.close()


def _answer(kind: type[Record], value: Any) -> Record:
    try:
        made = decode(value)
    except (TypeError, ValueError, LookupError) as error:
        raise EngineError(f"the server sent no {kind.__name__}: {error}") from None
    if not isinstance(made, kind):
        raise EngineError(f"the server sent no {kind.__name__}")
    return made
