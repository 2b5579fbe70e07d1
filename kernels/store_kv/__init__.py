"""Write the keys and values of new tokens into their slots. Owns the op's contract and how values
become the numbers of quantised pages; knows no page table.
"""

import torch

from .. import implementation
from ..kv_pages import KVPages
from .quantize import quantize_heads
from .torch_cpu import store_kv_cpu

__all__ = ["quantize_heads", "store_kv"]


def store_kv(k: torch.Tensor, v: torch.Tensor, pages: KVPages, slots: torch.Tensor) -> None:
    """Write row t of k and v to slot `slots[t]` (page * page_size + offset) of the pages, in place
    and in the pages' format (see `quantize_heads`).

    k, v: [T, Hkv, D], any float dtypes; slots: int64 [T], no two alike but negative ones, whose
    tokens are not stored: padding.
    """
    if k.shape != v.shape or k.shape[1:] != pages.k.shape[2:]:
        raise ValueError(
            f"store_kv: k {tuple(k.shape)} and v {tuple(v.shape)} do not fit pages "
            f"{tuple(pages.k.shape)}"
        )
    if slots.shape != k.shape[:1]:
        raise ValueError(f"store_kv: {tuple(slots.shape)} slots for {k.shape[0]} tokens")
    if pages.head_dim % 2:
        raise ValueError(f"store_kv: heads of {pages.head_dim} elements have no halves")
    if implementation.is_triton(k):
        from .triton_kernel import store_kv_triton

        store_kv_triton(k, v, pages, slots)
    else:
        store_kv_cpu(k, v, pages, slots)
