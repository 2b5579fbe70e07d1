"""RMS normalisation over the last dimension. Owns the op's contract; knows no model."""

import torch
import torch.nn.functional as F


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension, computed in fp32.

    x: [..., D], any float dtype; weight: [D], same dtype. Returns a new tensor like x.
    """
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"rms_norm: weight {tuple(weight.shape)} does not fit x {tuple(x.shape)}")
    if x.device.type == "cuda":
        from .triton_kernel import rms_norm_triton

        return rms_norm_triton(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight, eps)
