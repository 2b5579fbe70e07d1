"""The tokens of a vocabulary as a byte trie in flat numpy arrays, level by level.

Knows bytes, not what tokens mean, and no automaton.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class TokenTrie:
    """Nodes in breadth-first order, so that levels and the children of a node lie side by side.

    byte: uint8 [nodes], the byte that leads to the node (node 0 is the root: unused);
    parent: int32 [nodes], relative to the first node of the level above (the root's: unused);
    first_child: int32 [nodes + 1], the children of node i are first_child[i]:first_child[i + 1];
    levels: the first node of each level, then the number of nodes;
    token: int32 [nodes], the lowest token id with the node's bytes, or -1;
    token_nodes: int32 [tokens], the nodes that have a token;
    twins: int32 [n, 2], (token, another token with the same bytes).
    """

    byte: NDArray[np.uint8]
    parent: IntArray
    first_child: IntArray
    levels: tuple[int, ...]
    token: IntArray
    token_nodes: NDArray[np.intp]
    twins: IntArray

    @property
    def num_nodes(self) -> int:
        return len(self.byte)

    def child(self, node: int, byte: int) -> int:
        """Where a byte leads from a node; -1: nowhere."""
        first, last = self.first_child[node : node + 2].tolist()
        found = np.flatnonzero(self.byte[first:last] == byte)
        return first + int(found[0]) if len(found) else -1


def build_trie(token_bytes: Sequence[bytes | None]) -> TokenTrie:
    """The trie of all tokens that have bytes (None and b"" are left out)."""
    listed = sorted((text, token) for token, text in enumerate(token_bytes) if text)
    twins: list[tuple[int, int]] = []
    texts: list[bytes] = []
    ids: list[int] = []
    for text, token in listed:
        if texts and texts[-1] == text:
            twins.append((ids[-1], token))
        else:
            texts.append(text)
            ids.append(token)
    shared = np.array(
        [_common_prefix(a, b) for a, b in zip([b"", *texts], texts, strict=False)], np.int32
    )
    lengths = np.array([len(text) for text in texts], np.int32)
    bytes_by_level = [np.zeros(1, np.uint8)]
    parents = [np.zeros(1, np.int32)]
    levels = [0, 1]
    tokens = [np.full(1, -1, np.int32)]
    above = np.zeros(len(texts), np.int32)  # each text's place in the level above
    blob = np.frombuffer(b"".join(texts), np.uint8)
    starts = np.cumsum(lengths) - lengths
    rows = np.arange(len(texts))
    number = np.array(ids, np.int32)
    depth = 0
    while len(rows):
        # A text opens a node on this level unless it shares it with the text before it.
        opens = shared[rows] <= depth
        place = np.cumsum(opens, dtype=np.int32) - 1
        bytes_by_level.append(blob[starts[rows] + depth][opens])
        parents.append(above[rows][opens])
        done = lengths[rows] == depth + 1
        ended = np.full(int(place[-1]) + 1, -1, np.int32)
        ended[place[done]] = number[rows[done]]
        tokens.append(ended)
        above[rows] = place
        levels.append(levels[-1] + len(ended))
        rows = rows[~done]
        depth += 1
    token_of_node = np.concatenate(tokens)
    return TokenTrie(
        np.concatenate(bytes_by_level),
        np.concatenate(parents),
        _first_children(parents, levels),
        tuple(levels),
        token_of_node,
        np.flatnonzero(token_of_node >= 0),
        np.array(twins, np.int32).reshape(-1, 2),
    )


def _first_children(parents: list[IntArray], levels: list[int]) -> IntArray:
    counts = np.zeros(levels[-1], np.int32)
    for first, parent in zip(levels, parents[1:], strict=False):
        found = np.bincount(parent)
        counts[first : first + len(found)] = found
    return np.concatenate([[1], 1 + np.cumsum(counts)]).astype(np.int32)


def _common_prefix(a: bytes, b: bytes) -> int:
    limit = min(len(a), len(b))
    for i in range(limit):
        if a[i] != b[i]:
            return i
    return limit
