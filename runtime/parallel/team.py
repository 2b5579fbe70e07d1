"""Rank 0's view of the other ranks: their processes, what they are told, and how they end.

Owns: the processes, their sockets, and the thread that listens to them. Knows no tensor.
"""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, Final

from ..child import ending, spawn
from ..errors import EngineDied
from .messages import Answer, Failure, Question

_GRACE: Final = 5.0  # seconds for a rank that closed its socket to be gone
_NEWS: Final = (
    5.0  # seconds in which a death is known here, after an exchange with that rank failed
)


@dataclass(frozen=True)
class _Member:
    rank: int
    process: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"


class Team:
    """Ranks 1 to `size` - 1, each in a process of its own. They hold nothing that outlives them:
    to end one is to kill it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._answers: SimpleQueue[Answer | None] = SimpleQueue()  # None: there is no other
        self._changing = threading.Lock()  # of the four below
        self._reason: EngineDied | None = None
        self._on_death: Callable[[], None] = _nothing
        self._is_closed = False
        self._died = threading.Event()
        self._members = tuple(_start(rank) for rank in range(1, size))
        self._listener = threading.Thread(target=self._listen, name="sapwood-ranks", daemon=True)
        self._listener.start()

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(member.process.pid for member in self._members)

    @property
    def count(self) -> int:
        """Of ranks beside this one."""
        return len(self._members)

    def on_death(self, call: Callable[[], None]) -> None:
        """What lets go of whoever waits for a rank that has ended; called on the team's thread."""
        with self._changing:
            self._on_death = call
            is_late = self._reason is not None
        if is_late:
            call()

    def ask(self, questions: Sequence[Question]) -> None:
        """One of each rank, in their order. `answers` waits."""
        for member, question in zip(self._members, questions, strict=True):
            try:
                member.connection.send(question)
            except OSError:
                pass  # it is gone, and the listener tells

    def answers(self) -> list[Answer]:
        """Of all ranks, in no order. Raises EngineDied where one has ended."""
        answers: list[Answer] = []
        for _ in self._members:
            if (answer := self._answers.get()) is not None:
                answers.append(answer)
            self.check()
        return answers

    def tell(self, step: bytes) -> None:
        """To all ranks; nobody answers. Raises EngineDied where one has ended."""
        self.check()
        with self.blamed():
            for member in self._members:
                member.connection.send_bytes(step)

    def check(self) -> None:
        """Raises EngineDied where a rank has ended."""
        if self._reason is not None:
            raise self._reason

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Around what exchanges numbers with the ranks: an error in it that comes from a rank's end
        is raised as that."""
        try:
            yield
        except Exception as error:
            self._died.wait(_NEWS)
            if self._reason is not None and error is not self._reason:
                raise self._reason from error
            raise

    def close(self) -> None:
        """End the ranks; no process is left."""
        with self._changing:
            self._is_closed = True
        for member in self._members:
            member.process.kill()
        for member in self._members:
            member.process.wait()
        self._listener.join()
        for member in self._members:
            member.connection.close()

    def _listen(self) -> None:
        here = {member.connection: member for member in self._members}
        while here:
            for connection in wait(list(here)):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    message = None
                if isinstance(message, Answer):
                    self._answers.put(message)
                    continue
                self._note_end(here.pop(connection), message)

    def _note_end(self, member: _Member, failure: Failure | None) -> None:
        """The first one counts: the others end because of it."""
        name = f"rank {member.rank} of {self._size}"
        if failure is None:
            reason = EngineDied(ending(member.process, name, _GRACE))
        else:
            reason = EngineDied(f"{name}: {type(failure.error).__name__}: {failure.error}")
            reason.__cause__ = failure.error
        with self._changing:
            if self._is_closed or self._reason is not None:
                return
            self._reason = reason
            on_death = self._on_death
        self._died.set()
        for _ in self._members:
            self._answers.put(None)
        on_death()


def _start(rank: int) -> _Member:
    ours, theirs = socket.socketpair()
    with theirs:
        process = spawn(f"{__package__}.worker", theirs.fileno())
    return _Member(rank, process, Connection(ours.detach()))


def _nothing() -> None:
    pass
