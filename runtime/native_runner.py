"""Runs one batch in native code: page copies, page-table writes, the step, sampling,
log-probabilities. numpy only, no torch.

Owns: the native model with its KV cache, the page table, the sampler and the buffers of logits.
Knows no request and no tree, only the batch. `runner.py` is the same for torch.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ..kernels.llama_step import LlamaStep, StepInputs, StepOutputs
from .backend import Flight
from .batch import Batch, Sampling, Span, SpanResult, StepResult
from .masks import ban
from .native_sampler import NativeSampler
from .page_table import PageTable
from .protocol import TokenLogprob

_log = logging.getLogger(__name__)

Int32Array = NDArray[np.int32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _Row:
    """A row of logits. `sampling`: a token is drawn from it; otherwise it scores a known one."""

    token: int  # of the step
    sampling: Sampling | None
    top_logprobs: int

    @property
    def is_greedy(self) -> bool:
        """The largest allowed logit is all that is wanted: the step finds it by itself."""
        s = self.sampling
        if s is None:
            return False
        return not (s.temperature > 0 or s.penalties or s.logit_bias or s.report)


class NativeRunner:
    def __init__(self, step: LlamaStep, page_table: PageTable, threads: int) -> None:
        self._step = step
        self._page_table = page_table
        vocab = step.shape.vocab
        self._sampler = NativeSampler(vocab, threads)
        self._logits = np.empty((0, vocab), np.float32)
        self._masks = np.empty((0, -(-vocab // 32)), np.int32)

    def launch(self, batch: Batch) -> Flight:
        """Run the batch. Copies first (their targets may be read by this very step), then table
        writes, then compute."""
        for copy in batch.page_copies:
            self._step.copy_page(copy.source, copy.target)
        self._page_table.write(batch.page_writes)
        return Flight(StepResult(self._compute(batch.spans)))

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
        per_span = _rows(spans)
        rows = [row for some in per_span for row in some]
        wanted = [i for i, row in enumerate(rows) if not row.is_greedy]
        logits = self._room(len(wanted))
        outputs = self._step.step(
            self._inputs(spans, rows, wanted, logits), maxima=any(rows[i].sampling for i in wanted)
        )
        drawn = self._draw(rows, wanted, logits, outputs)
        position = dict(zip(wanted, range(len(wanted)), strict=True))
        results, first = [], 0
        for span, some in zip(spans, per_span, strict=True):
            count = len(some) - len(span.samplings)
            scored: tuple[TokenLogprob, ...] = ()
            if span.scoring is not None and count:
                at = position[first]
                scored = self._sampler.logprobs(
                    logits[at : at + count],
                    span.scoring.targets.astype(np.int64),
                    span.top_logprobs,
                )
            draws = list(islice(drawn, len(span.samplings)))
            results.append(
                SpanResult(
                    tokens=tuple(token for token, _ in draws),
                    logprobs=tuple(report for _, report in draws if report is not None),
                    scored=scored,
                )
            )
            first += len(some)
        return tuple(results)

    def _inputs(
        self, spans: tuple[Span, ...], rows: Sequence[_Row], wanted: Sequence[int], logits: Floats
    ) -> StepInputs:
        page_size = self._page_table.page_size
        max_pages = max(-(-span.end // page_size) for span in spans)
        targets: list[Floats | None] = [None] * len(rows)
        for i, row_logits in zip(wanted, logits, strict=True):
            targets[i] = row_logits
        return StepInputs(
            token_ids=np.concatenate([span.token_ids for span in spans]),
            starts=np.array([span.start for span in spans], np.int32),
            lengths=np.array([len(span.token_ids) for span in spans], np.int32),
            table_rows=np.arange(len(spans), dtype=np.int32),
            page_table=self._page_table.rows([span.slot for span in spans], max_pages),
            rows=np.array([row.token for row in rows], np.int32),
            masks=self._greedy_masks(rows),
            logits=targets,
        )

    def _draw(
        self, rows: Sequence[_Row], wanted: Sequence[int], logits: Floats, outputs: StepOutputs
    ) -> Iterator[tuple[int, TokenLogprob | None]]:
        """A token for each sampling row, in order, and its report where one is wanted."""
        found: dict[int, tuple[int, TokenLogprob | None]] = {}
        sampled = [(at, i) for at, i in enumerate(wanted) if rows[i].sampling is not None]
        if sampled:
            places = [at for at, _ in sampled]
            some = logits if len(places) == len(logits) else logits[places]
            maxima = outputs.strip_maxima
            tokens, reports = self._sampler.choose(
                some,
                [s for _, i in sampled if (s := rows[i].sampling) is not None],
                [rows[i].top_logprobs for _, i in sampled],
                None if maxima is None else maxima[[i for _, i in sampled]],
            )
            for (_, i), token, report in zip(sampled, tokens, reports, strict=True):
                found[i] = (token, report)
        best = outputs.best.tolist()
        return (
            found.get(i, (best[i], None)) for i, row in enumerate(rows) if row.sampling is not None
        )

    def _greedy_masks(self, rows: Sequence[_Row]) -> list[Int32Array | None]:
        """What the greedy rows may choose from; None: everything, or the sampler sees to it."""
        masks: list[Int32Array | None] = [None] * len(rows)
        if len(self._masks) < len(rows):
            self._masks = np.empty((len(rows), self._masks.shape[1]), np.int32)
        for i, row in enumerate(rows):
            sampling = row.sampling
            if sampling is None or not row.is_greedy:
                continue
            if sampling.grammar is None and not sampling.banned:
                continue
            mask = self._masks[i]
            if sampling.grammar is not None:
                sampling.grammar.fill_mask(mask, sampling.budget)
            else:
                mask[:] = -1
            ban(mask, sampling.banned)
            masks[i] = mask
        return masks

    def _room(self, count: int) -> Floats:
        """A buffer for `count` rows of logits, kept from step to step."""
        if len(self._logits) < count:
            self._logits = np.empty((count, self._step.shape.vocab), np.float32)
        return self._logits[:count]


def _rows(spans: tuple[Span, ...]) -> list[list[_Row]]:
    """Span by span: its scoring rows, then its sampling rows."""
    result, first = [], 0
    for span in spans:
        tokens = span.logit_rows
        num_scoring = len(tokens) - len(span.samplings)
        samplings = (*(None for _ in range(num_scoring)), *span.samplings)
        result.append(
            [
                _Row(first + token, sampling, span.top_logprobs)
                for token, sampling in zip(tokens, samplings, strict=True)
            ]
        )
        first += len(span.token_ids)
    return result
