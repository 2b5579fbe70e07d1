"""The shared pass in Triton (on the GPU, or in its interpreter) against its definition.

Pages that nobody shares hold NaN, and so do parts that no item computes, before and after.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from sapwood.kernels import implementation
from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.shared_prefix_attention import SharedPrefixes, shared_prefix_attention
from sapwood.kernels.shared_prefix_attention.plan import plan_shared_work
from sapwood.kernels.shared_prefix_attention.reference import shared_prefix_attention_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3}


@dataclass(frozen=True)
class Case:
    """rows: (new tokens, of which earlier row the first splits are, how many splits)."""

    rows: tuple[tuple[int, int, int], ...]
    group: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    page_size: int = 16
    split: int = 64
    block_rows: int = 16
    num_blocks: int = 1
    kv: torch.dtype | None = None
    softcap: float | None = None


PAIR = ((1, 0, 1), (1, 0, 1))
TREE = ((1, 0, 3), (1, 0, 3), (2, 0, 1), (1, 2, 2), (1, 2, 2), (1, 0, 3))
CASES = {
    "a pair": Case(PAIR),
    "three splits": Case(((1, 0, 3),) * 3),
    "a tree": Case(TREE),
    "a tree in tiles of one token": Case(TREE, group=12),
    "a tree in large tiles": Case(TREE, block_rows=64),
    "more rows than a tile": Case(((1, 0, 1),) * 9),
    "many rows in large tiles": Case(((1, 0, 2),) * 40, group=3, block_rows=32),
    "two blocks": Case(((1, 0, 2),) * 7, num_blocks=2),
    "four blocks": Case(TREE, group=5, num_blocks=4),
    "four blocks, more than one tile": Case(((1, 0, 1),) * 19, num_blocks=4),
    "large blocks": Case(((1, 0, 1),) * 36, block_rows=64, num_blocks=2),
    "drafts": Case(((4, 0, 2), (1, 0, 2), (3, 0, 2))),
    "one query head": Case(TREE, group=1),
    "group of two": Case(TREE, group=2),
    "group of three": Case(TREE, group=3),
    "group of five": Case(TREE, group=5),
    "group of six": Case(TREE, group=6),
    "group of seven": Case(TREE, group=7, block_rows=32),
    "group of eight": Case(TREE, group=8),
    "group of eleven": Case(TREE, group=11),
    "one KV head": Case(TREE, kv_heads=1),
    "three KV heads": Case(TREE, kv_heads=3, group=3),
    "head of 8": Case(PAIR, head_dim=8),
    "head of 24": Case(PAIR, head_dim=24),
    "head of 64": Case(TREE, head_dim=64),
    "head of 80": Case(PAIR, head_dim=80),
    "head of 96": Case(PAIR, head_dim=96),
    "head of 128": Case(PAIR, head_dim=128),
    "head of 256": Case(PAIR, head_dim=256),
    "pages of 1": Case(TREE, page_size=1),
    "pages of 2": Case(TREE, page_size=2),
    "pages of 8": Case(TREE, page_size=8),
    "pages of 64": Case(TREE, page_size=64),
    "pages of 128": Case(PAIR, page_size=128, split=128),
    "long splits": Case(TREE, split=256),
    "soft cap": Case(TREE, softcap=5.0),
    "int8": Case(TREE, kv=torch.int8),
    "fp8": Case(TREE, kv=torch.float8_e4m3fn, group=3),
    "int8 under a soft cap": Case(TREE, kv=torch.int8, softcap=3.0, head_dim=40, page_size=4),
}


@dataclass(frozen=True)
class Step:
    q: torch.Tensor
    pages: KVPages
    shared: SharedPrefixes
    own_parts: torch.Tensor


def make(case: Case, dtype: torch.dtype) -> Step:
    """Rows own one page more than they share, which holds NaN."""
    per_split = case.split // case.page_size
    width = max(splits for _, _, splits in case.rows) * per_split + 1
    num_pages = len(case.rows) * width
    table = torch.randperm(num_pages).view(len(case.rows), width).int()
    shared_pages = torch.zeros(num_pages, dtype=torch.bool)
    for row, (_, like, splits) in enumerate(case.rows):
        table[row, : splits * per_split] = table[like, : splits * per_split].clone()
    queries = np.array([new for new, _, _ in case.rows])
    work = plan_shared_work(
        queries,
        np.array([splits for _, _, splits in case.rows]),
        table.numpy(),
        pages_per_split=per_split,
        tile_tokens=case.block_rows // case.group * case.num_blocks,
        min_saved_splits=1,
    )
    assert work is not None
    for _, _, row, split in work.items.tolist():
        shared_pages[table[row, split * per_split : (split + 1) * per_split].long()] = True
    shape = (num_pages, case.page_size, case.kv_heads, case.head_dim)
    items = work.placed(np.arange(len(case.rows)) * width)
    # One part of each token's own, too.
    first_part = np.cumsum([0, *np.repeat(work.num_splits + 1, queries)])
    buffer, header = packed(items, work.tokens, first_part)
    q = torch.randn(int(queries.sum()), case.kv_heads * case.group, case.head_dim)
    return Step(
        q=q.to(DEVICE, dtype),
        pages=random_pages(shape, shared_pages, case.kv or dtype),
        shared=SharedPrefixes(
            header=header.to(DEVICE),
            buffer=buffer.to(DEVICE),
            page_ids=table.flatten().to(DEVICE),
            split=case.split,
            block_rows=case.block_rows,
            num_blocks=case.num_blocks,
            num_programs=5,
        ),
        own_parts=torch.from_numpy(first_part[1:] - 1),
    )


def packed(
    items: np.ndarray, tokens: np.ndarray, first_part: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """The buffer, with numbers around its parts that would show, and the header."""
    header, pieces, at = [len(items)], [], 0
    for values in (items.ravel(), tokens, first_part):
        header.append(at)
        pieces += [values, np.full(5, 1 << 20)]
        at += len(values) + 5
    return torch.from_numpy(np.concatenate(pieces)).int(), torch.tensor(header).int()


def random_pages(shape: tuple[int, ...], live: torch.Tensor, dtype: torch.dtype) -> KVPages:
    nan = float("nan")
    if dtype.is_floating_point and dtype.itemsize > 1:
        k, v = (torch.randn(shape).to(dtype) for _ in range(2))
        k[~live], v[~live] = nan, nan
        return KVPages(k.to(DEVICE), v.to(DEVICE))
    numbers = [(torch.rand(shape) * 254 - 127).round() for _ in range(2)]
    scales = [torch.rand(shape[:3]) * 0.02 + 0.001 for _ in range(2)]
    for x in scales:
        x[~live] = nan
    k, v = (x.to(dtype).to(DEVICE) for x in numbers)
    return KVPages(k, v, scales[0].to(DEVICE), scales[1].to(DEVICE))


def compute(step: Step, case: Case, *, triton: bool) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (int(step.own_parts.max()) + 1, *step.q.shape[1:])
    out = torch.full(shape, float("nan"), device=DEVICE)
    lse = torch.full(shape[:2], float("nan"), device=DEVICE)
    arguments = (step.q, step.pages, step.shared, out, lse)
    if triton:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(implementation, "is_triton", lambda x: True)
            shared_prefix_attention(*arguments, scale=0.3, softcap=case.softcap)
    else:
        shared_prefix_attention_reference(*arguments, scale=0.3, softcap=case.softcap)
    return out, lse


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_equals_the_definition(case: Case, dtype: torch.dtype) -> None:
    step = make(case, dtype)
    wanted = compute(step, case, triton=False)
    assert wanted[0].isfinite().all(-1).all(-1).sum() == len(wanted[0]) - len(step.own_parts)
    for got, want in zip(compute(step, case, triton=True), wanted, strict=True):
        torch.testing.assert_close(
            got, want, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype], equal_nan=True
        )
