"""Launches of products by quantised weights, in the shapes of Llama-3.1-8B."""

import torch
from triton.runtime import driver

from sapwood.kernels.fp8_linear.triton_kernel import fp8_rows_triton
from sapwood.kernels.quant_linear.triton_kernel import quant_linear_triton
from sapwood.kernels.quant_rows.triton_kernel import quant_rows_triton
from sapwood.kernels.quant_weight import Bits, QuantWeight

HIDDEN, INNER = 4_096, 14_336


def weight(outputs: int, inputs: int, bits: Bits, *, has_minima: bool = False) -> QuantWeight:
    scales = torch.empty((outputs, inputs // 32), dtype=torch.float16)
    numbers = torch.empty((outputs, inputs * bits // 32), dtype=torch.int32)
    return QuantWeight(numbers, scales, scales if has_minima else None, bits)


def product(rows: int, weight: QuantWeight, dtype: torch.dtype = torch.bfloat16) -> None:
    quant_linear_triton(torch.empty(rows, weight.inputs, dtype=dtype), weight, None, dtype)


def launch_int4_single() -> None:
    product(1, weight(2 * INNER, HIDDEN, 4, has_minima=True))  # gate_up
    product(1, weight(HIDDEN, INNER, 4, has_minima=True))  # down
    product(1, weight(2 * INNER, HIDDEN, 4))


def launch_int8_single() -> None:
    product(1, weight(2 * INNER, HIDDEN, 8))
    product(1, weight(HIDDEN, INNER, 8))
    product(1, weight(576, 576, 8), torch.float16)


def launch_int4_tiles() -> None:
    for rows in (2, 32, 64, 512):
        product(rows, weight(6_144, HIDDEN, 4, has_minima=True))  # qkv


def launch_int8_tiles() -> None:
    for rows in (2, 32, 64, 512):
        product(rows, weight(6_144, HIDDEN, 8))


def launch_float32() -> None:
    for rows in (1, 2):
        product(rows, weight(6_144, HIDDEN, 4), torch.float32)


def launch_rows() -> None:
    ids = torch.empty(8, dtype=torch.int64)
    quant_rows_triton(weight(128_256, HIDDEN, 8), ids, torch.float32)
    quant_rows_triton(weight(6_144, HIDDEN, 4, has_minima=True), None, torch.bfloat16)


def launch_fp8() -> None:
    if driver.active.get_current_target().arch >= 89:  # e4m3 begins there
        for inputs in (HIDDEN, INNER):
            fp8_rows_triton(torch.empty(8, inputs, dtype=torch.bfloat16))
