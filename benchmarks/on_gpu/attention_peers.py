"""Attention of others on the same shapes: torch's SDPA, flex_attention, FlashInfer where installed.

SDPA and flex_attention get dense keys and values, already gathered: what paging costs is theirs to
save. Each function returns a call to be timed.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .paged import Heads, Step

Call = Callable[[], object]


def _dense(step: Step) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, Hkv, L, D] of rows that are equally long."""
    k = torch.stack([rows.transpose(0, 1) for rows in step.k]).contiguous()
    v = torch.stack([rows.transpose(0, 1) for rows in step.v]).contiguous()
    return k, v


def _queries(step: Step, heads: Heads) -> torch.Tensor:
    rows = len(step.rows)
    q = step.q.view(rows, -1, heads.queries, heads.size)
    return q.transpose(1, 2).contiguous()


def sdpa(step: Step, heads: Heads) -> Call:
    """The rows have equally many queries and keys; those with fewer queries than keys have one."""
    q, (k, v) = _queries(step, heads), _dense(step)
    is_causal = q.shape[2] == k.shape[2] > 1
    assert is_causal or q.shape[2] == 1
    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=True)


def flex(step: Step, heads: Heads) -> Call:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, (k, v) = _queries(step, heads), _dense(step)
    num_queries, num_keys = q.shape[2], k.shape[2]

    def causal(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return key <= query + (num_keys - num_queries)

    mask = create_block_mask(causal, None, None, num_queries, num_keys, device=str(q.device))
    compiled: Any = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(q, k, v, block_mask=mask, enable_gqa=True)


def flashinfer_is_here() -> bool:
    return importlib.util.find_spec("flashinfer") is not None


def flashinfer(step: Step, heads: Heads) -> Call:
    """Over the same pages."""
    import flashinfer as theirs

    pages, device = step.pages, step.q.device
    size = pages.page_size
    counts = [-(-context // size) for _, context in step.rows]
    indptr = _starts(counts, device)
    indices = torch.cat([step.table[row, :n] for row, n in enumerate(counts)]).int()
    last = [(context - 1) % size + 1 for _, context in step.rows]
    last_len = torch.tensor(last, dtype=torch.int32, device=device)
    workspace = torch.empty(512 << 20, dtype=torch.uint8, device=device)
    shape = (heads.queries, heads.kv, heads.size, size)
    if {new for new, _ in step.rows} == {1}:
        decode = theirs.BatchDecodeWithPagedKVCacheWrapper(
            workspace, "NHD", use_tensor_cores=heads.group > 1
        )
        decode.plan(indptr, indices, last_len, *shape, q_data_type=step.q.dtype)
        return lambda: decode.run(step.q, (pages.k, pages.v))
    prefill = theirs.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD")
    queries = _starts([new for new, _ in step.rows], device)
    prefill.plan(queries, indptr, indices, last_len, *shape, causal=True, q_data_type=step.q.dtype)
    return lambda: prefill.run(step.q, (pages.k, pages.v))


def _starts(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(0).int()
