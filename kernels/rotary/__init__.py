"""Rotary position embedding. Owns the op's contract and re-exports the angles; knows no model.

The rotation is the half-split one of Hugging Face checkpoints: dimension i turns together with
dimension i + D / 2. On a GPU `rotate_store` does it, together with what comes before and after.
"""

import torch

from .angles import RotaryAngles

__all__ = ["RotaryAngles", "rotate"]


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate every head of x [T, H, D] by its token's angles; fp32 inside, returns a new tensor
    like x. Plain torch, four dispatches.

    cos, sin: fp32 [T, D] from `RotaryAngles.at`: cos repeated for both halves; sin likewise, its
    first half negated.
    """
    if cos.shape != (x.shape[0], x.shape[2]) or sin.shape != cos.shape:
        raise ValueError(
            f"rotary: cos {tuple(cos.shape)} and sin {tuple(sin.shape)} do not fit x "
            f"{tuple(x.shape)}"
        )
    wide = x.float()
    swapped = wide.roll(x.shape[-1] // 2, -1)  # the two halves change places
    return torch.addcmul(wide * cos.unsqueeze(1), swapped, sin.unsqueeze(1)).to(x.dtype)
