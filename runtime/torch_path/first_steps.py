"""Small steps of every kind, as batches: what they need is compiled before anyone waits for it.

A kernel is compiled, or read from disk, when it is first launched: seconds in which every request
waits. Knows no tensor and no kernel, but what makes one kind of step or draw differ from another.
"""

from array import array
from typing import Final

import numpy as np

from ..batch import Batch, PageCopy, Penalties, Sampling, Scoring, Span

_LONG: Final = 32  # new tokens of a row that is no decode: attention takes them in larger tiles
_CONTEXT: Final = 1_024  # tokens before the new ones: so many are read in parts, to be merged
_SCORED: Final = (32, 64, 128)  # rows of a product that are computed in tiles of that many

_TOKEN: Final = np.zeros(1, np.int32)
_GREEDY: Final = Sampling(0.0, 0, 1.0, 0.0, 0, 0)
_LIMITED: Final = Sampling(1.0, 50, 0.9, 0.01, 0, 0)
_PENALIZED: Final = _GREEDY._replace(penalties=Penalties(_TOKEN, _TOKEN, 0.5, 0.5, 1.1))

# A step draws all rows at once, in a way that depends on what any of them wants.
_DRAWS: Final = (
    _GREEDY._replace(report=True),
    _GREEDY._replace(banned=(0,)),  # by a mask, as a grammar is obeyed
    _LIMITED,
    _LIMITED._replace(banned=(0,)),
    _GREEDY._replace(logit_bias=((0, 1.0),)),
    _PENALIZED._replace(logit_bias=((0, 1.0),)),
)


def first_steps(num_rows: int, context_length: int) -> list[Batch]:
    """For up to `num_rows` requests of `context_length`: one for each way to draw, prefills,
    decodes and both together, and prompts that are scored. As in `largest_step`, all tokens are
    kept on page 0."""
    lens = ((_LONG,), (1,), (_LONG, 1))
    drawn = [
        tuple(
            _span(row, length, context_length)._replace(samplings=(draw,))
            for row, length in enumerate(lens[number % len(lens)][:num_rows])
        )
        for number, draw in enumerate(_DRAWS)
    ]
    scored = [(_scored(_span(0, length, context_length)),) for length in _SCORED]
    # A page is copied to nowhere.
    return [Batch(spans, page_copies=(PageCopy(0, -1),)) for spans in drawn + scored]


def _span(slot: int, length: int, context_length: int) -> Span:
    """That draws nothing."""
    length = min(length, context_length)
    start = min(_CONTEXT, context_length - length)
    return Span(f"row {slot}", slot, array("i", [0]) * length, start, (), None, top_logprobs=2)


def _scored(span: Span) -> Span:
    rows = np.arange(span.start, span.end, dtype=np.int32)
    return span._replace(scoring=Scoring(rows, np.zeros_like(rows)))
