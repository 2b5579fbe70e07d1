"""From constraints to compiled grammars: cached, off the engine's thread, under limits.

A constraint is tried for a moment in the first lane, or by a caller who waits, and where that is
not enough for as long as the limits say in the second; each lane has threads of its own, so small
constraints never wait behind large ones. Every step of a compilation is counted by code of ours,
which stops at a limit; no library that could run on is called.
"""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from .cache import GrammarCache
from .compiled import CompiledGrammar
from .errors import GrammarError, LimitExceeded
from .limits import CompileLimits
from .lower import describe, described, lower
from .pushdown.token_machine import warm_up
from .spec import Constraint
from .vocabulary import Vocabulary

_log = logging.getLogger(__name__)

_MOMENT: Final = 0.1  # seconds in the first lane
_THREADS: Final = 2  # in each lane
_HITS_BETWEEN_TRIMS: Final = 64


@dataclass(frozen=True)
class _Lane:
    """limits: of an attempt."""

    limits: CompileLimits
    threads: ThreadPoolExecutor


class GrammarCompiler:
    """Compiles constraints for one vocabulary; for any thread. Close it to end its threads.

    limits: of each single compilation; cache_size and cache_bytes: of the compiled grammars that
    are kept, least recently used out (see `GrammarCache`), and of the refusals of what passed the
    limits, for a minute each.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        limits: CompileLimits | None = None,
        cache_size: int = 256,
        cache_bytes: int = 256 << 20,
    ) -> None:
        if cache_size < 1:
            raise GrammarError(f"cache_size is at least 1, not {cache_size}")
        if cache_bytes < 1:
            raise GrammarError(f"cache_bytes is at least 1, not {cache_bytes}")
        self._vocabulary = vocabulary
        self._limits = limits or CompileLimits()
        self._cache = GrammarCache(cache_bytes, cache_size)
        self._hits = 0
        self._renewing: set[Constraint] = set()
        self._in_flight: dict[Constraint, Future[CompiledGrammar]] = {}
        self._lock = threading.Lock()
        moment = replace(self._limits, seconds=min(_MOMENT, self._limits.seconds))
        self._lanes = (_Lane(moment, _threads()), _Lane(self._limits, _threads()))
        self._closed = False
        self._lanes[1].threads.submit(warm_up, vocabulary)

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    def compile(self, spec: Constraint) -> CompiledGrammar:
        """The compiled grammar; raises GrammarError, which names what is wrong.

        What takes no longer than a moment is compiled in the caller's thread, for it waits anyway.
        Raises RuntimeError after `close`.
        """
        with self._lock:
            future, is_new = self._begin(spec)
        if is_new:
            self._run(spec, future, 0)
        return future.result()

    def submit(self, spec: Constraint) -> "Future[CompiledGrammar]":
        """A future of the compiled grammar; equal specs in flight share one, not to be cancelled.

        Its exception is a GrammarError. Raises RuntimeError after `close`.
        """
        with self._lock:
            future, is_new = self._begin(spec)
            if is_new:
                self._lanes[0].threads.submit(self._run, spec, future, 0)
            return future

    def _begin(self, spec: Constraint) -> "tuple[Future[CompiledGrammar], bool]":
        """The future of a spec, and whether it is for the caller to see to it."""
        if not isinstance(spec, Constraint):
            raise GrammarError(f"{spec!r} is not a constraint")
        if self._closed:
            raise RuntimeError("the grammar compiler is closed")
        if spec in self._in_flight:
            return self._in_flight[spec], False
        future: Future[CompiledGrammar] = Future()
        future.set_running_or_notify_cancel()
        known = self._cache.find(spec)
        if known is not None:
            self._hits += 1
            if self._hits % _HITS_BETWEEN_TRIMS == 0:
                self._lanes[1].threads.submit(self._cache.trim)
            future.set_result(known)
            return future, False
        refusal = self._cache.refusal(spec)
        if refusal is not None:
            future.set_exception(refusal)
            return future, False
        self._in_flight[spec] = future
        return future, True

    def close(self) -> None:
        """End the threads; what has not begun fails. May be called twice."""
        with self._lock:
            self._closed = True
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
            self._failed(spec, future, lane, error)
            return
        self._cache.keep(spec, grammar)
        with self._lock:
            if self._in_flight.pop(spec, None) is not future:
                return  # `close` has failed it
        future.set_result(grammar)

    def _failed(
        self, spec: Constraint, future: "Future[CompiledGrammar]", lane: int, error: BaseException
    ) -> None:
        """Hands it on to the next lane, where there is more time, or to those who wait."""
        is_limit = isinstance(error, LimitExceeded)
        with self._lock:
            if is_limit and self._lanes[lane].limits != self._limits and not self._closed:
                self._lanes[lane + 1].threads.submit(self._run, spec, future, lane + 1)
                return
            if isinstance(error, LimitExceeded):
                self._cache.refuse(spec, error)
            if self._in_flight.pop(spec, None) is not future:
                return
        future.set_exception(error)

    def _renew_later(self, grammar: CompiledGrammar) -> None:
        """Called by whoever starts a state: the work is a lane's."""
        with self._lock:
            if self._closed or grammar.spec in self._renewing:
                return
            self._renewing.add(grammar.spec)
            self._lanes[1].threads.submit(self._renew, grammar)

    def _renew(self, grammar: CompiledGrammar) -> None:
        try:
            grammar.renew()
        except LimitExceeded as error:  # the next one who starts on it asks again
            _log.warning("a constraint could not be renewed: %s", error)
        finally:
            with self._lock:
                self._renewing.discard(grammar.spec)
        self._cache.trim()

    def _compile(self, spec: Constraint, limits: CompileLimits) -> CompiledGrammar:
        program = lower(spec, limits)
        with described(spec):
            return CompiledGrammar(
                spec, program, self._vocabulary, limits.seconds, self._renew_later
            )


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="sapwood-grammar")
