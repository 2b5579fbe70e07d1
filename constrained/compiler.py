"""From constraints to compiled grammars: cached, off the caller's thread, under limits.

Small constraints are compiled in a thread here, by steps that are counted; what passes the small
limits goes to a worker process that can be killed. The vocabulary never leaves this process.
"""

import threading
import weakref
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from .automaton import Automaton
from .compiled import CompiledGrammar
from .errors import Exponential, GrammarError, LimitExceeded
from .limits import CompileLimits
from .lower import describe, lower
from .masks import MaskCache
from .spec import Constraint, JsonSchema, Regex
from .vocabulary import Vocabulary
from .worker_pool import WorkerPool

# So many states take about as long as starting a worker does (0.2 s); the time is a stopgap.
_SMALL: Final = CompileLimits(seconds=1.0, states=30_000)
_SMALL_TEXT: Final = {Regex: 4_000, JsonSchema: 50_000}
# Parsing is not counted: a class for which `re` is asked costs 15 ms when it is first seen. With
# flags any class may be one, without them only odd ones are.
_SMALL_CLASSES: Final = 100
_SMALL_FLAGGED_CLASSES: Final = 10
_THREADS: Final = 4


class GrammarCompiler:
    """Compiles constraints for one vocabulary; for any thread. Close it to end its worker.

    limits: of each single compilation; cache_size: compiled grammars kept, least recently used out.
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
        self._in_flight: dict[Constraint, Future[CompiledGrammar]] = {}
        self._lock = threading.Lock()
        self._masks = MaskCache()
        self._workers = WorkerPool(self._limits)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sapwood-grammar")
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
            self._in_flight[spec] = future
            self._threads.submit(self._run, spec, future)
            return future

    def close(self) -> None:
        """End the worker and the threads; compilations under way fail. May be called twice."""
        with self._lock:
            self._closed = True
        self._workers.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            waiting = list(self._in_flight.items())
            self._in_flight.clear()
        for spec, future in waiting:
            future.set_exception(GrammarError(f"{describe(spec)}: the compiler was closed"))

    def _run(self, spec: Constraint, future: "Future[CompiledGrammar]") -> None:
        try:
            grammar = self._compile(spec)
        except BaseException as error:  # goes to the waiting callers as it is
            with self._lock:
                self._in_flight.pop(spec, None)
            future.set_exception(error)
            return
        with self._lock:
            self._in_flight.pop(spec, None)
            self._grammars[spec] = grammar
            while len(self._grammars) > self._cache_size:
                self._grammars.popitem(last=False)
        future.set_result(grammar)

    def _compile(self, spec: Constraint) -> CompiledGrammar:
        try:
            automaton = self._lower(spec)
            return CompiledGrammar(spec, automaton, self._vocabulary, self._masks)
        except GrammarError:
            raise
        except (MemoryError, RecursionError) as error:
            raise LimitExceeded(f"{describe(spec)}: {type(error).__name__}") from error

    def _lower(self, spec: Constraint) -> Automaton:
        small = CompileLimits(
            seconds=min(_SMALL.seconds, self._limits.seconds),
            states=min(_SMALL.states, self._limits.states),
        )
        if _looks_small(spec):
            try:
                return lower(spec, small)
            except LimitExceeded as error:
                if isinstance(error, Exponential) or small.states == self._limits.states:
                    raise
        return self._workers.lower(spec)


def _looks_small(spec: Constraint) -> bool:
    """Whether what is not counted (parsing) is quick, so that trying it here costs little."""
    if isinstance(spec, Regex):
        most = _SMALL_FLAGGED_CLASSES if "(?" in spec.pattern else _SMALL_CLASSES
        return len(spec.pattern) <= _SMALL_TEXT[Regex] and spec.pattern.count("[") <= most
    if isinstance(spec, JsonSchema):
        return len(spec.schema) <= _SMALL_TEXT[JsonSchema]
    return True
