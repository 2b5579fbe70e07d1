"""A packed step is the step, as far as a forward reads it."""

from array import array

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sapwood.runtime.batch import Batch, PageCopy, PageWrite, Sampling, Scoring, Span
from sapwood.runtime.parallel.packing import pack, unpack

NUMBER = st.integers(0, 2**31 - 1)
SAMPLING = st.integers(0, 2**64 - 1).map(lambda stream: Sampling(0.7, 5, 0.9, 0.0, stream, 3))


@st.composite
def spans(draw: st.DrawFn) -> Span:
    ids = draw(st.lists(st.integers(-1, 2**31 - 1), min_size=1, max_size=9))
    start = draw(st.integers(0, 2**20))
    samplings = draw(st.lists(SAMPLING, max_size=len(ids)))
    rows = sorted(draw(st.lists(st.integers(start, start + len(ids) - 1), max_size=5)))
    scoring = Scoring(np.array(rows, np.int32), np.array(rows, np.int32)) if rows else None
    name = draw(st.text(max_size=3))
    return Span(name, draw(NUMBER), array("i", ids), start, tuple(samplings), scoring, 3)


BATCHES = st.builds(
    Batch,
    st.lists(spans(), max_size=6).map(tuple),
    st.lists(st.builds(PageCopy, NUMBER, NUMBER), max_size=4).map(tuple),
    st.lists(
        st.builds(PageWrite, NUMBER, NUMBER, st.lists(NUMBER, max_size=5).map(tuple)), max_size=4
    ).map(tuple),
)


@given(BATCHES)
def test_what_a_forward_reads_survives(batch: Batch) -> None:
    copy = unpack(pack(batch))
    assert copy.page_copies == batch.page_copies
    assert copy.page_writes == batch.page_writes
    assert len(copy.spans) == len(batch.spans)
    for ours, theirs in zip(copy.spans, batch.spans, strict=True):
        assert (ours.slot, ours.start, ours.token_ids) == (
            theirs.slot,
            theirs.start,
            theirs.token_ids,
        )
        assert ours.logit_rows == theirs.logit_rows
        assert len(ours.samplings) == len(theirs.samplings)


def test_what_only_rank_0_needs_stays_there() -> None:
    secret = Sampling(0.7, 5, 0.9, 0.0, 123_456_789, 4, logit_bias=((7, 1.0),))
    span = Span("a name", 0, array("i", [5]), 3, (secret,), None)
    assert len(pack(Batch((span,)))) == 4 * (3 + 5 + 1)
