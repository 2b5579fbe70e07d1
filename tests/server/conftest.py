"""Servers over a scripted client: called in memory, or through a real socket."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn

from sapwood.runtime.aio import AsyncBridge
from sapwood.runtime.scripted import ScriptedClient
from sapwood.server.app import create_app
from sapwood.server.options import ServerOptions


@dataclass
class Served:
    """An app over a scripted client, which records what was asked of it."""

    script: Any = "hello"
    options: ServerOptions = field(default_factory=ServerOptions)
    client: ScriptedClient = field(init=False)

    def __post_init__(self) -> None:
        answer = self.script
        constant = isinstance(answer, str)
        self.client = ScriptedClient((lambda _: answer) if constant else answer)

    def app(self) -> Any:
        return create_app(AsyncBridge(self.client), self.options)

    def call(self, method: str, path: str, **how: Any) -> httpx.Response:
        """One request in memory, on an event loop of its own."""

        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app(), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                return await http.request(method, path, **how)

        return asyncio.run(asyncio.wait_for(call(), 30))

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.call("POST", path, json=body)

    def chat(self, **fields: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": "hi"}], **fields}
        return self.post("/v1/chat/completions", body)

    @contextmanager
    def on_socket(self) -> Iterator[str]:
        """A real server on a free port; its URL."""
        config = uvicorn.Config(self.app(), port=0, lifespan="off", log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            _eventually(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            self.client.close()
            thread.join(20)
            assert not thread.is_alive()


def _eventually(check: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """`serve(script, **options)`: a text (the answer to everything), a list of answers in order,
    or a function of the request."""
    made: list[Served] = []

    def make(script: Any = "hello", **options: Any) -> Served:
        made.append(Served(script, ServerOptions(**options)))
        return made[-1]

    yield make
    for served in made:
        served.client.close()


@pytest.fixture
def eventually() -> Callable[..., None]:
    """`eventually(check)`: wait until it holds, or fail."""
    return _eventually
