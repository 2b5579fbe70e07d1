"""The routes about the server itself: health, the model, the cache, aborts, metrics."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ..runtime.errors import EngineError, InvalidRequest
from ..runtime.protocol import GenerateRequest, SamplingParams, Text
from . import metrics
from .body import Body, read_record
from .service import Service
from .version import VERSION

HEALTH_SECONDS: Final = 10.0
"""How long the engine may take to answer. It answers between two steps, so this is far longer than
a healthy engine needs, and a hung one is found out."""


class AbortBody(Body):
    rid: str | None = None
    abort_all: bool | None = None


def admin_router(service: Service) -> APIRouter:
    router = APIRouter()
    client = service.client

    @router.get("/health")
    async def health() -> Response:
        return await _healthy(client.control("stats"))

    @router.get("/health_generate")
    async def health_generate() -> Response:
        return await _healthy(_generate_one(service))

    @router.get("/model_info")
    @router.get("/get_model_info")
    async def model_info() -> Any:
        info = await client.info()
        return {
            "sapwood": VERSION,  # tells our own clients that the routes `/exact/` are here
            "model_path": info.model,
            "served_model_name": await service.model_name(),
            "tokenizer_path": info.model,
            "is_generation": True,
            "context_length": info.context_length,
            "vocab_size": info.vocab_size,
            "dtype": info.dtype,
            "has_chat_template": info.chat_template is not None,
        }

    @router.get("/server_info")
    @router.get("/get_server_info")
    async def server_info() -> Any:
        info = await client.info()
        return {
            "version": VERSION,
            "model_path": info.model,
            "served_model_name": await service.model_name(),
            "context_length": info.context_length,
            "dtype": info.dtype,
            "max_total_num_tokens": info.max_tokens_in_cache,
            "page_size": info.page_size,
            "started": service.started,
            "requests_in_flight": service.generations.num_running,
            "stats": await client.control("stats"),
        }

    @router.api_route("/flush_cache", methods=["GET", "POST"])
    async def flush_cache() -> Any:
        return {"success": True, **await client.control("flush_cache")}

    @router.post("/abort_request")
    async def abort_request(request: Request) -> Any:
        body = await read_record(request, AbortBody, service.options.max_body_bytes)
        if body.abort_all and not body.rid:
            return {"aborted": await service.generations.abort("")}
        if body.rid and not body.abort_all:
            return {"aborted": await service.generations.abort(body.rid)}
        raise InvalidRequest("rid: either rid or abort_all must be given", field="rid")

    @router.get("/metrics")
    async def metrics_page() -> Response:
        generations = service.generations
        text = metrics.exposition(
            generations.counts, generations.num_running, await client.control("stats")
        )
        return PlainTextResponse(text, media_type=metrics.CONTENT_TYPE)

    return router


async def _healthy(proof: Any) -> Response:
    try:
        await asyncio.wait_for(proof, HEALTH_SECONDS)
    except TimeoutError:
        return _unhealthy(f"the engine did not answer within {HEALTH_SECONDS:.0f} s")
    except EngineError as error:
        return _unhealthy(str(error))
    return JSONResponse({"status": "ok"})


def _unhealthy(reason: str) -> Response:
    return JSONResponse({"status": "unhealthy", "reason": reason}, status_code=503)


async def _generate_one(service: Service) -> None:
    """One greedy token: proof that the whole engine turns, not only that it listens."""
    request = GenerateRequest((Text("hi"),), SamplingParams(max_tokens=1, temperature=0.0))
    async with service.generations.started([request], [{}]) as [running]:
        async for _ in running.chunks():
            pass
