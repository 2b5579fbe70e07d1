"""The steps that an engine computes before any request: together they are of every kind."""

import pytest

from sapwood.runtime.torch_path.draw_arrays import adjustment_arrays, is_limited
from sapwood.runtime.torch_path.first_steps import first_steps
from sapwood.runtime.torch_path.largest_step import largest_step


def test_every_way_to_draw_is_among_them() -> None:
    steps = first_steps(8, 1_000)
    draws = [[s for span in step.spans for s in span.samplings] for step in steps]
    assert any(span.scoring for step in steps for span in step.spans)
    masked_and_limited = {(any(s.banned for s in rows), is_limited(rows)) for rows in draws}
    assert masked_and_limited == {(False, False), (False, True), (True, False), (True, True)}
    found = [arrays[0] for rows in draws if (arrays := adjustment_arrays(rows)) is not None]
    assert {len(arrays.repetition) > 0 for arrays in found} == {False, True}
    assert all(len(arrays.bias_rows) for arrays in found)
    assert any(s.report for rows in draws for s in rows)


def test_prefills_decodes_and_both_are_among_them() -> None:
    lens = {tuple(len(span.token_ids) > 16 for span in b.spans) for b in first_steps(8, 1_000)}
    assert lens == {(True,), (False,), (True, False)}


@pytest.mark.parametrize(("num_rows", "context"), [(1, 1), (1, 1_000), (2, 20), (128, 4_096)])
def test_they_fit_in_what_the_largest_step_needs(num_rows: int, context: int) -> None:
    slots = {span.slot for span in largest_step(512, num_rows, context).spans}
    for batch in first_steps(num_rows, context):
        assert batch.spans and {span.slot for span in batch.spans} <= slots
        assert all(1 <= span.end <= context for span in batch.spans)
