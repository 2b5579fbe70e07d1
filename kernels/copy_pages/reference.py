"""The definition of copy_pages in plain torch."""

import torch

from ..kv_pages import KVPages


def copy_pages_reference(pages: KVPages, sources: torch.Tensor, targets: torch.Tensor) -> None:
    """Shapes as in `copy_pages`; one page at a time."""
    for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
        for tensor in pages.tensors():
            tensor[target] = tensor[source].clone()
