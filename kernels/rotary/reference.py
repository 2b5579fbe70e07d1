"""The definition of the rotation in plain torch, also the CPU path: four dispatches."""

import torch


def rotate_reference(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x: [T, H, D]; cos, sin: fp32 [T, D], sin's first half negated (see `rotate`)."""
    wide = x.float()
    swapped = wide.roll(x.shape[-1] // 2, -1)  # the two halves change places
    return torch.addcmul(wide * cos.unsqueeze(1), swapped, sin.unsqueeze(1)).to(x.dtype)
