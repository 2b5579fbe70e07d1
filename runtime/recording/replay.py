"""`ReplayClient`: answers programs from a recording, chunk by chunk, with no model.

Owns: which recorded run belongs to a run, and which recorded answer to a request. A generation is
known by its random path (one for each gen of each branch), so branches may run in any order. What
the recording does not hold raises Diverged, which says what differs.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from ..client import Stream
from ..dispatcher import Dispatcher
from ..errors import Cancelled, Diverged, EngineDied, InvalidRequest
from ..protocol import ControlAction, EngineInfo, GenerateRequest, ScoreRequest, Scores
from ..streams import Mailbox, RoutedStream
from .differences import difference
from .recording import Ask, RecordedRun, Recording
from .runs import RunInfo


class ReplayClient:
    """See `Client`; only runs of programs are answered (`begin_run`)."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._dispatcher = Dispatcher()
        self._lock = threading.Lock()
        self._waiting = list(recording.runs)
        self._begun: list[ReplayedRun] = []

    def begin_run(self, run: RunInfo) -> "ReplayedRun":
        """The first recorded run of this program with these arguments that was not used yet."""
        key = run.key()
        with self._lock:
            found = next((one for one in self._waiting if one.info.key() == key), None)
            if found is None:
                raise Diverged(self._unknown(run))
            self._waiting.remove(found)
            self._begun.append(ReplayedRun(found, self._dispatcher, self))
            return self._begun[-1]

    def unused(self) -> list[str]:
        """What was recorded and is not asked for (so far), in words."""
        with self._lock:
            rest = [
                f"run {run.number} of {run.info.program!r} was not repeated"
                for run in self._waiting
            ]
            return [line for run in self._begun for line in run.unused()] + rest

    def generate(self, request: GenerateRequest) -> Stream:
        raise InvalidRequest("a recording answers the programs that were recorded, nothing else")

    def score(self, request: ScoreRequest) -> Future[Scores]:
        raise InvalidRequest("a recording answers the programs that were recorded, nothing else")

    def control(self, action: ControlAction) -> dict[str, Any]:
        if action == "flush_cache":  # there is none
            return {}
        raise InvalidRequest(f"control: a recording does not hold {action!r}", field="action")

    def info(self) -> EngineInfo:
        if not self._recording.runs:
            raise InvalidRequest(f"{self._recording.path}: no run was recorded")
        return self._recording.runs[0].engine

    def close(self) -> None:
        self._dispatcher.stop(timeout=1.0)

    def _unknown(self, run: RunInfo) -> str:
        same = [one for one in self._recording.runs if one.info.program == run.program]
        if not same:
            names = ", ".join(dict.fromkeys(one.info.program for one in self._recording.runs))
            return f"program {run.program!r} was not recorded; {names or 'none'} was"
        if not any(one.info.key() == run.key() for one in same):
            return (
                f"program {run.program!r} was not recorded with the arguments "
                f"{dict(run.arguments)!r}, but with {same[0].info.arguments!r}"
            )
        return f"program {run.program!r} was recorded fewer times with these arguments"


class ReplayedRun:
    """One run's client."""

    def __init__(self, run: RecordedRun, dispatcher: Dispatcher, whole: ReplayClient) -> None:
        self._run, self._dispatcher, self._whole = run, dispatcher, whole
        self._lock = threading.Lock()
        self._open = list(run.asks)

    def generate(self, request: GenerateRequest) -> Stream:
        ask = self._taken(request)
        if ask.refusal is not None:
            raise ask.refusal
        mailbox = Mailbox(self._dispatcher, on_broken_reader=lambda: None)
        close = partial(mailbox.push, Cancelled("the request was closed by its caller"), last=True)
        stream = RoutedStream(request.request_id, mailbox, self._dispatcher, close)
        unfinished = request.sampling.n
        for event in ask.events:
            if isinstance(event, BaseException):
                unfinished = 0
            else:
                unfinished -= event.finish is not None
            mailbox.push(event, last=unfinished == 0)
        mailbox.push(EngineDied("the recording ends within this answer"), last=True)
        return stream

    def score(self, request: ScoreRequest) -> Future[Scores]:
        ask = self._taken(request)
        if ask.refusal is not None:
            raise ask.refusal
        future: Future[Scores] = Future()
        self._dispatcher.post(partial(_settle, future, ask))
        return future

    def control(self, action: ControlAction) -> dict[str, Any]:
        return self._whole.control(action)

    def info(self) -> EngineInfo:
        return self._run.engine

    def close(self) -> None:
        """The recording's own client ends it."""

    def unused(self) -> list[str]:
        with self._lock:
            return [
                f"run {self._run.number} of {self._run.info.program!r}: a recorded "
                f"{'select' if isinstance(ask.request, ScoreRequest) else 'gen'} was not repeated"
                for ask in self._open
            ]

    def _taken(self, request: GenerateRequest | ScoreRequest) -> Ask:
        with self._lock:
            candidates = [ask for ask in self._open if _same_place(ask.request, request)]
            for ask in candidates:
                if difference(ask.request, request) is None:
                    self._open.remove(ask)
                    return ask
        raise Diverged(f"not what was recorded: {self._why(candidates, request)}")

    def _why(self, candidates: Sequence[Ask], request: GenerateRequest | ScoreRequest) -> str:
        if candidates:
            return str(difference(candidates[0].request, request))
        what = "select" if isinstance(request, ScoreRequest) else "gen"
        return f"run {self._run.number} asked for no further {what} there"


def _same_place(
    recorded: GenerateRequest | ScoreRequest, asked: GenerateRequest | ScoreRequest
) -> bool:
    if isinstance(recorded, GenerateRequest) and isinstance(asked, GenerateRequest):
        return recorded.random_path == asked.random_path
    return type(recorded) is type(asked)


def _settle(future: Future[Scores], ask: Ask) -> None:
    if not future.set_running_or_notify_cancel():
        return
    if ask.scores is not None:
        future.set_result(ask.scores)
        return
    error = next((event for event in ask.events if isinstance(event, BaseException)), None)
    future.set_exception(error or EngineDied("the recording ends before this answer"))
