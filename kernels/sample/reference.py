"""The definition of a draw in plain torch."""

import torch

from ..apply_mask import apply_mask
from . import sample, uniforms
from .rows import DrawRows


def draw_reference(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    uniforms: torch.Tensor,
) -> torch.Tensor:
    """Shapes and limits as in `sample`, temperatures above 0: int64 [R]."""
    vocab = logits.shape[1]
    ranked, ids = torch.sort(logits, dim=1, descending=True, stable=True)
    weights = torch.exp((ranked - ranked[:, :1]) / temperature.unsqueeze(1)).double()
    before = weights.cumsum(dim=1) - weights
    rank = torch.arange(vocab, device=logits.device)
    last = torch.where(top_k > 0, top_k, vocab).unsqueeze(1)
    share = torch.where(top_p < 1, top_p, torch.inf).unsqueeze(1)
    kept = (
        (rank < last)
        & (before <= share * weights.sum(dim=1, keepdim=True))
        & (weights >= min_p.unsqueeze(1))
    )
    by_id = torch.zeros_like(weights).scatter_(1, ids, weights * kept)
    cumulative = by_id.cumsum(dim=1)
    targets = uniforms.unsqueeze(1) * cumulative[:, -1:]
    picks = torch.searchsorted(cumulative, targets, right=True).squeeze(1)
    # Past the end only where nothing was finite.
    return torch.where(picks < vocab, picks, logits.argmax(dim=1))


def draw_rows_reference(logits: torch.Tensor, rows: DrawRows) -> torch.Tensor:
    """See `draw`; on the CPU."""
    if rows.masks is not None and rows.places is not None:
        limited = torch.nonzero(rows.places >= 0).flatten()
        masked = logits[limited]
        apply_mask(masked, rows.masks, rows.places[limited].long())
        logits = logits.clone()
        logits[limited] = masked
    numbers = uniforms(
        rows.streams.numpy().view("uint64").tolist(), rows.positions.numpy().view("uint64").tolist()
    )
    return sample(
        *(logits, rows.temperature, rows.top_k.long(), rows.top_p, rows.min_p),
        torch.from_numpy(numbers),
    )
