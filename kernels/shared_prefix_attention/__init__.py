"""Attention of many tokens to keys that they have in common, each key and value read once for all.

Owns the op's contract. It computes the leading splits of a step whose rows share pages, as the
partial results that `paged_attention` merges with those of the rows' own splits; callers of
`paged_attention` get it by planning and need not call it.
"""

import torch

from .. import implementation
from ..kv_pages import KVPages
from .plan import SharedPrefixes
from .reference import shared_prefix_attention_reference

__all__ = ["SharedPrefixes", "shared_prefix_attention"]


def shared_prefix_attention(
    q: torch.Tensor,
    pages: KVPages,
    shared: SharedPrefixes,
    part_out: torch.Tensor,
    part_lse: torch.Tensor,
    *,
    scale: float,
    softcap: float | None = None,
) -> None:
    """Write the parts of all items of `shared`; changes no other part.

    q: [T, Hq, D]; query head h reads KV head `h // (Hq // Hkv)`. part_out: float32 [P, Hq, D] and
    part_lse: float32 [P, Hq], contiguous: token t's part i is at `first_part[t] + i` and
    has the softmax over split i of its row alone, and the base-2 logarithm of its denominator.
    `softcap`: scores become `softcap * tanh(score / softcap)`.
    """
    num_tokens, num_heads, head_dim = q.shape
    group = num_heads // pages.num_kv_heads
    if num_heads != group * pages.num_kv_heads or head_dim != pages.head_dim:
        raise ValueError(
            f"shared_prefix_attention: q {tuple(q.shape)} does not fit pages {tuple(pages.k.shape)}"
        )
    if shared.split % pages.page_size:
        raise ValueError(
            f"shared_prefix_attention: splits of {shared.split} are not whole pages of "
            f"{pages.page_size}"
        )
    if group > shared.block_rows:
        raise ValueError(
            f"shared_prefix_attention: {group} query heads for each KV head, in blocks of "
            f"{shared.block_rows} rows"
        )
    if part_out.shape[1:] != q.shape[1:] or part_lse.shape != part_out.shape[:2]:
        raise ValueError(
            f"shared_prefix_attention: parts {tuple(part_out.shape)} and "
            f"{tuple(part_lse.shape)} for q {tuple(q.shape)}"
        )
    if implementation.is_triton(q):
        from .triton_kernel import shared_prefix_attention_triton

        shared_prefix_attention_triton(
            q, pages, shared, part_out, part_lse, scale=scale, softcap=softcap
        )
    else:
        shared_prefix_attention_reference(
            q, pages, shared, part_out, part_lse, scale=scale, softcap=softcap
        )
