"""gated_activation on the GPU: one pass over the gate and up halves."""

import torch
import triton
import triton.language as tl

_BLOCK = 1_024  # 8 elements, 16 bytes of bfloat16, a thread: an estimate, not measured


@triton.jit
def _gated_activation(gate_up, out, size, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    gate = tl.load(gate_up + row * 2 * size + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * size + size + column, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "silu":
        share = 1.0 / (1.0 + tl.exp(-gate))
    elif ACTIVATION == "gelu":
        share = 0.5 + 0.5 * tl.erf(gate * 0.7071067811865476)
    else:  # (1 + tanh(y)) / 2 is the sigmoid of 2 y
        share = 1.0 / (1.0 + tl.exp(-1.5957691216057308 * gate * (1.0 + 0.044715 * gate * gate)))
    tl.store(out + row * size + column, (gate * share * up).to(out.dtype.element_ty), mask=inside)


def gated_activation_triton(gate_up: torch.Tensor, activation: str) -> torch.Tensor:
    """Shapes as in `gated_activation`."""
    gate_up = gate_up.contiguous()
    rows, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty((rows, size))
    if out.numel():
        grid = (rows, triton.cdiv(size, _BLOCK))
        _gated_activation[grid](gate_up, out, size, ACTIVATION=activation, BLOCK=_BLOCK)
    return out
