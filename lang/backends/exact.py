"""Our own server as a transport: the runtime's records over HTTP, token by token as in process.

Owns: the routes `/exact/`, from this side.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

from ...runtime.errors import EngineError, InvalidRequest
from ...runtime.protocol import (
    Chunk,
    ControlAction,
    EngineInfo,
    GenerateRequest,
    ScoreRequest,
    Scores,
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
        async with aclosing(self._http.events("/exact/generate", encode(request))) as events:
            async for event in events:
                yield _answer(Chunk, event)

    async def score(self, request: ScoreRequest) -> Scores:
        return _answer(Scores, await self._http.post("/exact/score", encode(request)))

    async def control(self, action: ControlAction) -> dict[str, Any]:
        return await control(self._http, action)

    async def close(self) -> None:
        await self._http.close()


async def control(http: Http, action: ControlAction) -> dict[str, Any]:
    """What both our server and SGLang's offer."""
    match action:
        case "stats":
            info = await http.get("/server_info")
            return dict(info.get("stats", info))
        case "flush_cache":
            answer = await http.post("/flush_cache")
            return dict(answer) if isinstance(answer, dict) else {}
        case _:
            raise InvalidRequest(f"action: {action!r} is not possible from afar", field="action")


def _answer(kind: type[Record], value: Any) -> Record:
    try:
        made = decode(value)
    except (TypeError, ValueError, LookupError) as error:
        raise EngineError(f"the server sent no {kind.__name__}: {error}") from None
    if not isinstance(made, kind):
        raise EngineError(f"the server sent no {kind.__name__}")
    return made
