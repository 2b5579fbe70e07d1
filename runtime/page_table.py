"""Which pages each running request's tokens live in, on the device. Written by the runner alone,
from `PageWrite`s."""

from collections.abc import Sequence

import torch

from .batch import PageWrite


class PageTable:
    """An int32 table [slots, pages per request]; entry (s, i) is the page of slot s's tokens i*page
    .. i*page+page-1."""

    def __init__(
        self, num_slots: int, pages_per_slot: int, page_size: int, device: torch.device
    ) -> None:
        self.page_size = page_size
        self._table = torch.zeros((num_slots, pages_per_slot), dtype=torch.int32, device=device)

    def write(self, writes: Sequence[PageWrite]) -> None:
        for write in writes:
            pages = torch.tensor(write.pages, dtype=torch.int32)
            self._table[write.slot, write.first : write.first + len(write.pages)] = pages

    def rows(self, slots: Sequence[int], num_pages: int) -> torch.Tensor:
        """The rows of these slots, int32 [len(slots), num_pages]."""
        return self._table[list(slots), :num_pages]

    def token_slots(self, slot: int, start: int, end: int) -> torch.Tensor:
        """Where the tokens at positions start..end-1 are stored: page * page_size + offset, int64
        [end - start]."""
        positions = torch.arange(start, end, device=self._table.device)
        pages = self._table[slot, positions // self.page_size].to(torch.int64)
        return pages * self.page_size + positions % self.page_size
