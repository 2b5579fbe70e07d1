"""A linear map by a matrix of 8-bit or 4-bit numbers. Owns the op's contract; knows no model."""

import torch

from .. import implementation
from ..quant_weight import QuantWeight
from .reference import quant_linear_reference

__all__ = ["quant_linear"]


def quant_linear(
    x: torch.Tensor,
    weight: QuantWeight,
    bias: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """`x @ weight.T + bias` for x [T, inputs] (fp16, bf16 or fp32), bias [outputs]. Returns a new
    tensor [T, outputs] of `dtype` (None: x's), summed in fp32.

    In Triton a row's result depends on the other rows only by their number, and by that only
    through the ranges 1, 2-16, 17-32, 33-64 and 65-1,023 (fp32: 1 and 2-64). Beyond, the product
    is cuBLAS's.
    """
    if x.dim() != 2 or x.shape[1] != weight.inputs:
        raise ValueError(
            f"quant_linear: x {tuple(x.shape)} does not fit a weight of {weight.inputs} inputs"
        )
    if bias is not None and bias.shape != (weight.outputs,):
        raise ValueError(
            f"quant_linear: bias {tuple(bias.shape)} does not fit {weight.outputs} outputs"
        )
    if implementation.is_triton(x):
        from .triton_kernel import quant_linear_triton

        return quant_linear_triton(x, weight, bias, dtype or x.dtype)
    return quant_linear_reference(x, weight, bias, dtype or x.dtype)
