"""HeadNorms: what `rotate_and_store` needs to normalise heads first."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class HeadNorms:
    """RMS normalisation of each head of q and k before the rotation; weights [D]."""

    q: torch.Tensor
    k: torch.Tensor
    eps: float
