"""store_kv on CPU: one indexed copy for each tensor."""

import torch

from ..kv_pages import KVPages
from .quantize import quantize_heads


def store_kv_cpu(k: torch.Tensor, v: torch.Tensor, pages: KVPages, slots: torch.Tensor) -> None:
    """Shapes as in `store_kv`."""
    _put(pages.k, pages.k_scales, k, slots)
    _put(pages.v, pages.v_scales, v, slots)


def _put(
    pages: torch.Tensor, scales: torch.Tensor | None, values: torch.Tensor, slots: torch.Tensor
) -> None:
    if scales is None:
        _copy(pages, values.to(pages.dtype), slots)
        return
    numbers, their_scales = quantize_heads(values, pages.dtype)
    # As bytes: torch moves float8 by index nowhere.
    _copy(pages.view(torch.uint8), numbers.view(torch.uint8), slots)
    _copy(scales, their_scales, slots)


def _copy(pages: torch.Tensor, values: torch.Tensor, slots: torch.Tensor) -> None:
    by_slot = pages.view(-1, *values.shape[1:])
    try:
        by_slot.index_copy_(0, slots, values)
    except IndexError:  # negative slots are rare, and looking for them would cost every step
        used = slots >= 0
        by_slot.index_copy_(0, slots[used], values[used])
