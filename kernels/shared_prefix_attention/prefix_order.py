"""Rows of a step in an order in which those that share leading pages are neighbours.

Owns: finding out who shares how much, every step anew, in plain numpy over page numbers. Knows no
keys, no queries and no costs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PrefixOrder:
    """rows: int64 [N], of the page table; rows that share nothing are left out. common: int64
    [N - 1], how many leading units of pages a row and the next have both. Rows further apart have
    the least of what lies between them."""

    rows: NDArray[np.int64]
    common: NDArray[np.int64]


def order_by_prefix(
    page_table: NDArray[np.int32], limits: NDArray[np.int64], unit: int = 1
) -> PrefixOrder:
    """page_table: int32 [B, max_pages], numbers from 0 on; limits: int64 [B], how many leading
    units of `unit` pages a row may share at all.

    Where nothing is shared this looks at one page of each row. Else rows are sorted by the last
    pages of their units, and only what neighbours then seem to share is compared page by page.
    """
    rows = _with_twins(page_table, np.flatnonzero(limits > 0), unit - 1)
    if not len(rows):
        return PrefixOrder(rows, rows)
    limit = limits[rows]
    longest = int(limit.max())
    ends = page_table[:, unit - 1 : longest * unit : unit][rows]
    # Sorts a row behind those that it shares its last units with, instead of among them.
    ends[np.arange(longest) >= limit[:, None]] = -1
    order = np.argsort(ends.view(f"V{ends.itemsize * longest}").ravel(), kind="stable")
    rows, limit = rows[order], limit[order]
    common = np.minimum(_num_equal(ends[order]), np.minimum(limit[1:], limit[:-1]))
    if unit > 1 and common.any():
        pages = page_table[:, : int(common.max()) * unit][rows]
        common = np.minimum(common, _num_equal(pages) // unit)
    return PrefixOrder(rows, common)


def _with_twins(
    page_table: NDArray[np.int32], rows: NDArray[np.int64], column: int
) -> NDArray[np.int64]:
    """Those of the rows whose page in `column` is another one's too."""
    if len(rows) < 2:
        return rows[:0]
    pages = page_table[rows, column]
    order = np.argsort(pages, kind="stable")
    equal = np.zeros(len(rows) + 1, dtype=bool)
    equal[1:-1] = pages[order][1:] == pages[order][:-1]
    return rows[np.sort(order[equal[1:] | equal[:-1]])]


def _num_equal(columns: NDArray[np.int32]) -> NDArray[np.int64]:
    """[N, n] -> [N - 1]: how many leading columns each row and the next have equal."""
    differs = columns[1:] != columns[:-1]
    equal: NDArray[np.int64] = np.where(
        differs.any(axis=1), differs.argmax(axis=1), columns.shape[1]
    )
    return equal
