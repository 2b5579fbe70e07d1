"""Sets of scalar values as small acyclic byte automata; knows nothing of regexes.

A set becomes a DAG of byte ranges in which equal tails are shared, so that a token that ends
inside a character is followed exactly.
"""

from functools import lru_cache
from typing import Final

from .code_points import Ranges, intersection

DONE: Final = -1
"""Child number that means: the character is complete."""

ByteNode = tuple[tuple[int, int, int], ...]
"""Edges (low byte, high byte, child), sorted and disjoint."""


@lru_cache(maxsize=4096)
def byte_dag(ranges: Ranges) -> tuple[ByteNode, ...]:
    """Nodes whose last is the root; children come before parents. `ranges` is not empty."""
    nodes: list[ByteNode] = []
    known: dict[ByteNode, int] = {}
    tails: dict[tuple[Ranges, int], int] = {}

    def intern(node: ByteNode) -> int:
        if node not in known:
            known[node] = len(nodes)
            nodes.append(node)
        return known[node]

    def tail(values: Ranges, count: int) -> int:
        """The node that reads `count` continuation bytes whose payload is in `values`."""
        if count == 0:
            return DONE
        if (values, count) not in tails:
            tails[values, count] = intern(edges(values, count, 0x80))
        return tails[values, count]

    def edges(values: Ranges, count: int, lead: int) -> ByteNode:
        """Edges on the byte that holds the payload above the last `count - 1` bytes."""
        size = 64 ** (count - 1)
        parts: dict[int, list[tuple[int, int]]] = {}
        for low, high in values:
            for digit in range(low // size, high // size + 1):
                base = digit * size
                part = (max(low, base) - base, min(high, base + size - 1) - base)
                parts.setdefault(digit, []).append(part)
        out: list[tuple[int, int, int]] = []
        for digit in sorted(parts):
            child, byte = tail(tuple(parts[digit]), count - 1), lead + digit
            if out and out[-1][1] == byte - 1 and out[-1][2] == child:
                out[-1] = (out[-1][0], byte, child)
            else:
                out.append((byte, byte, child))
        return tuple(out)

    root: list[tuple[int, int, int]] = []
    for first, last, count, lead in _LENGTHS:
        values = intersection(ranges, ((first, last),))
        if count == 1:
            root += [(low, high, DONE) for low, high in values]
        elif values:
            root += edges(values, count, lead)
    intern(tuple(root))
    return tuple(nodes)


# (first and last scalar value, bytes, lead byte of payload 0)
_LENGTHS: Final = (
    (0x0, 0x7F, 1, 0x00),
    (0x80, 0x7FF, 2, 0xC0),
    (0x800, 0xFFFF, 3, 0xE0),
    (0x10000, 0x10FFFF, 4, 0xF0),
)
