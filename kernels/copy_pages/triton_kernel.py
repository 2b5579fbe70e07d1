"""copy_pages on the GPU: keys and values of all pairs in one launch."""

import torch
import triton
import triton.language as tl

from ..kv_pages import KVPages

_BLOCK = 2_048


@triton.jit
def _kernel(k_pages, v_pages, sources, targets, page_elements, BLOCK: tl.constexpr):
    pair = tl.program_id(0)
    source = tl.load(sources + pair) * page_elements
    target = tl.load(targets + pair) * page_elements
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = element < page_elements
    key = tl.load(k_pages + source + element, mask=inside)
    tl.store(k_pages + target + element, key, mask=inside)
    value = tl.load(v_pages + source + element, mask=inside)
    tl.store(v_pages + target + element, value, mask=inside)


def copy_pages_triton(pages: KVPages, sources: torch.Tensor, targets: torch.Tensor) -> None:
    """Shapes as in `copy_pages`."""
    page_elements = pages.k[0].numel()
    if len(sources):
        grid = (len(sources), triton.cdiv(page_elements, _BLOCK))
        _kernel[grid](pages.k, pages.v, sources, targets, page_elements, BLOCK=_BLOCK)
