"""`ProcessClient`: the engine in a child process, so that it shares no interpreter lock.

Owns: the child and this end of its socket. The text is made here: only token ids cross.
"""

import logging
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final

from .child import ending, spawn
from .errors import EngineDied, EngineError
from .protocol import EngineInfo
from .routed import RoutedClient
from .tokenizer import TokenizerFiles
from .wire import Boot, Died, FromEngine, Ready, ToEngine

_log = logging.getLogger(__name__)

_GRACE: Final = 5.0  # seconds for the child to end by itself


class ProcessClient(RoutedClient):
    """Builds the engine with `factory`, "module:function", called with `args` in the child; raises
    here what it raises. `args` and errors are pickled. `load_files` is called meanwhile."""

    def __init__(
        self, factory: str, args: tuple[Any, ...], load_files: Callable[[], TokenizerFiles]
    ) -> None:
        child = _EngineChild(Boot(factory, args))
        self.pid = child.pid
        try:
            files = load_files()
        except BaseException:
            child.stop()
            raise
        super().__init__(child, files)


class _EngineChild:
    def __init__(self, boot: Boot) -> None:
        self._sending = threading.Lock()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = spawn(f"{__package__}.engine_process", theirs.fileno())
        self.pid = self._process.pid
        self._connection: Connection[Any, Any] = Connection(ours.detach())
        self._reader: threading.Thread | None = None
        self._send(boot)

    def start(self) -> EngineInfo:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise EngineError(f"{self._ending()} before it was ready") from None
        if isinstance(answer, Died):
            raise answer.error
        assert isinstance(answer, Ready)
        return answer.info

    def listen(
        self,
        on_messages: Callable[[list[FromEngine]], None],
        on_death: Callable[[EngineDied], None],
    ) -> None:
        self._reader = threading.Thread(
            target=self._read, args=(on_messages, on_death), name="sapwood-reader", daemon=True
        )
        self._reader.start()

    def send(self, messages: Sequence[ToEngine]) -> None:
        self._send(list(messages))

    def stop(self) -> None:
        if self._reader is None:  # still being built: it would not hear
            self._process.kill()
        self._send(None)
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not None:
            self._reader.join()  # it sees the end of the socket
        self._connection.close()

    def _send(self, message: Boot | list[ToEngine] | None) -> None:
        with self._sending:
            try:
                self._connection.send(message)
            except OSError:
                pass  # the child is gone; the reader tells everyone who waits

    def _read(
        self,
        on_messages: Callable[[list[FromEngine]], None],
        on_death: Callable[[EngineDied], None],
    ) -> None:
        try:
            while not isinstance(message := self._connection.recv(), Died):
                on_messages(message)
        except (EOFError, OSError):
            on_death(EngineDied(self._ending()))
            return
        except Exception as error:  # a message that cannot be read: nothing after it can either
            _log.exception("a message of the engine process could not be read")
            on_death(EngineDied(f"a message of the engine process could not be read: {error}"))
            return
        cause = message.error
        death = EngineDied(f"the engine died: {type(cause).__name__}: {cause}")
        death.__cause__ = cause
        on_death(death)

    def _ending(self) -> str:
        return ending(self._process, "the engine process", _GRACE)
