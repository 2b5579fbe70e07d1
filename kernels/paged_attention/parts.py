"""The CPU path's plan: a step's attention cut into few large calls of one attention routine.

Each query is covered by one *own* part and at most one *shared* part, whose results merge by
log-sum-exp. A shared part is a run of keys that lies wholly before all of its queries, so it needs
no mask: the leading pages that several rows have in common (read once for all of them), or the
cached prefix of one long chunk. Own parts hold the rest: rows of like shape go together in one
padded call.

Padded key positions repeat the row's own last key under a mask, so that no slot outside a row's
context is ever read: stale or non-finite memory cannot reach any result.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .prefix_groups import find_prefix_groups
from .tree_masks import Trees, unpack_masks

# Reading one key and value for one row costs about as much as 1/250 of a call (measured with 3 KV
# heads of 64); a shared part costs one more call and a merge.
MIN_SHARED_TOKENS = 1_024
# From this many new tokens on, a row's cached prefix becomes a part of its own: the masked triangle
# that it saves is worth a merge.
MIN_CHUNK = 64
MAX_PADDING = 64  # keys; more padding is accepted only up to a quarter of the longest row's
MAX_MASK = 1 << 22  # elements of the mask of one call with several rows


@dataclass(frozen=True)
class Part:
    """One call: `rows` rows of `queries` queries each, every row over `len(slots) / rows` keys.

    tokens: which of the step's tokens the queries are, row-major. slots: int64, row-major. mask:
    added to the scores; [1, 1, queries, keys] for one row, [rows, 1, queries * group, keys] for
    several; None: every key counts. causal: query i sees keys 0 .. i, the mask is None.
    """

    tokens: slice | torch.Tensor
    rows: int
    queries: int
    slots: torch.Tensor
    mask: torch.Tensor | None = None
    causal: bool = False


@dataclass(frozen=True)
class Parts:
    own: tuple[Part, ...]
    shared: tuple[Part, ...]


@dataclass(frozen=True)
class _Rows:
    """The step's rows as arrays [B]; a row's own part reads the keys from `key_start` on."""

    queries: NDArray[np.int64]
    contexts: NDArray[np.int64]
    first_token: NDArray[np.int64]
    key_start: NDArray[np.int64]
    page_table: NDArray[np.int32]
    page_size: int

    def slots(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> torch.Tensor:
        """Slots of `positions` [len(rows), n] of the rows, flat."""
        pages = self.page_table[rows[:, None], positions // self.page_size].astype(np.int64)
        return torch.from_numpy((pages * self.page_size + positions % self.page_size).ravel())

    def tokens(self, rows: NDArray[np.int64]) -> slice | torch.Tensor:
        """The rows' tokens in the step, row after row; a slice where they are adjacent."""
        first, count = self.first_token[rows], self.queries[rows]
        if (first[1:] == (first + count)[:-1]).all():
            return slice(int(first[0]), int(first[-1] + count[-1]))
        return torch.from_numpy(
            np.concatenate([np.arange(f, f + n) for f, n in zip(first, count, strict=True)])
        )


def plan_parts(
    queries: NDArray[np.int64],
    contexts: NDArray[np.int64],
    page_table: NDArray[np.int32],
    page_size: int,
    group: int,
    window: int | None,
    dtype: torch.dtype,
    trees: Trees | None = None,
) -> Parts:
    """Cut the step into parts; arguments as in `plan_attention`, checked there."""
    trees = trees or {}
    cached = contexts - queries
    key_start = np.zeros_like(cached)
    limited = np.zeros(len(queries), dtype=bool)
    if window is not None:
        key_start = np.maximum(cached + 1 - window, 0)
        limited = contexts > window  # some query does not see position 0
    rows = _Rows(queries, contexts, np.cumsum(queries) - queries, key_start, page_table, page_size)

    shared: list[Part] = []
    for members, num_keys in _shared_runs(rows, cached, limited):
        key_start[members] = num_keys
        shared.append(
            Part(
                tokens=rows.tokens(members),
                rows=1,
                queries=int(queries[members].sum()),
                slots=rows.slots(members[:1], np.arange(num_keys)[None]),
            )
        )
    is_tree = np.isin(np.arange(len(queries)), list(trees))
    own = [
        _own_part(rows, members, group, window, dtype)
        for members in _alike(rows, np.flatnonzero(~is_tree), group)
    ]
    own += [_tree_part(rows, row, unpack_masks(masks), dtype) for row, masks in trees.items()]
    return Parts(tuple(own), tuple(shared))


