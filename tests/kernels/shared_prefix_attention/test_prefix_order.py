"""Who shares how many leading pages, against a naive count over all pairs of rows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.kernels.shared_prefix_attention.plan import plan_shared_work
from sapwood.kernels.shared_prefix_attention.prefix_order import order_by_prefix


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Page tables of a radix tree, and some of no tree at all; limits in units."""
    unit = draw(st.sampled_from([1, 2, 4]))
    num_units = draw(st.integers(1, 5))
    rows = draw(st.integers(1, 9))
    width = unit * num_units
    numbers = st.integers(0, draw(st.sampled_from([1, 3, 40])))
    table = [draw(st.lists(numbers, min_size=width, max_size=width)) for _ in range(rows)]
    for row in range(1, rows):
        if draw(st.booleans()):
            common = draw(st.integers(0, width))
            table[row][:common] = table[draw(st.integers(0, row - 1))][:common]
    limits = draw(st.lists(st.integers(0, num_units), min_size=rows, max_size=rows))
    return np.array(table, dtype=np.int32), np.array(limits), unit


def shared_units(table: np.ndarray, limits: np.ndarray, unit: int, a: int, b: int) -> int:
    units = min(int(limits[a]), int(limits[b]))
    while units and (table[a, : units * unit] != table[b, : units * unit]).any():
        units -= 1
    return units


@settings(deadline=None, max_examples=200)
@given(tables())
def test_neighbours_share_what_they_are_said_to(
    case: tuple[np.ndarray, np.ndarray, int],
) -> None:
    table, limits, unit = case
    order = order_by_prefix(table, limits, unit)
    rows = order.rows.tolist()
    assert len(set(rows)) == len(rows) and len(order.common) == max(len(rows) - 1, 0)
    for at in range(len(rows)):
        for to in range(at + 1, len(rows)):
            common = int(order.common[at:to].min())
            real = shared_units(table, limits, unit, rows[at], rows[to])
            assert common == real if to == at + 1 else common <= real


@settings(deadline=None, max_examples=200)
@given(tables())
def test_pages_that_stand_in_one_place_only_are_shared_wholly(
    case: tuple[np.ndarray, np.ndarray, int],
) -> None:
    """In a tree of pages a page's number says all that is before it: nothing shared is missed."""
    table, limits, unit = case
    table = np.array(
        [
            [hash(tuple(row[: column + 1])) % (2**31) for column in range(table.shape[1])]
            for row in table.tolist()
        ],
        dtype=np.int32,
    )
    order = order_by_prefix(table, limits, unit)
    rows = order.rows.tolist()
    for a in range(len(table)):
        for b in range(a + 1, len(table)):
            real = shared_units(table, limits, unit, a, b)
            if not real:
                continue
            at, to = sorted((rows.index(a), rows.index(b)))
            # Rows with lower limits stand behind those that share more among themselves.
            assert int(order.common[at:to].min()) == real


@settings(deadline=None, max_examples=200)
@given(tables(), st.integers(1, 4), st.data())
def test_items_cover_every_shared_split_of_a_token_once(
    case: tuple[np.ndarray, np.ndarray, int], tile_tokens: int, data: st.DataObject
) -> None:
    table, limits, unit = case
    queries = np.array(
        data.draw(st.lists(st.integers(1, 3), min_size=len(table), max_size=len(table)))
    )
    work = plan_shared_work(
        queries,
        limits,
        table,
        pages_per_split=unit,
        tile_tokens=tile_tokens,
        min_saved_splits=0,
    )
    if work is None:
        assert not order_by_prefix(table, limits, unit).common.any()
        return
    row_of = np.repeat(np.arange(len(table)), queries)
    covered: set[tuple[int, int]] = set()
    for begin, count, row, split in work.items.tolist():
        assert 1 <= count <= tile_tokens
        for token in work.tokens[begin : begin + count].tolist():
            assert (token, split) not in covered
            covered.add((token, split))
            end = (split + 1) * unit
            assert (table[row_of[token], :end] == table[row, :end]).all()
            assert split < limits[row_of[token]]
    assert covered == {
        (token, split)
        for token in range(len(row_of))
        for split in range(int(work.num_splits[row_of[token]]))
    }


def test_rows_that_share_more_among_themselves_are_a_level_of_their_own() -> None:
    table = np.array([[9, 1, 5], [9, 2, 6], [9, 1, 7], [9, 2, 8]], dtype=np.int32)
    work = plan_shared_work(
        np.ones(4, dtype=np.int64),
        np.full(4, 3),
        table,
        pages_per_split=1,
        tile_tokens=8,
        min_saved_splits=1,
    )
    assert work is not None
    assert work.tokens.tolist() == [0, 2, 1, 3] and work.num_splits.tolist() == [2, 2, 2, 2]
    assert work.items.tolist() == [[0, 4, 0, 0], [0, 2, 0, 1], [2, 2, 1, 1]]


def test_small_savings_are_left_alone() -> None:
    table = np.array([[1, 2, 3], [1, 2, 4]], dtype=np.int32)
    arguments = {"pages_per_split": 1, "tile_tokens": 4}
    two, limits = np.ones(2, dtype=np.int64), np.array([3, 3])
    assert plan_shared_work(two, limits, table, min_saved_splits=2, **arguments) is not None
    assert plan_shared_work(two, limits, table, min_saved_splits=3, **arguments) is None
