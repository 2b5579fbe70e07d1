"""The definition of gated_activation in plain torch."""

import math

import torch


def gated_activation_reference(gate_up: torch.Tensor, activation: str) -> torch.Tensor:
    """gate_up: [T, 2 * I] -> [T, I], in fp32 with one rounding at the end."""
    gate, up = gate_up.float().chunk(2, dim=1)
    if activation == "silu":
        share = 1 / (1 + torch.exp(-gate))
    elif activation == "gelu":
        share = (1 + torch.erf(gate / math.sqrt(2))) / 2
    else:
        share = (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3))) / 2
    return (gate * share * up).to(gate_up.dtype)
