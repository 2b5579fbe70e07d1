"""Which rows of a step share their leading pages, where each may share once: the CPU path's.

Plain numpy over page numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..shared_prefix_attention.prefix_order import order_by_prefix


@dataclass(frozen=True)
class PrefixGroup:
    """Rows whose first `num_pages` pages are the same ones."""

    rows: tuple[int, ...]
    num_pages: int


def find_prefix_groups(
    page_table: NDArray[np.int32], limits: NDArray[np.int64], min_saved: int
) -> list[PrefixGroup]:
    """Disjoint groups of rows with common leading pages, by their first rows.

    page_table: [B, max_pages]; limits: [B], how many leading pages of a row may be shared at all.
    A group saves `num_pages * (rows - 1)` page reads; it is reported where that is at least
    `min_saved`. Of a group and the finer groups inside it, those that save more are kept.
    """
    order = order_by_prefix(page_table, limits)
    rows, common = order.rows.tolist(), order.common.tolist()
    # Neighbours with nothing in common part the rows: no need of recursion over all of them.
    edges = [-1, *np.flatnonzero(order.common == 0).tolist(), len(common)]
    groups: list[PrefixGroup] = []
    for before, end in zip(edges[:-1], edges[1:], strict=True):
        groups += _best(rows, common, before + 1, end, min_saved)[0]
    return sorted(groups, key=lambda group: group.rows)


def _best(
    rows: list[int], common: list[int], start: int, end: int, min_saved: int
) -> tuple[list[PrefixGroup], int]:
    """The best grouping of the neighbours `start` to `end`, and the page reads that it saves."""
    if start == end:
        return [], 0
    num_pages = min(common[start:end])
    saved = num_pages * (end - start)
    finer: list[PrefixGroup] = []
    finer_saved = 0
    first = start
    for last in [*(i for i in range(start, end) if common[i] == num_pages), end]:
        groups, gain = _best(rows, common, first, last, min_saved)
        finer += groups
        finer_saved += gain
        first = last + 1
    if finer_saved > saved:
        return finer, finer_saved
    whole = [PrefixGroup(tuple(sorted(rows[start : end + 1])), num_pages)]
    return (whole, saved) if saved >= min_saved else ([], 0)
