"""Sampling against a plain definition in float64, and Philox against its published vectors."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapwood.kernels.sample import numpy_cpu, sample, uniforms
from sapwood.kernels.sample.philox import philox
from sapwood.kernels.sample.reference import draw_reference

FULL = 2**32 - 1
# Known answers of Random123 for philox4x32-10: counter, key, output.
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((FULL,) * 4, (FULL,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), VECTORS)
def test_philox_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], output: tuple[int, ...]
) -> None:
    words = [np.array([word], dtype=np.uint64) for word in (*counter, *key)]
    got = philox((words[0], words[1], words[2], words[3]), (words[4], words[5]))
    assert tuple(int(word[0]) for word in got) == output


def test_uniforms_are_addressed_by_stream_and_position() -> None:
    streams, positions = [0, 2**64 - 1, 7, 7, 7], [0, 3, 0, 1, 2**40]
    together = uniforms(streams, positions)
    assert together.dtype == np.float64
    assert ((together >= 0) & (together < 1)).all() and len(set(together)) == 5
    alone = [uniforms([s], [p])[0] for s, p in zip(streams, positions, strict=True)]
    assert together.tolist() == alone
    # 53 bits of the first two output words of the known answer for zeros.
    assert together[0] == ((0xE169C58D << 32 | 0x6627E8D5) >> 11) / 2**53
    assert uniforms([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 streams for 1 positions"):
        uniforms([1, 2], [1])


def test_uniforms_are_uniform() -> None:
    drawn = uniforms([11] * 20_000, list(range(20_000)))
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 44  # chi-square, 19 degrees, p = 0.001


def naive(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float, u: float
) -> int:
    """The definition, token by token."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if temperature == 0:
        return order[0]
    largest = logits[order[0]]
    weights = [math.exp((logit - largest) / temperature) for logit in logits]
    total = sum(weights)
    allowed, before = set(), 0.0
    for rank, token in enumerate(order):
        inside = (top_k < 0 or rank < top_k) and before <= top_p * total
        if inside and weights[token] >= min_p:
            allowed.add(token)
        before += weights[token]
    target = u * sum(weights[token] for token in allowed)
    reached = 0.0
    for token in sorted(allowed):
        reached += weights[token]
        if target < reached:
            return token
    raise AssertionError("no token reached")


def draw(
    logits: torch.Tensor,
    temperature: Sequence[float],
    top_k: Sequence[int],
    top_p: Sequence[float],
    min_p: Sequence[float],
    u: Sequence[float],
) -> list[int]:
    tokens = sample(
        logits,
        torch.tensor(temperature),
        torch.tensor(top_k),
        torch.tensor(top_p),
        torch.tensor(min_p),
        torch.tensor(u, dtype=torch.float64),
    )
    assert tokens.dtype is torch.int64
    ids: list[int] = tokens.tolist()
    return ids


row = st.tuples(
    # Quarters, so that equal logits and exact ties at a limit are common.
    st.lists(st.integers(-20, 20).map(lambda n: n / 4), min_size=6, max_size=6),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.sampled_from([-1, 1, 2, 4, 6, 50]),
    st.sampled_from([0.013, 0.31, 0.77, 0.953, 1.0]),
    st.sampled_from([0.0, 0.0137, 0.371, 1.0]),
    st.sampled_from([0.0, 0.0731, 0.3517, 0.6113, 0.9177, 1 - 2.0**-53]),
)


