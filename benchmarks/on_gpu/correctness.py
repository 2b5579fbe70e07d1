"""The kernels in bfloat16 against float64 on odd shapes, with poisoned memory.

An error is the largest absolute difference over the largest absolute value that was wanted. Where
an operand is quantised, what is wanted comes from the quantised numbers: their rounding is not
counted.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from sapwood.kernels.paged_attention import paged_attention

from .device import Device
from .paged import Heads, exact, make_step
from .report import Table

BOUND = 1e-2

Rows = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Odd:
    """A step that trips kernels: new tokens and context of each row."""

    rows: Rows
    heads: Heads
    page_size: int
    window: int | None = None


def steps(is_gpu: bool) -> Iterator[Odd]:
    """Lengths around pages and tiles, groups from 1 to 12, head sizes from 64 to 256."""
    long = 4_097 if is_gpu else 97
    rows: list[Rows] = [
        [(1, 1)],
        [(1, 15), (1, 16), (1, 17)],
        [(1, long), (1, 1), (1, 63), (1, 64), (1, 65)],
        [(1, 255), (1, 256), (1, 257), (1, 513)] if is_gpu else [(1, 33)],
        [(17, 17), (1, 40), (64, 64), (3, 66)],
        [(65, 65 + long), (1, long), (128, 129)],
    ]
    shapes = [(1, 64), (3, 64), (4, 128), (7, 128), (12, 80), (5, 96), (2, 256)]
    if not is_gpu:
        shapes = [(1, 16), (3, 16)]
    sizes = itertools.cycle((16, 1, 64, 8, 32))
    if not is_gpu:
        rows = rows[2:5:2]
    for row, (group, size) in itertools.product(rows, shapes):
        yield Odd(row, Heads(2 * group, 2, size), next(sizes))
    for window in (1, 17, 1_000):
        yield Odd(rows[-1], Heads(6, 2, shapes[0][1]), 16, window)


def attention_table(device: Device) -> Table:
    dtype = torch.bfloat16 if device.is_gpu else torch.float16
    table = Table(
        f"Correctness of paged attention, {dtype}",
        ("cache", "steps", "largest error", "worst step"),
        f"Bound: {BOUND}. Slots outside the rows' contexts hold NaN.",
    )
    for kv_dtype in (None, torch.int8, torch.float8_e4m3fn):
        worst, where, count = 0.0, "", 0
        for odd in steps(device.is_gpu):
            error = _attention_error(odd, device, dtype, kv_dtype)
            count += 1
            if not error <= worst:
                worst, where = error, str(odd)
        table.add(str(kv_dtype or dtype), str(count), f"{worst:.2e}", where)
        assert worst <= BOUND, f"attention is wrong by {worst}: {where}"
    return table


def _attention_error(
    odd: Odd, device: Device, dtype: torch.dtype, kv_dtype: torch.dtype | None
) -> float:
    step = make_step(
        odd.rows,
        odd.heads,
        page_size=odd.page_size,
        dtype=dtype,
        device=device.torch_device,
        kv_dtype=kv_dtype,
        window=odd.window,
    )
    scale = odd.heads.size**-0.5
    got = paged_attention(step.q, step.pages, step.plan, scale=scale).double()
    wanted = exact(step, odd.heads, scale=scale, window=odd.window)
    return float((got - wanted).abs().max() / wanted.abs().max())
