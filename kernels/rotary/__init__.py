"""Rotary position embedding. Owns the op's contract and re-exports the angles; knows no model.

The rotation is the half-split one of Hugging Face checkpoints: dimension i turns together with
dimension i + D / 2.
"""

import torch

from ..implementation import is_triton
from .angles import RotaryAngles
from .reference import rotate_reference

__all__ = ["RotaryAngles", "rotary", "rotate"]


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate every head of x [T, H, D] by its token's angles; fp32 inside, returns a new tensor
    like x.

    cos, sin: fp32 [T, D] from `RotaryAngles.at`: cos repeated for both halves; sin likewise, its
    first half negated.
    """
    if cos.shape != (x.shape[0], x.shape[2]) or sin.shape != cos.shape:
        raise ValueError(
            f"rotary: cos {tuple(cos.shape)} and sin {tuple(sin.shape)} do not fit x "
            f"{tuple(x.shape)}"
        )
    if is_triton(x):
        from .triton_kernel import rotate_triton

        return rotate_triton(x, cos, sin)
    return rotate_reference(x, cos, sin)


def rotary(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate q [T, Hq, D] and k [T, Hkv, D] as `rotate` does.

    Where q and k lie side by side in one tensor, one call of `rotate` on both is cheaper.
    """
    return rotate(q, cos, sin), rotate(k, cos, sin)
