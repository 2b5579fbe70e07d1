"""`LiteLLM`: whatever model the `litellm` package reaches, as a back end.

Owns: what a request is in that package's words, which are OpenAI's.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ...runtime.protocol import Chunk, EngineInfo, GenerateRequest, JsonSchema
from ...runtime.templates import ChatTemplate
from .base import VendorBackend, VendorTransport, messages_of, vendor_package
from .openai import CHAT, given, ours, response_format, take
from .samples import Samples


class LiteLLM(VendorBackend):
    """A chat model by litellm's name of it ("provider/model"). `chat_template`: how `state.text()`
    shows the roles; the other arguments are litellm's. Needs the extra `litellm`."""

    def __init__(
        self,
        model_name: str,
        chat_template: ChatTemplate | None = None,
        api_key: str | None = None,
        organization: str | None = None,
        base_url: str | None = None,
        timeout: float | None = 600,
        max_retries: int | None = None,
        default_headers: Mapping[str, str] | None = None,
    ) -> None:
        values: dict[str, Any] = {
            "api_key": api_key,
            "organization": organization,
            "api_base": base_url,
            "timeout": timeout,
            "max_retries": max_retries,
            "extra_headers": None if default_headers is None else dict(default_headers),
        }
        options = {name: value for name, value in values.items() if value is not None}
        package = vendor_package("litellm", "litellm")
        super().__init__(_Transport(model_name, chat_template, package, options), model_name)


class _Transport(VendorTransport):
    def __init__(
        self, model: str, template: ChatTemplate | None, package: Any, options: dict[str, Any]
    ) -> None:
        super().__init__(model, CHAT, template)
        self._package = package
        self._options = options

    async def open(self) -> EngineInfo:
        return self.info

    async def close(self) -> None:
        """The package keeps its connections for the whole process."""

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        samples = Samples(request.sampling.n)
        events: Any = None
        try:
            events = await self._package.acompletion(
                model=self.model,
                messages=messages_of(request),
                stream=True,
                stream_options={"include_usage": True},
                **self._options,
                **self._wanted(request),
            )
            async for event in events:
                for chunk in take(event, samples, lambda choice: choice.delta.content, self.usage):
                    yield chunk
        except (self._package.APIError, *_raised(self._package)) as error:
            raise ours(error, self._package, self.model) from error
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()
        for chunk in samples.end():
            yield chunk

    def _wanted(self, request: GenerateRequest) -> dict[str, Any]:
        options = given(request.sampling)
        limit = self.max_tokens(request)
        if limit is not None:
            options["max_tokens"] = limit
        constraint = request.sampling.constraint
        if isinstance(constraint, JsonSchema):
            options["response_format"] = response_format(constraint)
        return options


def _raised(package: Any) -> tuple[Any, ...]:
    """Its kinds of errors have no root of their own."""
    names = (
        "APIConnectionError",
        "AuthenticationError",
        "BadRequestError",
        "InternalServerError",
        "NotFoundError",
        "RateLimitError",
        "ServiceUnavailableError",
        "Timeout",
        "UnprocessableEntityError",
    )
    return tuple(getattr(package, name) for name in names)
