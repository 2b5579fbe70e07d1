"""`Recorder`: writes what runs ask and hear to a file, one JSON object per line.

Owns: the file and the order of its lines. It changes nothing but a seed that was left open, which
it draws itself where the back end takes one: without it the run could not be repeated.

    {"sapwood": version, "format": 1}
    {"engine": 0, "info": EngineInfo}
    {"run": 0, "engine": 0, "program": ..., "file": ..., "source": ..., "arguments": {...}, ...}
    {"ask": 0, "run": 0, "request": GenerateRequest or ScoreRequest}
    {"answer": 0, "chunk": Chunk}, or "scores": Scores, or "error": {...} ("refused": by the call)
"""

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from ..client import Client, Event, Stream
from ..errors import Cancelled
from ..protocol import Chunk, ControlAction, EngineInfo, GenerateRequest, ScoreRequest, Scores
from .encoding import encode, encode_error
from .runs import RunInfo, described

FORMAT: Final = 1


class Recorder:
    """Runs that go on after `close` are no longer written. Where a line cannot be written (the disk
    is full), no run is disturbed: none is written from there on, and `failure` says why."""

    def __init__(self, path: str | Path, version: str) -> None:
        # Half of a surrogate pair, which UTF-8 does not have, is written as JSON escapes it.
        self._file = Path(path).open("w", encoding="utf-8", errors="backslashreplace", buffering=1)
        self._lock = threading.Lock()
        self.failure: Exception | None = None
        self._engines: dict[int, tuple[int, Client]] = {}
        self._numbers = count()
        self._write({"sapwood": version, "format": FORMAT})

    def begin_run(self, client: Client, run: RunInfo) -> "RecordingClient":
        """What the run shall talk to instead of `client`."""
        engine = self._engine(client)
        number = next(self._numbers)
        self._write(
            {
                "run": number,
                "engine": engine,
                "program": run.program,
                "file": run.file,
                "source": run.source,
                "arguments": described(run.arguments),
                "options": described(run.options),
                "nested": run.nested,
            }
        )
        return RecordingClient(client, partial(self._ask, number), self._write)

    def close(self) -> None:
        with self._lock:
            try:
                self._file.close()
            except OSError as error:
                self.failure = self.failure or error

    def _engine(self, client: Client) -> int:
        info = client.info()
        with self._lock:
            known = self._engines.get(id(client))
            if known is not None:
                return known[0]
            number = len(self._engines)
            self._engines[id(client)] = (number, client)  # held: its id must stay its own
        self._write({"engine": number, "info": info})
        return number

    def _ask(self, run: int, request: GenerateRequest | ScoreRequest) -> int:
        number = next(self._numbers)
        self._write({"ask": number, "run": run, "request": request})
        return number

    def _write(self, line: dict[str, Any]) -> None:
        with self._lock:
            if self._file.closed or self.failure is not None:
                return
            try:
                text = json.dumps(encode(line), ensure_ascii=False, separators=(",", ":"))
                self._file.write(text + "\n")
            except Exception as error:  # raised here it would be the end of a run's callbacks
                self.failure = error


class RecordingClient:
    """One run's client. See `Client`; what it does is the other client's doing."""

    def __init__(
        self,
        client: Client,
        ask: Callable[[GenerateRequest | ScoreRequest], int],
        write: Callable[[dict[str, Any]], None],
    ) -> None:
        self._client, self._ask, self._write = client, ask, write

    def generate(self, request: GenerateRequest) -> Stream:
        seeded = self._client.info().abilities.options
        if request.sampling.seed is None and (seeded is None or "seed" in seeded):
            seed = secrets.randbits(63)
            request = replace(request, sampling=replace(request.sampling, seed=seed))
        number = self._ask(request)
        try:
            stream = self._client.generate(request)
        except BaseException as error:
            self._refused(number, error)
            raise
        return RecordedStream(stream, partial(self._heard, number), request.sampling.n)

    def score(self, request: ScoreRequest) -> Future[Scores]:
        number = self._ask(request)
        try:
            future = self._client.score(request)
        except BaseException as error:
            self._refused(number, error)
            raise
        future.add_done_callback(partial(self._scored, number))
        return future

    def control(self, action: ControlAction) -> dict[str, Any]:
        return self._client.control(action)

    def info(self) -> EngineInfo:
        return self._client.info()

    def close(self) -> None:
        self._client.close()

    def _refused(self, number: int, error: BaseException) -> None:
        self._write({"answer": number, "error": encode_error(error), "refused": True})

    def _heard(self, number: int, event: Event) -> None:
        if isinstance(event, BaseException):
            self._write({"answer": number, "error": encode_error(event)})
        else:
            self._write({"answer": number, "chunk": event})

    def _scored(self, number: int, future: Future[Scores]) -> None:
        if future.cancelled():
            self._heard(number, Cancelled("the scoring was cancelled"))
        elif (error := future.exception()) is not None:
            self._heard(number, error)
        else:
            self._write({"answer": number, "scores": future.result()})


class RecordedStream:
    """See `Stream`. Every event is written before its reader has it, and that the reader closed it
    when it does so: what the engine answers to that may come after the recording's end."""

    def __init__(self, stream: Stream, write: Callable[[Event], None], num_samples: int) -> None:
        self._stream, self._write = stream, write
        self._unfinished = num_samples

    @property
    def request_id(self) -> str:
        return self._stream.request_id

    def __iter__(self) -> Iterator[Chunk]:
        try:
            for chunk in self._stream:
                self._hear(chunk)
                yield chunk
        except Exception as error:
            self._hear(error)
            raise

    def subscribe(self, on_event: Callable[[Event], None]) -> None:
        def hear_first(event: Event) -> None:
            self._hear(event)
            on_event(event)

        self._stream.subscribe(hear_first)

    def close(self) -> None:
        self._hear(Cancelled("the request was closed by its caller"))
        self._stream.close()

    def _hear(self, event: Event) -> None:
        if self._unfinished <= 0:
            return
        if isinstance(event, BaseException):
            self._unfinished = 0
        elif event.finish is not None:
            self._unfinished -= 1
        self._write(event)
