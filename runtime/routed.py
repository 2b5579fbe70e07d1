"""A `Client` over a transport: what the clients in one process and over two have in common.

Owns: the life of a client: transport, dispatcher and router, from start to close. Knows neither
threads nor processes: that is the transport's.
"""

import atexit
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Protocol

from .client import Stream
from .dispatcher import Dispatcher
from .errors import EngineDied
from .protocol import ControlAction, EngineInfo, GenerateRequest, ScoreRequest, Scores
from .router import Router
from .text import TextCodec
from .tokenizer import TokenizerFiles
from .wire import FromEngine, ToEngine

_GRACE: Final = 5.0  # seconds for callbacks to return at close


class Transport(Protocol):
    """An engine somewhere, and the way there and back."""

    def start(self) -> EngineInfo:
        """Build the engine; raises what its building raised."""
        ...

    def listen(
        self,
        on_messages: Callable[[list[FromEngine]], None],
        on_death: Callable[[EngineDied], None],
    ) -> None:
        """Have everything from the engine handed on, in order; `on_death` is called once, last."""
        ...

    def send(self, messages: Sequence[ToEngine]) -> None:
        """Messages to an engine that is gone go nowhere."""
        ...

    def stop(self) -> None:
        """End the engine, whatever it is doing. Safe to call twice."""
        ...


class RoutedClient:
    """See `Client`. Closed at interpreter exit, if not before."""

    def __init__(self, transport: Transport, files: TokenizerFiles) -> None:
        self._transport = transport
        self._dispatcher = Dispatcher()
        self._closing = threading.Lock()
        try:
            self._info = transport.start()
            codec = TextCodec(files, self._info)
        except BaseException:
            transport.stop()
            self._dispatcher.stop(_GRACE)
            raise
        self._router = Router(codec, self._dispatcher, transport.send)
        transport.listen(self._on_messages, self._on_death)
        atexit.register(self.close)

    def generate(self, request: GenerateRequest) -> Stream:
        return self._router.generate(request)

    def score(self, request: ScoreRequest) -> Future[Scores]:
        return self._router.score(request)

    def control(self, action: ControlAction) -> dict[str, Any]:
        return self._router.control(action)

    def info(self) -> EngineInfo:
        return self._info

    def close(self) -> None:
        # A second caller returns when the first has closed; a callback, for which the first may be
        # waiting, at once.
        if not self._closing.acquire(blocking=not self._dispatcher.is_current):
            return
        try:
            self._on_death(EngineDied("the client was closed"))
            self._transport.stop()
            self._dispatcher.stop(_GRACE)
            atexit.unregister(self.close)
        finally:
            self._closing.release()

    def _on_messages(self, messages: list[FromEngine]) -> None:
        self._dispatcher.post(partial(self._router.deliver, messages))

    def _on_death(self, death: EngineDied) -> None:
        self._dispatcher.post(lambda: self._router.die(death))
