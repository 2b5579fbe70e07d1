"""RMS normalisation over the last dimension. Owns the op's contract; knows no model."""

import torch
import torch.nn.functional as F

from ..implementation import is_triton


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension, computed in fp32.

    x: [..., D] and weight: [D], any float dtypes. Returns a new tensor of the weight's dtype, so
    that an fp32 sum can be normalised for a bf16 product.
    """
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"rms_norm: weight {tuple(weight.shape)} does not fit x {tuple(x.shape)}")
    if is_triton(x):
        from .triton_kernel import rms_norm_triton

        return rms_norm_triton(x, weight, eps)
    if x.dtype is weight.dtype:
        return F.rms_norm(x, weight.shape, weight, eps)
    normed = F.rms_norm(x.float(), weight.shape, None, eps)
    return torch.mul(normed, weight, out=torch.empty_like(x, dtype=weight.dtype))
