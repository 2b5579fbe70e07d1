"""The part `kernels`: correctness first, then every kernel's figures."""

from . import attention, correctness, linear, op_correctness, sampling, small_ops
from .device import Device, Limits
from .report import Table


def tables(device: Device, limits: Limits) -> list[Table]:
    return [
        correctness.attention_table(device),
        op_correctness.table(device),
        attention.decode_table(device, limits),
        attention.extend_table(device, limits),
        attention.shared_table(device),
        small_ops.table(device, limits),
        linear.table(device, limits),
        sampling.table(device, limits),
    ]
