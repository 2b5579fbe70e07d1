"""Random interleavings against a naive model: a dict from each cached prefix to its page.

The model keeps one entry per page, not per edge; it scans everything, so that it can be read at a
glance. A simulated KV store holds, for each slot of each page, the tokens whose KV was written
there: sharing a wrong page, or writing one that somebody else reads, shows at once.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sapwood.radix_cache import OutOfPages, PrefixCache, PrefixMatch

Tokens = tuple[int, ...]
Key = tuple[str, Tokens]  # namespace, all tokens up to the end of the page

NAMESPACES = ("", "other")


@dataclass(eq=False)
class Request:
    namespace: str
    tokens: Tokens
    lease: PrefixMatch
    pages: list[int]
    computed: int
    held: list[Key]  # what the model has under the lease's lock, shallowest first
    source: Key | None


@dataclass
class Entry:
    page: int
    last_use: int


def common(a: Tokens, b: Tokens) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


class CacheMachine(RuleBasedStateMachine):
    page_size: int
    num_pages: int

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache(self.num_pages, self.page_size)
        self.entries: dict[Key, Entry] = {}
        self.requests: list[Request] = []
        self.raw: list[int] = []
        self.kv: dict[tuple[int, int], Key] = {}
        self.clock = 0
        self.past: list[Tokens] = [()]

    # The model.

    def parent(self, key: Key) -> Tokens:
        return key[1][: (len(key[1]) - 1) // self.page_size * self.page_size]

    def longest(self, namespace: str, tokens: Tokens) -> int:
        return max((common(t, tokens) for n, t in self.entries if n == namespace), default=0)

    def locked(self, key: Key) -> bool:
        return any(key in r.held or key == r.source for r in self.requests)

    def evictable(self) -> list[Key]:
        return [key for key in self.entries if not self.locked(key)]

    def use(self, key: Key) -> None:
        self.clock += 1
        self.entries[key].last_use = self.clock

    def unlock(self, request: Request, path: bool) -> None:
        """End the lock on the partial page, and on the path if `path`: deepest page first."""
        ended = [request.source] if request.source else []
        request.source = None
        if path:
            ended += reversed(request.held)
            request.held = []
        for key in ended:
            if not self.locked(key):
                self.use(key)

    def supersede(self, key: Key) -> None:
        """Drop the unlocked tail pages whose tokens all lead those of `key`."""
        for other in self.evictable():
            partly = len(other[1]) % self.page_size != 0
            shorter = other[0] == key[0] and key[1][: len(other[1])] == other[1]
            if partly and shorter and self.parent(other) == self.parent(key):
                del self.entries[other]

    def evict(self, count: int) -> set[int]:
        pages = set()
        for _ in range(count):
            oldest = min(self.evictable(), key=lambda key: self.entries[key].last_use)
            assert not any(
                n == oldest[0] and self.parent((n, t)) == oldest[1] for n, t in self.entries
            )
            pages.add(self.entries.pop(oldest).page)
        return pages

    def owned(self) -> list[int]:
        own = [page for r in self.requests for page in r.pages[len(r.lease.pages) :]]
        return own + self.raw

    def free(self) -> set[int]:
        taken = {entry.page for entry in self.entries.values()} | set(self.owned())
        return set(range(self.num_pages)) - taken

    # What a runner does.

    def copied(self, request: Request) -> bool:
        partial = request.lease.partial
        return partial is None or len(request.pages) > len(request.lease.pages)

    def write(self, request: Request, position: int) -> None:
        page, slot = request.pages[position // self.page_size], position % self.page_size
        assert page not in {entry.page for entry in self.entries.values()}, (
            "a cached page is written"
        )
        self.kv[page, slot] = (request.namespace, request.tokens[: position + 1])

    def allocate(self, count: int) -> list[int] | None:
        free, evictable = self.free(), len(self.evictable())
        if count > len(free) + evictable:
            with pytest.raises(OutOfPages) as error:
                self.cache.allocate(count)
            assert (error.value.wanted, error.value.available) == (count, len(free) + evictable)
            return None
        pages = self.cache.allocate(count)
        evicted = self.evict(max(count - len(free), 0))
        assert len(set(pages)) == count and set(pages) <= free | evicted
        for page in pages:
            for slot in range(self.page_size):
                self.kv.pop((page, slot), None)
        return pages

    # Rules.

    def draw_tokens(self, data: Any) -> Tokens:
        base = data.draw(st.sampled_from(self.past), label="begins like")
        # Whole, so that twins run and finished requests go on; or cut, so that paths diverge.
        whole = st.just(len(base))
        kept = base[: data.draw(whole | whole | st.integers(0, len(base)), label="kept")]
        count = data.draw(st.just(0) | st.integers(0, 2 * self.page_size + 2), label="more")
        bits = data.draw(st.integers(0, 2**count - 1), label="more tokens")
        more = (bits >> i & 1 for i in range(count))
        return (*kept, *more)[: self.num_pages * self.page_size // 2]

    def draw_request(self, data: Any) -> Request:
        place: int = data.draw(st.integers(0, len(self.requests) - 1), label="request")
        return self.requests[place]

    @initialize(data=st.data())
    def first(self, data: Any) -> None:
        self.new_request(data, "")

    @rule(data=st.data(), namespace=st.sampled_from(NAMESPACES))
    def admit(self, data: Any, namespace: str) -> None:
        self.new_request(data, namespace)

    def new_request(self, data: Any, namespace: str) -> Request:
        tokens = (*self.draw_tokens(data), 0)
        expected = self.longest(namespace, tokens[:-1])
        assert self.cache.peek(tokens[:-1], namespace) == expected
        lease = self.cache.acquire(tokens[:-1], namespace)
        assert lease.num_tokens == expected
        full, rest = divmod(expected, self.page_size)
        held = [(namespace, tokens[: (i + 1) * self.page_size]) for i in range(full)]
        assert list(lease.pages) == [self.entries[key].page for key in held]
        source = None
        if rest:
            assert lease.partial is not None and lease.partial.num_tokens == rest
            (source,) = (k for k, e in self.entries.items() if e.page == lease.partial.source)
            assert source[0] == namespace and source[1][:expected] == tokens[:expected]
            assert len(self.parent(source)) == full * self.page_size
        else:
            assert lease.partial is None
        request = Request(namespace, tokens, lease, list(lease.pages), expected, held, source)
        self.requests.append(request)
        self.past.append(tokens)
        return request

    @rule(data=st.data())
    def serve(self, data: Any) -> None:
        """A whole life in one step, so that the tree fills."""
        request = self.new_request(data, "")
        self.compute(request, data.draw(st.integers(0, self.page_size), label="generated"))
        self.finish_request(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), count=st.integers(0, 3))
    def grow(self, data: Any, count: int) -> None:
        self.grow_request(self.draw_request(data), count)

    def grow_request(self, request: Request, count: int) -> None:
        copied, partial = self.copied(request), request.lease.partial
        request.pages += self.allocate(count) or []
        if partial is not None and not copied and self.copied(request):
            target = request.pages[len(request.lease.pages)]
            for slot in range(partial.num_tokens):
                self.kv[target, slot] = self.kv[partial.source, slot]

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), chunk=st.integers(0, 40), beyond=st.integers(0, 20))
    def step(self, data: Any, chunk: int, beyond: int) -> None:
        """A chunk of prefill or some tokens of decode, then a commit."""
        request = self.draw_request(data)
        self.compute(request, beyond, chunk)
        self.commit_request(request)

    def compute(self, request: Request, beyond: int, chunk: int = 1000) -> None:
        """Write the KV of up to `chunk` more tokens, `beyond` of them generated."""
        left = len(request.tokens) - request.computed
        if chunk >= left:
            # By position alone: twins generate the same.
            start = len(request.tokens)
            request.tokens += tuple(i % 3 % 2 for i in range(start, start + beyond))
        end = min(request.computed + chunk, len(request.tokens))
        self.grow_request(request, max(-(-end // self.page_size) - len(request.pages), 0))
        end = min(end, len(request.pages) * self.page_size)
        for position in range(request.computed, end):
            self.write(request, position)
        request.computed = max(end, request.computed)

    def commit_request(self, request: Request) -> None:
        known = self.finish_copy(request)
        spent, before = request.lease, request.pages
        request.lease, request.pages = self.cache.commit(spent, request.tokens[:known], before)
        self.unlock(request, path=False)
        self.model_commit(request, known, before)
        assert request.lease.num_tokens == known // self.page_size * self.page_size
        assert request.lease.pages == tuple(request.pages[: known // self.page_size])
        assert request.lease.partial is None
        assert len(request.pages) == len(before)
        self.refuse(spent)

    def finish_copy(self, request: Request) -> int:
        """A request without a page for its copy forgets the partial match."""
        if not self.copied(request):
            request.computed = len(request.lease.pages) * self.page_size
        return request.computed

    def model_commit(self, request: Request, known: int, pages: list[int]) -> None:
        request.held = []
        for place in range(known // self.page_size):
            key = (request.namespace, request.tokens[: (place + 1) * self.page_size])
            if key not in self.entries:
                self.supersede(key)
                self.entries[key] = Entry(pages[place], -1)  # locked: its use ends later
            request.held.append(key)
            # A finished request's pages are checked by the entries' own KV.
            assert request not in self.requests or request.pages[place] == self.entries[key].page

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def commit(self, data: Any) -> None:
        self.commit_request(self.draw_request(data))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        self.finish_request(self.draw_request(data))

    def finish_request(self, request: Request) -> None:
        known = self.finish_copy(request)
        self.requests.remove(request)
        self.cache.finish(request.lease, request.tokens[:known], request.pages)
        self.unlock(request, path=False)
        # While the tail enters, the path is still locked: only the tail pages are superseded.
        self.model_commit(request, known, request.pages)
        key = (request.namespace, request.tokens[:known])
        if known % self.page_size:
            covered = any(
                other[0] == key[0]
                and other[1][:known] == key[1]
                and self.parent(other) == self.parent(key)
                for other in self.entries
            )
            if not covered:
                self.supersede(key)
                self.entries[key] = Entry(request.pages[known // self.page_size], 0)
                self.use(key)
        self.unlock(request, path=True)
        self.past.append(request.tokens[:known])
        self.refuse(request.lease)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def abort(self, data: Any) -> None:
        request = self.draw_request(data)
        self.requests.remove(request)
        self.cache.release(request.lease)
        self.cache.free(request.pages[len(request.lease.pages) :])
        self.unlock(request, path=True)
        self.refuse(request.lease)

    def refuse(self, spent: PrefixMatch) -> None:
        with pytest.raises(AssertionError, match="spent"):
            self.cache.release(spent)

    @rule(count=st.integers(0, 6))
    def take(self, count: int) -> None:
        self.raw += self.allocate(count) or []

    @precondition(lambda self: self.raw)
    @rule(data=st.data())
    def give_back(self, data: Any) -> None:
        cut = data.draw(st.integers(0, len(self.raw) - 1))
        self.cache.free(self.raw[cut:])
        del self.raw[cut:]

    @rule()
    def evict_all(self) -> None:
        count = len(self.evictable())
        assert self.cache.evict_all() == count
        self.evict(count)

    @rule(data=st.data(), namespace=st.sampled_from(NAMESPACES))
    def peek(self, data: Any, namespace: str) -> None:
        tokens = self.draw_tokens(data)
        assert self.cache.peek(tokens, namespace) == self.longest(namespace, tokens)

    # After every step.

    @invariant()
    def integrity(self) -> None:
        self.cache.check_integrity()

    @invariant()
    def same_pages(self) -> None:
        assert self.cache.num_free == len(self.free())
        assert self.cache.num_owned == len(self.owned())
        assert self.cache.num_evictable == len(self.evictable())
        assert self.cache.num_locked == len(self.entries) - len(self.evictable())
        for namespace, tokens in self.entries:
            assert self.cache.peek(tokens, namespace) == len(tokens)

    @invariant()
    def right_contents(self) -> None:
        for (namespace, tokens), entry in self.entries.items():
            for position in range(len(self.parent((namespace, tokens))), len(tokens)):
                wanted = (namespace, tokens[: position + 1])
                assert self.kv[entry.page, position % self.page_size] == wanted
        for request in self.requests:
            end = (
                request.computed
                if self.copied(request)
                else len(request.lease.pages) * self.page_size
            )
            for position in range(end):
                page = request.pages[position // self.page_size]
                wanted = (request.namespace, request.tokens[: position + 1])
                assert self.kv[page, position % self.page_size] == wanted


class PagesOfOne(CacheMachine):
    page_size, num_pages = 1, 24


class PagesOfFour(CacheMachine):
    page_size, num_pages = 4, 14


class PagesOfSixteen(CacheMachine):
    page_size, num_pages = 16, 8


TestPagesOfOne = PagesOfOne.TestCase
TestPagesOfFour = PagesOfFour.TestCase
TestPagesOfSixteen = PagesOfSixteen.TestCase

CASES = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPagesOfOne.settings = TestPagesOfFour.settings = TestPagesOfSixteen.settings = CASES
