"""A step's work as one run of int32, so that one copy brings all of it to a device.

    header | rows | items | first_part | merges | shared items | shared tokens | page ids

The header says where what is not at a fixed place begins, and how much there is of everything;
rows and items stand at fixed places. Owns: this layout. Knows no lengths and no pages of its own.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..shared_prefix_attention.plan import SharedPrefixes
from .sharing import NUM_BLOCKS
from .work_list import Cut, Int32s, Int64s, WorkList

HEADER = 16
NUM_LONG, NUM_ITEMS, NUM_MERGES, FIRST_PART_AT, MERGES_AT = range(5)
SHARED = 8  # the four numbers of SharedPrefixes.header
ROW = 4  # first token, queries, context, where its page ids begin
ITEM = 4


@dataclass(frozen=True)
class Work:
    """What the kernels of one step, or of one graph, are launched with.

    buffer: int32 on the device, laid out as above; page_ids: int32, flat; where a row's page ids
    begin in it is part of the row. num_rows, num_merges, num_parts: for how many of them there is
    room; how many there are is read on the device, by `num_programs` programs for each KV head.
    trees: as `pack_trees` lays them out, where rows have any.
    """

    buffer: torch.Tensor
    page_ids: torch.Tensor
    num_rows: int
    num_programs: int
    num_merges: int
    num_parts: int
    has_short: bool
    has_long: bool
    has_shared: bool
    cut: Cut
    trees: torch.Tensor | None = None

    @property
    def shared(self) -> SharedPrefixes | None:
        if not self.has_shared:
            return None
        return SharedPrefixes(
            header=self.buffer[SHARED : SHARED + 4],
            buffer=self.buffer,
            page_ids=self.page_ids,
            split=self.cut.split,
            block_rows=self.cut.short_tile,
            num_blocks=NUM_BLOCKS,
            num_programs=self.num_programs,
        )

    @property
    def rows(self) -> torch.Tensor:
        """[num_rows, 4]: each row's first token, queries, context, and where its page ids begin."""
        return self.buffer[HEADER : HEADER + ROW * self.num_rows].view(self.num_rows, ROW)


@dataclass(frozen=True)
class RowPages:
    """Where each row's page ids begin: in `page_ids`, which are packed too, or, where there are
    none of these, in a table of its own."""

    offsets: Int64s
    page_ids: Int32s

    @classmethod
    def packed(cls, page_table: NDArray[np.int32], num_pages: Int64s) -> Self:
        """Of every row of page_table the first `num_pages` entries."""
        own = np.arange(page_table.shape[1]) < num_pages[:, None]
        return cls(np.cumsum(num_pages) - num_pages, page_table[own])

    @classmethod
    def elsewhere(cls, num_rows: int, stride: int) -> Self:
        return cls(np.arange(num_rows) * stride, np.zeros(0, np.int32))


def packed_size(num_rows: int, num_items: int, num_tokens: int, num_page_ids: int) -> int:
    """int32s of a buffer with room for so much, shared items among the items; every token may have
    parts, and share."""
    return HEADER + ROW * num_rows + ITEM * num_items + 3 * num_tokens + 1 + num_page_ids


def pack(
    target: Int32s,
    num_rows: int,
    num_tokens: int,
    queries: Int64s,
    contexts: Int64s,
    work: WorkList,
    pages: RowPages,
) -> int:
    """Write a step to the start of `target`; returns how many int32s were written.

    Rows beyond those of the step have no queries; tokens beyond them have no parts and are among
    the merges, which gives them zeros.
    """
    padding = np.arange(len(work.first_part) - 1, num_tokens)
    none = np.zeros(0, np.int32)
    runs: tuple[Int32s | Int64s, ...] = (
        work.items.reshape(-1),
        work.first_part,
        np.full(len(padding), work.num_parts),
        work.merges,
        padding,
        none if work.shared is None else work.shared.items.reshape(-1),
        none if work.shared is None else work.shared.tokens,
        pages.page_ids,
    )
    places = HEADER + ROW * num_rows + np.cumsum([0, *(len(run) for run in runs)])
    for run, place in zip(runs, places.tolist(), strict=False):
        target[place : place + len(run)] = run
    header = target[:HEADER]
    header[:] = 0
    header[NUM_LONG] = work.num_long
    header[NUM_ITEMS] = len(work.items)
    header[NUM_MERGES] = len(work.merges) + len(padding)
    header[FIRST_PART_AT], header[MERGES_AT] = places[1], places[3]
    rows = target[HEADER : HEADER + ROW * num_rows].reshape(num_rows, ROW)
    given = rows[: len(queries)]
    given[:, 0] = np.cumsum(queries) - queries
    given[:, 1] = queries
    given[:, 2] = contexts
    given[:, 3] = pages.offsets + (places[7] if len(pages.page_ids) else 0)
    rows[len(queries) :] = 0
    if work.shared is not None:
        target[places[5] : places[6]] = work.shared.placed(given[:, 3]).reshape(-1)
        num_shared = len(work.shared.items)
        header[SHARED : SHARED + 4] = num_shared, places[5], places[6], places[1]
    return int(places[-1])
