"""Causal attention of a mixed batch over paged keys and values.

Owns the op's contract. `plan_attention` runs once per step and works out everything that the layers
share; `paged_attention` runs once per layer. Knows no request, no tree and no model: rows that
share a prefix are recognised by their page numbers.
"""

import torch

from .plan import AttentionPlan, plan_attention
from .torch_cpu import attend_parts

__all__ = ["AttentionPlan", "paged_attention", "plan_attention"]


def paged_attention(
    q: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    plan: AttentionPlan,
    *,
    scale: float,
) -> torch.Tensor:
    """Softmax attention of every new token to its row's context up to itself.

    q: [T, Hq, D], the rows' new tokens one row after the other; k_pages, v_pages:
    [P, page_size, Hkv, D], contiguous, the new tokens' own keys and values already stored. Query
    head h reads KV head `h // group`. Returns a new [T, Hq, D] tensor of q's dtype. Slots outside
    the rows' contexts are never read.
    """
    num_tokens, num_heads, head_dim = q.shape
    page_size, num_kv_heads = k_pages.shape[1:3]
    if num_tokens != plan.num_tokens:
        raise ValueError(f"paged_attention: {num_tokens} queries, planned for {plan.num_tokens}")
    if num_heads != num_kv_heads * plan.group or k_pages.shape[3] != head_dim:
        raise ValueError(
            f"paged_attention: q {tuple(q.shape)} does not fit pages {tuple(k_pages.shape)} "
            f"with {plan.group} query heads for each KV head"
        )
    if k_pages.shape != v_pages.shape or page_size != plan.page_size:
        raise ValueError(
            f"paged_attention: pages {tuple(k_pages.shape)} and {tuple(v_pages.shape)}, "
            f"planned for pages of {plan.page_size}"
        )
    if plan.blocks is not None:
        from .triton_kernel import paged_attention_triton

        return paged_attention_triton(q, k_pages, v_pages, plan, plan.blocks, scale=scale)
    return attend_parts(q, k_pages, v_pages, plan.parts, scale=scale)
