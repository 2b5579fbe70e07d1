"""From logits to tokens in native code: what every row's `Sampling` wants, as the arrays that the
kernel reads, and its answer as tokens and reports.

Owns: the translation, and the buffer for masks. `sampler.py` is the same for engines without a
compiler. numpy only, no torch.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..constrained import fill_masks
from ..kernels.sample import native_cpu
from ..kernels.sample.native_cpu import Bias, Limits, Logprobs, Masks, Ragged
from .batch import Penalties as RowPenalties
from .batch import Sampling
from .protocol import TokenLogprob

Floats = NDArray[np.float32]

_MOST = np.iinfo(np.int32).max
_NO_TOKENS = np.empty(0, np.int32)
_NO_PENALTIES = RowPenalties(_NO_TOKENS, _NO_TOKENS, 0.0, 0.0, 1.0)


class NativeSampler:
    def __init__(self, vocab_size: int, threads: int) -> None:
        self._threads = threads
        self._masks = np.empty((0, native_cpu.num_blocks(vocab_size)), np.int32)

    def choose(
        self,
        logits: Floats,
        rows: Sequence[Sampling],
        top_logprobs: Sequence[int],
        block_maxima: Floats | None = None,
    ) -> tuple[list[int], list[TokenLogprob | None]]:
        """One token per row, and its report where the row wants one.

        logits: float32 [len(rows), vocab], changed while the call lasts; top_logprobs: how many
        likeliest tokens a report lists; block_maxima: float32 [len(rows), ceil(vocab / 32)].
        """
        report = [top if s.report else -1 for s, top in zip(rows, top_logprobs, strict=True)]
        banned = [s.banned for s in rows]
        chosen = native_cpu.choose(
            logits,
            _limits(rows),
            masks=self._filled(rows),
            banned=Ragged.of(banned) if any(banned) else None,
            penalties=_penalties(rows),
            bias=_bias(rows),
            report=np.array(report, np.int32) if max(report, default=-1) >= 0 else None,
            block_maxima=block_maxima,
            threads=self._threads,
        )
        tokens: list[int] = chosen.tokens.tolist()
        reports: list[TokenLogprob | None] = [None] * len(tokens)
        if chosen.logprobs is not None:
            for row, top in enumerate(report):
                if top >= 0:
                    reports[row] = _reported(chosen.logprobs, row, tokens[row], top)
        return tokens, reports

    def logprobs(
        self, logits: Floats, rows: NDArray[np.intp], tokens: NDArray[np.int64], top: int
    ) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of `tokens[i]` under row `rows[i]`, with the `top` likeliest. Rows
        ascend; each occurs."""
        first = tokens[np.unique(rows, return_index=True)[1]]
        found = native_cpu.token_logprobs(logits, first, top, threads=self._threads)
        width = found.top_ids.shape[1]
        if len(tokens) > len(first):  # of further tokens of a row: by their distance from the first
            distance = logits[rows, tokens] - logits[rows, first[rows]]
            found = Logprobs(
                found.of_tokens[rows] + distance, found.top_ids[rows], found.top_values[rows]
            )
        return tuple(_reported(found, i, int(token), width) for i, token in enumerate(tokens))

    def _filled(self, rows: Sequence[Sampling]) -> Masks | None:
        if not any(s.grammar for s in rows):
            return None
        if len(self._masks) < len(rows):
            self._masks = np.empty((len(rows), self._masks.shape[1]), np.int32)
        mask_rows = np.full(len(rows), -1, np.int32)
        limited = [(row, s.grammar, s.budget) for row, s in enumerate(rows) if s.grammar]
        places, grammars, budgets = zip(*limited, strict=True)
        fill_masks(grammars, budgets, self._masks, range(len(limited)))
        mask_rows[list(places)] = np.arange(len(limited))
        return Masks(self._masks[: len(limited)], mask_rows)


def _limits(rows: Sequence[Sampling]) -> Limits:
    streams = np.array([s.stream for s in rows], np.uint64)
    positions = np.array([s.position for s in rows], np.uint64)
    return Limits(
        np.array([s.temperature for s in rows], np.float32),
        np.array([min(s.top_k, _MOST) for s in rows], np.int32),
        np.array([s.top_p for s in rows], np.float32),
        np.array([s.min_p for s in rows], np.float32),
        native_cpu.uniforms(streams, positions),
    )


def _penalties(rows: Sequence[Sampling]) -> native_cpu.Penalties | None:
    if not any(s.penalties for s in rows):
        return None
    wanted = [s.penalties or _NO_PENALTIES for s in rows]
    return native_cpu.Penalties(
        Ragged.of([p.prompt if p.repetition != 1.0 else _NO_TOKENS for p in wanted]),
        Ragged.of([p.output for p in wanted]),
        np.array([p.repetition for p in wanted], np.float32),
        np.array([p.frequency for p in wanted], np.float32),
        np.array([p.presence for p in wanted], np.float32),
    )


def _bias(rows: Sequence[Sampling]) -> Bias | None:
    if not any(s.logit_bias for s in rows):
        return None
    tokens = Ragged.of([[token for token, _ in s.logit_bias] for s in rows])
    values = [value for s in rows for _, value in s.logit_bias]
    return Bias(tokens, np.array(values, np.float32))


def _reported(found: Logprobs, row: int, token: int, top: int) -> TokenLogprob:
    tops = zip(found.top_ids[row, :top].tolist(), found.top_values[row, :top].tolist(), strict=True)
    return TokenLogprob(token, float(found.of_tokens[row]), tuple(tops))
