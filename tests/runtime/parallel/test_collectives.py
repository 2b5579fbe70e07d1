"""Sums and exchanges of several ranks over gloo; here each rank is a thread with a group of its
own."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import pytest
import torch

from sapwood.runtime.parallel import collectives
from sapwood.runtime.parallel.collectives import ProcessesGroup, join_meeting, open_meeting

SECONDS = 60.0
T = TypeVar("T")


def on_ranks(size: int, body: Callable[[ProcessesGroup], T], *, is_ordered: bool = True) -> list[T]:
    """What `body` returns on each rank."""
    store = open_meeting(size)

    def run(rank: int) -> T:
        mine = store if rank == 0 else join_meeting(store.port, size)
        cpu = torch.device("cpu")
        return body(ProcessesGroup.join(mine, rank, size, cpu, is_ordered=is_ordered))

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(run, range(size), timeout=SECONDS))


def numbers(rank: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    return (torch.randn(shape, generator=generator) * 10.0 ** (rank % 3)).to(dtype)


SHAPES = [(1,), (3, 5), (2, 0), (1, 4_097), (7, 30_011)]  # the last is beyond one exchange


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_sum_is_in_the_order_of_the_ranks(size: int, dtype: torch.dtype) -> None:
    """Bit for bit, at every size: so each number's sum depends on its summands alone."""

    def body(group: ProcessesGroup) -> list[torch.Tensor]:
        with torch.inference_mode():
            return [group.all_reduce(numbers(group.rank, *s, dtype=dtype)) for s in SHAPES]

    assert numbers(0, *SHAPES[-1]).nbytes > collectives._ONE_EXCHANGE
    everyone = on_ranks(size, body)
    for index, shape in enumerate(SHAPES):
        expected = numbers(0, *shape, dtype=dtype).float()
        for rank in range(1, size):
            expected = expected + numbers(rank, *shape, dtype=dtype).float()
        for sums in everyone:
            assert sums[index].dtype is dtype
            assert torch.equal(sums[index], expected.to(dtype))


def test_a_sum_in_any_order() -> None:
    sums = on_ranks(3, lambda group: group.all_reduce(numbers(group.rank, 4, 9)), is_ordered=False)
    expected = sum(numbers(rank, 4, 9).double() for rank in range(3))
    for each in sums:
        assert torch.allclose(each.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(1, 12), (5, 12), (5, 10), (0, 12)])
def test_parts_side_by_side(rows: int, columns: int) -> None:
    together = on_ranks(3, lambda group: group.all_gather(numbers(group.rank, rows, 4), columns))
    expected = torch.cat([numbers(rank, rows, 4) for rank in range(3)], dim=1)[:, :columns]
    for each in together:
        assert torch.equal(each, expected)
        assert each.is_contiguous()


def test_everyone_has_what_rank_0_had() -> None:
    def body(group: ProcessesGroup) -> torch.Tensor:
        ids = torch.full((5,), group.rank, dtype=torch.int64)
        group.broadcast(ids)
        return ids

    assert all(each.tolist() == [0] * 5 for each in on_ranks(3, body))


def test_two_groups_in_one_process_do_not_meet() -> None:
    for _ in range(2):
        assert on_ranks(2, lambda group: group.all_reduce(torch.ones(1)).item()) == [2.0, 2.0]
        gc.collect()


def test_the_meeting_is_on_this_machine_alone() -> None:
    store = open_meeting(1)
    assert store.host == "127.0.0.1"
    assert store.port > 0


def test_who_waits_for_a_rank_that_never_comes_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "_MEETING", timedelta(seconds=1))
    store = open_meeting(2)
    with pytest.raises(RuntimeError):
        ProcessesGroup.join(store, 0, 2, torch.device("cpu"), is_ordered=True)
