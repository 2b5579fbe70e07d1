"""What a step draws and measures, put together span by span."""

from array import array
from typing import Any

import numpy as np
import pytest
import torch

from sapwood.runtime.batch import Sampling, Scoring, Span
from sapwood.runtime.torch_path.outcome import launch_draws
from sapwood.runtime.torch_path.sampler import Sampler

VOCAB = 9
GREEDY = Sampling(0.0, -1, 1.0, 0.0, 1, 0)


def span(tokens: int, draws: int, report: bool = False, **fields: Any) -> Span:
    samplings = (GREEDY._replace(report=report),) * draws
    return Span(
        "r", 0, array("i", [0] * tokens), 0, samplings, fields.pop("scoring", None), **fields
    )


def scoring(rows: list[int], targets: list[int]) -> Scoring:
    return Scoring(np.array(rows, np.int32), np.array(targets, np.int32))


SPANS = {
    "draws only": (span(1, 1), span(4, 3)),
    "prefill beside a draw": (span(5, 0), span(1, 1)),
    "some report": (span(1, 1, report=True, top_logprobs=2), span(3, 2), span(2, 2, report=True)),
    "scored and drawn": (
        span(4, 1, report=True, top_logprobs=1, scoring=scoring([0, 2, 2], [3, 4, 5])),
        span(2, 1),
        span(3, 0, scoring=scoring([1], [8]), top_logprobs=3),
    ),
    "nothing": (span(3, 0),),
}


@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS.keys())
def test_each_span_gets_its_own(spans: tuple[Span, ...]) -> None:
    rows = [one.logit_rows for one in spans]
    logits = torch.randn(sum(map(len, rows)), VOCAB)
    blocks = torch.split(logits, [len(some) for some in rows])
    results = launch_draws(Sampler(VOCAB), spans, rows, logits).collect()
    for one, block, found in zip(spans, blocks, results, strict=True):
        drawn = block[len(block) - len(one.samplings) :]
        assert list(found.tokens) == drawn.argmax(dim=1).tolist()
        logprobs = torch.log_softmax(block, dim=1)
        if one.samplings and one.samplings[0].report:
            best = torch.log_softmax(drawn, dim=1).amax(dim=1).tolist()
            assert [entry.logprob for entry in found.logprobs] == pytest.approx(best)
            assert all(len(entry.top) == one.top_logprobs for entry in found.logprobs)
        else:
            assert found.logprobs == ()
        if one.scoring is None:
            assert found.scored == ()
            continue
        which = np.unique(one.scoring.rows, return_inverse=True)[1].tolist()
        targets = one.scoring.targets.tolist()
        assert [entry.token_id for entry in found.scored] == targets
        wanted = [float(logprobs[row, token]) for row, token in zip(which, targets, strict=True)]
        assert [entry.logprob for entry in found.scored] == pytest.approx(wanted)
