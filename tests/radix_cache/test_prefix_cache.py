"""Each rule of the prefix cache by example, on pages of 4 tokens."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from sapwood.radix_cache import OutOfPages, PartialPage, PrefixCache, PrefixMatch

A = [1, 2, 3, 4]
B = [5, 6, 7, 8]
C = [9, 10, 11, 12]
D = [13, 14, 15, 16]


def make(num_pages: int = 16) -> PrefixCache:
    return PrefixCache(num_pages, page_size=4)


def begin(
    cache: PrefixCache, tokens: Sequence[int], namespace: str = ""
) -> tuple[PrefixMatch, list[int]]:
    """A request for `tokens`, with pages for all of them."""
    lease = cache.acquire(tokens, namespace)
    count = -(-len(tokens) // cache.page_size) - len(lease.pages)
    return lease, [*lease.pages, *cache.allocate(count)]


def serve(cache: PrefixCache, tokens: Sequence[int], namespace: str = "") -> list[int]:
    """A request that computes `tokens` and finishes; returns the pages that it had."""
    lease, pages = begin(cache, tokens, namespace)
    cache.finish(lease, tokens, pages)
    cache.check_integrity()
    return pages


MATCHES = [
    # held sequences, asked, matched tokens, tokens of them in a partial page
    ([], A, 0, 0),
    ([A], [], 0, 0),
    ([A], A, 4, 0),
    ([A], A[:3], 3, 3),
    ([A], [1, 2, 9, 9], 2, 2),
    ([A], [2, 2, 3, 4], 0, 0),
    ([A + B], A + B + C, 8, 0),
    ([A + B], A + B[:1], 5, 1),
    ([A + B], A + [5, 9, 9, 9], 5, 1),
    ([A + B + C], A + B, 8, 0),
    ([A + B + C], A + B + [9], 9, 1),
    ([A + B, A + C], A + C, 8, 0),
    ([A + B, A + C], A + D, 4, 0),
    # A finished request's tail: any number of its tokens can be matched.
    ([A + [5, 6]], A + [5, 6, 7], 6, 2),
    ([A + [5, 6]], A + [5], 5, 1),
    ([[1, 2]], A, 2, 2),
    # Siblings that diverge inside a page: the longest common prefix wins, wherever it stands.
    ([[1, 1, 1, 1], [1, 2, 1, 1], [1, 3, 1, 1]], [1, 2, 9, 9], 2, 2),
    ([[1, 1, 1, 1], [1, 2, 3, 1], [1, 2, 9, 1]], [1, 2, 3, 0], 3, 3),
    ([[1, 2, 3, 1], [1, 2, 9, 1]], [1, 2, 3, 9], 3, 3),
    # Ids whose bytes sort otherwise than their numbers.
    ([[256, 1, 1, 1], [1, 256, 1, 1], [1, 255, 1, 1]], [1, 256, 1, 9], 3, 3),
    ([[70_000, 1, 1, 1], [65_536, 1, 1, 1]], [70_000, 2, 2, 2], 1, 1),
]


@pytest.mark.parametrize(("held", "asked", "matched", "partial"), MATCHES)
def test_match_is_the_longest_held_prefix(
    held: list[list[int]], asked: list[int], matched: int, partial: int
) -> None:
    cache = make()
    for tokens in held:
        serve(cache, tokens)
    assert cache.peek(asked) == matched
    lease = cache.acquire(asked)
    assert lease.num_tokens == matched
    assert len(lease.pages) == matched // 4
    assert (lease.partial.num_tokens if lease.partial else 0) == partial
    cache.check_integrity()


FORMS: list[Callable[[list[int]], Any]] = [
    list,
    tuple,
    lambda ids: array("i", ids),
    lambda ids: array("q", ids),
    lambda ids: np.array(ids, np.int32),
    lambda ids: np.array(ids, np.int64),
    lambda ids: np.array(ids, np.uint32),
    lambda ids: np.array([i for t in ids for i in (t, 0)], np.int32)[::2],  # strided
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_tokens_is_the_same(form: Callable[[list[int]], Any]) -> None:
    cache = make()
    serve(cache, form([*A, *B, 9]))
    assert cache.peek(form([*A, *B, 9, 10])) == 9
    assert cache.peek([*A, *B, 9, 10]) == 9


@pytest.mark.parametrize(
    "tokens", [np.zeros((2, 4), np.int32), np.zeros(4, np.float32), np.array([2**31]), b"abcd"]
)
def test_what_is_not_token_ids_is_refused(tokens: Any) -> None:
    with pytest.raises(AssertionError):
        make().peek(tokens)


def test_peek_changes_nothing() -> None:
    cache = make(2)
    serve(cache, A)
    serve(cache, B)
    assert cache.peek(A) == 4
    assert cache.peek(A, "unknown") == 0
    cache.check_integrity()  # no empty namespace
    cache.allocate(1)
    assert (cache.peek(A), cache.peek(B)) == (0, 4), "A is still the oldest"


def test_partial_page_is_locked_until_commit() -> None:
    cache = make(3)
    (tail,) = serve(cache, [1, 2])
    lease = cache.acquire([1, 2, 3])
    assert lease.partial == PartialPage(tail, 2)
    assert (cache.num_locked, cache.num_evictable) == (1, 0)
    pages = cache.allocate(2)
    with pytest.raises(OutOfPages):
        cache.allocate(1)
    lease, pages = cache.commit(lease, [1, 2, 3], pages)
    assert lease.partial is None and len(pages) == 2
    assert (cache.num_locked, cache.num_evictable) == (0, 1)
    cache.allocate(1)
    assert cache.peek([1, 2]) == 0
    cache.check_integrity()


def test_partial_match_locks_one_page_of_a_long_edge() -> None:
    cache = make()
    pages = serve(cache, A + B + C + D)
    lease = cache.acquire([*A, 5, 6])
    assert (lease.pages, lease.partial) == ((pages[0],), PartialPage(pages[1], 2))
    assert (cache.num_locked, cache.num_evictable) == (2, 2)
    cache.evict_all()
    assert cache.peek(A + B + C) == 8
    cache.release(lease)
    cache.check_integrity()
    assert cache.evict_all() == 2


def test_a_request_that_needs_the_source_page_can_match_whole_pages_only() -> None:
    cache = make(2)
    serve(cache, A + B)
    tokens = [*A, 5, 9]
    lease = cache.acquire(tokens)
    with pytest.raises(OutOfPages):
        cache.allocate(1)
    cache.release(lease)
    lease = cache.acquire(tokens[: len(lease.pages) * 4])
    assert len(cache.allocate(1)) == 1


def test_pages_are_shared_after_every_commit() -> None:
    cache = make()
    lease, pages = begin(cache, A + B + C)
    for computed in (4, 6, 8, 12):
        lease, pages = cache.commit(lease, (A + B + C)[:computed], pages)
        assert cache.peek(A + B + C) == computed // 4 * 4 == lease.num_tokens
        assert lease.pages == tuple(pages[: computed // 4])
        cache.check_integrity()
    assert (cache.num_owned, cache.num_locked) == (0, 3)


def test_twins_keep_one_copy() -> None:
    cache = make()
    first, first_pages = begin(cache, A + B)
    second, second_pages = begin(cache, A + B + C)
    first, first_pages = cache.commit(first, A + B, first_pages)
    extra = second_pages[2]
    second, second_pages = cache.commit(second, A + B, second_pages)
    assert second_pages == [*first_pages, extra]
    assert (cache.num_locked, cache.num_owned, cache.num_free) == (2, 1, 13)
    second, second_pages = cache.commit(second, A + B + C, second_pages)
    assert second_pages == [*first_pages, extra]
    cache.check_integrity()


def test_duplicates_stop_where_the_twins_part() -> None:
    cache = make()
    held = serve(cache, A + B + C)
    lease = cache.acquire([])
    pages = cache.allocate(4)
    lease, after = cache.commit(lease, A + B + D + C, pages)
    assert after == [*held[:2], *pages[2:]]
    assert cache.peek(A + B + C + D) == 12 and cache.peek(A + B + D + C) == 16
    cache.check_integrity()


def test_a_lease_holds_when_its_edge_is_split() -> None:
    cache = make()
    long = cache.acquire([])
    long, pages = cache.commit(long, A + B + C, cache.allocate(3))
    short = cache.acquire(A)
    other, _ = begin(cache, A + B + D)
    assert cache.evict_all() == 0
    cache.release(short)
    cache.release(other)
    cache.check_integrity()
    assert cache.num_locked == 3 and cache.peek(A + B + C) == 12
    long, pages = cache.commit(long, A + B + C + D, [*pages, *cache.allocate(1)])
    assert cache.peek(A + B + C + D) == 16


def test_finish_keeps_the_tail_and_frees_the_rest() -> None:
    cache = make()
    lease = cache.acquire([])
    pages = cache.allocate(5)
    cache.finish(lease, [*A, 5, 6], pages)
    assert (cache.num_free, cache.num_evictable, cache.num_owned) == (14, 2, 0)
    assert cache.peek(A + B) == 6
    cache.check_integrity()


TAILS = [
    # held, finished afterwards, pages in the tree at the end
    ([1, 2], [1, 2], 1),
    ([1, 2, 3], [1, 2], 1),
    (A, [1, 2], 1),
    (A + B, [1, 2], 2),
    ([1, 2], [1, 2, 3], 1),
    ([1, 2], A, 1),
    ([1, 2], A + B, 2),
    ([1, 2], [1, 3], 2),
    ([1, 2], [1, 3, 4, 5], 2),
    ([*A, 5], A + B, 2),
    ([*A, 5], A, 2),
]


@pytest.mark.parametrize(("held", "finished", "num_pages"), TAILS)
def test_a_longer_page_supersedes_a_tail(
    held: list[int], finished: list[int], num_pages: int
) -> None:
    cache = make()
    serve(cache, held)
    serve(cache, finished)
    assert cache.num_evictable == num_pages
    assert cache.num_free == 16 - num_pages
    assert cache.peek(held) == len(held) and cache.peek(finished) == len(finished)


def test_a_locked_tail_is_not_superseded() -> None:
    cache = make()
    serve(cache, [1, 2])
    lease = cache.acquire([1, 2])
    serve(cache, A)
    assert (cache.num_locked, cache.num_evictable) == (1, 1)
    cache.release(lease)
    cache.check_integrity()
    assert cache.evict_all() == 2


def test_eviction_takes_the_least_recently_used() -> None:
    cache = make(4)
    for tokens in (A, B, C, D):
        serve(cache, tokens)
    cache.release(cache.acquire(A))
    lease = cache.acquire(C)
    cache.allocate(2)
    assert [cache.peek(t) for t in (A, B, C, D)] == [4, 0, 4, 0]
    with pytest.raises(OutOfPages) as error:
        cache.allocate(2)
    assert (error.value.wanted, error.value.available) == (2, 1)
    assert cache.peek(A) == 4, "nothing is evicted when not all can be had"
    cache.release(lease)
    cache.allocate(2)
    assert cache.num_free == cache.num_evictable == 0


def test_a_use_of_a_leaf_is_a_use_of_its_path() -> None:
    cache = make(4)
    serve(cache, A + B)
    serve(cache, A + C)
    serve(cache, D)
    cache.release(cache.acquire(A + B))
    cache.allocate(1)
    assert [cache.peek(t) for t in (A + B, A + C, D)] == [8, 4, 4]
    cache.allocate(1)
    assert [cache.peek(t) for t in (A + B, A + C, D)] == [8, 4, 0]


def test_a_long_leaf_loses_its_last_pages_only() -> None:
    cache = make(4)
    pages = serve(cache, A + B + C + D)
    assert set(cache.allocate(2)) == set(pages[2:])
    assert cache.peek(A + B + C + D) == 8
    cache.check_integrity()


def test_namespaces_share_nothing() -> None:
    cache = make()
    serve(cache, A, "one")
    assert cache.peek(A) == cache.peek(A, "two") == 0
    serve(cache, A, "two")
    assert cache.num_evictable == 2
    lease = cache.acquire(A, "one")
    assert cache.evict_all() == 1
    assert cache.peek(A, "one") == 4 and cache.peek(A, "two") == 0
    cache.release(lease)
    cache.check_integrity()


def test_an_empty_match_is_a_lease_too() -> None:
    cache = make()
    lease = cache.acquire(A)
    assert (lease.num_tokens, lease.pages, lease.partial) == (0, (), None)
    cache.evict_all()
    lease, _ = cache.commit(lease, A, cache.allocate(1))
    cache.release(lease)
    assert cache.peek(A) == 4


def test_pages_of_one_token_have_no_partial_match() -> None:
    cache = PrefixCache(8, page_size=1)
    lease = cache.acquire([])
    cache.finish(lease, [1, 2, 3], cache.allocate(3))
    match = cache.acquire([1, 2, 9])
    assert (match.num_tokens, match.partial, len(match.pages)) == (2, None, 2)
    cache.check_integrity()


def test_a_deep_tree_needs_no_recursion() -> None:
    cache = PrefixCache(3000, page_size=1)
    tokens = list(range(3000))
    cache.finish(cache.acquire([]), tokens, cache.allocate(3000))
    for end in range(1, 3000):
        cache.release(cache.acquire(tokens[:end]))
    cache.check_integrity()
    assert cache.peek(tokens) == 3000
    assert cache.evict_all() == 3000


Step = Callable[[PrefixCache, PrefixMatch, list[int]], Any]


def release(cache: PrefixCache, lease: PrefixMatch, pages: list[int]) -> None:
    cache.release(lease)


def commit(cache: PrefixCache, lease: PrefixMatch, pages: list[int]) -> None:
    cache.commit(lease, A, pages)


def finish(cache: PrefixCache, lease: PrefixMatch, pages: list[int]) -> None:
    cache.finish(lease, A, pages)


def free(cache: PrefixCache, lease: PrefixMatch, pages: list[int]) -> None:
    cache.free(pages[1:])


MISTAKES: list[tuple[str, list[Step]]] = [
    # what is said of the last of these steps; all have a lease on page A, and 3 pages
    ("spent", [release, release]),
    ("spent", [release, commit]),
    ("spent", [finish, finish]),
    ("spent", [commit, release]),
    ("do not cover", [lambda c, m, p: c.commit(m, A + B + C + D, p)]),
    ("the lease holds", [lambda c, m, p: c.commit(m, A[:3], p)]),
    ("come first", [lambda c, m, p: c.commit(m, A, p[1:])]),
    ("not those of the lease", [lambda c, m, p: c.commit(m, B + A, p)]),
    ("only a page that is owned", [lambda c, m, p: c.free(p[:1])]),
    ("only a page that is owned", [free, free]),
    ("only a page that is owned", [lambda c, m, p: c.commit(m, A + B + C, [p[0], p[1], p[1]])]),
    ("is not one of 16", [lambda c, m, p: c.free([-1])]),
]


@pytest.mark.parametrize(("message", "steps"), MISTAKES)
def test_a_mistake_of_the_caller_is_an_assertion(message: str, steps: list[Step]) -> None:
    cache = make()
    serve(cache, A)
    lease = cache.acquire(A)
    pages = [*lease.pages, *cache.allocate(2)]
    *before, mistake = steps
    for step in before:
        step(cache, lease, pages)
    with pytest.raises(AssertionError, match=message):
        mistake(cache, lease, pages)
