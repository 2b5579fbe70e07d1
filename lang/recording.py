"""`record` and `replay`: keep what programs ask and hear in a file, and play it back.

Owns: the two context managers, and the client that a run gets while one of them is open. What is
kept, and how, is the runtime's (`runtime/recording`).
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from ..runtime.client import Client
from ..runtime.errors import InvalidRequest
from ..runtime.recording.recorder import Recorder
from ..runtime.recording.recording import Recording
from ..runtime.recording.replay import ReplayClient
from ..runtime.recording.runs import RunInfo
from .backend import resolve

# Whether the code that runs here is the body of a program: a run that it starts is nested.
IN_BODY: Final[ContextVar[bool]] = ContextVar("in_body", default=False)


@dataclass(frozen=True)
class Aside:
    """A back end for what the author of a program did not ask for: neither kept nor replayed."""

    client: Client


class _Tape:
    """What is open now; one for the process, as the default back end is."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.replayed: ReplayClient | None = None

    def refuse_second(self, verb: str) -> None:
        if self.recorder is not None or self.replayed is not None:
            raise InvalidRequest(f"{verb}: a recording or a replay is open already")


_tape: Final = _Tape()


@contextmanager
def record(path: str | Path) -> Iterator[None]:
    """Keep every run of a program that begins in the `with` block in this file (JSON lines).

    Holds each program's name, source digest and arguments, its requests with their seeds (one that
    is left open is drawn and kept), and every chunk of the answers. Runs that have not ended at the
    block's end are cut off there: read them (`state.text()`) before. Raises InvalidRequest where
    one is open already, and OSError; at the end of the block where it becomes impossible to write
    later on, for that disturbs no program.
    """
    _tape.refuse_second("record")
    try:
        made_by = version("sapwood")
    except PackageNotFoundError:
        made_by = "source"
    recorder = _tape.recorder = Recorder(path, made_by)
    try:
        yield
    finally:
        _tape.recorder = None
        recorder.close()
    if recorder.failure is not None:
        raise recorder.failure


@contextmanager
def replay(path: str | Path) -> Iterator[ReplayClient]:
    """Answer every program that runs in the `with` block from this file, with no model.

    Whatever back end they name is left alone. A program that asks for something else than was
    recorded fails with Diverged, which says what differs; what it leaves out is told by `unused()`
    of the value of the block. Raises InvalidRequest for what is no recording.
    """
    with answered_from(Recording.read(path)) as client:
        yield client


@contextmanager
def answered_from(recording: Recording) -> Iterator[ReplayClient]:
    """See `replay`."""
    _tape.refuse_second("replay")
    with closing(ReplayClient(recording)) as client:
        _tape.replayed = client
        try:
            yield client
        finally:
            _tape.replayed = None


def is_replaying() -> bool:
    """Whether no engine shall be asked, nor started."""
    return _tape.replayed is not None


def client_of_run(backend: object | None, run: Callable[[], RunInfo]) -> Client:
    """The client that a run talks to; `run` is only asked where somebody keeps runs apart."""
    if isinstance(backend, Aside):
        return backend.client
    if _tape.replayed is not None:
        return _tape.replayed.begin_run(run())
    client = resolve(backend)
    return client if _tape.recorder is None else _tape.recorder.begin_run(client, run())
