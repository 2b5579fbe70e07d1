"""Servers on real sockets, in front of scripted clients or of a few lines of their own."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

SECONDS = 20


def wait_until(check: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.005)


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    return wait_until


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The URL of this app on a free port."""
    config = uvicorn.Config(
        app, port=0, lifespan="off", log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """`serve(app)`: its URL, until the test ends."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(listening(app))


class Fake:
    """A vendor's API as far as a test says it: `answers` are played in order, each a Response, a
    JSON value, or a list of events (each JSON or text), which are streamed. `asked` is what came.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.left = threading.Event()  # a caller went away in mid-stream

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])])

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        self.asked.append((request.url.path, json.loads(body) if body else None))
        self.headers.append(dict(request.headers))
        answer = self.answers.pop(0)
        if callable(answer) and not isinstance(answer, Response):
            answer = answer(json.loads(body) if body else None)
        if isinstance(answer, Response):
            return answer
        if isinstance(answer, list):
            return StreamingResponse(self._stream(answer), media_type="text/event-stream")
        return JSONResponse(answer)

    async def _stream(self, events: list[Any]) -> AsyncIterator[bytes]:
        try:
            for event in events:
                if event is ...:
                    await asyncio.sleep(SECONDS)
                text = event if isinstance(event, str) else f"data: {json.dumps(event)}"
                yield f"{text}\n\n".encode()
        except asyncio.CancelledError:
            self.left.set()
            raise


@pytest.fixture
def fake(serve: Callable[[Any], str]) -> Callable[..., tuple[Fake, str]]:
    """`fake(*answers)`: (what was asked, the URL)."""

    def make(*answers: Any) -> tuple[Fake, str]:
        made = Fake(*answers)
        return made, serve(made.app())

    return make
