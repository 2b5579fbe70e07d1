"""What the programs of one step's attention do on a GPU: items of work, and the parts they leave.

An item is one tile of a row's queries over a run of its keys. A row of few queries (decode, drafts)
is cut along its keys into splits of a fixed size counted from position 0; a row of many queries is
cut along its queries, and along its keys too where it would give few items over a long context.
How a row is cut depends on that row alone, so its result never depends on its neighbours. Plain
numpy: knows lengths, no page and no tensor.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..shared_prefix_attention.plan import SharedWork

# Tokens of one part of a short row: small enough that a single row of a few thousand tokens keeps
# a GPU busy, large enough that writing and merging parts is a few per cent of the reading. Not
# measured.
SPLIT = 256
# The same for rows of many queries, whose parts are as many times larger.
LONG_SPLIT = 4_096
# With more tiles of queries than this a row needs no splits along its keys.
MAX_SPLIT_TILES = 8
# From so many tiles of 128 rows on, tiles of 128 still keep every multiprocessor busy.
MIN_WIDE_TILES = 64
# Bytes of one head of a query: more, and what a tile of 128 gathers is too much for registers.
MAX_WIDE_ROW = 256

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """How rows are cut. A row whose queries fill at most `short_tile` tile rows is short."""

    group: int
    window: int | None
    split: int = SPLIT
    long_split: int = LONG_SPLIT
    long_tile: int = 64

    def __post_init__(self) -> None:
        if self.short_tile > self.long_tile:
            raise ValueError(f"Cut: {self.group} heads of a group in tiles of {self.long_tile}")

    @property
    def short_tile(self) -> int:
        return short_tile(self.group)


@dataclass(frozen=True)
class WorkList:
    """items: [N, 4] of (row, first query, first key, part), those of long rows first. An item with
    a part covers one split from its first key on and is its queries' `part`-th; one without (-1)
    covers all keys from its first key on, and its result is final.

    first_part: [T + 1]; token t has the parts first_part[t] .. first_part[t + 1] - 1, in the order
    of their keys. merges: the tokens that have parts. shared: computes some rows' first parts.
    """

    items: Int32s
    num_long: int
    first_part: Int32s
    merges: Int32s
    shared: SharedWork | None

    @property
    def num_parts(self) -> int:
        return int(self.first_part[-1])


def check_page_size(page_size: int) -> None:
    if page_size < 1 or page_size & (page_size - 1):
        raise ValueError(f"plan_attention: pages of {page_size} tokens: must be a power of 2")


def short_tile(group: int) -> int:
    """Tile rows of short items: 16 is the tensor cores' least."""
    return max(16, 1 << (group - 1).bit_length())


def long_tile(queries: Int64s, group: int, row_bytes: int) -> int:
    """Tile rows of long items: 128 where a step has enough of them, no short rows, whose tiles
    need fewer warps, and heads of up to 256 bytes. A row's sums are then the same in tiles of 64
    and of 128: a warp has 16 whole rows of either."""
    if group > 128:
        raise ValueError(f"plan_attention: {group} query heads for each KV head, at most 128")
    is_long = queries > short_tile(group) // group
    wide = int((-(-queries[is_long] // (128 // group))).sum())
    if wide >= MIN_WIDE_TILES and is_long.all() and row_bytes <= MAX_WIDE_ROW:
        return 128
    return max(64, short_tile(group))


def choose_split(contexts: Int64s) -> int:
    """A split by the step's composition: about a thousand items of short rows over 8 KV heads."""
    split = 128
    while split < 4_096 and int((-(-contexts // split)).sum()) > 128:
        split *= 2
    return split


def list_work(
    queries: Int64s, contexts: Int64s, cut: Cut, shared: SharedWork | None = None
) -> WorkList:
    """queries, contexts: [B]. shared: of short rows; what it computes are no items."""
    is_short = queries <= cut.short_tile // cut.group
    oldest = contexts - queries
    first_key = np.zeros_like(oldest)
    if cut.window is not None:
        first_key = np.maximum(oldest + 1 - cut.window, 0)
    size = np.where(is_short, cut.split, cut.long_split)
    first_split = first_key // size
    tile_queries = np.where(is_short, cut.short_tile, cut.long_tile) // cut.group
    tiles = -(-queries // tile_queries)
    splits = np.where(tiles > 0, -(-contexts // size) - first_split, 0)
    splits = np.where(is_short | (tiles <= MAX_SPLIT_TILES), splits, np.minimum(splits, 1))
    parts = np.where(splits > 1, splits, 0)

    skipped = np.zeros_like(parts) if shared is None else shared.num_splits
    own = splits - skipped
    counts = tiles * own
    row = np.repeat(np.arange(len(queries)), counts)
    number = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    tile, part = number // own[row], number % own[row] + skipped[row]
    has_parts = parts[row] > 0
    first_query = tile * tile_queries[row]
    begin = np.where(has_parts, (first_split[row] + part) * size[row], 0)
    items = np.stack([row, first_query, begin, np.where(has_parts, part, -1)], axis=1)

    # The longest first, so that the last programs to end have little to do.
    last_key = np.minimum(oldest[row] + first_query + tile_queries[row], contexts[row])
    keys = last_key - np.maximum(begin, first_key[row])
    keys = np.where(has_parts, np.minimum(keys, size[row]), keys)
    order = np.lexsort((-keys, is_short[row]))
    first_part = np.concatenate([[0], np.cumsum(np.repeat(parts, queries))])
    return WorkList(
        items=items[order].astype(np.int32),
        num_long=int(counts[~is_short].sum()),
        first_part=first_part.astype(np.int32),
        merges=np.flatnonzero(np.repeat(parts, queries) > 0).astype(np.int32),
        shared=shared,
    )
