"""What a step draws and measures: launched from its logits, answered span by span when collected.

Owns: which rows of the logits are drawn from, reported and scored. Knows no sampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from ..batch import Span, SpanResult
from .drawn import Drawn, Measured, TokenSampler, measure
from .upload import upload


@dataclass(frozen=True)
class Outcome:
    """A step's answer, which may still be under way. `drawn`: for each sampling, span by span;
    `reports`: of those drawn tokens that are reported; `scores`: of each scoring target."""

    spans: tuple[Span, ...]
    drawn: Drawn
    reports: Measured
    scores: Measured

    def collect(self) -> tuple[SpanResult, ...]:
        """One result per span. Waits for the step."""
        tokens = iter(self.drawn.collect())
        reports, scores = iter(self.reports.collect()), iter(self.scores.collect())
        return tuple(
            SpanResult(
                tokens=tuple(islice(tokens, len(span.samplings))),
                logprobs=tuple(islice(reports, len(span.samplings) if _is_reported(span) else 0)),
                scored=tuple(islice(scores, _num_targets(span))),
            )
            for span in self.spans
        )


def launch_draws(
    sampler: TokenSampler,
    spans: tuple[Span, ...],
    rows: Sequence[Sequence[int]],
    logits: torch.Tensor,
) -> Outcome:
    """Draw and measure what the spans ask for. rows: each span's `logit_rows`; logits: float32
    [all of them, vocab], not changed."""
    ends = np.cumsum([len(span_rows) for span_rows in rows]).tolist()
    drawn_rows = [
        row
        for span, end in zip(spans, ends, strict=True)
        for row in range(end - len(span.samplings), end)
    ]
    samplings = [sampling for span in spans for sampling in span.samplings]
    drawn = sampler.draw(_selected(logits, drawn_rows), samplings)
    return Outcome(
        spans,
        drawn,
        _reports(spans, drawn_rows, drawn, logits),
        _scores(spans, rows, ends, logits),
    )


def _selected(logits: torch.Tensor, rows: list[int]) -> torch.Tensor:
    if len(rows) == len(logits):
        return logits
    return logits[upload([np.array(rows, np.int64)], logits.device)[0]]


def _reports(
    spans: tuple[Span, ...],
    rows: list[int],
    drawn: Drawn,
    logits: torch.Tensor,
) -> Measured:
    """rows: the logits' row of each draw."""
    tops = [span.top_logprobs for span in spans for _ in span.samplings]
    asked = [_is_reported(span) for span in spans for _ in span.samplings]
    tokens = drawn.tokens
    if any(asked) and not all(asked):
        numbers = [number for number, is_asked in enumerate(asked) if is_asked]
        tokens = tokens[upload([np.array(numbers, np.int64)], tokens.device)[0]]
        rows, tops = [rows[number] for number in numbers], [tops[number] for number in numbers]
    return measure(logits, rows if any(asked) else [], tokens, tops)


def _scores(
    spans: tuple[Span, ...],
    rows: Sequence[Sequence[int]],
    ends: list[int],
    logits: torch.Tensor,
) -> Measured:
    places: list[int] = []
    tokens: list[int] = []
    tops: list[int] = []
    for span, span_rows, end in zip(spans, rows, ends, strict=True):
        if span.scoring is not None:
            which = np.unique(span.scoring.rows, return_inverse=True)[1]
            places += (which + (end - len(span_rows))).tolist()
            tokens += span.scoring.targets.tolist()
            tops += [span.top_logprobs] * len(which)
    if not places:
        return measure(logits, [], logits.new_empty(0), [])
    (targets,) = upload([np.array(tokens, np.int64)], logits.device)
    return measure(logits, places, targets, tops)


def _is_reported(span: Span) -> bool:
    return bool(span.samplings) and span.samplings[0].report


def _num_targets(span: Span) -> int:
    return 0 if span.scoring is None else len(span.scoring.targets)
