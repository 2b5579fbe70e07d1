"""From logits to tokens in this memory: bias, penalties, bitmasks, the draw. `device_sampler.py` is
the same for a device.

Owns: the order of those steps. The arithmetic is `kernels`'; what a row wants stands in its
`Sampling`.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ...kernels.apply_mask import apply_mask
from ...kernels.sample import sample, uniforms
from ..batch import Penalties, Sampling
from .drawn import Drawn
from .row_masks import RowMasks


class Sampler:
    def __init__(self, vocab_size: int) -> None:
        self._masks = RowMasks(vocab_size)

    def draw(self, logits: torch.Tensor, rows: Sequence[Sampling]) -> Drawn:
        """One token per row. logits: float32 [len(rows), vocab], not changed."""
        if any(s.penalties or s.logit_bias or s.grammar is not None or s.banned for s in rows):
            logits = logits.clone()
        for row, sampling in enumerate(rows):
            _adjust(logits[row], sampling)
        self._constrain(logits, rows)
        tokens = sample(
            logits,
            torch.tensor([s.temperature for s in rows], dtype=torch.float32),
            torch.tensor([s.top_k for s in rows], dtype=torch.int64),
            torch.tensor([s.top_p for s in rows], dtype=torch.float32),
            torch.tensor([s.min_p for s in rows], dtype=torch.float32),
            torch.from_numpy(uniforms([s.stream for s in rows], [s.position for s in rows])),
        )
        return Drawn.of(tokens)

    def _constrain(self, logits: torch.Tensor, rows: Sequence[Sampling]) -> None:
        limited = [row for row, s in enumerate(rows) if s.grammar is not None or s.banned]
        if not limited:
            return
        constrained = logits[limited]
        apply_mask(constrained, torch.from_numpy(self._masks.filled([rows[r] for r in limited])))
        logits[limited] = constrained


def _adjust(logits: torch.Tensor, sampling: Sampling) -> None:
    """Penalties, then bias, on one row [vocab] in place."""
    if sampling.penalties is not None:
        _penalize(logits, sampling.penalties)
    if sampling.logit_bias:
        ids = torch.tensor([token for token, _ in sampling.logit_bias])
        values = torch.tensor([bias for _, bias in sampling.logit_bias], dtype=logits.dtype)
        logits.index_add_(0, ids, values)


def _penalize(logits: torch.Tensor, penalties: Penalties) -> None:
    """Repetition (Keskar et al. 2019: positive logits divided, negative multiplied; prompt and
    output), then frequency (per occurrence) and presence (once), of output tokens."""
    if penalties.repetition != 1.0:
        seen = torch.from_numpy(
            np.unique(np.concatenate((penalties.prompt, penalties.output)))
        ).long()
        values = logits[seen]
        factor = penalties.repetition
        logits[seen] = torch.where(values > 0, values / factor, values * factor)
    if len(penalties.output) and (penalties.frequency or penalties.presence):
        ids, counts = np.unique(penalties.output, return_counts=True)
        index = torch.from_numpy(ids).long()
        amounts = (
            torch.from_numpy(counts).to(logits.dtype) * penalties.frequency + penalties.presence
        )
        logits[index] -= amounts
