"""The shell around an engine loop, the same on a thread and in a process.

Owns: the inbox between the clients' threads and the engine's, and when to step and when to sleep.
Knows no scheduler and no transport.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from .errors import EngineDied
from .protocol import ControlAction, EngineInfo
from .wire import (
    Abort,
    Control,
    ControlResult,
    Failed,
    FromEngine,
    ToEngine,
    TokenRequest,
)

_log = logging.getLogger(__name__)

_COMPILE_WAIT: Final = 0.002  # seconds between looks at grammars that are being compiled


class Loop(Protocol):
    """What the shell needs of `EngineLoop`. Only one thread calls it."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def has_work(self) -> bool: ...

    @property
    def only_compiling(self) -> bool: ...

    def submit(self, request: TokenRequest) -> None: ...

    def abort(self, id: str) -> None: ...

    def control(self, action: ControlAction) -> dict[str, Any]: ...

    def step(self) -> list[FromEngine]: ...

    def close(self) -> None: ...


class Inbox:
    """Messages to an engine, from any thread to one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: list[ToEngine] = []
        self._closed = False

    def put(self, messages: Sequence[ToEngine]) -> None:
        """Add messages that the engine sees together; after `close` they go nowhere."""
        with self._changed:
            if not self._closed:
                self._messages += messages
                self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self, timeout: float | None) -> list[ToEngine] | None:
        """All messages here, after waiting up to `timeout` seconds (None: for as long as it takes)
        for one; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed, timeout)
            messages, self._messages = self._messages, []
            return None if self._closed else messages


def serve(loop: Loop, inbox: Inbox, emit: Callable[[list[FromEngine]], None]) -> EngineDied:
    """Run the engine on this thread until the inbox is closed or the engine dies; says which."""
    death = EngineDied("the engine was closed")
    try:
        _run(loop, inbox, emit)
    except BaseException as error:  # whatever it is, the callers must hear of it
        _log.exception("the engine died")
        death = EngineDied(f"the engine died: {type(error).__name__}: {error}")
        death.__cause__ = error
    inbox.close()
    try:
        loop.close()
    except Exception:
        _log.exception("the engine could not be closed")
    return death


def _run(loop: Loop, inbox: Inbox, emit: Callable[[list[FromEngine]], None]) -> None:
    while (messages := inbox.take(_patience(loop))) is not None:
        answers = [answer for message in messages for answer in _handle(loop, message)]
        if loop.has_work:
            answers += loop.step()
        if answers:
            emit(answers)


def _patience(loop: Loop) -> float | None:
    """How long to wait for messages before the next step, in seconds."""
    if not loop.has_work:
        return None
    return _COMPILE_WAIT if loop.only_compiling else 0.0


def _handle(loop: Loop, message: ToEngine) -> list[FromEngine]:
    if isinstance(message, TokenRequest):
        loop.submit(message)
    elif isinstance(message, Abort):
        loop.abort(message.id)
    elif isinstance(message, Control):
        try:
            return [ControlResult(message.id, loop.control(message.action))]
        except EngineDied:
            raise
        except Exception as error:
            # A failed check or flush is its caller's news; the requests go on.
            return [Failed(message.id, error)]
    return []
