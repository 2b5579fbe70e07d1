"""A linear map in 8-bit floats (e4m3). Owns the op's contract; knows no model."""

from dataclasses import dataclass
from typing import Final

import torch

from .. import implementation
from .reference import fp8_rows_reference

__all__ = ["ALIGNMENT", "Fp8Weight", "fp8_linear", "fp8_rows", "to_fp8"]

ALIGNMENT: Final = 16  # both sides of a matrix are multiples of it


@dataclass(frozen=True)
class Fp8Weight:
    """A matrix: values e4m3 [outputs, inputs], each output's times its scale, fp32 [1, outputs]."""

    values: torch.Tensor
    scales: torch.Tensor

    def __post_init__(self) -> None:
        outputs, inputs = self.values.shape
        if outputs % ALIGNMENT or inputs % ALIGNMENT or self.scales.shape != (1, outputs):
            raise ValueError(
                f"Fp8Weight: values {tuple(self.values.shape)} are no multiples of {ALIGNMENT}, "
                f"or scales {tuple(self.scales.shape)} are not one for each output"
            )

    @property
    def outputs(self) -> int:
        return self.values.shape[0]

    @property
    def inputs(self) -> int:
        return self.values.shape[1]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scales.nbytes


def to_fp8(weight: torch.Tensor) -> Fp8Weight:
    """Round a matrix [outputs, inputs]; each output's largest magnitude becomes 448, e4m3's own."""
    values, scales = fp8_rows_reference(weight)
    return Fp8Weight(values, scales.T.contiguous())


def fp8_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round x [T, D] to e4m3 row by row: values [T, D] and scales fp32 [T, 1], x being about
    `values * scales`. A row of zeros has a scale of 1."""
    if x.dim() != 2:
        raise ValueError(f"fp8_rows: x has the shape {tuple(x.shape)}, not [T, D]")
    if implementation.is_triton(x):
        from .triton_kernel import fp8_rows_triton

        return fp8_rows_triton(x)
    return fp8_rows_reference(x)


def fp8_linear(
    x: torch.Tensor, weight: Fp8Weight, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`x @ weight.T + bias` for x [T, inputs], bias [outputs], x's rows rounded to e4m3 first.
    Returns a new tensor [T, outputs] of x's dtype; the product is rounded to bfloat16.

    On a GPU of compute capability 8.9 or more; torch emulates it on the CPU.
    """
    if x.dim() != 2 or x.shape[1] != weight.inputs:
        raise ValueError(
            f"fp8_linear: x {tuple(x.shape)} does not fit a weight of {weight.inputs} inputs"
        )
    if not len(x):
        return x.new_empty((0, weight.outputs))
    values, scales = fp8_rows(x)
    out = torch._scaled_mm(
        values, weight.values.T, scales, weight.scales, out_dtype=torch.bfloat16
    ).to(x.dtype)
    return out if bias is None else out.add_(bias)
