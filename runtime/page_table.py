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
        self.num_slots = num_slots
        self.pages_per_slot = pages_per_slot
        self.page_size = page_size
        self._table = np.zeros((num_slots, pages_per_slot), np.int32)

    def write(self, writes: Sequence[PageWrite]) -> None:
        for write in writes:
            self._table[write.slot, write.first : write.first + len(write.pages)] = write.pages

    def rows(
        self, slots: Sequence[int] | npt.NDArray[np.int64], num_pages: int
    ) -> npt.NDArray[np.int32]:
        """The rows of these slots, [len(slots), num_pages], copied."""
        return self._table[np.asarray(slots, np.int64), :num_pages]

    def places(
        self, slots: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Where each token, of that slot and at that position, is stored: page * page_size +
        offset."""
        pages = self._table[slots, positions // self.page_size].astype(np.int64)
        places: npt.NDArray[np.int64] = pages * self.page_size + positions % self.page_size
        return places
