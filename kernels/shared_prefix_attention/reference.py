"""The definition of the shared pass in plain torch: item by item, in fp32."""

import math

import torch

from ..kv_pages import KVPages
from .plan import SharedPrefixes


def shared_prefix_attention_reference(
    q: torch.Tensor,
    pages: KVPages,
    shared: SharedPrefixes,
    part_out: torch.Tensor,
    part_lse: torch.Tensor,
    *,
    scale: float,
    softcap: float | None,
) -> None:
    """Shapes as in `shared_prefix_attention`."""
    num_items, items_at, tokens_at, parts_at = shared.header.tolist()
    buffer, num_pages = shared.buffer, shared.split // pages.page_size
    items = buffer[items_at : items_at + 4 * num_items].view(num_items, 4)
    for begin, count, pages_at, split in items.tolist():
        read = shared.page_ids[pages_at : pages_at + num_pages].long()
        keys, values = _read(pages.k, pages.k_scales, read), _read(pages.v, pages.v_scales, read)
        tokens = buffer[tokens_at + begin : tokens_at + begin + count].long()
        queries = q[tokens].float().view(count, pages.num_kv_heads, -1, pages.head_dim)
        scores = torch.einsum("mhgd,lhd->mhgl", queries, keys) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        parts = buffer[parts_at + tokens].long() + split
        out = torch.einsum("mhgl,lhd->mhgd", torch.softmax(scores, dim=-1), values)
        part_out[parts] = out.flatten(1, 2)
        part_lse[parts] = torch.logsumexp(scores, dim=-1).flatten(1) * math.log2(math.e)


def _read(numbers: torch.Tensor, scales: torch.Tensor | None, pages: torch.Tensor) -> torch.Tensor:
    """[L, Hkv, D] of those pages."""
    values = numbers[pages].flatten(0, 1).float()
    return values if scales is None else values * scales[pages].flatten(0, 1)[..., None]
