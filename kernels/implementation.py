"""Which implementation of an op computes. The one place where that is decided."""

import torch


def is_triton(x: torch.Tensor) -> bool:
    """Whether the op that gets `x` runs in Triton: on a GPU. Tests that run Triton's interpreter
    replace this."""
    return x.device.type == "cuda"
