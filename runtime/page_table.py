"""Which pages each running request's tokens live in. Written by the runner alone, from
`PageWrite`s. Plain numpy: a runner moves what it asks for to its device."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .batch import PageWrite


class PageTable:
    """An int32 table [slots, pages per request]; entry (s, i) is the page of slot s's tokens i*page
    .. i*page+page-1."""

    def __init__(self, num_slots: int, pages_per_slot: int, page_size: int) -> None:
        self.page_size = page_size
        self._table = np.zeros((num_slots, pages_per_slot), np.int32)

    def write(self, writes: Sequence[PageWrite]) -> None:
        for write in writes:
            self._table[write.slot, write.first : write.first + len(write.pages)] = write.pages

    def rows(self, slots: Sequence[int], num_pages: int) -> npt.NDArray[np.int32]:
        """The rows of these slots, [len(slots), num_pages], copied."""
        return self._table[list(slots), :num_pages]

    def token_slots(self, slot: int, start: int, end: int) -> npt.NDArray[np.int64]:
        """Where the tokens at positions start..end-1 are stored: page * page_size + offset,
        [end - start]."""
        positions = np.arange(start, end)
        pages = self._table[slot, positions // self.page_size].astype(np.int64)
        slots: npt.NDArray[np.int64] = pages * self.page_size + positions % self.page_size
        return slots
