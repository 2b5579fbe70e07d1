"""rms_norm and add_rms_norm on the GPU: one pass over whole rows, several of them in a program
where they are short.

How a row is summed depends on its size alone, so no row's result depends on its neighbours.
"""

import torch
import triton
import triton.language as tl

# Elements of a program, for rows shorter than that; and what one thread should have of a row, 16
# bytes of bfloat16. Both are estimates, not measured.
_SHORT = 512
_PER_THREAD = 8
_MAX_WARPS = 16


@triton.jit(do_not_specialize=["num_rows"])
def _rms_norm(
    x,
    total,
    weight,
    out,
    num_rows,
    size,
    eps,
    ADDS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    place = row[:, None] * size + column[None, :]
    inside = (row < num_rows)[:, None] & (column < size)[None, :]
    values = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)
    if ADDS:
        values += tl.load(total + place, mask=inside, other=0.0).to(tl.float32)
        rounded = values.to(total.dtype.element_ty)
        tl.store(total + place, rounded, mask=inside)
        values = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, axis=1) / size + eps)
    result = values * scale[:, None] * gain[None, :]
    tl.store(out + place, result.to(out.dtype.element_ty), mask=inside)


def rms_norm_triton(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Shapes as in `rms_norm`."""
    return _launch(x, None, weight, eps)


def add_rms_norm_triton(
    x: torch.Tensor, total: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """Shapes as in `add_rms_norm`."""
    return _launch(x, total, weight, eps)


def _launch(
    x: torch.Tensor, total: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    x = x.contiguous()
    size = x.shape[-1]
    out = torch.empty_like(x, dtype=weight.dtype)
    if not x.numel():
        return out
    num_rows = x.numel() // size
    block = triton.next_power_of_2(size)
    rows = max(1, _SHORT // block)
    _rms_norm[(triton.cdiv(num_rows, rows),)](
        x,
        x if total is None else total,
        weight,
        out,
        num_rows,
        size,
        eps,
        ADDS=total is not None,
        ROWS=rows,
        BLOCK=block,
        num_warps=max(1, min(_MAX_WARPS, rows * block // (32 * _PER_THREAD))),
    )
    return out
