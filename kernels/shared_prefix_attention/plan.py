"""The work of a step's shared pass: which tokens read which splits of whose pages together.

Owns: grouping on every level (all rows over what all have, some of them over what only those have
besides), the cut into tiles, and whether it pays. Plain numpy; knows lengths and page numbers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .prefix_order import PrefixOrder, order_by_prefix

# The pass is one more launch, some 5 to 10 us with its tail: the time in which an H100 reads about
# 32k keys and values of a layer of an 8B model. An estimate, not measured.
MIN_SAVED_TOKENS = 32_768


@dataclass(frozen=True)
class SharedPrefixes:
    """The shared pass of a step, on a device. All tensors int32.

    header: [4], how many items there are, and where items, tokens and `first_part` [T + 1] begin in
    `buffer`. An item is four numbers: where its tokens begin among the tokens, how many they are,
    where in `page_ids` the pages of its split begin, which split it is. Token t has its parts from
    `first_part[t]` on. split: tokens of one, whole pages. A tile has `num_blocks` blocks of
    `block_rows` rows, each of whole tokens, that is of all their query heads of a KV head.
    num_programs: of each KV head; they take items in turns.
    """

    header: torch.Tensor
    buffer: torch.Tensor
    page_ids: torch.Tensor
    split: int
    block_rows: int
    num_blocks: int
    num_programs: int


@dataclass(frozen=True)
class SharedWork:
    """tokens: int32 [M], of the step, those that share being neighbours. items: int32 [N, 4]:
    where in `tokens` a tile begins, how many are in it, the row whose pages they read, and which
    split of it. num_splits: int64 [B], the leading splits of each row that items cover; every token
    of the row is in exactly one item of each.
    """

    tokens: NDArray[np.int32]
    items: NDArray[np.int32]
    num_splits: NDArray[np.int64]
    pages_per_split: int

    def placed(self, page_offsets: NDArray[np.integer]) -> NDArray[np.int32]:
        """The items with, in place of the row, where their pages are, if those of row b begin at
        page_offsets[b]."""
        placed = self.items.copy()
        placed[:, 2] = page_offsets[self.items[:, 2]] + self.items[:, 3] * self.pages_per_split
        return placed


def plan_shared_work(
    queries: NDArray[np.int64],
    limits: NDArray[np.int64],
    page_table: NDArray[np.int32],
    *,
    pages_per_split: int,
    tile_tokens: int,
    min_saved_splits: int,
) -> SharedWork | None:
    """Rows with `queries` [B] new tokens, of which row b may share its first `limits[b]` splits.

    None where fewer than `min_saved_splits` readings of a split would be saved in all: a split that
    n rows share saves n - 1. A row's number of parts, and what is in each, are the same as without
    sharing, so the only cost is the pass itself.
    """
    order = order_by_prefix(page_table, limits, pages_per_split)
    if int(order.common.sum()) < max(min_saved_splits, 1):
        return None
    count = queries[order.rows]
    ends = np.cumsum(count)
    starts = ends - count
    first_tokens = (np.cumsum(queries) - queries)[order.rows]
    tokens = np.arange(int(ends[-1])) + np.repeat(first_tokens - starts, count)
    num_splits = np.zeros(len(queries), dtype=np.int64)
    common = np.concatenate([[0], order.common, [0]])
    num_splits[order.rows] = np.maximum(common[1:], common[:-1])

    split, first, last = _runs(order)
    begin, end = starts[first], ends[last]
    tiles = -(-(end - begin) // tile_tokens)
    run = np.repeat(np.arange(len(split)), tiles)
    number = np.arange(len(run)) - np.repeat(np.cumsum(tiles) - tiles, tiles)
    begin = begin[run] + number * tile_tokens
    size = np.minimum(end[run] - begin, tile_tokens)
    items = np.stack([begin, size, order.rows[first[run]], split[run]], axis=1)
    return SharedWork(tokens.astype(np.int32), items.astype(np.int32), num_splits, pages_per_split)


def _runs(
    order: PrefixOrder,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of every split, the longest runs of rows that share it: split, first and last in `order`."""
    splits = np.arange(int(order.common.max()))
    together = np.zeros((len(splits), len(order.rows) + 1), dtype=bool)
    together[:, 1:-1] = order.common > splits[:, None]
    split, first = np.nonzero(together[:, 1:] & ~together[:, :-1])
    _, last = np.nonzero(together[:, :-1] & ~together[:, 1:])
    return split, first, last
