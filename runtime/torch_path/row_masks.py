"""Which tokens each row may take, as packed bitmasks: its grammar's, without what is banned.

Owns: when two rows have the same mask. Knows no device.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...constrained import GrammarState
from ..batch import Sampling
from ..masks import ban
from .mask_table import MaskTable


class RowMasks:
    def __init__(self, vocab_size: int) -> None:
        self._all = np.full(-(-vocab_size // 32), -1, dtype=np.int32)  # every token allowed
        if vocab_size % 32:
            self._all[-1] = (1 << vocab_size % 32) - 1

    def filled(self, wanted: Sequence[Sampling]) -> NDArray[np.int32]:
        """int32 [len(wanted), words]."""
        masks = np.tile(self._all, (len(wanted), 1))
        for mask, sampling in zip(masks, wanted, strict=True):
            if sampling.grammar is not None:
                sampling.grammar.fill_mask(mask, sampling.budget)
            ban(mask, sampling.banned)
        return masks

    def in_table(self, table: MaskTable, wanted: Sequence[Sampling]) -> list[int]:
        """Where in the table each one's mask is: found there, or made and copied. There are no more
        wanted than the table has rows."""
        places = [None if (key := _key(s)) is None else table.find(key) for s in wanted]
        cold = [number for number, place in enumerate(places) if place is None]
        if not cold:
            return [place for place in places if place is not None]
        masks = self.filled([wanted[number] for number in cold])
        keys: dict[Hashable, list[int]] = {}  # which of `cold` have the same row
        for at, number in enumerate(cold):  # what has been filled now has a number as well
            keys.setdefault(_key(wanted[number]) or object(), []).append(at)
        new = {key: same for key, same in keys.items() if table.find(key) is None}
        if new:
            table.put(list(new), masks[[same[0] for same in new.values()]])
        for key, same in keys.items():
            for at in same:
                places[cold[at]] = table.find(key)
        return [place for place in places if place is not None]


def _key(sampling: Sampling) -> Hashable | None:
    """Names the row where the grammar alone decides, and has decided the same before."""
    grammar = sampling.grammar
    if grammar is None:
        return 0, sampling.banned
    number = grammar.row_number(sampling.budget) if type(grammar) is GrammarState else 0
    return (number, sampling.banned) if number else None
