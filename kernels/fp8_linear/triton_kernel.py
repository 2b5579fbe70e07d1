"""Rounding rows to e4m3 on the GPU: one program for each row, one pass."""

import torch
import triton
import triton.language as tl

from ..store_kv.triton_kernel import on_e4m3_grid


@triton.jit
def _fp8_rows(x, out, scales, size, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < size
    wide = tl.load(x + row * size + column, mask=inside, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(wide), axis=0)
    scale = tl.where(largest > 0, largest / 448.0, 1.0)
    values = tl.clamp(wide / scale, -448.0, 448.0)
    tl.store(out + row * size + column, on_e4m3_grid(values).to(tl.float8e4nv), mask=inside)
    tl.store(scales + row, scale)


def fp8_rows_triton(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shapes as in `fp8_rows`."""
    x = x.contiguous()
    rows, size = x.shape
    out = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    scales = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    if rows:
        block = triton.next_power_of_2(size)
        _fp8_rows[(rows,)](x, out, scales, size, BLOCK=block, num_warps=4 if block <= 4_096 else 8)
    return out, scales
