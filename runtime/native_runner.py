"""Runs one batch in native code: page copies, page-table writes, the step, sampling,
log-probabilities. numpy only, no torch.

Owns: the native model with its KV cache, the page table, the sampler and the buffers of logits.
Knows no request and no tree, only the batch. `runner.py` is the same for torch.
"""

import logging
from bisect import bisect_left
from collections.abc import Sequence
from operator import add
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..constrained import Masking, fill_masks
from ..kernels.llama_step import LlamaStep, StepInputs, StepOutputs
from .backend import Landed
from .batch import Batch, Sampling, Span, SpanResult, StepResult, join_tokens
from .masks import ban
from .native_sampler import NativeSampler
from .page_table import PageTable
from .protocol import TokenLogprob

_log = logging.getLogger(__name__)

Int32Array = NDArray[np.int32]
Floats = NDArray[np.float32]


class _Row(NamedTuple):
    """A row of logits. `sampling`: a token is drawn from it; otherwise it scores a known one."""

    token: int  # of the step
    sampling: Sampling | None
    top_logprobs: int
    is_greedy: bool  # the largest allowed logit is all that is wanted: the step finds it by itself


class NativeRunner:
    overlaps: Final = False  # the threads that would plan are those that compute

    def __init__(self, step: LlamaStep, page_table: PageTable, threads: int) -> None:
        self._step = step
        self._page_table = page_table
        vocab = step.shape.vocab
        self._sampler = NativeSampler(vocab, threads)
        self._logits = np.empty((0, vocab), np.float32)
        self._masks = np.empty((0, -(-vocab // 32)), np.int32)

    def launch(self, batch: Batch) -> Landed:
        """Run the batch. Copies first (their targets may be read by this very step), then table
        writes, then compute."""
        for copy in batch.page_copies:
            self._step.copy_page(copy.source, copy.target)
        self._page_table.write(batch.page_writes)
        return Landed(StepResult(self._compute(batch.spans)))

    def _compute(self, spans: tuple[Span, ...]) -> tuple[SpanResult, ...]:
        """All spans together; where that fails, one by one, so that the one at fault fails alone.

        Computing a span again is harmless: it writes the same keys and values, and draws the same
        token.
        """
        try:
            return self._results(spans)
        except Exception as error:
            if len(spans) == 1:
                _log.exception("request %s cannot be computed", spans[0].request_id)
                return (SpanResult(error=error),)
            return tuple(result for span in spans for result in self._compute((span,)))

    def _results(self, spans: tuple[Span, ...]) -> tuple[SpanResult, ...]:
        rows = _rows(spans)
        wanted = [i for i, row in enumerate(rows) if not row.is_greedy]
        logits = self._room(len(wanted))
        outputs = self._step.step(
            self._inputs(spans, rows, wanted, logits),
            maxima=any(rows[i].sampling is not None for i in wanted),
        )
        tokens, reports = self._draw(rows, wanted, logits, outputs)
        results, end = [], 0
        for span in spans:
            scored: tuple[TokenLogprob, ...] = ()
            if span.scoring is not None:
                rows_of, which = np.unique(span.scoring.rows, return_inverse=True)
                targets = span.scoring.targets.astype(np.int64)
                at = bisect_left(wanted, end)
                some = logits[at : at + len(rows_of)]
                scored = self._sampler.logprobs(some, which, targets, span.top_logprobs)
                end += len(rows_of)
            start = end
            end = start + len(span.samplings)
            logprobs = [report for report in reports[start:end] if report is not None]
            results.append(SpanResult(tuple(tokens[start:end]), tuple(logprobs), scored))
        return tuple(results)

    def _inputs(
        self, spans: tuple[Span, ...], rows: Sequence[_Row], wanted: Sequence[int], logits: Floats
    ) -> StepInputs:
        starts = [span.start for span in spans]
        lengths = [len(span.token_ids) for span in spans]
        max_pages = -(-max(map(add, starts, lengths)) // self._page_table.page_size)
        targets: list[Floats | None] = [None] * len(rows)
        for i, row_logits in zip(wanted, logits, strict=True):
            targets[i] = row_logits
        return StepInputs(
            token_ids=join_tokens(spans),
            starts=np.array(starts, np.int32),
            lengths=np.array(lengths, np.int32),
            table_rows=np.arange(len(spans), dtype=np.int32),
            page_table=self._page_table.rows([span.slot for span in spans], max_pages),
            rows=np.array([row.token for row in rows], np.int32),
            masks=self._greedy_masks(rows),
            logits=targets,
        )

    def _draw(
        self, rows: Sequence[_Row], wanted: Sequence[int], logits: Floats, outputs: StepOutputs
    ) -> tuple[list[int], list[TokenLogprob | None]]:
        """For each row its token, which means nothing where none is drawn, and its report where one
        is wanted."""
        tokens: list[int] = outputs.best.tolist()
        reports: list[TokenLogprob | None] = [None] * len(rows)
        drawn = [i for i in wanted if rows[i].sampling is not None]
        if not drawn:
            return tokens, reports
        maxima = outputs.strip_maxima
        if len(drawn) < len(wanted):  # the rest only score: their logits are not copied for nothing
            logits = logits[np.searchsorted(wanted, drawn)]
        if maxima is not None and len(drawn) < len(rows):
            maxima = maxima[drawn]
        found = self._sampler.choose(
            logits,
            [s for i in drawn if (s := rows[i].sampling) is not None],
            [rows[i].top_logprobs for i in drawn],
            maxima,
        )
        for i, token, report in zip(drawn, *found, strict=True):
            tokens[i], reports[i] = token, report
        return tokens, reports

    def _greedy_masks(self, rows: Sequence[_Row]) -> list[Int32Array | None]:
        """What the greedy rows may choose from; None: everything, or the sampler sees to it."""
        masks: list[Int32Array | None] = [None] * len(rows)
        limited: list[tuple[int, Masking, int | None]] = []
        if len(self._masks) < len(rows):
            self._masks = np.empty((len(rows), self._masks.shape[1]), np.int32)
        for i, row in enumerate(rows):
            sampling = row.sampling
            if sampling is None or not row.is_greedy:
                continue
            if sampling.grammar is None and not sampling.banned:
                continue
            masks[i] = self._masks[i]
            if sampling.grammar is not None:
                limited.append((i, sampling.grammar, sampling.budget))
            else:
                self._masks[i] = -1
        if limited:
            places, grammars, budgets = zip(*limited, strict=True)
            fill_masks(grammars, budgets, self._masks, places)
        for mask, row in zip(masks, rows, strict=True):
            if mask is not None and row.sampling is not None:
                ban(mask, row.sampling.banned)
        return masks

    def _room(self, count: int) -> Floats:
        """A buffer for `count` rows of logits, kept from step to step."""
        if len(self._logits) < count:
            self._logits = np.empty((count, self._step.shape.vocab), np.float32)
        return self._logits[:count]


def _rows(spans: tuple[Span, ...]) -> list[_Row]:
    """Span by span: its scoring rows, then its sampling rows."""
    rows, first = [], 0
    for span in spans:
        if span.scoring is not None:
            for row in np.unique(span.scoring.rows).tolist():
                rows.append(_Row(first + row - span.start, None, span.top_logprobs, False))
        first += len(span.token_ids)
        for token, sampling in enumerate(span.samplings, first - len(span.samplings)):
            rows.append(_Row(token, sampling, span.top_logprobs, _is_greedy(sampling)))
    return rows


def _is_greedy(s: Sampling) -> bool:
    return not (s.temperature > 0 or s.penalties or s.logit_bias or s.report)
