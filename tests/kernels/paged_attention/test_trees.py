"""Rows whose new tokens are a tree: each branch as if it were a row of its own.

On the CPU path, and in Triton (on the GPU, or in its interpreter). Memory that nobody owns holds
NaN.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.kernels import implementation
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.paged_attention import AttentionPlan, paged_attention, plan_attention
from sapwood.kernels.paged_attention.reference import paged_attention_reference
from sapwood.kernels.paged_attention.tree_masks import (
    ancestor_masks,
    check_masks,
    pack_masks,
    unpack_masks,
)
from sapwood.kernels.paged_attention.work_list import Cut

HEAD_DIM, KV_HEADS, PAGE_SIZE = 16, 2, 8


@dataclass(frozen=True)
class Row:
    """`parents` of a tree; None: `new` tokens in a line. Before them are `cached`."""

    cached: int
    parents: tuple[int, ...] | None = None
    new: int = 1

    @property
    def num_new(self) -> int:
        return self.new if self.parents is None else len(self.parents)

    @property
    def context(self) -> int:
        return self.cached + self.num_new


class Step:
    def __init__(self, rows: list[Row], group: int, dtype: torch.dtype = torch.float32) -> None:
        self.rows, self.group = rows, group
        width = max(-(-row.context // PAGE_SIZE) for row in rows)
        num_pages = len(rows) * width + 1
        self.table = torch.randperm(num_pages)[: len(rows) * width].view(-1, width).int()
        shape = (num_pages, PAGE_SIZE, KV_HEADS, HEAD_DIM)
        k, v = torch.full(shape, float("nan")), torch.full(shape, float("nan"))
        for number, row in enumerate(rows):
            at = torch.arange(row.context)
            slots = (self.table[number, at // PAGE_SIZE].long(), at % PAGE_SIZE)
            for pages in (k, v):
                pages[slots] = torch.randn(row.context, KV_HEADS, HEAD_DIM)
        self.pages = KVPages(k.to(dtype), v.to(dtype))
        num_tokens = sum(row.num_new for row in rows)
        self.q = torch.randn(num_tokens, KV_HEADS * group, HEAD_DIM).to(dtype)

    def plan(self) -> AttentionPlan:
        trees = {
            number: ancestor_masks(row.parents)
            for number, row in enumerate(self.rows)
            if row.parents is not None
        }
        return plan_attention(
            [row.num_new for row in self.rows],
            [row.context for row in self.rows],
            self.table,
            PAGE_SIZE,
            group=self.group,
            window=None,
            dtype=self.q.dtype,
            device="cpu",
            cut=Cut(self.group, None, 64),
            trees=trees,
        )

    def branches(self) -> Iterator[torch.Tensor]:
        """What each token gives at the end of a row of its own, in fp32."""
        token = 0
        for number, row in enumerate(self.rows):
            for new in range(row.num_new):
                path = list(range(new + 1))
                if row.parents is not None:
                    path = [new]
                    while row.parents[path[0]] >= 0:
                        path.insert(0, row.parents[path[0]])
                at = torch.tensor([*range(row.cached), *(row.cached + p for p in path)])
                slots = (self.table[number, at // PAGE_SIZE].long(), at % PAGE_SIZE)
                keys, values = (
                    x[slots].float().repeat_interleave(self.group, 1)
                    for x in (self.pages.k, self.pages.v)
                )
                scores = torch.einsum("hd,lhd->hl", self.q[token].float(), keys) * 0.4
                yield torch.einsum("hl,lhd->hd", torch.softmax(scores, dim=-1), values)
                token += 1

    def errors(self) -> tuple[float, float]:
        """Of the definition with trees, and of what computes."""
        plan = self.plan()
        wanted = torch.stack(list(self.branches()))
        reference = paged_attention_reference(self.q, self.pages, plan, scale=0.4).float()
        got = paged_attention(self.q, self.pages, plan, scale=0.4).float()
        return float((reference - wanted).abs().max()), float((got - wanted).abs().max())


@pytest.fixture(params=["cpu", "triton"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "triton":
        pytest.importorskip("triton")
        monkeypatch.setattr(implementation, "is_triton", lambda x: True)


# Three drafts that go on in two ways each; a chain; a bush of single tokens; two trees in one.
FORKED = (-1, 0, 0, 1, 1, 2, 2)
CHAIN = tuple(range(-1, 5))
BUSH = (-1,) * 9
WIDE = tuple(-1 if i % 20 == 0 else i - 1 - i % 2 for i in range(70))
STEPS = {
    "one tree": ([Row(20, FORKED)], 2),
    "nothing before it": ([Row(0, FORKED)], 3),
    "a chain is a line": ([Row(11, CHAIN)], 1),
    "no token sees another": ([Row(9, BUSH)], 2),
    "beside decodes and chunks": ([Row(70), Row(20, FORKED), Row(5, None, 9), Row(30, BUSH)], 3),
    "several splits": ([Row(150, FORKED), Row(129), Row(61, FORKED)], 2),
    "tree across a split": ([Row(60, BUSH)], 1),
    "more tokens than a tile, and than a word": ([Row(30, WIDE)], 4),
    "more than a tile beside a line": ([Row(3, None, 40), Row(90, WIDE), Row(64)], 2),
    "a tree of one": ([Row(8, (-1,))], 12),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_every_branch_is_as_on_its_own(path: None, step: tuple[list[Row], int]) -> None:
    reference, got = Step(*step).errors()
    assert reference <= 1e-5 and got <= 1e-5
    assert max(Step(*step, dtype=torch.float16).errors()) <= 2e-3


parents_strategy = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*(st.integers(-1, i - 1) for i in range(n)))
)
row_strategy = st.one_of(
    st.builds(Row, st.integers(0, 80), parents_strategy),
    st.builds(Row, st.integers(0, 80), st.none(), st.integers(1, 10)),
)


@settings(deadline=None, max_examples=12)
@given(st.lists(row_strategy, min_size=1, max_size=3), st.integers(1, 6), st.booleans())
def test_any_trees(rows: list[Row], group: int, in_triton: bool) -> None:
    if in_triton:
        pytest.importorskip("triton")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(implementation, "is_triton", lambda x: in_triton)
        assert max(Step(rows, group).errors()) <= 1e-5


@settings(deadline=None)
@given(parents_strategy)
def test_masks_hold_the_ancestors(parents: tuple[int, ...]) -> None:
    masks = ancestor_masks(parents)
    check_masks(masks, len(parents))
    for token, row in enumerate(unpack_masks(masks)):
        seen, at = set(), token
        while at >= 0:
            seen.add(at)
            at = parents[at]
        assert set(np.flatnonzero(row).tolist()) == seen


def masked(*rows: list[int]) -> np.ndarray:
    return pack_masks(np.array(rows, dtype=bool))


REFUSED = {
    "a later token": (2, {0: masked([1, 1], [0, 1])}, None, "token 0 of a tree sees a later one"),
    "not itself": (2, {0: masked([1, 0], [1, 0])}, None, "token 1 of a tree doesn't see itself"),
    "other size": (3, {0: masked([1, 0], [1, 1])}, None, r"\(2, 1\) for 3 new tokens"),
    "other row": (2, {1: masked([1, 0], [1, 1])}, None, "a tree of row 1, of 1 rows"),
    "window": (2, {0: masked([1, 0], [1, 1])}, 4, "with a window of 4"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_trees_that_cannot_be_are_refused(
    case: tuple[int, dict[int, np.ndarray], int | None, str],
) -> None:
    new, trees, window, message = case
    with pytest.raises(ValueError, match=message):
        plan_attention(
            [new],
            [8],
            torch.zeros((1, 1), dtype=torch.int32),
            8,
            group=1,
            window=window,
            dtype=torch.float32,
            device="cpu",
            trees=trees,
        )


def test_a_parent_comes_before_its_children() -> None:
    with pytest.raises(ValueError, match="token 1 has the parent 1"):
        ancestor_masks([-1, 1])
