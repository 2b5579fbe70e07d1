"""Wire messages to the callers that wait for them.

Owns: which unanswered call each wire id belongs to; the end of every call, by its answer, its
caller or the engine's death. Knows no transport: it is given `send`.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from .calls import ControlCall, GenerateCall, ScoreCall
from .dispatcher import Dispatcher
from .errors import Cancelled, EngineDied, EngineError, InvalidRequest
from .protocol import ControlAction, GenerateRequest, ScoreRequest, Scores, new_request_id
from .scoring import ScorePlan
from .streams import Mailbox, RoutedStream
from .text import TextCodec
from .wire import Abort, Control, FromEngine, ToEngine, TokenChunk, TokenRequest

_log = logging.getLogger(__name__)


class Call(Protocol):
    """One caller's question, sent as one or more wire messages with these ids."""

    @property
    def ids(self) -> Sequence[str]: ...

    def receive(self, message: FromEngine) -> bool:
        """True when the call has its end. Dispatcher thread only."""
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
        self._calls: dict[str, Call] = {}
        self._death: EngineDied | None = None

    # --- callers ------------------------------------------------------------------------------

    def generate(self, request: GenerateRequest) -> RoutedStream:
        self._check_alive()
        requests = self._codec.requests(request)
        ids = [wire.id for wire in requests]
        mailbox = Mailbox(self._dispatcher, on_broken_reader=lambda: self._forget(call))
        call = GenerateCall(ids, self._codec, request, requests[0].prompt_ids, mailbox)
        self._submit(call, requests, request.request_id)
        close = partial(self._close, call, request.request_id)
        return RoutedStream(request.request_id, mailbox, self._dispatcher, close)

    def score(self, request: ScoreRequest) -> Future[Scores]:
        self._check_alive()
        plan = ScorePlan(self._codec, request)
        call = ScoreCall(plan)
        self._submit(call, plan.requests, request.request_id)
        call.answer.future.add_done_callback(partial(self._after_score, call))
        return call.answer.future

    def control(self, action: ControlAction) -> dict[str, Any]:
        if self._dispatcher.is_current:
            raise RuntimeError("a callback cannot wait for the engine: no other callback could run")
        call = ControlCall(new_request_id())
        self._submit(call, [Control(call.ids[0], action)], call.ids[0])
        return call.answer.future.result()

    def _submit(
        self, call: Call, messages: Sequence[TokenRequest | Control], request_id: str
    ) -> None:
        with self._lock:
            self._check_alive()
            if any(id in self._calls for id in call.ids):
                raise InvalidRequest(
                    f"request_id: {request_id!r} is the id of a request that has not ended",
                    field="request_id",
                )
            self._calls.update(dict.fromkeys(call.ids, call))
        try:
            self._send(messages)
        except BaseException:  # what cannot be sent is answered by nobody
            self._forget(call)
            raise

    def _after_score(self, call: ScoreCall, future: Future[Scores]) -> None:
        if future.cancelled():
            self._forget(call)
            self._dispatcher.post(call.answer.withdraw)

    def _check_alive(self) -> None:
        if self._death is not None:
            raise _copy(self._death)

    def _close(self, call: Call, request_id: str) -> None:
        self._forget(call)
        call.fail(Cancelled(f"request {request_id} was closed by its caller"))

    def _forget(self, call: Call) -> None:
        """Abort whatever of the call has no end yet."""
        with self._lock:
            ids = [id for id in call.ids if self._calls.get(id) is call]
            for id in ids:
                del self._calls[id]
        if ids:
            self._send([Abort(id) for id in ids])

    # --- the engine's answers: dispatcher thread only -----------------------------------------

    def deliver(self, messages: Sequence[FromEngine]) -> None:
        for message in messages:
            call = self._route(message)
            if call is None:  # aborted meanwhile
                continue
            try:
                ended = call.receive(message)
            except Exception as error:
                _log.exception("an answer of the engine could not be read")
                failure = EngineError(f"an answer of the engine could not be read: {error}")
                failure.__cause__ = error
                call.fail(failure)
                ended = True
            if ended:
                self._forget(call)

    def _route(self, message: FromEngine) -> Call | None:
        is_last = not isinstance(message, TokenChunk) or message.finish is not None
        with self._lock:
            return self._calls.pop(message.id, None) if is_last else self._calls.get(message.id)

    def die(self, death: EngineDied) -> None:
        """End every call with EngineDied, now and from now on. Only the first death counts."""
        with self._lock:
            if self._death is not None:
                return
            self._death = death
            calls = dict.fromkeys(self._calls.values())
            self._calls.clear()
        for call in calls:
            call.fail(_copy(death))


def _copy(death: EngineDied) -> EngineDied:
    """Every caller raises an exception of its own, since raising writes into it."""
    copy = EngineDied(str(death))
    copy.__cause__ = death.__cause__
    return copy