def _shared_runs(
    rows: _Rows, cached: NDArray[np.int64], limited: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Rows, ascending, and how many leading keys they read together."""
    alone = np.ones(len(cached), dtype=bool)
    # A row keeps at least one key for its own part: the new tokens always are.
    limits = np.where(limited, 0, cached // rows.page_size)
    if len(cached) > 1:
        min_pages = -(-MIN_SHARED_TOKENS // rows.page_size)
        for found in find_prefix_groups(rows.page_table, limits, min_pages):
            members = np.array(sorted(found.rows), dtype=np.int64)
            alone[members] = False
            yield members, found.num_pages * rows.page_size
    long = alone & ~limited & (rows.queries >= MIN_CHUNK) & (cached >= MIN_CHUNK)
    for row in np.flatnonzero(long):
        yield np.array([row]), int(cached[row])


def _alike(rows: _Rows, among: NDArray[np.int64], group: int) -> Iterator[NDArray[np.int64]]:
    """Those rows, in sets of equally many queries and similar numbers of keys."""
    keys = rows.contexts - rows.key_start
    order = among[np.lexsort((among, -keys[among], rows.queries[among]))]
    if not len(order):
        return
    start = 0
    for end in range(1, len(order) + 1):
        longest, queries = int(keys[order[start]]), int(rows.queries[order[start]])
        if end < len(order):
            row = order[end]
            mask = (end - start + 1) * queries * group * longest
            fits = queries == 1 or (queries < MIN_CHUNK and mask <= MAX_MASK)
            padding = longest - int(keys[row])
            if rows.queries[row] == queries and fits and padding <= max(MAX_PADDING, longest // 4):
                continue
        yield np.sort(order[start:end])
        start = end


def _own_part(
    rows: _Rows,
    members: NDArray[np.int64],
    group: int,
    window: int | None,
    dtype: torch.dtype,
) -> Part:
    """One call for rows with equally many queries, each over its own keys from `key_start` on."""
    start, context = rows.key_start[members], rows.contexts[members]
    num_queries = int(rows.queries[members[0]])
    num_keys = int((context - start).max())
    positions = start[:, None] + np.arange(num_keys)
    causal = len(members) == 1 and num_queries == num_keys and num_queries > 1
    if window is not None and num_keys > window:
        causal = False
    mask = None
    if not causal:
        mask = _mask(positions, context, num_queries, window, dtype)
        if mask is not None and len(members) > 1:
            mask = mask.repeat_interleave(group, dim=2)
    return Part(
        tokens=rows.tokens(members),
        rows=len(members),
        queries=num_queries,
        slots=rows.slots(members, np.minimum(positions, context[:, None] - 1)),
        mask=mask,
        causal=causal,
    )


def _tree_part(rows: _Rows, row: int, sees: NDArray[np.bool_], dtype: torch.dtype) -> Part:
    """One call for one row whose new tokens are a tree."""
    members = np.array([row])
    start, context, num_queries = rows.key_start[row], rows.contexts[row], len(sees)
    hidden = np.zeros((num_queries, context - start), dtype=bool)
    hidden[:, -num_queries:] = ~sees
    mask = torch.zeros(hidden.shape, dtype=dtype)
    return Part(
        tokens=rows.tokens(members),
        rows=1,
        queries=num_queries,
        slots=rows.slots(members, np.arange(start, context)[None]),
        mask=mask.masked_fill_(torch.from_numpy(hidden), float("-inf"))[None, None],
    )


def _mask(
    positions: NDArray[np.int64],
    context: NDArray[np.int64],
    num_queries: int,
    window: int | None,
    dtype: torch.dtype,
) -> torch.Tensor | None:
    """[rows, 1, queries, keys]: 0 where query i of a row sees the key at `positions`, else -inf."""
    if num_queries == 1 and (positions[:, -1] < context).all():
        return None  # a single query sees every key: `key_start` already honours the window
    last = context[:, None] - num_queries + np.arange(num_queries)  # each query's own position
    key, query = torch.from_numpy(positions)[:, None], torch.from_numpy(last)[:, :, None]
    hidden = key > query
    if window is not None:
        hidden |= key <= query - window
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
    return mask.unsqueeze(1)
