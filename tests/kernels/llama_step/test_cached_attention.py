"""Pages of keys and values, and attention over them, against numpy in double precision."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.kernels.llama_step import KvFormat

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
DIMS = (16, 64, 80, 96, 128, 256)
PAGE_SIZES = (1, 2, 4, 8, 16, 32, 64)


def to_bf16(values: Array) -> Array:
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return rounded.astype(np.uint32).view(np.float32)


def as_kept(values: Array, kv: KvFormat) -> Array:
    """What a cache gives back of numbers [..., dim]."""
    if kv is KvFormat.FLOAT32:
        return values
    if kv is KvFormat.BFLOAT16:
        return to_bf16(values)
    top = np.abs(values).max(axis=-1, keepdims=True)
    numbers = np.rint(values * (np.float32(127) / top))
    return to_bf16(numbers * (top / np.float32(127)))


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("dim", [16, 80, 256])
@pytest.mark.parametrize("kv", KvFormat, ids=lambda kv: kv.name.lower())
def test_every_slot_keeps_its_own_numbers(
    probe: Any, kv: KvFormat, dim: int, page_size: int
) -> None:
    layers, heads, pages = 2, 3, 3
    cache = probe.cache(
        kv=kv, layers=layers, heads=heads, dim=dim, page_size=page_size, num_pages=pages
    )
    slots = list(np.ndindex(layers, pages, heads, page_size))
    random = np.random.default_rng(dim)
    numbers = random.standard_normal((len(slots), 2, dim), np.float32)
    for index in random.permutation(len(slots)):
        cache.write(slots[index], *numbers[index])
    kept = as_kept(numbers, kv)
    for slot, expected in zip(slots, kept, strict=True):
        assert np.array_equal(np.stack(cache.read(slot)), expected), slot
    cache.copy(0, 2)
    for layer, head, offset in np.ndindex(layers, heads, page_size):
        source, target = ((layer, page, head, offset) for page in (0, 2))
        assert np.array_equal(np.stack(cache.read(target)), np.stack(cache.read(source)))
        other = (layer, 1, head, offset)
        assert np.array_equal(np.stack(cache.read(other)), kept[slots.index(other)])


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("kv", KvFormat, ids=lambda kv: kv.name.lower())
def test_a_page_takes_the_bytes_it_says(probe: Any, kv: KvFormat, page_size: int) -> None:
    cache = probe.cache(kv=kv, layers=2, heads=3, dim=32, page_size=page_size, num_pages=1)
    odd_slot = kv is not KvFormat.FLOAT32 and page_size == 1  # others stand in pairs of tokens
    width = {KvFormat.BFLOAT16: 2, KvFormat.FLOAT32: 4, KvFormat.INT8: 1}[kv]
    scales = 4 * page_size if kv is KvFormat.INT8 else 0
    assert cache.page_bytes() == 2 * 2 * 3 * (32 * (page_size + odd_slot) * width + scales)


@dataclass(frozen=True)
class Case:
    kv: KvFormat
    dim: int
    page_size: int
    length: int  # positions
    rows: int
    window: int  # 0: none
    seed: int
    scale: float = 1.0


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return Case(
        draw(st.sampled_from(KvFormat)),
        draw(st.sampled_from(DIMS)),
        draw(st.sampled_from(PAGE_SIZES)),
        draw(st.one_of(st.integers(1, 40), st.integers(100, 300))),
        draw(st.integers(1, 24)),
        draw(st.sampled_from([0, 0, 1, 5, 16, 64, 129])),
        draw(SEEDS),
        draw(st.sampled_from([1.0, 0.0, 8.0])),
    )


@dataclass(frozen=True)
class Filled:
    """A cache whose pages hold one sequence, and what was asked of it."""

    cache: Any
    pages: Array
    keys: Array  # [length, dim]
    values: Array
    queries: Array
    ranges: Array  # [rows, 2]


def fill(probe: Any, case: Case, order: Array | None = None) -> Filled:
    random = np.random.default_rng(case.seed)
    keys, values = random.standard_normal((2, case.length, case.dim), np.float32)
    queries = random.standard_normal((case.rows, case.dim), np.float32) * np.float32(case.scale)
    last = random.integers(0, case.length, case.rows)
    last[0] = case.length - 1
    first = np.maximum(last - case.window + 1, 0) if case.window else np.zeros_like(last)
    count = -(-case.length // case.page_size)
    pages = (random.permutation(count + 3)[:count] if order is None else order).astype(np.int32)
    cache = probe.cache(
        kv=case.kv,
        layers=2,
        heads=2,
        dim=case.dim,
        page_size=case.page_size,
        num_pages=count + 3,
    )
    cache.fill(7e8)  # numbers that would be seen, were they read
    for position in range(case.length):
        place = (1, int(pages[position // case.page_size]), 1, position % case.page_size)
        cache.write(place, keys[position], values[position])
    return Filled(cache, pages, keys, values, queries, np.stack([first, last], axis=1))


def attention(filled: Filled, kv: KvFormat) -> Array:
    """softmax(q . k / sqrt(dim)) . v over each row's range, float64."""
    keys, values = (as_kept(array, kv).astype(np.float64) for array in (filled.keys, filled.values))
    queries = filled.queries if kv is KvFormat.FLOAT32 else to_bf16(filled.queries)
    queries = queries.astype(np.float64)
    out = np.empty_like(queries)
    for row, (first, last) in enumerate(filled.ranges):
        scores = keys[first : last + 1] @ queries[row] / np.sqrt(queries.shape[1])
        weights = np.exp(scores - scores.max())
        out[row] = weights / weights.sum() @ values[first : last + 1]
    return out


