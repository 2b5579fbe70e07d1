"""Figures of linear maps: weights of 4 and 8 bits beside bfloat16, by the weights' bytes."""

import torch
import torch.nn.functional as F

from sapwood.kernels.quant_linear import quant_linear
from sapwood.kernels.quant_weight import quantize

from .device import Device, Limits
from .report import Table, microseconds, share

SHAPES = (("8B gate and up", 28_672, 4_096), ("8B down", 4_096, 14_336), ("8B qkv", 6_144, 4_096))


def table(device: Device, limits: Limits) -> Table:
    table = Table(
        "Linear maps of few rows",
        ("map", "rows", "weights", "time", "GB/s of weights", "of copy bandwidth", "bf16, cuBLAS"),
        "Goal: 85 % of bandwidth for one row.",
    )
    dtype = torch.bfloat16 if device.is_gpu else torch.float16
    shapes = SHAPES if device.is_gpu else (("small", 64, 64),)
    for (name, outputs, inputs), rows in (
        (shape, rows) for shape in shapes for rows in ((1, 8, 16, 64) if device.is_gpu else (1, 8))
    ):
        place = device.torch_device
        weight = torch.randn(outputs, inputs, dtype=dtype, device=place) * inputs**-0.5
        x = torch.randn(rows, inputs, dtype=dtype, device=place)
        plain = device.seconds(lambda x=x, weight=weight: F.linear(x, weight))
        for bits in (8, 4):
            quantized = quantize(weight, bits)
            seconds = device.seconds(lambda x=x, w=quantized: quant_linear(x, w))
            rate = quantized.nbytes / seconds
            table.add(
                name,
                str(rows),
                f"{bits} bits",
                microseconds(seconds),
                f"{rate / 1e9:,.0f}",
                share(rate, limits.bandwidth),
                microseconds(plain),
            )
    return table
