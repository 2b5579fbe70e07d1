"""JSON over HTTP to a server of ours or SGLang's: calls, event streams, and errors as exceptions.

Owns: the connection pool and the table from the server's errors to ours. Knows no request.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import httpx2

from ...runtime.errors import (
    Cancelled,
    EngineDied,
    EngineError,
    InvalidRequest,
    Overloaded,
    SapwoodError,
    Unreachable,
)

_CONNECT_SECONDS: Final = 30.0
_MAX_CONNECTIONS: Final = 512
_MAX_SHOWN: Final = 500  # characters of an answer that an error message repeats


class Http:
    """One server. `verify`: False skips the check of its certificate, a path names a CA's."""

    def __init__(
        self, base_url: str, api_key: str | None = None, verify: bool | str | None = None
    ) -> None:
        if not isinstance(base_url, str) or not base_url.startswith(("http://", "https://")):
            raise InvalidRequest(
                f"base_url: {base_url!r} begins neither with http:// nor with https://",
                field="base_url",
            )
        self.base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._verify = _tls(verify)
        self._client: httpx2.AsyncClient | None = None

    def open(self) -> None:
        """On the event loop that all calls are made from."""
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        self._client = httpx2.AsyncClient(
            headers=headers,
            verify=self._verify,
            # A generation takes as long as it takes: only connecting has a limit.
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=_MAX_CONNECTIONS),
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def get(self, path: str) -> Any:
        return await self._call("GET", path, None)

    async def post(self, path: str, body: Any = None) -> Any:
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: Any) -> Any:
        async with self._open(method, path, body) as response:
            return _json(await response.aread())

    async def events(self, path: str, body: Any) -> AsyncGenerator[Any]:
        """The data of each event of the answer; raises the error that an event tells of. Without
        the closing event the server was lost."""
        async with self._open("POST", path, body) as response:
            async with aclosing(_lines(response)) as lines:
                async for line in lines:
                    if not line.startswith(b"data:"):
                        continue
                    data = line[5:].strip()
                    if data == b"[DONE]":
                        return
                    event = _json(data)
                    if isinstance(event, dict) and "error" in event:
                        raise error_of(500, event)
                    yield event
        raise Unreachable(f"the server at {self.base_url} ended its answer before the end")

    @asynccontextmanager
    async def _open(self, method: str, path: str, body: Any) -> AsyncIterator[httpx2.Response]:
        assert self._client is not None
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        headers = {} if body is None else {"Content-Type": "application/json; charset=utf-8"}
        url = self.base_url + path
        try:
            async with self._client.stream(
                method, url, content=content, headers=headers
            ) as response:
                if response.status_code != 200:
                    raise error_of(response.status_code, _body(await response.aread()))
                yield response
        except httpx2.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"the server at {self.base_url} is not there: {reason}") from error


def error_of(status: int, body: Any) -> SapwoodError:
    """The exception that an error of the server stands for."""
    told = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(told, dict):
        return EngineError(f"the server answered {status}: {str(told)[:_MAX_SHOWN]}")
    message, code = str(told.get("message", told)), told.get("code")
    if code == "overloaded":
        return Overloaded(message)
    if code == "engine_died":
        return EngineDied(message)
    if code == "aborted":
        return Cancelled(message)
    if status == 400 or code == "invalid_value" or code == 400:
        return InvalidRequest(message, field=told.get("param"))
    return EngineError(f"the server answered {status}: {message[:_MAX_SHOWN]}")


async def _lines(response: httpx2.Response) -> AsyncGenerator[bytes]:
    # By hand: the library's own would also end lines at characters that JSON texts may hold.
    rest = b""
    async for data in response.aiter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
    yield rest


def _body(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="replace")


def _json(data: bytes) -> Any:
    try:
        return json.loads(data) if data else {}
    except ValueError:
        shown = data[:_MAX_SHOWN].decode(errors="replace")
        raise EngineError(f"the server's answer is not JSON: {shown}") from None


def _tls(verify: bool | str | None) -> Any:
    if verify is None or isinstance(verify, bool):
        return verify is not False
    import ssl

    try:
        return ssl.create_default_context(cafile=verify)
    except (OSError, TypeError) as error:
        raise InvalidRequest(
            f"verify: {verify!r} is neither true nor false nor the file of a CA: {error}",
            field="verify",
        ) from None
