"""RadixNode: one edge of the tree, the pages that hold its tokens' KV, and its children.

Written only by RadixTree. A node knows its neighbours; it does not know the LRU order, or which
pages are free.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from .keys import common_bytes


@dataclass(slots=True, eq=False)
class RadixNode:
    """One edge: `key` (encoded tokens) lies on `pages`, in order.

    Every page is full, but for a *tail leaf*: a childless node with one page, filled in part.
    """

    key: bytes
    pages: list[int]
    # The first page's tokens: the name under which the parent keeps this node. Siblings may share
    # leading tokens (they diverge inside the page), so a label is found exactly by `children`, or
    # approximately by `labels`.
    label: bytes
    parent: "RadixNode | None"
    children: "dict[bytes, RadixNode]" = field(default_factory=dict)
    # The keys of `children`, sorted: the best match inside a page is a neighbour here.
    labels: list[bytes] = field(default_factory=list)
    # Locks that end at this node, plus the number of children that are locked. So taking or
    # ending a lock walks up only as far as the path is not locked otherwise.
    locks: int = 0

    def add_child(self, child: "RadixNode") -> None:
        assert child.label not in self.children, "two children with the same first page"
        self.children[child.label] = child
        self.labels.insert(bisect_left(self.labels, child.label), child.label)
        child.parent = self

    def remove_child(self, child: "RadixNode") -> None:
        del self.children[child.label]
        del self.labels[bisect_left(self.labels, child.label)]
        child.parent = None

    def replace_child(self, old: "RadixNode", new: "RadixNode") -> None:
        """Put `new`, which has the same label, where `old` is."""
        assert old.label == new.label, "a replacement must keep the label"
        self.children[old.label] = new
        new.parent = self

    def nearest_child(self, label: bytes) -> "tuple[RadixNode | None, int]":
        """The child whose label has the longest prefix in common with `label`, and its bytes.

        Looks at two neighbours in sorted order, however many children there are. Changes nothing.
        """
        here = bisect_left(self.labels, label)
        best, longest = None, 0
        for neighbour in self.labels[max(here - 1, 0) : here + 1]:
            common = common_bytes(neighbour, label)
            if common > longest:
                best, longest = self.children[neighbour], common
        return best, longest

    def covering_child(self, label: bytes) -> "RadixNode | None":
        """A child whose label begins with `label`, if there is one. Changes nothing."""
        here = bisect_left(self.labels, label)
        if here < len(self.labels) and self.labels[here].startswith(label):
            return self.children[self.labels[here]]
        return None

    def pages_below(self, ancestor: "RadixNode") -> list[int]:
        """The pages from the end of `ancestor` to the end of this node, in order."""
        edges: list[list[int]] = []
        node: RadixNode | None = self
        while node is not ancestor:
            assert node is not None, "not an ancestor of this node"
            edges.append(node.pages)
            node = node.parent
        edges.reverse()
        return list(chain.from_iterable(edges))

    def subtree(self) -> "Iterator[RadixNode]":
        """This node and every node below it, parents first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())


@dataclass(slots=True, eq=False)
class RadixRoot(RadixNode):
    """The empty edge above every path of one namespace. It holds no page and is never evicted."""

    namespace: str = ""
