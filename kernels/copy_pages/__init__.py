"""Copy whole KV pages, for copy-on-write of a partly matching page. Knows no radix tree."""

import torch

from .. import implementation
from .torch_cpu import copy_pages_cpu


def copy_pages(stack: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> None:
    """Copy page `sources[i]` to page `targets[i]`, in every layer, in place.

    stack: contiguous [L, P, ...], one kind of what the pages hold over all layers, of any dtype;
    sources, targets: int64 [n], on its device. No target may occur twice or be a source: the order
    of the copies is not defined. Where a target is negative nothing is copied: padding.
    """
    if sources.shape != targets.shape or sources.dim() != 1:
        raise ValueError(
            f"copy_pages: {tuple(sources.shape)} sources for {tuple(targets.shape)} targets"
        )
    if stack.dim() < 3 or not stack.is_contiguous():
        raise ValueError(
            f"copy_pages: pages {tuple(stack.shape)} with strides {stack.stride()} are no stack"
        )
    flat = stack.flatten(2)
    # Whatever they mean: words are moved, the wider the fewer; torch moves no float8 by index.
    words = flat.view(torch.int64 if flat[0, 0].nbytes % 8 == 0 else torch.uint8)
    if implementation.is_triton(stack):
        from .triton_kernel import copy_pages_triton

        copy_pages_triton(words, sources, targets)
    else:
        copy_pages_cpu(words, sources, targets)
