"""Which runtime a program runs on.

Owns: the default back end, the only state of the module. Knows no program.
"""

import atexit
import threading
from dataclasses import asdict
from typing import Any, cast

from ..runtime.client import Client


class DefaultBackend:
    """What runs a program that names no back end: the one that was set, else an engine of our own.

    Our own engine is started by the first program that needs it and closed when Python exits.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chosen: Client | None = None
        self._engine: Client | None = None

    def set(self, backend: object | None) -> None:
        client = None if backend is None else as_client(backend)
        with self._lock:
            self._chosen = client

    def peek(self) -> Client | None:
        """The default client if there is one already; starts nothing."""
        return self._chosen or self._engine

    def get(self) -> Client:
        with self._lock:
            if self._chosen is not None:
                return self._chosen
            if self._engine is None:
                from ..runtime.engine import Engine  # loads torch, which most imports do without

                engine = Engine()
                atexit.register(engine.close)
                self._engine = as_client(engine)
            return self._engine


_default = DefaultBackend()


def as_client(backend: object) -> Client:
    """The client of an Engine or of whatever else has a `client`, or the client itself."""
    client = getattr(backend, "client", backend)
    for method in ("generate", "score", "control", "info"):
        if not callable(getattr(client, method, None)):
            raise TypeError(f"{backend!r} is no back end: it has no {method}()")
    return cast(Client, client)


def resolve(backend: object | None) -> Client:
    return _default.get() if backend is None else as_client(backend)


def set_default_backend(backend: object | None) -> None:
    """What programs run on from now on; None: an engine of their own again."""
    _default.set(backend)


def peek_default_backend() -> Client | None:
    """The default back end if there is one already; starts nothing."""
    return _default.peek()


def flush_cache(backend: object | None = None) -> bool:
    """Drop every cached prefix that is not in use. False if there is no back end yet."""
    client = _default.peek() if backend is None else as_client(backend)
    if client is None:
        return False
    client.control("flush_cache")
    return True


def get_server_info(backend: object | None = None) -> dict[str, Any] | None:
    """The engine's facts and counters; None if there is no back end yet."""
    client = _default.peek() if backend is None else as_client(backend)
    return None if client is None else {**asdict(client.info()), **client.control("stats")}
