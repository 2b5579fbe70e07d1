"""Bias, penalties and bans on logits, each against its formula."""

import math

import numpy as np
import pytest
import torch

from sapwood.runtime.batch import Penalties, Sampling
from sapwood.runtime.torch_path.drawn import measure
from sapwood.runtime.torch_path.sampler import Sampler

VOCAB = 40


def row(**fields: object) -> Sampling:
    values = {
        "temperature": 0.0,
        "top_k": -1,
        "top_p": 1.0,
        "min_p": 0.0,
        "stream": 1,
        "position": 0,
    }
    return Sampling(**{**values, **fields})  # type: ignore[arg-type]


def choose(logits: list[float], **fields: object) -> int:
    table = torch.full((1, VOCAB), -50.0)
    table[0, : len(logits)] = torch.tensor(logits)
    return Sampler(VOCAB).draw(table, [row(**fields)]).collect()[0]


def penalties(output: list[int], prompt: list[int], **fields: float) -> Penalties:
    values = {"frequency": 0.0, "presence": 0.0, "repetition": 1.0, **fields}
    return Penalties(np.array(output, np.int32), np.array(prompt, np.int32), **values)


@pytest.mark.parametrize(
    "logits, fields, expected",
    [
        ([1.0, 2.0, 1.5], {}, 1),
        ([1.0, 2.0, 2.0], {}, 1),  # the lowest id of a tie
        ([1.0, 2.0, 1.5], {"logit_bias": ((0, 5.0),)}, 0),
        ([1.0, 2.0, 1.5], {"logit_bias": ((1, -100.0), (39, 1.0))}, 2),
        ([1.0, 2.0, 1.5], {"banned": (1,)}, 2),
        ([1.0, 2.0, 1.5], {"banned": (1, 2)}, 0),
        ([1.0, 2.0, 1.5], {"banned": tuple(range(VOCAB))}, 1),  # all of it: the ban gives way
        # one occurrence costs 0.4, two cost 0.8
        ([1.0, 2.0, 1.5], {"penalties": penalties([1], [], frequency=0.4)}, 1),
        ([1.0, 2.0, 1.5], {"penalties": penalties([1, 1], [], frequency=0.4)}, 2),
        ([1.0, 2.0, 1.5], {"penalties": penalties([1, 1], [], presence=0.4)}, 1),
        ([1.0, 2.0, 1.5], {"penalties": penalties([1], [], presence=0.6)}, 2),
        ([1.0, 2.0, 1.5], {"penalties": penalties([], [1], presence=2.0)}, 1),  # output only
        # positive logits are divided, negative ones multiplied; the prompt counts
        ([1.0, 2.0, 1.5], {"penalties": penalties([], [1], repetition=1.5)}, 2),
        ([-1.0, -1.2, -9.0], {"penalties": penalties([0], [], repetition=1.5)}, 1),
    ],
)  # fmt: skip
def test_choice(logits: list[float], fields: dict[str, object], expected: int) -> None:
    assert choose(logits, **fields) == expected


def test_rows_are_independent() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, VOCAB, generator=generator)
    rows = [
        row(temperature=1.0, stream=i, position=i, top_k=5 if i % 2 else -1, banned=(i,))
        for i in range(6)
    ]
    together = Sampler(VOCAB).draw(logits, rows).collect()
    alone = [Sampler(VOCAB).draw(logits[i : i + 1], [rows[i]]).collect()[0] for i in range(6)]
    assert together == alone


def test_logprobs_are_a_log_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
    first, second, third = measure(logits, [0, 1, 0], torch.tensor([1, 0, 2]), [2, 1, 9]).collect()
    norm = math.log(1 + math.e + math.e**3)
    assert first.logprob == pytest.approx(1 - norm)
    assert first.top == ((2, pytest.approx(3 - norm)), (1, pytest.approx(1 - norm)))
    assert second.logprob == pytest.approx(-math.log(3)) and len(second.top) == 1
    assert third.top[2][0] == 0 and len(third.top) == 3  # no more than there are
    assert measure(logits, [], torch.empty(0), []).collect() == ()


def test_draws_change_no_logits() -> None:
    logits = torch.randn(2, VOCAB)
    before = logits.clone()
    Sampler(VOCAB).draw(logits, [row(banned=(3,)), row(logit_bias=((1, 4.0),))])
    assert torch.equal(logits, before)
