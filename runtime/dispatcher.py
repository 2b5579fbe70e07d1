"""One thread that runs posted jobs in order: where answers are decoded and callbacks run.

Owns: the thread and its queue. Knows nothing of the jobs.
"""

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

_log = logging.getLogger(__name__)

Job = Callable[[], None]


class Dispatcher:
    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="sapwood-dispatcher", daemon=True)
        self._thread.start()

    def post(self, job: Job) -> None:
        """Run `job` after those posted before; after `stop`, at once on this thread. Takes no lock,
        so a finalizer may call it at any moment."""
        self._jobs.put(job)
        if self._stopped:
            self._run_rest()

    @property
    def is_current(self) -> bool:
        """Whether the caller is a job."""
        return threading.current_thread() is self._thread

    def stop(self, timeout: float) -> None:
        """Wait until what was posted has run, at most `timeout` seconds; a job may call it."""
        self._jobs.put(None)
        if not self.is_current:
            self._thread.join(timeout)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            _do(job)
            del job  # nothing of it may live on while the thread waits
        self._stopped = True
        self._run_rest()  # posted between the stop and the mark

    def _run_rest(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
            if job is not None:
                _do(job)


def _do(job: Job) -> None:
    try:
        job()
    except BaseException:  # a job that asks to exit must not take the others' thread with it
        _log.exception("a job of the dispatcher failed")
