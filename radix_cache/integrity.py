"""check_tree: assert what must hold between two calls. It walks every node: for tests."""

from collections import Counter

from .keys import TOKEN_BYTES
from .node import RadixNode, RadixRoot
from .tree import RadixTree


def check_tree(tree: RadixTree, leases: Counter[RadixNode]) -> list[int]:
    """Assert every invariant, given how many leases end at each node; return the tree's pages."""
    nodes: list[RadixNode] = []
    for root in tree.roots():
        assert root.children or root.locks, (
            f"the empty namespace {root.namespace!r} was not dropped"
        )
        nodes += root.subtree()
    assert leases.keys() <= set(nodes), "a lease ends at a node that is not in the tree"
    for node in nodes:
        _check_edge(node, tree.page_size)
        _check_children(node)
        locked_children = sum(child.locks > 0 for child in node.children.values())
        assert node.locks == leases[node] + locked_children, "wrong lock count"
    _check_order(tree, nodes)
    return [page for node in nodes for page in node.pages]


def _check_edge(node: RadixNode, page_size: int) -> None:
    page_bytes = page_size * TOKEN_BYTES
    if isinstance(node, RadixRoot):
        assert node.parent is None and not node.pages and not node.key, "a root has an edge"
        return
    assert node.parent is not None and node.parent.children.get(node.label) is node, "lost child"
    assert node.label == node.key[:page_bytes], "the label is not the first page"
    if len(node.key) != len(node.pages) * page_bytes:
        assert len(node.pages) == 1 and 0 < len(node.key) < page_bytes, "edge length"
        assert len(node.key) % TOKEN_BYTES == 0, "half a token"
        assert not node.children, "a tail leaf has children"
    else:
        assert node.pages, "an empty edge"


def _check_children(node: RadixNode) -> None:
    assert node.labels == sorted(node.children), "the labels are not the sorted children"


def _check_order(tree: RadixTree, nodes: list[RadixNode]) -> None:
    order = list(tree.unlocked)
    unlocked = [n for n in nodes if n.locks == 0 and not isinstance(n, RadixRoot)]
    assert set(order) == set(unlocked) and len(order) == len(unlocked), "LRU is not the unlocked"
    place = {node: index for index, node in enumerate(order)}
    for node in order:
        for child in node.children.values():
            assert place[child] < place[node], "a parent would be evicted before its child"
    assert tree.unlocked.num_pages == sum(len(n.pages) for n in order), "wrong page count"
