"""Write the keys and values of new tokens into their slots. Owns the op's contract; knows no page
table.
"""

import torch

from ..implementation import is_triton
from ..kv_pages import KVPages


def store_kv(
    k: torch.Tensor,
    v: torch.Tensor,
    pages: KVPages,
    slots: torch.Tensor,
) -> None:
    """Write row t of k and v to slot `slots[t]` (page * page_size + offset) of the pages, in place.

    k, v: [T, Hkv, D]; slots: int64 [T], no two alike.
    """
    if k.shape != v.shape or k.shape[1:] != pages.k.shape[2:]:
        raise ValueError(
            f"store_kv: k {tuple(k.shape)} and v {tuple(v.shape)} do not fit pages "
            f"{tuple(pages.k.shape)}"
        )
    if slots.shape != k.shape[:1]:
        raise ValueError(f"store_kv: {tuple(slots.shape)} slots for {k.shape[0]} tokens")
    if is_triton(k):
        from .triton_kernel import store_kv_triton

        store_kv_triton(k, v, pages, slots)
        return
    pages.k.view(-1, *k.shape[1:]).index_copy_(0, slots, k)
    pages.v.view(-1, *v.shape[1:]).index_copy_(0, slots, v)
