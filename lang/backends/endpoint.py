"""`RuntimeEndpoint`: a server somewhere as a back end for programs.

Owns: finding out which kind of server answers. Ours is spoken to token by token, as an engine in
this process would be; SGLang's in text.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from ...runtime.errors import EngineError
from ...runtime.protocol import (
    Chunk,
    ControlAction,
    EngineInfo,
    GenerateRequest,
    SamplingParams,
    ScoreRequest,
    Scores,
    Text,
)
from ...runtime.templated import with_template
from ...runtime.templates import (
    TEMPLATES,
    ChatTemplate,
)
from .base import RemoteBackend
from .exact import ExactTransport
from .http import Http
from .remote import Transport
from .sglang_server import SglangTransport


class RuntimeEndpoint(RemoteBackend):
    """A running server at `base_url`. A context manager, and a back end for programs.

    `verify`: False skips the check of the server's certificate, a path names the file of a CA.
    `chat_template_name`: the markup of roles by name; else the model's own template, or, of a
    server of SGLang's, the one that its model's name suggests. Raises Unreachable if no server
    answers.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        verify: bool | str | None = None,
        chat_template_name: str | None = None,
    ) -> None:
        template = None if chat_template_name is None else TEMPLATES.get(chat_template_name)
        http = Http(base_url, api_key, verify)
        self.base_url = http.base_url
        self._transport = _Server(http, template)
        super().__init__(self._transport)

    @property
    def url(self) -> str:
        return self.base_url

    @property
    def model_info(self) -> dict[str, Any]:
        """What the server said of its model."""
        return dict(self._transport.model_info)

    def get_model_name(self) -> str:
        return str(self._transport.model_info["model_path"])

    def get_server_info(self) -> dict[str, Any]:
        return dict(self.call("/server_info"))

    def call(self, path: str, body: Any = None) -> Any:
        """The JSON answer of one of the server's routes: a GET, or a POST where there is a body."""
        http = self._transport.http
        return self._client.run(http.get(path) if body is None else http.post(path, body))

    def flush_cache(self) -> None:
        self._client.control("flush_cache")

    def cache_prefix(self, prefix_str: str) -> None:
        """Compute a prefix now, so that what begins with it need not."""
        prompt = (Text(prefix_str, special=True),)
        for _ in self._client.generate(GenerateRequest(prompt, SamplingParams(max_tokens=0))):
            pass


class _Server:
    """The transport that fits the server, once it is known which one that is."""

    def __init__(self, http: Http, template: ChatTemplate | None) -> None:
        self.http = http
        self._template = template
        self._inner: Transport | None = None
        self.model_info: dict[str, Any] = {}

    async def open(self) -> EngineInfo:
        self.http.open()
        told = await self.http.get("/get_model_info")
        if not isinstance(told, dict) or "model_path" not in told:
            raise EngineError(f"{self.http.base_url} is no server of ours or SGLang's: {told!r}")
        self.model_info = told
        model = str(told["model_path"])
        if "sapwood" in told:
            self._inner = ExactTransport(self.http)
            info = await self._inner.open()
            return info if self._template is None else with_template(info, self._template)
        template = self._template or TEMPLATES.by_model_path(model)
        self._inner = SglangTransport(self.http, model, template)
        return await self._inner.open()

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        assert self._inner is not None
        chunks: Any = self._inner.generate(request)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def score(self, request: ScoreRequest) -> Scores:
        assert self._inner is not None
        return await self._inner.score(request)

    async def control(self, action: ControlAction) -> dict[str, Any]:
        assert self._inner is not None
        return await self._inner.control(action)

    async def close(self) -> None:
        await self.http.close()
