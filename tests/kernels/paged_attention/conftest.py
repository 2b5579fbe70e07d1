"""Steps for the Triton kernels: random tensors in poisoned pages, and the plans of such steps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from sapwood.kernels import implementation
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.paged_attention import AttentionPlan, paged_attention, plan_attention
from sapwood.kernels.paged_attention.reference import paged_attention_reference
from sapwood.kernels.paged_attention.work_list import Cut

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@dataclass(frozen=True)
class Case:
    """rows: (new tokens, context) of each. split, long_split, long_tile: as in `Cut`."""

    rows: tuple[tuple[int, int], ...]
    group: int = 2
    head_dim: int = 16
    page_size: int = 16
    window: int | None = None
    softcap: float | None = None
    kv_heads: int = 1
    stored: torch.dtype | None = None
    split: int = 64
    long_split: int = 4_096
    long_tile: int = 64

    @property
    def queries(self) -> list[int]:
        return [new for new, _ in self.rows]

    @property
    def contexts(self) -> list[int]:
        return [context for _, context in self.rows]

    @property
    def cut(self) -> Cut:
        return Cut(self.group, self.window, self.split, self.long_split, self.long_tile)


class Tensors:
    """A case's queries, its pages with what nobody owns poisoned, and its page table."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        self.case = case
        rows, size = len(case.rows), case.page_size
        max_pages = max(-(-context // size) for context in case.contexts) + 1
        num_pages = rows * max_pages + 2
        order = torch.randperm(num_pages, generator=random)[: rows * max_pages]
        table = order.view(rows, max_pages).int()
        shape = (num_pages, size, case.kv_heads, case.head_dim)
        k, v = (torch.full(shape, float("nan")).flatten(0, 1) for _ in range(2))
        for row, context in enumerate(case.contexts):
            position = torch.arange(context)
            slots = table[row, position // size].long() * size + position % size
            for pages in (k, v):
                values = torch.rand((context, *shape[2:]), generator=random) * 2 - 1
                pages[slots] = values
        k, v = (pages.view(shape) for pages in (k, v))
        if case.stored is None:
            pages = KVPages(k.to(DEVICE, dtype), v.to(DEVICE, dtype))
        else:
            scales = [x.abs().amax(-1) / LARGEST[case.stored] for x in (k, v)]
            stored = [
                (x / s[..., None]).nan_to_num(LARGEST[case.stored]).to(DEVICE, case.stored)
                for x, s in zip((k, v), scales, strict=True)
            ]
            pages = KVPages(*stored, *(s.to(DEVICE) for s in scales))
        heads = case.kv_heads * case.group
        # As a part of a fused projection: its rows are not adjacent.
        fused = torch.randn((sum(case.queries), heads + 2, case.head_dim), generator=random)
        self.q = fused.to(DEVICE, dtype)[:, :heads]
        self.pages = pages
        self.page_table = table

    def plan(self, **options: Any) -> AttentionPlan:
        case = self.case
        options.setdefault("cut", case.cut)
        return plan_attention(
            case.queries,
            case.contexts,
            self.page_table,
            case.page_size,
            group=case.group,
            window=case.window,
            dtype=self.q.dtype,
            device=DEVICE,
            **options,
        )

    def attend(self, plan: AttentionPlan, q: torch.Tensor | None = None) -> torch.Tensor:
        q = self.q if q is None else q
        return paged_attention(q, self.pages, plan, scale=0.3, softcap=self.case.softcap)

    def wanted(self) -> torch.Tensor:
        return paged_attention_reference(
            self.q, self.pages, self.plan(), scale=0.3, softcap=self.case.softcap
        )

    def row(self, number: int) -> tuple["Tensors", slice]:
        """One row of these alone, over the same pages; and which of the tokens are its."""
        alone = object.__new__(Tensors)
        first = sum(self.case.queries[:number])
        tokens = slice(first, first + self.case.queries[number])
        alone.case = Case(**{**self.case.__dict__, "rows": (self.case.rows[number],)})
        alone.q, alone.pages = self.q[tokens], self.pages
        alone.page_table = self.page_table[number : number + 1]
        return alone, tokens


@pytest.fixture
def triton_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything runs in Triton: in its interpreter where there is no GPU."""
    pytest.importorskip("triton")
    monkeypatch.setattr(implementation, "is_triton", lambda x: True)
    # Memory that nobody has written shows: outputs must be written wholly.
    empty = torch.Tensor.new_empty

    def poisoned(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        new = empty(self, *args, **kwargs)
        return new.fill_(float("nan")) if new.is_floating_point() else new

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    yield


@pytest.fixture
def tensors(triton_path: None) -> Callable[..., Tensors]:
    """`tensors(dtype, seed, **fields of a Case)`."""

    def make(dtype: torch.dtype = torch.float32, seed: int = 0, **case: Any) -> Tensors:
        return Tensors(Case(**case), dtype, seed)

    return make
