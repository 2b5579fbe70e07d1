"""The stream that a caller holds, fed by the dispatcher.

Owns: the events of one generation between decoding and their reader, and the one answer of a call
that has only one. Knows no tokens and no engine.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

from .client import Event
from .dispatcher import Dispatcher
from .protocol import Chunk

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Mailbox:
    """Events in order, the last one marked; read by one iterator or one subscriber."""

    def __init__(self, dispatcher: Dispatcher, on_broken_reader: Callable[[], None]) -> None:
        self._dispatcher = dispatcher
        self._on_broken_reader = on_broken_reader
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._callback: Callable[[Event], None] | None = None
        self._draining = False
        self._has_reader = False
        self._error: BaseException | None = None  # the error that ended it, once read
        self.ended = False  # nothing more will come

    def push(self, event: Event, *, last: bool) -> None:
        """Add an event; dropped if the last one was there already. Any thread."""
        with self._changed:
            if self.ended:
                return
            self.ended = last
            self._events.append(event)
            self._changed.notify_all()
            subscribed = self._callback is not None
        if not subscribed:
            return
        if self._dispatcher.is_current:
            self._drain()
        else:
            self._dispatcher.post(self._drain)

    def subscribe(self, callback: Callable[[Event], None]) -> None:
        with self._changed:
            self._claim()
            self._callback = callback
        self._dispatcher.post(self._drain)

    def read(self) -> Iterator[Chunk]:
        """Each chunk as it comes; raises the error that ends them, again at each later reading."""
        while (event := self._next()) is not None:
            yield event

    @property
    def has_subscriber(self) -> bool:
        return self._callback is not None

    def _next(self) -> Chunk | None:
        with self._changed:
            if self._callback is not None:
                raise RuntimeError("this stream has a subscriber; it cannot be read as well")
            if self._dispatcher.is_current and not self._events and not self.ended:
                raise RuntimeError(
                    "a callback cannot wait for a stream: no other callback could run"
                )
            self._has_reader = True
            while not self._events and not self.ended:
                self._changed.wait()
            if not self._events:
                if self._error is not None:
                    raise self._error
                return None
            event = self._events.popleft()
            if isinstance(event, BaseException):
                self._error = event
                raise event
            return event

    def _claim(self) -> None:
        if self._callback is not None or self._has_reader:
            raise RuntimeError("this stream has a reader already")

    def _drain(self) -> None:
        """Hand every event here to the subscriber. Runs on the dispatcher's thread only."""
        if self._draining:  # the subscriber itself caused this event
            return
        self._draining = True
        try:
            while (event := self._take()) is not None:
                assert self._callback is not None
                self._callback(event)
        except BaseException:
            _log.exception("the subscriber of a stream raised; the stream is closed")
            self._silence()
            self._on_broken_reader()
        finally:
            self._draining = False

    def _take(self) -> Event | None:
        with self._changed:
            return self._events.popleft() if self._events else None

    def _silence(self) -> None:
        with self._changed:
            self.ended = True
            self._events.clear()


class RoutedStream:
    """A `Stream`. Dropped with neither an end nor a subscriber, it is closed."""

    def __init__(
        self, request_id: str, mailbox: Mailbox, dispatcher: Dispatcher, close: Callable[[], None]
    ) -> None:
        self._request_id = request_id
        self._mailbox = mailbox
        self._dispatcher = dispatcher
        self._close = close

    @property
    def request_id(self) -> str:
        return self._request_id

    def __iter__(self) -> Iterator[Chunk]:
        # Not the mailbox's iterator itself: an iterator in use must keep the stream alive.
        yield from self._mailbox.read()

    def subscribe(self, on_event: Callable[[Event], None]) -> None:
        self._mailbox.subscribe(on_event)

    def close(self) -> None:
        self._close()

    def __del__(self) -> None:
        if not self._mailbox.ended and not self._mailbox.has_subscriber:
            # A finalizer may run within any lock of this thread: the dispatcher does the work.
            self._dispatcher.post(self._close)


class Answer(Generic[T]):
    """A future that only the dispatcher's thread writes, and its reader may cancel."""

    def __init__(self) -> None:
        self.future: Future[T] = Future()
        self._is_settled = False

    def give(self, value: T) -> None:
        if self._settle():
            self.future.set_result(value)

    def fail(self, error: Exception) -> None:
        if self._settle():
            self.future.set_exception(error)

    def withdraw(self) -> None:
        """After a cancellation: wake those who wait for several futures."""
        self._settle()

    def _settle(self) -> bool:
        """True for the first to settle a future that was not cancelled."""
        if self._is_settled:
            return False
        self._is_settled = True
        return self.future.set_running_or_notify_cancel()
