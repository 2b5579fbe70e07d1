"""The definition of store_kv in plain torch."""

import torch


def store_kv_reference(
    k: torch.Tensor,
    v: torch.Tensor,
    k_pages: torch.Tensor,
    v_pages: torch.Tensor,
    slots: torch.Tensor,
) -> None:
    """Shapes as in `store_kv`; one token at a time."""
    page_size = k_pages.shape[1]
    for token, slot in enumerate(slots.tolist()):
        page, offset = divmod(slot, page_size)
        k_pages[page, offset] = k[token]
        v_pages[page, offset] = v[token]
