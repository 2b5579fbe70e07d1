"""Packed rows of allowed tokens, one for each automaton state, made on demand and kept for reuse.

Bit t % 32 of word t // 32 of a row stands for token t.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .distance import NEVER
from .token_trie import IntArray
from .token_walk import TokenWalk
from .vocabulary import Vocabulary

DEFAULT_CACHE_MB: Final = 64


@dataclass(frozen=True, eq=False)
class MaskRow:
    """words: int32 [num_words]; most_needed: tokens to the end after the worst allowed token."""

    words: IntArray
    most_needed: int


class MaskCache:
    """Rows of many grammars, the least recently used dropped past a size; for any thread."""

    def __init__(self, max_mb: int = DEFAULT_CACHE_MB) -> None:
        self._max_bytes = max_mb * 2**20
        self._bytes = 0
        self._rows: OrderedDict[tuple[int, int], MaskRow] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> MaskRow | None:
        with self._lock:
            row = self._rows.get(key)
            if row is not None:
                self._rows.move_to_end(key)
            return row

    def put(self, key: tuple[int, int], row: MaskRow) -> None:
        with self._lock:
            if key not in self._rows:
                self._rows[key] = row
                self._bytes += row.words.nbytes
            while self._bytes > self._max_bytes and len(self._rows) > 1:
                _, oldest = self._rows.popitem(last=False)
                self._bytes -= oldest.words.nbytes

    @property
    def num_bytes(self) -> int:
        return self._bytes


def make_row(
    walk: TokenWalk, vocabulary: Vocabulary, distance: IntArray, state: int, most_after: int
) -> MaskRow:
    """The row of `state`: tokens after which the end is at most `most_after` tokens away.

    End tokens are set if and only if the state accepts.
    """
    tokens, reached = walk.from_one(state)
    needed = distance[reached]
    fits = needed <= min(most_after, NEVER - 1)
    allowed = np.zeros(vocabulary.num_words * 32, np.bool_)
    allowed[tokens[fits]] = True
    twins = walk.trie.twins
    allowed[twins[:, 1]] = allowed[twins[:, 0]]
    allowed[list(vocabulary.eos_ids)] = walk.automaton.accepting[state]
    words: NDArray[np.int32] = np.packbits(allowed, bitorder="little").view("<i4")
    return MaskRow(words, int(needed[fits].max(initial=0)))
