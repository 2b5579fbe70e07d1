"""Killable compilation: worker processes, started when one is needed and kept for the next.

A worker that takes too long is killed, which hurts only the compilation that it ran. Plain
`subprocess` and `-m` are used, so that it works under any parent: a spawned child, a script without
a main guard, an interactive session.
"""

import os
import subprocess
import sys
import threading
from typing import Final

from .automaton import Automaton
from .errors import GrammarError, LimitExceeded
from .limits import CompileLimits
from .lower import describe
from .spec import Constraint
from .worker import OUT_OF_MEMORY, read_message, write_message

_MOST_IDLE: Final = 1


class WorkerPool:
    """Lends one worker process to each compilation; for any thread."""

    def __init__(self, limits: CompileLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._closed = False

    def lower(self, spec: Constraint) -> Automaton:
        """Compile in a worker; raises GrammarError (LimitExceeded past a limit)."""
        worker = self._borrow()
        try:
            result = worker.ask(spec, self._limits)
        except EOFError as error:
            raise self._reason(spec, worker) from error
        finally:
            self._give_back(worker)
        if isinstance(result, GrammarError):
            raise result
        if not isinstance(result, Automaton):
            raise GrammarError(f"{describe(spec)}: {result}")
        return result

    def _reason(self, spec: Constraint, worker: "_Worker") -> GrammarError:
        """Why a worker did not answer."""
        status = worker.exit_status()
        if self._closed:
            return GrammarError(f"{describe(spec)}: the compiler was closed")
        if worker.timed_out:
            return LimitExceeded(
                f"{describe(spec)}: it took longer than {self._limits.seconds:g} s"
            )
        if status == OUT_OF_MEMORY:
            return LimitExceeded(
                f"{describe(spec)}: it needs more than {self._limits.memory_mb} MiB of memory"
            )
        return LimitExceeded(f"{describe(spec)}: the compiler process ended with status {status}")

    @property
    def process_ids(self) -> list[int]:
        """Of the workers that are alive."""
        with self._lock:
            return [worker.process_id for worker in (*self._idle, *self._busy)]

    def close(self) -> None:
        """Kill all workers; a compilation under way fails."""
        with self._lock:
            self._closed = True
            workers = [*self._idle, *self._busy]
            self._idle.clear()
        for worker in workers:
            worker.stop()

    def _borrow(self) -> "_Worker":
        with self._lock:
            if self._closed:
                raise GrammarError("the compiler is closed")
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive:
                    break
                worker.stop()
            else:
                worker = _Worker(self._limits.memory_mb)
            self._busy.add(worker)
            return worker

    def _give_back(self, worker: "_Worker") -> None:
        with self._lock:
            self._busy.discard(worker)
            if worker.is_alive and not self._closed and len(self._idle) < _MOST_IDLE:
                self._idle.append(worker)
                return
        worker.stop()


class _Worker:
    def __init__(self, memory_mb: int) -> None:
        self.timed_out = False  # set where this side killed it for taking too long
        paths = [path for path in sys.path if path]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.worker", str(memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # One thread: BLAS would reserve address space for each of its own.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"},
        )

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return not self.timed_out and self._process.poll() is None

    def ask(self, spec: Constraint, limits: CompileLimits) -> object:
        """The worker's answer; raises EOFError where it died or was killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        killer = threading.Timer(limits.seconds, self._kill_late)
        killer.daemon = True
        killer.start()
        try:
            write_message(self._process.stdin, (spec, limits))
            return read_message(self._process.stdout)
        except (OSError, ValueError) as error:  # a broken pipe, or streams closed by `close`
            raise EOFError("the worker is gone") from error
        finally:
            killer.cancel()

    def exit_status(self) -> int:
        """Of a process that has closed its output, which so is about to end."""
        try:
            return self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def stop(self) -> None:
        """Kill the process if it lives, and wait until it is gone. May be called twice."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue  # what it still held cannot be delivered to a killed process

    def _kill_late(self) -> None:
        self.timed_out = True
        self._process.kill()
