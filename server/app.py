"""`create_app`: the routes, the error table and the API key, put together. No globals."""

import hmac

from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..runtime.client import AsyncClient
from ..runtime.errors import SapwoodError
from .admin import admin_router
from .errors import HttpError, Unauthorized, failure
from .exact import exact_router
from .generations import Generations
from .native import native_router
from .openai_api import openai_router
from .options import ServerOptions
from .service import Service

OPENAI_PATHS = ("/v1/", "/exact/")
"""Where errors have OpenAI's form."""

OPEN_PATHS = frozenset({"/health", "/metrics"})
"""Reachable without the API key, for probes and scrapers. They tell nothing of any request."""


def create_app(client: AsyncClient, options: ServerOptions | None = None) -> FastAPI:
    """The HTTP surface over `client`, which stays the caller's to close."""
    options = options or ServerOptions()
    service = Service(client, options, Generations(client))
    # The bodies are checked by hand (see `body`), so there is nothing for a generated page to show.
    app = FastAPI(title="Sapwood", openapi_url=None)
    for make in (openai_router, native_router, exact_router, admin_router):
        app.include_router(make(service))

    async def on_error(request: Request, error: Exception) -> JSONResponse:
        return _response(error, openai=request.url.path.startswith(OPENAI_PATHS))

    for kind in (HttpError, SapwoodError, HTTPException, ClientDisconnect, Exception):
        app.add_exception_handler(kind, on_error)
    if options.api_key is not None:
        app.add_middleware(ApiKey, api_key=options.api_key)
    return app


def _response(error: Exception, *, openai: bool) -> JSONResponse:
    known = failure(error)
    body = known.openai() if openai else known.native()
    return JSONResponse(body, status_code=known.status, headers=dict(known.headers))


class ApiKey:
    """Lets a request through if it carries the key: `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, *, api_key: str) -> None:
        self._app = app
        self._expected = f"Bearer {api_key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        error = Unauthorized("the API key is missing or wrong: send Authorization: Bearer KEY")
        response = _response(error, openai=scope["path"].startswith(OPENAI_PATHS))
        await response(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        given = Headers(scope=scope).get("authorization", "").encode()
        return hmac.compare_digest(given, self._expected)
