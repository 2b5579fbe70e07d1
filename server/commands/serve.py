"""`sapwood serve`: the engine in a process of its own, HTTP in this one.

Owns: the socket (taken before the model loads), the signals, the ready line, the exit status:
0 after a drained shutdown, 1 when the engine died, so that a supervisor starts the server anew.
"""

import asyncio
import json
import signal
import socket
import sys
from argparse import ArgumentParser, Namespace
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any

from .engine_options import add_engine_options, engine_config, launched
from .failure import CommandError

if TYPE_CHECKING:
    from ...runtime.client import AsyncClient

DRAIN_SECONDS = 30
"""How long running requests may take to finish once the server was told to stop."""
WATCH_SECONDS = 1.0


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=30000, help="0: any free one (%(default)s)")
    parser.add_argument("--api-key", help="clients must send it as Authorization: Bearer KEY")
    parser.add_argument("--served-model-name", help="what the model is called over HTTP")
    add_engine_options(parser)


def run(args: Namespace) -> int:
    config = engine_config(args)
    listener = bound(args.host, args.port)
    stop = StopSignals()
    print("loading the model ...", flush=True)
    client = launched(config, meanwhile=_load_http)
    try:
        from ...runtime.aio import AsyncBridge
        from ..app import create_app
        from ..options import ServerOptions

        options = ServerOptions(args.served_model_name, args.api_key)
        bridge = AsyncBridge(client)
        app = create_app(bridge, options)
        name = args.served_model_name or client.info().model
        ready = ready_line(listener, args.host, name, args.api_key is not None)
        stop.drains = True
        return asyncio.run(_serve(app, bridge, listener, ready))
    finally:
        client.close()


def _load_http() -> None:
    """Import what serving needs: most of this process's own time to start."""
    for name in ("uvicorn", f"{__package__.rpartition('.')[0]}.app"):
        import_module(name)


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds the port, so that nobody waits for a model to load in vain."""
    if not 0 <= port <= 65535:  # the system's resolver would take it modulo 65536
        raise CommandError(f"cannot listen on {host}:{port}: a port is from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CommandError(f"cannot listen on {host}:{port}: {error}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise CommandError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


class StopSignals:
    """SIGINT and SIGTERM end the loading at once; from `drains` on the web server handles them.

    It hands the signal on after its shutdown: ignoring it then is what makes the status 0.
    """

    def __init__(self) -> None:
        self.drains = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.drains:
            raise SystemExit(128 + number)


def ready_line(listener: socket.socket, host: str, model: str, needs_key: bool) -> str:
    port = listener.getsockname()[1]
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
    key = " -H 'Authorization: Bearer KEY'" if needs_key else ""
    return (
        f"ready: {model} at {url} — try: curl {url}/v1/chat/completions"
        f"{key} -H 'Content-Type: application/json' -d '{body}'"
    )


async def _serve(app: Any, client: "AsyncClient", listener: socket.socket, ready: str) -> int:
    import uvicorn

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(ready, flush=True)

    server = Announcing(
        uvicorn.Config(
            app,
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    watch = asyncio.create_task(_engine_end(client, server))
    await server.serve(sockets=[listener])
    died = watch.done() and watch.result()
    watch.cancel()
    return 1 if died else 0


async def _engine_end(client: "AsyncClient", server: Any) -> bool:
    """Waits for the engine to die, then stops the server: there is nothing left to serve."""
    from ...runtime.errors import EngineDied

    while True:
        try:
            await client.control("stats")
        except EngineDied as error:
            print(f"sapwood: the engine died: {error}", file=sys.stderr, flush=True)
            server.should_exit = True
            return True
        await asyncio.sleep(WATCH_SECONDS)
