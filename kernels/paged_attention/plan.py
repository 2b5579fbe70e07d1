"""The step's attention plan: what all layers share. Knows lengths and page numbers, no K or V."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .parts import Parts, plan_parts
from .query_blocks import QueryBlocks, plan_query_blocks


@dataclass(frozen=True)
class AttentionPlan:
    """One step's rows. `parts` drive the CPU path, `blocks` the Triton kernel; the other is None.

    Row b has `query_lens[b]` new tokens, the last ones of its `context_lens[b]`; `page_table` is
    int32 [B, max_pages] on the device; `group` is the number of query heads for each KV head;
    `window`: a token attends to that many positions, itself included (None: to all).
    """

    query_lens: tuple[int, ...]
    context_lens: tuple[int, ...]
    page_table: torch.Tensor
    page_size: int
    group: int
    window: int | None
    num_tokens: int
    parts: Parts
    blocks: QueryBlocks | None


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
) -> AttentionPlan:
    """Plan one step's attention for `paged_attention` with q of `dtype` on `device`.

    Row b of page_table (int32 [B, max_pages], on `device`) holds the pages of its positions in
    order; entries past its context are ignored. Raises ValueError where a row has no new token,
    more new tokens than context, or a context longer than its part of the page table.
    """
    queries = np.asarray(query_lens, dtype=np.int64)
    contexts = np.asarray(context_lens, dtype=np.int64)
    _check(queries, contexts, page_table, page_size, window)
    on_cpu = torch.device(device).type == "cpu"
    return AttentionPlan(
        query_lens=tuple(query_lens),
        context_lens=tuple(context_lens),
        page_table=page_table,
        page_size=page_size,
        group=group,
        window=window,
        num_tokens=int(queries.sum()),
        parts=plan_parts(queries, contexts, page_table.numpy(), page_size, group, window, dtype)
        if on_cpu
        else Parts((), ()),
        blocks=None if on_cpu else plan_query_blocks(queries, contexts, group, device),
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
