"""The page table against a dictionary of positions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sapwood.runtime.batch import PageWrite
from sapwood.runtime.page_table import PageTable

SLOTS, PAGES, SIZE = 3, 6, 4


@st.composite
def writes(draw: st.DrawFn) -> PageWrite:
    first = draw(st.integers(0, PAGES - 1))
    pages = draw(st.lists(st.integers(0, 99), min_size=1, max_size=PAGES - first))
    return PageWrite(draw(st.integers(0, SLOTS - 1)), first, tuple(pages))


@given(steps=st.lists(st.lists(writes(), max_size=3), max_size=5), data=st.data())
def test_tokens_are_where_the_last_write_put_them(
    steps: list[list[PageWrite]], data: st.DataObject
) -> None:
    table = PageTable(SLOTS, PAGES, SIZE)
    page_of = {(slot, entry): 0 for slot in range(SLOTS) for entry in range(PAGES)}
    for step in steps:
        table.write(step)
        for write in step:
            for offset, page in enumerate(write.pages):
                page_of[write.slot, write.first + offset] = page
    slots = data.draw(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=5))
    num_pages = data.draw(st.integers(1, PAGES))
    rows = table.rows(slots, num_pages)
    assert rows.dtype == np.int32
    assert rows.tolist() == [[page_of[slot, i] for i in range(num_pages)] for slot in slots]
    rows[:] = -1  # a copy: the table itself does not change
    start = data.draw(st.integers(0, PAGES * SIZE - 1))
    end = data.draw(st.integers(start, PAGES * SIZE))
    places = table.places(np.full(end - start, slots[0]), np.arange(start, end))
    assert places.dtype == np.int64
    expected = [
        page_of[slots[0], position // SIZE] * SIZE + position % SIZE
        for position in range(start, end)
    ]
    assert places.tolist() == expected
