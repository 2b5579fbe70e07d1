"""What lies between a layer's projection and its attention: heads normalised, rotated, and keys and
values stored in their slots. Owns the op's contract; knows no model and no page table.
"""

import torch

from .. import implementation
from ..kv_pages import KVPages
from .norms import HeadNorms
from .torch_cpu import rotate_and_store_cpu

__all__ = ["HeadNorms", "rotate_and_store"]


def rotate_and_store(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pages: KVPages,
    slots: torch.Tensor,
    norms: HeadNorms | None = None,
) -> torch.Tensor:
    """Returns the rotated queries, a new tensor [T, Hq, D] of qkv's dtype; writes the rotated keys,
    and the values as they are, to their slots of the pages, as `store_kv` does. One launch on a
    GPU, with fp32 inside.

    qkv: [T, Hq + 2 * Hkv, D], the heads of q, k and v, contiguous heads; cos, sin: fp32 [T, D] from
    `RotaryAngles.at`; slots: int64 [T], negative where a token is not to be stored.
    """
    num_tokens, num_heads, head_dim = qkv.shape
    if head_dim != pages.head_dim or num_heads <= 2 * pages.num_kv_heads or head_dim % 2:
        raise ValueError(
            f"rotate_and_store: qkv {tuple(qkv.shape)} does not fit pages {tuple(pages.k.shape)}"
        )
    if cos.shape != (num_tokens, head_dim) or sin.shape != cos.shape:
        raise ValueError(
            f"rotate_and_store: cos {tuple(cos.shape)} and sin {tuple(sin.shape)} do not fit qkv "
            f"{tuple(qkv.shape)}"
        )
    if slots.shape != (num_tokens,):
        raise ValueError(f"rotate_and_store: {tuple(slots.shape)} slots for {num_tokens} tokens")
    if norms is not None and not norms.q.shape == norms.k.shape == (head_dim,):
        raise ValueError(
            f"rotate_and_store: norms of {tuple(norms.q.shape)} and {tuple(norms.k.shape)} do not "
            f"fit heads of {head_dim}"
        )
    if implementation.is_triton(qkv):
        from .triton_kernel import rotate_and_store_triton

        return rotate_and_store_triton(qkv, cos, sin, pages, slots, norms)
    return rotate_and_store_cpu(qkv, cos, sin, pages, slots, norms)
