"""Reads: something that a run will know, and the two ways to wait for it.

Owns: waiting on a thread and on an event loop, each woken by the run's changes. Knows no branch and
no executor: a read brings its own condition.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from .run import Run
from .variables import Variable

if TYPE_CHECKING:
    from asyncio import Future

T = TypeVar("T")


@dataclass(frozen=True)
class Read(Generic[T]):
    """`ready` is asked at every change, with the run's lock held: it must not block. `result` is
    called once after that, without the lock, and may raise."""

    ready: Callable[[], bool]
    result: Callable[[], T]


def wait(run: Run, read: Read[T]) -> T:
    """Blocks this thread."""
    with run.changed:
        is_ready = read.ready()
    if not is_ready:
        gate = threading.Lock()
        gate.acquire()
        with _woken(run, read.ready, gate.release):
            gate.acquire()  # Ctrl-C breaks it off in the main thread
    return read.result()


async def reach(run: Run, read: Read[T]) -> T:
    """The same for an event loop, which is never blocked. Cancelling it ends the waiting alone."""
    with run.changed:
        is_ready = read.ready()
    if not is_ready:
        await _until(run, read.ready)
    return read.result()


async def _until(run: Run, ready: Callable[[], bool]) -> None:
    import asyncio  # a slow import that most programs do without

    loop = asyncio.get_running_loop()
    reached: Future[None] = loop.create_future()

    def wake() -> None:
        if not loop.is_closed():  # a waiter that was left behind by its loop
            loop.call_soon_threadsafe(_settle, reached)

    with _woken(run, ready, wake):
        await reached


@contextmanager
def _woken(run: Run, ready: Callable[[], bool], wake: Callable[[], object]) -> Iterator[None]:
    """Call `wake` once when it is ready; the thread that changes the run looks, the waiter sleeps
    until then."""
    awake = False

    def look() -> None:
        nonlocal awake
        if not awake and ready():
            awake = True
            wake()

    with run.watched(look):
        yield


def _settle(reached: "Future[None]") -> None:
    if not reached.done():
        reached.set_result(None)


def of_variable(
    run: Run, variables: dict[str, Variable], name: str, *, for_body: bool
) -> Read[Variable]:
    """The variable once it has a value. KeyError if there is none, ProgramError if it failed.

    `for_body`: the program may still be running elsewhere, and declare it.
    """
    found: list[Variable] = []

    def ready() -> bool:
        if not found and name in variables:
            found.append(variables[name])
        return found[0].settled if found else run.body_done or not for_body

    def result() -> Variable:
        if not found:
            if run.body_error is not None:
                raise run.body_error
            known = ", ".join(variables) or "none"
            raise KeyError(f"no variable {name!r} in program {run.program!r} ({known})")
        if found[0].failure is not None:
            raise found[0].failure.error()
        return found[0]

    return Read(ready, result)
