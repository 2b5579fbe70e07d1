"""RadixTree: which token prefixes are held, and on which pages. The only writer of nodes.

One root per namespace. Edges are path-compressed and are split at page boundaries only; two
prefixes that diverge inside a page have a page each, as siblings. Knows nothing of free pages:
what leaves the tree is returned.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .eviction import LruNodes
from .keys import TOKEN_BYTES, common_bytes
from .node import RadixNode, RadixRoot


@dataclass(frozen=True, slots=True)
class Walk:
    """Where a walk along a key ended: `edge_tokens` past the end of `node`, in its child `edge`."""

    node: RadixNode
    edge: RadixNode | None
    edge_tokens: int
    num_tokens: int  # from where the walk began, those inside `edge` included


@dataclass(frozen=True, slots=True)
class Insertion:
    """What an insertion did with the pages that it was given."""

    node: RadixNode  # the deepest one on the inserted path
    held: list[int]  # the tree's own pages, which stand for the first `len(held)` of those given
    superseded: list[int]  # pages that left the tree


class RadixTree:
    def __init__(self, page_size: int) -> None:
        assert page_size > 0, f"page_size must be positive, got {page_size}"
        self.page_size = page_size
        self._page_bytes = page_size * TOKEN_BYTES
        self._roots: dict[str, RadixRoot] = {}
        self.unlocked = LruNodes()

    def find_root(self, namespace: str) -> RadixRoot | None:
        return self._roots.get(namespace)

    def roots(self) -> Iterable[RadixRoot]:
        return self._roots.values()

    def open_root(self, namespace: str) -> RadixRoot:
        """The namespace's root, made if need be; dropped when unlocked and childless."""
        root = self._roots.get(namespace)
        if root is None:
            root = RadixRoot(b"", [], b"", None, namespace=namespace)
            self._roots[namespace] = root
        return root

    def walk(self, node: RadixNode, key: bytes) -> Walk:
        """Follow `key` down from the end of `node` as far as tokens are held. Changes nothing."""
        page_bytes, offset = self._page_bytes, 0
        while offset + page_bytes <= len(key):
            child = node.children.get(key[offset : offset + page_bytes])
            if child is None:
                break
            edge = child.key
            # The label was equal: an edge of one page is already compared.
            if len(edge) > page_bytes and not key.startswith(edge, offset):
                common = common_bytes(edge, key[offset : offset + len(edge)])
                return self._walk_end(node, child, common, offset)
            node = child
            offset += len(edge)
        nearest, common = node.nearest_child(key[offset : offset + page_bytes])
        return self._walk_end(node, nearest, common, offset)

    def _walk_end(self, node: RadixNode, edge: RadixNode | None, common: int, offset: int) -> Walk:
        edge_tokens = common // TOKEN_BYTES
        num_tokens = offset // TOKEN_BYTES + edge_tokens
        return Walk(node, edge if edge_tokens else None, edge_tokens, num_tokens)

    def lock_match(self, walk: Walk) -> tuple[RadixNode, RadixNode | None]:
        """Lock what `walk` found: the node that ends with the last full page, and the source.

        Edges are split so that the first ends there and the source has its page alone: no lock
        holds more pages than the match needs.
        """
        full, rest = divmod(walk.edge_tokens, self.page_size)
        node, edge, source = walk.node, walk.edge, None
        if edge is not None:
            if full:
                node = self._split(edge, full)
            if rest:
                source = edge if len(edge.pages) == 1 else self._split(edge, 1)
                self.lock(source)
        self.lock(node)
        return node, source

    def insert(self, node: RadixNode, key: bytes, pages: Sequence[int]) -> Insertion:
        """Add full `pages` with the tokens `key` below `node`, and lock the deepest node.

        The caller holds a lock on `node`. Unlocked tail leaves that the new pages cover leave the
        tree.

            key     [ held already, on the tree's pages | new ]
            pages   [ duplicates: stay the caller's     | the tree's from now on ]
        """
        assert len(key) == len(pages) * self._page_bytes, "only full pages are inserted"
        walk = self.walk(node, key)
        deepest = walk.node
        full = walk.edge_tokens // self.page_size
        if full and walk.edge is not None:
            deepest = self._split(walk.edge, full)
        held = deepest.pages_below(node)
        superseded: list[int] = []
        if len(held) < len(pages):
            new_key, new_pages = key[len(held) * self._page_bytes :], pages[len(held) :]
            if deepest is node and self._may_grow(node):
                node.key += new_key
                node.pages += new_pages
            else:
                superseded = self._remove_covered(deepest, new_key[: self._page_bytes])
                deepest = self._add(deepest, new_key, new_pages)
        self.lock(deepest)
        return Insertion(deepest, held, superseded)

    def insert_tail(self, node: RadixNode, key: bytes, page: int) -> Insertion:
        """Add `page`, filled in part by the tokens `key`, as a leaf of `node`; locks nothing.

        The caller holds a lock on `node`. If a child of `node` begins with these tokens, it is
        used instead.
        """
        assert 0 < len(key) < self._page_bytes, "a tail is less than one page"
        covering = node.covering_child(key)
        if covering is not None:
            return Insertion(covering, covering.pages[:1], [])
        superseded = self._remove_covered(node, key)
        leaf = self._add(node, key, [page])
        self.unlocked.add([leaf])
        return Insertion(leaf, [], superseded)

    def lock(self, node: RadixNode) -> None:
        """Keep `node` and the path above it from eviction."""
        newly_locked: list[RadixNode] = []
        here: RadixNode | None = node
        while here is not None and here.locks == 0:
            here.locks = 1
            newly_locked.append(here)
            here = here.parent
        if here is not None:
            here.locks += 1
        self.unlocked.discard(newly_locked)

    def unlock(self, node: RadixNode) -> None:
        """End one lock; nodes that are now under none become the most recently used, leaf first."""
        assert node.locks > 0, "unlock without a lock"
        newly_unlocked: list[RadixNode] = []
        node.locks -= 1
        while node.locks == 0 and node.parent is not None:
            newly_unlocked.append(node)
            node = node.parent
            node.locks -= 1
        self.unlocked.add(newly_unlocked)
        self._drop_if_empty(node)

    def evict(self, count: int) -> list[int]:
        """Remove the `count` least recently used pages (no more than are unlocked); return them.

        A leaf with more pages than are wanted loses only its last ones.
        """
        assert count <= self.unlocked.num_pages, "fewer pages are unlocked"
        evicted: list[int] = []
        while len(evicted) < count:
            leaf = self.unlocked.oldest()
            keep = len(leaf.pages) - (count - len(evicted))
            evicted += self._trim(leaf, keep) if keep > 0 else self._remove(leaf)
        return evicted

    def _split(self, lower: RadixNode, num_pages: int) -> RadixNode:
        """Cut off the first `num_pages` pages of an edge; return them as a new node above it.

        `lower` stays the same object with the same end, so the locks on it hold. The new node is
        locked if `lower` is; if not, it is not in the LRU order either, and the caller locks it
        at once.
        """
        assert 0 < num_pages < len(lower.pages), "a split leaves a page on both sides"
        assert lower.parent is not None, "a root has no edge to split"
        cut = num_pages * self._page_bytes
        upper = RadixNode(lower.key[:cut], lower.pages[:num_pages], lower.label, None)
        lower.parent.replace_child(lower, upper)
        lower.key = lower.key[cut:]
        lower.label = lower.key[: self._page_bytes]
        lower.pages = lower.pages[num_pages:]
        upper.add_child(lower)
        if lower.locks:
            upper.locks = 1
        else:
            self.unlocked.lose_pages(num_pages)
        return upper

    def _add(self, parent: RadixNode, key: bytes, pages: Sequence[int]) -> RadixNode:
        node = RadixNode(key, list(pages), key[: self._page_bytes], None)
        parent.add_child(node)
        return node

    def _may_grow(self, node: RadixNode) -> bool:
        """Whether the edge may be lengthened in place: only the caller relies on its end.

        So a long generation, committed page by page, stays one edge.
        """
        return node.locks == 1 and not node.children and node.parent is not None

    def _remove_covered(self, parent: RadixNode, label: bytes) -> list[int]:
        """Remove the unlocked tail leaves that `label` begins with (locked ones: evicted later)."""
        removed: list[int] = []
        if parent.children:
            for end in range(TOKEN_BYTES, len(label), TOKEN_BYTES):
                leaf = parent.children.get(label[:end])
                if leaf is not None and leaf.locks == 0:
                    removed += self._remove(leaf)
        return removed

    def _remove(self, leaf: RadixNode) -> list[int]:
        assert not leaf.children and leaf.locks == 0, "only an unlocked leaf can go"
        parent = leaf.parent
        assert parent is not None, "a root is dropped, not removed"
        self.unlocked.discard([leaf])
        parent.remove_child(leaf)
        self._drop_if_empty(parent)
        return leaf.pages

    def _trim(self, leaf: RadixNode, keep: int) -> list[int]:
        trimmed = leaf.pages[keep:]
        del leaf.pages[keep:]
        leaf.key = leaf.key[: keep * self._page_bytes]
        self.unlocked.lose_pages(len(trimmed))
        return trimmed

    def _drop_if_empty(self, node: RadixNode) -> None:
        if isinstance(node, RadixRoot) and not node.children and node.locks == 0:
            del self._roots[node.namespace]
