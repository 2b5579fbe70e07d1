"""The gated activation of a Llama MLP. Owns the op's contract; knows no model."""

import torch
import torch.nn.functional as F

from ..implementation import is_triton


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """`silu(gate) * up` for gate_up [T, 2 * I], the gate in the first half. Returns a new tensor
    [T, I].
    """
    if gate_up.dim() != 2 or gate_up.shape[1] % 2:
        raise ValueError(
            f"silu_mul: expected [T, 2 * I] with an even width, got {tuple(gate_up.shape)}"
        )
    if is_triton(gate_up):
        from .triton_kernel import silu_mul_triton

        return silu_mul_triton(gate_up)
    gate, up = gate_up.chunk(2, dim=1)
    return F.silu(gate).mul_(up)
