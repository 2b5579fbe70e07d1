"""Copy whole KV pages, for copy-on-write of a partly matching page. Knows no radix tree."""

import torch


def copy_pages(
    k_pages: torch.Tensor, v_pages: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor
) -> None:
    """Copy page `sources[i]` to page `targets[i]` in both tensors, in place.

    k_pages, v_pages: [P, page_size, Hkv, D], contiguous; sources, targets: int64 [n]. No target may
    occur twice or be a source: the order of the copies is not defined.
    """
    if k_pages.shape != v_pages.shape:
        raise ValueError(
            f"copy_pages: k_pages {tuple(k_pages.shape)} and v_pages {tuple(v_pages.shape)} differ"
        )
    if sources.shape != targets.shape or sources.dim() != 1:
        raise ValueError(
            f"copy_pages: {tuple(sources.shape)} sources for {tuple(targets.shape)} targets"
        )
    if k_pages.device.type == "cuda":
        from .triton_kernel import copy_pages_triton

        copy_pages_triton(k_pages, v_pages, sources, targets)
        return
    for pages in (k_pages, v_pages):
        pages.index_copy_(0, targets, pages.index_select(0, sources))
