"""How values become the numbers and scales of quantised pages. Knows no page."""

from typing import Final

import torch

LARGEST: Final = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""What the largest magnitude of a head becomes, by the pages' dtype."""
SMALLEST_TOP: Final = 1e-30
"""What is taken for the largest magnitude where it is less: its inverse is finite."""


def quantize_heads(values: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """values [..., D] -> numbers of `dtype` (int8 or float8_e4m3fn) [..., D], and scales fp32 [...]
    by which they are to be multiplied: the largest magnitude becomes 127 or 448, all are rounded to
    nearest, ties to even.
    """
    largest = LARGEST[dtype]
    wide = values.float()
    top = wide.abs().amax(dim=-1).clamp_min(SMALLEST_TOP)
    numbers = wide * (top.reciprocal() * largest).unsqueeze(-1)
    if dtype is torch.int8:
        numbers.round_()
    return numbers.to(dtype), top / largest
