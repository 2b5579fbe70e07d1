"""Walking the token trie against an automaton: which tokens may come next, and where they lead."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .automaton import DEAD, Automaton
from .token_trie import IntArray, TokenTrie

# A level is walked as a whole while at least one in so many of its nodes may be alive: whole levels
# cost less per node than lists of nodes.
_SPARSE: Final = 8


@dataclass(frozen=True, eq=False)
class TokenWalk:
    """One vocabulary's trie against one automaton; changes neither."""

    trie: TokenTrie
    automaton: Automaton

    @cached_property
    def _columns(self) -> NDArray[np.uint8]:
        return self.automaton.byte_class[self.trie.byte]

    def from_one(self, state: int) -> tuple[IntArray, IntArray]:
        """The tokens allowed in `state` and the state after each (both int32 [n]).

        Of tokens with the same bytes only the lowest is listed.
        """
        trie, table = self.trie, self.automaton.next
        flat, width = table.ravel(), np.int32(table.shape[1])
        whole = np.full(trie.num_nodes, DEAD, np.int32)
        whole[0] = state
        first, last = 0, 1
        for end in trie.levels[2:]:
            states = whole[first:last]
            alive = np.flatnonzero(states >= 0)
            if len(alive) * _SPARSE < last - first or len(alive) == 0:
                break
            # DEAD times the width, plus a column, falls into the last row: DEAD again.
            entry = states[trie.parent[last:end]] * width
            entry += self._columns[last:end]
            np.take(flat, entry, out=whole[last:end], mode="wrap")
            first, last = last, end
        else:
            alive = np.zeros(0, np.intp)
        found = trie.token_nodes[: np.searchsorted(trie.token_nodes, last)]
        reached = whole[found]
        found, reached = found[reached >= 0], reached[reached >= 0]
        if not len(alive):
            return trie.token[found], reached
        below = self._from_nodes(alive + first, whole[first:last][alive])
        return (
            np.concatenate([trie.token[found], below.token]),
            np.concatenate([reached, below.state]),
        )

    def from_many(self, states: IntArray) -> "Walk":
        """The same from several distinct states at once; best where few tokens are allowed."""
        return self._from_nodes(np.zeros(len(states), np.intp), states)

    def _from_nodes(self, node: NDArray[np.intp], state: IntArray) -> "Walk":
        trie = self.trie
        origin = np.arange(len(node), dtype=np.int32)
        levels = [(origin[:0], origin[:0], origin[:0])]
        while True:
            begin = trie.first_child[node]
            count = trie.first_child[node + 1] - begin
            ends = np.cumsum(count)
            if not len(ends) or not ends[-1]:
                break
            node = np.arange(ends[-1]) + np.repeat(begin - (ends - count), count)
            reached = self.automaton.next[np.repeat(state, count), self._columns[node]]
            alive = reached >= 0
            node, state, origin = node[alive], reached[alive], np.repeat(origin, count)[alive]
            ends_token = trie.token[node] >= 0
            found = node[ends_token]
            levels.append((origin[ends_token], trie.token[found], state[ends_token]))
        origins, tokens, reached_states = zip(*levels, strict=True)
        return Walk(*map(np.concatenate, (origins, tokens, reached_states)))


@dataclass(frozen=True, eq=False)
class Walk:
    """Token `token[i]` leads from the state numbered `origin[i]` in the question to `state[i]`."""

    origin: IntArray
    token: IntArray
    state: IntArray
