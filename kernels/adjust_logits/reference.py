"""The definition of adjust_logits in plain torch, also the CPU path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from . import Adjustments


def adjust_logits_reference(logits: torch.Tensor, adjustments: Adjustments) -> torch.Tensor:
    """Shapes as in `adjust_logits`."""
    a = adjustments
    shape = (len(a.repetition), logits.shape[1])
    seen = torch.zeros(shape, dtype=torch.bool, device=logits.device)
    seen[a.owners.long(), a.tokens.long()] = True
    counts = torch.zeros(shape, device=logits.device)
    output = (a.owners[a.num_prompt :].long(), a.tokens[a.num_prompt :].long())
    counts.index_put_(output, counts.new_ones(()), accumulate=True)

    adjusted = logits.clone()
    rows = torch.nonzero(a.which >= 0).flatten()
    which = a.which[rows].long()
    x, counts, seen = adjusted[rows], counts[which], seen[which]
    factor = a.repetition[which].unsqueeze(1)
    x = torch.where(seen, torch.where(x > 0, x / factor, x * factor), x)
    amounts = counts * a.frequency[which].unsqueeze(1) + a.presence[which].unsqueeze(1)
    adjusted[rows] = torch.where(counts > 0, x - amounts, x)
    biased = (a.bias_rows.long(), a.bias_tokens.long())
    adjusted[biased] = adjusted[biased] + a.bias_values
    return adjusted
