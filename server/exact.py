"""The routes `/exact/*`: the `Client` interface itself over HTTP, for programs on other machines.

Requests and answers are the runtime's own records (`runtime.recording.encoding`), so nothing that a
client in this process would see is lost: prompt parts, kept ids, tails. Errors have OpenAI's form.
"""

from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import Response

from ..runtime.errors import InvalidRequest
from ..runtime.protocol import (
    GenerateRequest,
    Ids,
    LogprobOptions,
    Prompt,
    SamplingParams,
    ScoreRequest,
    Text,
)
from ..runtime.recording.encoding import decode, encode
from .body import Body, read_json, read_record
from .service import Service
from .streaming import streamed, unless_gone


class ControlBody(Body):
    action: str


Record = TypeVar("Record", GenerateRequest, ScoreRequest)


def exact_router(service: Service) -> APIRouter:
    router = APIRouter(prefix="/exact")
    max_bytes = service.options.max_body_bytes

    @router.get("/info")
    async def info() -> Any:
        return encode(await service.client.info())

    @router.post("/generate")
    async def generate(request: Request) -> Response:
        wanted = _record(GenerateRequest, await read_json(request, max_bytes))
        _check_generate(wanted)
        return await streamed(request.receive, _events(service, wanted), openai=True)

    @router.post("/score")
    async def score(request: Request) -> Any:
        wanted = _record(ScoreRequest, await read_json(request, max_bytes))
        _check_prompt(wanted.prompt)
        return encode(await unless_gone(request.receive, service.client.score(wanted)))

    @router.post("/control")
    async def control(request: Request) -> Any:
        action = (await read_record(request, ControlBody, max_bytes)).action
        match action:
            case "stats" | "flush_cache":
                return await service.client.control(action)
        raise InvalidRequest(f"action: {action!r} is not possible from afar", field="action")

    return router


async def _events(service: Service, request: GenerateRequest) -> AsyncGenerator[Any]:
    async with service.generations.started([request], [{}]) as [running]:
        async for chunk in running.chunks():
            yield encode(chunk)


def _record(kind: type[Record], body: Any) -> Record:
    """Raises InvalidRequest for what is no such record."""
    try:
        made = decode(body)
    except InvalidRequest:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise InvalidRequest(f"the body is no {kind.__name__}: {error}") from None
    if not isinstance(made, kind):
        raise InvalidRequest(f"the body is no {kind.__name__}")
    return made


def _check_generate(request: GenerateRequest) -> None:
    _check_prompt(request.prompt)
    for name, value, kinds in (
        ("sampling", request.sampling, SamplingParams),
        ("logprobs", request.logprobs, LogprobOptions | None),
    ):
        if not isinstance(value, kinds):
            raise InvalidRequest(f"{name}: {value!r} is not what it must be", field=name)
    if request.turns:
        raise InvalidRequest("turns: this model speaks in token ids", field="turns")


def _check_prompt(prompt: Prompt) -> None:
    for part in prompt if isinstance(prompt, tuple) else (None,):
        match part:
            case Ids(tuple(ids)) if all(type(id) is int for id in ids):
                pass
            case Text(str(), bool()):
                pass
            case _:
                raise InvalidRequest(f"prompt: {part!r} is neither Ids nor Text", field="prompt")
