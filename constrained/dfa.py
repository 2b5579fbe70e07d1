"""A deterministic automaton as lists of byte ranges, and the operations on it.

The form between the parts (`Nfa`) and the tables (`Automaton`); knows neither.
"""

from collections import deque
from dataclasses import dataclass

from .limits import Meter

Row = list[tuple[int, int, int]]
"""Edges (low byte, high byte, target) of one state: sorted and disjoint; a gap rejects."""


@dataclass(frozen=True)
class Dfa:
    rows: list[Row]
    accepting: list[bool]
    start: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether no text is accepted (true only of a trimmed automaton with no states)."""
        return not self.rows


def conjunction(a: Dfa, b: Dfa, meter: Meter, *, without_b: bool = False) -> Dfa:
    """The texts that `a` accepts and `b` accepts (or, `without_b`, does not accept); trimmed."""
    dead = len(b.rows)
    b_rows = [*b.rows, []]
    b_accepting = [*b.accepting, False]
    if not a.rows:
        return a
    first = (a.start, b.start if b.rows else dead)
    numbers = {first: 0}
    queue = deque([first])
    rows: list[Row] = []
    accepting: list[bool] = []
    while queue:
        p, q = queue.popleft()
        row: Row = []
        for low, high, p_next, q_next in _overlaps(a.rows[p], b_rows[q], dead):
            if q_next == dead and not without_b:
                continue
            pair = (p_next, q_next)
            if pair not in numbers:
                meter.add()
                numbers[pair] = len(numbers)
                queue.append(pair)
            row.append((low, high, numbers[pair]))
        rows.append(row)
        accepting.append(a.accepting[p] and b_accepting[q] is not without_b)
    return trimmed(Dfa(rows, accepting))


def _overlaps(a: Row, b: Row, dead: int) -> list[tuple[int, int, int, int]]:
    """The ranges of `a`, cut where the target in `b` changes; `dead` where `b` has none."""
    out: list[tuple[int, int, int, int]] = []
    j = 0
    for low, high, target in a:
        at = low
        while at <= high:
            while j < len(b) and b[j][1] < at:
                j += 1
            if j == len(b) or b[j][0] > high:
                out.append((at, high, target, dead))
                break
            if b[j][0] > at:
                out.append((at, b[j][0] - 1, target, dead))
                at = b[j][0]
            stop = min(high, b[j][1])
            out.append((at, stop, target, b[j][2]))
            at = stop + 1
    return out


def _predecessors(dfa: Dfa) -> list[list[int]]:
    before: list[list[int]] = [[] for _ in dfa.rows]
    for state, row in enumerate(dfa.rows):
        for target in {target for _, _, target in row}:
            before[target].append(state)
    return before


def bytes_to_accept(dfa: Dfa) -> list[int]:
    """For each state the fewest bytes to an accepting one; -1 where there is no way."""
    before = _predecessors(dfa)
    distance = [0 if accepting else -1 for accepting in dfa.accepting]
    queue = deque(state for state, accepting in enumerate(dfa.accepting) if accepting)
    while queue:
        state = queue.popleft()
        for previous in before[state]:
            if distance[previous] < 0:
                distance[previous] = distance[state] + 1
                queue.append(previous)
    return distance


def most_bytes(dfa: Dfa) -> list[int]:
    """For each state of a trimmed automaton the most bytes that may follow; -1: without end."""
    before = _predecessors(dfa)
    waits_for = [len({target for _, _, target in row}) for row in dfa.rows]
    most = [-1] * len(dfa.rows)
    ready = deque(state for state, count in enumerate(waits_for) if not count)
    while ready:
        state = ready.popleft()
        most[state] = 1 + max((most[target] for _, _, target in dfa.rows[state]), default=-1)
        for previous in before[state]:
            waits_for[previous] -= 1
            if not waits_for[previous]:
                ready.append(previous)
    return most


def trimmed(dfa: Dfa) -> Dfa:
    """Without the states that cannot accept any more; numbered from the start, breadth first."""
    alive = bytes_to_accept(dfa)
    if not dfa.rows or alive[dfa.start] < 0:
        return Dfa([], [])
    numbers = {dfa.start: 0}
    order = [dfa.start]
    for state in order:
        for _, _, target in dfa.rows[state]:
            if alive[target] >= 0 and target not in numbers:
                numbers[target] = len(order)
                order.append(target)
    rows = [
        _merged([(lo, hi, numbers[to]) for lo, hi, to in dfa.rows[state] if to in numbers])
        for state in order
    ]
    return Dfa(rows, [dfa.accepting[state] for state in order])


def _merged(row: Row) -> Row:
    """Neighbouring ranges with one target become one range."""
    out: Row = []
    for low, high, target in row:
        if out and out[-1][2] == target and out[-1][1] + 1 == low:
            out[-1] = (out[-1][0], high, target)
        else:
            out.append((low, high, target))
    return out
