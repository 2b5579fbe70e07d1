"""PrefixCache: one pool of KV pages for the requests in flight and the cached prefixes.

It joins tree, pool and leases, and says where every page goes. It knows page numbers only: who
copies or writes the pages' KV, and when, is the runner's business. One thread uses it.

Every page is in one of three places at any time:

    free  --allocate-->                    owned by a request
    owned --commit, finish-->              in the tree
    owned --free, duplicate at commit-->   free
    tree  --evicted, superseded-->         free

A page in the tree is never written again.
"""

from collections import Counter
from collections.abc import Sequence

from .integrity import check_tree
from .keys import TokenIds, encode
from .lease import PartialPage, PrefixMatch
from .node import RadixNode
from .pages import OutOfPages, PagePool
from .tree import Insertion, RadixTree


class PrefixCache:
    """`num_pages` pages, numbered from 0, of `page_size` tokens each.

    `namespace` separates prefixes that must not be shared though their tokens are the same.
    """

    def __init__(self, num_pages: int, page_size: int = 16) -> None:
        self.page_size = page_size
        self._pool = PagePool(num_pages)
        self._tree = RadixTree(page_size)
        self._leases: set[PrefixMatch] = set()

    def peek(self, tokens: TokenIds, namespace: str = "") -> int:
        """How many leading tokens are held. Changes nothing, the order of eviction included."""
        key = encode(tokens)
        root = self._tree.find_root(namespace)
        return self._tree.walk(root, key).num_tokens if root is not None else 0

    def acquire(self, tokens: TokenIds, namespace: str = "") -> PrefixMatch:
        """Lock the longest held prefix of `tokens` and return it; it may be empty.

        Pass what may be matched: all tokens but those that must be computed in any case.
        `partial.source` stays locked until the lease's next `commit`, `finish` or `release`. A
        caller whom that one page keeps from allocating can release, and acquire `tokens` cut to
        whole pages.
        """
        key = encode(tokens)
        root = self._tree.open_root(namespace)
        walk = self._tree.walk(root, key)
        node, source = self._tree.lock_match(walk)
        rest = walk.edge_tokens % self.page_size
        partial = PartialPage(source.pages[0], rest) if source is not None else None
        return self._grant(walk.num_tokens, node.pages_below(root), partial, node, source)

    def allocate(self, count: int) -> list[int]:
        """`count` pages for the caller to write; evicts least recently used prefixes as needed.

        Raises OutOfPages, with nothing changed, if fewer are free or evictable.
        """
        available = self._pool.num_free + self.num_evictable
        if count > available:
            raise OutOfPages(count, available)
        missing = count - self._pool.num_free
        if missing > 0:
            self._pool.reclaim(self._tree.evict(missing))
        return self._pool.take(count)

    def commit(
        self, lease: PrefixMatch, tokens: TokenIds, pages: Sequence[int]
    ) -> tuple[PrefixMatch, list[int]]:
        """Give the request's full pages to the tree; return its next lease and its pages.

        `tokens` are those whose KV is computed, from position 0; `pages` those of the request,
        from position 0:

            pages   [ lease.pages | full: to the tree | tail, not full | not filled yet ]
            tokens  [ ....................................... ]

        Where the tree has a page with the same tokens already, the request's is freed and the
        tree's stands in its place. Pages that are not full stay the request's. The old lease is
        spent. Costs O(new tokens) of walking.
        """
        start, full = len(lease.pages), len(tokens) // self.page_size
        self._check_pages(lease, tokens, pages)
        self._end(lease)
        mine = pages[start:full]
        key = encode(tokens[start * self.page_size : full * self.page_size])
        insertion = self._tree.insert(lease._node, key, mine)
        self._settle(insertion, mine)
        # Only now: until the new lease has its lock, the old one keeps the path.
        self._tree.unlock(lease._node)
        kept = [*pages[:start], *insertion.held, *mine[len(insertion.held) :]]
        renewed = self._grant(full * self.page_size, kept, None, insertion.node, None)
        return renewed, kept + list(pages[full:])

    def finish(self, lease: PrefixMatch, tokens: TokenIds, pages: Sequence[int]) -> None:
        """End the request: all of `tokens` enter the tree, with the page that they fill in part.

        Arguments as for `commit`. Every page that the tree has no use for is freed; the lease is
        spent.
        """
        lease, current = self.commit(lease, tokens, pages)
        full = len(lease.pages)
        tail = tokens[full * self.page_size :]
        own = current[full:]
        if len(tail) > 0:
            mine, own = own[:1], own[1:]
            self._settle(self._tree.insert_tail(lease._node, encode(tail), mine[0]), mine)
        self._pool.free(own)
        self.release(lease)

    def release(self, lease: PrefixMatch) -> None:
        """Unlock without inserting anything. The caller frees the pages that it owns."""
        self._end(lease)
        self._tree.unlock(lease._node)

    def free(self, pages: Sequence[int]) -> None:
        """Give back pages that the caller owns: allocated, and not in the tree."""
        self._pool.free(pages)

    def evict_all(self) -> int:
        """Drop every prefix that no lease holds; returns the number of pages freed."""
        evicted = self._tree.evict(self.num_evictable)
        self._pool.reclaim(evicted)
        return len(evicted)

    @property
    def num_pages(self) -> int:
        return self._pool.num_pages

    @property
    def num_free(self) -> int:
        return self._pool.num_free

    @property
    def num_evictable(self) -> int:
        """Pages in the tree that no lease holds."""
        return self._tree.unlocked.num_pages

    @property
    def num_locked(self) -> int:
        """Pages in the tree that a lease holds."""
        return self._pool.num_cached - self.num_evictable

    @property
    def num_owned(self) -> int:
        """Pages allocated and not, or not yet, in the tree."""
        return self._pool.num_owned

    def check_integrity(self) -> None:
        """Assert every invariant of tree, locks, eviction order and pool. Walks the whole tree."""
        locks: Counter[RadixNode] = Counter()
        for lease in self._leases:
            locks.update(node for node in (lease._node, lease._source) if node is not None)
        self._pool.check_integrity(check_tree(self._tree, locks))

    def _grant(
        self,
        num_tokens: int,
        pages: Sequence[int],
        partial: PartialPage | None,
        node: RadixNode,
        source: RadixNode | None,
    ) -> PrefixMatch:
        lease = PrefixMatch(num_tokens, tuple(pages), partial, node, source)
        self._leases.add(lease)
        return lease

    def _end(self, lease: PrefixMatch) -> None:
        """Spend the lease and unlock its partial page; the caller unlocks its path."""
        assert lease in self._leases, "the lease is spent: it was committed, finished or released"
        self._leases.remove(lease)
        if lease._source is not None:
            self._tree.unlock(lease._source)

    def _settle(self, insertion: Insertion, mine: Sequence[int]) -> None:
        num_held = len(insertion.held)
        self._pool.free(mine[:num_held])
        self._pool.adopt(mine[num_held:])
        self._pool.reclaim(insertion.superseded)

    def _check_pages(self, lease: PrefixMatch, tokens: TokenIds, pages: Sequence[int]) -> None:
        start, size = len(lease.pages), self.page_size
        assert len(tokens) >= start * size, (
            f"{len(tokens)} tokens, but the lease holds {start} pages of {size}"
        )
        assert len(pages) * size >= len(tokens), (
            f"{len(pages)} pages of {size} do not cover {len(tokens)} tokens"
        )
        assert tuple(pages[:start]) == lease.pages, "the shared pages come first, unchanged"
        last = tokens[max(start - 1, 0) * size : start * size]
        assert lease._node.key.endswith(encode(last)), "the tokens are not those of the lease"
