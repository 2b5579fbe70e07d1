"""Runs a branch's steps one after another by completion callbacks: no thread per branch.

Owns: the queue of one branch, its transcript, its failure, and the order of what happens. Whoever
finds the branch at rest runs its steps: the program's thread when it submits one, or the client's
dispatcher thread when a request completes. Knows no nodes and no defaults.
"""

from collections import deque
from dataclasses import dataclass
from functools import partial
from weakref import WeakSet

from ..runtime.errors import Cancelled
from .errors import Failure, ProgramError, tail_of
from .exchanges import FillExchange, GenerateExchange, ScoreExchange
from .pending import Pending, fail_variable
from .run import Run
from .steps import (
    AddMessage,
    AddText,
    BeginReasoning,
    CloseMessage,
    CloseScope,
    EndReasoning,
    Fill,
    Generate,
    OpenMessage,
    OpenScope,
    Score,
    TextStep,
)
from .transcript import Transcript


@dataclass(frozen=True)
class Fork:
    """Each child takes over a copy of the transcript as it stands here, and starts."""

    children: "tuple[Executor, ...]"


Step = TextStep | Generate | Fill | Score | Fork

_UNREAD = "nobody reads this branch any more"


def _late() -> TimeoutError:
    return TimeoutError("the run took longer than its timeout")


def drive(executor: "Executor") -> None:
    """Run this executor until it waits or rests, and then every one that it woke."""
    ready = deque([executor])
    interrupt: BaseException | None = None
    while ready:
        current = ready.popleft()
        try:
            current.advance(ready)
        except BaseException as error:  # Ctrl-C: no branch may be left asleep
            current.interrupt(error, ready)
            interrupt = error
    if interrupt is not None:
        raise interrupt


