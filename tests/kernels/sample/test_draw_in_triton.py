"""The Triton draw against its definition: on the GPU, or without one in Triton's interpreter."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

import triton
import triton.language as tl

from sapwood.kernels import implementation
from sapwood.kernels.sample import DrawRows, draw, triton_kernel, uniforms
from sapwood.kernels.sample.reference import draw_reference
from sapwood.kernels.sample.triton_kernel import draw_triton
from sapwood.kernels.sample.triton_philox import uniform as device_uniform

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Patch = pytest.MonkeyPatch
INF = math.inf


def draw_rows(
    logits: torch.Tensor, rows: list[tuple[float, int, float, float]], u: list[float], **more: Any
) -> list[int]:
    """rows: temperature, top_k, top_p, min_p."""
    temperature, top_k, top_p, min_p = (list(column) for column in zip(*rows, strict=True))
    return draw_triton(
        logits.to(DEVICE),
        torch.tensor(temperature, dtype=torch.float32, device=DEVICE),
        torch.tensor(top_k, dtype=torch.int32, device=DEVICE),
        torch.tensor(top_p, dtype=torch.float32, device=DEVICE),
        torch.tensor(min_p, dtype=torch.float32, device=DEVICE),
        uniforms=torch.tensor(u, dtype=torch.float64, device=DEVICE),
        **more,
    ).tolist()


def defined(
    logits: torch.Tensor, rows: list[tuple[float, int, float, float]], u: list[float]
) -> list[int]:
    tokens = logits.argmax(dim=1)
    warm = [number for number, row in enumerate(rows) if row[0] > 0]
    if warm:
        columns = [torch.tensor([rows[r][i] for r in warm]) for i in range(4)]
        at = torch.tensor([u[r] for r in warm], dtype=torch.float64)
        tokens[warm] = draw_reference(logits[warm], *columns, at)
    return tokens.tolist()


# Vocabulary, spread of the logits, their steps (0: none), tokens of a chunk, and how many tokens
# near the limits find room: 8 is far too few, so that whole rows are searched.
SHAPES = [
    (1, 1.0, 0, 64, 64), (2, 1.0, 0, 64, 64), (3, 0.1, 4, 2, 64), (5, 1.0, 0, 64, 64),
    (7, 2.0, 4, 4, 8), (16, 1.0, 0, 16, 16), (17, 1.0, 0, 16, 16), (31, 3.0, 0, 32, 64),
    (32, 3.0, 4, 32, 64), (33, 3.0, 4, 32, 64), (33, 0.3, 4, 32, 8), (63, 1.0, 0, 64, 64),
    (64, 9.0, 0, 64, 64), (65, 1.0, 0, 64, 64), (77, 0.0, 0, 32, 128), (100, 0.3, 8, 64, 16),
    (127, 1.0, 8, 64, 128), (128, 1.0, 8, 128, 128), (129, 1.0, 8, 128, 256),
    (200, 5.0, 0, 256, 256), (255, 0.1, 0, 128, 256), (257, 2.0, 2, 128, 256),
    (300, 40.0, 0, 128, 64), (400, 0.3, 0, 256, 64), (511, 1.0, 0, 256, 512),
    (600, 3.0, 8, 256, 256), (777, 0.5, 8, 512, 1_024), (1_000, 2.0, 0, 512, 1_024),
    (1_025, 1.0, 8, 1_024, 2_048), (2_049, 3.0, 0, 2_048, 4_096),
    (4_097, 0.3, 8, 2_048, 4_096), (6_000, 3.0, 8, 2_048, 4_096),
]  # fmt: skip
LIMITS = [
    (1.0, -1, 1.0, 0.0), (0.7, 5, 1.0, 0.0), (1.0, -1, 0.9, 0.0), (1.7, 40, 0.5, 0.0),
    (1.0, -1, 1.0, 0.03), (0.5, 200, 0.97, 0.01), (0.0, -1, 1.0, 0.0), (3.0, 10**9, 0.3, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("number", "shape"), list(enumerate(SHAPES)), ids=str)
def test_shapes(number: int, shape: tuple[int, float, int, int, int], monkeypatch: Patch) -> None:
    vocab, spread, steps, chunk, room = shape
    monkeypatch.setattr(triton_kernel, "_CHUNK", chunk)
    monkeypatch.setattr(triton_kernel, "_ROOM", room)
    torch.manual_seed(number)
    logits = torch.randn(3, vocab) * spread
    if steps:
        logits = (logits * steps).round() / steps  # equal logits at every limit
    rows = [LIMITS[(number * 3 + i) % len(LIMITS)] for i in range(3)]
    u = uniforms([number] * 3, [0, 1, 2]).tolist()
    before = logits.clone()
    assert draw_rows(logits, rows, u) == defined(logits, rows, u)
    assert torch.equal(logits, before)


@pytest.mark.slow
@pytest.mark.timeout(1_200)  # nearly flat rows are read some tens of times
@pytest.mark.parametrize("vocab", [50_257, 128_256, 262_144])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_large_vocabularies(vocab: int, spread: float) -> None:
    rows = [LIMITS[0], LIMITS[2], LIMITS[5]]
    logits = torch.randn(3, vocab) * spread
    u = uniforms([vocab] * 3, [0, 1, 2]).tolist()
    assert draw_rows(logits, rows, u) == defined(logits, rows, u)


def kept_weights(
    logits: torch.Tensor, row: tuple[float, int, float, float]
) -> tuple[torch.Tensor, float]:
    """By the definition in float64: the weight of each kept token by id, and how near (as a share
    of all) the top_p limit passes by the sum of some first tokens."""
    temperature, top_k, top_p, min_p = row
    ranked, ids = torch.sort(logits, descending=True, stable=True)
    weights = torch.exp((ranked.double() - ranked[0].double()) / temperature)
    before = (weights.cumsum(0) - weights) / weights.sum()
    rank = torch.arange(len(logits))
    kept = (rank < (top_k if top_k > 0 else len(logits))) & (weights >= min_p)
    margin = float((before - top_p).abs().min()) if top_p < 1 else 1.0
    if top_p < 1:
        kept &= before <= top_p
    margin = min(margin, float((weights - min_p).abs().min()) if 0 < min_p < 1 else 1.0)
    return torch.zeros_like(weights).scatter(0, ids, weights * kept), margin


logit = st.one_of(
    st.floats(-30, 30, width=32),
    st.integers(-20, 20).map(lambda n: n / 4),
    st.sampled_from([-INF, 0.0, -0.0, 1e-30, -1e-30, 1e4]),
)
limits = st.tuples(
    st.sampled_from([0.05, 0.6, 1.0, 1.9, 50.0]),
    st.sampled_from([-1, -1, 1, 2, 5, 12, 500]),
    st.sampled_from([0.0, 0.013, 0.31, 0.77, 0.953, 1.0, 1.0]),
    st.sampled_from([0.0, 0.0, 0.0137, 0.371, 1.0]),
)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(logit, min_size=1, max_size=40).filter(lambda row: max(row) > -INF),
    limits,
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([8, 64]),
)
def test_any_row(
    values: list[float], row: tuple[float, int, float, float], u: float, room: int
) -> None:
    """Equal to the definition, or a boundary within rounding explains the difference."""
    logits = torch.tensor([values], dtype=torch.float32)
    with Patch.context() as patch:
        patch.setattr(triton_kernel, "_CHUNK", 16)
        patch.setattr(triton_kernel, "_ROOM", room)
        (token,) = draw_rows(logits, [row], [u])
    if [token] == defined(logits, [row], [u]):
        return
    weights, margin = kept_weights(logits[0], row)
    upto = weights.cumsum(0) / weights.sum()
    start = float(upto[token - 1]) if token else 0.0
    is_near = start - 1e-6 <= u <= float(upto[token]) + 1e-6
    assert margin < 1e-6 or (is_near and weights[token] > 0)


FINITE = [0.0, 2.0, 1.0, 2.0, -1.0]
EDGES: dict[str, tuple[list[float], tuple[float, int, float, float], float, set[int]]] = {
    "greedy, lowest of equals": (FINITE, (0.0, -1, 1.0, 0.0), 0.9, {1}),
    "nothing allowed": ([-INF] * 5, (1.0, 2, 0.5, 0.1), 0.9, {0}),
    "nothing allowed, greedy": ([-INF] * 5, (0.0, -1, 1.0, 0.0), 0.9, {0}),
    "nothing but NaN": ([math.nan] * 5, (1.0, 2, 0.5, 0.1), 0.5, {0}),
    "NaN is forbidden": ([math.nan, 1.0, math.nan, 0.0, -3.0], (0.01, -1, 1.0, 0.0), 0.5, {1}),
    "NaN is forbidden, greedy": ([math.nan, 1.0, 5.0, 0.0, 5.0], (0.0, -1, 1.0, 0.0), 0.5, {2}),
    "infinite": ([0.0, INF, 1.0, INF, 0.0], (1.0, 3, 0.9, 0.0), 0.99, {1}),
    "one allowed": ([-INF, -INF, -INF, -80.0, -INF], (1.0, -1, 1.0, 0.0), 0.99, {3}),
    "one allowed, limits": ([-INF, -INF, -INF, -80.0, -INF], (1.0, 3, 0.1, 0.5), 0.99, {3}),
    "top_k 1, lowest of equals": (FINITE, (1.0, 1, 1.0, 0.0), 0.999, {1}),
    "top_k beyond": (FINITE, (1.0, 99, 1.0, 0.0), 1 - 2.0**-53, {4}),
    "top_p 0": (FINITE, (1.0, -1, 0.0, 0.0), 0.999, {1}),
    "top_p 1": (FINITE, (1.0, -1, 1.0, 0.0), 1 - 2.0**-53, {4}),
    "min_p 1": (FINITE, (1.0, -1, 1.0, 1.0), 0.999, {3}),
    "cold": (FINITE, (1e-30, -1, 1.0, 0.0), 0.999, {3}),
    "hot": (FINITE, (1e30, -1, 1.0, 0.0), 0.999, {4}),
    "hot, first": (FINITE, (1e30, -1, 1.0, 0.0), 0.0, {0}),
    "hot, limits": (FINITE, (1e30, 2, 0.9, 0.0), 0.6, {3}),
    "far apart": ([3e38, -3e38, 0.0, -INF, 1.0], (1.0, 4, 0.999, 0.0), 0.999, {0}),
    "zero of either sign": ([-0.0, 0.0, -1.0, 0.0, -0.0], (1.0, 2, 1.0, 0.0), 0.999, {1}),
}


@np.errstate(over="ignore")  # a distance beyond float32 is infinite, which is as it should be
def test_edges(monkeypatch: Patch) -> None:
    monkeypatch.setattr(triton_kernel, "_CHUNK", 4)
    monkeypatch.setattr(triton_kernel, "_ROOM", 8)
    logits = torch.tensor([values for values, *_ in EDGES.values()])
    tokens = draw_rows(logits, [e[1] for e in EDGES.values()], [e[2] for e in EDGES.values()])
    wrong = {
        name: token
        for (name, edge), token in zip(EDGES.items(), tokens, strict=True)
        if token not in edge[3]
    }
    assert not wrong


def test_rows_do_not_depend_on_their_neighbours() -> None:
    logits = torch.randn(len(LIMITS), 300) * 3
    u = uniforms([3] * len(LIMITS), list(range(len(LIMITS)))).tolist()
    together = draw_rows(logits, LIMITS, u)
    assert draw_rows(logits.flip(0), LIMITS[::-1], u[::-1])[::-1] == together
    alone = [draw_rows(logits[r : r + 1], [LIMITS[r]], [u[r]])[0] for r in range(len(LIMITS))]
    assert alone == together


def test_rows_may_lie_apart_and_need_no_limits() -> None:
    wide = torch.full((3, 90), 50.0)
    wide[:, :70] = torch.randn(3, 70)
    rows = [(1.0, -1, 1.0, 0.0), (0.5, -1, 1.0, 0.0), (0.0, -1, 1.0, 0.0)]
    u = [0.2, 0.8, 0.5]
    wanted = defined(wide[:, :70], rows, u)
    assert draw_rows(wide.to(DEVICE)[:, :70], rows, u, limited=False) == wanted
    assert draw_rows(wide.to(DEVICE)[:, :70], rows, u) == wanted


def columns(rows: list[tuple[float, int, float, float]], **more: Any) -> DrawRows:
    temperature, top_k, top_p, min_p = (list(column) for column in zip(*rows, strict=True))
    numbers = torch.arange(len(rows), device=DEVICE)
    return DrawRows(
        torch.tensor(temperature, dtype=torch.float32, device=DEVICE),
        torch.tensor(top_k, dtype=torch.int32, device=DEVICE),
        torch.tensor(top_p, dtype=torch.float32, device=DEVICE),
        torch.tensor(min_p, dtype=torch.float32, device=DEVICE),
        numbers * -7_919,  # also streams beyond 2**63
        numbers + 2**40,
        **more,
    )


@pytest.fixture
def in_triton(monkeypatch: Patch) -> Callable[[Callable[[], Any]], Any]:
    """Calls with every op in Triton."""

    def call(function: Callable[[], Any]) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(implementation, "is_triton", lambda x: True)
            return function()

    return call


@pytest.mark.parametrize("vocab", [31, 70])
def test_masks_by_place(vocab: int, in_triton: Callable[[Callable[[], Any]], Any]) -> None:
    """The whole public op, in Triton and on the CPU."""
    torch.manual_seed(vocab)
    rows = [*LIMITS[:7], *LIMITS[:2]]
    logits = torch.randn(len(rows), vocab, device=DEVICE)
    masks = torch.randint(-(2**31), 2**31, (5, -(-vocab // 32)), dtype=torch.int32, device=DEVICE)
    masks[4] = 0  # nothing allowed
    places = torch.tensor([3, 0, -1, 2, 2, -1, 1, -1, 4], dtype=torch.int32, device=DEVICE)
    wanted = columns(rows, masks=masks, places=places)
    got = in_triton(lambda: draw(logits, wanted)).tolist()
    on_cpu = {
        name: value.cpu() if isinstance(value, torch.Tensor) else value
        for name, value in vars(wanted).items()
    }
    assert got == draw(logits.cpu(), DrawRows(**on_cpu)).tolist()
    for row, (token, place) in enumerate(zip(got, places.tolist(), strict=True)):
        assert place in (-1, 4) or masks[place, token // 32] >> token % 32 & 1, row


@triton.jit
def _store_uniforms(streams, positions, out):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    tl.store(out + row, device_uniform(tl.load(streams + row), tl.load(positions + row)))


def test_uniforms_are_philox() -> None:
    streams = [0, 2**64 - 1, 7, 7, 2**63, 0x9E3779B97F4A7C15]
    positions = [0, 3, 2**40, 1, 2**62, 999]
    out = torch.empty(len(streams), dtype=torch.float64, device=DEVICE)
    sent = [
        torch.tensor([n - 2**64 if n >= 2**63 else n for n in values], device=DEVICE)
        for values in (streams, positions)
    ]
    _store_uniforms[(len(streams),)](*sent, out)
    assert out.tolist() == uniforms(streams, positions).tolist()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"temperature": torch.zeros(3)}, r"temperature is \(3,\) for 2 rows"),
        ({"places": torch.zeros(2, dtype=torch.int32)}, "come together"),
        ({"places": torch.zeros(2, dtype=torch.int32),
          "masks": torch.zeros(1, 1, dtype=torch.int32)}, r"masks \(1, 1\) do not fit"),
    ],
)  # fmt: skip
def test_wrong_shapes_are_refused(change: dict[str, Any], told: str) -> None:
    fields = {**vars(columns(LIMITS[:2])), **change}
    with pytest.raises(ValueError, match=told):
        draw(torch.zeros(2, 70), DrawRows(**fields))


def test_a_vocabulary_has_a_limit() -> None:
    with pytest.raises(ValueError, match="262145"):
        draw_rows(torch.empty(1, 2**18 + 1), LIMITS[:1], [0.5])
