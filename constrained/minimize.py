"""Merging states that accept the same continuations; knows nothing of how they arose."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .dfa import Dfa, bytes_to_accept, most_bytes
from .limits import Meter

_ODD: Final = np.random.default_rng(0x5A9).integers(1, 2**63, (2, 256), np.uint64) * 2 + 1


def minimize(dfa: Dfa, meter: Meter) -> Dfa:
    """The smallest equal automaton of a trimmed one, by Moore's refinement.

    The first partition is by the fewest and the most bytes that may follow, properties of the
    language: they tell nearly all states of a long chain apart at once, where plain refinement
    takes one round for each. A round compares rows by two independent 64-bit sums over their
    targets' blocks.
    """
    table, width = _dense(dfa)
    lengths = np.array([bytes_to_accept(dfa), most_bytes(dfa)], np.int32).T
    blocks = _renumbered(np.ascontiguousarray(lengths).view(np.int64).ravel())
    count = int(blocks.max()) + 1
    while True:
        meter.check_time()
        keys = _mixed(np.append(blocks, np.int64(count)))  # the last one is for a missing edge
        sums = [(keys[lane][table] * _ODD[lane, :width]).sum(axis=1) for lane in range(2)]
        stacked = np.stack([blocks.astype(np.uint64), *sums], axis=1)
        blocks = _renumbered(np.ascontiguousarray(stacked).view("V24").ravel())
        if int(blocks.max()) + 1 == count:
            return _quotient(dfa, blocks)
        count = int(blocks.max()) + 1


def _dense(dfa: Dfa) -> tuple[NDArray[np.int32], int]:
    """Targets [states, byte classes]; the number of states stands for a missing edge."""
    cuts = np.zeros(257, np.bool_)
    for row in dfa.rows:
        for low, high, _ in row:
            cuts[low] = cuts[high + 1] = True
    cuts[0] = False
    classes = np.cumsum(cuts)
    width = int(classes[255]) + 1
    table = np.full((len(dfa.rows), width), len(dfa.rows), np.int32)
    for state, row in enumerate(dfa.rows):
        for low, high, target in row:
            table[state, classes[low] : classes[high] + 1] = target
    return table, width


def _mixed(blocks: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Two well mixed 64-bit values for each block number (splitmix64): [2, blocks]."""
    lanes = np.array([[0x9E3779B97F4A7C15], [0xD1B54A32D192ED03]], np.uint64)
    mixed = (blocks.astype(np.uint64) + np.uint64(1)) * lanes
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _renumbered(keys: NDArray[np.generic]) -> NDArray[np.int64]:
    blocks: NDArray[np.int64] = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    return blocks


def _quotient(dfa: Dfa, blocks: NDArray[np.int64]) -> Dfa:
    """One state for each block, numbered by first appearance (the start stays 0)."""
    numbers: dict[int, int] = {}
    chosen: list[int] = []
    of_state: list[int] = []
    for state, block in enumerate(blocks.tolist()):
        if block not in numbers:
            numbers[block] = len(chosen)
            chosen.append(state)
        of_state.append(numbers[block])
    rows = [[(lo, hi, of_state[to]) for lo, hi, to in dfa.rows[state]] for state in chosen]
    return Dfa(rows, [dfa.accepting[state] for state in chosen])
