"""The definition of quant_linear in plain torch."""

import torch

from ..quant_rows.reference import quant_rows_reference
from ..quant_weight import QuantWeight


def quant_linear_reference(
    x: torch.Tensor, weight: QuantWeight, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Shapes as in `quant_linear`. All arithmetic in fp32, one rounding at the end."""
    out = x.float() @ quant_rows_reference(weight, None, torch.float32).T
    if bias is not None:
        out += bias.float()
    return out.to(dtype)
