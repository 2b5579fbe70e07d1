"""Early stop: the one contender left is the option that all numbers would choose."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.runtime.contenders import contenders, is_complete, next_beginnings
from sapwood.runtime.errors import InvalidRequest
from sapwood.runtime.protocol import Bound, OptionScore, ScoreRequest

BOUNDS: list[Bound] = ["columns", "means"]
Ids = tuple[int, ...]
Table = dict[Ids, float]
"""The tokens of an option up to one of them -> that one's log-probability."""

# Few values, so that ties are common; some options begin others, some are equal.
VALUES = st.sampled_from([0.0, -0.1, -0.5, -1.0, -1.0, -3.0, -20.0, -math.inf])
OPTIONS = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple), min_size=1, max_size=7
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Ids], Table]:
    options = draw(OPTIONS)
    begun = sorted({ids[:end] for ids in options for end in range(1, len(ids) + 1)})
    some = VALUES if draw(st.booleans()) else st.floats(-30, 0)
    return options, {ids: draw(some) for ids in begun}


def winner(bound: Bound, options: Sequence[Ids], table: Table) -> int:
    """By all numbers, written slowly."""
    rows = [[table[ids[: end + 1]] for end in range(len(ids))] for ids in options]
    means = [math.fsum(row) / len(row) for row in rows]
    if bound == "means":
        return means.index(max(means))
    left = list(range(len(rows)))
    for column in range(max(map(len, rows))):
        at = {i: rows[i][column] if column < len(rows[i]) else means[i] for i in left}
        left = [i for i in left if at[i] == max(at.values())]
    return left[0]


def scored(options: Sequence[Ids], table: Table, known: set[Ids]) -> list[OptionScore]:
    made = []
    for ids in options:
        num_known = 0
        while num_known < len(ids) and ids[: num_known + 1] in known:
            num_known += 1
        values = tuple(table[ids[: end + 1]] for end in range(num_known))
        made.append(OptionScore(ids, values))
    return made


@pytest.mark.parametrize("bound", BOUNDS)
@settings(deadline=None, max_examples=2_000)
@given(case=tables())
def test_rounds_end_at_the_winner_of_all_numbers(
    bound: Bound, case: tuple[list[Ids], Table]
) -> None:
    options, table = case
    expected = winner(bound, options, table)
    known: set[Ids] = set()
    left = list(range(len(options)))
    for number in range(99):
        wanted = next_beginnings(bound, scored(options, table, known), left, number)
        new = {ids[:end] for ids in wanted for end in range(1, len(ids) + 1)} - known
        assert new  # each round learns something
        known |= new
        before, left = left, contenders(bound, scored(options, table, known))
        assert expected in left
        assert set(left) <= set(before)  # who is out stays out
        if len(left) == 1:
            break
    assert left == [expected]
    assert bound == "columns" or number < 3


@pytest.mark.parametrize("bound", BOUNDS)
@settings(deadline=None, max_examples=2_000)
@given(case=tables(), data=st.data())
def test_whatever_is_known_the_winner_is_among_the_contenders(
    bound: Bound, case: tuple[list[Ids], Table], data: st.DataObject
) -> None:
    options, table = case
    known = {ids for ids in table if data.draw(st.booleans())}
    partial = scored(options, table, known)
    left = contenders(bound, partial)
    assert winner(bound, options, table) in left
    if all(map(is_complete, partial)):
        assert len(left) == 1


# bound, options as (tokens, known log-probabilities) -> who can still win
CASES: list[tuple[Bound, list[tuple[Ids, tuple[float, ...]]], list[int]]] = [
    ("columns", [((1, 2), (-1.0,)), ((3, 4), (-2.0,))], [0]),  # the first token decides
    ("columns", [((1, 2), (-1.0,)), ((1, 3), (-1.0,))], [0, 1]),
    ("columns", [((1,), (-1.0,)), ((1, 3), (-1.0,))], [0, 1]),  # its mean against the next token
    ("columns", [((1,), (-1.0,)), ((1, 3), (-1.0, -1.0))], [0]),  # a tie goes to the first
    ("columns", [((1, 2), ()), ((1, 2), ())], [0]),  # equal options need no numbers
    ("means", [((1,), (-1.0,)), ((2, 3), (-2.5,))], [0]),  # -1.25 at best
    ("means", [((1,), (-1.0,)), ((2, 3), (-1.5,))], [0, 1]),
    ("means", [((1,), (-1.0,)), ((2, 3), (-2.0,))], [0]),  # -1 at best, which is too late
    ("means", [((2, 3), (-2.0,)), ((1,), (-1.0,))], [0, 1]),  # and here it is not
    ("means", [((1, 2), (-0.1,)), ((3, 4), (-9.0,))], [0, 1]),  # nobody is complete
    ("means", [((1,), (-math.inf,)), ((2, 3), (-math.inf,))], [0]),
]


@pytest.mark.parametrize(("bound", "options", "expected"), CASES)
def test_who_can_still_win(
    bound: Bound, options: list[tuple[Ids, tuple[float, ...]]], expected: list[int]
) -> None:
    assert contenders(bound, [OptionScore(ids, known) for ids, known in options]) == expected


def test_a_bound_that_is_none_is_refused_by_name() -> None:
    for wrong in ("greedy", 5, ["means"]):
        with pytest.raises(InvalidRequest, match="bound: ") as raised:
            ScoreRequest((), ("a",), bound=wrong)  # type: ignore[arg-type]
        assert raised.value.field == "bound"
    with pytest.raises(InvalidRequest, match="bound: 'means' says nothing"):
        ScoreRequest((), ("a",), unconditional=True, bound="means")
