"""The definition of silu_mul in plain torch."""

import torch


def silu_mul_reference(gate_up: torch.Tensor) -> torch.Tensor:
    """gate_up: [T, 2 * I] -> [T, I], in fp32 with one rounding at the end."""
    gate, up = gate_up.float().chunk(2, dim=1)
    return (gate / (1 + torch.exp(-gate)) * up).to(gate_up.dtype)
