"""Stop strings and patterns over a growing output, against a search of the whole text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapwood.runtime.stops import StopFinder


def always(start: int, end: int) -> bool:
    return True


def feed(finder: StopFinder, pieces: list[bytes]) -> tuple[str, int, int] | None:
    """The first match while the pieces arrive one by one."""
    output = bytearray()
    for piece in pieces:
        output += piece
        match = finder.find(output, len(piece), always)
        if match is not None:
            return match.matched, match.start, match.end
    return None


@pytest.mark.parametrize(
    "strings, patterns, pieces, expected",
    [
        (["stop"], [], [b"do s", b"to", b"p it"], ("stop", 3, 7)),
        (["aa", "a"], [], [b"baa"], ("a", 1, 2)),
        (["é"], [], ["é".encode()[:1], "é".encode()[1:]], ("é", 0, 2)),
        ([], [r"\d+;"], [b"a 12", b"3; b"], (r"\d+;", 2, 6)),
        ([], ["é+!"], ["xé".encode(), "é!".encode()], ("é+!", 1, 6)),
        ([], ["b"], [b"\xff\xfe", b"ab"], ("b", 3, 4)),  # bytes that are no UTF-8 are skipped
        ([], ["x*"], [b"abc"], None),  # an empty match is none
        (["z"], ["y"], [b"abc"], None),
    ],
)
def test_table(
    strings: list[str],
    patterns: list[str],
    pieces: list[bytes],
    expected: tuple[str, int, int] | None,
) -> None:
    assert feed(StopFinder(strings, patterns), pieces) == expected


def test_a_match_that_is_not_allowed_is_passed_over() -> None:
    finder = StopFinder(["b"], [])
    found = finder.find(b"abab", 4, lambda start, end: start > 1)
    assert found is not None and found.start == 3


@given(
    text=st.text("abé ", max_size=30),
    strings=st.lists(st.text("abé ", min_size=1, max_size=3), min_size=1, max_size=3),
    size=st.integers(1, 5),
)
def test_the_same_end_however_the_output_is_cut(text: str, strings: list[str], size: int) -> None:
    data = text.encode()
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    found = feed(StopFinder(strings, []), pieces)
    ends = sorted((data.index(s.encode()) + len(s.encode())) for s in strings if s.encode() in data)
    if not ends:
        assert found is None
    else:
        assert found is not None
        # The first piece that completes any stop decides; within it, the earliest begin.
        assert (found[2] - 1) // size >= (ends[0] - 1) // size
        assert data[found[1] : found[2]] == found[0].encode()
        assert found[1] <= ends[0]
