"""Which rows of a step share their leading pages. Plain numpy over page numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PrefixGroup:
    """Rows whose first `num_pages` pages are the same ones."""

    rows: tuple[int, ...]
    num_pages: int


def find_prefix_groups(
    page_table: NDArray[np.int32], limits: NDArray[np.int64], min_saved: int
) -> list[PrefixGroup]:
    """Disjoint groups of rows with common leading pages, largest saving first chosen.

    page_table: [B, max_pages]; limits: [B], how many leading pages of a row may be shared at all.
    A group saves `num_pages * (rows - 1)` page reads; it is reported where that is at least
    `min_saved`. Of a group and the finer groups inside it, those that save more are kept.
    """
    rows = np.flatnonzero(limits > 0)
    groups: list[PrefixGroup] = []
    for members in _equal_at(page_table, rows, 0):
        groups.extend(_best(page_table, limits, members, min_saved)[0])
    return groups


def _equal_at(
    page_table: NDArray[np.int32], rows: NDArray[np.int64], column: int
) -> list[NDArray[np.int64]]:
    """The classes, of two rows and more, with equal pages in `column`."""
    if len(rows) < 2:
        return []
    pages = page_table[rows, column]
    order = np.argsort(pages, kind="stable")
    edges = np.flatnonzero(np.diff(pages[order])) + 1
    return [rows[part] for part in np.split(order, edges) if len(part) > 1]


def _best(
    page_table: NDArray[np.int32],
    limits: NDArray[np.int64],
    rows: NDArray[np.int64],
    min_saved: int,
) -> tuple[list[PrefixGroup], int]:
    """The best grouping of rows that agree in some column, and the page reads that it saves."""
    longest = int(limits[rows].min())
    differs = (page_table[rows, :longest] != page_table[rows[0], :longest]).any(axis=0)
    num_pages = int(differs.argmax()) if differs.any() else longest
    saved = num_pages * (len(rows) - 1)
    whole = [PrefixGroup(tuple(rows.tolist()), num_pages)] if saved >= min_saved else []
    finer: list[PrefixGroup] = []
    finer_saved = 0
    deeper = rows[limits[rows] > num_pages]
    for members in _equal_at(page_table, deeper, num_pages):
        groups, gain = _best(page_table, limits, members, min_saved)
        finer.extend(groups)
        finer_saved += gain
    if finer_saved > saved:
        return finer, finer_saved
    return whole, saved if whole else 0
