"""Causal attention of a mixed batch over paged keys and values.

Owns the op's contract. `plan_attention` runs once per step and works out everything that the layers
share; `paged_attention` runs once per layer. Knows no request, no tree and no model: rows that
share a prefix are recognised by their page numbers.
"""

import torch

from ..kv_pages import KVPages
from .plan import AttentionPlan, plan_attention
from .torch_cpu import attend_parts

__all__ = ["AttentionPlan", "paged_attention", "plan_attention"]


def paged_attention(
    q: torch.Tensor,
    pages: KVPages,
    plan: AttentionPlan,
    *,
    scale: float,
) -> torch.Tensor:
    """Softmax attention of every new token to its row's context up to itself.

    q: [T, Hq, D], the rows' new tokens one row after the other, whose own keys and values are
    stored in the pages already. Query head h reads KV head `h // group`. Returns a new [T, Hq, D]
    tensor of q's dtype. Slots outside the rows' contexts are never read.
    """
    num_tokens, num_heads, head_dim = q.shape
    if num_tokens != plan.num_tokens:
        raise ValueError(f"paged_attention: {num_tokens} queries, planned for {plan.num_tokens}")
    if num_heads != pages.num_kv_heads * plan.group or pages.head_dim != head_dim:
        raise ValueError(
            f"paged_attention: q {tuple(q.shape)} does not fit pages {tuple(pages.k.shape)} "
            f"with {plan.group} query heads for each KV head"
        )
    if pages.page_size != plan.page_size:
        raise ValueError(
            f"paged_attention: pages of {pages.page_size}, planned for pages of {plan.page_size}"
        )
    if plan.blocks is not None:
        from .triton_kernel import paged_attention_triton

        return paged_attention_triton(q, pages, plan, plan.blocks, scale=scale)
    return attend_parts(q, pages, plan.parts, scale=scale)
