"""Paged attention on CPU: gather a part's keys and values, one fused attention call, merge.

The fused routine is the one behind `scaled_dot_product_attention` on CPU, called directly because
merging needs its log-sum-exp. KV heads are never copied for their query heads: with several rows
the group rides along the query axis, with one row the keys are expanded with stride 0.
"""

from collections.abc import Callable
from functools import partial

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
    softcap: float | None = None,
) -> torch.Tensor:
    """Shapes as in `paged_attention`."""
    attend: Callable[..., tuple[torch.Tensor, torch.Tensor]] = _attention
    if softcap is not None:
        attend = partial(_capped_attention, softcap=softcap)
    if len(parts.own) == 1:
        out, lse = _attend(q, pages, parts.own[0], scale, attend)
    else:
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        lse = torch.empty(q.shape[:2], dtype=torch.float32)
        for part in parts.own:
            out[part.tokens], lse[part.tokens] = _attend(q, pages, part, scale, attend)
    for part in parts.shared:
        before, before_lse = _attend(q, pages, part, scale, attend)
        # exp(lse) is a part's share of the softmax denominator.
        share = torch.sigmoid(before_lse - lse[part.tokens]).unsqueeze(-1)
        out[part.tokens] = torch.lerp(out[part.tokens].float(), before.float(), share).to(out.dtype)
    return out


def _attend(
    q: torch.Tensor,
    pages: KVPages,
    part: Part,
    scale: float,
    attend: Callable[..., tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """One part -> out [n, Hq, D] and log-sum-exp fp32 [n, Hq]."""
    q = q[part.tokens]
    num_tokens, num_heads, head_dim = q.shape
    num_kv_heads = pages.num_kv_heads
    q = q.view(part.rows, part.queries, num_kv_heads, -1, head_dim)
    k, v = (
        _gathered(stored, scales, part.slots, q.dtype)
        .view(part.rows, -1, num_kv_heads, head_dim)
        .transpose(1, 2)
        for stored, scales in ((pages.k, pages.k_scales), (pages.v, pages.v_scales))
    )
    if part.queries == 1:
        out, lse = attend(q.squeeze(1), k, v, attn_mask=part.mask, scale=scale)
    elif part.rows == 1:
        k, v = (x.transpose(0, 1).expand(-1, q.shape[3], -1, -1) for x in (k, v))
        out, lse = attend(
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
        out, lse = attend(q.flatten(2, 3), k, v, attn_mask=part.mask, scale=scale)
        out = out.view_as(q).transpose(1, 2)
        lse = lse.view(q.shape[:-1]).transpose(1, 2)
    return out.reshape(num_tokens, num_heads, head_dim), lse.reshape(num_tokens, num_heads)


def _gathered(
    stored: torch.Tensor, scales: torch.Tensor | None, slots: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """[len(slots), Hkv, D]: what these slots hold, in `dtype`."""
    numbers = stored.flatten(0, 1).index_select(0, slots)
    if scales is None:
        return numbers
    return (numbers.float() * scales.flatten(0, 1).index_select(0, slots).unsqueeze(-1)).to(dtype)


def _capped_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float,
    softcap: float,
    is_causal: bool = False,
    attn_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the fused routine does for q [B, H, n, D], k and v [B, H, m, D], with capped scores."""
    scores = softcap * torch.tanh(q.float() @ k.float().transpose(-1, -2) * (scale / softcap))
    if is_causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores.masked_fill_(hidden, float("-inf"))
    elif attn_mask is not None:
        scores += attn_mask
    lse = torch.logsumexp(scores, dim=-1)
    return (torch.exp(scores - lse.unsqueeze(-1)) @ v.float()).to(q.dtype), lse
