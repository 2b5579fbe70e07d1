"""rotate_and_store on CPU: the single ops in the order that takes the fewest dispatches."""

import torch

from ..kv_pages import KVPages
from ..rms_norm import rms_norm
from ..rotary import rotate
from ..store_kv.torch_cpu import store_kv_cpu
from .norms import HeadNorms


def rotate_and_store_cpu(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    pages: KVPages,
    slots: torch.Tensor,
    norms: HeadNorms | None,
) -> torch.Tensor:
    """Shapes as in `rotate_and_store`."""
    rotated = qkv.shape[1] - pages.num_kv_heads
    num_heads = rotated - pages.num_kv_heads
    q, k, v = qkv[:, :num_heads], qkv[:, num_heads:rotated], qkv[:, rotated:]
    if norms is not None:
        q = rotate(rms_norm(q, norms.q, norms.eps), cos, sin)
        k = rotate(rms_norm(k, norms.k, norms.eps), cos, sin)
    else:  # q and k lie side by side: one rotation for both
        both = rotate(qkv[:, :rotated], cos, sin)
        q, k = both[:, :num_heads], both[:, num_heads:]
    store_kv_cpu(k, v, pages, slots)
    return q
