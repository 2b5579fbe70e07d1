"""LruNodes: the nodes that no lock holds, in order of last use, and the number of their pages.

A node is used for as long as a lock covers it, so it enters the list when its last lock ends. A
lock covers the whole path up to the root and ends from the leaf upwards: a child always stands
before its parent. Hence the oldest node is always a leaf, and eviction neither scans nor sorts.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from .node import RadixNode


class LruNodes:
    def __init__(self) -> None:
        self._order: OrderedDict[RadixNode, None] = OrderedDict()
        self.num_pages = 0

    def add(self, nodes: Iterable[RadixNode]) -> None:
        """Enter `nodes`, which are not in; the last becomes the most recently used."""
        order = self._order
        for node in nodes:
            assert node not in order, "the node is in the order already"
            order[node] = None
            self.num_pages += len(node.pages)

    def discard(self, nodes: Iterable[RadixNode]) -> None:
        """Take out those of `nodes` that are in: a root, or what a split has just made, is not."""
        order = self._order
        for node in nodes:
            if node in order:
                del order[node]  # half the cost of pop() with a default
                self.num_pages -= len(node.pages)

    def oldest(self) -> RadixNode:
        """The least recently used node: a leaf. Changes nothing."""
        return next(iter(self._order))

    def lose_pages(self, count: int) -> None:
        """A node that is in has given away `count` of its pages."""
        self.num_pages -= count

    def __contains__(self, node: RadixNode) -> bool:
        return node in self._order

    def __iter__(self) -> Iterator[RadixNode]:
        return iter(self._order)
