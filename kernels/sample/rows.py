"""What the rows of one batched draw want, as tensors. Knows no request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # processes without torch import this folder
    import torch


@dataclass(frozen=True)
class DrawRows:
    """temperature, top_p, min_p: fp32 [R] and top_k: int32 [R], as in `sample`. streams, positions:
    int64 [R], read as unsigned: they name each row's uniform number, as in `uniforms`.

    masks: int32 [M, ceil(V / 32)] and places: int32 [R], where any row has a mask: the bits of
    row r are masks[places[r]], as in `apply_mask`, or it has none where that is -1. is_limited:
    False promises that no row has a top_k, top_p or min_p.
    """

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    streams: torch.Tensor
    positions: torch.Tensor
    masks: torch.Tensor | None = None
    places: torch.Tensor | None = None
    is_limited: bool = True
