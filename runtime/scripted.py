"""A Client that answers from a script: for tests of everything that talks to a runtime.

Owns: a dispatcher thread, a record of what was asked. Keeps the four promises of `client`. Knows no
model and no cache.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from .client import Event
from .errors import Cancelled, EngineDied, InvalidRequest
from .protocol import Chunk, ControlAction, EngineInfo, GenerateRequest, ScoreRequest, Scores
from .scripted_replies import Answer, Reply, events_of, is_held, replies_of, scores_of
from .toy_tokens import TOY_INFO

GenerateScript = Callable[[GenerateRequest], Answer | Sequence[Answer]]
ScoreScript = Callable[[ScoreRequest], Sequence[float] | BaseException | None]


class ScriptedClient:
    """Answers requests as a script says, from a dispatcher thread of its own.

    `script`: a sequence of answers used in order, or a function of the request; an answer is a
    text, a Reply, or an exception that ends the stream; for `n` samples it may be a list of n. A
    script that raises refuses the call itself. `scores`: a function giving each option's
    log-probability, an exception to fail with, or None to stall; by default earlier options are
    likelier.
    """

    def __init__(
        self,
        script: GenerateScript | Sequence[Answer | Sequence[Answer]] = (),
        *,
        scores: ScoreScript | None = None,
        info: EngineInfo = TOY_INFO,
    ) -> None:
        self._script = script
        self._answers = iter(()) if callable(script) else iter(script)
        self._scores = scores
        self._info = info
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._live: dict[str, _ScriptedStream] = {}
        self._scoring: dict[str, Future[Scores]] = {}
        self._held: list[Callable[[], None]] = []
        self._dead: EngineDied | None = None
        self.requests: list[GenerateRequest] = []
        self.scored: list[ScoreRequest] = []
        self.aborted: list[str] = []  # ids of requests closed before their end
        self.controls: list[ControlAction] = []
        self._dispatcher = threading.Thread(target=self._dispatch, name="scripted", daemon=True)
        self._dispatcher.start()

    # --- the Client interface ---------------------------------------------------------------------

    def generate(self, request: GenerateRequest) -> "_ScriptedStream":
        with self._lock:
            self._check_alive()
            self.requests.append(request)
            answer = self._answer(request)
            stream = _ScriptedStream(request, self)
            self._live[request.request_id] = stream
        self._play(stream, replies_of(answer, request.sampling.n))
        return stream

    def score(self, request: ScoreRequest) -> Future[Scores]:
        future: Future[Scores] = Future()
        with self._lock:
            self._check_alive()
            self.scored.append(request)
            self._scoring[request.request_id] = future
            future.add_done_callback(partial(self._scored, request))
            order = [-1.0 - i for i in range(len(request.options))]
            answer = order if self._scores is None else self._scores(request)
        if answer is not None:
            self._jobs.put(lambda: self._answer_score(request, future, answer))
        return future

    def control(self, action: ControlAction) -> dict[str, Any]:
        with self._lock:
            self._check_alive()
            self.controls.append(action)
            return {"action": action, "num_requests": len(self.requests) + len(self.scored)}

    def info(self) -> EngineInfo:
        return self._info

    def close(self) -> None:
        self.die(EngineDied("the client was closed"))
        self._jobs.put(None)

    # --- for tests --------------------------------------------------------------------------------

    @property
    def num_held(self) -> int:
        """How many chunks (or other events) wait for `release`."""
        with self._lock:
            return len(self._held)

    def release(self) -> None:
        """Let everything that is held go out, in the order in which it was asked for."""
        with self._lock:
            held, self._held = self._held, []
        for job in held:
            self._jobs.put(job)

    def die(self, error: EngineDied | None = None) -> None:
        """Behave as a client whose engine stopped: wakes everyone, refuses what comes later."""
        with self._lock:
            if self._dead is not None:
                return
            self._dead = error or EngineDied("the scripted engine died")
            reason = self._dead
            streams, futures = list(self._live.values()), list(self._scoring.values())
            self._scoring.clear()
        for stream in streams:
            self._jobs.put(_delivery(stream, reason))
        for future in futures:
            self._jobs.put(partial(_fail, future, reason))

    # --- inside -----------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise EngineDied(str(self._dead))

    def _answer(self, request: GenerateRequest) -> Answer | Sequence[Answer]:
        if callable(self._script):
            return self._script(request)
        try:
            return next(self._answers)
        except StopIteration:
            raise InvalidRequest(f"the script ended before request {len(self.requests)}") from None

    def _play(self, stream: "_ScriptedStream", replies: list[Reply]) -> None:
        """Queue the chunks of all samples, taking turns; what a reply holds back waits for
        `release`."""
        tracks = [events_of(stream.request, index, reply) for index, reply in enumerate(replies)]
        out = [
            (events[position], is_held(replies[index], position))
            for position in range(max(map(len, tracks)))
            for index, events in enumerate(tracks)
            if position < len(events)
        ]
        for event, held in out:
            if not held:
                self._jobs.put(_delivery(stream, event))
        with self._lock:
            self._held += [_delivery(stream, event) for event, held in out if held]

    def _answer_score(
        self,
        request: ScoreRequest,
        future: Future[Scores],
        answer: Sequence[float] | BaseException,
    ) -> None:
        if isinstance(answer, BaseException):
            _fail(future, answer)
        elif future.set_running_or_notify_cancel():
            future.set_result(scores_of(request, answer))

    def _scored(self, request: ScoreRequest, future: Future[Scores]) -> None:
        with self._lock:
            self._scoring.pop(request.request_id, None)
            if future.cancelled():
                self.aborted.append(request.request_id)

    def _ended(self, stream: "_ScriptedStream") -> None:
        with self._lock:
            self._live.pop(stream.request_id, None)

    def _close_stream(self, stream: "_ScriptedStream") -> None:
        with self._lock:
            if self._live.pop(stream.request_id, None) is None:
                return
            self.aborted.append(stream.request_id)
        self._jobs.put(_delivery(stream, Cancelled("the stream was closed by its caller")))

    def _dispatch(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # a subscriber's fault ends its own stream, see deliver
                logging.getLogger("sapwood").exception("a stream's subscriber raised")


class _ScriptedStream:
    def __init__(self, request: GenerateRequest, client: ScriptedClient) -> None:
        self.request = request
        self._client = client
        self._unfinished = request.sampling.n
        self._ended = False
        self._lock = threading.Lock()
        self._subscriber: Callable[[Event], None] | None = None
        self._events: SimpleQueue[Event] = SimpleQueue()

    @property
    def request_id(self) -> str:
        return self.request.request_id

    def __iter__(self) -> Iterator[Chunk]:
        unfinished = self.request.sampling.n
        while unfinished:
            event = self._events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            unfinished -= event.finish is not None

    def subscribe(self, on_event: Callable[[Event], None]) -> None:
        self._client._jobs.put(lambda: self._start(on_event))

    def close(self) -> None:
        self._client._close_stream(self)

    def _start(self, on_event: Callable[[Event], None]) -> None:
        self._subscriber = on_event
        while not self._events.empty():
            self._hand_over(on_event, self._events.get())

    def deliver(self, event: Event) -> None:
        """On the dispatcher thread only. Nothing follows the end."""
        if self._ended:
            return
        if isinstance(event, BaseException):
            self._ended = True
        else:
            self._unfinished -= event.finish is not None
            self._ended = self._unfinished == 0
        if self._ended:
            self._client._ended(self)
        if self._subscriber is None:
            self._events.put(event)
        else:
            self._hand_over(self._subscriber, event)

    def _hand_over(self, on_event: Callable[[Event], None], event: Event) -> None:
        try:
            on_event(event)
        except Exception:
            self._ended = True
            self._client._ended(self)
            raise


def _delivery(stream: _ScriptedStream, event: Event) -> Callable[[], None]:
    return lambda: stream.deliver(event)


def _fail(future: Future[Scores], error: BaseException) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)
