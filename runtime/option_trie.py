"""The options of a choice as a trie of tokens, and the walks that visit each of its forks once.

Owns: which tokens must be computed so that every token of every option is scored, each computed
once. Pure, of token ids alone; knows no prompt and no request.

    " New York City"   " New York State"   " New Jersey"   " Boston"

    . -- New -- York -- City          computed: New, York (and the prompt's last token, the root)
    |     |        `-- State          scored after the root: New, Boston; after New: York, Jersey;
    |     `--- Jersey                 after York: City, State
    `-- Boston

The last token of an option is scored and not computed, unless another option goes on after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Walk:
    """`tokens`: of the trie, from its root on. After the first `start`, `start + 1`, ... and all of
    them `targets` are scored; what stands before belongs to another walk."""

    tokens: Ids
    start: int
    targets: tuple[Ids, ...]

    def after(self, tokens: Ids) -> "Walk":
        """The same, of a trie whose root these tokens lead to the root of this one."""
        return Walk(tokens + self.tokens, len(tokens) + self.start, self.targets)


class OptionTrie:
    """Nodes are numbered parents first; the root is 0."""

    def __init__(self, options: Sequence[Ids]) -> None:
        self._children: list[dict[int, int]] = [{}]
        self._heights = [0]  # tokens that still follow, at most
        for option in options:
            node = 0
            for at, token in enumerate(option):
                self._heights[node] = max(self._heights[node], len(option) - at)
                if token not in self._children[node]:
                    self._children[node][token] = len(self._children)
                    self._children.append({})
                    self._heights.append(0)
                node = self._children[node][token]

    def walks(self, *, from_root: bool) -> list[Walk]:
        """Fewest walks that score all children of all nodes, of the root's only where `from_root`
        (something stands before it). A walk begins where an earlier one leaves it, and the longest
        come first, so that a walk needs few others before it."""
        begins = [((), 0)] if from_root else self._forks((), 0)
        walks: list[Walk] = []
        for before, node in begins:  # grows
            if not self._children[node]:
                continue
            walk, others = self._walk(before, node)
            walks.append(walk)
            begins += others
        return walks

    def _walk(self, before: Ids, node: int) -> tuple[Walk, list[tuple[Ids, int]]]:
        tokens, targets = before, [tuple(self._children[node])]
        others: list[tuple[Ids, int]] = []
        while self._heights[node] > 1:
            (tokens, node), *rest = self._forks(tokens, node)
            others += rest
            targets.append(tuple(self._children[node]))
        return Walk(tokens, len(before), tuple(targets)), others

    def _forks(self, before: Ids, node: int) -> list[tuple[Ids, int]]:
        """The children that have children, the longest way first."""
        inner = [(token, child) for token, child in self._children[node].items()]
        inner = [(token, child) for token, child in inner if self._children[child]]
        inner.sort(key=lambda pair: -self._heights[pair[1]])
        return [((*before, token), child) for token, child in inner]
