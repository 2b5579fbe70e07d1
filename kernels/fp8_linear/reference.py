"""The definition of fp8_linear and of rounding to e4m3 in plain torch."""

from typing import Final

import torch

LARGEST: Final = 448.0  # of e4m3


def fp8_rows_reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x: [T, D] -> e4m3 [T, D] and fp32 [T, 1]. The largest magnitude of a row becomes 448."""
    wide = x.float()
    largest = wide.abs().amax(dim=1, keepdim=True)
    scales = torch.where(largest > 0, largest / LARGEST, 1.0)
    values = (wide / scales).clamp(-LARGEST, LARGEST)
    return values.to(torch.float8_e4m3fn), scales


def fp8_linear_reference(
    x: torch.Tensor, values: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """x: [T, inputs]; values: e4m3 [outputs, inputs]; scales: fp32 [1, outputs]. The product of the
    rounded x in fp32, rounded to bfloat16 and then to x's dtype."""
    given, row_scales = fp8_rows_reference(x)
    out = (given.float() @ values.float().T) * row_scales * scales
    result = out.bfloat16().to(x.dtype)
    return result if bias is None else result + bias
