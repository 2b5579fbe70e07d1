"""Copy whole KV pages, for copy-on-write of a partly matching page. Knows no radix tree."""

import torch

from ..implementation import is_triton
from ..kv_pages import KVPages


def copy_pages(pages: KVPages, sources: torch.Tensor, targets: torch.Tensor) -> None:
    """Copy page `sources[i]` to page `targets[i]`, keys and values, in place.

    sources, targets: int64 [n]. No target may occur twice or be a source: the order of the copies
    is not defined.
    """
    if sources.shape != targets.shape or sources.dim() != 1:
        raise ValueError(
            f"copy_pages: {tuple(sources.shape)} sources for {tuple(targets.shape)} targets"
        )
    if is_triton(pages.k):
        from .triton_kernel import copy_pages_triton

        copy_pages_triton(pages, sources, targets)
        return
    for tensor in pages.tensors():
        tensor.index_copy_(0, targets, tensor.index_select(0, sources))
