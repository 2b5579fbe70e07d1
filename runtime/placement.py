"""Where running requests live: a page-table slot, a lease on the tree, and pages of their own.

Owns: the slots, and every move of pages between a request, the tree and the pool. Knows no queue
and no policy: whom to place, and whom to displace when pages run out, is the Scheduler's business,
and it alone calls this.
"""

from collections.abc import Iterable

from ..radix_cache import OutOfPages, PrefixCache, PrefixMatch
from .batch import PageCopy, PageWrite
from .request import Request


class Placement:
    def __init__(self, cache: PrefixCache, num_slots: int) -> None:
        self._cache = cache
        self._page_size = cache.page_size
        self._num_slots = num_slots
        self._slots = list(reversed(range(num_slots)))

    @property
    def has_slot(self) -> bool:
        return bool(self._slots)

    def place(self, request: Request, budget: int, num_running: int) -> bool:
        """Lock its prefix and take pages for a first chunk of at most `budget` tokens.

        False, with nothing changed, while there is no room: for all its tokens so far and a page of
        growth for everyone who runs, unless nobody does; otherwise it would only be preempted.
        """
        namespace = request.wire.namespace
        lease = self._cache.acquire(request.tokens[: request.match_limit], namespace)
        if num_running and not self._has_room(request, len(lease.pages), num_running):
            self._cache.release(lease)
            return False
        pages = self._first_pages(request, lease, budget)
        if pages is None and lease.partial is not None:
            # The page that a partial match is to be copied from may be the one that is missing.
            self._cache.release(lease)
            whole = lease.num_tokens // self._page_size * self._page_size
            lease = self._cache.acquire(request.tokens[:whole], namespace)
            pages = self._first_pages(request, lease, budget)
        if pages is None:
            self._cache.release(lease)
            return False
        request.slot = self._slots.pop()
        request.lease = lease
        request.pages = [*lease.pages, *pages]
        request.num_tree_pages = len(lease.pages)
        request.num_written_pages = 0
        request.num_computed = request.num_launched = lease.num_tokens
        return True

    def _has_room(self, request: Request, num_matched: int, num_running: int) -> bool:
        available = self._cache.num_free + self._cache.num_evictable
        return self._num_pages(len(request.tokens) + 1) - num_matched + num_running <= available

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

    def page_copy(self, request: Request) -> PageCopy | None:
        """The copy that a freshly placed request needs before its first forward."""
        lease = request.lease
        if lease is None or lease.partial is None or len(request.pages) == len(lease.pages):
            return None
        return PageCopy(lease.partial.source, request.pages[len(lease.pages)])

    def grow(self, request: Request, num_tokens: int) -> bool:
        """Have pages for its first `num_tokens` tokens; False when there are not enough."""
        needed = self._num_pages(num_tokens) - len(request.pages)
        if needed > 0:
            try:
                request.pages += self._cache.allocate(needed)
            except OutOfPages:
                return False
        return True

    def trim(self, request: Request) -> None:
        """Give back the pages in which nothing that it computed stands: those of wrong drafts."""
        kept = self._num_pages(request.num_computed)
        self._cache.free(request.pages[kept:])
        del request.pages[kept:]
        request.num_written_pages = min(request.num_written_pages, kept)

    def page_writes(self, request: Request) -> list[PageWrite]:
        """What the page table does not know yet; it will after the step that this is handed to."""
        assert request.slot is not None
        first = request.num_written_pages
        request.num_written_pages = len(request.pages)
        if first == len(request.pages):
            return []
        return [PageWrite(request.slot, first, tuple(request.pages[first:]))]

    def commit(self, request: Request) -> None:
        """Give the pages that are now full to the tree, so that others can use them at once.

        The page that a partial match was copied from is unlocked by the first commit, full page or
        not: a request must not hold back a page that it has no more use for.
        """
        assert request.lease is not None
        num_full = request.num_computed // self._page_size
        if num_full <= request.num_tree_pages and request.lease.partial is None:
            return
        before = request.pages
        tokens = request.tokens[: request.num_computed]
        request.lease, request.pages = self._cache.commit(request.lease, tokens, before)
        request.num_tree_pages = num_full
        for index, (old, new) in enumerate(zip(before, request.pages, strict=True)):
            if old != new:
                request.num_written_pages = min(request.num_written_pages, index)
                return

    def leave(self, request: Request) -> None:
        """It runs no longer; everything that it computed stays in the tree, unlocked."""
        assert request.lease is not None
        if request.num_computed > len(request.pages) * self._page_size:
            # All of it was found in the tree, and the partly matching page was never copied.
            self._cache.release(request.lease)
        else:
            tokens = request.tokens[: request.num_computed]
            self._cache.finish(request.lease, tokens, request.pages)
        self._displace(request)

    def discard(self, request: Request) -> None:
        """It runs no longer, and what its own pages hold is not to be trusted."""
        assert request.lease is not None
        self._cache.release(request.lease)
        self._cache.free(request.pages[request.num_tree_pages :])
        self._displace(request)

    def _displace(self, request: Request) -> None:
        assert request.slot is not None
        self._slots.append(request.slot)
        request.slot = None
        request.lease = None
        request.pages = []
        request.num_tree_pages = 0
        request.num_computed = request.num_launched = 0

    def _num_pages(self, num_tokens: int) -> int:
        return -(-num_tokens // self._page_size)

    def check_integrity(self, running: Iterable[Request]) -> None:
        """Assert that slots and pages agree with those who hold them."""
        requests = list(running)
        slots = [request.slot for request in requests if request.slot is not None]
        assert len(slots) == len(requests), "a running request has a slot"
        assert sorted([*self._slots, *slots]) == list(range(self._num_slots)), (
            "every slot is free or taken by exactly one running request"
        )
        owned = sum(len(request.pages) - request.num_tree_pages for request in requests)
        assert owned == self._cache.num_owned, (
            f"{owned} pages owned by requests, {self._cache.num_owned} by the cache"
        )
        self._cache.check_integrity()
