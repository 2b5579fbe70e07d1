"""Aborts the requests of states that nobody holds any more, and of those whose time is over.

Owns: one daemon thread, the only one that watches the clock. A finalizer may run at any moment,
also while its own thread holds a lock, so it only hands the work over. It keeps no run alive: the
error that a body ended with holds the body's frame, and so the very states that are watched.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from queue import Empty, SimpleQueue
from weakref import WeakMethod, finalize

Action = Callable[[], object]


@dataclass(frozen=True, order=True)
class _Alarm:
    """Rings at `when`, for whom it still concerns: it keeps nobody alive."""

    when: float
    number: int
    action: "WeakMethod[Action]" = field(compare=False)


class Reaper:
    def __init__(self) -> None:
        self._work: SimpleQueue[WeakMethod[Action] | _Alarm] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._numbers = count()

    def when_dropped(self, holder: object, action: "WeakMethod[Action]") -> None:
        """Call `action` on the reaper's thread once `holder` is garbage, unless its object is gone:
        what a request in flight needs is kept alive by its client."""
        self._start()
        finalize(holder, self._work.put, action).atexit = False

    def after(self, seconds: float, action: "WeakMethod[Action]") -> None:
        """Call `action` on the reaper's thread after so many seconds, unless its object is gone."""
        self._start()
        self._work.put(_Alarm(time.monotonic() + seconds, next(self._numbers), action))

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="sapwood-reaper", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        alarms: list[_Alarm] = []
        while True:
            self._ring(alarms)
            work = self._next(alarms)
            if isinstance(work, _Alarm):
                heappush(alarms, work)
            elif work is not None:
                _do(work)
            del work  # nothing of it may live on while the thread waits

    def _next(self, alarms: list[_Alarm]) -> "WeakMethod[Action] | _Alarm | None":
        """What is handed over next; None when an alarm is due before that."""
        try:
            wait = max(0.0, alarms[0].when - time.monotonic()) if alarms else None
            return self._work.get(timeout=wait)
        except Empty:
            return None

    def _ring(self, alarms: list[_Alarm]) -> None:
        now = time.monotonic()
        while alarms and alarms[0].when <= now:
            _do(heappop(alarms).action)


def _do(held: "WeakMethod[Action]") -> None:
    action = held()
    if action is None:
        return
    try:
        action()
    except Exception:  # a client that cannot abort: the others' work goes on
        logging.getLogger(__name__).exception("what nobody reads any more could not be aborted")


REAPER = Reaper()
"""The process's own: it holds nothing but work that is due."""
