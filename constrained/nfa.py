"""A nondeterministic byte automaton under construction; knows nothing of regexes or schemas.

It is built from the end backwards: each method takes the state `then` that follows, and returns
the state that reads the new part and goes on to `then`. So what follows a part is complete when the
part is built (lookahead needs that), and parts with the same sequel share it.
"""

from collections.abc import Iterable
from typing import Final

from .code_points import Ranges
from .dfa import Dfa
from .limits import Meter
from .utf8 import DONE, byte_dag

FINAL: Final = 0
"""The state in which the text is accepted."""


class Nfa:
    """States are numbers; written only by the builders of one compilation.

    edges[s]: (low byte, high byte, target), disjoint within one state; jumps[s]: targets of empty
    steps; at_start[s], at_end[s]: targets of empty steps open only before the first byte or after
    the last one.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.edges: list[tuple[tuple[int, int, int], ...]] = []
        self.jumps: list[tuple[int, ...]] = []
        self.at_start: dict[int, int] = {}
        self.at_end: dict[int, int] = {}
        self._character_states: dict[tuple[Ranges, int], int] = {}
        self.state()

    def state(
        self, edges: tuple[tuple[int, int, int], ...] = (), jumps: tuple[int, ...] = ()
    ) -> int:
        self.meter.add()
        self.edges.append(edges)
        self.jumps.append(jumps)
        return len(self.edges) - 1

    def text(self, text: bytes, then: int) -> int:
        for byte in reversed(text):
            then = self.state(((byte, byte, then),))
        return then

    def character(self, ranges: Ranges, then: int) -> int:
        """One character of a set; the empty set gives a state from which nothing is accepted."""
        key = (ranges, then)
        if key not in self._character_states:
            made: list[int] = []
            for node in byte_dag(ranges) if ranges else ((),):
                made.append(
                    self.state(
                        tuple((low, high, then if c == DONE else made[c]) for low, high, c in node)
                    )
                )
            self._character_states[key] = made[-1]
        return self._character_states[key]

    def either(self, options: Iterable[int]) -> int:
        distinct = tuple(dict.fromkeys(options))
        return distinct[0] if len(distinct) == 1 else self.state(jumps=distinct)

    def loop(self) -> int:
        """A state to come back to; `close_loop` says where it leads."""
        return self.state()

    def close_loop(self, loop: int, *targets: int) -> int:
        self.jumps[loop] = targets
        return loop

    def one_of(self, texts: Iterable[bytes], then: int) -> int:
        """One of many texts, by a trie: deterministic, and linear in their total length."""
        root: dict[int, object] = {}
        for text in texts:
            node = root
            for byte in text:
                node = node.setdefault(byte, {})  # type: ignore[assignment]
            node[-1] = None
        return self._trie_state(root, then)

    def _trie_state(self, root: dict[int, object], then: int) -> int:
        made: dict[int, int] = {}
        stack: list[tuple[dict[int, object], bool]] = [(root, False)]
        while stack:
            node, ready = stack.pop()
            children = [(b, c) for b, c in node.items() if isinstance(c, dict)]
            if not ready:
                stack.append((node, True))
                stack.extend((child, False) for _, child in children)
                continue
            if -1 in node and not children:
                made[id(node)] = then
                continue
            edges = tuple((byte, byte, made[id(child)]) for byte, child in sorted(children))
            made[id(node)] = self.state(edges, (then,) if -1 in node else ())
        return made[id(root)]

    def embed(self, dfa: Dfa, then: int) -> int:
        """A finished automaton as a part: where it accepts, `then` may follow."""
        first = len(self.edges)
        for number, row in enumerate(dfa.rows):
            edges = tuple((low, high, first + target) for low, high, target in row)
            self.state(edges, (then,) if dfa.accepting[number] else ())
        return first + dfa.start
