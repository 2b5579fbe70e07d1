"""The definition of rotate_and_store in plain torch: fp32 up to one rounding at the end."""

import torch

from ..kv_pages import KVPages
from ..store_kv.reference import store_kv_reference
from .norms import HeadNorms


def rotate_and_store_reference(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pages: KVPages,
    slots: torch.Tensor,
    norms: HeadNorms | None = None,
) -> torch.Tensor:
    """Shapes as in `rotate_and_store`."""
    num_heads = qkv.shape[1] - 2 * pages.num_kv_heads
    sizes = [num_heads, pages.num_kv_heads, pages.num_kv_heads]
    q, k, v = torch.split(qkv.float(), sizes, dim=1)
    if norms is not None:
        q = q * torch.rsqrt(q.square().mean(-1, keepdim=True) + norms.eps) * norms.q.float()
        k = k * torch.rsqrt(k.square().mean(-1, keepdim=True) + norms.eps) * norms.k.float()
    store_kv_reference(_turned(k, cos, sin), v, pages, slots)
    return _turned(q, cos, sin).to(qkv.dtype)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """sin's second half is the sine itself, its first half the sine negated."""
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    c, s = cos[:, None, :half], sin[:, None, half:]
    return torch.cat((low * c - high * s, high * c + low * s), dim=-1)
