"""The gated activation of an MLP: a function of the gate, times up. Owns the op's contract; knows
no model.
"""

from typing import Final, Literal, get_args

import torch
import torch.nn.functional as F

from .. import implementation

Activation = Literal["silu", "gelu", "gelu_tanh"]
_ACTIVATIONS: Final = frozenset(get_args(Activation))


def gated_activation(gate_up: torch.Tensor, activation: Activation = "silu") -> torch.Tensor:
    """`activation(gate) * up` for gate_up [T, 2 * I], the gate in the first half. Returns a new
    tensor [T, I].

    `gelu` is exact, by the error function; `gelu_tanh` its approximation by a hyperbolic tangent.
    """
    if gate_up.dim() != 2 or gate_up.shape[1] % 2:
        raise ValueError(
            f"gated_activation: expected [T, 2 * I] with an even width, got {tuple(gate_up.shape)}"
        )
    if activation not in _ACTIVATIONS:
        raise ValueError(f"gated_activation: no activation {activation!r}")
    if implementation.is_triton(gate_up):
        from .triton_kernel import gated_activation_triton

        return gated_activation_triton(gate_up, activation)
    gate, up = gate_up.chunk(2, dim=1)
    if activation == "silu":
        return F.silu(gate).mul_(up)
    return F.gelu(gate, approximate="none" if activation == "gelu" else "tanh").mul_(up)
