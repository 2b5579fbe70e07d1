"""Merging states that accept the same continuations; knows nothing of how they arose."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .dfa import Dfa, bytes_to_accept, most_bytes
from .limits import Meter

# A round over all states is worth its cost while it makes one new block per so many states.
_FEW: Final = 32
_ODD: Final = np.random.default_rng(0x5A9).integers(1, 2**63, (2, 256), np.uint64) * 2 + 1


def minimize(dfa: Dfa, meter: Meter) -> Dfa:
    """The smallest equal automaton of a trimmed one, by Moore's refinement.

    The first partition is by the fewest and the most bytes that may follow, properties of the
    language: they tell nearly all states of a long chain apart at once, where plain refinement
    takes one round for each. A round compares rows by two independent 64-bit sums over their
    targets' blocks. Once rounds split little (a chain of loops is told apart link by link), only
    the states before what was split are looked at again.
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
        before, blocks = blocks, _renumbered(np.ascontiguousarray(stacked).view("V24").ravel())
        grown = int(blocks.max()) + 1 - count
        if grown == 0:
            return _quotient(dfa, blocks.tolist())
        count += grown
        if grown * _FEW < len(blocks):
            split = _split_off(before, blocks)
            return _quotient(dfa, _refined_locally(table, blocks.tolist(), split, meter))


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


def _split_off(before: NDArray[np.int64], blocks: NDArray[np.int64]) -> list[int]:
    """The states whose block is not the largest part of the block that they were in before."""
    sizes = np.bincount(blocks)
    parent = np.zeros(len(sizes), np.int64)
    parent[blocks] = before
    largest = np.zeros(int(before.max()) + 1, np.int64)
    by_size = np.argsort(sizes)
    largest[parent[by_size]] = by_size  # of equal indices the last one is written
    found: list[int] = np.flatnonzero(largest[before] != blocks).tolist()
    return found


def _refined_locally(
    table: NDArray[np.int32], blocks: list[int], split: list[int], meter: Meter
) -> list[int]:
    """Refine to the end, looking only at the states before `split`, then before what these split.

    The largest part of a block keeps its number, so that a state is renumbered few times; what has
    no renumbered target still agrees with the rest of its block.
    """
    missing = len(blocks)
    targets = table.ravel()
    order = np.argsort(targets, kind="stable")
    origins = order // table.shape[1]
    begin = np.searchsorted(targets[order], np.arange(missing + 1)).tolist()
    of_state = [*blocks, -1]
    members: list[set[int]] = [set() for _ in range(max(blocks) + 1)]
    for state, block in enumerate(blocks):
        members[block].add(state)
    while split:
        meter.check_time()
        seen: set[int] = set()
        for state in split:
            seen.update(origins[begin[state] : begin[state + 1]].tolist())
        affected = list(seen)
        parts: dict[int, dict[tuple[int, ...], set[int]]] = {}
        for state, row in zip(affected, table[affected].tolist(), strict=True):
            key = tuple(map(of_state.__getitem__, row))
            parts.setdefault(of_state[state], {}).setdefault(key, set()).add(state)
        split = []
        for block, by_key in parts.items():
            for part in _smaller_parts(members[block], list(by_key.values())):
                for state in part:
                    of_state[state] = len(members)
                members.append(part)
                split.extend(part)
    return of_state[:missing]


def _smaller_parts(block: set[int], parts: list[set[int]]) -> list[set[int]]:
    """Take all but the largest of `parts` and the remainder out of `block`, and return them."""
    parts.sort(key=len)
    remaining = len(block) - sum(map(len, parts))
    if remaining < len(parts[-1]):
        kept = parts.pop()
        if remaining:
            parts.append(block.difference(kept, *parts))
    for part in parts:
        block -= part
    return parts


def _quotient(dfa: Dfa, blocks: list[int]) -> Dfa:
    """One state for each block, numbered by first appearance (the start stays 0)."""
    numbers: dict[int, int] = {}
    chosen: list[int] = []
    of_state: list[int] = []
    for state, block in enumerate(blocks):
        if block not in numbers:
            numbers[block] = len(chosen)
            chosen.append(state)
        of_state.append(numbers[block])
    rows = [[(lo, hi, of_state[to]) for lo, hi, to in dfa.rows[state]] for state in chosen]
    return Dfa(rows, [dfa.accepting[state] for state in chosen])
