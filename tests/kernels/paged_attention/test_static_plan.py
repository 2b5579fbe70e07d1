"""Plans whose tensors stay where they are: filled again, they say what a fresh plan says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapwood.kernels.paged_attention import Capacity, StaticPlan, paged_attention
from sapwood.kernels.paged_attention.reference import paged_attention_reference

Make = Callable[..., Any]
ROOM = Capacity(rows=4, tokens=12, pages_per_row=20, num_programs=3, parts=64)


def static(step: Any, room: Capacity = ROOM) -> StaticPlan:
    case = step.case
    return StaticPlan(
        room,
        case.page_size,
        group=case.group,
        window=case.window,
        device=step.q.device,
        cut=case.cut,
    )


def attend(step: Any, plan: StaticPlan) -> torch.Tensor:
    """Of the step's tokens, after checking that the padding's results are zeros."""
    padding = plan.capacity.tokens - len(step.q)
    q = torch.cat([step.q, step.q.new_full((padding, *step.q.shape[1:]), 3.0)])
    plan.fill(step.case.queries, step.case.contexts, step.page_table.numpy())
    out = step.attend(plan.plan, q)
    assert not out[len(step.q) :].any()
    return out[: len(step.q)]


STEPS = {
    "one row": ((1, 70),),
    "all rows": ((1, 5), (1, 300), (1, 64), (1, 65)),
    "drafts": ((4, 130), (8, 40)),
    "a row without new tokens": ((1, 70), (0, 33), (2, 66)),
    "a row without anything": ((0, 0), (1, 70), (0, 0)),
    "nothing": ((0, 0),),
}


@pytest.mark.parametrize("window", [None, 40])
def test_filled_with_one_step_after_another(window: int | None, tensors: Make) -> None:
    """Bit for bit what a plan of its own gives, whatever was filled in before."""
    plan = None
    for rows in [*STEPS.values(), *reversed(STEPS.values())]:
        step = tensors(rows=rows, window=window)
        plan = plan or static(step)
        address = plan.plan.rows.table.data_ptr()
        got = attend(step, plan)
        assert plan.plan.rows.table.data_ptr() == address
        present = tuple(row for row in rows if row[0])
        if present:
            keep = [number for number, row in enumerate(rows) if row[0]]
            step.case = type(step.case)(rows=present, window=window)
            step.page_table = step.page_table[keep]
            assert torch.equal(got, step.attend(step.plan()))
            assert (got - step.wanted()).abs().max() <= 1e-5


@pytest.mark.parametrize("num_programs", [1, 2, 7, 100])
def test_any_number_of_programs(num_programs: int, tensors: Make) -> None:
    step = tensors(rows=((1, 300), (1, 5), (20, 90), (3, 66), (40, 40)), group=3, kv_heads=2)
    room = Capacity(8, 80, 20, num_programs, parts=64, long_rows=True)
    assert torch.equal(attend(step, static(step, room)), step.attend(step.plan()))


@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 250)), min_size=1, max_size=4),
    num_programs=st.integers(1, 9),
)
def test_any_step(rows: list[tuple[int, int]], num_programs: int, tensors: Make) -> None:
    step = tensors(rows=tuple((new, new + old) for new, old in rows))
    room = Capacity(4, 12, 20, num_programs)
    got = attend(step, static(step, room))
    plan = static(step)
    plan.fill(step.case.queries, step.case.contexts, step.page_table.numpy())
    q = torch.cat([step.q, step.q.new_zeros((12 - len(step.q), *step.q.shape[1:]))])
    wanted = paged_attention_reference(q, step.pages, plan.plan, scale=0.3)[: len(step.q)]
    assert len(got) == 0 or (got - wanted).abs().max() <= 1e-5


def test_without_triton_the_definition_computes(
    tensors: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tensors(rows=((1, 70), (0, 3), (4, 66)))
    plan = static(step)
    wanted = attend(step, plan)
    monkeypatch.undo()
    assert (attend(step, plan) - wanted).abs().max() <= 1e-5


def test_written_for_a_copy_of_ones_own(tensors: Make) -> None:
    step = tensors(rows=((1, 70), (4, 66)))
    plan, twin = static(step), static(step)
    wanted = attend(step, plan)
    host = np.full(twin.size, -1, np.int32)
    used = twin.write(host, step.case.queries, step.case.contexts, step.page_table.numpy())
    assert used < twin.size and (host[used:] == -1).all()
    assert twin.plan.work is not None
    twin.plan.work.buffer[:used] = torch.from_numpy(host[:used])
    q = torch.cat([step.q, step.q.new_zeros((7, *step.q.shape[1:]))])
    got = paged_attention(q, step.pages, twin.plan, scale=0.3)
    assert torch.equal(got[:5], wanted)


REFUSED = {
    "rows": ([1] * 5, [1] * 5, "5 rows, room for 4"),
    "tokens": ([4] * 4, [9] * 4, "16 tokens, room for 12"),
    "context": ([1], [321], "321 tokens of context, room for 320"),
    "long rows": ([9], [9], "a row has 9 new tokens; planned for short rows"),
    "lengths": ([3], [2], "more new tokens than context"),
    "parts": ([8, 4], [320, 320], "60 parts, room for 50"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(
    case: tuple[list[int], list[int], str], tensors: Make
) -> None:
    queries, contexts, message = case
    plan = static(tensors(rows=((1, 1),)), Capacity(4, 12, 20, 3, parts=50))
    assert not plan.fits(queries, contexts) and plan.fits([1], [320])
    with pytest.raises(ValueError, match=message):
        plan.fill(queries, contexts, np.zeros((len(queries), 21), np.int32))
