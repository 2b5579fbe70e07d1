"""The finished byte automaton as numpy tables: immutable, picklable, shared by all requests.

Knows nothing of tokens or of where it came from. A run of states that each have one way on is kept
as one byte string, so that forced text is read off, not walked.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .dfa import Dfa, Row
from .limits import Meter

DEAD: Final = -1
"""Entry of `next` where a byte is not allowed."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """State 0 is the start; every state can still accept.

    byte_class: uint8 [256], the column of each byte;
    next: int32 [states + 1, classes], the next state, or DEAD; the last row is that of DEAD, so
    that a walk may go on from there;
    accepting: bool [states];
    runs: the forced runs, each (its bytes, the state after it); a run ends at a choice, at an
    accepting state, or where several runs meet;
    run_of: int32 [states], the run that a state is in, or -1;
    run_offset: int32 [states], how many of that run's bytes lie before the state.
    """

    byte_class: NDArray[np.uint8]
    next: NDArray[np.int32]
    accepting: NDArray[np.bool_]
    runs: tuple[tuple[bytes, int], ...]
    run_of: NDArray[np.int32]
    run_offset: NDArray[np.int32]

    @property
    def num_states(self) -> int:
        return len(self.accepting)

    def step(self, state: int, text: bytes) -> int:
        """The state after `text` from `state`, or DEAD."""
        for byte in text:
            state = int(self.next[state, self.byte_class[byte]])
            if state < 0:
                return DEAD
        return state

    def accepts(self, text: bytes) -> bool:
        state = self.step(0, text)
        return state >= 0 and bool(self.accepting[state])

    def forced(self, state: int) -> tuple[bytes, int]:
        """The bytes that must follow `state`, and the state after them (`b""` where it is free)."""
        parts: list[bytes] = []
        while (run := self.run_of[state]) >= 0:
            text, end = self.runs[run]
            parts.append(text[self.run_offset[state] :])
            state = end
        return b"".join(parts), state

    def is_end(self, state: int) -> bool:
        """Whether `state` accepts and nothing may follow."""
        return bool(self.accepting[state]) and not bool((self.next[state] >= 0).any())

    def next_bytes(self, state: int) -> NDArray[np.intp]:
        """The bytes allowed in `state`, ascending."""
        return np.flatnonzero(self.next[state][self.byte_class] >= 0)


def build_tables(dfa: Dfa, meter: Meter) -> Automaton:
    """The tables of a trimmed, minimal automaton that accepts something."""
    byte_class, columns = _byte_classes(dfa.rows)
    table = np.full((len(dfa.rows) + 1, columns), DEAD, np.int32)
    for state, row in enumerate(dfa.rows):
        for low, high, target in row:
            table[state, byte_class[low] : byte_class[high] + 1] = target
        if not state & 1023:
            meter.check_time()
    return Automaton(byte_class, table, np.array(dfa.accepting, np.bool_), *_runs(dfa))


def _byte_classes(rows: list[Row]) -> tuple[NDArray[np.uint8], int]:
    """Bytes that no row tells apart share a column; columns ascend with the bytes."""
    cuts = np.zeros(257, np.bool_)
    for row in rows:
        for low, high, _ in row:
            cuts[low] = cuts[high + 1] = True
    cuts[0] = False
    classes = np.cumsum(cuts[:256])
    return classes.astype(np.uint8), int(classes[-1]) + 1


def _runs(
    dfa: Dfa,
) -> tuple[tuple[tuple[bytes, int], ...], NDArray[np.int32], NDArray[np.int32]]:
    """Forced runs; one ends where several meet, so their lengths sum to the states in them."""
    forced: dict[int, tuple[int, int]] = {}
    entries = [0] * len(dfa.rows)
    entries[dfa.start] = 1
    for state, row in enumerate(dfa.rows):
        for _, _, target in row:
            entries[target] += 1
        if len(row) == 1 and row[0][0] == row[0][1] and not dfa.accepting[state]:
            forced[state] = (row[0][0], row[0][2])
    inner = {to for _, to in forced.values() if to in forced and entries[to] == 1}
    runs: list[tuple[bytes, int]] = []
    run_of = np.full(len(dfa.rows), -1, np.int32)
    run_offset = np.zeros(len(dfa.rows), np.int32)
    for head in forced.keys() - inner:
        members = [head]
        while (follows := forced[members[-1]][1]) in inner:
            members.append(follows)
        run_of[members] = len(runs)
        run_offset[members] = np.arange(len(members))
        runs.append((bytes(forced[state][0] for state in members), follows))
    return tuple(runs), run_of, run_offset
