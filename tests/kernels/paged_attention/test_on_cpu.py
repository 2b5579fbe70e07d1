"""The CPU path of paged attention against the definition, over every way to cut a step into parts.

Slots that no row owns hold NaN: a single read of one would show.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.paged_attention import AttentionPlan, paged_attention, parts, plan_attention
from sapwood.kernels.paged_attention.prefix_groups import PrefixGroup, find_prefix_groups
from sapwood.kernels.paged_attention.reference import paged_attention_reference

KV_HEADS, HEAD_DIM = 2, 8


@dataclass(frozen=True)
class Step:
    """(new tokens, context, shared pages) for each row; shared pages are row 0's leading ones."""

    rows: tuple[tuple[int, int, int], ...]
    group: int = 3
    window: int | None = None
    page_size: int = 4


@dataclass(frozen=True)
class Tensors:
    q: torch.Tensor
    pages: KVPages
    plan: AttentionPlan


def make(step: Step, dtype: torch.dtype = torch.float32) -> Tensors:
    size = step.page_size
    max_pages = max(-(-context // size) for _, context, _ in step.rows) + 1
    num_pages = len(step.rows) * max_pages + 3
    table = torch.randperm(num_pages)[: len(step.rows) * max_pages].view(len(step.rows), -1).int()
    for row, (_, _, shared) in enumerate(step.rows):
        table[row, :shared] = table[0, :shared].clone()
    shape = (num_pages, size, KV_HEADS, HEAD_DIM)
    k_pages, v_pages = torch.full(shape, float("nan")), torch.full(shape, float("nan"))
    for row, (_, context, _) in enumerate(step.rows):
        for position in range(context):
            page, offset = int(table[row, position // size]), position % size
            k_pages[page, offset] = torch.randn(KV_HEADS, HEAD_DIM)
            v_pages[page, offset] = torch.randn(KV_HEADS, HEAD_DIM)
    queries = [new for new, _, _ in step.rows]
    plan = plan_attention(
        queries,
        [context for _, context, _ in step.rows],
        table,
        size,
        group=step.group,
        window=step.window,
        dtype=dtype,
        device="cpu",
    )
    q = torch.randn(sum(queries), KV_HEADS * step.group, HEAD_DIM)
    return Tensors(q.to(dtype), KVPages(k_pages.to(dtype), v_pages.to(dtype)), plan)


def error(tensors: Tensors) -> float:
    arguments = (tensors.q, tensors.pages, tensors.plan)
    got = paged_attention(*arguments, scale=0.4)
    wanted = paged_attention_reference(*arguments, scale=0.4)
    assert got.dtype is tensors.q.dtype and got.shape == tensors.q.shape
    return float((got.float() - wanted.float()).abs().max())


@pytest.fixture
def eager_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small steps take the paths that pay only for large ones."""
    monkeypatch.setattr(parts, "MIN_SHARED_TOKENS", 4)
    monkeypatch.setattr(parts, "MIN_CHUNK", 6)
    monkeypatch.setattr(parts, "MAX_PADDING", 3)


STEPS = {
    "first token": Step(((1, 1, 0),)),
    "decode": Step(((1, 9, 0),)),
    "decode, equal lengths": Step(((1, 9, 0),) * 4),
    "decode, unequal lengths": Step(((1, 3, 0), (1, 30, 0), (1, 17, 0), (1, 4, 0))),
    "prefill": Step(((11, 11, 0),)),
    "chunk after a prefix": Step(((7, 23, 0),)),
    "short extend": Step(((3, 23, 0),)),
    "extends of one size": Step(((3, 23, 0), (3, 21, 0), (3, 3, 0))),
    "prefills beside decodes": Step(((1, 8, 0), (9, 9, 0), (1, 8, 0), (7, 20, 0), (2, 6, 0))),
    "decode, shared prefix": Step(((1, 20, 0), (1, 22, 4), (1, 18, 4), (1, 21, 4))),
    "two lengths of sharing": Step(((1, 20, 0), (1, 22, 4), (1, 21, 1), (1, 9, 1), (1, 9, 0))),
    "extends, shared prefix": Step(((3, 20, 0), (3, 22, 4), (7, 23, 4), (1, 19, 4))),
    "prefix shared up to the last token": Step(((1, 17, 0), (1, 17, 4))),
    "no query group": Step(((1, 20, 0), (4, 9, 2)), group=1),
    "one-token pages": Step(((1, 9, 0), (3, 7, 3)), page_size=1),
    "window": Step(((1, 20, 0), (1, 3, 0), (5, 18, 0), (9, 9, 0)), window=4),
    "window of one": Step(((1, 20, 0), (5, 18, 0)), window=1),
    "window with sharing": Step(((1, 10, 0), (1, 11, 2), (1, 12, 2), (1, 30, 2)), window=11),
    "window as wide as the text": Step(((9, 9, 0), (8, 12, 0)), window=12),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("sharing", ["plain", "eager"])
def test_equals_the_definition(step: Step, sharing: str, request: pytest.FixtureRequest) -> None:
    if sharing == "eager":
        request.getfixturevalue("eager_sharing")
    assert error(make(step)) <= 1e-5
    assert error(make(step, torch.bfloat16)) <= 0.03


rows_strategy = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 24), st.integers(0, 5)), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=40)
@given(
    rows=rows_strategy,
    window=st.one_of(st.none(), st.integers(1, 30)),
    page_size=st.sampled_from([1, 3, 4, 16]),
    group=st.sampled_from([1, 2, 3]),
    sharing=st.booleans(),
)
def test_equals_the_definition_on_any_step(
    rows: list[tuple[int, int, int]],
    window: int | None,
    page_size: int,
    group: int,
    sharing: bool,
) -> None:
    # A row shares at most the full pages before its new tokens that row 0 has too.
    first = rows[0][1] // page_size
    step = Step(
        tuple((new, new + old, min(share, old // page_size, first)) for new, old, share in rows),
        group,
        window,
        page_size,
    )
    with pytest.MonkeyPatch.context() as patch:
        if sharing:
            patch.setattr(parts, "MIN_SHARED_TOKENS", 2)
            patch.setattr(parts, "MIN_CHUNK", 4)
            patch.setattr(parts, "MAX_PADDING", 2)
        assert error(make(step)) <= 1e-5


def test_rows_do_not_depend_on_their_neighbours(eager_sharing: None) -> None:
    """A row alone, and the same row beside others that share its prefix."""
    step = STEPS["extends, shared prefix"]
    together = make(step)
    table = together.plan.rows.page_ids.view(len(step.rows), -1)
    out = paged_attention(together.q, together.pages, together.plan, scale=0.4)
    first = 0
    for row, (new, context, _) in enumerate(step.rows):
        alone = plan_attention(
            [new],
            [context],
            table[row : row + 1],
            4,
            group=3,
            window=None,
            dtype=torch.float32,
            device="cpu",
        )
        q = together.q[first : first + new]
        single = paged_attention(q, together.pages, alone, scale=0.4)
        assert (single - out[first : first + new]).abs().max() <= 1e-5
        first += new


def test_a_shared_prefix_is_read_once() -> None:
    step = Step(((1, 1040, 0), *((1, 1040 + row, 64) for row in range(1, 8))), page_size=16)
    plan = make(step).plan
    assert plan.parts is not None
    (shared,) = plan.parts.shared
    assert len(shared.slots) == 1024 and shared.queries == 8
    assert sum(len(part.slots) for part in plan.parts.own) <= 8 * 24


def test_padding_stays_bounded() -> None:
    """Rows of very unequal lengths are not padded to the longest."""
    contexts = [4_000, 3_900, 300, 280, 20, 10]
    step = Step(tuple((1, context, 0) for context in contexts), page_size=64)
    plan = make(step).plan
    assert plan.parts is not None
    read = sum(len(part.slots) for part in plan.parts.own)
    assert sum(contexts) <= read <= 1.25 * sum(contexts) + 64 * len(contexts)


def test_a_long_chunk_needs_no_mask() -> None:
    plan = make(Step(((128, 1024, 0),), page_size=16)).plan
    assert plan.parts is not None
    (own,), (prefix,) = plan.parts.own, plan.parts.shared
    assert own.causal and own.mask is None and len(own.slots) == 128
    assert len(prefix.slots) == 896


GROUP_CASES = {
    "none": ([[1, 2], [3, 4]], [2, 2], []),
    "all": ([[1, 2, 3], [1, 2, 4], [1, 2, 5]], [3, 3, 3], [((0, 1, 2), 2)]),
    "limited by the shortest": ([[1, 2, 3], [1, 2, 3]], [3, 1], [((0, 1), 1)]),
    "one row may share nothing": ([[1, 2], [1, 2], [1, 2]], [2, 0, 2], [((0, 2), 2)]),
    "two groups": (
        [[1, 2], [3, 4], [1, 2], [3, 4]],
        [2, 2, 2, 2],
        [((0, 2), 2), ((1, 3), 2)],
    ),
    # Together they would save 1 x 3 page reads, as pairs 4 x 1 x 2.
    "finer groups save more": (
        [[9, 1, 2, 3], [9, 1, 2, 3], [9, 4, 5, 6], [9, 4, 5, 6]],
        [4, 4, 4, 4],
        [((0, 1), 4), ((2, 3), 4)],
    ),
    # Together 3 x 3, the finer pair 4 x 1.
    "the whole group saves more": (
        [[9, 1, 2, 3], [9, 1, 2, 3], [9, 1, 2, 4], [9, 1, 2, 5]],
        [4, 4, 4, 4],
        [((0, 1, 2, 3), 3)],
    ),
}


@pytest.mark.parametrize("case", GROUP_CASES.values(), ids=GROUP_CASES.keys())
def test_prefix_groups(
    case: tuple[list[list[int]], list[int], list[tuple[tuple[int, ...], int]]],
) -> None:
    table, limits, expected = case
    found = find_prefix_groups(np.array(table, dtype=np.int32), np.array(limits), 1)
    assert found == [PrefixGroup(rows, pages) for rows, pages in expected]


def test_small_savings_are_left_alone() -> None:
    table = np.array([[1, 2], [1, 2]], dtype=np.int32)
    assert find_prefix_groups(table, np.array([2, 2]), 2) == [PrefixGroup((0, 1), 2)]
    assert find_prefix_groups(table, np.array([2, 2]), 3) == []


@pytest.mark.parametrize(
    ("queries", "contexts", "message"),
    [
        ([0], [3], "row 0 has 0 new tokens"),
        ([1, 4], [3, 3], "row 1 has 4 new tokens and a context of 3"),
        ([1], [9], "with 2 pages of 4"),
        ([1, 1, 1], [1, 1, 1], "3 query lengths"),
        ([], [], "page table of 1 rows"),
    ],
)
def test_impossible_steps_are_refused(
    queries: list[int], contexts: list[int], message: str
) -> None:
    table = torch.zeros((max(1, min(2, len(queries))), 2), dtype=torch.int32)
    with pytest.raises(ValueError, match=message):
        plan_attention(
            queries,
            contexts,
            table,
            4,
            group=1,
            window=None,
            dtype=torch.float32,
            device="cpu",
        )


def test_a_soft_cap_and_quantised_pages(eager_sharing: None) -> None:
    for name in ("decode, shared prefix", "extends, shared prefix", "prefill", "window"):
        step = make(STEPS[name])
        plain = paged_attention(step.q, step.pages, step.plan, scale=0.4)
        got = paged_attention(step.q, step.pages, step.plan, scale=0.4, softcap=0.7)
        wanted = paged_attention_reference(step.q, step.pages, step.plan, scale=0.4, softcap=0.7)
        assert (got - wanted).abs().max() <= 1e-5
        assert (got - plain).abs().max() > 1e-2
        for dtype, largest in ((torch.int8, 127), (torch.float8_e4m3fn, 448)):
            whole = step.pages.tensors()
            scales = [x.abs().amax(-1) / largest for x in whole]
            stored = [(x / s[..., None]).to(dtype) for x, s in zip(whole, scales, strict=True)]
            pages = KVPages(*stored, *scales)
            got = paged_attention(step.q, pages, step.plan, scale=0.4)
            wanted = paged_attention_reference(step.q, pages, step.plan, scale=0.4)
            assert (got - wanted).abs().max() <= 1e-5
            assert (got - plain).abs().max() <= 0.2


def test_mismatched_tensors_are_refused() -> None:
    good = make(Step(((2, 5, 0),)))
    attend = lambda t: paged_attention(t.q, t.pages, t.plan, scale=1.0)  # noqa: E731
    for bad, message in (
        (replace(good, q=good.q[:1]), "1 queries, planned for 2"),
        (replace(good, q=good.q[:, :4]), "3 query heads for each KV head"),
        (
            replace(good, pages=KVPages(good.pages.k[:, :2], good.pages.v[:, :2])),
            "planned for pages of 4",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            attend(bad)
