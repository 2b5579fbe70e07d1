"""The definition of quant_rows in plain torch."""

import torch

from ..quant_weight import GROUP, QuantWeight


def quant_rows_reference(
    weight: QuantWeight, rows: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """Shapes as in `quant_rows`."""
    numbers, scales, minima = weight.numbers, weight.scales, weight.minima
    if rows is not None:
        numbers, scales = numbers[rows], scales[rows]
        minima = None if minima is None else minima[rows]
    packed = numbers.view(torch.uint8)
    if weight.bits == 4:
        packed = torch.stack((packed & 15, packed >> 4), dim=-1)
    values = packed.reshape(*scales.shape, GROUP).float()
    scale = scales.float().unsqueeze(-1)
    if minima is None:
        values = (values - (128 if weight.bits == 8 else 8)) * scale
    else:
        values = values * scale + minima.float().unsqueeze(-1)
    return values.flatten(1).to(dtype)