@settings(max_examples=80, deadline=None)
@given(case=cases())
def test_attention(probe: Any, case: Case) -> None:
    filled = fill(probe, case)
    found, by_scalar = filled.cache.attend(1, 1, filled.pages, filled.queries, filled.ranges)
    expected = attention(filled, case.kv)
    assert np.abs(by_scalar - expected).max() < 2e-6
    # Weights are rounded to bfloat16 before they meet bfloat16 values: 2^-9 of each, at most.
    largest = np.abs(filled.values).max()
    assert np.abs(found - expected).max() < (
        2e-5 if case.kv is KvFormat.FLOAT32 else 2.0**-8 * largest
    )


@settings(max_examples=60, deadline=None)
@given(case=cases(), data=st.data())
def test_a_row_never_depends_on_its_neighbours_or_its_pages(
    probe: Any, case: Case, data: st.DataObject
) -> None:
    filled = fill(probe, case)
    together, _ = filled.cache.attend(1, 1, filled.pages, filled.queries, filled.ranges)
    some = sorted(data.draw(st.sets(st.integers(0, case.rows - 1), min_size=1)))
    apart, _ = filled.cache.attend(1, 1, filled.pages, filled.queries[some], filled.ranges[some])
    assert np.array_equal(apart, together[some])
    moved = fill(probe, case, order=np.arange(len(filled.pages)))
    again, _ = moved.cache.attend(1, 1, moved.pages, moved.queries, moved.ranges)
    assert np.array_equal(again, together)


@pytest.mark.parametrize("kv", KvFormat, ids=lambda kv: kv.name.lower())
def test_page_sizes_give_the_same_bits(probe: Any, kv: KvFormat) -> None:
    def by(page_size: int) -> Array:
        filled = fill(probe, Case(kv, 64, page_size, 200, 9, 0, 3))
        out, _ = filled.cache.attend(1, 1, filled.pages, filled.queries, filled.ranges)
        return out

    first = by(16)
    for page_size in PAGE_SIZES:
        assert np.array_equal(by(page_size), first), page_size


@settings(deadline=None)
@given(seed=SEEDS, dim=st.sampled_from(DIMS), gap=st.sampled_from([-300, -20, -1, 0, 1, 20, 300]))
def test_merging_two_parts(probe: Any, seed: int, dim: int, gap: int) -> None:
    random = np.random.default_rng(seed)
    ours, other = random.standard_normal((2, dim), np.float32)
    merged, top, total = probe.merge(ours, 2.0, 1.5, (other, 2.0 + gap, 0.75))
    highest = max(2.0, 2.0 + gap)
    keep, take = np.exp(2.0 - highest), np.exp(2.0 + gap - highest)
    assert top == highest
    assert abs(total - (1.5 * keep + 0.75 * take)) < 1e-6
    assert np.abs(merged - (ours * keep + other * take)).max() < 1e-5


def test_an_empty_part_changes_nothing(probe: Any) -> None:
    ours, nothing = np.linspace(-1, 1, 64, dtype=np.float32), np.zeros(64, np.float32)
    for top in (-5.0, 0.0, 40.0):
        assert np.array_equal(probe.merge(ours, top, 1.5, (nothing, -1e30, 0.0))[0], ours)
        merged, _, total = probe.merge(nothing, -1e30, 0.0, (ours, top, 1.5))
        assert np.array_equal(merged, ours) and total == 1.5
