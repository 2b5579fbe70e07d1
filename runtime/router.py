"""Wire messages to the callers that wait for them.

Owns: the wire ids, each used once in a client's life, and which unanswered call each belongs to;
the end of every call, by its answer, its caller or the engine's death. Knows no transport: it is
given `send`.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import count
from typing import Any, Protocol

from .calls import ControlCall, GenerateCall, ScoreCall
from .dispatcher import Dispatcher
from .errors import Cancelled, EngineDied, EngineError, InvalidRequest
from .protocol import ControlAction, GenerateRequest, ScoreRequest, Scores
from .scoring import ScorePlan
from .streams import Mailbox, RoutedStream
from .text import TextCodec
from .wire import Abort, Control, Failed, FromEngine, ToEngine, TokenChunk, TokenRequest

_log = logging.getLogger(__name__)


class Call(Protocol):
    """One caller's question, sent as one or more wire messages with these ids. It ends when each of
    them has its last answer, or with the first failure."""

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def request_id(self) -> str | None:
        """The caller's own name for it, which says nothing on the wire."""
        ...

    def receive(self, message: FromEngine) -> None:
        """Dispatcher thread only."""
        ...

    def fail(self, error: Exception) -> None:
        """End the call with this error. Any thread."""
        ...


class Router:
    """`send` hands messages to the engine without waiting for it."""

    def __init__(
        self,
        codec: TextCodec,
        dispatcher: Dispatcher,
        send: Callable[[Sequence[ToEngine]], None],
    ) -> None:
        self._codec = codec
        self._dispatcher = dispatcher
        self._send = send
        self._lock = threading.Lock()
        self._numbers = count()
        self._calls: dict[str, Call] = {}  # by wire id
        self._open: dict[Call, list[str]] = {}  # the wire ids that have no end yet, in their order
        self._lasting: set[Call] = set()  # open also between its rounds, until `_go_on` ends it
        self._names: set[str] = set()  # of the open calls
        self._death: EngineDied | None = None

    # --- callers ------------------------------------------------------------------------------

    def generate(self, request: GenerateRequest) -> RoutedStream:
        self._check_alive()
        requests = self._codec.requests(request, self._new_id)
        mailbox = Mailbox(self._dispatcher, on_broken_reader=lambda: self._forget(call))
        call = GenerateCall(requests, self._codec, request, mailbox)
        self._submit(call, requests)
        close = partial(self._close, call)
        return RoutedStream(request.request_id, mailbox, self._dispatcher, close)

    def score(self, request: ScoreRequest) -> Future[Scores]:
        self._check_alive()
        plan = ScorePlan(self._codec, request, self._new_id)
        call = ScoreCall(plan, request.request_id, self._go_on)
        self._submit(call, plan.requests, lasting=True)
        call.answer.future.add_done_callback(partial(self._after_score, call))
        return call.answer.future

    def control(self, action: ControlAction) -> dict[str, Any]:
        if self._dispatcher.is_current:
            raise RuntimeError("a callback cannot wait for the engine: no other callback could run")
        call = ControlCall(self._new_id())
        self._submit(call, [Control(call.ids[0], action)])
        return call.answer.future.result()

    def _new_id(self) -> str:
        # Callers may use a name of theirs again while messages of its last use are on their way.
        with self._lock:
            return str(next(self._numbers))

    def _submit(
        self, call: Call, messages: Sequence[TokenRequest | Control], *, lasting: bool = False
    ) -> None:
        with self._lock:
            self._check_alive()
            if call.request_id is not None:
                if call.request_id in self._names:
                    raise InvalidRequest(
                        f"request_id: {call.request_id!r} is the id of a request that has not "
                        "ended",
                        field="request_id",
                    )
                self._names.add(call.request_id)
            self._open[call] = list(call.ids)
            if lasting:
                self._lasting.add(call)
            self._calls.update(dict.fromkeys(call.ids, call))
        try:
            self._send(messages)
        except BaseException:  # what cannot be sent is answered by nobody
            self._forget(call)
            raise

    def _go_on(self, call: Call, requests: Sequence[TokenRequest]) -> None:
        """The next round of a lasting call, or its end; nothing, if it has ended meanwhile."""
        with self._lock:
            if call not in self._open:
                return
            if not requests:
                self._remove(call)
                return
            ids = [request.id for request in requests]
            self._open[call].extend(ids)
            self._calls.update(dict.fromkeys(ids, call))
        self._send(requests)

    def _after_score(self, call: ScoreCall, future: Future[Scores]) -> None:
        if future.cancelled():
            self._forget(call)
            self._dispatcher.post(call.answer.withdraw)

    def _check_alive(self) -> None:
        if self._death is not None:
            raise _copy(self._death)

    def _close(self, call: Call) -> None:
        self._forget(call)
        call.fail(Cancelled(f"request {call.request_id} was closed by its caller"))

    def _forget(self, call: Call) -> None:
        """Abort whatever of the call has no end yet."""
        with self._lock:
            if call not in self._open:
                return
            ids = self._open[call]
            self._remove(call)
        if ids:
            self._send([Abort(id) for id in ids])

    def _remove(self, call: Call) -> None:
        """With the lock held."""
        for id in self._open.pop(call):
            del self._calls[id]
        self._lasting.discard(call)
        if call.request_id is not None:
            self._names.remove(call.request_id)

    # --- the engine's answers: dispatcher thread only -----------------------------------------

    def deliver(self, messages: Sequence[FromEngine]) -> None:
        for message in messages:
            call = self._route(message)
            if call is None:  # aborted meanwhile
                continue
            if isinstance(message, Failed):
                self._forget(call)
            try:
                call.receive(message)
            except Exception as error:
                _log.exception("an answer of the engine could not be read")
                failure = EngineError(f"an answer of the engine could not be read: {error}")
                failure.__cause__ = error
                self._forget(call)
                call.fail(failure)

    def _route(self, message: FromEngine) -> Call | None:
        """A call that this message ends is removed before its caller can hear of the end: from then
        on the caller may use its name again."""
        is_last = not isinstance(message, TokenChunk) or message.finish is not None
        with self._lock:
            call = self._calls.get(message.id)
            if call is not None and is_last:
                if len(self._open[call]) == 1 and call not in self._lasting:
                    self._remove(call)
                else:
                    self._open[call].remove(message.id)
                    del self._calls[message.id]
            return call

    def die(self, death: EngineDied) -> None:
        """End every call with EngineDied, now and from now on. Only the first death counts."""
        with self._lock:
            if self._death is not None:
                return
            self._death = death
            calls = list(self._open)
            for call in calls:
                self._remove(call)
        for call in calls:
            call.fail(_copy(death))


def _copy(death: EngineDied) -> EngineDied:
    """Every caller raises an exception of its own, since raising writes into it."""
    copy = EngineDied(str(death))
    copy.__cause__ = death.__cause__
    return copy
