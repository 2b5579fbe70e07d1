"""One step's plan and its answer, frozen: all that passes between the scheduler and the runner.

The plan holds copies of numbers; the runner never sees a Request. The one living thing in it is a
grammar's state, which the runner reads (to fill a bitmask) and the scheduler alone advances.

A span may end in drafts: tokens that are guessed to come next, computed along with the known ones.
Whatever they are, the output is what it would be without them: a token is drawn after each, as it
would be had the draft been drawn itself, and the scheduler keeps the draws up to the first one that
stands after a wrong draft. Rows of one span never depend on each other's draws.

A step may be planned and launched before the step before it has told its tokens. A span then begins
with the token AWAITED, and how to choose the token after it is said once that one is known.

What is made for every row of every step is a NamedTuple, given its fields by position: a frozen
dataclass given them by name takes six times as long to make.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..constrained import Masking
from .protocol import TokenLogprob

Int32Array = NDArray[np.int32]

AWAITED: Final = -1  # as a token: the one that the span's slot draws in the step before


@dataclass(frozen=True)
class PageCopy:
    """Copy a whole page of KV before the forward: the begin of `target` is shared text that lives
    in `source`."""

    source: int
    target: int


@dataclass(frozen=True)
class PageWrite:
    """Page-table row `slot`, from entry `first` on, now reads `pages`."""

    slot: int
    first: int
    pages: tuple[int, ...]


@dataclass(frozen=True)
class Penalties:
    """Tokens already there, for the penalties of one row. `output` and `prompt`: int32 token ids
    with repeats."""

    output: Int32Array
    prompt: Int32Array
    frequency: float
    presence: float
    repetition: float


class Sampling(NamedTuple):
    """How to choose the token after one row. `position`: how many output tokens come before it,
    drafts included, as they are in `penalties` and `grammar`; where tentative tokens of the prompt
    stand, a number beyond all of these."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    stream: int
    position: int
    logit_bias: tuple[tuple[int, float], ...] = ()
    banned: tuple[int, ...] = ()  # ends of text, while there are fewer than min_tokens
    penalties: Penalties | None = None
    grammar: Masking | None = None
    budget: int = 0  # tokens that may still be produced, this one included
    report: bool = False  # report the token's log-probability


@dataclass(frozen=True)
class Scoring:
    """Log-probabilities wanted of tokens that are not drawn: of `targets[i]` after row `rows[i]` of
    the request (a position). Rows ascend, and may repeat."""

    rows: Int32Array
    targets: Int32Array


class Span(NamedTuple):
    """One request's share of a step: compute `token_ids` at positions `start`, `start + 1`, ...

    tokens    | known ................ | drafts ........... |
    samplings |                      s |  s  s  s  s  s  s  |   one after each of the last rows
    positions start                known_end               end
    """

    request_id: str
    slot: int
    token_ids: "array[int]"  # known tokens, then drafts; or AWAITED alone
    start: int
    samplings: tuple[Sampling, ...]  # after the last known token and after each draft; or none
    scoring: Scoring | None
    top_logprobs: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.token_ids)

    @property
    def drafts(self) -> "array[int]":
        count = max(len(self.samplings) - 1, 0)
        return self.token_ids[len(self.token_ids) - count :]

    @property
    def logit_rows(self) -> list[int]:
        """Which rows need logits, counted from the first token: scoring rows, each once, then
        sampling rows."""
        rows: list[int] = []
        if self.scoring is not None:
            rows.extend((np.unique(self.scoring.rows) - self.start).tolist())
        rows.extend(range(len(self.token_ids) - len(self.samplings), len(self.token_ids)))
        return rows


Draws = Sequence[tuple[Sampling, ...]]  # for each span of a step, how to choose the tokens after it

# Stands in a span after AWAITED, until its sampling is known.
UNDECIDED: Final = Sampling(0.0, 0, 1.0, 0.0, 0, 0)


def join_tokens(spans: Iterable[Span]) -> Int32Array:
    """The tokens of all spans, span after span."""
    joined = array("i")
    for span in spans:
        joined += span.token_ids
    return np.array(joined, np.int32)


@dataclass(frozen=True)
class Batch:
    """One step: prefill chunks and decodes together, and what must be copied or written before."""

    spans: tuple[Span, ...]
    page_copies: tuple[PageCopy, ...] = ()
    page_writes: tuple[PageWrite, ...] = ()

    @property
    def num_tokens(self) -> int:
        return sum(len(span.token_ids) for span in self.spans)


class SpanResult(NamedTuple):
    """`tokens`: the drawn ones, one per sampling (those after a wrong draft may be left out);
    `logprobs`: their reports, if asked; `scored`: one entry per scoring target. `error`: why there
    is nothing of it; the span's KV is then not to be trusted."""

    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    scored: tuple[TokenLogprob, ...] = ()
    error: Exception | None = None


@dataclass(frozen=True)
class StepResult:
    """One result per span, in the order of the batch."""

    spans: tuple[SpanResult, ...]
