"""RMS normalisation over the last dimension, alone or after an addition. Owns the op's contract;
knows no model.
"""

import torch
import torch.nn.functional as F

from .. import implementation


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension, computed in fp32.

    x: [..., D] and weight: [D], any float dtypes. Returns a new tensor of the weight's dtype, so
    that an fp32 sum can be normalised for a bf16 product.
    """
    _check(x, weight)
    if implementation.is_triton(x):
        from .triton_kernel import rms_norm_triton

        return rms_norm_triton(x, weight, eps)
    return _rms_norm_cpu(x, weight, eps)


def add_rms_norm(
    x: torch.Tensor, total: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """Adds x to `total` in place and returns `rms_norm(total, weight, eps)`: one pass on a GPU.

    x, total: [..., D], any float dtypes; total contiguous: the running sum of a model's layers. In
    fp32 it costs little beside the weights' traffic, and in bf16 it alone would double the error of
    the logits.
    """
    if x.shape != total.shape or not total.is_contiguous():
        raise ValueError(
            f"add_rms_norm: x {tuple(x.shape)} cannot be added to a total {tuple(total.shape)} "
            f"with strides {total.stride()}"
        )
    _check(x, weight)
    if implementation.is_triton(x):
        from .triton_kernel import add_rms_norm_triton

        return add_rms_norm_triton(x, total, weight, eps)
    return _rms_norm_cpu(total.add_(x), weight, eps)


def _check(x: torch.Tensor, weight: torch.Tensor) -> None:
    if weight.shape != x.shape[-1:]:
        raise ValueError(f"rms_norm: weight {tuple(weight.shape)} does not fit x {tuple(x.shape)}")


def _rms_norm_cpu(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    if x.dtype is weight.dtype:
        return F.rms_norm(x, weight.shape, weight, eps)
    normed = F.rms_norm(x.float(), weight.shape, None, eps)
    return torch.mul(normed, weight, out=torch.empty_like(x, dtype=weight.dtype))
