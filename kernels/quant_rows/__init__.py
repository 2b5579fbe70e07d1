"""Rows of a matrix of 8-bit or 4-bit numbers, as floats: look-ups in an embedding, and whole
matrices. Owns the op's contract; knows no model."""

import torch

from .. import implementation
from ..quant_weight import QuantWeight
from .reference import quant_rows_reference

__all__ = ["quant_rows"]


def quant_rows(weight: QuantWeight, rows: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """`weight[rows]` for rows int64 [T], each below `weight.outputs`; None: all of them. Returns a
    new tensor [T, inputs] of `dtype`: the exact values, rounded once."""
    if rows is not None and rows.dim() != 1:
        raise ValueError(f"quant_rows: rows have the shape {tuple(rows.shape)}, not [T]")
    if implementation.is_triton(weight.numbers):
        from .triton_kernel import quant_rows_triton

        return quant_rows_triton(weight, rows, dtype)
    return quant_rows_reference(weight, rows, dtype)
