"""Aborts the requests of states that nobody holds any more.

Owns: one daemon thread. A finalizer may run at any moment, also while its own thread holds a lock,
so it only hands the work over.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from weakref import finalize


class Reaper:
    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def when_dropped(self, holder: object, action: Callable[[], None]) -> None:
        """Call `action` on the reaper's thread once `holder` is garbage."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="sapwood-reaper", daemon=True
                )
                self._thread.start()
        finalize(holder, self._work.put, action).atexit = False

    def _run(self) -> None:
        while True:
            self._work.get()()


REAPER = Reaper()
"""The process's own: it holds nothing but work that is due."""
