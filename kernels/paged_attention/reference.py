"""The definition of paged attention in plain torch: row by row, query by query, in fp32.

Also the CPU path of a static plan.
"""

import torch

from ..kv_pages import KVPages
from .plan import AttentionPlan
from .tree_masks import unpack_masks


def paged_attention_reference(
    q: torch.Tensor,
    pages: KVPages,
    plan: AttentionPlan,
    *,
    scale: float,
    softcap: float | None = None,
) -> torch.Tensor:
    """Shapes as in `paged_attention`."""
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    for row, (token, num_queries, context, first_page) in enumerate(plan.rows.table.tolist()):
        if not num_queries:
            continue
        tree = plan.trees.get(row)
        sees = None if tree is None else torch.from_numpy(unpack_masks(tree))
        own = plan.rows.page_ids[first_page : first_page + -(-context // plan.page_size)].long()
        keys, values = (
            _stored(stored, scales, own, context).repeat_interleave(plan.group, 1)
            for stored, scales in ((pages.k, pages.k_scales), (pages.v, pages.v_scales))
        )
        for query in range(num_queries):
            last = context - num_queries + query
            first = 0 if plan.window is None else max(0, last + 1 - plan.window)
            seen = torch.arange(first, last + 1, device=q.device)
            if sees is not None:
                before = torch.arange(context - num_queries)
                seen = torch.cat([before, before.numel() + sees[query].nonzero()[:, 0]])
            scores = torch.einsum("hd,lhd->hl", q[token + query].float(), keys[seen]) * scale
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            weights = torch.softmax(scores, dim=-1)
            out[token + query] = torch.einsum("hl,lhd->hd", weights, values[seen]).to(q.dtype)
    return out


def _stored(
    stored: torch.Tensor, scales: torch.Tensor | None, pages: torch.Tensor, context: int
) -> torch.Tensor:
    """fp32 [context, Hkv, D]: what the pages hold."""
    numbers = stored[pages].flatten(0, 1)[:context].float()
    return numbers if scales is None else numbers * scales[pages].flatten(0, 1)[:context, :, None]
