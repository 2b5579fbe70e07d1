"""Figures of the ops between the products, by the bytes that they have to move."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sapwood.kernels.gated_activation import gated_activation
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.rms_norm import add_rms_norm
from sapwood.kernels.rotary import RotaryAngles
from sapwood.kernels.rotate_store import rotate_and_store

from .device import Device, Limits
from .models import LLAMA_8B
from .report import Table, microseconds, share


@dataclass(frozen=True)
class Op:
    """`bytes`: read and written at least."""

    name: str
    call: Callable[[], object]
    bytes: int


def _ops(tokens: int, device: Device, dtype: torch.dtype) -> list[Op]:
    config, place = LLAMA_8B, device.torch_device
    hidden = config.hidden_size if device.is_gpu else 64
    inner = config.intermediate_size if device.is_gpu else 96
    heads, kv = (32, 8) if device.is_gpu else (4, 2)
    size = 128 if device.is_gpu else 16
    width = dtype.itemsize

    x = torch.randn(tokens, hidden, dtype=dtype, device=place)
    total = torch.randn(tokens, hidden, device=place)
    weight = torch.randn(hidden, dtype=dtype, device=place)
    gate_up = torch.randn(tokens, 2 * inner, dtype=dtype, device=place)
    qkv = torch.randn(tokens, heads + 2 * kv, size, dtype=dtype, device=place)
    k, v = (torch.zeros(-(-tokens // 16), 16, kv, size, dtype=dtype, device=place) for _ in "kv")
    pages, slots = KVPages(k, v), torch.arange(tokens, device=place)
    frequencies = (10_000.0 ** -(np.arange(0, size, 2) / size)).astype(np.float32)
    cos, sin = RotaryAngles(frequencies, device=place).at(slots)
    return [
        Op(
            "add_rms_norm",
            lambda: add_rms_norm(x, total, weight, 1e-5),
            tokens * hidden * (2 * width + 8),
        ),
        Op(
            "rotate_and_store",
            lambda: rotate_and_store(qkv, cos, sin, pages, slots),
            tokens * size * ((heads + 2 * kv) * 2 * width + 8),
        ),
        Op("gated_activation", lambda: gated_activation(gate_up), tokens * inner * 3 * width),
    ]


def table(device: Device, limits: Limits) -> Table:
    table = Table(
        "Small ops, 8B shape",
        ("op", "tokens", "time", "GB/s", "of copy bandwidth"),
        "A few tokens are bound by the launch; graphs hide the host's part of it.",
    )
    dtype = torch.bfloat16 if device.is_gpu else torch.float16
    for tokens in (1, 64, 8_192) if device.is_gpu else (3,):
        for op in _ops(tokens, device, dtype):
            seconds = device.seconds(op.call)
            rate = op.bytes / seconds
            table.add(
                op.name,
                f"{tokens:,}",
                microseconds(seconds),
                f"{rate / 1e9:,.0f}",
                share(rate, limits.bandwidth),
            )
    return table
