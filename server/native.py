"""The native route `/generate`, in SGLang's shape.

Streams are cumulative, as SGLang's clients expect: each event repeats all text so far.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from ..runtime.errors import Cancelled
from ..runtime.protocol import Chunk
from .body import Body, read_record
from .generations import Generation
from .native_answer import Sample, samples
from .native_request import Generate, generate
from .native_schema import GenerateBody
from .service import Service
from .streaming import merged, streamed, unless_gone


class ConcatenateBody(Body):
    src_rids: list[str]
    dst_rid: str


def native_router(service: Service) -> APIRouter:
    router = APIRouter()

    @router.api_route("/generate", methods=["POST", "PUT"])
    async def generate_route(request: Request) -> Response:
        body = await read_record(request, GenerateBody, service.options.max_body_bytes)
        wanted = generate(body)
        if wanted.stream:
            return await streamed(request.receive, _events(service, wanted), openai=False)
        objects = await unless_gone(request.receive, _objects(service, wanted))
        return JSONResponse(objects if wanted.as_list else objects[0])

    @router.post("/concate_and_append_request")
    async def concatenate(request: Request) -> Response:
        """Does nothing, on purpose: SGLang's older clients announce a join of forks by ids that
        they never sent with a request. They join the text themselves, and their next `/generate`
        carries all of it."""
        await read_record(request, ConcatenateBody, service.options.max_body_bytes)
        return JSONResponse({"success": True})

    return router


async def _events(service: Service, wanted: Generate) -> AsyncGenerator[dict[str, Any]]:
    """One object per chunk; in a list each says whose it is by `index`."""
    async for sample in _progress(service, wanted, samples(wanted.requests)):
        shown = sample.as_dict(with_prompt_ids=wanted.with_prompt_ids)
        yield shown | ({"index": sample.place} if wanted.as_list else {})


async def _objects(service: Service, wanted: Generate) -> list[dict[str, Any]]:
    table = samples(wanted.requests)
    async for _ in _progress(service, wanted, table):
        pass
    return [
        sample.as_dict(with_prompt_ids=wanted.with_prompt_ids) for row in table for sample in row
    ]


async def _progress(
    service: Service, wanted: Generate, table: list[list[Sample]]
) -> AsyncIterator[Sample]:
    """Fills the table; yields each sample that has moved on."""
    async with service.generations.started(wanted.requests, wanted.names) as running:
        async for which, chunk in merged([_until_aborted(one) for one in running]):
            if chunk is not None:
                sample = table[which][chunk.index]
                sample.add(chunk)
                yield sample
                continue
            for sample in table[which]:
                if not sample.is_finished:
                    sample.abort()
                    yield sample


async def _until_aborted(generation: Generation) -> AsyncIterator[Chunk | None]:
    """The chunks; None, last, where the request was aborted: its answer so far is its answer."""
    try:
        async for chunk in generation.chunks():
            yield chunk
    except Cancelled:
        yield None
