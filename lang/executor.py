"""Runs a branch's steps one after another by completion callbacks: no thread per branch.

Owns: the queue of one branch, its transcript, its failure, and the order of what happens. Whoever
finds the branch at rest runs its steps: the program's thread when it submits one, or the client's
dispatcher thread when a request completes. Knows no nodes and no defaults.
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from weakref import WeakSet

from ..runtime.client import Event
from ..runtime.errors import Cancelled
from ..runtime.protocol import GenerateRequest, ScoreRequest, Scores
from .choices import describe
from .collect import Collector
from .errors import Failure, tail_of
from .run import Run
from .steps import (
    AddMessage,
    AddText,
    CloseMessage,
    CloseScope,
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


Step = TextStep | Generate | Score | Fork

_UNREAD = "nobody reads this branch any more"


class Pending:
    """A step in flight. It ends once, by `finish`, on whatever thread; later news is ignored.

    The thread that started it calls `park` when it has nothing more to do: either the step has
    ended by then, and that thread goes on, or `finish` will go on. So a chain of steps that
    complete at once is a loop, not a recursion.
    """

    def __init__(self, executor: "Executor", step: Step) -> None:
        self.executor = executor
        self.step = step
        self.request_id: str | None = None
        self.done = False
        self._parked = False
        self._abort: Callable[[], object] | None = None

    def can_abort_by(self, abort: Callable[[], object]) -> None:
        with self.executor.run.changed:
            self._abort = abort
            late = self.done
        if late:
            abort()

    def park(self) -> bool:
        """False if the step has ended already."""
        with self.executor.run.changed:
            self._parked = not self.done
            return self._parked

    def fail(self, cause: BaseException) -> None:
        """End the step and its branch with this error, and the request behind it."""
        with self.executor.run.changed:
            failure = self.executor.failure_of(cause, self)
        self.finish(failure)

    def finish(self, failure: Failure | None = None) -> None:
        with self.executor.run.changed:
            if self.done:
                return
            self.done = True
            self.executor.pending = None
            if failure is not None:
                _fail_variable(self.step, failure)
                self.executor.stop(failure)
            parked, abort = self._parked, self._abort
            self.executor.run.announce()
        if failure is not None and abort is not None:
            abort()
        if parked:
            drive(self.executor)


def drive(executor: "Executor") -> None:
    """Run this executor until it waits or rests, and then every one that it woke."""
    ready = deque([executor])
    interrupt: BaseException | None = None
    while ready:
        try:
            ready.popleft().advance(ready)
        except BaseException as error:  # Ctrl-C: the others must not be left asleep
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
        self.pending: Pending | None = None
        self.first_piece = 0  # where this branch's own text begins
        self._queue: deque[Step] = deque()
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
        drive(self)

    # --- running -------------------------------------------------------------------------------

    def advance(self, ready: "deque[Executor]") -> None:
        """Run steps until one is in flight or none is left; `ready` gets the branches it wakes."""
        while (pending := self._next(ready)) is not None:
            try:
                self._execute(pending.step, pending, ready)
            except BaseException as error:
                pending.fail(error)
                if not isinstance(error, Exception):
                    self._next(ready)
                    raise
            if pending.park():
                return

    def _next(self, ready: "deque[Executor]") -> Pending | None:
        """The next step; None when there is none, or when they all fell with the branch."""
        with self.run.changed:
            if self.failure is None and self._queue:
                self.pending = Pending(self, self._queue.popleft())
                return self.pending
            while self._queue:
                assert self.failure is not None
                self._drop(self._queue.popleft(), self.failure, ready)
            self._active = False
            self.run.announce()
            return None

    def _drop(self, step: Step, failure: Failure, ready: "deque[Executor]") -> None:
        _fail_variable(step, failure)
        if isinstance(step, Fork):
            for child in step.children:
                if child._origin is not None:
                    child._origin = None
                    child.failure = failure
                    ready.append(child)

    def _execute(self, step: Step, pending: Pending, ready: "deque[Executor]") -> None:
        match step:
            case Generate():
                self._generate(step, pending)
            case Score():
                self._score(step, pending)
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
            case OpenMessage():
                transcript.message_start = len(transcript.pieces)
            case CloseMessage(role):
                content = transcript.text(transcript.message_start).lstrip()
                transcript.messages.append({"role": role, "content": content})
            case OpenScope(scope):
                scope.start = len(transcript.pieces)
            case CloseScope(scope, variable):
                variable.set(transcript.text(scope.start))

    # --- generation ----------------------------------------------------------------------------

    def _generate(self, step: Generate, pending: Pending) -> None:
        request = GenerateRequest(
            self.transcript.prompt(), step.sampling, step.logprobs, random_path=step.path
        )
        pending.request_id = step.variable.request_id = request.request_id
        collector = Collector(request)
        stream = self.run.client.generate(request)
        pending.can_abort_by(stream.close)
        stream.subscribe(partial(self._on_event, step, pending, collector))

    def _on_event(
        self, step: Generate, pending: Pending, collector: Collector, event: Event
    ) -> None:
        try:
            if isinstance(event, BaseException):
                raise event
            with self.run.changed:
                if pending.done:
                    return
                collector.add(event)
                if event.index == 0:
                    self.transcript.show(event.text)
                    if self.run.stream:
                        step.variable.chunks.append(event)
                if collector.complete:
                    self._settle(step, collector)
                self.run.announce()
            if collector.complete:
                pending.finish()
        except BaseException as error:  # nobody above could tell the program
            pending.fail(error)

    def _settle(self, step: Generate, collector: Collector) -> None:
        texts = collector.texts()
        metas = [meta.as_dict() for meta in collector.metas]
        self.transcript.settle(*collector.continuation())
        if step.sampling.n == 1:
            step.variable.set(texts[0], metas[0])
        else:
            step.variable.set(texts, metas)

    # --- select --------------------------------------------------------------------------------

    def _score(self, step: Score, pending: Pending) -> None:
        request = ScoreRequest(
            self.transcript.prompt(), step.options, unconditional=step.method.needs_unconditional
        )
        pending.request_id = request.request_id
        sent = time.perf_counter()
        future = self.run.client.score(request)
        pending.can_abort_by(future.cancel)
        future.add_done_callback(partial(self._on_scores, step, pending, request, sent))

    def _on_scores(
        self,
        step: Score,
        pending: Pending,
        request: ScoreRequest,
        sent: float,
        future: "Future[Scores]",
    ) -> None:
        try:
            if future.cancelled():
                raise Cancelled("the scoring was cancelled")
            scores = future.result()
            decision = step.method.decide(scores)
            choice = step.options[decision.index]
            usage = scores.usage
            meta = {
                "id": request.request_id,
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "cached_tokens": usage.cached_tokens,
                "forced_tokens": usage.forced_tokens,
                "e2e_latency": time.perf_counter() - sent,
                "choices_method": step.method.name,
                **describe(scores),
                **decision.meta,
            }
            with self.run.changed:
                if pending.done:
                    return
                self.transcript.show(choice)
                taken = scores.options[decision.index].token_ids
                self.transcript.settle(scores.prompt_ids + taken)
                step.variable.set(choice, meta)
            pending.finish()
        except BaseException as error:  # nobody above could tell the program
            pending.fail(error)

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
            failure = self.failure_of(cause)
            self.stop(failure)
            pending, origin, self._origin = self.pending, self._origin, None
            self.run.announce()
        if pending is not None:
            pending.finish(failure)
        elif origin is not None:
            drive(self)
        return origin

    def failure_of(self, cause: BaseException, pending: Pending | None = None) -> Failure:
        """What readers will be told; the lock must be held."""
        step = pending.step if pending is not None else None
        named = step if isinstance(step, Generate | Score) else None
        return Failure(
            cause,
            self.run.program,
            named.variable.name if named is not None else None,
            named.location if named is not None else None,
            tail_of(self.transcript.end_of_text(200)),
            pending.request_id if pending is not None else None,
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


def _fail_variable(step: Step, failure: Failure) -> None:
    if isinstance(step, Generate | Score | CloseScope):
        step.variable.fail(failure)
