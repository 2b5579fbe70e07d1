"""A step as flat arrays, against one span after the other; and how arrays travel together."""

from array import array

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sapwood.runtime.batch import PageWrite, Sampling, Scoring, Span
from sapwood.runtime.page_table import PageTable
from sapwood.runtime.torch_path.step_arrays import StepArrays
from sapwood.runtime.torch_path.upload import Layout, upload

SLOTS, PAGES, SIZE = 8, 5, 4
DRAW = Sampling(1.0, 0, 1.0, 0.0, 0, 0)


@st.composite
def spans(draw: st.DrawFn, slot: int) -> Span:
    start = draw(st.integers(0, PAGES * SIZE - 1))
    length = draw(st.integers(1, PAGES * SIZE - start))
    samplings = draw(st.integers(0, length))
    rows = draw(st.lists(st.integers(start, start + length - 1), max_size=4).map(sorted))
    scoring = Scoring(np.array(rows, np.int32), np.zeros(len(rows), np.int32)) if rows else None
    tokens = array("i", draw(st.lists(st.integers(-1, 99), min_size=length, max_size=length)))
    return Span(str(slot), slot, tokens, start, (DRAW,) * samplings, scoring)


@given(slots=st.lists(st.integers(0, SLOTS - 1), min_size=1, unique=True), data=st.data())
def test_a_step_is_its_spans_one_after_the_other(slots: list[int], data: st.DataObject) -> None:
    table = PageTable(SLOTS, PAGES, SIZE)
    numbers = np.random.default_rng(0).permutation(SLOTS * PAGES).reshape(SLOTS, PAGES)
    table.write([PageWrite(slot, 0, tuple(numbers[slot].tolist())) for slot in range(SLOTS)])
    step = [data.draw(spans(slot)) for slot in slots]
    arrays = StepArrays.of(step, table)
    tokens = [
        (token, span.slot, position, numbers[span.slot][position // SIZE] * SIZE + position % SIZE)
        for span in step
        for position, token in enumerate(span.token_ids, span.start)
    ]
    columns = (arrays.token_ids, arrays.owners, arrays.positions, arrays.places)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == tokens
    offsets = [sum(len(span.token_ids) for span in step[:n]) for n in range(len(step))]
    assert arrays.logit_rows.tolist() == [
        offset + row for offset, span in zip(offsets, step, strict=True) for row in span.logit_rows
    ]
    assert arrays.query_lens.tolist() == [len(span.token_ids) for span in step]
    assert arrays.context_lens.tolist() == [span.end for span in step]
    longest = -(-max(span.end for span in step) // SIZE)
    assert arrays.page_rows.tolist() == numbers[slots, :longest].tolist()
    assert (arrays.num_tokens, arrays.num_rows) == (len(tokens), len(step))


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.arange(3)],
        [np.arange(3, dtype=np.int32), np.arange(4), np.zeros((0, 7), np.int32)],
        [np.ones((2, 3), np.float32), np.zeros(5, bool), np.arange(6.0).reshape(3, 1, 2)],
        [np.arange(10)[::3], np.arange(12, dtype=np.uint8).reshape(3, 4)[:, :2]],
    ],
)
def test_arrays_arrive_as_they_were(arrays: list[np.ndarray]) -> None:
    layout = Layout.of(arrays)
    packed = layout.views(layout.pack(arrays, pinned=False))
    for views in (packed, upload(arrays, "cpu")):
        assert [view.numpy().tolist() for view in views] == [each.tolist() for each in arrays]
        assert [view.numpy().dtype for view in views] == [each.dtype for each in arrays]
    assert all(view.data_ptr() % 16 == 0 for view in packed if view.numel())


def test_on_the_cpu_nothing_is_copied() -> None:
    values = np.zeros(3)
    upload([values], torch.device("cpu"))[0][1] = 7.0
    assert values[1] == 7.0
