"""Decides what each step computes and what its outcome means: admission, preemption, the end.

Owns: every Request and the order of service. Knows no tensor and no text: it hands out a frozen
`Batch` and takes back a `StepResult`. Pages and slots are `placement`'s, output is `advance`'s.
"""

import logging
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..constrained import GrammarCompiler, GrammarError
from ..radix_cache import PrefixCache
from .advance import Advancer
from .batch import UNDECIDED, Batch, Draws, PageCopy, Sampling, Span, SpanResult, StepResult
from .config import ScheduleOptions
from .errors import EngineError, InvalidRequest, OutOfMemory, SapwoodError
from .flights import Flights
from .placement import Placement
from .protocol import TokenLogprob
from .request import Request
from .spans import decide, make_span
from .speculation import Draft, Speculator
from .waiting import WaitingQueue
from .wire import Failed, FromEngine, TokenChunk

_log = logging.getLogger(__name__)


@dataclass
class Counters:
    """Totals since the start. Written only by the Scheduler."""

    steps: int = 0
    computed_tokens: int = 0
    reused_tokens: int = 0
    forced_tokens: int = 0
    drafted_tokens: int = 0  # guesses computed along
    accepted_tokens: int = 0  # of these, the ones that proved right
    finished_requests: int = 0
    aborted_requests: int = 0
    preemptions: int = 0


@dataclass
class _Plan:
    """A batch under construction. `budget`: tokens that the step may still compute; `parts`: how
    many of each request's next tokens it computes."""

    budget: int
    parts: list[tuple[Request, int]] = field(default_factory=list)
    copies: list[PageCopy] = field(default_factory=list)


