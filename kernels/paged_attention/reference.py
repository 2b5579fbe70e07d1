"""The definition of paged attention in plain torch: row by row, query by query, in fp32."""

import torch

from ..kv_pages import KVPages
from .plan import AttentionPlan


def paged_attention_reference(
    q: torch.Tensor,
    pages: KVPages,
    plan: AttentionPlan,
    *,
    scale: float,
) -> torch.Tensor:
    """Shapes as in `paged_attention`."""
    out = torch.empty_like(q)
    token = 0
    for row, (num_queries, context) in enumerate(
        zip(plan.query_lens, plan.context_lens, strict=True)
    ):
        own = plan.page_table[row, : -(-context // plan.page_size)].long()
        keys = pages.k[own].flatten(0, 1)[:context].float().repeat_interleave(plan.group, 1)
        values = pages.v[own].flatten(0, 1)[:context].float().repeat_interleave(plan.group, 1)
        for last in range(context - num_queries, context):
            first = 0 if plan.window is None else max(0, last + 1 - plan.window)
            seen = slice(first, last + 1)
            scores = torch.einsum("hd,lhd->hl", q[token].float(), keys[seen]) * scale
            weights = torch.softmax(scores, dim=-1)
            out[token] = torch.einsum("hl,lhd->hd", weights, values[seen]).to(q.dtype)
            token += 1
    return out
