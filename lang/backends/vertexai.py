"""`VertexAI`: Google's models on Vertex AI as back ends.

Owns: what a request is in the words of the `google-genai` package.
"""

import os
from collections.abc import AsyncIterator
from typing import Any, Final

from ...runtime.errors import EngineError, InvalidRequest, Overloaded, SapwoodError
from ...runtime.protocol import Abilities, Chunk, EngineInfo, GenerateRequest
from .base import VendorBackend, VendorTransport, messages_of, vendor_package
from .samples import Samples

_ABILITIES: Final = Abilities(
    speaks="messages",
    options=(
        "max_tokens",
        "stop",
        "temperature",
        "top_p",
        "top_k",
        "frequency_penalty",
        "presence_penalty",
        "seed",
    ),
    constraints=(),
    select=False,
    logprobs=False,
    prefill=False,
)
_FINISHES: Final = {"STOP": "stop", "MAX_TOKENS": "length"}


class VertexAI(VendorBackend):
    """A model of Google's, by its name on Vertex AI. Project and place are those of the environment
    (GCP_PROJECT_ID, GCP_LOCATION), or of further arguments, which are those of the `google-genai`
    package's client (`project`, `location`, `credentials`, `http_options`, ...).
    `safety_settings`: a list of that package's. Needs the extra `vertexai`."""

    def __init__(self, model_name: str, safety_settings: Any = None, **kwargs: Any) -> None:
        package = vendor_package("google.genai", "vertexai")
        options = {
            "vertexai": True,
            "project": os.environ.get("GCP_PROJECT_ID"),
            "location": os.environ.get("GCP_LOCATION"),
            **kwargs,
        }
        super().__init__(_Transport(model_name, package, options, safety_settings), model_name)


class _Transport(VendorTransport):
    def __init__(self, model: str, package: Any, options: dict[str, Any], safety: Any) -> None:
        super().__init__(model, _ABILITIES)
        self._package = package
        self._options = options
        self._safety = safety
        self._api: Any = None

    async def open(self) -> EngineInfo:
        try:
            self._api = self._package.Client(**self._options).aio
        except Exception as error:  # no project, no credentials: the package has no kind for it
            raise EngineError(f"{self.model}: {error}") from error
        return self.info

    async def close(self) -> None:
        if self._api is not None:
            await self._api.aclose()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        samples = Samples(1)
        usage: Any = None
        try:
            events = await self._api.models.generate_content_stream(
                model=self.model, **self._wanted(request)
            )
            async for event in events:
                for candidate in event.candidates or ():
                    for part in (candidate.content and candidate.content.parts) or ():
                        if part.text:
                            yield samples.text(0, part.text)
                    if candidate.finish_reason is not None:
                        reason = candidate.finish_reason.name
                        samples.finish(0, _FINISHES.get(reason, reason))
                usage = event.usage_metadata or usage
        except self._package.errors.APIError as error:
            raise self._ours(error) from error
        if usage is not None:
            asked, answered = usage.prompt_token_count or 0, usage.candidates_token_count or 0
            samples.count(asked, answered, usage.cached_content_token_count or 0)
            self.usage.prompt_tokens += asked
            self.usage.completion_tokens += answered
        for chunk in samples.end():
            yield chunk

    def _wanted(self, request: GenerateRequest) -> dict[str, Any]:
        types, sampling = self._package.types, request.sampling
        messages = messages_of(request)
        system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
        given: dict[str, tuple[Any, Any]] = {
            "system_instruction": (system, None),
            "max_output_tokens": (self.max_tokens(request), None),
            "stop_sequences": (list(sampling.stop), []),
            "temperature": (sampling.temperature, 1.0),
            "top_p": (sampling.top_p, 1.0),
            "top_k": (sampling.top_k, -1),
            "frequency_penalty": (sampling.frequency_penalty, 0.0),
            "presence_penalty": (sampling.presence_penalty, 0.0),
            "seed": (sampling.seed, None),
            "safety_settings": (self._safety, None),
        }
        options = {name: value for name, (value, idle) in given.items() if value != idle}
        contents = [
            types.Content(
                role="model" if message["role"] == "assistant" else "user",
                parts=[types.Part(text=message["content"])],
            )
            for message in messages
        ]
        return {"contents": contents, "config": types.GenerateContentConfig(**options)}

    def _ours(self, error: Any) -> SapwoodError:
        message = f"{self.model}: {error}"
        if error.code == 400:
            return InvalidRequest(message)
        if error.code == 429:
            return Overloaded(message)
        return EngineError(message)