class Scheduler:
    def __init__(
        self,
        cache: PrefixCache,
        compiler: GrammarCompiler,
        advancer: Advancer,
        options: ScheduleOptions,
        eos_ids: tuple[int, ...],
        row_cost: float,
        *,
        overlaps: bool,
    ) -> None:
        """`row_cost`: see `speculation`; `overlaps`: see `Runner`."""
        self.counters = Counters()
        self._compiler = compiler
        self._advancer = advancer
        self._speculator = Speculator(
            advancer, options.max_drafts, row_cost, least_gain=1.0 if overlaps else 0.0
        )
        assert options.token_budget is not None, "the schedule was resolved"
        self._token_budget = options.token_budget
        self._eos_ids = eos_ids
        self._placement = Placement(cache, options.max_running)
        self._compiling: dict[str, Request] = {}
        self._waiting = WaitingQueue(cache, options.policy)
        self._running: dict[str, Request] = {}  # in order of arrival
        self._flights = Flights()
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

    def _fail(self, request: Request, error: Exception) -> None:
        """End a request with an error; its neighbours go on."""
        self._drop(request)
        self._outbox.append(Failed(request.id, error))

    def _find(self, request_id: str) -> Request | None:
        for place in (self._compiling, self._running, self._waiting):
            if request_id in place:
                return place[request_id]
        return None

    def _drop(self, request: Request) -> None:
        """Take a request out of whichever place it is in."""
        if self._compiling.pop(request.id, None) is not None:
            return
        if request.id in self._running:
            self._leave(request)
        else:
            self._waiting.remove(request)

    def _leave(self, request: Request) -> None:
        del self._running[request.id]
        self._flights.forget(request)
        self._placement.leave(request)

    # --- schedule ---------------------------------------------------------------------------------

    def schedule(self) -> Batch:
        """Plan one step: running requests first (oldest first), then as many waiting ones as fit.

        May be empty; with a step in flight that only says that this one must be committed first.
        """
        self._collect_grammars()
        if self._flights and self._lands_first():
            return Batch(())
        plan = _Plan(self._token_budget)
        for request in list(self._running.values()):
            if request.slot is None or plan.budget <= 0:
                continue
            if not self._extend(plan, request):
                return Batch(())
        self._admit_waiting(plan)
        drafts = self._draft(plan)
        spans = tuple(
            make_span(request, count, self._eos_ids, drafts.get(request.id, ()))
            for request, count in plan.parts
        )
        for request, count in plan.parts:
            request.num_launched += count
        writes = [
            write for request, _ in plan.parts for write in self._placement.page_writes(request)
        ]
        if spans:
            self._flights.launch([request for request, _ in plan.parts], has_drafts=bool(drafts))
        return Batch(spans, tuple(plan.copies), tuple(writes))

    def _lands_first(self) -> bool:
        """Is more to be had by waiting for the step in flight than by planning while it flies?"""
        if not self._flights.may_be_followed:
            return True
        drawing = [
            request
            for request in self._running.values()
            if request.is_drawing and request.tentative is None
        ]
        return self._speculator.expects(drawing)

    def draws(self, batch: Batch) -> Draws:
        """How to choose the tokens of the step that was planned last, asked after the one before it
        was committed: only then are the tokens known that some of its spans awaited."""
        return [
            self._decide(span)
            if span.samplings and span.samplings[0] is UNDECIDED
            else span.samplings
            for span in batch.spans
        ]

    def _decide(self, span: Span) -> tuple[Sampling, ...]:
        request = self._flights.latest.get(span.request_id)
        return decide(request, span, self._eos_ids) if request is not None else ()

    def _collect_grammars(self) -> None:
        for request in list(self._compiling.values()):
            if request.compiling is None or not request.compiling.done():
                continue
            error = request.compiling.exception()
            if error is not None:
                self._fail(request, _grammar_failure(error))
                continue
            compiled = request.compiling.result()
            if compiled.shortest > request.max_tokens > 0:
                message = (
                    f"max_tokens: {request.max_tokens}, but the shortest output of the constraint "
                    f"has {compiled.shortest} tokens"
                )
                self._fail(request, InvalidRequest(message, field="max_tokens"))
                continue
            del self._compiling[request.id]
            try:
                request.grammar = compiled.start()
            except GrammarError as refused:
                self._fail(request, _grammar_failure(refused))
                continue
            self._waiting.add(request)
            if self._guard(request, self._advancer.begin, request):
                self.counters.forced_tokens += request.num_forced

    def _extend(self, plan: _Plan, request: Request) -> bool:
        """Plan the next tokens of a running request, preempting younger ones if pages run out.

        False, with nothing planned, where they do and a step is in flight: its end may give pages
        back, and what it computes of the others is not to be lost.
        """
        count = min(request.target - request.num_launched, plan.budget)
        if count <= 0:
            if not (request.is_drawing and request.may_follow):
                return True
            count = 1  # the token that is being drawn
        while not self._placement.grow(request, request.num_launched + count):
            if self._flights:
                return False
            victim = next(reversed(self._running.values()))  # not planned yet: we go by age
            self._preempt(victim)
            if victim is request:
                return True
        self._plan(plan, request, count)
        return True

    def _plan(self, plan: _Plan, request: Request, count: int) -> None:
        plan.parts.append((request, count))
        plan.budget -= count

    def _draft(self, plan: _Plan) -> dict[str, tuple[Draft, ...]]:
        """Guesses to compute along, with what the step has left: they displace nobody."""
        drawing = [
            request
            for request, count in plan.parts
            if request.finish is None and request.num_launched + count == len(request.tokens)
        ]
        found: dict[str, tuple[Draft, ...]] = {}
        for request in drawing:
            drafts = _tentative(request, plan.budget)
            if self._fits(request, drafts):
                found[request.id] = drafts
                plan.budget -= len(drafts)
        if self._flights:  # others draw after what isn't known yet: their step is to be followed
            return found
        free = [request for request in drawing if request.tentative is None]
        chosen = self._speculator.choose(free, plan.budget)
        for request, drafts in zip(free, chosen, strict=True):
            if self._fits(request, drafts):
                found[request.id] = drafts
        return found

    def _fits(self, request: Request, drafts: Sequence[Draft]) -> bool:
        room = len(request.tokens) + len(drafts)
        return bool(drafts) and self._placement.grow(request, room)

    def _preempt(self, request: Request) -> None:
        """Let it wait again; what it computed stays in the tree as long as there is room."""
        self._leave(request)
        request.num_preemptions += 1
        self.counters.preemptions += 1
        self._waiting.add(request)

    def _admit_waiting(self, plan: _Plan) -> None:
        if not len(self._waiting) or plan.budget <= 0 or not self._placement.has_slot:
            return
        for request in self._waiting.ordered():
            if plan.budget <= 0 or not self._placement.has_slot:
                return
            if self._waiting.is_held(request, self._running.values()):
                continue
            if not self._placement.place(request, plan.budget, len(self._running)):
                return
            self._waiting.admitted(request)
            self._run(request)
            self._begin(plan, request)

    def _run(self, request: Request) -> None:
        """Enter the running requests, which stay in order of arrival."""
        younger = [other for other in self._running.values() if other.arrival > request.arrival]
        self._running[request.id] = request
        for other in younger:
            self._running[other.id] = self._running.pop(other.id)

    def _begin(self, plan: _Plan, request: Request) -> None:
        """The first chunk of a request that was just placed."""
        if request.cached_tokens is None:
            request.cached_tokens = min(request.num_computed, request.prompt_len)
            self.counters.reused_tokens += request.num_computed
        count = min(request.target - request.num_computed, plan.budget)
        if count <= 0:  # nothing is left to compute
            self._settle(request)
            return
        copy = self._placement.page_copy(request)
        if copy is not None:
            plan.copies.append(copy)
        self._plan(plan, request, count)

    # --- commit -----------------------------------------------------------------------------------

    def commit(self, batch: Batch, result: StepResult) -> list[FromEngine]:
        """Take in the outcome of the oldest step in flight: tokens, ends, pages for the tree.
        Returns what callers are to hear, in order."""
        self.counters.steps += 1
        requests = self._flights.land()
        for span, outcome in zip(batch.spans, result.spans, strict=True):
            drafts = span.drafts
            known_end = span.end - len(drafts)
            self.counters.computed_tokens += known_end - span.start
            request = requests.get(span.request_id)
            if request is None:
                continue  # it ended while this was in flight
            if outcome.error is not None:
                self._take_failure(request, span, outcome.error)
                continue
            request.num_computed = known_end
            request.scored.extend(outcome.scored)
            request.num_probed += max(known_end - request.next_probe, 0)
            if not self._append(request, drafts, outcome):
                continue
            if request.num_launched < request.num_computed:  # drafts proved right
                request.num_launched = request.num_computed
            self._placement.commit(request)
            if drafts:
                self._placement.trim(request)
            self._settle(request)
        return self.take_outbox()

    def _take_failure(self, request: Request, span: Span, error: Exception) -> None:
        """Of its step. Where only memory was short it is tried again, later and in smaller steps:
        what one step of the largest size could not have, none should ask for."""
        if isinstance(error, OutOfMemory) and len(span.token_ids) > 1:
            self._token_budget = max(min(self._token_budget, len(span.token_ids)) // 2, 1)
            self._preempt(request)
            return
        del self._running[request.id]
        self._flights.forget(request)
        self._placement.discard(request)
        failure = EngineError(f"computing this request failed: {error!r}")
        self._outbox.append(Failed(request.id, failure))

    def _append(self, request: Request, drafts: "array[int]", outcome: SpanResult) -> bool:
        """Append the tokens drawn, as long as all that stands before each of them is what was
        computed before it. False when the request failed."""
        forced = request.num_forced
        num_tentative = len(request.tentative.ids) if request.tentative is not None else 0
        self.counters.drafted_tokens += max(len(drafts) - num_tentative, 0)
        for number, token in enumerate(outcome.tokens):
            if request.reports(token):
                request.scored.extend(outcome.logprobs[number : number + 1])
            if not self._guard(request, self._advancer.append, request, token):
                return False
            if number == len(drafts) or token != drafts[number]:
                break
            if len(request.tokens) > request.num_computed + 1:  # something was forced after it
                break
            if request.finish is not None:  # the last token of an output is never computed
                break
            request.num_computed += 1
            self.counters.computed_tokens += 1
            self.counters.accepted_tokens += number >= num_tentative
        self.counters.forced_tokens += request.num_forced - forced
        return True

    def take_outbox(self) -> list[FromEngine]:
        outbox, self._outbox = self._outbox, []
        return outbox

    def _guard(self, request: Request, step: Callable[..., None], *arguments: object) -> bool:
        """Run one request's own business; an error in it ends this request alone."""
        try:
            step(*arguments)
        except SapwoodError as error:
            self._fail(request, error)
            return False
        except GrammarError as error:  # its constraint turned out to be too much work
            self._fail(request, _grammar_failure(error))
            return False
        except Exception as error:
            _log.exception("request %s failed", request.id)
            self._fail(request, EngineError(f"this request failed: {error!r}"))
            return False
        return True

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
        if request.wire.probe is not None:
            prompt_logprobs = tuple(request.scored)
        self._outbox.append(
            TokenChunk(
                request.id,
                tuple(request.tokens[start + first : start + ready]),
                request.usage(),
                logprobs,
                prompt_logprobs,
                request.finish if done else None,
                request.cut if done else None,
            )
        )

    def check_integrity(self) -> None:
        """Assert that slots, pages and queues agree. For tests and for idle moments."""
        self._placement.check_integrity(self._running.values())


def _tentative(request: Request, room: int) -> tuple[Draft, ...]:
    """The prompt's tentative tokens, which mostly prove right."""
    if request.tentative is None or len(request.tentative.ids) > room:
        return ()
    return tuple(Draft(token, request.grammar) for token in request.tentative.ids)


def _grammar_failure(error: BaseException) -> Exception:
    """A grammar that cannot be compiled is the request's fault; anything else the engine's."""
    if isinstance(error, GrammarError):
        return InvalidRequest(f"constraint: {error}", field="constraint")
    return EngineError(f"compiling the constraint failed: {error!r}")
