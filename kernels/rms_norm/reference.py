"""The definition of rms_norm and add_rms_norm in plain torch."""

import torch


def rms_norm_reference(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x: [..., D]; weight: [D]. All arithmetic in fp32, one rounding at the end."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return (wide * scale * weight.float()).to(weight.dtype)


def add_rms_norm_reference(
    x: torch.Tensor, total: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """x: [..., D], added to `total` [..., D] in place: what is normalised is the rounded sum."""
    total.copy_(total.float() + x.float())
    return rms_norm_reference(total, weight, eps)