class Executor:
    """One branch of a run. All state is written under the run's lock.

    `path` tells its random streams apart from other branches'; `origin` is the executor whose Fork
    step will start it.
    """

    def __init__(
        self, run: Run, path: tuple[int, ...] = (), origin: "Executor | None" = None
    ) -> None:
        self.run = run
        self.path = path
        self.transcript = Transcript()
        self.failure: Failure | None = None
        self.first_piece = 0  # where this branch's own text begins
        self._queue: deque[Step] = deque()
        self._step: Step | None = None  # the one in flight
        self._num_pieces = 0  # of the transcript, when that step began
        self._pending: Pending | None = None
        self._origin = origin
        self._active = origin is not None
        self._abandoned = False
        self._lineage: Lineage = Lineage(None if origin is None else origin._lineage)
        self._family: WeakSet[Executor] = WeakSet() if origin is None else origin._family
        with run.changed:
            self._family.add(self)

    @property
    def idle(self) -> bool:
        """Nothing to do: every step so far has ended."""
        return not self._active

    def submit(self, step: Step) -> None:
        with self.run.changed:
            self._queue.append(step)
            if self._active:
                return
            self._active = True
        if self.run.sender is None:
            drive(self)
        else:
            self.run.sender.post(partial(drive, self))

    # --- running -------------------------------------------------------------------------------

    def advance(self, ready: "deque[Executor]") -> None:
        """Run steps until one is in flight or none is left; `ready` gets the branches it wakes."""
        while (started := self._next(ready)) is not None:
            step, pending = started
            try:
                self._execute(step, pending, ready)
            except Exception as error:
                pending.fail(error, step)
            if pending.park():
                return

    def _next(self, ready: "deque[Executor]") -> tuple[Step, Pending] | None:
        """The next step; None when there is none, or when they all fell with the branch."""
        with self.run.changed:
            if self.failure is None and self._queue:
                self._step, self._pending = self._queue.popleft(), Pending(self)
                self._num_pieces = len(self.transcript.pieces)
                return self._step, self._pending
            while self._queue:
                assert self.failure is not None
                self._drop(self._queue.popleft(), self.failure, ready)
            self._active = False
            self.run.announce()
            return None

    def _drop(self, step: Step, failure: Failure, ready: "deque[Executor]") -> None:
        fail_variable(step, failure)
        if isinstance(step, Fork):
            for child in step.children:
                if child._origin is not None:
                    child._origin = None
                    child.stop(failure)
                    ready.append(child)

    def _execute(self, step: Step, pending: Pending, ready: "deque[Executor]") -> None:
        match step:
            case Generate():
                GenerateExchange(self.run, self.transcript, step, pending).start()
            case Fill():
                FillExchange(self.run, self.transcript, step, pending).start()
            case Score():
                ScoreExchange(self.run, self.transcript, step, pending).start()
            case Fork():
                self._fork(step, ready)
                pending.finish()
            case _:
                with self.run.changed:
                    self._write(step)
                pending.finish()

    def _write(self, step: TextStep) -> None:
        transcript = self.transcript
        match step:
            case AddText(text, special):
                transcript.append(text, special=special)
            case AddMessage(role, content):
                transcript.messages.append({"role": role, "content": content})
            case OpenMessage(role):
                transcript.message_start = len(transcript.pieces)
                transcript.open_role = role
            case CloseMessage(role):
                content = transcript.text(transcript.message_start).lstrip()
                transcript.messages.append({"role": role, "content": content})
                transcript.open_role = None
            case OpenScope(scope):
                scope.start = len(transcript.pieces)
            case CloseScope(scope, variable):
                variable.set(transcript.text(scope.start))
            case BeginReasoning(place):
                place.mark = transcript.mark()
            case EndReasoning():
                self._split(step)

    def _split(self, step: EndReasoning) -> None:
        assert step.place.mark is not None
        whole = step.whole.value
        parts = [step.format.split(text) for text in ([whole] if isinstance(whole, str) else whole)]
        thoughts, answers = [part[0] for part in parts], [part[1] for part in parts]
        self.transcript.rewind(step.place.mark)
        self.transcript.append(answers[0])
        alone = isinstance(whole, str)
        step.reasoning.set(thoughts[0] if alone else thoughts)
        step.answer.set(answers[0] if alone else answers, step.whole.meta)

    # --- forks ---------------------------------------------------------------------------------

    def _fork(self, step: Fork, ready: "deque[Executor]") -> None:
        with self.run.changed:
            for child in step.children:
                if child._origin is None:
                    continue  # cancelled before it began
                child._origin = None
                child.transcript = self.transcript.copy()
                child.first_piece = len(child.transcript.pieces)
                ready.append(child)
            if self._abandoned and not self._awaited():
                self.stop(self.failure_of(Cancelled(_UNREAD)))

    def _awaited(self) -> bool:
        """Does a branch that is still wanted wait for a Fork step in the queue?"""
        forks = (step for step in self._queue if isinstance(step, Fork))
        return any(child._origin is not None for step in forks for child in step.children)

    # --- stopping ------------------------------------------------------------------------------

    def stop(self, failure: Failure) -> None:
        """The first failure stays; the lock must be held, and `advance` drops the queue."""
        if self.failure is None:
            self.failure = failure
            self.run.num_failures += 1

    def interrupt(self, cause: BaseException, ready: "deque[Executor]") -> None:
        """`advance` was broken off somewhere: end the branch as it stands."""
        with self.run.changed:
            failure = self.failure_of(cause, self._step)
            self.stop(failure)
            pending = self._pending
        if pending is not None:
            pending.finish(failure)
        self._next(ready)

    def end_step(self, failure: Failure | None) -> None:
        if failure is not None:
            fail_variable(self._step, failure)
            self.stop(failure)
        self._step = self._pending = None

    def resume(self) -> None:
        drive(self)

    def cancel(self, cause: BaseException | None = None) -> None:
        """Abort this branch and every branch forked from it. What is finished stays readable."""
        reason = cause or Cancelled("the program was cancelled")
        origin = self._cancel(reason)
        with self.run.changed:
            family = list(self._family)
        for executor in family:
            if executor is not self and executor._lineage.descends_from(self._lineage):
                executor._cancel(reason)
        if origin is not None and origin._abandoned:
            origin.abandon()

    def time_out(self) -> None:
        """The time of the whole run is over."""
        self.cancel(_late())

    def late_error(self) -> ProgramError:
        """After `time_out`: the error that says so, with the step that it hit."""
        failure = self.failure
        if failure is None or not isinstance(failure.cause, TimeoutError):
            failure = self.failure_of(_late())
        return failure.error()

    def abandon(self) -> None:
        """Nobody holds this branch any more: abort what no other branch needs."""
        with self.run.changed:
            self._abandoned = True
        executor: Executor | None = self
        while executor is not None and executor._abandoned:
            with self.run.changed:
                if executor._awaited():
                    return
            executor = executor._cancel(Cancelled(_UNREAD))

    def _cancel(self, cause: BaseException) -> "Executor | None":
        """Returns the executor that this one was waiting for, if it had not begun."""
        with self.run.changed:
            if self.idle and self.run.body_done:
                return None
            request_id = self._pending.request_id if self._pending is not None else None
            failure = self.failure_of(cause, self._step, request_id)
            self.stop(failure)
            pending, origin, self._origin = self._pending, self._origin, None
            self.run.announce()
        if pending is not None:
            pending.finish(failure)
        elif origin is not None:
            drive(self)
        return origin

    def failure_of(
        self, cause: BaseException, step: object = None, request_id: str | None = None
    ) -> Failure:
        """What readers will be told; the lock must be held."""
        named = step.variable.name if isinstance(step, Generate | Score) else None
        # A broken answer may be shown already, in part: it is not what was asked.
        before = self._num_pieces if isinstance(step, Generate) else None
        return Failure(
            cause,
            self.run.program,
            named,
            step.location if isinstance(step, Generate | Score | Fill) else None,
            tail_of(self.transcript.end_of_text(200, before)),
            request_id,
        )


@dataclass(frozen=True, eq=False)
class Lineage:
    """Who was forked from whom, without keeping finished branches alive."""

    parent: "Lineage | None"

    def descends_from(self, other: "Lineage") -> bool:
        link: Lineage | None = self
        while link is not None and link is not other:
            link = link.parent
        return link is other
