"""How many tokens each state of an automaton still needs; for budgets.

Exact where the search is affordable, by walking the vocabulary once from every state. For automata
with very many states, or many that allow nearly every token, it is an upper bound instead: the best
split into tokens of one shortest way in bytes. The bound is consistent (from each state some token
leads to a state that needs one token less), so outputs still finish within a budget; only budgets
between the true minimum and the bound are refused without need.
"""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .automaton import Automaton
from .token_trie import IntArray
from .token_walk import TokenWalk
from .vocabulary import Vocabulary

NEVER: Final = 2**30
"""Where no sequence of tokens can finish."""

_WIDE_BYTES: Final = 64
_MOST_WIDE_NODES: Final = 25_000_000
_MOST_STATES: Final = 20_000
_CHUNK: Final = 256
_LONGEST_TOKEN: Final = 32


def tokens_to_accept(walk: TokenWalk, vocabulary: Vocabulary) -> tuple[IntArray, bool]:
    """int32 [states]: fewest tokens to an accepting state (NEVER: none); and whether it is exact.

    The end token is not counted.
    """
    wide = _wide_states(walk.automaton)
    nodes = int(wide.sum()) * walk.trie.num_nodes
    if walk.automaton.num_states > _MOST_STATES or nodes > _MOST_WIDE_NODES:
        bound = _along_shortest_bytes(walk.automaton, vocabulary)
        if (bound < NEVER).all():
            return bound, False
    return _by_tokens(walk, wide), True


def _wide_states(automaton: Automaton) -> NDArray[np.bool_]:
    """Whether a state allows so many bytes that its walk covers much of the vocabulary."""
    sizes = np.bincount(automaton.byte_class, minlength=automaton.next.shape[1])
    found: NDArray[np.bool_] = (automaton.next[:-1] >= 0) @ sizes > _WIDE_BYTES
    return found


def _by_tokens(walk: TokenWalk, wide: NDArray[np.bool_]) -> IntArray:
    """Breadth-first search over tokens, backwards from acceptance."""
    count = walk.automaton.num_states
    edges = [np.zeros(0, np.int64)]
    narrow = np.flatnonzero(~wide).astype(np.int32)
    for first in range(0, len(narrow), _CHUNK):
        states = narrow[first : first + _CHUNK]
        found = walk.from_many(states)
        edges.append(np.unique(found.state.astype(np.int64) * count + states[found.origin]))
    for state in np.flatnonzero(wide).tolist():
        _, reached = walk.from_one(state)
        present = np.zeros(count, np.bool_)
        present[reached] = True
        edges.append(np.flatnonzero(present) * count + state)
    target, origin = np.divmod(np.sort(np.concatenate(edges)), count)
    begin = np.searchsorted(target, np.arange(count + 1))
    distance = np.full(count, NEVER, np.int32)
    frontier = np.flatnonzero(walk.automaton.accepting)
    distance[frontier] = 0
    step = 0
    while len(frontier):
        step += 1
        before = np.unique(np.concatenate([origin[begin[s] : begin[s + 1]] for s in frontier]))
        frontier = before[distance[before] == NEVER]
        distance[frontier] = step
    return distance


def _along_shortest_bytes(automaton: Automaton, vocabulary: Vocabulary) -> IntArray:
    """For each state the fewest tokens that spell one shortest way in bytes to acceptance.

    The ways form a tree (each continues the way of the next state), which makes it consistent.
    """
    byte_of, next_of, order = _shortest_ways(automaton)
    spelled = vocabulary.spelled
    longest = min(_LONGEST_TOKEN, max(map(len, spelled), default=0))
    distance = np.full(automaton.num_states, NEVER, np.int32)
    for state in order:
        if automaton.accepting[state]:
            distance[state] = 0
            continue
        text, here = b"", state
        for _ in range(longest):
            if here not in next_of:
                break
            text += byte_of[here]
            here = next_of[here]
            if text in spelled and distance[here] + 1 < distance[state]:
                distance[state] = distance[here] + 1
    return distance


def _shortest_ways(automaton: Automaton) -> tuple[dict[int, bytes], dict[int, int], list[int]]:
    """For each state that does not accept, the first byte and state of a shortest way; and all
    states by its length."""
    byte_of_class = {int(c): byte for byte, c in reversed(list(enumerate(automaton.byte_class)))}
    before: list[list[tuple[int, int]]] = [[] for _ in range(automaton.num_states)]
    for state, column in zip(*np.nonzero(automaton.next >= 0), strict=True):
        before[automaton.next[state, column]].append((int(state), int(column)))
    order = np.flatnonzero(automaton.accepting).tolist()
    seen = set(order)
    byte_of: dict[int, bytes] = {}
    next_of: dict[int, int] = {}
    queue = deque(order)
    while queue:
        state = queue.popleft()
        for previous, column in before[state]:
            if previous not in seen:
                seen.add(previous)
                order.append(previous)
                byte_of[previous] = bytes([byte_of_class[column]])
                next_of[previous] = state
                queue.append(previous)
    return byte_of, next_of, order
