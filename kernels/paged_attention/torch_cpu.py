"""Paged attention on CPU: gather a part's keys and values, one fused attention call, merge.

The fused routine is the one behind `scaled_dot_product_attention` on CPU, called directly because
merging needs its log-sum-exp. KV heads are never copied for their query heads: with several rows
the group rides along the query axis, with one row the keys are expanded with stride 0.
"""

import torch

from ..kv_pages import KVPages
from .parts import Part, Parts

_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def attend_parts(
    q: torch.Tensor,
    pages: KVPages,
    parts: Parts,
    *,
    scale: float,
) -> torch.Tensor:
    """Shapes as in `paged_attention`."""
    k, v = pages.k.flatten(0, 1), pages.v.flatten(0, 1)
    if len(parts.own) == 1:
        out, lse = _attend(q, k, v, parts.own[0], scale)
    else:
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        lse = torch.empty(q.shape[:2], dtype=torch.float32)
        for part in parts.own:
            out[part.tokens], lse[part.tokens] = _attend(q, k, v, part, scale)
    for part in parts.shared:
        before, before_lse = _attend(q, k, v, part, scale)
        # exp(lse) is a part's share of the softmax denominator.
        share = torch.sigmoid(before_lse - lse[part.tokens]).unsqueeze(-1)
        out[part.tokens] = torch.lerp(out[part.tokens].float(), before.float(), share).to(out.dtype)
    return out


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, part: Part, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One part over slots k, v [S, Hkv, D] -> out [n, Hq, D] and log-sum-exp fp32 [n, Hq]."""
    q = q[part.tokens]
    num_tokens, num_heads, head_dim = q.shape
    num_kv_heads = k.shape[1]
    q = q.view(part.rows, part.queries, num_kv_heads, -1, head_dim)
    k = k.index_select(0, part.slots).view(part.rows, -1, num_kv_heads, head_dim).transpose(1, 2)
    v = v.index_select(0, part.slots).view(part.rows, -1, num_kv_heads, head_dim).transpose(1, 2)
    if part.queries == 1:
        out, lse = _attention(q.squeeze(1), k, v, attn_mask=part.mask, scale=scale)
    elif part.rows == 1:
        k, v = (x.transpose(0, 1).expand(-1, q.shape[3], -1, -1) for x in (k, v))
        out, lse = _attention(
            q[0].permute(1, 2, 0, 3),
            k,
            v,
            is_causal=part.causal,
            attn_mask=part.mask,
            scale=scale,
        )
        out, lse = out.permute(2, 0, 1, 3), lse.permute(2, 0, 1)
    else:
        q = q.transpose(1, 2)
        out, lse = _attention(q.flatten(2, 3), k, v, attn_mask=part.mask, scale=scale)
        out = out.view_as(q).transpose(1, 2)
        lse = lse.view(q.shape[:-1]).transpose(1, 2)
    return out.reshape(num_tokens, num_heads, head_dim), lse.reshape(num_tokens, num_heads)
