"""From constraints to compiled grammars: cached, off the caller's thread, under limits.

A constraint passes through lanes, each with threads of its own: two here, by steps that are
counted, and the last in worker processes that can be killed. What passes the limits of one lane
moves on to the next, so small constraints never wait behind large ones. The vocabulary never
leaves this process.
"""

import threading
import time
import weakref
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from .compiled import CompiledGrammar
from .errors import Exponential, GrammarError, LimitExceeded
from .limits import CompileLimits
from .lower import describe, lower
from .masks import MaskCache
from .spec import Constraint, JsonSchema, Regex
from .vocabulary import Vocabulary
from .worker_pool import WorkerPool

# The first lane takes some 20 ms for each; the second about as long as starting a worker does
# (0.2 s). The times are stopgaps.
_TINY: Final = CompileLimits(seconds=0.25, states=3_000)
_SMALL: Final = CompileLimits(seconds=1.0, states=30_000)
_SMALL_TEXT: Final = {Regex: 4_000, JsonSchema: 50_000}
# Parsing is not counted: a class for which `re` is asked costs 15 ms when it is first seen. With
# flags any class may be one, without them only odd ones are.
_SMALL_CLASSES: Final = 100
_SMALL_FLAGGED_CLASSES: Final = 10
_THREADS_HERE: Final = 2
_WORKERS: Final = 4
# A constraint that passed the limits is refused unseen for so long; not for ever, for a busy
# machine can be to blame.
_REFUSAL_SECONDS: Final = 60.0


@dataclass(frozen=True)
class _Lane:
    """limits: of an attempt in this process; None where worker processes compile."""

    limits: CompileLimits | None
    threads: ThreadPoolExecutor


@dataclass(frozen=True)
class _Refusal:
    kind: type[LimitExceeded]
    message: str
    until: float


class GrammarCompiler:
    """Compiles constraints for one vocabulary; for any thread. Close it to end its worker.

    limits: of each single compilation; cache_size: compiled grammars kept, least recently used out,
    and as many refusals of what passed the limits, for a minute each.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        limits: CompileLimits | None = None,
        cache_size: int = 256,
    ) -> None:
        if cache_size < 1:
            raise GrammarError(f"cache_size is at least 1, not {cache_size}")
        self._vocabulary = vocabulary
        self._limits = limits or CompileLimits()
        self._cache_size = cache_size
        self._grammars: OrderedDict[Constraint, CompiledGrammar] = OrderedDict()
        self._refusals: OrderedDict[Constraint, _Refusal] = OrderedDict()
        self._in_flight: dict[Constraint, Future[CompiledGrammar]] = {}
        self._lock = threading.Lock()
        self._masks = MaskCache()
        self._workers = WorkerPool(self._limits)
        self._lanes = (
            _Lane(_least(_TINY, self._limits), _threads(_THREADS_HERE)),
            _Lane(_least(_SMALL, self._limits), _threads(_THREADS_HERE)),
            _Lane(None, _threads(_WORKERS)),
        )
        self._closed = False
        weakref.finalize(self, self._workers.close)

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    def compile(self, spec: Constraint) -> CompiledGrammar:
        """The compiled grammar, waiting for it; raises GrammarError, which names what is wrong."""
        return self.submit(spec).result()

    def submit(self, spec: Constraint) -> "Future[CompiledGrammar]":
        """A future of the compiled grammar; equal specs in flight share one, not to be cancelled.

        Its exception is a GrammarError. Raises RuntimeError after `close`.
        """
        if not isinstance(spec, Constraint):
            raise GrammarError(f"{spec!r} is not a constraint")
        with self._lock:
            if self._closed:
                raise RuntimeError("the grammar compiler is closed")
            if spec in self._in_flight:
                return self._in_flight[spec]
            future: Future[CompiledGrammar] = Future()
            future.set_running_or_notify_cancel()
            if spec in self._grammars:
                self._grammars.move_to_end(spec)
                future.set_result(self._grammars[spec])
                return future
            refusal = self._refusals.get(spec)
            if refusal is not None and time.monotonic() < refusal.until:
                future.set_exception(refusal.kind(refusal.message))
                return future
            self._in_flight[spec] = future
            lane = 0 if _looks_small(spec) else len(self._lanes) - 1
            self._lanes[lane].threads.submit(self._run, spec, future, lane)
            return future

    def close(self) -> None:
        """End the worker and the threads; compilations under way fail. May be called twice."""
        with self._lock:
            self._closed = True
        self._workers.close()
        for lane in self._lanes:  # in order, for each hands on to the next
            lane.threads.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            waiting = list(self._in_flight.items())
            self._in_flight.clear()
        for spec, future in waiting:
            future.set_exception(GrammarError(f"{describe(spec)}: the compiler was closed"))

    def _run(self, spec: Constraint, future: "Future[CompiledGrammar]", lane: int) -> None:
        try:
            grammar = self._compile(spec, self._lanes[lane].limits)
        except BaseException as error:  # goes to the waiting callers as it is
            if isinstance(error, LimitExceeded) and not self._is_final(error, lane):
                self._lanes[lane + 1].threads.submit(self._run, spec, future, lane + 1)
                return
            with self._lock:
                self._in_flight.pop(spec, None)
                if isinstance(error, LimitExceeded):
                    self._refuse_again(spec, error)
            future.set_exception(error)
            return
        with self._lock:
            self._in_flight.pop(spec, None)
            self._refusals.pop(spec, None)
            self._grammars[spec] = grammar
            while len(self._grammars) > self._cache_size:
                self._grammars.popitem(last=False)
        future.set_result(grammar)

    def _is_final(self, error: LimitExceeded, lane: int) -> bool:
        """Whether a later lane, which has larger limits, would refuse the constraint too."""
        return isinstance(error, Exponential) or self._lanes[lane].limits in (None, self._limits)

    def _refuse_again(self, spec: Constraint, error: LimitExceeded) -> None:
        # As a recipe: one exception raised again and again would gather tracebacks.
        until = time.monotonic() + _REFUSAL_SECONDS
        self._refusals[spec] = _Refusal(type(error), str(error), until)
        self._refusals.move_to_end(spec)
        while len(self._refusals) > self._cache_size:
            self._refusals.popitem(last=False)

    def _compile(self, spec: Constraint, limits: CompileLimits | None) -> CompiledGrammar:
        try:
            automaton = self._workers.lower(spec) if limits is None else lower(spec, limits)
            return CompiledGrammar(spec, automaton, self._vocabulary, self._masks)
        except GrammarError:
            raise
        except (MemoryError, RecursionError) as error:
            raise LimitExceeded(f"{describe(spec)}: {type(error).__name__}") from error


def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="sapwood-grammar")


def _least(a: CompileLimits, b: CompileLimits) -> CompileLimits:
    """`a`, but no more than `b` allows; the memory is that of `b`, for it bounds workers only."""
    return CompileLimits(min(a.seconds, b.seconds), min(a.states, b.states), b.memory_mb)


def _looks_small(spec: Constraint) -> bool:
    """Whether what is not counted (parsing) is quick, so that trying it here costs little."""
    if isinstance(spec, Regex):
        most = _SMALL_FLAGGED_CLASSES if "(?" in spec.pattern else _SMALL_CLASSES
        return len(spec.pattern) <= _SMALL_TEXT[Regex] and spec.pattern.count("[") <= most
    if isinstance(spec, JsonSchema):
        return len(spec.schema) <= _SMALL_TEXT[JsonSchema]
    return True
