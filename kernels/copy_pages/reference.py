"""The definition of copy_pages in plain torch."""

import torch


def copy_pages_reference(stack: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> None:
    """Shapes as in `copy_pages`; one page at a time."""
    for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
        if target >= 0:
            stack[:, target] = stack[:, source].clone()
