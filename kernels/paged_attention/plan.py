"""The step's attention plan: what all layers share. Knows lengths and page numbers, no K or V."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from .. import implementation
from .packed_work import RowPages, Work, pack, packed_size
from .parts import Parts, plan_parts
from .sharing import share
from .tree_masks import Trees, check_trees, pack_trees
from .work_list import MAX_WIDE_ROW, SPLIT, Cut, check_page_size, choose_split, list_work, long_tile


@dataclass(frozen=True)
class Rows:
    """The step's rows on the device. table: int32 [B, 4], of each row its first token, new tokens,
    context, and where its page ids begin in page_ids (int32, flat)."""

    table: torch.Tensor
    page_ids: torch.Tensor


@dataclass(frozen=True)
class AttentionPlan:
    """One step's rows. `parts` drive the CPU path, `work` the Triton kernels; the other is None.

    `group` is the number of query heads for each KV head; `window`: a token attends to that many
    positions, itself included (None: to all); num_tokens: new tokens of all rows, and padding;
    trees: of rows whose new tokens are no line.
    """

    rows: Rows
    page_size: int
    group: int
    window: int | None
    num_tokens: int
    parts: Parts | None
    work: Work | None
    trees: Trees = field(default_factory=dict)


def plan_attention(
    query_lens: Sequence[int],
    context_lens: Sequence[int],
    page_table: torch.Tensor,
    page_size: int,
    *,
    group: int,
    window: int | None,
    dtype: torch.dtype,
    device: torch.device | str,
    head_dim: int | None = None,
    deterministic: bool = True,
    cut: Cut | None = None,
    trees: Trees | None = None,
) -> AttentionPlan:
    """Plan one step's attention for `paged_attention` with q of `dtype` on `device`.

    The last query_lens[b] of row b's context_lens[b] tokens are new. Row b of page_table (int32
    [B, max_pages], on `device` or on the host) holds the pages of its positions in order; entries
    past its context are ignored. head_dim: of q; heads above 128 have smaller tiles.
    deterministic: a row's result never depends on the other rows; without it a GPU's splits may be
    chosen by the whole step. cut: how rows are cut on a GPU, in place of what is chosen here. On a
    GPU, rows that share leading pages read them together where that pays, if page_table is on the
    host.

    trees: by row, which of its new tokens see which (`tree_masks`); the keys and values of a tree's
    tokens are at the row's last positions, in the order of the tokens. Not with a window.

    Raises ValueError where a row has no new token, more new tokens than context, or a context
    longer than its part of the page table, and where a tree doesn't fit its row.
    """
    queries = np.asarray(query_lens, dtype=np.int64)
    contexts = np.asarray(context_lens, dtype=np.int64)
    _check(queries, contexts, page_table, page_size, window)
    trees = trees or {}
    check_trees(trees, queries, window)
    if cut is None:
        split = SPLIT if deterministic else choose_split(contexts)
        row_bytes = head_dim * dtype.itemsize if head_dim is not None else MAX_WIDE_ROW
        cut = Cut(group, window, split, long_tile=long_tile(queries, group, row_bytes))
    parts, work = None, None
    if implementation.is_triton(torch.empty(0, device=device)):
        work = _send_work(queries, contexts, page_table, cut, torch.device(device), page_size)
        if trees:
            packed = torch.from_numpy(pack_trees(trees, len(queries)))
            work = replace(work, trees=packed.to(device, non_blocking=True))
        rows = Rows(work.rows, work.page_ids)
    else:
        table = page_table.numpy()
        parts = plan_parts(queries, contexts, table, page_size, group, window, dtype, trees)
        first = np.arange(len(queries)) * table.shape[1]
        columns = (np.cumsum(queries) - queries, queries, contexts, first)
        rows = Rows(torch.from_numpy(np.stack(columns, axis=1)), page_table.flatten())
    return AttentionPlan(
        rows=rows,
        page_size=page_size,
        group=group,
        window=window,
        num_tokens=int(queries.sum()),
        parts=parts,
        work=work,
        trees=trees,
    )


def _send_work(
    queries: np.ndarray,
    contexts: np.ndarray,
    page_table: torch.Tensor,
    cut: Cut,
    device: torch.device,
    page_size: int,
) -> Work:
    """One copy to the device; the page table is a part of it where it isn't there already."""
    check_page_size(page_size)
    num_rows, num_tokens = len(queries), int(queries.sum())
    on_host = page_table.device.type == "cpu"
    shared = share(queries, contexts, page_table.numpy(), page_size, cut) if on_host else None
    items = list_work(queries, contexts, cut, shared)
    num_items = len(items.items)
    num_shared = 0 if shared is None else len(shared.items)
    if page_table.device == device and device.type != "cpu":
        pages = RowPages.elsewhere(num_rows, page_table.shape[1])
    else:
        pages = RowPages.packed(page_table.numpy(), -(-contexts // page_size))
    host = torch.empty(
        packed_size(num_rows, num_items + num_shared, num_tokens, len(pages.page_ids)),
        dtype=torch.int32,
        pin_memory=device.type == "cuda",
    )
    used = pack(host.numpy(), num_rows, num_tokens, queries, contexts, items, pages)
    # The caching allocator keeps a pinned block until the copies from it are done.
    buffer = host[:used].to(device, non_blocking=True)
    return Work(
        buffer=buffer,
        page_ids=buffer if len(pages.page_ids) else page_table.flatten(),
        num_rows=num_rows,
        num_programs=max(num_items, num_shared),
        num_merges=len(items.merges),
        num_parts=items.num_parts,
        has_short=items.num_long < num_items,
        has_long=items.num_long > 0,
        has_shared=shared is not None,
        cut=cut,
    )


def _check(
    queries: np.ndarray,
    contexts: np.ndarray,
    page_table: torch.Tensor,
    page_size: int,
    window: int | None,
) -> None:
    rows, max_pages = page_table.shape
    if not rows or queries.shape != (rows,) or contexts.shape != (rows,):
        raise ValueError(
            f"plan_attention: {queries.size} query lengths and {contexts.size} context lengths "
            f"for a page table of {rows} rows"
        )
    if page_table.dtype is not torch.int32:
        raise TypeError(f"plan_attention: page_table must be int32, got {page_table.dtype}")
    if window is not None and window < 1:
        raise ValueError(f"plan_attention: window must be at least 1, got {window}")
    bad = (queries < 1) | (queries > contexts) | (contexts > max_pages * page_size)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"plan_attention: row {row} has {queries[row]} new tokens and a context of "
            f"{contexts[row]}, with {max_pages} pages of {page_size}"
        )
