"""The Triton kernels of paged attention against the definition: on the GPU, or without one in
Triton's interpreter.

float16 and float32 only: the interpreter's bfloat16 matrix product is wrong. Slots that no row owns
hold NaN or the largest numbers with scales of NaN, and fresh memory holds NaN.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapwood.kernels.kv_pages import KVPages
from sapwood.kernels.paged_attention import paged_attention, plan_attention
from sapwood.kernels.paged_attention.work_list import Cut

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3}
INT8, FP8 = torch.int8, torch.float8_e4m3fn
dtypes = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
Make = Callable[..., Any]


def case(*rows: tuple[int, int], **fields: Any) -> dict[str, Any]:
    return {"rows": rows, **fields}


# Rows of (new tokens, context); splits are 64 tokens unless said otherwise.
DECODE = {
    "first token": case((1, 1)),
    "two tokens": case((1, 2)),
    "page - 1": case((1, 15)),
    "page": case((1, 16)),
    "page + 1": case((1, 17)),
    "split - 1": case((1, 63)),
    "split": case((1, 64)),
    "split + 1": case((1, 65)),
    "two splits": case((1, 128)),
    "unequal rows": case((1, 1), (1, 200), (1, 64), (1, 70)),
    "many parts": case((1, 1_100), split=64),
    "more parts than one block of the merge": case((1, 64 * 17), (1, 64 * 16)),
    "pages of 1": case((1, 70), (1, 5), page_size=1),
    "pages of 2": case((1, 70), (1, 5), page_size=2),
    "pages of 4": case((1, 70), (1, 5), page_size=4),
    "pages of 8": case((1, 70), (1, 5), page_size=8),
    "pages of 32": case((1, 70), (1, 5), page_size=32),
    "pages of 64": case((1, 70), (1, 5), page_size=64),
    "pages of 128": case((1, 130), (1, 5), page_size=128),
    "pages of 256": case((1, 300), (1, 5), page_size=256),
    "group 1": case((1, 70), (1, 9), group=1, kv_heads=2),
    "group 3": case((1, 70), (1, 9), group=3, kv_heads=3),
    "group 4": case((1, 70), (1, 9), group=4, kv_heads=2),
    "group 5": case((1, 70), (1, 9), group=5),
    "group 6": case((1, 70), (1, 9), group=6),
    "group 7": case((1, 70), (1, 9), group=7, kv_heads=2),
    "group 8": case((1, 70), (1, 9), group=8),
    "group 12": case((1, 70), (1, 9), group=12),
    "group 17": case((1, 70), (1, 9), group=17),
    "group 71": case((1, 70), (1, 9), group=71, long_tile=128),
    "head of 8": case((1, 70), (1, 9), head_dim=8),
    "head of 24": case((1, 70), (1, 9), head_dim=24),
    "head of 64": case((1, 70), (1, 9), head_dim=64, group=3, kv_heads=3),
    "head of 80": case((1, 70), (1, 9), head_dim=80),
    "head of 96": case((1, 70), (1, 9), head_dim=96),
    "head of 128": case((1, 70), (1, 9), head_dim=128, group=4),
    "head of 256": case((1, 70), (1, 9), head_dim=256),
    "drafts": case((4, 40), (3, 66), (1, 130), group=3),
    "drafts over the end of a split": case((8, 66), (8, 64), (8, 71)),
    "drafts that fill the tile": case((8, 100), (16, 16), group=1),
    "window": case((1, 200), (1, 10), (1, 70), window=50),
    "window of 1": case((1, 200), (1, 1), window=1),
    "window of a split": case((1, 200), (1, 64), window=64),
    "window over several splits": case((1, 300), (4, 299), window=150),
    "soft cap": case((1, 200), (1, 3), softcap=0.7),
    "wide soft cap": case((1, 200), (1, 3), softcap=50.0, head_dim=64),
    "soft cap and window": case((1, 200), (3, 90), softcap=2.0, window=70),
    "int8": case((1, 200), (1, 3), (1, 64), stored=INT8),
    "int8, pages of 64": case((1, 200), (1, 3), (1, 64), stored=INT8, page_size=64),
    "fp8": case((1, 200), (1, 3), (1, 64), stored=FP8),
    "fp8, heads of 80": case((1, 200), (1, 3), stored=FP8, head_dim=80, group=3),
    "int8, soft cap, window": case((1, 200), (2, 70), stored=INT8, softcap=3.0, window=90),
}
EXTEND = {
    "prefill": case((33, 33)),
    "prefill of a tile": case((32, 32)),
    "prefill of a tile + 1": case((33, 33), group=2),
    "prefill of 17 queries": case((17, 17), group=1),
    "prefill over several tiles": case((100, 100)),
    "chunk": case((40, 100)),
    "chunk at a page's end": case((40, 96)),
    "chunk at a key tile's end": case((40, 128)),
    "chunk of one more": case((40, 129)),
    "two chunks": case((40, 100), (70, 71)),
    "mixed": case((1, 5), (20, 40), (3, 66), (1, 200)),
    "mixed, long rows last": case((1, 130), (1, 1), (50, 50)),
    "drafts beside a prefill": case((8, 100), (33, 40)),
    "pages of 1": case((40, 70), (1, 9), page_size=1),
    "pages of 2": case((40, 70), (1, 9), page_size=2),
    "pages of 4": case((40, 70), (1, 9), page_size=4),
    "pages of 32": case((40, 70), (1, 9), page_size=32),
    "pages of 64": case((40, 70), (1, 9), page_size=64),
    "pages of 128": case((40, 170), (1, 9), page_size=128),
    "group 1": case((70, 90), (1, 9), group=1, kv_heads=2),
    "group 3": case((40, 90), (1, 9), group=3, kv_heads=2),
    "group 5": case((30, 90), (1, 9), group=5),
    "group 6": case((30, 90), (1, 9), group=6),
    "group 7": case((30, 90), (1, 9), group=7),
    "group 12": case((12, 90), (1, 9), group=12),
    "group 17": case((5, 90), (1, 9), group=17),
    "group 71": case((3, 20), (1, 9), group=71, long_tile=128),
    "head of 8": case((40, 70), (1, 9), head_dim=8),
    "head of 40": case((40, 70), (1, 9), head_dim=40),
    "head of 64": case((40, 70), (1, 9), head_dim=64, group=3),
    "head of 80": case((40, 70), (1, 9), head_dim=80),
    "head of 96": case((40, 70), (1, 9), head_dim=96),
    "head of 128": case((40, 70), (1, 9), head_dim=128),
    "head of 256": case((20, 70), (1, 9), head_dim=256),
    "tiles of 128": case((150, 200), (100, 100), long_tile=128),
    "tiles of 128, group 3": case((90, 200), group=3, long_tile=128),
    "window": case((60, 200), (40, 40), (1, 90), window=50),
    "window of 1": case((40, 100), window=1),
    "window of a key tile": case((70, 200), window=64),
    "window wider than the rows": case((40, 70), window=100),
    "soft cap": case((40, 100), (1, 70), softcap=0.7),
    "soft cap and window": case((40, 100), (1, 70), softcap=3.0, window=33),
    "split along the keys": case((40, 300), (2, 5), long_split=128),
    "split along the keys, one tile sees less": case((70, 130), long_split=64),
    "split along the keys, window": case((40, 300), long_split=64, window=100),
    "int8": case((40, 100), (1, 70), stored=INT8),
    "fp8": case((40, 100), (1, 70), stored=FP8),
    "int8, pages of 64, soft cap": case((40, 100), stored=INT8, page_size=64, softcap=2.0),
}


@dtypes
@pytest.mark.parametrize("fields", DECODE.values(), ids=DECODE.keys())
def test_decode(fields: dict[str, Any], dtype: torch.dtype, tensors: Make) -> None:
    check(tensors(dtype, **fields))


@dtypes
@pytest.mark.parametrize("fields", EXTEND.values(), ids=EXTEND.keys())
def test_extend_and_mixed(fields: dict[str, Any], dtype: torch.dtype, tensors: Make) -> None:
    check(tensors(dtype, **fields))


@pytest.mark.slow
@dtypes
def test_long_contexts(dtype: torch.dtype, tensors: Make) -> None:
    shape = {"group": 3, "head_dim": 64, "split": 256}
    check(tensors(dtype, rows=((1, 4_097), (1, 4_096), (2, 4_095)), **shape))
    check(tensors(dtype, rows=((70, 4_097), (1, 4_097)), long_split=1_024, **shape))
    check(tensors(dtype, rows=((70, 4_097), (1, 4_097)), **shape))


def check(step: Any) -> None:
    got, wanted = step.attend(step.plan()), step.wanted()
    assert got.dtype is step.q.dtype and got.shape == step.q.shape
    assert (got.float() - wanted.float()).abs().max() <= TOLERANCE[step.q.dtype]


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_step(data: st.DataObject, tensors: Make) -> None:
    draw = data.draw
    rows = draw(
        st.lists(st.tuples(st.integers(1, 40), st.integers(0, 100)), min_size=1, max_size=3)
    )
    check(
        tensors(
            rows=tuple((new, new + old) for new, old in rows),
            group=draw(st.sampled_from([1, 2, 3, 5, 12])),
            head_dim=draw(st.sampled_from([8, 16, 24])),
            page_size=draw(st.sampled_from([1, 4, 16, 64])),
            window=draw(st.none() | st.integers(1, 150)),
            softcap=draw(st.none() | st.sampled_from([0.5, 30.0])),
            stored=draw(st.sampled_from([None, None, INT8])),
            long_split=draw(st.sampled_from([64, 128, 4_096])),
            seed=draw(st.integers(0, 9)),
        )
    )


STEP = case((1, 5), (1, 200), (20, 90), (3, 66), (40, 40), (1, 64), group=3)


@dtypes
@pytest.mark.parametrize("fields", [{}, {"window": 70}, {"stored": INT8, "softcap": 5.0}], ids=str)
def test_a_row_never_depends_on_its_neighbours(
    fields: dict[str, Any], dtype: torch.dtype, tensors: Make
) -> None:
    """Bit for bit: alone, beside others, in another order."""
    step = tensors(dtype, **STEP, **fields)
    together = step.attend(step.plan())
    for number in range(len(step.case.rows)):
        alone, tokens = step.row(number)
        assert torch.equal(alone.attend(alone.plan()), together[tokens])
    order = [4, 1, 5, 0, 3, 2]
    parts = [step.row(number)[1] for number in order]
    plan = plan_attention(
        [step.case.queries[number] for number in order],
        [step.case.contexts[number] for number in order],
        step.page_table[order],
        16,
        group=3,
        window=step.case.window,
        dtype=dtype,
        device=step.q.device,
        cut=step.case.cut,
    )
    shuffled = step.attend(plan, torch.cat([step.q[part] for part in parts]))
    assert torch.equal(shuffled, torch.cat([together[part] for part in parts]))


@pytest.mark.parametrize("window", [None, 30])
def test_a_chunk_never_depends_on_where_it_began(window: int | None, tensors: Make) -> None:
    """Bit for bit: the last 20 of 40 new tokens, and the same 20 as a chunk of their own."""
    step = tensors(rows=((40, 100),), window=window)
    whole = step.attend(step.plan())
    plan = plan_attention(
        [20],
        [100],
        step.page_table,
        16,
        group=2,
        window=window,
        dtype=step.q.dtype,
        device=step.q.device,
    )
    assert torch.equal(step.attend(plan, step.q[20:]), whole[20:])


def test_splits_chosen_by_the_step_give_the_same_result(tensors: Make) -> None:
    step = tensors(rows=((1, 1_000), (1, 5), (30, 60)))
    plan = step.plan(cut=None, deterministic=False)
    assert plan.work is not None and plan.work.cut.split == 128
    assert (step.attend(plan) - step.wanted()).abs().max() <= 1e-5


def test_tiles_of_128_where_there_are_many_queries(tensors: Make) -> None:
    step = tensors(rows=((1_030, 1_030),), group=8, page_size=256)
    tiles = []
    for head_dim in (None, 64, 65):
        work = step.plan(cut=None, head_dim=head_dim).work
        assert work is not None
        tiles.append(work.cut.long_tile)
    assert tiles == [128, 128, 64]  # float32: 256 bytes are 64 numbers
    step = tensors(rows=((1_030, 1_030), (1, 1)), group=8, page_size=256)
    work = step.plan(cut=None).work
    assert work is not None and work.cut.long_tile == 64


def test_a_page_table_on_the_device_is_used_as_it_is(tensors: Make) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is one memory")
    step = tensors(rows=((1, 100), (30, 60)))
    together = step.attend(step.plan())
    step.page_table = step.page_table.cuda()
    assert torch.equal(step.attend(step.plan()), together)


def test_what_cannot_be_is_refused(tensors: Make) -> None:
    step = tensors(rows=((1, 9),))
    plan = step.plan()
    with pytest.raises(TypeError, match="q is torch.float16, pages hold torch.float32"):
        paged_attention(step.q.half(), step.pages, plan, scale=1.0)
    for scale, softcap in ((0.0, None), (1.0, 0.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match="must be positive"):
            paged_attention(step.q, step.pages, plan, scale=scale, softcap=softcap)
    with pytest.raises(ValueError, match="pages of 12 tokens: must be a power of 2"):
        tensors(rows=((1, 9),), page_size=12).plan()
    with pytest.raises(ValueError, match="129 query heads for each KV head, at most 128"):
        tensors(rows=((1, 9),), group=129, long_tile=256).plan(cut=None)
    with pytest.raises(ValueError, match="Cut: 65 heads of a group in tiles of 64"):
        Cut(65, None)
    with pytest.raises(ValueError, match="a split of 80 keys"):
        plan = step.plan(cut=Cut(2, None, split=80))
        paged_attention(step.q, step.pages, plan, scale=1.0)


def test_slots_beyond_2_to_the_31_numbers(tensors: Make) -> None:
    """The pages of one layer may hold more numbers than 32 bits can count."""
    if torch.cuda.is_available():
        pytest.skip("would need the memory; here untouched pages cost none")
    step = tensors(rows=((1, 70), (20, 40)), stored=INT8, kv_heads=8, head_dim=128, split=64)
    pages = step.pages
    first = (1 << 31) // pages.k[0].numel() + 1
    far = [
        torch.from_numpy(np.zeros((first + len(x), *x.shape[1:]), x.numpy().dtype))
        for x in pages.tensors()
    ]
    for there, here in zip(far, pages.tensors(), strict=True):
        there[first:] = here
    wanted = step.attend(step.plan())
    step.pages, step.page_table = KVPages(*far), step.page_table + first
    assert torch.equal(step.attend(step.plan()), wanted)
