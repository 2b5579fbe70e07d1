"""Steps whose rows share leading pages: the same results, bit for bit, as from rows on their own.

All of it in Triton: on the GPU, or in its interpreter.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from sapwood.kernels import implementation
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.paged_attention import (
    AttentionPlan,
    Capacity,
    StaticPlan,
    paged_attention,
    plan_attention,
    sharing,
)
from sapwood.kernels.paged_attention.reference import paged_attention_reference
from sapwood.kernels.paged_attention.work_list import Cut

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SPLIT = 64


@dataclass(frozen=True)
class Case:
    """rows: (new tokens, context, of which earlier row the first tokens are, how many)."""

    rows: tuple[tuple[int, int, int, int], ...]
    group: int = 3
    kv_heads: int = 1
    head_dim: int = 16
    page_size: int = 16
    window: int | None = None
    softcap: float | None = None
    stored: torch.dtype | None = None


class Step:
    """Random tensors of a case, in pages of which those that nobody owns hold NaN."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32) -> None:
        self.case = case
        size = case.page_size
        self.queries = [new for new, _, _, _ in case.rows]
        self.contexts = [context for _, context, _, _ in case.rows]
        width = max(-(-context // size) for context in self.contexts)
        num_pages = len(case.rows) * width + 1
        table = torch.randperm(num_pages)[: len(case.rows) * width].view(-1, width).int()
        live = torch.zeros((num_pages, size), dtype=torch.bool)
        for row, (_, context, like, common) in enumerate(case.rows):
            table[row, : common // size] = table[like, : common // size].clone()
            position = torch.arange(context)
            live[table[row, position // size].long(), position % size] = True
        self.table = table
        shape = (num_pages, size, case.kv_heads, case.head_dim)
        k, v = (torch.randn(shape).to(dtype) for _ in range(2))
        k[~live], v[~live] = float("nan"), float("nan")
        scales = []
        if case.stored is not None:
            scales = [x.float().abs().amax(-1) / 127 for x in (k, v)]
            k, v = (
                (x / s[..., None]).nan_to_num(127).round().to(case.stored)
                for x, s in zip((k, v), scales, strict=True)
            )
        self.pages = KVPages(k.to(DEVICE), v.to(DEVICE), *(s.to(DEVICE) for s in scales))
        heads = case.kv_heads * case.group
        self.q = torch.randn((sum(self.queries), heads, case.head_dim)).to(DEVICE, dtype)

    def plan(self) -> AttentionPlan:
        case = self.case
        return plan_attention(
            self.queries,
            self.contexts,
            self.table,
            case.page_size,
            group=case.group,
            window=case.window,
            dtype=self.q.dtype,
            device=DEVICE,
            cut=Cut(case.group, case.window, SPLIT),
        )

    def attend(self, plan: AttentionPlan) -> torch.Tensor:
        q = self.q
        if plan.num_tokens > len(q):
            q = torch.cat([q, q.new_zeros((plan.num_tokens - len(q), *q.shape[1:]))])
        out = paged_attention(q, self.pages, plan, scale=0.3, softcap=self.case.softcap)
        return out[: len(self.q)]

    def shared_and_alone(self) -> tuple[AttentionPlan, torch.Tensor, torch.Tensor]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(implementation, "is_triton", lambda x: True)
            patch.setattr(sharing, "MIN_SAVED_TOKENS", 1)
            plan = self.plan()
            shared = self.attend(plan)
            patch.setattr(sharing, "MIN_SAVED_TOKENS", 1 << 60)
            return plan, shared, self.attend(self.plan())


ONE = ((1, 150, 0, 0), (1, 199, 0, 128), (1, 130, 0, 128))
TREE = (
    (1, 290, 0, 0),
    (1, 300, 0, 256),
    (2, 222, 0, 128),
    (1, 280, 0, 64),
    (1, 270, 3, 256),
    (9, 200, 0, 128),
    (1, 20, 0, 16),
    (3, 260, 3, 192),
)
CASES = {
    "one prefix": Case(ONE),
    "a tree beside rows of their own": Case(TREE),
    "a tree, group of seven": Case(TREE, group=7, kv_heads=2),
    "group of twelve": Case(ONE, group=12),
    "one query head": Case(TREE, group=1),
    "pages of one": Case(TREE, page_size=1),
    "pages as long as splits": Case(TREE, page_size=64),
    "prefixes that end within a split": Case(
        ((1, 150, 0, 0), (1, 160, 0, 144), (1, 200, 0, 112)), page_size=8
    ),
    "the same row twice": Case(((1, 129, 0, 0), (1, 129, 0, 128))),
    "a window that some rows fit in": Case(TREE, window=285),
    "soft cap": Case(ONE, softcap=4.0),
    "int8": Case(TREE, stored=torch.int8),
    "head of 80": Case(ONE, head_dim=80),
    "head of 128": Case(ONE, head_dim=128, group=4),
    "many rows": Case(((1, 130, 0, 0), *((1, 130 + i, 0, 128) for i in range(1, 14)))),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_sharing_changes_no_bit(case: Case, dtype: torch.dtype) -> None:
    step = Step(case, dtype)
    plan, shared, alone = step.shared_and_alone()
    assert plan.work is not None and plan.work.shared is not None
    assert torch.equal(shared, alone)
    wanted = paged_attention_reference(
        step.q, step.pages, plan, scale=0.3, softcap=case.softcap
    ).float()
    tolerance = 1e-5 if dtype is torch.float32 else 2e-3
    assert (shared.float() - wanted).abs().max() <= tolerance * max(1.0, float(wanted.abs().max()))


def test_rows_with_nothing_in_common_have_no_pass() -> None:
    rows = ((1, 200, 0, 0), (1, 200, 0, 48), (1, 60, 0, 48), (30, 200, 0, 192))
    plan, shared, alone = Step(Case(rows)).shared_and_alone()
    assert plan.work is not None and plan.work.shared is None
    assert torch.equal(shared, alone)


def test_rows_limited_by_a_window_do_not_share() -> None:
    plan, shared, alone = Step(Case(ONE, window=100)).shared_and_alone()
    assert plan.work is not None and plan.work.shared is None
    assert torch.equal(shared, alone)


def test_a_shared_split_is_read_once() -> None:
    rows = ((1, 300, 0, 0), *((1, 300 + i, 0, 256) for i in range(1, 10)))
    plan, _, _ = Step(Case(rows, group=4)).shared_and_alone()
    assert plan.work is not None and plan.work.shared is not None
    num_items, items_at, _, _ = plan.work.shared.header.tolist()
    items = plan.work.shared.buffer[items_at : items_at + 4 * num_items].view(-1, 4)
    # Tiles of two blocks of 16 // 4 tokens: 8 of 10 rows, and the other 2.
    assert items[:, [1, 3]].tolist() == [[n, s] for s in range(4) for n in (8, 2)]


@pytest.fixture
def small_gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(implementation, "is_triton", lambda x: True)
    monkeypatch.setattr(sharing, "MIN_SAVED_TOKENS", 1)
    yield


def test_a_static_plan_shares(small_gate: None) -> None:
    """Filled with a step that shares, one that doesn't, and the first again."""
    case = replace(CASES["many rows"], group=4)
    capacity = Capacity(rows=16, tokens=20, pages_per_row=20, num_programs=3, sharing=True)
    static = StaticPlan(capacity, 16, group=4, window=None, device=DEVICE, cut=Cut(4, None, SPLIT))
    alone = Case(((1, 90, 0, 0), (2, 70, 0, 0)), group=4)
    for step in (Step(case), Step(alone), Step(case)):
        static.fill(step.queries, step.contexts, step.table.numpy())
        assert torch.equal(step.attend(static.plan), step.attend(step.plan()))


rows_strategy = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 250), st.integers(0, 5), st.integers(0, 250)),
    min_size=2,
    max_size=7,
)


@settings(deadline=None, max_examples=10)
@given(
    rows=rows_strategy,
    group=st.integers(1, 12),
    page_size=st.sampled_from([1, 4, 16, 64]),
    window=st.one_of(st.none(), st.integers(1, 260)),
)
def test_sharing_changes_no_bit_of_any_step(
    rows: list[tuple[int, int, int, int]], group: int, page_size: int, window: int | None
) -> None:
    made: list[tuple[int, int, int, int]] = []
    for new, old, like, common in rows:
        like = min(like, max(len(made) - 1, 0))
        there = made[like][1] - made[like][0] if made else 0
        made.append((new, new + old, like, min(common, old, there) // page_size * page_size))
    step = Step(Case(tuple(made), group, page_size=page_size, window=window))
    plan, shared, alone = step.shared_and_alone()
    assert torch.equal(shared, alone)
    wanted = paged_attention_reference(step.q, step.pages, plan, scale=0.3)
    assert (shared - wanted).abs().max() <= 2e-5
