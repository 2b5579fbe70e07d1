"""Subset construction: from `Nfa` to `Dfa`, with counted steps."""

from collections.abc import Iterable
from typing import Final

from .dfa import Dfa, Row, trimmed
from .errors import Exponential, Unsupported
from .nfa import FINAL, Nfa

# A subset construction that makes this many states per state of its source is exponential in the
# pattern; it is stopped long before the limit of states, which bounds honest large automata.
_GROWTH: Final = 50
_GROWTH_FLOOR: Final = 20_000

Subset = frozenset[int]


def determinize(nfa: Nfa, start: int, *, whole_text: bool = True) -> Dfa:
    """The trimmed automaton of what `nfa` accepts from `start`; raises LimitExceeded.

    whole_text: `start` stands before the first byte of the text. Otherwise it may stand anywhere,
    and Unsupported is raised where the answer would depend on that ('^').
    """
    return _SubsetConstruction(nfa, whole_text).run(start)


class _SubsetConstruction:
    def __init__(self, nfa: Nfa, whole_text: bool) -> None:
        self._nfa = nfa
        self._whole_text = whole_text
        self._closures: dict[int, Subset] = {}
        self._numbers: dict[Subset, int] = {}
        self._subsets: list[Subset] = []
        self._at_end: dict[int, bool] = {}
        self._most = max(_GROWTH_FLOOR, _GROWTH * len(nfa.edges))

    def run(self, start: int) -> Dfa:
        self._number(self._reach((start,), at_start=True))
        rows: list[Row] = []
        for subset in self._subsets:  # grows as rows are made
            rows.append(self._row(subset))
        return trimmed(Dfa(rows, [FINAL in subset for subset in self._subsets]))

    def _row(self, subset: Subset) -> Row:
        edges = [edge for state in subset for edge in self._nfa.edges[state]]
        if len(subset) > 1:
            return self._swept(edges)
        return [(low, high, self._number(self._closure(to))) for low, high, to in edges]

    def _swept(self, edges: list[tuple[int, int, int]]) -> Row:
        """Overlapping ranges cut into disjoint ones, each with the union of its targets."""
        opens: dict[int, list[int]] = {}
        closes: dict[int, list[int]] = {}
        for low, high, target in edges:
            opens.setdefault(low, []).append(target)
            closes.setdefault(high + 1, []).append(target)
        counts: dict[int, int] = {}
        row: Row = []
        cuts = sorted(opens.keys() | closes.keys())
        for at, following in zip(cuts, cuts[1:], strict=False):
            for target in closes.get(at, ()):
                counts[target] -= 1
                if not counts[target]:
                    del counts[target]
            for target in opens.get(at, ()):
                counts[target] = counts.get(target, 0) + 1
            if counts:
                union = frozenset().union(*map(self._closure, counts))
                row.append((at, following - 1, self._number(union)))
        return row

    def _number(self, subset: Subset) -> int:
        number = self._numbers.get(subset)
        if number is None:
            number = self._numbers[subset] = len(self._subsets)
            self._subsets.append(subset)
            self._nfa.meter.add()
            if number >= self._most:
                raise Exponential(
                    f"its automaton grows exponentially: {len(self._nfa.edges)} states became "
                    f"more than {self._most}"
                )
        return number

    def _closure(self, state: int) -> Subset:
        closure = self._closures.get(state)
        if closure is None:
            closure = self._closures[state] = self._reach((state,), at_start=False)
        return closure

    def _reach(self, states: Iterable[int], *, at_start: bool) -> Subset:
        """What empty steps reach: states that read bytes, and FINAL where the text may end."""
        nfa = self._nfa
        seen = set(states)
        stack = list(seen)
        kept: list[int] = []
        while stack:
            state = stack.pop()
            if state == FINAL or nfa.edges[state]:
                kept.append(state)
            if state in nfa.at_end and self._ends(nfa.at_end[state]):
                kept.append(FINAL)
            targets = nfa.jumps[state]
            if state in nfa.at_start:
                if not self._whole_text:
                    raise Unsupported("'^' inside or after lookahead or '$' is not supported")
                if at_start:
                    targets = (*targets, nfa.at_start[state])
            for target in targets:
                if target not in seen:
                    seen.add(target)
                    stack.append(target)
        return frozenset(kept)

    def _ends(self, state: int) -> bool:
        """Whether FINAL is reached from `state` with no further byte, after the last one."""
        if state not in self._at_end:
            seen, stack = {state}, [state]
            while stack:
                here = stack.pop()
                targets = list(self._nfa.jumps[here])
                if here in self._nfa.at_end:
                    targets.append(self._nfa.at_end[here])
                stack.extend(t for t in targets if t not in seen)
                seen.update(targets)
            self._at_end[state] = FINAL in seen
        return self._at_end[state]
