"""The step that takes the most memory, as a batch: for measuring how much that is. Knows no tensor.

Every token of it is kept on page 0, which is where an unwritten page table points: its keys and
values make no sense, and take no room.
"""

from array import array
from typing import Final

from ..batch import Batch, Sampling, Span

# What attention takes besides grows with the contexts, slowly: so long they are taken to be.
PROFILED_CONTEXT: Final = 16_384

_DRAW: Final = Sampling(temperature=1.0, top_k=50, top_p=0.9, min_p=0.01, stream=0, position=0)


def largest_step(num_tokens: int, num_rows: int, context_length: int) -> Batch:
    """`num_tokens` new tokens, or as many as `num_rows` requests of `context_length` have, at the
    end of contexts of that length; each request draws."""
    rows = min(num_rows, num_tokens)
    each, rest = divmod(num_tokens, rows)
    lens = [min(each + (row < rest), context_length) for row in range(rows)]
    spans = [
        Span(f"row {row}", row, _tokens(length), context_length - length, (_DRAW,), None)
        for row, length in enumerate(lens)
    ]
    return Batch(tuple(spans))


def _tokens(count: int) -> "array[int]":
    return array("i", [0]) * count
