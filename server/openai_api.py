"""The routes of OpenAI's API: models, chat completions, completions.

Owns: the order of things — read, check, start, answer whole or stream. What bodies mean is in
`openai_request`, what answers look like in `openai_answer`.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from ..runtime.chat import chat_format
from ..runtime.protocol import GenerateRequest, Prompt
from . import openai_answer as answer
from .answers import Answer, gathered, total_usage
from .body import read_record
from .errors import UnknownModel
from .generations import FieldNames
from .openai_request import (
    chat_request,
    chat_template_kwargs,
    chat_template_switches,
    check_stream_options,
    completion_requests,
    field_names,
)
from .openai_schema import ChatRequest, CompletionRequest
from .service import Service
from .streaming import merged, streamed, unless_gone


def openai_router(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/models")
    async def models() -> Any:
        return {"object": "list", "data": [await _model_card(service)]}

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> Any:
        await _check_model(service, name)
        return await _model_card(service)

    @router.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        body = await read_record(request, ChatRequest, service.options.max_body_bytes)
        return await _chat(service, request, body)

    @router.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await read_record(request, CompletionRequest, service.options.max_body_bytes)
        return await _completions(service, request, body)

    return router


async def _model_card(service: Service) -> dict[str, Any]:
    info = await service.client.info()
    return {
        "id": await service.model_name(),
        "object": "model",
        "created": service.started,
        "owned_by": "sapwood",
        "root": info.model,
        "max_model_len": info.context_length,
    }


async def _check_model(service: Service, name: str | None) -> None:
    served = await service.model_name()
    if name not in (None, served):
        raise UnknownModel(f"model: {name!r} is not served here, {served!r} is", param="model")


async def _head(service: Service, kind: str) -> answer.Head:
    name = await service.model_name()
    return answer.Head(f"{kind}-{secrets.token_hex(12)}", int(time.time()), name)


# --- chat --------------------------------------------------------------------------------------


async def _chat(service: Service, request: Request, body: ChatRequest) -> Response:
    await _check_model(service, body.model)
    with_usage = check_stream_options(body)
    head = await _head(service, "chatcmpl")
    generation = await _chat_generation(service, body, head.answer_id)
    names = field_names(body)
    logprobs = bool(body.logprobs)
    if body.stream:
        events = _chat_events(service, head, generation, names, logprobs, with_usage)
        return await streamed(request.receive, events, openai=True)
    [samples] = await unless_gone(request.receive, _whole(service, [generation], names))
    usage = total_usage([samples])
    return JSONResponse(answer.chat_answer(head, samples, usage, logprobs=logprobs))


async def _chat_generation(service: Service, body: ChatRequest, answer_id: str) -> GenerateRequest:
    begin, keep_on = chat_template_switches(body)
    info = await service.client.info()
    template = chat_format(info.chat_template, info.special_tokens, info.model)
    prompt = await asyncio.to_thread(
        template.parts,
        [{"role": message.role, "content": message.text} for message in body.messages],
        begin,
        continue_final_message=keep_on,
        **chat_template_kwargs(body),
    )
    return chat_request(body, prompt, answer_id)


async def _chat_events(
    service: Service,
    head: answer.Head,
    generation: GenerateRequest,
    names: FieldNames,
    logprobs: bool,
    with_usage: bool,
) -> AsyncGenerator[dict[str, Any]]:
    extra = {"usage": None} if with_usage else {}
    samples: dict[int, Answer] = {}
    async with service.generations.started([generation], [names]) as [running]:
        async for chunk in running.chunks():
            if chunk.index not in samples:
                samples[chunk.index] = Answer()
                yield answer.chat_opening(head, chunk.index) | extra
            samples[chunk.index].add(chunk)
            shown = answer.chat_event(head, chunk, logprobs=logprobs)
            if shown is not None:
                yield shown | extra
    if with_usage:
        usage = total_usage([[samples[index] for index in sorted(samples)]])
        yield head.object("chat.completion.chunk", []) | {"usage": answer.usage_dict(usage)}


async def _whole(
    service: Service, requests: list[GenerateRequest], names: FieldNames
) -> list[list[Answer]]:
    async with service.generations.started(requests, [names] * len(requests)) as running:
        chunks = merged([one.chunks() for one in running])
        return await gathered(chunks, len(requests), requests[0].sampling.n)


# --- completions -------------------------------------------------------------------------------


async def _completions(service: Service, request: Request, body: CompletionRequest) -> Response:
    await _check_model(service, body.model)
    with_usage = check_stream_options(body)
    head = await _head(service, "cmpl")
    requests = completion_requests(body, head.answer_id)
    names = field_names(body)
    num_samples = requests[0].sampling.n
    echoed = [one.prompt if body.echo else None for one in requests for _ in range(num_samples)]
    logprobs = body.logprobs is not None
    if body.stream:
        events = _completion_events(service, head, requests, names, echoed, logprobs, with_usage)
        return await streamed(request.receive, events, openai=True)
    answers = await unless_gone(request.receive, _whole(service, requests, names))
    return JSONResponse(
        answer.completion_answer(
            head,
            [sample for samples in answers for sample in samples],
            total_usage(answers),
            echoed=echoed,
            logprobs=logprobs,
        )
    )


async def _completion_events(
    service: Service,
    head: answer.Head,
    requests: list[GenerateRequest],
    names: FieldNames,
    echoed: list[Prompt | None],
    logprobs: bool,
    with_usage: bool,
) -> AsyncGenerator[dict[str, Any]]:
    """`echoed`: by choice, the prompt to repeat before its first chunk."""
    extra = {"usage": None} if with_usage else {}
    num_samples = requests[0].sampling.n
    answers = [[Answer() for _ in range(num_samples)] for _ in requests]
    offsets = [answer.Offsets() if logprobs else None for _ in echoed]
    waiting = list(echoed)
    async with service.generations.started(requests, [names] * len(requests)) as running:
        async for which, chunk in merged([one.chunks() for one in running]):
            answers[which][chunk.index].add(chunk)
            choice = which * num_samples + chunk.index
            shown = answer.completion_event(
                head, choice, chunk, echoed=waiting[choice], offsets=offsets[choice]
            )
            waiting[choice] = None
            if shown is not None:
                yield shown | extra
    if with_usage:
        usage = answer.usage_dict(total_usage(answers))
        yield head.object("text_completion", []) | {"usage": usage}
