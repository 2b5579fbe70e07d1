"""A step in flight: it ends once, on whatever thread, and then its branch goes on.

Owns: that hand-over. Knows of the branch only what `Owner` says.
"""

from collections.abc import Callable
from typing import Protocol
from weakref import WeakMethod

from .errors import Failure
from .reaper import REAPER
from .run import Run
from .steps import CloseScope, EndReasoning, Fill, Generate, Score, TextStep


class Owner(Protocol):
    """The executor of the step."""

    run: Run

    def failure_of(
        self,
        cause: BaseException,
        step: object = None,
        request_id: str | None = None,
    ) -> Failure: ...

    def end_step(self, failure: Failure | None) -> None:
        """The step has ended; the lock is held."""
        ...

    def resume(self) -> None:
        """Go on with the next steps, on this thread."""
        ...


class Pending:
    """`finish` or `fail` ends it, the first time that either is called; later news is ignored.

    The thread that started the step calls `park` when it has nothing more to do: either the step
    has ended by then, and that thread goes on, or the end will go on. So a chain of steps that
    complete at once is a loop, not a recursion.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parked = False
        self._abort: Callable[[], object] | None = None
        self._limit = 0.0
        self._step: object = None
        self.request_id: str | None = None
        self.done = False

    def limit(self, seconds: float | None, step: object) -> None:
        """Fail the step after so many seconds, if it has not ended by then."""
        if seconds is not None:
            self._limit, self._step = seconds, step
            REAPER.after(seconds, WeakMethod(self._time_out))

    def _time_out(self) -> None:
        self.fail(TimeoutError(f"no whole answer came within {self._limit:g} s"), self._step)

    def can_abort_by(self, abort: Callable[[], object]) -> None:
        """How to stop the request behind the step, should it end by a failure."""
        with self._owner.run.changed:
            self._abort = abort
            late = self.done
        if late:
            abort()

    def park(self) -> bool:
        """False if the step has ended already."""
        with self._owner.run.changed:
            self._parked = not self.done
            return self._parked

    def fail(self, cause: BaseException, step: object = None) -> None:
        with self._owner.run.changed:
            failure = self._owner.failure_of(cause, step, self.request_id)
        self.finish(failure)

    def finish(self, failure: Failure | None = None) -> None:
        with self._owner.run.changed:
            if self.done:
                return
            self.done = True
            self._owner.end_step(failure)
            self._owner.run.announce()
            parked = self._parked
            abort = self._abort if failure is not None else None
        try:
            if abort is not None:
                abort()
        finally:
            if parked:
                self._owner.resume()


def fail_variable(step: TextStep | Generate | Score | object, failure: Failure) -> None:
    """Steps that fill a variable leave the failure in it."""
    if isinstance(step, Generate | Score | CloseScope):
        step.variable.fail(failure)
    elif isinstance(step, Fill):
        for blank in step.form.blanks:
            blank.variable.fail(failure)
    elif isinstance(step, EndReasoning):
        step.answer.fail(failure)
        step.reasoning.fail(failure)
