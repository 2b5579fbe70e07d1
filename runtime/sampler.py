"""From logits to tokens: bias, penalties, bitmasks, the draw, and the log-probabilities that were
asked for.

What is drawn and measured stays on the device until it is collected: `draw` and `measure` only
launch.

Owns: the order of those steps. The arithmetic is `kernels`'; what a row wants stands in its
`Sampling`.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..constrained import GrammarState
from ..kernels.apply_mask import apply_mask
from ..kernels.logprobs import token_logprobs
from ..kernels.sample import sample, uniforms
from .arriving import Arriving
from .batch import Penalties, Sampling
from .mask_table import MaskTable
from .masks import ban
from .protocol import TokenLogprob

_TABLE_ROWS: Final = 1024


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


class Sampler:
    """`table`: of masks that are on the device already; None: each step brings its own, as where
    the logits are in this memory anyway."""

    def __init__(self, vocab_size: int, table: MaskTable | None = None) -> None:
        self._table = table
        self._all = np.full(-(-vocab_size // 32), -1, dtype=np.int32)  # every token allowed
        if vocab_size % 32:
            self._all[-1] = (1 << vocab_size % 32) - 1

    @classmethod
    def on(cls, device: torch.device, vocab_size: int) -> Self:
        """With a table where there is something to save by it."""
        if device.type == "cpu":
            return cls(vocab_size)
        return cls(vocab_size, MaskTable(_TABLE_ROWS, -(-vocab_size // 32), device))

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

    def measure(
        self,
        logits: torch.Tensor,
        rows: Sequence[int],
        tokens: torch.Tensor,
        tops: Sequence[int],
    ) -> Measured:
        """Log-probabilities of `tokens[e]` under row `rows[e]`, and of the `tops[e]` likeliest.

        logits: float32 [N, vocab], as the model gave them; tokens: int64 [len(rows)], drawn ones on
        their device, or known ones in this memory.
        """
        if not rows:
            return Measured((), Arriving.of())
        index = torch.tensor(rows, dtype=torch.int64).to(logits.device)
        tokens = tokens.to(logits.device)
        found = token_logprobs(logits, index, tokens, max(tops))
        return Measured(tuple(tops), Arriving.of(tokens, *found))

    def _constrain(self, logits: torch.Tensor, rows: Sequence[Sampling]) -> None:
        limited = [row for row, s in enumerate(rows) if s.grammar is not None or s.banned]
        if not limited:
            return
        wanted = [rows[row] for row in limited]
        index = torch.tensor(limited, device=logits.device)
        constrained = logits[index]
        if self._table is None or len(wanted) > self._table.num_rows:
            masks = torch.from_numpy(self._masks(wanted))
            apply_mask(constrained, masks.to(logits.device))
        else:
            places = torch.tensor(self._places(self._table, wanted), device=logits.device)
            apply_mask(constrained, self._table.rows, places)
        logits[index] = constrained

    def _masks(self, wanted: Sequence[Sampling]) -> NDArray[np.int32]:
        masks = np.tile(self._all, (len(wanted), 1))
        for mask, sampling in zip(masks, wanted, strict=True):
            if sampling.grammar is not None:
                sampling.grammar.fill_mask(mask, sampling.budget)
            ban(mask, sampling.banned)
        return masks

    def _places(self, table: MaskTable, wanted: Sequence[Sampling]) -> list[int]:
        """Where in the table each one's mask is: found there, or made and copied."""
        places = [table.find(_row_number(s) or None) for s in wanted]
        cold = [number for number, place in enumerate(places) if place is None]
        if not cold:
            return [place for place in places if place is not None]
        masks = self._masks([wanted[number] for number in cold])
        keys: dict[Hashable, list[int]] = {}  # which of `cold` have the same row
        for at, number in enumerate(cold):  # what has been filled now has a number as well
            keys.setdefault(_row_number(wanted[number]) or object(), []).append(at)
        new = {key: same for key, same in keys.items() if table.find(key) is None}
        if new:
            table.put(list(new), masks[[same[0] for same in new.values()]])
        for key, same in keys.items():
            for at in same:
                places[cold[at]] = table.find(key)
        return [place for place in places if place is not None]


def _row_number(sampling: Sampling) -> int:
    """Names the row where the grammar alone decides, and has decided the same before."""
    grammar = sampling.grammar
    if sampling.banned or type(grammar) is not GrammarState:
        return 0
    return grammar.row_number(sampling.budget)


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