@pytest.mark.parametrize("block", [2, 256])
@settings(deadline=None, max_examples=100)
@given(rows=st.lists(row, min_size=1, max_size=5))
def test_equals_the_definition(
    block: int, rows: list[tuple[list[float], float, int, float, float, float]]
) -> None:
    logits = torch.tensor([r[0] for r in rows])
    before = logits.clone()
    limits = [list(column) for column in zip(*rows, strict=True)][1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_cpu, "_BLOCK", block)
        got = draw(logits, *limits)
    assert torch.equal(logits, before)
    wanted = [naive(*r) for r in rows]
    assert got == wanted
    drawn = torch.tensor(limits[0]) > 0
    columns = [torch.tensor(column)[drawn] for column in limits]
    columns[-1] = torch.tensor(limits[-1], dtype=torch.float64)[drawn]
    assert draw_reference(logits[drawn], *columns).tolist() == [
        token for token, warm in zip(wanted, drawn.tolist(), strict=True) if warm
    ]


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_equals_the_definition_on_a_large_vocabulary(spread: float) -> None:
    """Logits in steps of 1/8: hundreds of equal ones at every limit."""
    num_rows = 48
    logits = (torch.randn(num_rows, 6_000) * spread * 8).round() / 8
    temperature = torch.tensor([0.5, 1.0, 1.7] * 16)
    top_k = torch.tensor([-1, 1, 7, 200, 5_999, 6_000] * 8)
    top_p = torch.tensor([1.0, 0.9, 0.5, 0.999] * 12)
    min_p = torch.tensor([0.0, 0.0, 0.0, 0.03] * 12).roll(1)
    u = torch.from_numpy(uniforms([9] * num_rows, list(range(num_rows))))
    limits = (temperature, top_k, top_p, min_p, u)
    assert torch.equal(sample(logits, *limits), draw_reference(logits, *limits))


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = torch.zeros(2, 5_000)
    logits[0, [70, 4_000]] = 3.0
    assert draw(logits, [0.0] * 2, [-1] * 2, [1.0] * 2, [0.0] * 2, [0.9] * 2) == [70, 0]


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = torch.full((4, 40), -math.inf)
    logits[:, [3, 17]] = torch.tensor([-2.0, -2.0])
    u = [0.0, 0.4999, 0.5001, 1 - 2.0**-53]
    assert draw(logits, [1.0] * 4, [-1] * 4, [1.0] * 4, [0.0] * 4, u) == [3, 3, 17, 17]
    assert draw(logits, [9.0] * 4, [30] * 4, [0.99] * 4, [0.1] * 4, u) == [3, 3, 17, 17]


def test_extreme_temperatures() -> None:
    logits = torch.tensor([[1.0, 1.5, 1.25]])
    for u in (0.0, 0.5, 1 - 2.0**-53):
        assert draw(logits, [1e-30], [-1], [1.0], [0.0], [u]) == [1]
    got = [draw(logits, [1e30], [-1], [1.0], [0.0], [u])[0] for u in (0.1, 0.5, 0.9)]
    assert got == [0, 1, 2]


def test_a_row_with_nothing_finite_still_answers() -> None:
    logits = torch.stack(
        [torch.full((9,), -math.inf), torch.full((9,), math.nan), torch.arange(9.0)]
    )
    got = draw(logits, [1.0] * 3, [3] * 3, [0.5] * 3, [0.1] * 3, [0.5] * 3)
    everywhere = [torch.full((3,), value) for value in (1.0, 3, 0.5, 0.1)]
    half = torch.full((3,), 0.5, dtype=torch.float64)
    assert draw_reference(logits, *everywhere, half).tolist() == got
    assert got[0] == 0 and 0 <= got[1] < 9  # and neither disturbs its neighbour
    assert got[2] == draw(logits[2:], [1.0], [3], [0.5], [0.1], [0.5])[0]


def test_rows_do_not_depend_on_their_neighbours() -> None:
    logits = torch.randn(6, 3_000) * 4
    settings_of = ([0.7, 0.0, 1.0, 1.3, 1.0, 2.0], [-1, -1, 40, -1, 5, -1])
    limits = ([1.0, 1.0, 1.0, 0.9, 0.5, 0.99], [0.0, 0.0, 0.0, 0.0, 0.1, 0.02])
    u = [0.1, 0.3, 0.5, 0.7, 0.9, 0.2]
    together = draw(logits, *settings_of, *limits, u)
    alone = [
        draw(logits[i : i + 1], *([column[i]] for column in (*settings_of, *limits, u)))[0]
        for i in range(6)
    ]
    assert together == alone


def test_frequencies_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 0.5]]).expand(8_000, 4)
    u = uniforms([5] * 8_000, list(range(8_000))).tolist()
    got = draw(logits, [1.0] * 8_000, [3] * 8_000, [1.0] * 8_000, [0.0] * 8_000, u)
    weights = np.array([0.0, math.e, math.e**2, math.e**0.5])
    expected = 8_000 * weights / weights.sum()
    counts = np.bincount(got, minlength=4)
    assert counts[0] == 0
    assert ((counts[1:] - expected[1:]) ** 2 / expected[1:]).sum() < 13.8  # p = 0.001


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"top_p is \(2,\) for 1 rows"):
        draw(torch.zeros(1, 4), [1.0], [-1], [1.0, 1.0], [0.0], [0.5])
    with pytest.raises(TypeError, match="must be float32"):
        draw(torch.zeros(1, 4).half(), [1.0], [-1], [1.0], [0.0], [0.5])
