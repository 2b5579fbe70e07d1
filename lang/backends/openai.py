"""`OpenAI`: models behind OpenAI's API, or an API of the same form, as back ends.

Owns: what a request is in the words of that API. The vendor's own client does the rest: retries,
timeouts, addresses, keys.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from ...runtime.errors import EngineError, InvalidRequest, Overloaded, SapwoodError, Unreachable
from ...runtime.protocol import (
    Abilities,
    Chunk,
    EngineInfo,
    GenerateRequest,
    JsonSchema,
    SamplingParams,
)
from ...runtime.templates import ChatTemplate
from ..options import flag
from .base import (
    TokenUsage,
    VendorBackend,
    VendorTransport,
    check_model,
    messages_of,
    vendor_package,
)
from .samples import Samples
from .sglang_server import text_of

_RETRIES: Final = 3
_OPTIONS: Final = (
    "max_tokens",
    "n",
    "stop",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "logit_bias",
)
CHAT: Final = Abilities(
    speaks="messages",
    options=_OPTIONS,
    constraints=("JsonSchema",),
    select=False,
    logprobs=False,
    prefill=False,
)
_COMPLETION: Final = Abilities(
    speaks="text", options=_OPTIONS, constraints=(), select=False, logprobs=False
)
_COMPLETION_MODELS: Final = ("babbage-", "davinci-", "text-", "gpt-3.5-turbo-instruct")
_REASONING_MODELS: Final = ("o1", "o3", "o4", "gpt-5")
"""Beginnings of the names of models that call `max_tokens` `max_completion_tokens`."""


class OpenAI(VendorBackend):
    """A model of OpenAI's, or of whoever speaks its API (`base_url=...`).

    `is_chat_model`: whether it answers messages or continues text; None: by its name. A chat model
    takes a gen right at the begin of a message of the assistant, and nowhere else.
    `chat_template`: how `state.text()` shows the roles. `is_azure`: an Azure deployment. Further
    arguments are those of the `openai` package's client (`api_key`, `base_url`, `timeout`,
    `max_retries`, ...). Needs the extra `openai`.
    """

    def __init__(
        self,
        model_name: str,
        is_chat_model: bool | None = None,
        chat_template: ChatTemplate | None = None,
        is_azure: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        check_model(model_name)
        if is_chat_model is not None:
            flag("is_chat_model", is_chat_model)
        package = vendor_package("openai", "openai")
        kind = package.AsyncAzureOpenAI if flag("is_azure", is_azure) else package.AsyncOpenAI
        if is_chat_model is None:
            is_chat_model = not model_name.startswith(_COMPLETION_MODELS)
        self.is_chat_model = is_chat_model
        options = {"max_retries": _RETRIES, **kwargs}
        super().__init__(
            _Transport(model_name, chat_template, package, lambda: kind(*args, **options))
            if is_chat_model
            else _Completions(model_name, chat_template, package, lambda: kind(*args, **options)),
            model_name,
        )


class Crusoe(OpenAI):
    """A model of Crusoe's managed inference: OpenAI's API at another address. The key is
    `api_key=`, or the environment's CRUSOE_API_KEY."""

    def __init__(
        self,
        model_name: str,
        is_chat_model: bool | None = None,
        chat_template: ChatTemplate | None = None,
        *,
        base_url: str = "https://api.inference.crusoecloud.com/v1",
        api_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        import os

        key = os.environ.get("CRUSOE_API_KEY") if api_key is None else api_key
        if not key:
            raise InvalidRequest("api_key: None: give one, or set CRUSOE_API_KEY", field="api_key")
        chat = True if is_chat_model is None else is_chat_model
        super().__init__(model_name, chat, chat_template, base_url=base_url, api_key=key, **kwargs)


class _Transport(VendorTransport):
    """Chat completions."""

    abilities = CHAT

    def __init__(
        self, model: str, template: ChatTemplate | None, package: Any, connect: Any
    ) -> None:
        super().__init__(model, self.abilities, template)
        self._package = package
        self._connect = connect
        self._api: Any = None

    async def open(self) -> EngineInfo:
        try:
            self._api = self._connect()
        except self._package.OpenAIError as error:  # no key, say
            raise EngineError(str(error)) from error
        return self.info

    async def close(self) -> None:
        if self._api is not None:
            await self._api.close()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        samples = Samples(request.sampling.n)
        try:
            async with await self._ask(request) as events:
                async for event in events:
                    for chunk in take(event, samples, self._text, self.usage):
                        yield chunk
        except self._package.APIError as error:
            raise ours(error, self._package, self.model) from error
        for chunk in samples.end():
            yield chunk

    async def _ask(self, request: GenerateRequest) -> Any:
        return await self._api.chat.completions.create(
            messages=messages_of(request), **self._options(request)
        )

    @staticmethod
    def _text(choice: Any) -> str | None:
        delta: str | None = choice.delta.content
        return delta

    def _options(self, request: GenerateRequest) -> dict[str, Any]:
        limit = self.max_tokens(request)
        reasons = self.model.startswith(_REASONING_MODELS)
        options = {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            **given(request.sampling),
        }
        if limit is not None:
            options["max_completion_tokens" if reasons else "max_tokens"] = limit
        constraint = request.sampling.constraint
        if isinstance(constraint, JsonSchema):
            options["response_format"] = response_format(constraint)
        return options


class _Completions(_Transport):
    """Text completions."""

    abilities = _COMPLETION

    async def _ask(self, request: GenerateRequest) -> Any:
        return await self._api.completions.create(
            prompt=text_of(request.prompt), **self._options(request)
        )

    @staticmethod
    def _text(choice: Any) -> str | None:
        text: str | None = choice.text
        return text


def take(
    event: Any, samples: Samples, text_of_choice: Callable[[Any], str | None], billed: TokenUsage
) -> Iterator[Chunk]:
    """What one event of an answer in this form says."""
    for choice in event.choices:
        text = text_of_choice(choice)
        if text:
            yield samples.text(choice.index, text)
        if choice.finish_reason is not None:
            samples.finish(choice.index, choice.finish_reason)
    usage = getattr(event, "usage", None)
    if usage is not None:
        details = getattr(usage, "prompt_tokens_details", None)
        cached = getattr(details, "cached_tokens", None) or 0
        samples.count(usage.prompt_tokens, usage.completion_tokens, cached)
        billed.prompt_tokens += usage.prompt_tokens
        billed.completion_tokens += usage.completion_tokens


def ours(error: Any, package: Any, model: str) -> SapwoodError:
    """A vendor's error, of a package whose errors have these names, as one of ours."""
    message = f"{model}: {error}"
    match error:
        case package.BadRequestError() | package.UnprocessableEntityError():
            return InvalidRequest(message, field=getattr(error, "param", None))
        case package.RateLimitError():
            return Overloaded(message)
        case package.APIConnectionError():
            return Unreachable(message)
        case _:
            return EngineError(message)


def response_format(constraint: JsonSchema) -> dict[str, Any]:
    schema = {"name": "answer", "schema": json.loads(constraint.schema), "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def given(sampling: SamplingParams) -> dict[str, Any]:
    """What is not at its default: our defaults are the API's, and its newer models refuse what
    they cannot vary, even at its default."""
    values: dict[str, tuple[Any, Any]] = {
        "n": (sampling.n, 1),
        "stop": (list(sampling.stop), []),
        "temperature": (sampling.temperature, 1.0),
        "top_p": (sampling.top_p, 1.0),
        "frequency_penalty": (sampling.frequency_penalty, 0.0),
        "presence_penalty": (sampling.presence_penalty, 0.0),
        "seed": (sampling.seed, None),
        "logit_bias": ({str(id): bias for id, bias in sampling.logit_bias}, {}),
    }
    return {name: value for name, (value, idle) in values.items() if value != idle}
