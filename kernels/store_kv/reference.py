"""The definition of store_kv in plain torch."""

import torch

from ..kv_pages import KVPages


def store_kv_reference(
    k: torch.Tensor, v: torch.Tensor, pages: KVPages, slots: torch.Tensor
) -> None:
    """Shapes as in `store_kv`; one token and head at a time."""
    for token, slot in enumerate(slots.tolist()):
        if slot < 0:
            continue
        place = divmod(slot, pages.page_size)
        for head in range(pages.num_kv_heads):
            _store(k[token, head], pages.k, pages.k_scales, (*place, head))
            _store(v[token, head], pages.v, pages.v_scales, (*place, head))


def _store(
    values: torch.Tensor,
    pages: torch.Tensor,
    scales: torch.Tensor | None,
    place: tuple[int, int, int],
) -> None:
    if scales is None:
        pages[place] = values.to(pages.dtype)
        return
    largest = 127.0 if pages.dtype is torch.int8 else 448.0
    top = max(values.float().abs().max(), torch.tensor(1e-30))
    numbers = values.float() * (1 / top * largest)
    scales[place] = top / largest
    pages[place] = (numbers.round() if pages.dtype is torch.int8 else numbers).to(pages.dtype)
