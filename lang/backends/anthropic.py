"""`Anthropic`: models behind Anthropic's API as back ends.

Owns: what a request is in the words of that API; its own client does the rest.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

from ...runtime.errors import EngineError
from ...runtime.protocol import Abilities, Chunk, EngineInfo, GenerateRequest
from .base import VendorBackend, VendorTransport, messages_of, vendor_package
from .openai import ours
from .samples import Samples

_ABILITIES: Final = Abilities(
    speaks="messages",
    options=("max_tokens", "stop", "temperature", "top_p", "top_k"),
    constraints=(),
    select=False,
    logprobs=False,
    prefill=True,
)
_MAX_TOKENS: Final = 4096  # where a program sets no limit: the API wants one


class Anthropic(VendorBackend):
    """A model of Anthropic's. Text before a gen in its message is sent as the begin of the answer,
    which newer models refuse. Further arguments are those of the `anthropic` package's client
    (`api_key`, `base_url`, `timeout`, `max_retries`, ...). Needs the extra `anthropic`."""

    def __init__(self, model_name: str, *args: Any, **kwargs: Any) -> None:
        package = vendor_package("anthropic", "anthropic")
        connect = lambda: package.AsyncAnthropic(*args, **kwargs)  # noqa: E731
        super().__init__(_Transport(model_name, package, connect), model_name)


class _Transport(VendorTransport):
    def __init__(self, model: str, package: Any, connect: Any) -> None:
        super().__init__(model, _ABILITIES)
        self._package = package
        self._connect = connect
        self._api: Any = None

    async def open(self) -> EngineInfo:
        try:
            self._api = self._connect()
        except self._package.AnthropicError as error:
            raise EngineError(str(error)) from error
        return self.info

    async def close(self) -> None:
        if self._api is not None:
            await self._api.close()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        samples = Samples(1)
        asked = answered = cached = 0
        try:
            events = await self._api.messages.create(stream=True, **self._options(request))
            async with events:
                async for event in events:
                    match event.type:
                        case "message_start":
                            asked = event.message.usage.input_tokens
                            cached = event.message.usage.cache_read_input_tokens or 0
                        case "content_block_delta" if event.delta.type == "text_delta":
                            yield samples.text(0, event.delta.text)
                        case "message_delta":
                            answered = event.usage.output_tokens
                            if event.delta.stop_reason is not None:
                                matched = event.delta.stop_sequence
                                samples.finish(0, event.delta.stop_reason, matched)
        except self._package.APIError as error:
            raise ours(error, self._package, self.model) from error
        samples.count(asked + cached, answered, cached)
        self.usage.prompt_tokens += asked + cached
        self.usage.completion_tokens += answered
        for chunk in samples.end():
            yield chunk

    def _options(self, request: GenerateRequest) -> dict[str, Any]:
        sampling = request.sampling
        messages = messages_of(request)
        options: dict[str, Any] = {"model": self.model}
        if messages[0]["role"] == "system":
            options["system"] = messages.pop(0)["content"]
        options["messages"] = messages
        options["max_tokens"] = self.max_tokens(request) or _MAX_TOKENS
        if sampling.stop:
            options["stop_sequences"] = list(sampling.stop)
        given: dict[str, tuple[Any, Any]] = {
            "temperature": (sampling.temperature, 1.0),
            "top_p": (sampling.top_p, 1.0),
            "top_k": (sampling.top_k, -1),
        }
        # Newer versions of the package have no arguments for these, as newer models do without.
        rest = {name: value for name, (value, idle) in given.items() if value != idle}
        return options | ({"extra_body": rest} if rest else {})
