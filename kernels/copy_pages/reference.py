"""The definition of copy_pages in plain torch."""

import torch


def copy_pages_reference(
    k_pages: torch.Tensor, v_pages: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor
) -> None:
    """Shapes as in `copy_pages`; one page at a time."""
    for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
        k_pages[target] = k_pages[source].clone()
        v_pages[target] = v_pages[source].clone()
