"""Write the keys and values of new tokens into their slots. Owns the op's contract; knows no page
table.
"""

import torch


def store_kv(
    k: torch.Tensor,
    v: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    slots: torch.Tensor,
) -> None:
    """Write row t of k and v to slot `slots[t]` (page * page_size + offset) of the pages, in place.

    k, v: [T, Hkv, D]; k_pages, v_pages: [P, page_size, Hkv, D], contiguous; slots: int64 [T], no
    two alike.
    """
    if k.shape != v.shape or k.shape[1:] != k_pages.shape[2:] or k_pages.shape != v_pages.shape:
        raise ValueError(
            f"store_kv: k {tuple(k.shape)} and v {tuple(v.shape)} do not fit pages "
            f"{tuple(k_pages.shape)} and {tuple(v_pages.shape)}"
        )
    if slots.shape != k.shape[:1]:
        raise ValueError(f"store_kv: {tuple(slots.shape)} slots for {k.shape[0]} tokens")
    if k.device.type == "cuda":
        from .triton_kernel import store_kv_triton

        store_kv_triton(k, v, k_pages, v_pages, slots)
        return
    k_pages.view(-1, *k.shape[1:]).index_copy_(0, slots, k)
    v_pages.view(-1, *v.shape[1:]).index_copy_(0, slots, v)
