"""The definition of store_kv in plain torch."""

import torch

from ..kv_pages import KVPages


def store_kv_reference(
    k: torch.Tensor,
    v: torch.Tensor,
    pages: KVPages,
    slots: torch.Tensor,
) -> None:
    """Shapes as in `store_kv`; one token at a time."""
    page_size = pages.page_size
    for token, slot in enumerate(slots.tolist()):
        page, offset = divmod(slot, page_size)
        pages.k[page, offset] = k[token]
        pages.v[page, offset] = v[token]
