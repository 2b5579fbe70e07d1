"""Jumping over forced text changes no id: against choosing the same tokens one step at a time, on
the real weights. `benchmarks/constrained/jump_equality.py` does it for 300 pairs."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Appended: the benchmarks' folders have modules of common names.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "constrained"))

from jump_equality import Bench, Output, cause, compare

PAIRS = 6
TOKEN_BYTES = [b"a", b"b", b"ab", b"abc", b'"']


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench(max_tokens=96)
    yield bench
    bench.close()


def test_jumping_gives_the_ids_of_one_step_at_a_time(bench: Bench) -> None:
    pairs, _ = bench.pairs(PAIRS)
    report = compare(bench, pairs, with_free=False)
    assert not report.unequal
    assert not report.invalid
    assert report.pairs == report.identical == PAIRS
    assert report.forced > 0.1 * report.tokens


def test_one_by_one_computes_every_token_in_a_step_of_its_own(bench: Bench) -> None:
    pairs, _ = bench.pairs(PAIRS)
    steps, forced = [], []
    for way in (bench.jumping(), bench.one_by_one()):
        before = bench.loop.control("stats")
        (output,) = bench.run(pairs[:1], way)
        after = bench.loop.control("stats")
        steps.append(after["steps"] - before["steps"])
        forced.append(after["tokens_forced"] - before["tokens_forced"])
    assert forced == [sum(output.is_forced), 0]
    assert steps == [len(output.ids) - sum(output.is_forced), len(output.ids)]


def output(*ids: int, forced: str = "") -> Output:
    return Output(ids, tuple(mark == "f" for mark in forced.ljust(len(ids))), b"", "stop")


@pytest.mark.parametrize(
    ("jumped", "free", "words"),
    [
        (output(2, 4, forced="f"), output(2, 4), None),
        (output(2, 4, forced="f"), output(0, 1, 4), "shorter token"),
        (output(0, 1, 4, forced="ff"), output(2, 4), "longer token"),
        (output(2, 4, forced="f"), output(3, 4), "reaches beyond"),
        (output(2, 4), output(0, 1, 4), "rounding"),
        (output(2, 4), output(2), "one ends"),
    ],
    ids=str,
)
def test_causes_of_a_difference(jumped: Output, free: Output, words: str | None) -> None:
    found = cause(jumped, free, TOKEN_BYTES)
    assert found is None if words is None else found is not None and words in found
