"""From logits to tokens: bias, penalties, bitmasks, the draw, and the log-probabilities that were
asked for.

Owns: the order of those steps. The arithmetic is `kernels`'; what a row wants stands in its
`Sampling`.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..kernels.apply_mask import apply_mask
from ..kernels.sample import sample, uniforms
from .batch import Penalties, Sampling
from .masks import ban
from .protocol import TokenLogprob


class Sampler:
    def __init__(self, vocab_size: int) -> None:
        self._all = np.full(-(-vocab_size // 32), -1, dtype=np.int32)  # every token allowed
        if vocab_size % 32:
            self._all[-1] = (1 << vocab_size % 32) - 1

    def choose(self, logits: torch.Tensor, rows: Sequence[Sampling]) -> list[int]:
        """One token per row. logits: float32 [len(rows), vocab], changed in place."""
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
        return [int(token) for token in tokens]

    def _constrain(self, logits: torch.Tensor, rows: Sequence[Sampling]) -> None:
        limited = [row for row, s in enumerate(rows) if s.grammar is not None or s.banned]
        if not limited:
            return
        masks = np.tile(self._all, (len(limited), 1))
        for mask, row in zip(masks, limited, strict=True):
            grammar = rows[row].grammar
            if grammar is not None:
                grammar.fill_mask(mask, rows[row].budget)
            ban(mask, rows[row].banned)
        index = torch.tensor(limited)
        constrained = logits[index]
        apply_mask(constrained, torch.from_numpy(masks))
        logits[index] = constrained


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


def token_logprobs(
    logits: torch.Tensor, tokens: Sequence[int], top: int
) -> tuple[TokenLogprob, ...]:
    """Log-probabilities of `tokens[i]` under row i. logits: float32 [len(tokens), vocab], as the
    model gave them."""
    if not tokens:
        return ()
    norms = torch.logsumexp(logits, dim=-1)
    chosen = logits[torch.arange(len(tokens)), torch.tensor(tokens)] - norms
    if not top:
        return tuple(TokenLogprob(t, lp) for t, lp in zip(tokens, chosen.tolist(), strict=True))
    values, ids = torch.topk(logits, min(top, logits.shape[-1]), dim=-1)
    tops = zip(ids.tolist(), (values - norms[:, None]).tolist(), strict=True)
    return tuple(
        TokenLogprob(token, logprob, tuple(zip(top_ids, top_values, strict=True)))
        for token, logprob, (top_ids, top_values) in zip(tokens, chosen.tolist(), tops, strict=True)
    )
