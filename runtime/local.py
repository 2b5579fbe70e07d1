"""`LocalClient`: the engine on a thread of this process.

Owns: that thread. The engine is built on it and nobody else calls it.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Final

from .errors import EngineDied
from .protocol import EngineInfo
from .routed import RoutedClient
from .shell import Inbox, Loop, serve
from .tokenizer import TokenizerFiles
from .wire import FromEngine, ToEngine

_GRACE: Final = 10.0  # seconds for a step that runs when the client is closed


class LocalClient(RoutedClient):
    """Builds the engine with `build`, on its own thread; raises here what `build` raises."""

    def __init__(self, build: Callable[[], Loop], files: TokenizerFiles) -> None:
        super().__init__(_EngineThread(build), files)


@dataclass(frozen=True)
class _Listeners:
    on_messages: Callable[[list[FromEngine]], None]
    on_death: Callable[[EngineDied], None]


class _EngineThread:
    def __init__(self, build: Callable[[], Loop]) -> None:
        self._build = build
        self._inbox = Inbox()
        self._built: Future[EngineInfo] = Future()
        self._listeners: Future[_Listeners] = Future()
        self._thread = threading.Thread(target=self._run, name="sapwood-engine", daemon=True)

    def start(self) -> EngineInfo:
        self._thread.start()
        return self._built.result()

    def listen(
        self,
        on_messages: Callable[[list[FromEngine]], None],
        on_death: Callable[[EngineDied], None],
    ) -> None:
        self._listeners.set_result(_Listeners(on_messages, on_death))

    def send(self, messages: Sequence[ToEngine]) -> None:
        self._inbox.put(messages)

    def stop(self) -> None:
        self._inbox.close()
        self._listeners.cancel()  # where nobody ever listened
        self._thread.join(_GRACE)

    def _run(self) -> None:
        try:
            loop = self._build()
        except BaseException as error:
            self._built.set_exception(error)
            return
        self._built.set_result(loop.info)
        try:
            listeners = self._listeners.result()
        except CancelledError:
            loop.close()
            return
        listeners.on_death(serve(loop, self._inbox, listeners.on_messages))
