"""Decides what each step computes and what its outcome means: queues, admission to pages,
preemption, finishing.

Owns: every Request, the order of service, and which pages a request holds. Knows no tensor and no
text: it hands out a frozen `Batch` and takes back a `StepResult`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..constrained import GrammarCompiler, GrammarError
from ..radix_cache import OutOfPages, PrefixCache, PrefixMatch
from .advance import Advancer
from .batch import Batch, PageCopy, PageWrite, Penalties, Sampling, Scoring, Span, StepResult
from .config import ScheduleOptions
from .errors import EngineError, InvalidRequest, SapwoodError
from .protocol import TokenLogprob
from .request import Request
from .waiting import WaitingQueue
from .wire import Failed, FromEngine, TokenChunk


@dataclass
class Counters:
    """Totals since the start. Written only by the Scheduler."""

    steps: int = 0
    computed_tokens: int = 0
    reused_tokens: int = 0
    forced_tokens: int = 0
    finished_requests: int = 0
    aborted_requests: int = 0
    preemptions: int = 0


@dataclass
class _Plan:
    """A batch under construction."""

    budget: int
    spans: dict[str, Span] = field(default_factory=dict)
    copies: dict[str, PageCopy] = field(default_factory=dict)

    def drop(self, request: Request) -> None:
        self.copies.pop(request.id, None)
        span = self.spans.pop(request.id, None)
        if span is not None:
            self.budget += len(span.token_ids)


class Scheduler:
    def __init__(
        self,
        cache: PrefixCache,
        compiler: GrammarCompiler,
        advancer: Advancer,
        options: ScheduleOptions,
        page_size: int,
        eos_ids: tuple[int, ...],
    ) -> None:
        self.counters = Counters()
        self._cache = cache
        self._compiler = compiler
        self._advancer = advancer
        self._options = options
        self._page_size = page_size
        self._eos_ids = eos_ids
        self._compiling: dict[str, Request] = {}
        self._waiting = WaitingQueue(cache, options.policy)
        self._running: dict[str, Request] = {}  # in order of arrival
        self._slots = list(reversed(range(options.max_running)))
        self._outbox: list[FromEngine] = []

    # --- requests come and go ---------------------------------------------------------------------

    @property
    def num_waiting(self) -> int:
        return len(self._waiting) + len(self._compiling)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._compiling or self._outbox or len(self._waiting))

    @property
    def only_compiling(self) -> bool:
        """Is there nothing to do until a grammar is compiled?"""
        return bool(self._compiling) and not (self._running or self._outbox or len(self._waiting))

    def submit(self, request: Request) -> None:
        constraint = request.sampling.constraint
        if constraint is None:
            self._waiting.add(request)
            return
        request.compiling = self._compiler.submit(constraint)
        self._compiling[request.id] = request

    def abort(self, request_id: str) -> None:
        """Forget a request and free what it holds. Unknown ids are ignored: it may just have
        finished."""
        request = self._find(request_id)
        if request is not None:
            self.counters.aborted_requests += 1
            self._drop(request)

    def fail(self, request: Request, error: Exception) -> None:
        """End a request with an error; its neighbours go on."""
        self._drop(request)
        self._outbox.append(Failed(request.id, error))

    def _find(self, request_id: str) -> Request | None:
        if request_id in self._compiling:
            return self._compiling[request_id]
        if request_id in self._running:
            return self._running[request_id]
        return next((request for request in self._waiting if request.id == request_id), None)

    def _drop(self, request: Request) -> None:
        """Take a request out of whichever place it is in."""
        if self._compiling.pop(request.id, None) is not None:
            return
        if request.id in self._running:
            self._leave(request)
        else:
            self._waiting.remove(request)

    # --- schedule ---------------------------------------------------------------------------------

    def schedule(self) -> Batch:
        """Plan one step: running requests first (oldest first), then as many waiting ones as fit.
        May be empty."""
        self._collect_grammars()
        plan = _Plan(self._options.token_budget)
        for request in list(self._running.values()):
            if request.slot is not None and plan.budget > 0:
                self._extend(plan, request)
        if len(self._waiting):
            self._admit_waiting(plan)
        writes = [write for id in plan.spans for write in self._page_writes(self._running[id])]
        return Batch(tuple(plan.spans.values()), tuple(plan.copies.values()), tuple(writes))

    def _collect_grammars(self) -> None:
        for request in list(self._compiling.values()):
            if request.compiling is None or not request.compiling.done():
                continue
            error = request.compiling.exception()
            if error is not None:
                self.fail(request, _grammar_failure(error))
                continue
            compiled = request.compiling.result()
            if compiled.shortest > request.max_tokens > 0:
                message = (
                    f"max_tokens: {request.max_tokens}, but the shortest output of the constraint "
                    f"has {compiled.shortest} tokens"
                )
                self.fail(request, InvalidRequest(message, field="max_tokens"))
                continue
            del self._compiling[request.id]
            request.grammar = compiled.start()
            self._waiting.add(request)
            if self._guard(request, self._advancer.begin, request):
                self.counters.forced_tokens += request.num_forced

    def _extend(self, plan: _Plan, request: Request) -> None:
        """Plan the next tokens of a running request, preempting younger ones if pages run out."""
        count = min(request.target - request.num_computed, plan.budget)
        if count <= 0:
            return
        needed = self._num_pages(request.num_computed + count) - len(request.pages)
        while needed > 0:
            try:
                request.pages += self._cache.allocate(needed)
                break
            except OutOfPages:
                victim = next(reversed(self._running.values()))
                self._preempt(plan, victim)
                if victim is request:
                    return
        self._plan_span(plan, request, count)

    def _admit_waiting(self, plan: _Plan) -> None:
        for request in self._waiting.ordered():
            if plan.budget <= 0 or not self._slots:
                return
            if self._waiting.is_held(request, self._running.values(), self._page_size):
                continue
            if not self._admit(plan, request):
                return

    def _admit(self, plan: _Plan, request: Request) -> bool:
        """Lock its prefix, take pages for its first chunk, and let it run. False: there is no room
        yet."""
        namespace = request.wire.namespace
        lease = self._cache.acquire(request.tokens[: request.match_limit], namespace)
        if self._running and not self._has_room(request, len(lease.pages)):
            self._cache.release(lease)
            return False
        pages = self._first_pages(request, lease, plan.budget)
        if pages is None and lease.partial is not None:
            # The page that a partial match is to be copied from may itself be the one that is
            # missing.
            self._cache.release(lease)
            whole = lease.num_tokens // self._page_size * self._page_size
            lease = self._cache.acquire(request.tokens[:whole], namespace)
            pages = self._first_pages(request, lease, plan.budget)
        if pages is None:
            self._cache.release(lease)
            return False
        self._waiting.admitted(request)
        if lease.partial is not None and pages:
            plan.copies[request.id] = PageCopy(lease.partial.source, pages[0])
        request.slot = self._slots.pop()
        request.lease = lease
        request.pages = [*lease.pages, *pages]
        request.num_tree_pages = len(lease.pages)
        request.num_written_pages = 0
        request.num_computed = lease.num_tokens
        if request.cached_tokens is None:
            request.cached_tokens = min(lease.num_tokens, request.prompt_len)
            self.counters.reused_tokens += lease.num_tokens
        self._run(request)
        count = min(request.target - request.num_computed, plan.budget)
        if count > 0:
            self._plan_span(plan, request, count)
        else:
            self._settle(request)
        return True

    def _first_pages(self, request: Request, lease: PrefixMatch, budget: int) -> list[int] | None:
        """Pages for the first chunk after a match; None when there are not enough."""
        count = min(request.target - lease.num_tokens, budget)
        if count <= 0:
            return []
        try:
            return self._cache.allocate(
                self._num_pages(lease.num_tokens + count) - len(lease.pages)
            )
        except OutOfPages:
            return None

    def _has_room(self, request: Request, num_matched: int) -> bool:
        """Room for all its tokens so far and a page of growth for everyone: otherwise it would only
        be preempted."""
        available = self._cache.num_free + self._cache.num_evictable
        return (
            self._num_pages(len(request.tokens) + 1) - num_matched + len(self._running) <= available
        )

    def _run(self, request: Request) -> None:
        """Enter the running requests, which stay in order of arrival."""
        younger = [other for other in self._running.values() if other.arrival > request.arrival]
        self._running[request.id] = request
        for other in younger:
            self._running[other.id] = self._running.pop(other.id)

    def _preempt(self, plan: _Plan, request: Request) -> None:
        """Give back its pages and let it wait again; what it computed stays in the tree as long as
        there is room."""
        assert request.lease is not None
        plan.drop(request)
        self._cache.release(request.lease)
        self._cache.free(request.pages[request.num_tree_pages :])
        self._displace(request)
        request.num_preemptions += 1
        self.counters.preemptions += 1
        self._waiting.add(request)

    def _displace(self, request: Request) -> None:
        """It no longer runs: no slot, no pages."""
        assert request.slot is not None
        del self._running[request.id]
        self._slots.append(request.slot)
        request.slot = None
        request.lease = None
        request.pages = []
        request.num_tree_pages = 0
        request.num_computed = 0

    def _num_pages(self, num_tokens: int) -> int:
        return -(-num_tokens // self._page_size)

    def _page_writes(self, request: Request) -> list[PageWrite]:
        assert request.slot is not None
        first = request.num_written_pages
        request.num_written_pages = len(request.pages)
        if first == len(request.pages):
            return []
        return [PageWrite(request.slot, first, tuple(request.pages[first:]))]

    # --- spans ------------------------------------------------------------------------------------

    def _plan_span(self, plan: _Plan, request: Request, count: int) -> None:
        assert request.slot is not None
        start, end = request.num_computed, request.num_computed + count
        is_last = end == len(request.tokens) and request.finish is None
        options = request.wire.logprobs
        plan.spans[request.id] = Span(
            request_id=request.id,
            slot=request.slot,
            token_ids=np.array(request.tokens[start:end], dtype=np.int32),
            start=start,
            sampling=self._sampling(request) if is_last else None,
            scoring=_scoring(request, start, end),
            top_logprobs=options.top if options is not None else 0,
        )
        plan.budget -= count

    def _sampling(self, request: Request) -> Sampling:
        params = request.sampling
        early = request.num_output < params.min_tokens
        return Sampling(
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            stream=request.wire.stream,
            position=request.num_output,
            logit_bias=params.logit_bias,
            banned=tuple(sorted(request.stop_ids | set(self._eos_ids))) if early else (),
            penalties=_penalties(request),
            grammar=request.grammar,
            budget=request.max_tokens - request.num_output,
            report=request.wire.logprobs is not None,
        )

    # --- commit -----------------------------------------------------------------------------------

    def commit(self, batch: Batch, result: StepResult) -> list[FromEngine]:
        """Take in a step's outcome: tokens, ends, pages for the tree. Returns what callers are to
        hear, in order."""
        self.counters.steps += 1
        self.counters.computed_tokens += batch.num_tokens
        for span, outcome in zip(batch.spans, result.spans, strict=True):
            request = self._running.get(span.request_id)
            if request is None:
                continue  # aborted in flight
            request.num_computed = span.end
            request.scored.extend(outcome.scored)
            self._commit_pages(request)
            if outcome.token is not None:
                if outcome.logprob is not None:
                    request.scored.append(outcome.logprob)
                forced = request.num_forced
                if not self._guard(request, self._advancer.append, request, outcome.token):
                    continue
                self.counters.forced_tokens += request.num_forced - forced
            self._settle(request)
        return self.take_outbox()

    def take_outbox(self) -> list[FromEngine]:
        outbox, self._outbox = self._outbox, []
        return outbox

    def _guard(self, request: Request, step: Callable[..., None], *arguments: object) -> bool:
        """Run one request's own business; an error in it ends this request alone."""
        try:
            step(*arguments)
        except SapwoodError as error:
            self.fail(request, error)
            return False
        return True

    def _commit_pages(self, request: Request) -> None:
        """Give the pages that are now full to the tree, so that others can use them at once."""
        num_full = request.num_computed // self._page_size
        if num_full <= request.num_tree_pages:
            return
        assert request.lease is not None
        before = request.pages
        tokens = request.tokens[: request.num_computed]
        request.lease, request.pages = self._cache.commit(request.lease, tokens, before)
        request.num_tree_pages = num_full
        changed = next(
            (
                i
                for i, (old, new) in enumerate(zip(before, request.pages, strict=True))
                if old != new
            ),
            None,
        )
        if changed is not None:
            request.num_written_pages = min(request.num_written_pages, changed)

    def _settle(self, request: Request) -> None:
        """Report what is new; let the request go if it is done."""
        done = request.is_done
        ready = request.num_ready
        if ready > request.num_reported or done:
            self._report(request, ready, done)
        if done:
            self.counters.finished_requests += 1
            self._leave(request)

    def _report(self, request: Request, ready: int, done: bool) -> None:
        first, start = request.num_reported, request.prompt_len
        request.num_reported = ready
        options = request.wire.logprobs
        logprobs: tuple[TokenLogprob, ...] = ()
        prompt_logprobs = None
        if options is not None:
            offset = start - request.score_start
            logprobs = tuple(request.scored[offset + first : offset + ready])
            if options.start >= 0 and first == 0:
                prompt_logprobs = tuple(request.scored[:offset])
        self._outbox.append(
            TokenChunk(
                id=request.id,
                token_ids=tuple(request.tokens[start + first : start + ready]),
                usage=request.usage(),
                logprobs=logprobs,
                prompt_logprobs=prompt_logprobs,
                finish=request.finish if done else None,
                cut=request.cut if done else None,
            )
        )

    def _leave(self, request: Request) -> None:
        """A running request ends: everything that it computed stays in the tree, unlocked."""
        assert request.lease is not None
        if request.num_computed > len(request.pages) * self._page_size:
            # All of it was found in the tree, and the partly matching page was never copied.
            self._cache.release(request.lease)
        else:
            computed = request.tokens[: request.num_computed]
            self._cache.finish(request.lease, computed, request.pages)
        self._displace(request)

    def check_integrity(self) -> None:
        """Assert that slots, pages and queues agree. For tests and for idle moments."""
        slots = [request.slot for request in self._running.values()]
        assert sorted([*self._slots, *(slot for slot in slots if slot is not None)]) == list(
            range(self._options.max_running)
        ), "every slot is free or taken by exactly one running request"
        owned = sum(len(r.pages) - r.num_tree_pages for r in self._running.values())
        assert owned == self._cache.num_owned, (
            f"{owned} pages owned by requests, {self._cache.num_owned} by the cache"
        )
        self._cache.check_integrity()


def _scoring(request: Request, start: int, end: int) -> Scoring | None:
    """The rows start..end-1 that predict known tokens whose log-probabilities are wanted."""
    first = max(start, request.next_score - 1)
    last = min(end, len(request.tokens) - 1)
    if request.wire.logprobs is None or first >= last:
        return None
    return Scoring(first, np.array(request.tokens[first + 1 : last + 1], dtype=np.int32))


def _penalties(request: Request) -> Penalties | None:
    params = request.sampling
    if not (
        params.frequency_penalty or params.presence_penalty or params.repetition_penalty != 1.0
    ):
        return None
    return Penalties(
        output=np.array(request.tokens[request.prompt_len :], dtype=np.int32),
        prompt=np.array(request.tokens[: request.prompt_len], dtype=np.int32),
        frequency=params.frequency_penalty,
        presence=params.presence_penalty,
        repetition=params.repetition_penalty,
    )


def _grammar_failure(error: BaseException) -> Exception:
    """A grammar that cannot be compiled is the request's fault; anything else the engine's."""
    if isinstance(error, GrammarError):
        return InvalidRequest(f"constraint: {error}", field="constraint")
    return EngineError(f"compiling the constraint failed: {error!r}")
