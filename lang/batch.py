"""Many runs of one program at a time.

Owns: the bounded pool, the order of results, what an item's error does to the others, the progress
line. Knows nothing of how a body runs.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, get_args

from ..runtime.errors import EngineDied, EngineError, InvalidRequest, Unreachable
from .errors import ProgramError
from .execution import Execution
from .state import ProgramState

OnError = Literal["raise", "keep"]

_WINDOW: Final = 200  # items that a generator runs ahead of its reader
_MANY: Final = 1_000  # coroutines at a time: far fewer than an engine's queue has room for


@dataclass(frozen=True)
class Plan:
    num_concurrent: int
    on_error: OnError
    retries: int
    size: int
    progress_bar: bool = False

    @classmethod
    def of(
        cls,
        size: int,
        num_concurrent: int,
        on_error: OnError,
        retries: int,
        progress_bar: bool = False,
    ) -> "Plan":
        """Raises InvalidRequest, naming the option."""
        if on_error not in get_args(OnError):
            raise InvalidRequest(
                f"on_error: {on_error!r} is none of {get_args(OnError)}", field="on_error"
            )
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise InvalidRequest(
                f"retries: {retries!r} is not a number of further attempts", field="retries"
            )
        return cls(max(1, min(num_concurrent, size)), on_error, retries, size, progress_bar)


def num_at_a_time(name: str, value: object, *, is_async: bool = False) -> int:
    """How many items run at a time, from what the caller said of it."""
    if value == "auto":
        return _MANY if is_async else max(96, (os.cpu_count() or 1) * 16)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequest(
            f'{name}: {value!r} is neither "auto" nor a positive integer', field=name
        )
    return value


def is_retryable(error: BaseException) -> bool:
    """Whether the same item may go well the next time: an error of the engine (unless it died; one
    elsewhere may only be out of reach), of the network or the system, or a timeout. Not what the
    request or the program's own code is at fault for, and not a cancellation."""
    cause = error.__cause__ if isinstance(error, ProgramError) else error
    if isinstance(cause, EngineDied):
        return isinstance(cause, Unreachable)
    return isinstance(cause, EngineError | OSError)


def pause_before(attempt: int) -> float:
    """Seconds to wait before this attempt (1: the first repetition): an engine that is overloaded
    needs some."""
    return min(0.05 * 2.0 ** (attempt - 1), 2.0)


def gather(executions: Sequence[Execution], plan: Plan) -> list[ProgramState]:
    with _Pool(plan).working() as pool:
        futures = [pool.submit(index, one) for index, one in enumerate(executions)]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done():
                future.result()  # the first error in order goes before later ones
        return [future.result() for future in futures]


def generate(executions: Sequence[Execution], plan: Plan) -> Iterator[ProgramState]:
    with _Pool(plan).working() as pool:
        ahead: deque[Future[ProgramState]] = deque()
        for index, one in enumerate(executions):
            ahead.append(pool.submit(index, one))
            if len(ahead) >= max(_WINDOW, plan.num_concurrent):
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class _Pool:
    """Threads that run items, and the states that are running, so that they can be aborted."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._threads = ThreadPoolExecutor(plan.num_concurrent, thread_name_prefix="run_batch")
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._running: set[ProgramState] = set()
        self._num_done = 0

    @contextmanager
    def working(self) -> "Iterator[_Pool]":
        try:
            yield self
        except BaseException:
            self._stop()
            raise
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)
            if self._plan.progress_bar:
                sys.stderr.write("\n")

    def submit(self, index: int, execution: Execution) -> Future[ProgramState]:
        return self._threads.submit(self._run, index, execution)

    def _run(self, index: int, execution: Execution) -> ProgramState:
        state, error = self._attempt(execution)
        for attempt in range(1, self._plan.retries + 1):
            if error is None or not is_retryable(error):
                break
            if self._stopped.wait(pause_before(attempt)):
                break
            state, error = self._attempt(execution.again())
        if self._plan.progress_bar:
            self._show_progress()
        if error is not None and self._plan.on_error == "raise":
            error.add_note(f"in item {index} of run_batch")
            raise error
        return state

    def _attempt(self, execution: Execution) -> tuple[ProgramState, BaseException | None]:
        state = ProgramState(execution.branch)
        with self._lock:
            self._running.add(state)
        try:
            if self._stopped.is_set():
                state.cancel()
            else:
                execution.execute(state)
            return state, state.error()  # waits for the generations that the body left running
        finally:
            with self._lock:
                self._running.discard(state)

    def _stop(self) -> None:
        self._stopped.set()
        with self._lock:
            running = list(self._running)
        for state in running:
            state.cancel()

    def _show_progress(self) -> None:
        with self._lock:
            self._num_done += 1
            filled = 30 * self._num_done // self._plan.size
            bar = "#" * filled + "." * (30 - filled)
            sys.stderr.write(f"\r[{bar}] {self._num_done}/{self._plan.size}")
            sys.stderr.flush()
