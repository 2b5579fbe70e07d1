"""`BaseBackend`: back ends of one's own, written as for SGLang, as clients of ours.

Owns: the adapter from its one blocking call, `generate(s, sampling_params)`, to a stream.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...runtime.client import Client
from ...runtime.errors import EngineError, InvalidRequest
from ...runtime.protocol import (
    Abilities,
    Chunk,
    ControlAction,
    EngineInfo,
    FinishKind,
    FinishReason,
    GenerateRequest,
    ScoreRequest,
    Scores,
    Usage,
)
from ...runtime.templates import ChatTemplate, get_chat_template
from ..backends.remote import RemoteClient
from ..backends.sglang_server import sampling_dict, text_of

_ABILITIES = Abilities(
    speaks="text", constraints=("Regex", "JsonSchema"), select=False, logprobs=False
)


@dataclass(frozen=True)
class State:
    """What a back end may read of a program: its text so far and its messages."""

    text_: str
    messages_: list[dict[str, str]]

    def text(self) -> str:
        return self.text_

    def messages(self) -> list[dict[str, str]]:
        return self.messages_


class SamplingParams:
    """The options of one gen, by SGLang's names, as attributes."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.regex = self.json_schema = self.stop_regex = None
        self.__dict__.update(values)


class BaseBackend:
    """Subclass it with `generate(s, sampling_params) -> (text or list of texts, meta info)`, where
    `s` is a `State`; it is called on threads. `select` is not among what can be plugged in: it
    decides by log-probabilities."""

    support_concate_and_append = False
    chat_template: ChatTemplate = get_chat_template("default")

    def get_model_name(self) -> str:
        return type(self).__name__

    def get_chat_template(self) -> ChatTemplate:
        return self.chat_template

    def generate(self, s: State, sampling_params: SamplingParams) -> tuple[str | list[str], Any]:
        raise NotImplementedError(f"{type(self).__name__} has no generate()")

    def shutdown(self) -> None:
        """Called when the back end is closed."""

    @cached_property
    def client(self) -> Client:
        return RemoteClient(_Adapter(self))


class _Adapter:
    def __init__(self, backend: BaseBackend) -> None:
        self._backend = backend

    async def open(self) -> EngineInfo:
        template = self._backend.get_chat_template()
        return EngineInfo(
            model=self._backend.get_model_name(),
            context_length=0,
            vocab_size=0,
            max_tokens_in_cache=0,
            page_size=0,
            dtype="",
            chat_template=template.jinja(),
            special_tokens={},
            eos_ids=(),
            template_stop=template.stop_str,
            abilities=_ABILITIES,
        )

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        messages = [{"role": turn.role, "content": turn.text} for turn in request.turns]
        state = State(text_of(request.prompt), messages)
        options = SamplingParams(sampling_dict(request.sampling))
        texts, meta = await asyncio.to_thread(self._backend.generate, state, options)
        found = [texts] if isinstance(texts, str) else list(texts)
        if len(found) != request.sampling.n:
            raise EngineError(f"{len(found)} texts came for n={request.sampling.n}")
        told = meta if isinstance(meta, dict) else {}
        usage = Usage(told.get("prompt_tokens", 0), 0, told.get("completion_tokens", 0), 0)
        for index, text in enumerate(found):
            yield Chunk(index, text, (), usage, finish=FinishReason(FinishKind.STOP))

    async def score(self, request: ScoreRequest) -> Scores:
        raise InvalidRequest("choices: this back end has no select", field="choices")

    async def control(self, action: ControlAction) -> dict[str, Any]:
        return {}

    async def close(self) -> None:
        self._backend.shutdown()  # at interpreter exit there are no threads to leave it to
