"""copy_pages on CPU: all layers in two dispatches."""

import torch


def copy_pages_cpu(words: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> None:
    """words: [L, P, words of a page]."""
    used = targets >= 0
    sources, targets = sources[used], targets[used]
    words.index_copy_(1, targets, words.index_select(1, sources))
