"""Causal attention of a mixed batch over paged keys and values.

Owns the op's contract. `plan_attention` runs once per step and works out everything that the layers
share; `paged_attention` runs once per layer. Knows no request, no tree and no model: rows that
share a prefix are recognised by their page numbers.
"""

import torch

from .. import implementation
from ..kv_pages import KVPages
from .plan import AttentionPlan, plan_attention
from .reference import paged_attention_reference
from .static_plan import Capacity, StaticPlan
from .torch_cpu import attend_parts

__all__ = ["AttentionPlan", "Capacity", "StaticPlan", "paged_attention", "plan_attention"]


def paged_attention(
    q: torch.Tensor,
    pages: KVPages,
    plan: AttentionPlan,
    *,
    scale: float,
    softcap: float | None = None,
) -> torch.Tensor:
    """Softmax attention of every new token to its row's context up to itself.

    q: [T, Hq, D], the rows' new tokens one row after the other, whose own keys and values are
    stored in the pages already. Query head h reads KV head `h // group`. Scores are `scale` times
    products; softcap: and then softcap * tanh(score / softcap). Pages hold numbers of q's dtype, or
    quantised ones. Returns a new [T, Hq, D] tensor of q's dtype; padding that a static plan has
    gets zeros. Slots outside the rows' contexts are never read.
    """
    _check(q, pages, plan, scale, softcap)
    if plan.work is not None and implementation.is_triton(q):
        from .triton_kernel import paged_attention_triton

        return paged_attention_triton(
            q, pages, plan.work, plan.window, scale=scale, softcap=softcap
        )
    if plan.parts is not None:
        return attend_parts(q, pages, plan.parts, scale=scale, softcap=softcap)
    return paged_attention_reference(q, pages, plan, scale=scale, softcap=softcap)


def _check(
    q: torch.Tensor, pages: KVPages, plan: AttentionPlan, scale: float, softcap: float | None
) -> None:
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
    if pages.k_scales is None and pages.k.dtype is not q.dtype:
        raise TypeError(f"paged_attention: q is {q.dtype}, pages hold {pages.k.dtype}")
    if scale <= 0 or (softcap is not None and softcap <= 0):
        raise ValueError(f"paged_attention: scale {scale}, softcap {softcap}: must be positive")
