"""What a step launched after its logits: drawn tokens and log-probabilities, collected when wanted.

Owns: what crosses back to this memory, and in what form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch

from ...kernels.logprobs import token_logprobs
from ..batch import Sampling
from ..protocol import TokenLogprob
from .arriving import Arriving
from .upload import upload


@dataclass(frozen=True)
class Drawn:
    """One token for each row, of a draw that may still be under way. tokens: int64 [R], on the
    device."""

    tokens: torch.Tensor
    arriving: Arriving

    @classmethod
    def of(cls, tokens: torch.Tensor) -> Self:
        return cls(tokens, Arriving.of(tokens))

    def collect(self) -> list[int]:
        """Waits for them."""
        ids: list[int] = self.arriving.wait()[0].tolist()
        return ids


@dataclass(frozen=True)
class Measured:
    """Log-probabilities that may still be under way: of `arriving`'s tokens and, for each, of the
    `tops[e]` likeliest."""

    tops: tuple[int, ...]
    arriving: Arriving

    def collect(self) -> tuple[TokenLogprob, ...]:
        """One for each token, in order. Waits for them."""
        if not self.tops:
            return ()
        tokens, of_tokens, top_ids, top_values = (
            tensor.tolist() for tensor in self.arriving.wait()
        )
        entries = zip(tokens, of_tokens, self.tops, top_ids, top_values, strict=True)
        return tuple(
            TokenLogprob(token, logprob, tuple(zip(ids[:top], values[:top], strict=True)))
            for token, logprob, top, ids, values in entries
        )


class TokenSampler(Protocol):
    """Draws as a device draws them."""

    def draw(self, logits: torch.Tensor, rows: Sequence[Sampling]) -> Drawn:
        """Launch the draw of one token per row. logits: float32 [len(rows), vocab], not changed."""
        ...


def measure(
    logits: torch.Tensor, rows: Sequence[int], tokens: torch.Tensor, tops: Sequence[int]
) -> Measured:
    """Launch the log-probabilities of `tokens[e]` under row `rows[e]`, and of the `tops[e]`
    likeliest.

    logits: float32 [N, vocab], as the model gave them, not changed; tokens: int64 [len(rows)],
    on their device.
    """
    if not rows:
        return Measured((), Arriving.of())
    (index,) = upload([np.array(rows, np.int64)], logits.device)
    found = token_logprobs(logits, index, tokens, max(tops))
    return Measured(tuple(tops), Arriving.of(tokens, *found))
